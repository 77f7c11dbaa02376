"""Standardisation: every channel, or every element, to zero mean and unit variance, with its inverse.

Diffusion starts from a standard normal; `normality` says how far the standardised data are from one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from sfumato.core import SfumatoError
from sfumato.data.codec import PixelCodec

SMALLEST = 1e-4  # spreads below this are those of a constant, which is only centred
SAMPLED = 4_000_000  # numbers per channel that the Kolmogorov-Smirnov distance looks at, at most


@dataclass
class _Sums:
    """Running sums per element, of differences from the first sample: so they keep their digits."""

    n: int = 0
    origin: Tensor | None = None
    total: Tensor | None = None
    squares: Tensor | None = None

    def add(self, x: Tensor) -> None:
        if self.origin is None:
            self.origin, self.total, self.squares = x[0], torch.zeros_like(x[0]), torch.zeros_like(x[0])
        self.n, off = self.n + len(x), x - self.origin
        self.total, self.squares = self.total + off.sum(0), self.squares + off.square().sum(0)

    def moments(self) -> tuple[Tensor, Tensor]:
        """Mean and variance of every element."""
        first, second = self.total / self.n, self.squares / self.n
        return self.origin + first, (second - first.square()).clamp_min(0)


@dataclass(frozen=True)
class Standard:
    """z = (x - mean) / std, per channel (C numbers each) or per element (C * H * W, row by row).

    Without numbers it is a wish: `fit` measures them on the rows to learn from. Constant channels or elements are only
    centred: their std counts as 1.
    """

    per: Literal["channel", "element"] = "channel"
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if len(self.mean) != len(self.std) or not all(s > 0 for s in self.std):
            raise SfumatoError("a standardisation needs as many standard deviations as means, all above 0")

    @property
    def fitted(self) -> bool:
        return bool(self.mean)

    def fit(self, parts: Iterable[Tensor]) -> Standard:
        """Means and standard deviations (population, in float64) of all x0 [B, C, H, W] that `parts` yields.

        Parts may differ in height and width, per channel only.
        """
        sums: dict[torch.Size, _Sums] = {}
        for part in parts:
            sums.setdefault(part.shape[1:], _Sums()).add(part.double())
        if not sums:
            raise SfumatoError("there are no pictures to standardise by")
        if self.per == "element":
            if len(sums) > 1:
                raise SfumatoError("pictures of several shapes have no elements in common: set standard.per=channel")
            mean, variance = next(iter(sums.values())).moments()
        else:
            found = [(shape[1:].numel() * each.n, *each.moments()) for shape, each in sums.items()]
            n = sum(count for count, _, _ in found)
            mean = sum(m.flatten(1).mean(1) * (count / n) for count, m, _ in found)
            spread = (
                (v + (m - mean[:, None, None]).square()).flatten(1).mean(1) * (count / n) for count, m, v in found
            )
            variance = sum(spread)
        std = variance.sqrt()
        std = torch.where(std < SMALLEST, torch.ones_like(std), std)
        return Standard(self.per, tuple(mean.flatten().tolist()), tuple(std.flatten().tolist()))

    def _numbers(self, x: Tensor) -> tuple[Tensor, Tensor]:
        shape = (-1, 1, 1) if self.per == "channel" else tuple(x.shape[1:])
        want = x.shape[1] if self.per == "channel" else math.prod(x.shape[1:])
        if len(self.mean) != want:
            raise SfumatoError(f"standardised for {len(self.mean)} {self.per}s, these data have {want}")
        return tuple(torch.tensor(v, dtype=x.dtype, device=x.device).reshape(shape) for v in (self.mean, self.std))

    def __call__(self, x: Tensor) -> Tensor:
        """x [B, C, H, W] -> z of the same shape."""
        mean, std = self._numbers(x)
        return (x - mean) / std

    def inverse(self, z: Tensor) -> Tensor:
        """z [B, C, H, W] -> x of the same shape."""
        mean, std = self._numbers(z)
        return z * std + mean


@dataclass(frozen=True)
class StandardCodec:
    """A codec whose code is standardised: pictures <-> x0 in [-1, 1] <-> z."""

    inner: PixelCodec
    standard: Standard

    @property
    def spec(self) -> tuple[int, int, int]:
        return self.inner.spec

    def sized(self, height: int, width: int) -> StandardCodec:
        """The same codec for pictures of another height and width; standardised per element it fits no other."""
        return StandardCodec(self.inner.sized(height, width), self.standard)

    def encode(self, pictures: np.ndarray | Tensor | Sequence[Image.Image]) -> Tensor:
        """As PixelCodec.encode, then standardised."""
        return self.standard(self.inner.encode(pictures))

    def scaled(self, z: Tensor) -> Tensor:
        """z -> pictures as numbers in [-1, 1], clamped."""
        return self.inner.scaled(self.standard.inverse(z))

    def pixels(self, z: Tensor) -> np.ndarray:
        """z -> uint8 [B, H, W, C]; raises as PixelCodec.pixels does."""
        return self.inner.pixels(self.standard.inverse(z))

    def decode(self, z: Tensor) -> list[Image.Image]:
        """z -> PIL pictures."""
        return self.inner.decode(self.standard.inverse(z))


def normality(parts: Callable[[], Iterable[Tensor]]) -> dict[str, Any]:
    """How near to N(0, 1) the numbers of every channel are: mean, std, skewness, excess kurtosis, KS distance.

    skewness = m3 / m2^1.5 and kurtosis = m4 / m2^2 - 3 (both 0 for a normal), with m_k the central moments;
    ks = max |F(z) - Phi(z)|, F the share of numbers at or below z (0 ... 1). `parts()` yields z [B, C, H, W], anew each time.
    """
    columns = torch.cat([part.transpose(0, 1).flatten(1) for part in parts()], 1)
    columns = columns[:, :: max(1, -(-columns.shape[1] // SAMPLED))]
    found: dict[str, list[float]] = {"mean": [], "std": [], "skewness": [], "kurtosis": [], "ks": []}
    for column in columns:
        z = column.double()
        off = z - z.mean()
        m2, m3, m4 = (float((off**k).mean()) for k in (2, 3, 4))
        flat = m2 < SMALLEST**2
        values = (float(z.mean()), m2**0.5, 0 if flat else m3 / m2**1.5, 0 if flat else m4 / m2**2 - 3, _ks(z))
        for name, value in zip(found, values, strict=True):
            found[name].append(round(float(value), 4))
    return found


def _ks(z: Tensor) -> float:
    """The Kolmogorov-Smirnov distance of the numbers z [N] to the standard normal."""
    z = z.sort().values
    phi = torch.special.ndtr(z)
    above = torch.arange(1, len(z) + 1, dtype=torch.float64) / len(z)
    return max(float((above - phi).max()), float((phi - above + 1 / len(z)).max()))
