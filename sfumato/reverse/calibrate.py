"""Times chosen for one model: the grid whose moves err least on paths that the model itself walks."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from sfumato.core import Cond, Denoise, Noise, Posterior, Process, SfumatoError, Time
from sfumato.reverse.catalogue import check
from sfumato.reverse.grids import LogSNR, flow
from sfumato.reverse.loop import walk
from sfumato.reverse.multistep import DPMpp2M
from sfumato.reverse.solver import Solver

EVEN, FINE = 33, 16  # candidate times: even as in a flow, and even in log-SNR
SWEEPS = 3  # over the times of a grid, to move each
_ANY = Noise([0])  # solvers that can be calibrated draw nothing


@dataclass(frozen=True)
class _Seen:
    """A denoiser that keeps its beliefs, in order."""

    denoise: Denoise
    beliefs: list[Tensor]

    @property
    def process(self) -> Process:
        return self.denoise.process

    def __call__(self, x_t: Tensor, t: Time, cond: Cond = Cond()) -> Posterior:  # noqa: B008 - Cond is immutable
        belief = self.denoise(x_t, t, cond)
        self.beliefs.append(belief.lin)
        return belief


@dataclass(frozen=True)
class _Symbols:
    """x and beliefs along a path as unit vectors, so that a solver run on it tells the numbers it mixes them with."""

    process: Process
    rows: dict[float, Tensor]

    def __call__(self, x_t: Tensor, t: Time, cond: Cond = Cond()) -> Posterior:  # noqa: B008 - Cond is immutable
        return self.process.posterior(x_t, t, self.rows[t])


def candidates(process: Process) -> Tensor:
    """The times a calibrated grid may visit, falling, float64."""
    times = torch.cat([flow(EVEN, process), LogSNR()(FINE, process)[1:-1]]).unique().flip(0)
    u = torch.tensor([math.exp(-0.5 * process.log_snr(t)) for t in times.tolist()])
    near = torch.zeros(len(u), dtype=torch.bool)
    near[1:-1] = u[1:-1] > 0.95 * u[:-2]
    return times[~near]


def calibrate(denoise: Denoise, solver: Solver, x: Tensor, steps: list[int]) -> dict[int, Tensor]:
    """For each number of steps a grid [steps + 1] from t_max to t_min on which the solver ends near where the path ends.

    The paths are walked once over all candidate times; the error of a move i -> j after k -> i is its distance from the
    path at j, shrunk as the flow of data of this spread shrinks it on the way to the end, spread / sqrt(alpha^2 spread^2
    + sigma^2). The best way through the candidates is found exactly, by dynamic programming over pairs of neighbouring
    times (after Chen et al. 2024, "On the trajectory regularity of ODE-based diffusion sampling", GITS, whose error is
    Euler's; here it is that of the solver itself with the belief before). From there, and from even times, each time is
    moved to its neighbours as long as the pictures then end nearer: where paths part, errors grow, and the sum misleads.

    Args: `x` noise at t_max [B, ...], a few dozen pictures; `solver` for linear processes, without noise of its own.
    Raises SfumatoError for more steps than there are candidates.
    """
    check(solver, denoise.process)
    times = candidates(denoise.process)
    m = len(times) - 1
    if not steps or min(steps) < 1 or max(steps) > m:
        raise SfumatoError(f"a calibrated grid has 1 to {m} steps, not {steps}")
    seen = _Seen(denoise, [])
    path = [x, *(step.x for step in walk(seen, DPMpp2M(), times, x, _ANY))]
    vectors = torch.stack([v.flatten() for v in (*path, *seen.beliefs)]).double()
    gram = vectors @ vectors.T / vectors.shape[1]
    errors = _errors(solver, denoise.process, times, gram, float(path[-1].std()))

    def away(places: list[int]) -> float:
        end = x
        for step in walk(denoise, solver, times[places], x, _ANY):
            end = step.x
        return float((end - path[-1]).square().flatten(1).mean(1).sqrt().mean())

    return {n: times[_nearer(away, [_shortest(errors, n), _near(times, flow(n, denoise.process))])] for n in steps}


def _near(times: Tensor, grid: Tensor) -> list[int]:
    """The places of the candidates nearest to a grid, each used once."""
    places = (times[None] - grid[:, None]).abs().argmin(1).tolist()
    for k in range(1, len(places)):
        places[k] = max(places[k], places[k - 1] + 1)
    last = len(times) - 1
    return [min(place, last - (len(places) - 1 - k)) for k, place in enumerate(places)]


def _nearer(away: Callable[[list[int]], float], starts: list[list[int]]) -> list[int]:
    """The best of the starts, its inner places moved by one or two while that makes `away` smaller."""
    least, best = min((away(way), way) for way in starts)
    for _ in range(SWEEPS):
        before = least
        for k, shift in itertools.product(range(1, len(best) - 1), (-2, -1, 1, 2)):
            moved = best[k] + shift
            if best[k - 1] < moved < best[k + 1]:
                way = [*best[:k], moved, *best[k + 1 :]]
                least, best = min((least, best), (away(way), way))
        if least == before:
            break
    return best


def _errors(solver: Solver, process: Process, times: Tensor, gram: Tensor, spread: float) -> Tensor:
    """Errors [k, i, j] of the move i -> j after k -> i, infinite where that is no way; k = i = 0 for a first move."""
    t, m = times.tolist(), len(times) - 1
    unit = torch.eye(len(gram), dtype=torch.float64)
    symbols = _Symbols(process, {t[i]: unit[m + 1 + i : m + 2 + i] for i in range(m)})
    scales = [process.alpha_sigma(s) for s in t]
    kept = torch.tensor([spread / math.hypot(alpha * spread, sigma) for alpha, sigma in scales], dtype=torch.float64)
    errors = torch.full((m + 1, m + 1, m + 1), math.inf, dtype=torch.float64)
    for i in range(m):
        for k in range(i) if i else [0]:
            state = solver.init()
            if i:
                _, state = solver.step(symbols, unit[k : k + 1], t[k], t[i], state, _ANY)
            ends = [solver.step(symbols, unit[i : i + 1], t[i], s, state, _ANY)[0] for s in t[i + 1 :]]
            away = torch.cat(ends) - unit[i + 1 : m + 1]
            errors[k, i, i + 1 :] = ((away @ gram) * away).sum(1).clamp_min(0).sqrt() * kept[i + 1 :]
    return errors


def _shortest(errors: Tensor, steps: int) -> list[int]:
    """The places 0 ... m of the way with exactly `steps` moves and the least sum of errors."""
    best, before = errors[0, 0].expand(len(errors), -1).clone(), []
    best[1:] = math.inf  # [i, j]: the least sum of ways whose last move is i -> j
    for _ in range(steps - 1):
        best, last = (best[:, :, None] + errors).min(0)
        before.append(last)
    place = int(best[:, -1].argmin())
    way = [len(errors) - 1, place]
    for last in reversed(before):
        way.append(int(last[way[-1], way[-2]]))
    return way[::-1]
