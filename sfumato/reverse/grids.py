"""The times to visit, as data: float64 [n+1], from the process's t_max down to its t_min, unless a grid says otherwise.

Every grid is called (steps, process) -> Tensor[steps + 1]. Where log-SNR has no finite end (sigma(t_min) = 0) grids
that are written in log-SNR or in u = sigma / alpha go down to a finite `u_min` and take the last move to t_min.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from sfumato.core import Process, SfumatoError

Grid = Callable[[int, Process], Tensor]
_U_MIN = 0.002  # Karras et al. 2022's sigma_min, below what 8-bit pixels show


def _ends(steps: int, process: Process, times: Tensor) -> Tensor:
    """The same times (float64) with both ends exactly the process's; checks that they fall strictly."""
    times[0], times[-1] = process.t_max, process.t_min
    if not bool((times.diff() < 0).all()):
        raise SfumatoError(f"{steps} steps do not fit: neighbouring times coincide; take fewer steps or another grid")
    return times


def _count(steps: int) -> int:
    if steps < 1:
        raise SfumatoError(f"a grid needs at least 1 step, not {steps}")
    return steps


def _not_linear(process: Process) -> SfumatoError:
    return SfumatoError(f"this grid needs sigma / alpha and {type(process).__name__} has none; use uniform or cosine")


def uniform(steps: int, process: Process) -> Tensor:
    """t_i = t_max + (i / n) (t_min - t_max)."""
    part = torch.linspace(0, 1, _count(steps) + 1, dtype=torch.float64)
    return _ends(steps, process, process.t_max + part * (process.t_min - process.t_max))


def cosine(steps: int, process: Process) -> Tensor:
    """t_i = t_min + (t_max - t_min) cos(pi i / 2n): short moves near the noise (MaskGIT, Chang et al. 2022, section
    3.3).
    """
    part = torch.linspace(0, 1, _count(steps) + 1, dtype=torch.float64)
    return _ends(steps, process, process.t_min + (process.t_max - process.t_min) * torch.cos(0.5 * math.pi * part))


def _in_noise(steps: int, process: Process, u_min: float, spaced: Callable[[float, float, int], Tensor]) -> Tensor:
    """Times of u = sigma / alpha from its largest to u_min (`spaced(high, low, points)` gives u), then t_min."""
    _count(steps)
    if not process.linear:
        raise _not_linear(process)
    high = math.exp(-0.5 * process.log_snr(float(process.t_max)))
    low = math.exp(-0.5 * process.log_snr(float(process.t_min)))
    if low * (1 + 1e-9) >= u_min:
        u = spaced(high, low, steps + 1)
    elif u_min < high:
        u = torch.cat([spaced(high, u_min, steps), torch.zeros(1, dtype=torch.float64)])
    else:
        raise SfumatoError(f"the grid starts at sigma / alpha = {high:g}, below its end {u_min:g}: lower u_min")
    inner = [process.t_of_log_snr(-2 * math.log(v)) for v in u.tolist()[1:-1]]
    return _ends(steps, process, torch.tensor([process.t_max, *inner, process.t_min], dtype=torch.float64))


def flow(steps: int, process: Process) -> Tensor:
    """Equal steps in sigma / (alpha + sigma), the time of rectified flow, on any linear process: the same noise levels."""
    if not process.linear:
        raise _not_linear(process)
    high = math.exp(-0.5 * process.log_snr(float(process.t_max)))
    low = math.exp(-0.5 * process.log_snr(float(process.t_min)))
    tau = torch.linspace(high / (1 + high), low / (1 + low), _count(steps) + 1, dtype=torch.float64).tolist()
    times = [process.t_of_log_snr(-2 * math.log(v / (1 - v))) for v in tau[:-1]]
    return _ends(steps, process, torch.tensor([*times, float(process.t_min)], dtype=torch.float64))


@dataclass(frozen=True)
class LogSNR:
    """Equal steps in log-SNR (Lu et al. 2022, DPM-Solver), to sigma / alpha = `u_min` and then to t_min."""

    u_min: float = _U_MIN

    def __call__(self, steps: int, process: Process) -> Tensor:
        def spaced(high: float, low: float, points: int) -> Tensor:
            return torch.linspace(math.log(high), math.log(low), points, dtype=torch.float64).exp()

        return _in_noise(steps, process, self.u_min, spaced)


@dataclass(frozen=True)
class Karras:
    """u_i = (u_max^(1/rho) + i/(n-1) (u_min^(1/rho) - u_max^(1/rho)))^rho in u = sigma / alpha (Karras et al. 2022,
    eq. 5).
    """

    rho: float = 7.0
    u_min: float = _U_MIN

    def __call__(self, steps: int, process: Process) -> Tensor:
        def spaced(high: float, low: float, points: int) -> Tensor:
            root = 1 / self.rho
            return torch.linspace(high**root, low**root, points, dtype=torch.float64) ** self.rho

        return _in_noise(steps, process, self.u_min, spaced)


@dataclass(frozen=True)
class DDPM:
    """A subset of DDPM's discrete chain, beta_k linear from 1e-4 to 0.02 (Ho et al. 2020), each k at the time of its
    log-SNR.

    "linspace" takes both ends of the chain; "leading" takes every (chain // steps)-th from the first, as older
    diffusers models do, and so starts below t_max (the prior is then a little too noisy). The last move goes from k =
    0 to t_min. The chain's far end lies 0.3 % beyond VPLinear's t = 1: all its times are shrunk by as much.
    """

    spacing: Literal["linspace", "leading"] = "linspace"
    chain: int = 1000
    beta_start: float = 1e-4
    beta_end: float = 0.02

    def times(self, process: Process) -> Tensor:
        """The time of every k of the chain, float64 [chain], rising."""
        beta = torch.linspace(self.beta_start, self.beta_end, self.chain, dtype=torch.float64)
        log_alpha2 = torch.log1p(-beta).cumsum(0)
        log_snr = log_alpha2 - torch.log(-torch.expm1(log_alpha2))
        return torch.tensor([process.t_of_log_snr(v) for v in log_snr.tolist()], dtype=torch.float64)

    def __call__(self, steps: int, process: Process) -> Tensor:
        if not process.linear:
            raise _not_linear(process)
        times, top = self.times(process), float(process.t_max)
        if top < times[-1] < 1.01 * top:
            times = times * (top / times[-1])
        stride = int((times < top * (1 + 1e-9)).sum()) // _count(steps)
        times = times[times < top * (1 - 1e-9)]
        if self.spacing == "linspace":
            times = torch.cat([times, torch.tensor([top], dtype=torch.float64)])
        if steps > len(times):
            raise SfumatoError(f"DDPM's chain has {len(times)} steps here, not {steps}")
        if self.spacing == "leading":
            chosen = torch.arange(steps).flip(0) * max(stride, 1)
        else:
            chosen = torch.linspace(len(times) - 1, 0, steps, dtype=torch.float64).round().long()
        return torch.cat([times[chosen], torch.tensor([process.t_min], dtype=torch.float64)])


@dataclass(frozen=True)
class _From:
    """The process, seen by a grid as starting at `t_max`."""

    process: Process
    t_max: float

    def __getattr__(self, name: str) -> Any:
        return getattr(self.process, name)


@dataclass(frozen=True)
class FromData:
    """`inner` from t_min + strength (t_max - t_min) down: for image-to-image, x = process.corrupt(x0, grid[0], noise).

    All `steps` moves are made below that time: strength picks a time, it never eats steps. Args: `strength` in (0, 1].
    """

    strength: float
    inner: Grid = uniform

    def __call__(self, steps: int, process: Process) -> Tensor:
        if not 0 < self.strength <= 1:
            raise SfumatoError(f"strength lies above 0 and up to 1, not {self.strength}")
        return self.inner(steps, _From(process, process.t_min + self.strength * (process.t_max - process.t_min)))


@dataclass(frozen=True)
class UpAndDown:
    """`inner`, each stretch of `jump` moves walked `times` times with a move up between (RePaint, Lugmayr et al. 2022).

    The up-moves are data like any other: no solver knows of them. `steps` counts inner's moves; the last stretch, which
    ends in clean data, is walked once.
    """

    times: int = 10
    jump: int = 1
    inner: Grid = uniform

    def __call__(self, steps: int, process: Process) -> Tensor:
        if self.times < 1 or self.jump < 1:
            raise SfumatoError("an up-and-down grid needs times >= 1 and jump >= 1")
        down = self.inner(steps, process).tolist()
        path = down[:1]
        for first in range(0, steps, self.jump):
            stretch = down[first + 1 : first + self.jump + 1]
            again = 0 if first + self.jump >= steps else self.times - 1
            path += stretch + again * ([down[first]] + stretch)
        return torch.tensor(path, dtype=torch.float64)


GRIDS: dict[str, Grid] = {
    "flow": flow,
    "uniform": uniform,
    "log-snr": LogSNR(),
    "karras": Karras(),
    "cosine": cosine,
    "ddpm": DDPM(),
    "ddpm-leading": DDPM("leading"),
}


def pick_grid(name: str) -> Grid:
    """The grid of this name; SfumatoError lists the known ones."""
    if name not in GRIDS:
        raise SfumatoError(f"unknown grid {name!r}; known: {', '.join(GRIDS)}")
    return GRIDS[name]
