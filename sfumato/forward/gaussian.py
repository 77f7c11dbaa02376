"""Gaussian forward processes x_t = alpha(t) x0 + sigma(t) eps, each with its SDE, log-SNR and exact bridge.

A process is four formulas: (alpha, sigma), their time derivatives, and the inverse of its log-SNR. All else follows:
drift f = alpha'/alpha and diffusion g^2 = 2 sigma (sigma' - f sigma) of dx = f x dt + g dW (Song et al. 2021,
"Score-based generative modeling through SDEs"; Kingma et al. 2021, "Variational diffusion models").
Every formula takes Python floats (solvers: no tensor overhead) or tensors (training: one time per sample).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType

import torch
from torch import Tensor

from sfumato.core import Noise, Posterior, Time, expand


def _lib(t: Time) -> ModuleType:
    return math if isinstance(t, float) else torch


@dataclass(frozen=True)
class GaussianPosterior:
    """Belief N(x0, .) about the data behind x_t, known by its mean `lin`; eps, score and velocity are the same belief.

    Shapes: `x_t`, `lin` [B, ...]; `t` a float, [B], or [B, frames].
    """

    process: GaussianProcess
    x_t: Tensor
    t: Time
    lin: Tensor

    @property
    def x0(self) -> Tensor:
        return self.lin

    def _alpha_sigma(self) -> tuple[Time, Time]:
        alpha, sigma = self.process.alpha_sigma(self.t)
        return expand(alpha, self.x_t), expand(sigma, self.x_t)

    @property
    def eps(self) -> Tensor:
        """Expected noise (x_t - alpha x0) / sigma."""
        alpha, sigma = self._alpha_sigma()
        return (self.x_t - alpha * self.lin) / sigma

    @property
    def score(self) -> Tensor:
        """grad_x log p_t(x_t) = (alpha x0 - x_t) / sigma^2 (Tweedie)."""
        alpha, sigma = self._alpha_sigma()
        return (alpha * self.lin - self.x_t) / sigma**2

    @property
    def velocity(self) -> Tensor:
        """dx/dt of the probability-flow ODE: alpha' x0 + sigma' eps."""
        d_alpha, d_sigma = self.process.derivatives(self.t)
        return expand(d_alpha, self.x_t) * self.lin + expand(d_sigma, self.x_t) * self.eps

    def with_lin(self, lin: Tensor) -> GaussianPosterior:
        return GaussianPosterior(self.process, self.x_t, self.t, lin)

    def observe(self, known: Tensor, y: Tensor) -> GaussianPosterior:
        """The belief with the entries of `known` (bool or 0..1, broadcastable) replaced by the measurement `y`."""
        return self.with_lin(torch.where(known.bool(), y, self.lin))

    def draw(self, noise: Noise) -> Tensor:
        """The mean: a Gaussian belief's spread is not learned, the bridge adds the rest."""
        return self.lin


class GaussianProcess:
    """Base of the Gaussian processes; see the module's formulas. Times lie in [t_min, t_max]."""

    linear = True
    t_min = 0.0
    t_max = 1.0

    def alpha_sigma(self, t: Time) -> tuple[Time, Time]:
        """Signal and noise scale at t."""
        raise NotImplementedError

    def derivatives(self, t: Time) -> tuple[Time, Time]:
        """d alpha / dt and d sigma / dt."""
        raise NotImplementedError

    def t_of_log_snr(self, log_snr: Time) -> Time:
        """The inverse of `log_snr`."""
        raise NotImplementedError

    def log_snr(self, t: Time) -> Time:
        """lambda(t) = 2 log(alpha / sigma); +inf where sigma = 0, -inf where alpha = 0."""
        alpha, sigma = self.alpha_sigma(t)
        if isinstance(t, float):
            if sigma == 0.0:
                return math.inf
            return 2 * math.log(alpha / sigma) if alpha > 0 else -math.inf
        return 2 * (alpha.log() - sigma.log())

    def drift(self, t: Time) -> Time:
        """f(t) of dx = f x dt + g dW."""
        alpha, _ = self.alpha_sigma(t)
        return self.derivatives(t)[0] / alpha

    def diffusion2(self, t: Time) -> Time:
        """g(t)^2 of dx = f x dt + g dW."""
        _, sigma = self.alpha_sigma(t)
        return 2 * sigma * (self.derivatives(t)[1] - self.drift(t) * sigma)

    def prior(self, shape: Sequence[int], noise: Noise) -> Tensor:
        """Pure noise sigma(t_max) eps, where sampling begins."""
        return self.alpha_sigma(self.t_max)[1] * noise.normal(shape)

    def corrupt(self, x0: Tensor, t: Time, noise: Noise) -> Tensor:
        """A draw of q(x_t | x0) = N(alpha x0, sigma^2)."""
        alpha, sigma = self.alpha_sigma(t)
        return expand(alpha, x0) * x0 + expand(sigma, x0) * noise.normal(x0.shape, x0.device)

    def renoise(self, x: Tensor, s: Time, t: Time, noise: Noise) -> Tensor:
        """A draw of q(x_t | x_s), s <= t: the way up the same Markov chain."""
        ratio, variance = self._step(t, s)
        return expand(ratio, x) * x + expand(variance**0.5, x) * noise.normal(x.shape, x.device)

    def _step(self, t: Time, s: Time) -> tuple[Time, Time]:
        """Scale and variance of q(x_t | x_s) for s <= t."""
        alpha_t, sigma_t = self.alpha_sigma(t)
        alpha_s, sigma_s = self.alpha_sigma(s)
        ratio = alpha_t / alpha_s
        variance = sigma_t**2 - (ratio * sigma_s) ** 2
        return ratio, max(variance, 0.0) if isinstance(variance, float) else variance.clamp_min(0.0)

    def bridge(self, x_t: Tensor, t: Time, s: Time, posterior: Posterior, noise: Noise, eta: float = 1.0) -> Tensor:
        """A draw of q(x_s | x_t, x0) with its noise scaled by eta (DDIM, Song et al. 2021, eq. 12 and 16).

        eta = 1 is the exact bridge of the Markov chain (DDPM's ancestral step), eta = 0 the deterministic DDIM step;
        every eta keeps the marginals. `s` < `t`; draws no noise when eta = 0 or sigma(s) = 0.
        """
        alpha_s, sigma_s = self.alpha_sigma(s)
        _, sigma_t = self.alpha_sigma(t)
        _, variance = self._step(t, s)
        spread = eta * (variance**0.5) * sigma_s / sigma_t
        along = sigma_s**2 - spread**2
        along = max(along, 0.0) ** 0.5 if isinstance(along, float) else along.clamp_min(0.0) ** 0.5
        x_s = expand(alpha_s, x_t) * posterior.draw(noise) + expand(along, x_t) * posterior.eps
        if isinstance(spread, float) and spread == 0.0:
            return x_s
        return x_s + expand(spread, x_t) * noise.normal(x_t.shape, x_t.device)

    def posterior(self, x_t: Tensor, t: Time, lin: Tensor) -> GaussianPosterior:
        """The belief whose mean is `lin`."""
        return GaussianPosterior(self, x_t, t, lin)


class _VariancePreserving(GaussianProcess):
    """alpha^2 + sigma^2 = 1; a subclass gives the integral B(t) = -2 log alpha and its rate beta(t)."""

    def _integral(self, t: Time) -> Time:
        raise NotImplementedError

    def _beta(self, t: Time) -> Time:
        raise NotImplementedError

    def alpha_sigma(self, t: Time) -> tuple[Time, Time]:
        m, b = _lib(t), self._integral(t)
        return m.exp(-0.5 * b), m.sqrt(-m.expm1(-b))

    def derivatives(self, t: Time) -> tuple[Time, Time]:
        alpha, sigma = self.alpha_sigma(t)
        beta = self._beta(t)
        return -0.5 * beta * alpha, 0.5 * beta * alpha**2 / sigma


@dataclass(frozen=True)
class VPLinear(_VariancePreserving):
    """Variance-preserving, beta(t) = beta_min + t (beta_max - beta_min): DDPM in continuous time (Song et al. 2021, eq. 33)."""

    beta_min: float = 0.1
    beta_max: float = 20.0

    def _beta(self, t: Time) -> Time:
        return self.beta_min + t * (self.beta_max - self.beta_min)

    def _integral(self, t: Time) -> Time:
        return t * self.beta_min + 0.5 * t * t * (self.beta_max - self.beta_min)

    def _t_of_integral(self, b: Time) -> Time:
        slope = self.beta_max - self.beta_min
        return 2 * b / (self.beta_min + _lib(b).sqrt(self.beta_min**2 + 2 * slope * b))

    def t_of_log_snr(self, log_snr: Time) -> Time:
        return self._t_of_integral(_softplus(-log_snr))


@dataclass(frozen=True)
class VPCosine(_VariancePreserving):
    """Variance-preserving, alpha = cos(angle), angle linear in t (Nichol & Dhariwal 2021; Kingma & Gao 2023).

    `clip` keeps alpha(1) and sigma(0) at this value, so that log-SNR stays finite at both ends.
    """

    clip: float = 1e-3

    def _angle(self, t: Time) -> Time:
        low = math.asin(self.clip)
        return low + t * (math.pi / 2 - 2 * low)

    def alpha_sigma(self, t: Time) -> tuple[Time, Time]:
        m, angle = _lib(t), self._angle(t)
        return m.cos(angle), m.sin(angle)

    def derivatives(self, t: Time) -> tuple[Time, Time]:
        alpha, sigma = self.alpha_sigma(t)
        rate = math.pi / 2 - 2 * math.asin(self.clip)
        return -rate * sigma, rate * alpha

    def t_of_log_snr(self, log_snr: Time) -> Time:
        m, low = _lib(log_snr), math.asin(self.clip)
        return (m.atan(m.exp(-0.5 * log_snr)) - low) / (math.pi / 2 - 2 * low)


@dataclass(frozen=True)
class SubVP(GaussianProcess):
    """Sub-variance-preserving: VP's alpha with sigma = 1 - alpha^2 (Song et al. 2021, eq. 29), linear beta."""

    beta_min: float = 0.1
    beta_max: float = 20.0

    @property
    def _vp(self) -> VPLinear:
        return VPLinear(self.beta_min, self.beta_max)

    def alpha_sigma(self, t: Time) -> tuple[Time, Time]:
        m, b = _lib(t), self._vp._integral(t)
        return m.exp(-0.5 * b), -m.expm1(-b)

    def derivatives(self, t: Time) -> tuple[Time, Time]:
        alpha, _ = self.alpha_sigma(t)
        beta = self._vp._beta(t)
        return -0.5 * beta * alpha, beta * alpha**2

    def t_of_log_snr(self, log_snr: Time) -> Time:
        # alpha / (1 - alpha^2) = r  =>  alpha = 2 r / (1 + sqrt(1 + 4 r^2)), in q = 1 / r so that r = inf is fine
        m = _lib(log_snr)
        q = m.exp(-0.5 * log_snr)
        alpha = 2 / (q + m.sqrt(q * q + 4))
        return self._vp._t_of_integral(-2 * m.log(alpha))


@dataclass(frozen=True)
class VE(GaussianProcess):
    """Variance-exploding, sigma(t) = sigma_min (sigma_max / sigma_min)^t (Song et al. 2021, eq. 31); alpha = 1."""

    sigma_min: float = 0.002
    sigma_max: float = 80.0

    def alpha_sigma(self, t: Time) -> tuple[Time, Time]:
        sigma = self.sigma_min * _lib(t).exp(t * math.log(self.sigma_max / self.sigma_min))
        return (1.0 if isinstance(t, float) else torch.ones_like(sigma)), sigma

    def derivatives(self, t: Time) -> tuple[Time, Time]:
        sigma = self.alpha_sigma(t)[1]
        return 0.0 * sigma, sigma * math.log(self.sigma_max / self.sigma_min)

    def t_of_log_snr(self, log_snr: Time) -> Time:
        return (-0.5 * log_snr - math.log(self.sigma_min)) / math.log(self.sigma_max / self.sigma_min)


@dataclass(frozen=True)
class EDM(GaussianProcess):
    """sigma = sigma_max t, alpha = 1: straight lines in sigma (Karras et al. 2022, "Elucidating the design space")."""

    sigma_max: float = 80.0

    def alpha_sigma(self, t: Time) -> tuple[Time, Time]:
        return (1.0 if isinstance(t, float) else torch.ones_like(t)), self.sigma_max * t

    def derivatives(self, t: Time) -> tuple[Time, Time]:
        return 0.0 * t, self.sigma_max + 0.0 * t

    def t_of_log_snr(self, log_snr: Time) -> Time:
        return _lib(log_snr).exp(-0.5 * log_snr) / self.sigma_max


@dataclass(frozen=True)
class RectifiedFlow(GaussianProcess):
    """x_t = (1 - t) x0 + t eps (Liu et al. 2022; Lipman et al. 2023).

    Grids start at t_max = 0.999: at t = 1 the signal is exactly gone, and neither an eps-prediction nor the SDE is finite.
    """

    t_max = 0.999

    def alpha_sigma(self, t: Time) -> tuple[Time, Time]:
        return 1.0 - t, t

    def derivatives(self, t: Time) -> tuple[Time, Time]:
        return -1.0 + 0.0 * t, 1.0 + 0.0 * t

    def t_of_log_snr(self, log_snr: Time) -> Time:
        m = _lib(log_snr)
        return 1.0 / (1.0 + m.exp(0.5 * log_snr)) if not isinstance(log_snr, float) else _sigmoid(-0.5 * log_snr)


def _sigmoid(z: float) -> float:
    return 1.0 / (1.0 + math.exp(-z)) if z >= 0 else math.exp(z) / (1.0 + math.exp(z))


def _softplus(z: Time) -> Time:
    if isinstance(z, float):
        return max(z, 0.0) + math.log1p(math.exp(-abs(z)))
    return z.clamp_min(0) + torch.log1p(torch.exp(-z.abs()))
