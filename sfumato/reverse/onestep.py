"""Solvers without memory: the bridge, DDIM, Euler, Heun, the reverse SDE, and a Langevin corrector on any of them."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from sfumato.core import Denoise, Noise
from sfumato.forward import GaussianProcess
from sfumato.reverse.solver import Needs, Solver, straight


class _Memoryless:
    needs: Needs = "linear"

    def init(self) -> None:
        return None


@dataclass(frozen=True)
class Ancestral(_Memoryless):
    """DDPM: a draw of the process's own bridge q(x_s | x_t, x0 ~ belief) (Ho et al. 2020, eq. 7); any process."""

    needs = "any"
    order = 1

    def step(self, denoise: Denoise, x: Tensor, t: float, s: float, state: None, noise: Noise) -> tuple[Tensor, None]:
        return denoise.process.bridge(x, t, s, denoise(x, t), noise), None


@dataclass(frozen=True)
class DDIM(_Memoryless):
    """x_s = alpha_s x0 + sqrt(sigma_s^2 - c^2) eps + c z, c = eta times the bridge's spread (Song et al. 2021, eq. 12).

    Args: `eta` in [0, 1]: 0 deterministic (order 1 for the probability-flow ODE), 1 the ancestral step.
    """

    eta: float = 0.0
    order = 1

    def step(self, denoise: Denoise, x: Tensor, t: float, s: float, state: None, noise: Noise) -> tuple[Tensor, None]:
        belief, process = denoise(x, t), denoise.process
        if self.eta == 0.0:
            return straight(process, x, belief.x0, t, s), None
        return process.bridge(x, t, s, belief, noise, eta=self.eta), None


@dataclass(frozen=True)
class Renoise(_Memoryless):
    """x_s = alpha_s x0 + sigma_s z, z drawn anew: for consistency models, whose x0 is a whole sample and no mean (Song et
    al. 2023, algorithm 1).

    `order` 0: with the belief of a denoiser its error does not shrink with the step.
    """

    order = 0

    def step(self, denoise: Denoise, x: Tensor, t: float, s: float, state: None, noise: Noise) -> tuple[Tensor, None]:
        return denoise.process.corrupt(denoise(x, t).x0, s, noise), None


def _slope(process: GaussianProcess, t: float) -> tuple[float, float]:
    """(p, q) of the probability-flow ODE dx/dt = p x + q x0: posterior.velocity with its arithmetic in floats."""
    alpha, sigma = process.alpha_sigma(t)
    d_alpha, d_sigma = process.derivatives(t)
    p = d_sigma / sigma
    return p, d_alpha - p * alpha


@dataclass(frozen=True)
class Euler(_Memoryless):
    """x_s = x_t + (s - t) dx/dt of the probability-flow ODE in t (Song et al. 2021, eq. 13).

    Where sigma(s) = 0 the derivative of sigma may not be finite (VP): the last move is `straight` there.
    """

    order = 1

    def step(self, denoise: Denoise, x: Tensor, t: float, s: float, state: None, noise: Noise) -> tuple[Tensor, None]:
        process, x0 = denoise.process, denoise(x, t).x0
        if process.alpha_sigma(s)[1] == 0.0:
            return straight(process, x, x0, t, s), None
        (p, q), h = _slope(process, t), s - t
        return (x * (1 + h * p)).add_(x0, alpha=h * q), None


@dataclass(frozen=True)
class Heun(_Memoryless):
    """Euler's move, corrected by the mean of the slopes at both ends (Karras et al. 2022, algorithm 1); two calls a
    move.

    Where sigma(s) = 0 it is Euler's move, with one call.
    """

    order = 2

    def step(self, denoise: Denoise, x: Tensor, t: float, s: float, state: None, noise: Noise) -> tuple[Tensor, None]:
        process, x0 = denoise.process, denoise(x, t).x0
        if process.alpha_sigma(s)[1] == 0.0:
            return straight(process, x, x0, t, s), None
        (p, q), h = _slope(process, t), s - t
        guess = (x * (1 + h * p)).add_(x0, alpha=h * q)
        end = denoise(guess, s).x0
        p_s, q_s = _slope(process, s)
        x_s = (x * (1 + 0.5 * h * p)).add_(x0, alpha=0.5 * h * q)
        return x_s.add_(guess, alpha=0.5 * h * p_s).add_(end, alpha=0.5 * h * q_s), None


@dataclass(frozen=True)
class EulerMaruyama(_Memoryless):
    """x_s = x_t + (s - t) (f x - g^2 score) + g sqrt(t - s) z: the reverse SDE in t (Song et al. 2021, eq. 6); weak
    order 1.

    Where sigma(s) = 0 the last move gives the mean alpha_s x0, without noise.
    """

    order = 1

    def step(self, denoise: Denoise, x: Tensor, t: float, s: float, state: None, noise: Noise) -> tuple[Tensor, None]:
        process, x0 = denoise.process, denoise(x, t).x0
        alpha_s, sigma_s = process.alpha_sigma(s)
        if sigma_s == 0.0:
            return alpha_s * x0, None
        alpha, sigma = process.alpha_sigma(t)
        h, g2 = s - t, process.diffusion2(t)
        pull = g2 / sigma**2
        x_s = (x * (1 + h * (process.drift(t) + pull))).add_(x0, alpha=-h * pull * alpha)
        return x_s.add_(noise.normal(x.shape, x.device), alpha=math.sqrt(-h * g2)), None


@dataclass(frozen=True)
class PredictorCorrector:
    """A predictor's move, then Langevin steps at the new noise level (Song et al. 2021, algorithms 2 to 5).

    Langevin dx = score dtau + sqrt(2) dW is integrated exactly for a belief that stays what it is, over Song's length
    tau = 2 (snr sigma)^2: x = alpha x0 + rho (x - alpha x0) + sqrt(1 - rho^2) sigma z, rho = exp(-2 snr^2). The
    length is a number, not the batch's mean norm, so that picture k does not depend on its neighbours.

    Args: `predictor` any linear solver (Ancestral or EulerMaruyama in the paper); `corrections` Langevin steps per
    move, one call each; `snr` above 0.
    """

    predictor: Solver = field(default_factory=Ancestral)
    corrections: int = 1
    snr: float = 0.16
    needs = "linear"

    @property
    def order(self) -> int:
        return self.predictor.order

    def init(self) -> Any:
        return self.predictor.init()

    def step(self, denoise: Denoise, x: Tensor, t: float, s: float, state: Any, noise: Noise) -> tuple[Tensor, Any]:
        x, state = self.predictor.step(denoise, x, t, s, state, noise.at(0))
        alpha, sigma = denoise.process.alpha_sigma(s)
        if sigma == 0.0:
            return x, state
        rho = math.exp(-2 * self.snr**2)
        for k in range(1, self.corrections + 1):
            x0 = denoise(x, s).x0
            z = noise.at(k).normal(x.shape, x.device)
            x = (x * rho).add_(x0, alpha=(1 - rho) * alpha).add_(z, alpha=sigma * math.sqrt(1 - rho**2))
        return x, state
