"""Guides against oracles of class-conditional and correlated Gaussians, and against their formulas."""

from __future__ import annotations

import math

import pytest
import torch

from sfumato.core import Cond, Noise, SfumatoError, Slot
from sfumato.forward import Absorbing, RectifiedFlow, VPLinear
from sfumato.guide import (
    Downsample,
    Mask,
    autoguide,
    bind,
    cfg,
    dynamic_threshold,
    observe,
    observe_linear,
    with_guides,
)
from sfumato.measure.oracles import Gaussian, Mixture, Sequences
from sfumato.reverse import DDIM, Ancestral, DPMpp2M, Heun, Karras, UniPC, UpAndDown, sample, uniform

PROCESS = VPLinear()


class Counting:
    """A denoiser that counts its calls and remembers the largest batch."""

    def __init__(self, denoise):
        self.denoise, self.process, self.calls, self.largest = denoise, denoise.process, 0, 0

    def __call__(self, x_t, t, cond=Cond()):  # noqa: B008
        self.calls, self.largest = self.calls + 1, max(self.largest, len(x_t))
        return self.denoise(x_t, t, cond)


def classes(process=PROCESS) -> Mixture:
    return Mixture(process, torch.tensor([[0.6, 0.0], [-0.6, 0.2]]), torch.tensor([0.05, 0.05]))


def of_class(values: list[int]) -> Cond:
    return Cond({"class": Slot(torch.tensor(values), "vector")})


def points(n: int = 8) -> torch.Tensor:
    return Noise.of(1, n).normal((n, 2)).double()


@pytest.mark.parametrize("w", [0.0, 0.5, 2.0, 7.0])
def test_cfg_is_its_formula_in_means_and_in_scores(w):
    oracle, x, cond = classes(), points(), of_class([0, 1] * 4)
    guided = cfg(w)(oracle)
    for t in (0.2, 0.7):
        one, none = oracle(x, t, cond), oracle(x, t)
        got = guided(x, t, cond)
        assert torch.allclose(got.lin, none.lin + w * (one.lin - none.lin))
        assert torch.allclose(got.score, none.score + w * (one.score - none.score))
        assert got.lin.shape == x.shape and guided.process is oracle.process


def test_cfg_costs_one_call():
    oracle = Counting(classes())
    cfg(3.0)(oracle)(points(), 0.5, of_class([0] * 8))
    assert (oracle.calls, oracle.largest) == (1, 16)
    oracle = Counting(classes())
    assert cfg(1.0)(oracle)(points(), 0.5, of_class([0] * 8)).lin.shape == (8, 2)
    assert (oracle.calls, oracle.largest) == (1, 8)
    cfg(1.0)(oracle)(points(), 0.5)  # nothing to guide, nothing to complain of
    with pytest.raises(SfumatoError, match="condition"):
        cfg(3.0)(oracle)(points(), 0.5)


def test_cfg_interval():
    oracle, x, cond = Counting(classes()), points(), of_class([0, 1] * 4)
    guided = cfg(4.0, (0.3, 0.6))(oracle)
    for t, inside in ((0.2, False), (0.3, True), (0.6, True), (0.7, False)):
        assert torch.allclose(guided(x, t, cond).lin, cfg(4.0 if inside else 1.0)(oracle)(x, t, cond).lin)
    oracle.largest = 0
    guided(x, 0.9, cond)
    assert oracle.largest == 8
    mixed = guided(x, torch.tensor([0.2, 0.5] * 4, dtype=torch.float64), cond).lin
    assert torch.allclose(mixed[0::2], oracle(x, 0.2, cond).lin[0::2])
    assert torch.allclose(mixed[1::2], guided(x, 0.5, cond).lin[1::2])


def test_cfg_of_absent_conditions_changes_nothing():
    """Samples whose condition is already absent are guided towards themselves; token masks keep their shape."""
    oracle, x = classes(), points()
    cond = of_class([0] * 8).null(where=torch.arange(8) < 4)
    assert torch.allclose(cfg(5.0)(oracle)(x, 0.4, cond).lin[:4], oracle(x, 0.4).lin[:4])
    seen = []

    def net(x_t, t, cond=None):
        seen.append(cond["text"])
        return oracle(x_t, t)

    net.process = PROCESS
    tokens = Slot(torch.arange(24).reshape(8, 3), "tokens", torch.ones(8, 3, dtype=torch.bool))
    cfg(2.0)(net)(x, 0.4, Cond({"text": tokens}))
    assert seen[0].mask.shape == (16, 3) and seen[0].mask[:8].all() and not seen[0].mask[8:].any()


def test_cfg_on_logits():
    process = Absorbing(3)
    rows = torch.tensor([[0, 1], [1, 0], [2, 2]])
    weak, strong = torch.tensor([1.0, 1.0, 1.0]), torch.tensor([4.0, 1.0, 1.0])

    class Conditional:
        def __init__(self):
            self.process = process

        def __call__(self, x, t, cond=Cond()):  # noqa: B008
            with_class, without = Sequences(process, rows, strong)(x, t).lin, Sequences(process, rows, weak)(x, t).lin
            here = cond["class"].present() if "class" in cond else torch.zeros(len(x), dtype=torch.bool)
            return process.posterior(x, t, torch.where(here.reshape(-1, 1, 1), with_class, without))

    x = process.prior((4, 2), Noise.of(0, 4))
    got = cfg(2.0)(Conditional())(x, 0.9, of_class([0] * 4)).probabilities
    ratio = (torch.tensor([4.0, 1.0, 1.0]) / 6 * 3) ** 2  # p_null (p_cond / p_null)^2, p_null uniform
    assert torch.allclose(got[:, :, 0], (ratio / ratio.sum()).expand(4, 3), atol=1e-5)


def test_guided_sampling_goes_to_the_class():
    oracle = classes(RectifiedFlow())
    cond = of_class([0] * 32)
    ends = {}
    for w in (0.0, 1.0, 3.0):
        denoise = bind(cfg(w)(oracle), cond)
        ends[w] = sample(denoise, (32, 2), Noise.of(3, 32), DPMpp2M(), Karras()(30, oracle.process))
    assert (ends[0.0][:, 0] < 0).float().mean() > 0.2
    assert (ends[1.0][:, 0] > 0).all() and ends[1.0][:, 0].mean().item() == pytest.approx(0.6, abs=0.15)
    assert ends[3.0][:, 0].mean() > ends[1.0][:, 0].mean()


def test_bind_gives_conditions_once_and_takes_more():
    oracle, x = classes(), points()
    bound = bind(oracle, of_class([0] * 8))
    assert torch.equal(bound(x, 0.5).lin, oracle(x, 0.5, of_class([0] * 8)).lin)
    assert torch.equal(bound(x, 0.5, of_class([1] * 8)).lin, oracle(x, 0.5, of_class([1] * 8)).lin)


def test_autoguidance_is_its_formula():
    strong, weak = classes(), Mixture(PROCESS, torch.tensor([[0.6, 0.0], [-0.6, 0.2]]), torch.tensor([0.2, 0.2]))
    x = points()
    for w in (1.0, 2.5):
        got = autoguide(weak, w)(strong)(x, 0.4)
        expected = weak(x, 0.4).score + w * (strong(x, 0.4).score - weak(x, 0.4).score)
        assert torch.allclose(got.score, expected)


def test_autoguidance_undoes_the_weak_ones_blur():
    """Both models are too wide in the same way, the weak one more: the guided samples are nearer the truth."""

    def wide(v):
        return Gaussian(PROCESS, torch.zeros(2), torch.full((2,), v))

    grid = Karras()(40, PROCESS)
    plain = sample(wide(0.20), (200, 2), Noise.of(4, 200), Heun(), grid).var().item()
    guided = sample(autoguide(wide(0.40), 2.0)(wide(0.20)), (200, 2), Noise.of(4, 200), Heun(), grid).var().item()
    assert guided < 0.8 * plain


def test_dynamic_threshold():
    x0 = torch.zeros(2, 1, 10, 10)
    x0[0] = torch.linspace(-3, 3, 100).reshape(1, 10, 10)
    x0[1] = torch.linspace(-0.5, 0.5, 100).reshape(1, 10, 10)

    class Belief:
        process = PROCESS

        def __call__(self, x, t, cond=None):
            return PROCESS.posterior(x, t, x0)

    got = dynamic_threshold(0.9)(Belief())(torch.zeros_like(x0), 0.5).x0
    q = x0[0].abs().flatten().quantile(0.9)
    assert torch.allclose(got[0], x0[0].clamp(-q, q) / q) and got[0].abs().max() == 1
    assert torch.equal(got[1], x0[1])  # in range: untouched
    x0 = torch.full((65, 1, 512, 512), 2.0)  # more numbers in the batch than torch's quantile takes
    assert (dynamic_threshold(0.9)(Belief())(x0, 0.5).x0 == 1).all()
    with pytest.raises(SfumatoError, match="quantile"):
        dynamic_threshold(0.0)


def correlated(process=PROCESS) -> Gaussian:
    return Gaussian(process, torch.zeros(2), torch.tensor([[1.0, 0.9], [0.9, 1.0]]))


def test_observation_of_a_correlated_gaussian():
    """Known first entry 1, correlation 0.9: the second is 0.90 +- 0.44. Replacement in the plain ODE is biased
    far below (the documented limit), an up-and-down grid mends it (40 ancestral moves narrow the spread a little).
    """
    n = 200
    known, y = torch.tensor([True, False]).expand(n, 2), torch.ones(n, 2)
    denoise = observe(known, y)(correlated())
    plain = sample(denoise, (n, 2), Noise.of(5, n), DDIM(), uniform(40, PROCESS))
    repaint = sample(denoise, (n, 2), Noise.of(5, n), Ancestral(), UpAndDown(times=10)(40, PROCESS))
    for x in (plain, repaint):
        assert torch.allclose(x[:, 0], torch.ones(n), atol=1e-5)
    error = 4 * 0.44 / math.sqrt(n)
    assert plain[:, 1].mean() < 0.7
    assert repaint[:, 1].mean().item() == pytest.approx(0.90, abs=error + 0.02)
    assert repaint[:, 1].std().item() == pytest.approx(0.44, abs=0.1)
    assert plain[:, 1].std() > 0.6


@pytest.mark.parametrize("solver", [Ancestral(), Heun(), DPMpp2M(), UniPC()], ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("kind", ["mask", "downsample"])
def test_measurement_is_kept_exactly(kind, solver):
    """At the end A x = y for every solver, and the rest is the model's, in range of its data."""
    process = RectifiedFlow()
    shape = (4, 1, 8, 8)
    oracle = Gaussian(process, torch.full(shape[1:], 0.2), torch.full(shape[1:], 0.1))
    truth = oracle.draw(Noise.of(6, 4))
    a = Downsample(4) if kind == "downsample" else Mask(torch.arange(8) < 3)
    denoise = observe_linear(a, a.pinv, a(truth))(oracle)
    x = sample(denoise, shape, Noise.of(7, 4), solver, Karras()(20, process))
    assert (a(x) - a(truth)).abs().max() < 1e-5
    assert (x - truth).abs().mean() > 0.05
    assert x.std() < 2 * 0.1**0.5


def test_measurement_operators_and_their_inverses():
    x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    for a in (Downsample(2), Downsample(4), Mask(torch.rand(8, 8, generator=torch.Generator().manual_seed(1)) < 0.5)):
        assert torch.allclose(a(a.pinv(a(x))), a(x), atol=1e-6)
        rest = x - a.pinv(a(x))  # the null space: orthogonal to what A+ can say (Moore-Penrose)
        assert (rest * a.pinv(a(x))).sum().abs() < 1e-3
    with pytest.raises(SfumatoError, match="blocks of 3"):
        Downsample(3)(x)


def test_mask_observation_in_both_forms_agrees():
    oracle, x = correlated(), points()
    known, y = torch.tensor([True, False]), torch.full((8, 2), 0.3).double()
    a = Mask(known)
    linear = observe_linear(a, a.pinv, a(y))(oracle)(x, 0.4).lin
    assert torch.allclose(linear, observe(known, y)(oracle)(x, 0.4).lin)


def test_guides_stack_inside_out():
    oracle, x, cond = classes(), points(), of_class([0] * 8)
    known, y = torch.tensor([True, False]), torch.zeros(8, 2).double()
    stacked = with_guides(oracle, cfg(8.0), dynamic_threshold(0.5), observe(known, y))
    got = stacked(x, 0.5, cond).lin
    by_hand = dynamic_threshold(0.5)(cfg(8.0)(oracle))(x, 0.5, cond).observe(known, y).lin
    assert torch.equal(got, by_hand) and (got[:, 0] == 0).all()
