"""The one loop: every sampler is a solver on a grid."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from sfumato.core import Denoise, Noise
from sfumato.reverse.catalogue import check
from sfumato.reverse.solver import Solver

PRIOR = -1  # the step number of the noise that a sample starts from


@dataclass(frozen=True)
class Step:
    """What one move gave: its number `i`, the times t -> s, and x at s [B, ...]."""

    i: int
    t: float
    s: float
    x: Tensor


@torch.no_grad()
def walk(denoise: Denoise, solver: Solver, grid: Tensor, x: Tensor, noise: Noise) -> Iterator[Step]:
    """The moves of `solver` along `grid`, one by one; stop asking and the work stops. Runs without gradients.

    A move up (s > t) adds noise by the process itself and makes the solver forget. Move i draws from `noise.at(i)`
    only.

    Args: `grid` [n+1] times, x at grid[0] [B, ...].
    Raises SfumatoError when the solver does not suit the process, naming those that do.
    """
    check(solver, denoise.process)
    state = solver.init()
    for i, (t, s) in enumerate(pairwise(grid.tolist())):
        if s > t:
            x, state = denoise.process.renoise(x, t, s, noise.at(i)), solver.init()
        else:
            x, state = solver.step(denoise, x, t, s, state, noise.at(i))
        yield Step(i, t, s, x)


def sample(
    denoise: Denoise, shape: Sequence[int], noise: Noise, solver: Solver, grid: Tensor, x_init: Tensor | None = None
) -> Tensor:
    """The end of a walk that starts from the prior: x0 of this shape [B, ...], B seeds in `noise`.

    With `x_init` (x0 of this shape, or one for all) it starts from these data, noised to the grid's first time.
    """
    x = begin(denoise, shape, noise, solver, grid, x_init)
    for step in walk(denoise, solver, grid, x, noise):
        x = step.x
    return x


def begin(
    denoise: Denoise, shape: Sequence[int], noise: Noise, solver: Solver, grid: Tensor, x_init: Tensor | None = None
) -> Tensor:
    """Where `sample` starts: x at grid[0], drawn from `noise.at(PRIOR)`."""
    check(solver, denoise.process)
    if x_init is None:
        return denoise.process.prior(shape, noise.at(PRIOR))
    return denoise.process.corrupt(x_init.expand(*shape), float(grid[0]), noise.at(PRIOR))
