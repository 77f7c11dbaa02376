"""Times chosen for a model: the sum of errors is the solver's own, its least way is found, and the answers are nearer."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from truth import mixture, name

from sfumato.core import Noise, SfumatoError
from sfumato.forward import EDM, RectifiedFlow, VPCosine
from sfumato.measure.oracles import Gaussian
from sfumato.reverse import DDIM, DPMpp2M, UniPC, calibrate, flow, pick_grid, sample
from sfumato.reverse.calibrate import _errors, _shortest, candidates

PROCESSES = [RectifiedFlow(), EDM(), VPCosine()]
STILL = Noise([0])


@pytest.mark.parametrize("process", PROCESSES, ids=name)
def test_eight_calls_come_nearer_to_the_exact_flow_than_the_default_grid(process) -> None:
    """The noise that errors are measured on is not that the times were chosen on."""
    oracle, solver = mixture(process), DPMpp2M()
    x = process.prior((32, 2), Noise.of(0, 32))
    grids = calibrate(oracle, solver, x, [6, 8])
    other = Noise.of(1, 200)
    truth = sample(oracle, (200, 2), other, UniPC(), pick_grid("karras")(400, process))

    def error(grid) -> float:
        return float((sample(oracle, (200, 2), other, solver, grid) - truth).square().mean().sqrt())

    for steps, grid in grids.items():
        assert len(grid) == steps + 1 and (grid.diff() < 0).all()
        assert grid[0] == process.t_max and grid[-1] == process.t_min
        assert error(grid) < (0.6 if steps == 8 else 1.0) * error(flow(steps, process))


def test_the_least_sum_is_found_among_all_ways() -> None:
    generator = torch.Generator().manual_seed(0)
    m = 6
    errors = torch.full((m + 1, m + 1, m + 1), math.inf, dtype=torch.float64)
    for i in range(m):
        for k in range(i) if i else [0]:
            errors[k, i, i + 1 :] = torch.rand(m - i, generator=generator, dtype=torch.float64)
    for steps in (1, 2, 3, 5, 6):
        ways = [(0, *inner, m) for inner in itertools.combinations(range(1, m), steps - 1)]

        def total(way) -> float:
            first = float(errors[0, 0, way[1]])
            return first + sum(float(errors[k, i, j]) for k, i, j in zip(way, way[1:], way[2:], strict=False))

        assert tuple(_shortest(errors, steps)) == min(ways, key=total)


@pytest.mark.parametrize("solver", [DPMpp2M(), DDIM()], ids=name)
def test_the_errors_are_those_of_the_solver_itself(solver) -> None:
    """On the exact paths of a Gaussian: the solver is run for real from one time over a second to a third."""
    process = RectifiedFlow()
    oracle = Gaussian(process, torch.tensor([0.3, -0.2]), torch.tensor([0.25, 0.04]))
    times = candidates(process)[::6]
    t, m = times.tolist(), len(times) - 1
    x = process.prior((16, 2), Noise.of(0, 16)).double()
    path = [oracle.flow(x, t[0], s) for s in t]
    beliefs = [oracle(path[i], t[i]).x0 for i in range(m)]
    vectors = torch.stack([v.flatten() for v in (*path, *beliefs)])
    spread = 0.4
    errors = _errors(solver, process, times, vectors @ vectors.T / vectors.shape[1], spread)
    for k, i, j in [(0, 1, 2), (0, 2, 5), (1, 3, 4), (2, 4, m)]:
        _, state = solver.step(oracle, path[k], t[k], t[i], solver.init(), STILL)
        got, _ = solver.step(oracle, path[i], t[i], t[j], state, STILL)
        alpha, sigma = process.alpha_sigma(t[j])
        expected = (got - path[j]).square().mean().sqrt() * spread / math.hypot(alpha * spread, sigma)
        assert errors[k, i, j] == pytest.approx(float(expected), rel=1e-6)


@pytest.mark.parametrize("steps", [[0], [1000], []])
def test_an_impossible_number_of_steps_is_told(steps) -> None:
    process = RectifiedFlow()
    with pytest.raises(SfumatoError, match="steps"):
        calibrate(mixture(process), DPMpp2M(), process.prior((4, 2), Noise.of(0, 4)), steps)
