"""The loop: micro-batches, the rate, the budget, what is said of NaN, and that it learns."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor, nn
from training import FLOAT32, TINY, small_source, tiny_recipe, tiny_trainer

from sfumato.core import SfumatoError
from sfumato.data import Augment
from sfumato.denoiser import X0, EDMTarget, Eps, Flow, TransformerConfig, UNetConfig, V
from sfumato.forward import EDM, VE, RectifiedFlow, SubVP, VPCosine, VPLinear
from sfumato.train import RECIPES, Budget, Optimiser, Recipe, Setting, SquaredError, Trainer, UniformTimes, pick_recipe
from sfumato.train.run import validation_losses

SOURCE = small_source()


def run(trainer: Trainer, steps: int) -> list[float]:
    return [progress.loss for progress, _ in zip(trainer.steps(), range(steps), strict=False)]


# --- batches -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("augment", [None, Augment()], ids=["plain", "augmented"])
def test_micro_batches_train_like_the_whole_batch(augment) -> None:
    adam = Optimiser(muon=0.0)  # Muon's bf16 products would enlarge the rounding of the sums
    whole = tiny_trainer(5, source=SOURCE, augment=augment, optimiser=adam)
    cut = tiny_trainer(5, source=SOURCE, augment=augment, optimiser=adam, accumulate=4)
    calls: list[int] = []
    cut.denoiser.net.register_forward_hook(lambda module, args, out: calls.append(len(out)))
    assert run(whole, 5) == pytest.approx(run(cut, 5), rel=1e-5)
    assert calls == [2] * 20
    start = dict(tiny_recipe(SOURCE, augment=augment).build().named_parameters())
    moved = torch.cat([(p - start[n]).flatten() for n, p in whole.weights.items()]).norm()
    apart = torch.cat([(p - cut.weights[n]).flatten() for n, p in whole.weights.items()]).norm()
    assert moved > 0.01 and apart < 1e-3 * moved


def test_gradients_of_micro_batches_are_those_of_the_whole_batch(monkeypatch) -> None:
    kept: list[list[Tensor]] = []
    monkeypatch.setattr(
        torch.optim.AdamW, "step", lambda self: kept.append([p.grad.clone() for p in self.param_groups[0]["params"]])
    )
    for accumulate in (1, 2, 8):
        trainer = tiny_trainer(1, source=SOURCE, accumulate=accumulate, optimiser=Optimiser(clip=1e9, muon=0.0))
        for p in trainer.weights.values():
            p.data.add_(0.01)
        run(trainer, 1)
    for other in kept[1:]:
        for a, b in zip(kept[0], other, strict=True):
            assert torch.allclose(a, b, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("clip", [1e-3, 1e9])
def test_gradients_are_clipped_by_their_norm_over_all_weights(monkeypatch, clip) -> None:
    norms: list[float] = []

    def step(self) -> None:
        norms.append(torch.cat([p.grad.flatten() for p in self.param_groups[0]["params"]]).norm().item())

    monkeypatch.setattr(torch.optim.AdamW, "step", step)
    trainer = tiny_trainer(3, source=SOURCE, optimiser=Optimiser(clip=clip))
    for p in trainer.weights.values():
        p.data.add_(0.01)
    run(trainer, 3)
    assert norms == pytest.approx([1e-3] * 3, rel=1e-2) if clip == 1e-3 else min(norms) > 0.01


def test_a_batch_is_a_function_of_seed_and_step_alone() -> None:
    one, two = tiny_trainer(source=SOURCE), tiny_trainer(source=SOURCE)
    run(one, 3)
    torch.manual_seed(123)
    for step in (0, 7, 100):
        (a, noise_a), (b, noise_b) = one.batch(step), two.batch(step)
        assert torch.equal(a.x0, b.x0) and torch.equal(a.index, b.index) and noise_a.seeds == noise_b.seeds
        assert torch.equal(a.cond["class"].present(), b.cond["class"].present())
    assert not torch.equal(one.batch(0)[0].index, one.batch(1)[0].index)
    other = tiny_trainer(source=SOURCE, seed=1)
    assert not torch.equal(one.batch(0)[0].index, other.batch(0)[0].index)


def test_held_out_pictures_are_never_trained_on() -> None:
    trainer = tiny_trainer(source=SOURCE)
    seen = torch.cat([trainer.batch(step)[0].index for step in range(40)]).unique()
    assert len(SOURCE.validation_index) and set(seen.tolist()) == set(SOURCE.train_index.tolist())


def test_conditions_are_dropped_at_the_stated_share() -> None:
    trainer = tiny_trainer(source=SOURCE, condition_dropout=0.25)
    shown = torch.cat([trainer.batch(step)[0].cond["class"].present() for step in range(250)])
    assert (~shown).float().mean().item() == pytest.approx(0.25, abs=0.04)  # 2,000 draws: 4 standard errors
    never = tiny_trainer(source=SOURCE, condition_dropout=0.0)
    assert all(never.batch(step)[0].cond["class"].present().all() for step in range(20))


def test_conditions_that_the_recipe_leaves_out_are_not_shown() -> None:
    trainer = tiny_trainer(2, source=SOURCE, conditions=())
    assert not trainer.batch(0)[0].cond and not trainer.recipe.net.slots
    assert len(run(trainer, 2)) == 2


def test_training_does_not_touch_the_global_generator() -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    trainer = tiny_trainer(3, source=SOURCE, augment=Augment())
    run(trainer, 3)
    validation_losses(trainer)
    assert torch.equal(torch.get_rng_state(), before)


# --- rate and budget -----------------------------------------------------------------------------------------------


def test_the_rate_warms_up_stays_and_goes_to_zero() -> None:
    o = Optimiser(warmup=10, decay=0.5)
    factor = [o.factor(step, step / 100) for step in range(100)]
    assert factor[:10] == pytest.approx([k / 10 for k in range(1, 11)])
    assert factor[10:51] == pytest.approx([1.0] * 41)
    assert factor[50:] == pytest.approx([(100 - k) / 50 for k in range(50, 100)])
    assert o.factor(100, 1.0) == 0.0
    assert [Optimiser(warmup=0, decay=0.0).factor(s, s / 9) for s in range(9)] == [1.0] * 9
    assert Optimiser(warmup=0, decay=1.0).factor(5, 0.25) == pytest.approx(0.75)


def test_the_optimiser_is_given_the_scheduled_rate() -> None:
    trainer = tiny_trainer(20, source=SOURCE, optimiser=Optimiser(rate=1e-3, warmup=4, decay=0.5))
    rates = []
    for _ in trainer.steps():
        rates.append(trainer.optimisers[0].param_groups[0]["lr"] * 1e3)
    assert rates == pytest.approx([0.25, 0.5, 0.75, 1, *[1] * 7, *[k / 10 for k in range(9, 0, -1)]])


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "either a number of steps or a time"),
        ({"steps": 5, "seconds": 5.0}, "either a number of steps or a time"),
        ({"steps": 0}, "nothing to train.*0 steps"),
        ({"steps": -3}, "nothing to train.*-3 steps"),
        ({"seconds": 0.0}, "nothing to train"),
        ({"seconds": -1.0}, "nothing to train.*-1"),
        ({"seconds": float("nan")}, "nothing to train"),
    ],
)
def test_a_budget_of_nothing_is_refused(given, said) -> None:
    with pytest.raises(SfumatoError, match=said) as caught:
        Budget(**given)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"rate": -1.0}, "rate"),
        ({"rate": 0.0}, "rate"),
        ({"beta2": 1.0}, "beta2"),
        ({"clip": 0.0}, "clip"),
        ({"decay": 2.0}, "decay"),
    ],
)
def test_an_impossible_optimiser_is_refused(given, said) -> None:
    with pytest.raises(SfumatoError, match=said):
        Optimiser(**given)


def test_a_time_budget_counts_training_steps_alone() -> None:
    now = [0.0]

    def clock() -> float:
        now[0] += 0.5
        return now[0]

    recipe = tiny_recipe(SOURCE)
    trainer = Trainer(recipe.build(), recipe, SOURCE, Budget(seconds=5.0, clock=clock), FLOAT32)
    shares = []
    for progress in trainer.steps():
        shares.append(progress.share)
        now[0] += 100  # previews, validation, checkpoints
    assert shares == pytest.approx([k / 10 for k in range(1, 11)]) and trainer.seconds == 5.0


def test_progress_counts() -> None:
    for k, p in enumerate(tiny_trainer(4, source=SOURCE).steps(), 1):
        assert (p.step, p.share, p.images) == (k, k / 4, 8 * k) and p.seconds > 0


# --- not finite ----------------------------------------------------------------------------------------------------


def stopped(trainer: Trainer) -> str:
    with pytest.raises(SfumatoError) as caught:
        run(trainer, 10)
    message = str(caught.value)
    assert "\n" not in message and "training stopped at step" in message
    return message


def test_nan_in_the_data_is_said(monkeypatch) -> None:
    trainer = tiny_trainer(10, source=SOURCE)
    batch = trainer.batch

    def planted(step: int):
        found, noise = batch(step)
        if step == 4:
            found.x0[5, 0, 2, 2] = float("nan")
        return found, noise

    monkeypatch.setattr(trainer, "batch", planted)
    message = stopped(trainer)
    assert "step 5" in message and "the data" in message and "rows [5]" in message


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_nan_in_a_weight_is_said(value) -> None:
    trainer = tiny_trainer(10, source=SOURCE)
    trainer.weights["net.up.0.0.0.first.weight"].data[0, 0, 0, 0] = value
    assert "the weights net.up.0.0.0.first.weight" in stopped(trainer)


def test_nan_out_of_a_layer_is_said_by_its_name() -> None:
    trainer = tiny_trainer(10, source=SOURCE)
    for p in trainer.weights.values():
        p.data.add_(0.01)

    class Sick(nn.Conv2d):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) / 0.0

    trainer.denoiser.net.down[1][0][0].second.__class__ = Sick
    assert "net.down.1.0.0.second (Sick)" in stopped(trainer)


class Poisoned(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:
        return grad * float("nan")


def test_nan_in_a_gradient_alone_is_said_of_a_weight_that_has_it() -> None:
    trainer = tiny_trainer(10, source=SOURCE)
    for p in trainer.weights.values():
        p.data.add_(0.01)

    class Sick(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return nn.functional.linear(x, Poisoned.apply(self.weight), self.bias)

    layer = trainer.denoiser.net.up[0][0][0].modulation
    layer.__class__ = Sick
    message = stopped(trainer)
    assert "the loss is finite, the gradient of net.up.0.0.0.modulation.weight is not" in message


def test_a_step_that_failed_changed_no_weight() -> None:
    trainer = tiny_trainer(10, source=SOURCE)
    before = {n: p.detach().clone() for n, p in trainer.weights.items()}
    trainer.batch(0)
    trainer.losses = lambda batch, u, noise, share=1.0: (
        trainer.denoiser(batch.x0, u, batch.cond).lin.flatten(1).sum(1) * float("nan")
    )
    assert "the loss is not" in stopped(trainer)
    assert all(torch.equal(p, before[n]) for n, p in trainer.weights.items())


# --- learning ------------------------------------------------------------------------------------------------------


def test_eight_pictures_are_learned_by_heart() -> None:
    """The loss on fixed noise falls to a fraction of that of the untrained network."""
    eight = small_source(9, seed=3)
    trainer = tiny_trainer(
        200,
        source=eight,
        net=dataclasses.replace(TINY, widths=(16, 32)),
        optimiser=Optimiser(rate=4e-3, warmup=20),
    )
    assert len(eight.train_index) == 8
    losses = run(trainer, 200)
    assert sum(losses[-20:]) < 0.25 * sum(losses[:1] * 20), (losses[0], losses[-20:])


@pytest.mark.parametrize("name", RECIPES)
def test_every_named_recipe_trains_with_finite_losses(name) -> None:
    recipe = pick_recipe(name, 8)
    net = TransformerConfig(patch=2, width=32, depth=1, head=16) if name == "transformer" else TINY
    captioned = dataclasses.replace(SOURCE, captions=["a bar, red"] * len(SOURCE))
    trainer = tiny_trainer(
        12,
        source=SOURCE if recipe.captions is None else captioned,
        **{f.name: getattr(recipe, f.name) for f in dataclasses.fields(Recipe)} | {"net": net, "batch": 8},
    )
    assert torch.tensor(run(trainer, 12)).isfinite().all() and trainer.step == 12


@pytest.mark.parametrize(
    "process", [VPLinear(), VPCosine(), SubVP(), VE(), RectifiedFlow(), EDM()], ids=lambda p: type(p).__name__
)
def test_every_process_trains_with_every_prediction_and_loss_space(process) -> None:
    for target in (X0(), Eps(), V(), Flow(), EDMTarget()):
        trainer = tiny_trainer(
            3,
            source=SOURCE,
            process=process,
            parameterisation=target,
            objective=SquaredError(target),
            times=UniformTimes(),
        )
        assert torch.tensor(run(trainer, 3)).isfinite().all(), target


@pytest.mark.parametrize(
    "setting", [Setting(torch.bfloat16, False), Setting(None, True), Setting(torch.bfloat16, True)], ids=str
)
def test_settings_change_the_speed_not_the_result(setting) -> None:
    plain, other = tiny_trainer(30, source=SOURCE), tiny_trainer(30, setting=setting, source=SOURCE)
    one, two = run(plain, 30), run(other, 30)
    assert one != two or not setting.channels_last
    assert one == pytest.approx(two, rel=0.05)
    assert all(p.dtype == torch.float32 for p in other.weights.values())
    if setting.channels_last:
        assert other.weights["net.stem.weight"].is_contiguous(memory_format=torch.channels_last)


def test_pictures_of_one_channel_are_laid_out_as_asked_too() -> None:
    """Strides of one channel are ambiguous, and a network's first layer decides the layout of all behind it."""
    net = UNetConfig(patch=1, widths=(8, 16), blocks=(1, 1), embedding=16)
    trainer = tiny_trainer(1, setting=Setting(None, True), source=SOURCE, net=net)
    seen: list[bool] = []
    trainer.denoiser.net.stem.register_forward_hook(
        lambda _module, _args, y: seen.append(y.is_contiguous(memory_format=torch.channels_last))
    )
    run(trainer, 1)
    assert seen and all(seen)


def test_a_size_that_does_not_fit_names_one_that_does() -> None:
    with pytest.raises(SfumatoError, match="multiples of 4; use --size 12"):
        tiny_recipe(small_source(size=10))


def test_the_recipe_measures_the_data() -> None:
    recipe = tiny_recipe(SOURCE, parameterisation=EDMTarget(), objective=SquaredError(EDMTarget()))
    x0 = SOURCE.batch(SOURCE.train_index).x0
    assert recipe.sigma_data == pytest.approx(x0.std().item(), abs=1e-3)
    assert recipe.parameterisation.sigma_data == recipe.objective.space.sigma_data == recipe.sigma_data
    assert (
        recipe.net.channels == 1 and [s.name for s in recipe.net.slots] == ["class"] and recipe.net.slots[0].size == 2
    )


@pytest.mark.slow
def test_a_compiled_network_trains_like_a_plain_one() -> None:
    plain = tiny_trainer(5, source=SOURCE, optimiser=Optimiser(muon=0.0))
    compiled = tiny_trainer(5, source=SOURCE, optimiser=Optimiser(muon=0.0), compile=True)
    assert run(compiled, 5) == pytest.approx(run(plain, 5), rel=1e-4)
    assert list(compiled.weights) == list(plain.weights)
