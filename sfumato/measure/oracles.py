"""Optimal denoisers of known distributions: exact beliefs to test samplers, guides and memorisation against.

Each is a callable (x_t, t, cond) -> Posterior with a `.process`, as a trained denoiser is. Arithmetic is float64 with
log-sum-exp, answers have the dtype of x_t.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from sfumato.core import Cond, Noise, Posterior, Time, expand
from sfumato.forward import Absorbing, GaussianProcess, Uniform

EMPTY = Cond()


@dataclass(frozen=True)
class Gaussian:
    """Data N(mean, covariance): E[x0 | x_t] = m + alpha C (alpha^2 C + sigma^2 I)^-1 (x_t - alpha m).

    Args: `mean` [...] of one sample's shape, D entries; `covariance` [D, D], or [D] (or [...]) for its diagonal.
    """

    process: GaussianProcess
    mean: Tensor
    covariance: Tensor
    _values: Tensor = field(init=False, repr=False)
    _vectors: Tensor | None = field(init=False, repr=False)

    def __post_init__(self) -> None:
        covariance, dims = self.covariance.double(), self.mean.numel()
        values, vectors = covariance.reshape(-1), None
        if covariance.numel() != dims:
            values, vectors = torch.linalg.eigh(covariance.reshape(dims, dims))
        object.__setattr__(self, "_values", values)
        object.__setattr__(self, "_vectors", vectors)

    def __call__(self, x_t: Tensor, t: Time, cond: Cond = EMPTY) -> Posterior:
        alpha, sigma = _scales(self.process, t)
        values = self._values
        lin = self._filtered(x_t, alpha, alpha * values / (alpha**2 * values + sigma**2)) + self.mean.double()
        return self.process.posterior(x_t, t, lin.to(x_t.dtype))

    def _filtered(self, x: Tensor, alpha: Time, gain: Tensor) -> Tensor:
        """gain applied to x - alpha mean along the axes of the covariance; alpha 1 or [B, 1], gain [D] or [B, D]."""
        away = x.flatten(1).double() - alpha * self.mean.double().flatten()
        if self._vectors is None:
            return (away * gain).reshape(x.shape)
        return ((away @ self._vectors * gain) @ self._vectors.T).reshape(x.shape)

    def flow(self, x_t: Tensor, t: float, s: float) -> Tensor:
        """x_s on the exact path of the probability-flow ODE through x_t: alpha_s m + sqrt(V_s / V_t) (x_t - alpha_t m),
        V = alpha^2 C + sigma^2 I.
        """
        (alpha_t, sigma_t), (alpha_s, sigma_s) = self.process.alpha_sigma(t), self.process.alpha_sigma(s)
        grown = (alpha_s**2 * self._values + sigma_s**2) / (alpha_t**2 * self._values + sigma_t**2)
        return (self._filtered(x_t, alpha_t, grown.sqrt()) + alpha_s * self.mean.double()).to(x_t.dtype)

    def draw(self, noise: Noise) -> Tensor:
        """One data sample per seed."""
        z = noise.normal((len(noise.seeds), self._values.numel())).double() * self._values.clamp_min(0).sqrt()
        z = z if self._vectors is None else z @ self._vectors.T
        return (z.reshape(-1, *self.mean.shape) + self.mean.double()).float()


@dataclass(frozen=True)
class Mixture:
    """Data from `components` Gaussians N(m_k, v_k I), drawn with the `weights`; v = 0 is a finite set of data.

    A condition slot "class" (value [B], class numbers) restricts a sample to components whose `labels` equal it.

    Args: `means` [K, ...]; `variances` a number or [K]; `weights` [K], positive (equal when None); `labels` int64 [K]
    (each component its own when None).
    """

    process: GaussianProcess
    means: Tensor
    variances: Tensor | float = 0.0
    weights: Tensor | None = None
    labels: Tensor | None = None

    def _terms(self, x: Tensor, alpha: Time, sigma: Time, cond: Cond) -> tuple[Tensor, Tensor, Tensor]:
        """log joint density [B, K] of x and component, the shrinking gain towards x [B|1, K], and total variance."""
        count, dims = len(self.means), self.means[0].numel()
        means, x = self.means.flatten(1).double(), x.flatten(1).double()
        variances = torch.as_tensor(self.variances, dtype=torch.float64).expand(count)
        total = alpha**2 * variances + sigma**2
        total = total.expand(1, count) if total.ndim == 1 else total
        squares = x.square().sum(1, keepdim=True) - 2 * alpha * (x @ means.T) + alpha**2 * means.square().sum(1)
        weights = torch.ones(count) if self.weights is None else self.weights
        log_weights = weights.double().log().expand(len(x), count)
        if "class" in cond:
            labels = torch.arange(count) if self.labels is None else self.labels
            slot = cond["class"]
            other = slot.present().unsqueeze(1) & (slot.value.reshape(-1, 1) != labels)
            log_weights = log_weights.masked_fill(other, -math.inf)
        log_weights = log_weights - log_weights.logsumexp(1, keepdim=True)
        log_joint = log_weights - 0.5 * squares / total - 0.5 * dims * torch.log(2 * math.pi * total)
        return log_joint, alpha * variances / total, total

    def __call__(self, x_t: Tensor, t: Time, cond: Cond = EMPTY) -> Posterior:
        alpha, sigma = _scales(self.process, t)
        log_joint, gain, _ = self._terms(x_t, alpha, sigma, cond)
        share = log_joint.softmax(1)
        means = self.means.flatten(1).double()
        lin = (share * (1 - alpha * gain)) @ means + (share * gain).sum(1, keepdim=True) * x_t.flatten(1).double()
        return self.process.posterior(x_t, t, lin.reshape(x_t.shape).to(x_t.dtype))

    def log_prob(self, x: Tensor, t: float | None = None, cond: Cond = EMPTY) -> Tensor:
        """log p_t(x), natural, float64 [B]; of the data when t is None (needs variances above 0)."""
        alpha, sigma = (1.0, 0.0) if t is None else self.process.alpha_sigma(t)
        return self._terms(x, alpha, sigma, cond)[0].logsumexp(1)

    def draw(self, noise: Noise) -> Tensor:
        """One data sample per seed."""
        shape, count = (len(noise.seeds), *self.means.shape[1:]), len(self.means)
        weights = torch.ones(count) if self.weights is None else self.weights
        edges = (weights.double() / weights.double().sum()).cumsum(0)
        which = torch.searchsorted(edges, noise.uniform(shape[:1]).double()).clamp_max(count - 1)
        spread = torch.as_tensor(self.variances, dtype=torch.float64).expand(count).sqrt()[which].float()
        return self.means[which].float() + expand(spread, self.means[which]) * noise.normal(shape)


def finite_data(process: GaussianProcess, images: Tensor, labels: Tensor | None = None) -> Mixture:
    """The optimal denoiser of a finite set [N, ...]: every sample it draws is a training image, by memory alone."""
    return Mixture(process, images, 0.0, None, labels)


@dataclass(frozen=True)
class Sequences:
    """Categorical data: `sequences` int64 [K, L] drawn with `weights` [K]; logits are exact log-marginals.

    Works for absorbing and uniform processes: p(sequence | x_t) ~ weight * prod_l q(x_t[l] | sequence[l]).
    """

    process: Absorbing | Uniform
    sequences: Tensor
    weights: Tensor

    def __call__(self, x_t: Tensor, t: Time, cond: Cond = EMPTY) -> Posterior:
        keep = torch.as_tensor(self.process.alpha(t), dtype=torch.float64).reshape(-1, 1, 1)
        same = x_t.unsqueeze(1) == self.sequences
        if isinstance(self.process, Absorbing):
            fallen = (x_t == self.process.mask).unsqueeze(1).double()
        else:
            fallen = torch.full((1, 1, 1), 1 / self.process.classes, dtype=torch.float64)
        # an entry that no sequence explains costs 1e4: even an impossible x_t has a belief, the least impossible one
        log_joint = (keep * same + (1 - keep) * fallen).log().clamp_min(-1e4).sum(2) + self.weights.double().log()
        share = log_joint.softmax(1)
        one_hot = torch.nn.functional.one_hot(self.sequences, self.process.classes).double()
        logits = torch.einsum("bk,klc->bcl", share, one_hot).log()
        return self.process.posterior(x_t, t, logits.float())


def _scales(process: GaussianProcess, t: Time) -> tuple[Time, Time]:
    """alpha and sigma as floats, or as float64 [B, 1]."""
    if isinstance(t, Tensor):
        alpha, sigma = process.alpha_sigma(t.double())
        return alpha.reshape(-1, 1), sigma.reshape(-1, 1)
    return process.alpha_sigma(t)
