"""The probability-flow ODE with steps that choose their own length, one length per sample."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from sfumato.core import Denoise, Noise, SfumatoError, expand
from sfumato.reverse.solver import straight

# Dormand & Prince 1980, 5(4): the stages, the last being the fifth-order answer; _ERROR is its distance to the fourth.
_STAGES = (
    (1 / 5,),
    (3 / 40, 9 / 40),
    (44 / 45, -56 / 15, 32 / 9),
    (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
    (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
    (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
)
_NODES = (1 / 5, 3 / 10, 4 / 5, 8 / 9, 1.0, 1.0)
_ERROR = (71 / 57600, 0.0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40)
_FLOOR = 1e-3  # sigma / alpha below which a move to sigma = 0 is `straight`: its error there is O(floor^2)
_REACH = 0.75  # share of u that one step may cover: y bends near u = its spread, which a longer step would not see


@dataclass(frozen=True)
class AdaptiveODE:
    """d(x / alpha) / du = eps in u = sigma / alpha by Dormand-Prince 5(4), each sample with its own step length, so
    that picture k does not depend on its neighbours (the ODE of Song et al. 2021, section 4.3, in Karras et al.
    2022's variable).

    As many calls per move as the tolerance asks (6 a trial step): use a grid of one move. A step is kept when the
    root mean square of error / (atol + rtol |y|) is at most 1. State: each sample's next step length [B].

    Args: `rtol`, `atol` above 0 (atol in units of the data); `most` trial steps per move.
    Raises SfumatoError when `most` trial steps do not suffice or values stop being finite.
    """

    rtol: float = 1e-4
    atol: float = 1e-4
    most: int = 1000
    needs = "linear"
    order = 5

    def init(self) -> Tensor | None:
        return None

    def step(
        self, denoise: Denoise, x: Tensor, t: float, s: float, state: Tensor | None, noise: Noise
    ) -> tuple[Tensor, Tensor]:
        process = denoise.process
        alpha_t, sigma_t = process.alpha_sigma(t)
        alpha_s, sigma_s = process.alpha_sigma(s)
        start, end, stop = sigma_t / alpha_t, sigma_s / alpha_s, s
        if end < _FLOOR < start:
            end, stop = _FLOOR, process.t_of_log_snr(-2 * math.log(_FLOOR))
        if start <= _FLOOR:
            return straight(process, x, denoise(x, t).x0, t, s), state
        full = dict(size=(len(x),), dtype=torch.float64, device=x.device)
        length = torch.full(fill_value=_REACH * start, **full) if state is None else state
        y, length = self._integrate(denoise, x / alpha_t, torch.full(fill_value=start, **full), end, length)
        x = y * process.alpha_sigma(stop)[0]
        return (x if stop == s else straight(process, x, denoise(x, stop).x0, stop, s)), length

    def _integrate(self, denoise: Denoise, y: Tensor, u: Tensor, end: float, length: Tensor) -> tuple[Tensor, Tensor]:
        first = _slope(denoise, y, u)
        for _ in range(self.most):
            # 0 for samples that are done: they stand still while others go on
            step = torch.minimum(torch.minimum(length, _REACH * u), u - end)
            slopes = [first]
            for row, node in zip(_STAGES, _NODES, strict=True):
                there = y - expand(step, y).to(y.dtype) * sum(c * k for c, k in zip(row, slopes, strict=True) if c)
                slopes.append(_slope(denoise, there, u - node * step))
            wrong = expand(step, y).to(y.dtype) * sum(c * k for c, k in zip(_ERROR, slopes, strict=True) if c)
            bound = self.atol + self.rtol * torch.maximum(y.abs(), there.abs())
            error = (wrong / bound).flatten(1).square().mean(1).sqrt().double()
            if not torch.isfinite(error).all():
                raise SfumatoError("the adaptive solver met a value that is not finite: try sfumato doctor")
            keep = error <= 1
            y = torch.where(expand(keep, y), there, y)
            first = torch.where(expand(keep, y), slopes[-1], first)
            reached = keep & (step >= u - end)
            u = torch.where(reached, torch.full_like(u, end), torch.where(keep, u - step, u))
            wish = step * (0.9 * error.clamp_min(1e-10) ** -0.2).clamp(0.2, 5.0)
            cut = keep & (step < length)  # a good step that was cut short says little
            wish = torch.where(cut, torch.maximum(length, wish), wish)
            length = torch.where(step > 0, wish, length)
            if bool((u <= end).all()):
                return y, length
        raise SfumatoError(f"the adaptive solver did not arrive in {self.most} trial steps: raise rtol and atol")


def _slope(denoise: Denoise, y: Tensor, u: Tensor) -> Tensor:
    """eps at x = alpha y for each sample's own u = sigma / alpha [B]."""
    process = denoise.process
    t = process.t_of_log_snr(-2 * u.log()).to(y.dtype)
    alpha, sigma = (expand(scale, y) for scale in process.alpha_sigma(t))
    x = alpha * y
    return (x - alpha * denoise(x, t).x0) / sigma  # by the rounded t's own sigma, so that x, t and eps agree
