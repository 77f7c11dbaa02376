"""What a solver is, and the one formula that most of them share."""

from __future__ import annotations

import math
from typing import Any, Literal, Protocol

from torch import Tensor

from sfumato.core import Denoise, Noise
from sfumato.forward import GaussianProcess

Needs = Literal["any", "linear", "masked"]


class Solver(Protocol):
    """One move t -> s with s < t; pure: no attribute changes, all memory is the state it is given and gives back.

    `order` is the global order of convergence (weak order for stochastic solvers; 0 when the moves are exact draws
    whose only error is that entries are drawn independently). `needs` says which processes suit it: "linear" (x_t =
    alpha x0 + sigma eps), "masked" (absorbing categorical) or "any" (the process's own bridge).
    """

    needs: Needs

    @property
    def order(self) -> int: ...
    def init(self) -> Any: ...
    def step(self, denoise: Denoise, x: Tensor, t: float, s: float, state: Any, noise: Noise) -> tuple[Tensor, Any]: ...


def straight(process: GaussianProcess, x: Tensor, x0: Tensor, t: float, s: float) -> Tensor:
    """x_s for a belief that stays what it is: alpha_s x0 + sigma_s eps, eps = (x - alpha_t x0) / sigma_t (DDIM, eta =
    0).

    It is finite where sigma(s) = 0, where it gives alpha_s x0: so every solver ends on it there.
    """
    alpha_t, sigma_t = process.alpha_sigma(t)
    alpha_s, sigma_s = process.alpha_sigma(s)
    keep = sigma_s / sigma_t
    return (x * keep).add_(x0, alpha=alpha_s - keep * alpha_t)


def half_log_snr(process: GaussianProcess, t: float) -> float:
    """log(alpha / sigma): the time in which DPM-Solver's exponential integrator is written; +inf where sigma = 0."""
    alpha, sigma = process.alpha_sigma(t)
    return math.log(alpha / sigma) if sigma > 0 else math.inf
