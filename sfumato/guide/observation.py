"""Observation: what is known of x0 (pixels, or any linear measurement) is put into the belief, without training.

Biased where known and unknown parts are correlated: the denoiser sees known pixels only through x_t. An up-and-down
grid (RePaint) mends most of it at many times the cost, and so does going through the network (`observe_through`); a
model trained with the known pixels as a condition has no such bias.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from sfumato.core import Cond, Denoise, Posterior, SfumatoError, Time, expand
from sfumato.guide.wrap import Guide, Guided, on_mean


def observe(known: Tensor, y: Tensor) -> Guide:
    """The belief is `y` where `known` (bool, broadcastable); any process (Gaussian: the mean; categorical:
    certainty).
    """

    def guide(denoise: Denoise) -> Denoise:
        def believe(x_t: Tensor, t: Time, cond: Cond) -> Posterior:
            return denoise(x_t, t, cond).observe(known, y)

        return Guided(denoise.process, believe)

    return guide


def observe_linear(a: Callable[[Tensor], Tensor], a_pinv: Callable[[Tensor], Tensor], y: Tensor) -> Guide:
    """x0 + A+ (y - A x0): the part that A sees is the measurement's, its null space the belief's (DDNM, Wang et al.
    2023).

    Args: `a` linear, x0 [B, ...] -> y's shape; `a_pinv` its right inverse on the range, A A+ A = A; `y` = A(data).
    """
    return on_mean(lambda x0: x0 + a_pinv(y - a(x0)))


class Measurement(Protocol):
    """A linear A whose rows are orthogonal and of one length: A A^T = `gram` I on its range, so A^T = gram A+."""

    @property
    def gram(self) -> float: ...
    def __call__(self, x: Tensor) -> Tensor: ...
    def pinv(self, y: Tensor) -> Tensor: ...


def observe_noisy(a: Measurement, y: Tensor, noise: float) -> Guide:
    """argmin_x |y - A x|^2 / noise^2 + |x - x0|^2 / u^2 with u = sigma / alpha, in closed form:
    x0 + c / (c + rho) A+ (y - A x0), rho = noise^2 / u^2, c = a.gram (DiffPIR, Zhu et al. 2023, arXiv 2305.08995, eq. 12
    and 13, lambda = 1).

    For measurements y = A(data) + noise eps: early moves follow y, late ones the belief. Exact where the data spread much
    wider than u in every direction, else it trusts y too much. Raises SfumatoError for noise that is not above 0.
    """
    if not noise > 0:
        raise SfumatoError(f"the noise of a measurement lies above 0, not {noise}: use observe_linear for an exact one")

    def guide(denoise: Denoise) -> Denoise:
        def believe(x_t: Tensor, t: Time, cond: Cond) -> Posterior:
            belief = denoise(x_t, t, cond)
            alpha, sigma = denoise.process.alpha_sigma(t)
            seen = a.gram * sigma**2  # multiplied out: finite at sigma = 0
            gain = expand(seen / (seen + (noise * alpha) ** 2), x_t)
            return belief.with_lin(belief.lin + gain * a.pinv(y - a(belief.lin)))

        return Guided(denoise.process, believe)

    return guide


@dataclass(frozen=True)
class Mask:
    """A x = x where `known` (broadcastable over x), 0 elsewhere."""

    known: Tensor

    @property
    def gram(self) -> float:
        return 1.0

    def __call__(self, x: Tensor) -> Tensor:
        return torch.where(self.known.bool(), x, torch.zeros_like(x))

    def pinv(self, y: Tensor) -> Tensor:
        """Itself: a mask is a projection."""
        return self(y)


@dataclass(frozen=True)
class Downsample:
    """A x = means of `factor` x `factor` blocks of [B, C, H, W]; H and W multiples of `factor`."""

    factor: int

    @property
    def gram(self) -> float:
        return self.factor**-2

    def __call__(self, x: Tensor) -> Tensor:
        if x.shape[-1] % self.factor or x.shape[-2] % self.factor:
            raise SfumatoError(f"{tuple(x.shape[-2:])} pixels do not divide into blocks of {self.factor}")
        return nn.functional.avg_pool2d(x, self.factor)

    def pinv(self, y: Tensor) -> Tensor:
        """Every block filled with its mean."""
        return y.repeat_interleave(self.factor, -1).repeat_interleave(self.factor, -2)
