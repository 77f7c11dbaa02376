"""Windows against exact oracles: what acts per pixel is not changed, what is correlated shows no seams."""

from __future__ import annotations

import math

import pytest
import torch

from sfumato.core import Cond, Noise, SfumatoError, Slot
from sfumato.forward import Absorbing, RectifiedFlow
from sfumato.guide import Mask, cfg, observe_through, observe_told, windows, with_guides
from sfumato.guide.windows import ramp, starts
from sfumato.measure.oracles import Gaussian
from sfumato.reverse import DDIM, Ancestral, DPMpp2M, Heun, UniPC, flow, sample

PROCESS = RectifiedFlow()


class PerPixel:
    """Data N(m, v) in every pixel by itself, m told by a map where there is one; it remembers what it was asked."""

    def __init__(self, variance: float = 0.3) -> None:
        self.process, self.variance, self.asked = PROCESS, variance, []

    def __call__(self, x_t, t, cond=Cond()):  # noqa: B008
        self.asked.append((tuple(x_t.shape), cond))
        mean = torch.zeros_like(x_t)
        if "classes" in cond:
            slot = cond["classes"]
            mean = slot.value.sum(1, keepdim=True) * slot.present().reshape(-1, 1, 1, 1)
        a, s = (torch.as_tensor(v, dtype=torch.float64) for v in PROCESS.alpha_sigma(t))
        gain = (a * self.variance / (a**2 * self.variance + s**2)).reshape(-1, 1, 1, 1)
        return PROCESS.posterior(x_t, t, (mean + gain * (x_t - a.reshape(-1, 1, 1, 1) * mean)).to(x_t.dtype))


@pytest.mark.parametrize("size", [(16, 16), (17, 30), (8, 41), (5, 23), (40, 33)])
@pytest.mark.parametrize("shape,overlap", [((8, 8), 0), ((8, 8), 3), ((8, 12), 7), ((16, 16), 4)])
def test_weights_are_smooth_and_sum_to_one(size, shape, overlap) -> None:
    for circular in (False, True):
        ones = windows(shape, overlap, circular=circular)(_Ones())(torch.zeros(2, 1, *size), 0.5).lin
        assert torch.allclose(ones, torch.ones_like(ones), atol=1e-6)
    profile = ramp(16, 6)
    assert (profile > 0).all() and profile.diff().abs().max() < 0.3 and torch.equal(profile, profile.flip(0))


class _Ones:
    process = PROCESS

    def __call__(self, x_t, t, cond=Cond()):  # noqa: B008
        return PROCESS.posterior(x_t, t, torch.ones_like(x_t))


@pytest.mark.parametrize("circular", [False, True])
def test_windows_start_where_they_should(circular) -> None:
    for size in range(8, 60):
        for overlap in range(0, 8):
            for align in (1, 2, 4):
                found = starts(size, 8, overlap, circular, align)
                covered = {(first + k) % size for first in found for k in range(8)}
                assert covered == set(range(size)), (size, overlap, align)
                if not circular:
                    assert found[-1] == max(0, size - 8) and all(f % align == 0 for f in found[:-1])
                    steps = [b - a for a, b in zip(found, found[1:], strict=False)]
                    assert all(0 < step <= max(align, 8 - overlap) for step in steps)


@pytest.mark.parametrize("solver", [Ancestral(), DDIM(), Heun(), DPMpp2M(), UniPC()], ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("circular", [False, True])
def test_a_denoiser_that_acts_per_pixel_is_not_changed(solver, circular) -> None:
    oracle, shape, grid = PerPixel(), (3, 1, 21, 34), flow(6, PROCESS)
    plain = sample(oracle, shape, Noise.of(1, 3), solver, grid)
    windowed = sample(windows((8, 12), circular=circular)(oracle), shape, Noise.of(1, 3), solver, grid)
    assert (plain - windowed).abs().max() < 1e-6
    assert plain.std() > 0.3


def test_conditions_are_cut_with_the_window_and_the_rest_is_heard_by_all() -> None:
    oracle = PerPixel()
    x = Noise.of(2, 2).normal((2, 1, 24, 20))
    told = Noise.of(3, 2).normal((2, 2, 24, 20))
    ids = torch.arange(2 * 3 * 13).reshape(2, 3, 13)
    cond = Cond(
        {"classes": Slot(told, "map", torch.tensor([True, False])), "text": Slot(ids, "tokens", torch.ones(2, 3) > 0)}
    )
    guided = windows((8, 8), 2)(oracle)
    t = torch.tensor([0.3, 0.8])
    assert (guided(x, t, cond).lin - oracle(x, t, cond).lin).abs().max() < 1e-6
    shapes = [shape for shape, _ in oracle.asked[:-1]]
    assert sum(shape[0] for shape in shapes) == 2 * 4 * 3 and all(shape[1:] == (1, 8, 8) for shape in shapes)
    for shape, seen in oracle.asked[:-1]:
        assert seen["classes"].value.shape == (shape[0], 2, 8, 8)
        assert {tuple(row.flatten().tolist()) for row in seen["text"].value} <= {
            tuple(row.flatten().tolist()) for row in ids
        }


def test_memory_is_bounded_and_the_belief_the_same_however_the_windows_are_dealt() -> None:
    oracle, x = PerPixel(), Noise.of(4, 3).normal((3, 1, 64, 64))
    few, many = windows((8, 8), 2, most=5)(oracle), windows((8, 8), 2, most=1000)(oracle)
    assert (few(x, 0.4).lin - many(x, 0.4).lin).abs().max() == 0
    assert max(shape[0] for shape, _ in oracle.asked[:-1]) == 5 and oracle.asked[-1][0][0] > 100


def test_windows_that_are_not_needed_are_not_asked() -> None:
    oracle, x = PerPixel(), Noise.of(5, 1).normal((1, 1, 64, 64))
    needed = torch.zeros(64, 64, dtype=torch.bool)
    needed[40:44, 8:20] = True
    belief = windows((16, 16), 4, needed=needed)(oracle)(x, 0.4).lin
    assert sum(shape[0] for shape, _ in oracle.asked) <= 6 < 25
    plain = oracle(x, 0.4).lin
    assert (belief - plain)[..., needed].abs().max() < 1e-6 and (belief == 0).float().mean() > 0.5
    nothing = windows((16, 16), 4, needed=needed & False)(oracle)(x, 0.4).lin
    assert nothing.shape == x.shape and not nothing.any()


def test_a_picture_no_larger_than_the_window_is_left_whole() -> None:
    oracle, x = PerPixel(), Noise.of(6, 2).normal((2, 1, 12, 16))
    assert torch.equal(windows((16, 16))(oracle)(x, 0.4).lin, oracle(x, 0.4).lin)
    assert [shape for shape, _ in oracle.asked] == [(2, 1, 12, 16)] * 2
    windows((8, 32))(oracle)(x, 0.4)
    assert oracle.asked[-1][0][1:] == (1, 8, 16)  # a side that is shorter than the window's is taken whole


def test_guidance_may_stand_inside_or_outside() -> None:
    oracle, x = PerPixel(), Noise.of(7, 2).normal((2, 1, 20, 20))
    cond = Cond({"classes": Slot(Noise.of(8, 2).normal((2, 1, 20, 20)), "map")})
    inside = with_guides(oracle, cfg(3.0), windows((8, 8)))(x, 0.6, cond).lin
    outside = with_guides(oracle, windows((8, 8)), cfg(3.0))(x, 0.6, cond).lin
    assert (inside - outside).abs().max() < 1e-5 and (inside - cfg(3.0)(oracle)(x, 0.6, cond).lin).abs().max() < 1e-5


def test_what_is_known_stays_a_condition_when_guidance_leads_to_the_words() -> None:
    oracle, x = PerPixel(), Noise.of(7, 2).normal((2, 1, 6, 6))
    cond = Cond({"classes": Slot(torch.ones(2, 1, 6, 6), "map")})
    kept = cfg(5.0, keep=("classes",))(oracle)(x, 0.6, cond).lin
    assert torch.allclose(kept, oracle(x, 0.6, cond).lin, atol=1e-6)
    assert not torch.allclose(cfg(5.0)(oracle)(x, 0.6, cond).lin, kept, atol=1e-2)


def test_logits_of_categorical_data_are_blended_too() -> None:
    process = Absorbing(classes=3)

    class Logits:
        def __init__(self) -> None:
            self.process = process

        def __call__(self, x_t, t, cond=Cond()):  # noqa: B008
            lin = torch.nn.functional.one_hot(x_t.clamp_max(2), 3).movedim(-1, 1).float() * 4
            return process.posterior(x_t, t, lin)

    x = torch.arange(2 * 20 * 24).reshape(2, 20, 24) % 4
    assert (windows((8, 8), 3)(Logits())(x, 0.5).lin - Logits()(x, 0.5).lin).abs().max() < 1e-5


def test_gradients_pass_through_windows() -> None:
    x = Noise.of(1, 1).normal((1, 1, 20, 20)).requires_grad_()
    windows((8, 8), 2)(PerPixel())(x, 0.5).lin.square().sum().backward()
    assert (x.grad != 0).all()


def boxes(rows: list[tuple[int, int, int, int]]) -> Slot:
    ids = torch.ones(1, len(rows), 17, dtype=torch.int64)
    ids[0, :, -4:] = torch.tensor(rows)
    return Slot(ids, "placed", torch.ones(1, len(rows), dtype=torch.bool))


def test_boxes_are_told_in_the_windows_own_coordinates() -> None:
    """A picture of 100 x 200 (height x width) and windows of 100 x 100 that do not overlap."""
    oracle = PerPixel()
    slot = boxes([(0, 0, 250, 500), (250, 250, 750, 750), (600, 0, 900, 1000)])
    windows((100, 100), 0)(oracle)(torch.zeros(1, 1, 100, 200), 0.5, Cond({"boxes": slot}))
    ((shape, seen),) = oracle.asked
    assert shape == (2, 1, 100, 100)
    found = [
        [tuple(word[-4:].tolist()) for word, there in zip(ids, mask, strict=True) if there]
        for ids, mask in zip(seen["boxes"].value, seen["boxes"].present(), strict=True)
    ]
    assert found == [[(0, 0, 500, 500), (500, 250, 1000, 750)], [(0, 250, 500, 750), (200, 0, 800, 1000)]]
    assert (seen["boxes"].value[..., :-4] == 1).all() and (
        slot.value[0, 1, -4:] == torch.tensor([250, 250, 750, 750])
    ).all()


def test_an_overlap_that_leaves_nothing_is_refused() -> None:
    for overlap in (-1, 8, 9):
        with pytest.raises(SfumatoError, match="overlap"):
            windows((8, 16), overlap)


def field(height: int, width: int, length: float = 1.5) -> torch.Tensor:
    """Covariance [hw, hw] of a stationary field whose correlation falls with the distance."""
    y, x = (v.flatten().double() for v in torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij"))
    distance = ((y[:, None] - y) ** 2 + (x[:, None] - x) ** 2).sqrt()
    return 0.25 * torch.exp(-distance / length) + 1e-6 * torch.eye(height * width).double()


class Stationary:
    """The exact denoiser of a stationary Gaussian field, for pictures of any size."""

    process = PROCESS

    def __init__(self) -> None:
        self.known = {}

    def __call__(self, x_t, t, cond=Cond()):  # noqa: B008
        size = tuple(x_t.shape[-2:])
        if size not in self.known:
            self.known[size] = Gaussian(self.process, torch.zeros(1, *size), field(*size))
        return self.known[size](x_t, t, cond)


def test_a_correlated_field_drawn_in_windows_shows_no_seams() -> None:
    """Mean absolute differences of neighbours across the columns where a window begins or ends, beside all others, and
    both beside those of the true field; hard cuts of the same windows, without overlap, are seen at once."""
    n, shape = 200, (16, 16)
    size = (16, 48)
    truth = math.sqrt(2 / math.pi) * math.sqrt(2 * 0.25 * (1 - math.exp(-1 / 1.5)))  # mean |a - b| of two neighbours

    def steps_of(overlap: int) -> tuple[float, float]:
        oracle, grid = Stationary(), flow(12, PROCESS)
        x = sample(windows(shape, overlap)(oracle), (n, 1, *size), Noise.of(9, n), Heun(), grid)
        across = (x[..., 1:] - x[..., :-1]).abs().mean((0, 1, 2))
        firsts = starts(size[1], shape[1], overlap, False, 1)
        seams = sorted({f - 1 for f in firsts if f} | {f + shape[1] - 1 for f in firsts if f + shape[1] < size[1]})
        rest = [k for k in range(size[1] - 1) if k not in seams]
        return float(across[seams].mean()), float(across[rest].mean())

    seams, rest = steps_of(8)
    assert abs(seams / rest - 1) < 0.05 and abs(seams / truth - 1) < 0.05 and abs(rest / truth - 1) < 0.05
    hard, _ = steps_of(0)
    assert hard / truth > 1.15


def test_circular_windows_make_opposite_edges_fit() -> None:
    n, oracle, grid = 300, Stationary(), flow(12, PROCESS)

    def jump(circular: bool) -> float:
        guided = windows((16, 16), 8, circular=circular)(oracle)
        x = sample(guided, (n, 1, 16, 16), Noise.of(3, n), DPMpp2M(), grid)
        inside = (x[..., 1:] - x[..., :-1]).abs().mean()
        return float((x[..., 0] - x[..., -1]).abs().mean() / inside)

    assert abs(jump(True) - 1) < 0.05 and jump(False) > 1.4


def test_what_is_known_is_observed_in_each_window_by_itself() -> None:
    """A guide that reads the known pixels from a condition: windows cut them, and no window's belief contradicts them."""
    oracle, n = Stationary(), 6
    x, y = Noise.of(1, n).normal((n, 1, 16, 40)), Noise.of(2, n).normal((n, 1, 16, 40))
    keep = Noise.of(3, n).uniform((n, 1, 16, 40)) < 0.3
    cond = Cond({"known": Slot(torch.cat([keep.float(), y * keep], 1), "map")})
    whole = with_guides(oracle, observe_told("known", 30))(x[..., :16], 0.5, Cond({"known": _left(cond["known"])})).lin
    assert torch.allclose(
        whole, observe_through(Mask(keep[..., :16]), (y * keep)[..., :16], solves=30)(oracle)(x[..., :16], 0.5).lin
    )
    blended = with_guides(oracle, observe_told("known", 2), windows((16, 16), 6))(x, 0.5, cond).lin
    assert (blended - y)[keep].abs().max() < 1e-5
    assert (blended - windows((16, 16), 6)(oracle)(x, 0.5).lin)[~keep].abs().mean() > 0.01


def _left(slot: Slot) -> Slot:
    return Slot(slot.value[..., :16], slot.role)
