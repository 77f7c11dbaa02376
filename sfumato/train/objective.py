"""What training minimises: a function of belief and truth alone, whatever the network predicts."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from sfumato.core import Posterior
from sfumato.denoiser import X0, EDMTarget, Eps, Flow, V
from sfumato.forward import Absorbing, CategoricalPosterior, GaussianPosterior, Uniform


@dataclass(frozen=True)
class MinSNR:
    """min(gamma / SNR, 1): Hang et al. 2023's weight when the loss space is eps."""

    gamma: float = 5.0

    def __call__(self, alpha: Tensor, sigma: Tensor) -> Tensor:
        return (self.gamma * (sigma / alpha) ** 2).clamp_max(1.0)


@dataclass(frozen=True)
class SquaredError:
    """Mean squared error in the space of `space`: w(t) |x0_hat - x0|^2 with w = ((alpha b - sigma a) / sigma)^2.

    sigma is held above `floor` in the weight, so that x0-predictions are not asked for infinite precision
    (Li & He 2025, "Back to basics", use 0.05). `weighting` multiplies on top.
    """

    space: X0 | Eps | V | Flow | EDMTarget = Flow()
    weighting: MinSNR | None = None
    floor: float = 0.05

    def __call__(self, posterior: Posterior, x0: Tensor) -> Tensor:
        """Loss per sample [B]."""
        assert isinstance(posterior, GaussianPosterior)
        alpha, sigma = posterior.process.alpha_sigma(posterior.t)
        weight = self.space.x0_weight(alpha, sigma.clamp_min(self.floor))
        if self.weighting is not None:
            weight = weight * self.weighting(alpha, sigma)
        return weight * (posterior.lin - x0).square().flatten(1).mean(1)


@dataclass(frozen=True)
class CrossEntropy:
    """Mean -log p(x0 | x_t) over the entries that hide their class: the masked ones (Sahoo et al. 2024), or all of them
    where a fallen entry cannot be told from a true one (uniform; Austin et al. 2021, eq. 5's auxiliary term)."""

    process: Absorbing | Uniform

    def __call__(self, posterior: Posterior, x0: Tensor) -> Tensor:
        """Loss per sample [B]."""
        assert isinstance(posterior, CategoricalPosterior)
        loss = F.cross_entropy(posterior.lin, x0, reduction="none").flatten(1)
        if isinstance(self.process, Uniform):
            return loss.mean(1)
        hidden = (posterior.x_t == self.process.mask).flatten(1).to(loss.dtype)
        return (loss * hidden).sum(1) / hidden.sum(1).clamp_min(1)
