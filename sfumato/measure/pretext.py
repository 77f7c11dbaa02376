"""What an extractor learns beside (or instead of) classes: that spoilt pictures look unlike real ones.

A classifier alone may file pure noise under "bag"; showing it some spoilt pictures as kinds of their own keeps them
apart in feature space (outlier exposure, Hendrycks et al. 2019, arXiv 1812.04606). A source without classes is given
four turns to tell apart (Gidaris et al. 2018, arXiv 1803.07728).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

KINDS = ("noisy", "torn", "blended")
TURNS = 4


def blur(x: Tensor, sigma: float) -> Tensor:
    """Gaussian blur of pictures [B, C, H, W] with standard deviation `sigma` in pixels, edges repeated."""
    radius = min(math.ceil(3 * sigma), x.shape[-1] - 1, x.shape[-2] - 1)
    line = torch.exp(-0.5 * (torch.arange(-radius, radius + 1) / max(sigma, 1e-6)) ** 2)
    line = (line / line.sum()).to(x.dtype)
    b, c, h, w = x.shape
    padded = torch.nn.functional.pad(x, (radius,) * 4, mode="replicate").reshape(b * c, 1, h + 2 * radius, -1)
    rows = torch.nn.functional.conv2d(padded, line.reshape(1, 1, 1, -1))
    return torch.nn.functional.conv2d(rows, line.reshape(1, 1, -1, 1)).reshape(x.shape)


def spoil(x: Tensor, kind: int, generator: torch.Generator) -> Tensor:
    """Pictures [B, C, H, W] in [-1, 1] spoilt in one of `KINDS`, at a random strength nobody would call clean."""
    u, v = torch.rand(2, generator=generator).tolist()
    if KINDS[kind] == "noisy":  # from a grainy picture to nothing but noise
        return (x * v + (0.3 + u) * torch.randn(x.shape, generator=generator)).clamp(-1, 1)
    if KINDS[kind] == "torn":
        return x.roll((int(x.shape[2] * (0.25 + 0.5 * u)), int(x.shape[3] * (0.25 + 0.5 * v))), (2, 3))
    weight = 0.35 + 0.3 * u
    return weight * x + (1 - weight) * x.roll(1, 0)


def spoil_first(x: Tensor, target: Tensor, first_kind: int, share: float, generator: torch.Generator) -> None:
    """Spoil the first `share` of a batch in place, kinds in equal parts; their targets become `first_kind` + kind."""
    each = max(1, round(len(x) * share / len(KINDS)))
    for kind in range(len(KINDS)):
        part = slice(kind * each, (kind + 1) * each)
        if len(x[part]):
            x[part] = spoil(x[part], kind, generator)
            target[part] = first_kind + kind


def turn(x: Tensor) -> tuple[Tensor, Tensor]:
    """Quarter turns of square pictures, mirror images of others: row k is turned k mod 4 times; returns (x, turns)."""
    turns = torch.arange(len(x)) % TURNS
    if x.shape[2] == x.shape[3]:
        parts = [x[k::TURNS].rot90(k, (2, 3)) for k in range(TURNS)]
    else:
        parts = [x[k::TURNS].flip([axis for axis, bit in ((2, k & 1), (3, k & 2)) if bit]) for k in range(TURNS)]
    out = torch.empty_like(x)
    for k, part in enumerate(parts):
        out[k::TURNS] = part
    return out, turns
