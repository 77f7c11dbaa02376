"""Averages of the weights: the exact power-function profile, and any other width from stored ones."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import integrate
from torch import Tensor
from training import tiny_trainer

from sfumato.core import SfumatoError
from sfumato.train import EMAConfig, PowerEMA, combine
from sfumato.train.ema import Snapshot, exponent
from sfumato.train.loop import EMA_EVERY

WIDTHS = (0.05, 0.15)


def trajectory(steps: int, seed: int = 0, entries: int = 50) -> Tensor:
    """Weights [steps, entries] of a run: a smooth approach with its own pace per entry, and steps that wander."""
    generator = torch.Generator().manual_seed(seed)
    t = torch.linspace(0, 1, steps, dtype=torch.float64)[:, None]
    start, end = (torch.randn(entries, generator=generator, dtype=torch.float64) for _ in range(2))
    pace = 0.05 + torch.rand(entries, generator=generator, dtype=torch.float64)
    wander = torch.randn(steps, entries, generator=generator, dtype=torch.float64).cumsum(0) * 0.3 / steps**0.5
    jitter = 0.2 * torch.randn(steps, entries, generator=generator, dtype=torch.float64)
    return end + (start - end) * torch.exp(-t / pace) + wander + jitter


def profile(steps: int, width: float) -> Tensor:
    """Exact weights of steps 1 ... n under t^gamma: its integral over (k-1, k] divided by that over (0, n]."""
    k = torch.arange(steps + 1, dtype=torch.float64) / steps
    return (k ** (exponent(width) + 1)).diff()


def track(path: Tensor, widths=WIDTHS, at: tuple[int, ...] = ()) -> tuple[PowerEMA, list[Snapshot]]:
    ema = PowerEMA({"w": path[0]}, widths)
    snapshots = []
    for step, w in enumerate(path, 1):
        ema.update({"w": w}, step)
        if step in at:
            half = {width: {"w": a["w"].half()} for width, a in zip(widths, ema.averages, strict=True)}
            snapshots.append(Snapshot(step, half))
    return ema, snapshots


@pytest.mark.parametrize("width", [0.02, 0.05, 0.1, 0.15, 0.2, 0.25, 0.27])
def test_exponent_gives_the_stated_width(width) -> None:
    gamma = exponent(width)
    norm = integrate.quad(lambda t: t**gamma, 0, 1)[0]
    mean = integrate.quad(lambda t: t ** (gamma + 1), 0, 1)[0] / norm
    spread = integrate.quad(lambda t: (t - mean) ** 2 * t**gamma, 0, 1)[0] / norm
    assert gamma > 0 and spread**0.5 == pytest.approx(width, rel=1e-4)


def test_published_exponents() -> None:
    """Karras et al. 2024: gamma = 16.97 for a width of 5 %, 6.94 for 10 %."""
    assert exponent(0.05) == pytest.approx(16.97, abs=0.01) and exponent(0.10) == pytest.approx(6.94, abs=0.01)


@pytest.mark.parametrize("width", [0.0, -0.1, 0.28, 0.5, float("nan")])
def test_impossible_widths_are_refused(width) -> None:
    with pytest.raises(SfumatoError, match="between 0 and 0.28"):
        exponent(width)


@pytest.mark.parametrize("width", WIDTHS)
def test_tracking_is_the_exact_weighted_average_of_the_trajectory(width) -> None:
    for steps in (1, 2, 7, 500):
        path = trajectory(500)[:steps]
        ema, _ = track(path, (width,))
        assert torch.allclose(ema.averages[0]["w"], profile(steps, width) @ path, atol=1e-12)


def test_updates_every_few_steps_weigh_the_steps_between_as_one() -> None:
    path, width, every = trajectory(400), 0.1, EMA_EVERY
    ema = PowerEMA({"w": path[0]}, (width,))
    for step in range(every, 401, every):
        ema.update({"w": path[step - 1]}, step, every)
    held = path[every - 1 :: every].repeat_interleave(every, 0)
    assert torch.allclose(ema.averages[0]["w"], profile(400, width) @ held, atol=1e-12)


def test_averages_are_copies_and_leave_the_weights_alone() -> None:
    weights = {"w": torch.ones(3)}
    ema = PowerEMA(weights, WIDTHS)
    for step in range(1, 5):
        weights["w"].fill_(step)
        ema.update(weights, step)
    assert torch.equal(weights["w"], torch.full((3,), 4.0)) and (ema.averages[1]["w"] < 4).all()
    assert not torch.equal(ema.averages[0]["w"], ema.averages[1]["w"])


def test_state_goes_back_bit_for_bit() -> None:
    ema, _ = track(trajectory(60).float())
    other = PowerEMA({"w": torch.zeros(50)}, WIDTHS)
    other.load(ema.state())
    for a, b in zip(ema.averages, other.averages, strict=True):
        assert torch.equal(a["w"], b["w"])


@pytest.mark.parametrize("stored", [8, 20])
@pytest.mark.parametrize("width", [0.06, 0.08, 0.1, 0.12, 0.2])
def test_other_widths_come_out_of_half_precision_snapshots(width, stored) -> None:
    """Against tracking that width directly; the error is measured by how much a wrong width would differ."""
    steps = 1600
    path = trajectory(steps)
    at = tuple(round(steps * k / stored) for k in range(1, stored + 1))
    ema, snapshots = track(path, at=at)
    latest = Snapshot(steps, {w: {"w": a["w"].float()} for w, a in zip(WIDTHS, ema.averages, strict=True)})
    found = combine(snapshots[:-1] + [latest], width, steps)["w"].double()
    truth = profile(steps, width) @ path
    error = (found - truth).square().mean().sqrt()
    assert error < 0.01 * truth.square().mean().sqrt()
    nearest = min((profile(steps, w) @ path - truth).square().mean().sqrt() for w in WIDTHS)
    assert error < 0.25 * nearest, (error, nearest)


def test_a_tracked_width_comes_out_of_the_snapshots_as_itself() -> None:
    path = trajectory(800)
    ema, snapshots = track(path, at=tuple(range(100, 801, 100)))
    for width, average in zip(WIDTHS, ema.averages, strict=True):
        assert (combine(snapshots, width, 800)["w"] - average["w"]).abs().max() < 5e-3


def test_an_earlier_step_uses_only_what_was_stored_by_then() -> None:
    path = trajectory(800)
    _, snapshots = track(path, at=tuple(range(100, 801, 100)))
    found = combine(snapshots, 0.1, 500)["w"].double()
    truth = profile(500, 0.1) @ path[:500]
    assert (found - truth).square().mean().sqrt() < 0.02
    with pytest.raises(SfumatoError, match="first snapshot"):
        combine(snapshots, 0.1, 50)


@pytest.mark.parametrize("stored", [1, 2, 3, 5])
@pytest.mark.parametrize("width", [0.06, 0.1, 0.2])
def test_few_snapshots_never_scale_the_weights(stored, width) -> None:
    states = {w: {"w": torch.tensor([3.0, -1.0])} for w in WIDTHS}
    found = combine([Snapshot(100 * k // stored, states) for k in range(1, stored + 1)], width, 100)
    assert found["w"].tolist() == pytest.approx([3.0, -1.0], rel=1e-5)


def test_combination_does_not_magnify_the_rounding_of_stored_averages() -> None:
    """Constant weights come back as they are: the combination's weights add up to one and none is huge."""
    steps = 8000
    at = tuple(range(1000, 8001, 1000))
    snapshots = [Snapshot(s, {w: {"w": torch.tensor([0.1, 1.7]).half()} for w in WIDTHS}) for s in at]
    assert combine(snapshots, 0.1, steps)["w"].tolist() == pytest.approx([0.1, 1.7], rel=1e-3)
    basis = [Snapshot(s, {w: {f"{s}/{w}": torch.ones(1)} for w in WIDTHS}) for s in at]
    weights = np.array([v.item() for v in combine(basis, 0.1, steps).values()])
    assert abs(weights.sum() - 1) < 1e-5 and np.abs(weights).max() < 20, weights


def test_the_default_width_is_tracked_and_needs_no_combination() -> None:
    config = EMAConfig()
    assert min(config.widths) < max(config.widths) and config.width in config.widths


def exact_averages(trainer, share=1.0):
    """The averages of a run as the exact profile over the weights that its updates saw, in float64, and its last step."""
    seen, before = [], 0
    for progress in trainer.steps():
        step = progress.step
        if step % EMA_EVERY == 0 or step < EMA_EVERY or progress.share >= 1:
            seen.append((before, step, {k: p.detach().double().clone() for k, p in trainer.weights.items()}))
            before = step
    found = []
    for width in trainer.ema.widths:
        power = exponent(width) + 1
        parts = [((b / step) ** power - (a / step) ** power, w) for a, b, w in seen]
        found.append({k: sum(share * w[k] for share, w in parts) for k in seen[0][2]})
    return found


@pytest.mark.parametrize("steps", [2, 8, 9, 11])
def test_the_last_steps_of_a_run_are_averaged_too(steps) -> None:
    trainer = tiny_trainer(steps)
    for found, average in zip(exact_averages(trainer), trainer.ema.averages, strict=True):
        for name, value in found.items():
            torch.testing.assert_close(average[name].double(), value, rtol=1e-4, atol=1e-6)


def test_a_run_that_ended_between_two_updates_goes_on_as_one_that_did_not(tmp_path) -> None:
    """Ended at step 9 and begun again for 12: the next update takes in three steps, not four."""
    ended = tiny_trainer(9)
    for _ in ended.steps():
        pass
    files, state = ended.state()
    files = {name: {k: v.detach().clone() for k, v in tensors.items()} for name, tensors in files.items()}
    before = {k: v.clone() for k, v in ended.ema.averages[0].items()}
    going_on = tiny_trainer(12)
    going_on.load(files, state)
    for _ in going_on.steps():
        pass
    beta = (1 - 3 / 12) ** (exponent(going_on.ema.widths[0]) + 1)
    for name, average in going_on.ema.averages[0].items():
        wanted = beta * before[name] + (1 - beta) * going_on.weights[name].detach()
        torch.testing.assert_close(average, wanted, rtol=1e-5, atol=1e-6)
