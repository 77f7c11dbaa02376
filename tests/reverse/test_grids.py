"""Grids: ends, monotone, formulas; image-to-image and up-and-down grids as data."""

from __future__ import annotations

import math

import pytest
import torch
from truth import PROCESSES, gaussian, name, u_at

from sfumato.core import Noise, SfumatoError
from sfumato.forward import EDM, VE, Absorbing, RectifiedFlow, VPLinear
from sfumato.reverse import DDPM, GRIDS, DPMpp2M, FromData, Karras, UpAndDown, pick_grid, pick_solver, uniform, walk


@pytest.mark.parametrize("process", [*PROCESSES, Absorbing(4)], ids=name)
@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("steps", [1, 2, 7, 50, 999])
def test_ends_length_and_monotone(grid, process, steps):
    if not process.linear and grid not in ("uniform", "cosine"):
        with pytest.raises(SfumatoError, match="use uniform or cosine"):
            GRIDS[grid](steps, process)
        return
    if grid.startswith("ddpm") and steps == 999 and not isinstance(process, VPLinear):
        return  # other processes see a part of the chain
    times = GRIDS[grid](steps, process)
    assert times.shape == (steps + 1,) and times.dtype == torch.float64
    assert (times.diff() < 0).all()
    assert times[-1] == process.t_min
    if grid != "ddpm-leading":
        assert times[0] == process.t_max


def test_karras_formula():
    """Karras et al. 2022, eq. 5, n = 18, sigma 80 ... 0.002, then 0; and on VE, whose last sigma is 0.002 itself."""
    n, low, high = 18, 0.002 ** (1 / 7), 80 ** (1 / 7)
    expected = [(high + i / (n - 1) * (low - high)) ** 7 for i in range(n)] + [0.0]
    got = [u_at(EDM(), t) for t in Karras()(n, EDM()).tolist()]
    assert got == pytest.approx(expected, rel=1e-9)
    assert [u_at(VE(), t) for t in Karras()(n - 1, VE()).tolist()] == pytest.approx(expected[:-1], rel=1e-9)
    assert u_at(EDM(), Karras(u_min=0.1)(n, EDM())[-2].item()) == pytest.approx(0.1)


def test_whole_ddpm_chain_fits():
    times = DDPM()(1000, VPLinear())
    assert len(times) == 1001 and (times.diff() < 0).all()
    with pytest.raises(SfumatoError, match="1000 steps here"):
        DDPM()(1001, VPLinear())


@pytest.mark.parametrize("strength", [0.3, 0.6, 1.0])
@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("process", PROCESSES, ids=name)
def test_strength_picks_a_time_and_eats_no_steps(process, grid, strength):
    if grid.startswith("ddpm") and not isinstance(process, VPLinear):
        return  # other processes see a part of the chain
    first = process.t_min + strength * (process.t_max - process.t_min)
    times = FromData(strength, GRIDS[grid])(12, process)
    assert len(times) == 13 and (times.diff() < 0).all() and times[-1] == process.t_min
    assert times[0] <= first + 1e-12
    if grid != "ddpm-leading":
        assert times[0].item() == pytest.approx(first)


def test_too_little_strength_for_a_grid_says_so():
    with pytest.raises(SfumatoError, match="lower u_min"):
        FromData(0.001, Karras(u_min=0.1))(12, EDM())
    with pytest.raises(SfumatoError, match="chain has 11 steps here"):
        FromData(0.01, DDPM())(12, VPLinear())


def test_up_and_down():
    process = RectifiedFlow()
    down = uniform(6, process).tolist()
    path = UpAndDown(times=3, jump=2)(6, process).tolist()
    a, b, c, d, e, f, g = down
    assert path == [a, b, c, a, b, c, a, b, c, d, e, c, d, e, c, d, e, f, g]
    assert UpAndDown(times=1)(6, process).tolist() == down


def test_walking_up_keeps_the_marginal_and_forgets():
    """An up-move renoises: after any path of a grid with returns, samples of an exact denoiser have the same spread."""
    process = VPLinear()
    oracle, noise = gaussian(process), Noise.of(5, 32)
    shape = (32, 2)
    grid = UpAndDown(times=3, jump=5, inner=Karras())(40, process)
    x = process.prior(shape, noise.at(-1))
    ends = []
    for step in walk(oracle, DPMpp2M(), grid, x, noise):
        if step.s > step.t:
            ends.append(step.x)
        x = step.x
    assert len(ends) == 14
    assert not torch.equal(ends[0], ends[1])
    assert (x.mean(0) - oracle.mean).abs().max() < 4 * 0.5 / math.sqrt(32)


def test_a_move_up_makes_the_solver_forget():
    """After it the solver gets a fresh state, and each move its own noise."""
    seen = []

    class Spy:
        needs, order = "any", 0

        def init(self):
            return 0

        def step(self, denoise, x, t, s, state, noise):
            seen.append((state, noise.seeds))
            return x, state + 1

    process = VPLinear()
    grid = torch.tensor([0.9, 0.6, 0.3, 0.7, 0.4, 0.0], dtype=torch.float64)
    steps = list(walk(gaussian(process), Spy(), grid, torch.zeros(2, 2), Noise.of(0, 2)))
    assert [state for state, _ in seen] == [0, 1, 0, 1]
    assert len({seeds for _, seeds in seen}) == 4
    assert [step.i for step in steps] == [0, 1, 2, 3, 4] and not torch.equal(steps[2].x, steps[1].x)


def test_bad_requests_say_what_to_do():
    with pytest.raises(SfumatoError, match="at least 1 step, not 0"):
        uniform(0, VPLinear())
    for grid in ("karras", "log-snr", "ddpm", "cosine"):
        with pytest.raises(SfumatoError, match="at least 1 step"):
            GRIDS[grid](0, VPLinear())
    with pytest.raises(SfumatoError, match="unknown grid 'nope'; known: flow, uniform, log-snr, karras"):
        pick_grid("nope")
    with pytest.raises(SfumatoError, match="unknown solver 'nope'; known: ddpm, ddim"):
        pick_solver("nope")
    with pytest.raises(SfumatoError, match="strength"):
        FromData(0.0)(4, VPLinear())
