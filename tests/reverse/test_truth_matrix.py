"""Every linear solver x process x parameterisation against the exact flow of a Gaussian and of a planar mixture."""

from __future__ import annotations

import math

import pytest
import torch
from truth import (
    ODE_SOLVERS,
    PARAMETERISATIONS,
    PROCESSES,
    Saying,
    eps_of,
    exact_flow,
    gaussian,
    mixture,
    name,
    scale,
    start,
    t_at,
    u_at,
)

from sfumato.core import Noise
from sfumato.reverse import IPNDM4, AdaptiveODE, Karras, UniPC, pick_grid, sample, walk
from sfumato.reverse.multistep import Past, UniPCState
from sfumato.reverse.solver import half_log_snr

STILL = Noise.of(0, 16)


def end(denoise, solver, grid, x):
    for step in walk(denoise, solver, grid, x, STILL):
        x = step.x
    return x


def log_u_grid(process, high: float, low: float, n: int, uneven: bool = False) -> torch.Tensor:
    """Even in log u, or with moves that are long and short by turns, 2 to 1."""
    lengths = torch.tensor([2.0, 1.0] if uneven else [1.0, 1.0], dtype=torch.float64).repeat(n // 2).cumsum(0)
    part = torch.cat([torch.zeros(1, dtype=torch.float64), lengths / lengths[-1]])
    u = (math.log(high) + part * math.log(low / high)).exp()
    return torch.tensor([t_at(process, v) for v in u.tolist()], dtype=torch.float64)


def measured_order(errors: list[float], refine: float = 2.0) -> float:
    return math.log(errors[-2] / errors[-1]) / math.log(refine)


@pytest.mark.parametrize("solver", ODE_SOLVERS, ids=name)
@pytest.mark.parametrize("process", PROCESSES, ids=name)
@pytest.mark.parametrize("make", [gaussian, mixture])
def test_order_is_the_declared_one(make, process, solver):
    """In float64 on an interior interval; the error is against the exact flow, so a wrong limit fails as well.

    Moves are long and short by turns, so that coefficients for uneven steps are needed; iPNDM does not claim them.
    """
    oracle = make(process)
    high, low = 0.5, 0.1
    x = start(process, t_at(process, high))
    truth = exact_flow(oracle, x, t_at(process, high), t_at(process, low))
    errors = []
    for n in (60, 120, 240):
        grid = log_u_grid(process, high, low, n, uneven=not isinstance(solver, IPNDM4))
        errors.append((end(oracle, solver, grid, x) - truth).square().mean().sqrt().item())
    assert abs(measured_order(errors) - solver.order) < 0.3, errors
    assert errors[-1] < 0.02 * scale(process, t_at(process, low))


def warm_state(solver, oracle, times: list[float], x0_time_states: list[torch.Tensor]):
    """The state the solver would have, had it come along the exact path; newest last in the arguments."""
    process, pairs = oracle.process, list(zip(times, x0_time_states, strict=True))
    if isinstance(solver, IPNDM4):
        return tuple(eps_of(oracle, x, t) for t, x in reversed(pairs))
    past = tuple(Past(half_log_snr(process, t), oracle(x, t).x0) for t, x in reversed(pairs))
    return UniPCState(past[: solver.beliefs], pairs[-1][1], pairs[-1][0], min(solver.beliefs, len(past)))


@pytest.mark.parametrize("process", PROCESSES, ids=name)
@pytest.mark.parametrize("solver", [IPNDM4(), UniPC(3)], ids=name)
def test_order_four_once_under_way(solver, process):
    """With history from the exact path (no start of low order): iPNDM on a grid uniform in u, UniPC-3 in log u."""
    oracle, high, low = gaussian(process), 1.0, 0.3
    errors = []
    for n in (40, 80):
        if isinstance(solver, IPNDM4):
            u = torch.linspace(high, low, n + 1, dtype=torch.float64)
            grid = [t_at(process, v) for v in u.tolist()]
        else:
            grid = log_u_grid(process, high, low, n).tolist()
        first = start(process, grid[0])
        path = [exact_flow(oracle, first, grid[0], t) for t in grid[:4]]
        state, x = warm_state(solver, oracle, grid[:3], path[:3]), path[3]
        for t, s in zip(grid[3:], grid[4:], strict=False):
            x, state = solver.step(oracle, x, t, s, state, STILL)
        errors.append((x - exact_flow(oracle, first, grid[0], grid[-1])).square().mean().sqrt().item())
    assert abs(measured_order(errors) - 4) < 0.3, errors


@pytest.mark.parametrize("solver", ODE_SOLVERS, ids=name)
@pytest.mark.parametrize("process", PROCESSES, ids=name)
@pytest.mark.parametrize("make", [gaussian, mixture])
def test_paths_agree_over_parameterisations(make, process, solver):
    """Five networks that say the same in five languages, float32, from t_max to t_min: 1e-5 of the scale of x_t.

    iPNDM gets 40 moves: at 16 a move from sigma / alpha = 1000 lies beyond Adams-Bashforth's bound of stability
    (|step| / u < 0.3) and rounding grows a hundredfold.
    """
    oracle = make(process)
    grid = Karras()(40 if isinstance(solver, IPNDM4) else 16, process)
    x = process.prior((16, 2), Noise.of(1, 16))
    paths = [[step.x for step in walk(Saying(oracle, p), solver, grid, x, STILL)] for p in PARAMETERISATIONS]
    for k, s in enumerate(grid.tolist()[1:]):
        for path in paths[1:]:
            assert (path[k] - paths[0][k]).abs().max() < 1e-5 * scale(process, s)


@pytest.mark.parametrize("process", PROCESSES, ids=name)
@pytest.mark.parametrize("make", [gaussian, mixture])
def test_adaptive_keeps_its_tolerance(make, process):
    """The error to the exact flow follows the tolerance, in float64, and in float32 for every parameterisation."""
    oracle, high, low = make(process), 50.0, 0.01
    x = start(process, t_at(process, high))
    grid = torch.tensor([t_at(process, high), t_at(process, low)], dtype=torch.float64)
    truth = exact_flow(oracle, x, *grid.tolist())
    errors = {}
    for tolerance in (1e-3, 1e-6):
        away = end(oracle, AdaptiveODE(tolerance, tolerance), grid, x) - truth
        errors[tolerance] = away.abs().mean().item()
        assert errors[tolerance] < 30 * tolerance
    assert errors[1e-6] < errors[1e-3] / 50
    for p in PARAMETERISATIONS:
        got = end(Saying(oracle, p), AdaptiveODE(), grid, x.float())
        assert got.dtype == torch.float32
        assert (got - truth).abs().mean() < 3e-3


def test_adaptive_gives_each_sample_its_own_steps():
    process = PROCESSES[0]
    x = process.prior((16, 2), Noise.of(1, 16))
    grid = Karras()(1, process)
    together = end(mixture(process), AdaptiveODE(), grid, x)
    alone = torch.cat([end(mixture(process), AdaptiveODE(), grid, x[k : k + 1]) for k in range(16)])
    assert (together - alone).abs().max() < 1e-5


@pytest.mark.parametrize("solver", [*ODE_SOLVERS, AdaptiveODE()], ids=name)
@pytest.mark.parametrize("process", PROCESSES, ids=name)
def test_from_prior_to_data(process, solver):
    """Whole walks, ends included: finite everywhere, and 60 moves land on the exact flow's end."""
    oracle = gaussian(process)
    grid = pick_grid("karras")(1 if isinstance(solver, AdaptiveODE) else 60, process)
    x = process.prior((64, 2), Noise.of(2, 64))
    steps = list(walk(oracle, solver, grid, x, Noise.of(2, 64)))
    assert [step.t for step in steps] == grid.tolist()[:-1] and [step.s for step in steps] == grid.tolist()[1:]
    assert all(step.x.isfinite().all() and step.x.dtype == torch.float32 for step in steps)
    truth = oracle.flow(x, grid[0].item(), grid[-1].item())
    worst = 0.5 if solver.order == 1 else 0.02  # Euler in t on VE doubles sigma too slowly: 60 moves are few for it
    assert (steps[-1].x - truth).abs().max() < worst


def test_sample_starts_from_its_own_prior():
    oracle = gaussian(PROCESSES[-1])
    grid = pick_grid("karras")(20, oracle.process)
    solver = ODE_SOLVERS[3]
    x = sample(oracle, (8, 2), Noise.of(3, 8), solver, grid)
    assert torch.equal(x, sample(oracle, (8, 2), Noise.of(3, 8), solver, grid))
    assert torch.equal(x[2:5], sample(oracle, (3, 2), Noise.of(3, 3, first=2), solver, grid))
    assert not torch.equal(x, sample(oracle, (8, 2), Noise.of(4, 8), solver, grid))


def test_log_snr_grid_visits_equal_ratios():
    for process in PROCESSES:
        u = [u_at(process, t) for t in pick_grid("log-snr")(12, process).tolist()[:-1]]
        ratios = [b / a for a, b in zip(u, u[1:], strict=False)]
        assert max(ratios) - min(ratios) < 1e-6
