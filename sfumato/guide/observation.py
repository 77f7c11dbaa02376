"""Observation: what is known of x0 (pixels, or any linear measurement) is put into the belief, without training.

Biased where known and unknown parts are correlated: the denoiser sees known pixels only through x_t. An up-and-down
grid (RePaint) mends most of it at many times the cost; a model trained with the known pixels as a condition has no
such bias.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sfumato.core import Cond, Denoise, Posterior, SfumatoError, Time
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


@dataclass(frozen=True)
class Mask:
    """A x = x where `known` (broadcastable over x), 0 elsewhere."""

    known: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        return torch.where(self.known.bool(), x, torch.zeros_like(x))

    def pinv(self, y: Tensor) -> Tensor:
        """Itself: a mask is a projection."""
        return self(y)


@dataclass(frozen=True)
class Downsample:
    """A x = means of `factor` x `factor` blocks of [B, C, H, W]; H and W multiples of `factor`."""

    factor: int

    def __call__(self, x: Tensor) -> Tensor:
        if x.shape[-1] % self.factor or x.shape[-2] % self.factor:
            raise SfumatoError(f"{tuple(x.shape[-2:])} pixels do not divide into blocks of {self.factor}")
        return nn.functional.avg_pool2d(x, self.factor)

    def pinv(self, y: Tensor) -> Tensor:
        """Every block filled with its mean."""
        return y.repeat_interleave(self.factor, -1).repeat_interleave(self.factor, -2)
