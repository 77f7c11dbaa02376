"""The GAN and the VAE: losses and penalties against closed forms, sizes by the rule, exact resume, two modes kept."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from training import FLOAT32, small_source

from sfumato.core import Noise, SfumatoError
from sfumato.data import Source
from sfumato.measure.rival import (
    Discriminator,
    GanRecipe,
    GanTrainer,
    Generator,
    Shape,
    VaeRecipe,
    VaeTrainer,
    fastest,
    fitted,
    gradient_penalty,
    relativistic,
)
from sfumato.measure.rival.nets import Block, stages
from sfumato.measure.rival.vae import kl_to_normal
from sfumato.settings import override
from sfumato.train import Budget, Diverged, Setting, checkpoint, pick_recipe

WEIGHTS = 12_000
BF16 = Setting(torch.bfloat16, channels_last=True)
TINY = GanRecipe(z=8, batch=8, group=8, every=2)


def tiny_gan(steps: int = 20, setting: Setting = FLOAT32, **changes) -> GanTrainer:
    return GanTrainer(replace(TINY, **changes), small_source(), Budget(steps=steps), setting, WEIGHTS)


def tiny_vae(steps: int = 20, setting: Setting = FLOAT32, **changes) -> VaeTrainer:
    recipe = VaeRecipe(z=8, batch=8, group=8, **changes)
    return VaeTrainer(recipe, small_source(), Budget(steps=steps), setting, WEIGHTS)


def test_the_relativistic_loss_is_its_formula() -> None:
    real, fake = torch.randn(2, 50, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = np.log1p(np.exp(-(real - fake).numpy())).mean()
    assert relativistic(real, fake).item() == pytest.approx(expected, rel=1e-12)
    assert relativistic(real, real).item() == pytest.approx(math.log(2))
    assert relativistic(real + 7, fake + 7).item() == pytest.approx(expected, rel=1e-9)


def test_the_penalty_of_a_linear_discriminator_is_its_squared_weight() -> None:
    generator = torch.Generator().manual_seed(1)
    w = torch.randn(12, generator=generator, requires_grad=True)
    x = torch.randn(5, 3, 2, 2, generator=generator)
    penalty = gradient_penalty(lambda x: x.flatten(1) @ w, x)
    penalty.backward()
    assert penalty.item() == pytest.approx(w.square().sum().item(), rel=1e-6)
    assert torch.allclose(w.grad, 2 * w.detach())


def test_the_penalty_of_a_quadratic_discriminator() -> None:
    generator = torch.Generator().manual_seed(2)
    a = torch.randn(6, 6, generator=generator)
    a = a + a.T
    x = torch.randn(7, 6, generator=generator)
    penalty = gradient_penalty(lambda x: 0.5 * (x @ a * x).sum(1), x)
    assert penalty.item() == pytest.approx((x @ a).square().sum(1).mean().item(), rel=1e-5)


def test_the_discriminator_learns_by_loss_plus_half_gamma_times_both_penalties() -> None:
    """The gradient that reaches the optimiser, against the published formula taken apart: R1 and R2 each on their own."""
    trainer = tiny_gan(every=1, gamma=0.7, gamma_end=0.7)
    for block in trainer.discriminator.modules():
        if isinstance(block, Block):  # away from the start, where the branches are zero
            nn.init.normal_(block.narrow.weight, 0, 0.1, generator=torch.Generator().manual_seed(3))
    noise = Noise.of(0, 3).at(0)
    x = trainer.source.batch(torch.arange(3)).x0
    made = trainer.generator(trainer.latent(noise.at(1))).detach()
    d, parameters = trainer.discriminator, list(trainer.discriminator.parameters())

    def squared(pictures: Tensor) -> Tensor:
        total = torch.zeros(())
        for picture in pictures:
            one = picture[None].requires_grad_()
            total = total + torch.autograd.grad(d(one)[0], one, create_graph=True)[0].square().sum()
        return total / len(pictures)

    loss = torch.log1p(torch.exp(-(d(x) - d(made)))).mean() + 0.7 / 2 * (squared(x) + squared(made))
    expected = torch.autograd.grad(loss, parameters)
    caught: list[Tensor] = []
    trainer.optimisers[1].step = lambda: caught.extend(p.grad.clone() for p in parameters)
    trainer._update(x, noise)
    for ours, theirs in zip(caught, expected, strict=True):
        assert torch.allclose(ours, theirs, rtol=2e-3, atol=1e-5)


def test_lazy_penalties_weigh_as_much_over_time() -> None:
    """One penalty each 4 steps, four times as heavy: the same total over 4 steps of unchanged networks."""
    totals = []
    for every in (1, 4):
        trainer = tiny_gan(every=every, gamma_end=1.0)
        caught = [torch.zeros_like(p) for p in trainer.discriminator.parameters()]

        def collect(caught=caught, trainer=trainer) -> None:
            for total, p in zip(caught, trainer.discriminator.parameters(), strict=True):
                total += p.grad

        trainer.optimisers[0].step = lambda: None
        trainer.optimisers[1].step = collect
        x, noise = trainer.source.batch(torch.arange(8)).x0, Noise.of(0, 8)
        for trainer.step in range(4):
            trainer._update(x, noise)
        totals.append(caught)
    for a, b in zip(*totals, strict=True):
        assert torch.allclose(a, b, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(("size", "channels"), [(32, 1), (32, 3), (64, 3)])
def test_generator_and_discriminator_have_the_weights_of_the_denoiser(size, channels) -> None:
    pixels = np.zeros((70, size, size, channels), np.uint8)
    pixels[::2] = 255
    source = Source("flat", pixels, tuple(f"{k}.png" for k in range(70)))
    recipe = pick_recipe("default", size).fit_to(source)
    with torch.device("meta"):
        weights = sum(p.numel() for p in recipe.build().parameters())
    shape, shares = GanRecipe().shape(source, recipe.net.patch)
    for build in (Generator, Discriminator):
        with torch.device("meta"):
            net = build(fitted(shape, shares, weights, build))
        assert sum(p.numel() for p in net.parameters()) == pytest.approx(weights, rel=0.03)


@pytest.mark.parametrize(
    ("picture", "patch"), [((1, 8, 8), 1), ((3, 12, 20), 1), ((3, 28, 28), 1), ((3, 32, 48), 2), ((1, 5, 7), 1)]
)
def test_networks_fit_pictures_of_any_shape(picture, patch) -> None:
    n = stages(picture[1], picture[2], patch)
    shape = Shape(picture, tuple(32 // 2**k for k in range(n)), z=8, patch=patch, group=8)
    x = Generator(shape)(torch.randn(2, 8))
    assert x.shape == (2, *picture)
    assert Discriminator(shape)(x).shape == (2,)


def test_residual_branches_start_as_the_identity() -> None:
    x = torch.randn(2, 16, 4, 4)
    assert torch.equal(Block(16, 8, depth=3)(x), x)


def test_a_picture_does_not_depend_on_how_many_are_drawn_and_the_average_is_drawn_with() -> None:
    trainer = tiny_gan()
    list(trainer.steps())
    assert torch.allclose(trainer.sample(5, 3)[:2], trainer.sample(2, 3), atol=1e-5)
    before = trainer.sample(4, 0)
    for p in trainer.generator.parameters():
        p.data.zero_()
    assert torch.equal(trainer.sample(4, 0), before)


@pytest.mark.parametrize("make", [tiny_gan, tiny_vae])
@pytest.mark.parametrize("setting", [FLOAT32, BF16])
def test_a_resumed_run_is_the_same_run(tmp_path, make, setting) -> None:
    straight = make(setting=setting)
    list(straight.steps())
    stopped = make(setting=setting)
    for progress in stopped.steps():
        if progress.step == 7:
            break
    checkpoint.save(tmp_path / "00000007", *stopped.state())
    resumed = make(setting=setting)
    files = {name: checkpoint.load(tmp_path / "00000007", name) for name in ("weights", "ema", "optimiser")}
    resumed.load(files, checkpoint.load_state(tmp_path / "00000007"))
    list(resumed.steps())
    (theirs, told), (ours, again) = straight.state(), resumed.state()
    for name, group in theirs.items():
        assert group.keys() == ours[name].keys()
        assert all(torch.equal(tensor, ours[name][key]) for key, tensor in group.items()), name
    assert told["step"] == again["step"] == 20 and told["sums"] == again["sums"]


def test_weights_of_another_size_are_refused() -> None:
    files, state = tiny_gan().state()
    other = GanTrainer(TINY, small_source(), Budget(steps=2), FLOAT32, 4 * WEIGHTS)
    with pytest.raises(SfumatoError, match="another model's"):
        other.load(files, state)


def two_kinds(n: int = 128) -> Source:
    """Dark pictures and bright ones, a little noisy."""
    rng = np.random.default_rng(0)
    level = np.where(np.arange(n) % 2, 40, 215)[:, None, None, None]
    pixels = (level + rng.integers(-10, 11, (n, 8, 8, 1))).astype(np.uint8)
    return Source("two kinds", pixels, tuple(f"{k}.png" for k in range(n)))


def test_a_gan_keeps_both_of_two_modes() -> None:
    recipe = replace(TINY, batch=16)
    trainer = GanTrainer(recipe, two_kinds(), Budget(steps=300), FLOAT32, WEIGHTS)
    assert all(math.isfinite(progress.loss) for progress in trainer.steps())
    level = trainer.sample(200, 0).mean((1, 2, 3))
    bright, dark = (level > 0.3).float().mean().item(), (level < -0.3).float().mean().item()
    assert bright > 0.2 and dark > 0.2, (bright, dark)


def test_a_run_that_leaves_the_finite_numbers_stops_and_says_so() -> None:
    trainer = tiny_gan()
    steps = trainer.steps()
    next(steps)
    trainer.discriminator.last.weight.data[0, 0] = math.nan
    with pytest.raises(Diverged, match="stopped at step 2: d_loss is not finite"):
        next(steps)


def test_figures_are_means_since_last_asked_for() -> None:
    trainer = tiny_gan(steps=6)
    losses = [progress.loss for progress in trainer.steps()]
    figures = trainer.figures()
    assert figures["d_loss"] == pytest.approx(sum(losses) / 6)
    assert {"g_loss", "gap", "penalty", "d_gradient", "g_gradient"} <= figures.keys()
    assert trainer.figures() == {}


def test_the_kl_of_the_vae() -> None:
    mean, log_variance = torch.randn(2, 4, 6, generator=torch.Generator().manual_seed(4))
    own = torch.distributions.Normal(mean, (log_variance / 2).exp())
    expected = torch.distributions.kl_divergence(own, torch.distributions.Normal(0.0, 1.0)).sum(1)
    assert torch.allclose(kl_to_normal(mean, log_variance), expected, atol=1e-5)


def test_the_vae_learns() -> None:
    losses = [progress.loss for progress in tiny_vae(steps=60, rate=3e-3).steps()]
    assert sum(losses[-10:]) < sum(losses[:10]) - 2


def test_the_fastest_setting_is_one_of_four() -> None:
    assert str(fastest(lambda setting: tiny_gan(10**6, setting), 2, 0.01))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("rate=0", "gan.rate should lie above 0"),
        ("gamma=-1", "gan.gamma should lie above 0"),
        ("every=0", "gan.every should lie above 0"),
        ("shares=[]", "gan.shares"),
        ("decay=2", "gan.decay"),
        ("gama=1", "has no 'gama'"),
    ],
)
def test_a_recipe_that_cannot_be_is_refused(change, message) -> None:
    with pytest.raises(SfumatoError, match=message):
        override(GanRecipe(), [change])


def test_a_mistake_is_told_by_the_flag_it_was_made_with() -> None:
    for change in ("gama=1", "gamma", "gamma.x=1"):
        with pytest.raises(SfumatoError, match="^--gan "):
            override(GanRecipe(), [change], "--gan")


def test_the_global_generator_is_left_alone() -> None:
    before = torch.random.get_rng_state()
    list(tiny_gan(steps=2).steps())
    tiny_vae(steps=1).sample(2, 0)
    assert torch.equal(torch.random.get_rng_state(), before)
