"""A network for pictures twice as large around one that has learned small ones: one level more on the outside."""

from __future__ import annotations

import re

import torch
from torch import Tensor

from sfumato.denoiser import TransformerConfig, UNetConfig

OUTSIDE = ("net.stem.", "net.head.", "net.head_modulation.")
_LEVEL = re.compile(r"net\.(down|up|shrink|grow)\.(\d+)\.")


def around(before: UNetConfig | TransformerConfig, after: UNetConfig | TransformerConfig) -> bool:
    """Whether `after` is `before` with one level more at the resolution above."""
    if not (isinstance(before, UNetConfig) and isinstance(after, UNetConfig)):
        return False
    same = all(getattr(before, name) == getattr(after, name) for name in ("channels", "patch", "embedding", "head"))
    inner = (after.widths[1:], after.blocks[1:]) == (before.widths, before.blocks)
    return same and inner and after.attention == tuple(level + 1 for level in before.attention)


def moved_in(weights: dict[str, Tensor], own: dict[str, Tensor], before: UNetConfig) -> dict[str, Tensor]:
    """Weights of a network, named as those of one that lies around it: every level one further in, what read and drew the
    picture left away.

    With two pixels a side in a patch, the new outside reads for the inside what the old stem read, of the picture made
    half as large (means of 2 x 2): a kernel of 6 x 6 small pixels, of which it sees the inner 4 x 4. `own` are the
    weights of the larger network.
    """
    found = {
        _LEVEL.sub(lambda m: f"net.{m[1]}.{int(m[2]) + 1}.", name): value
        for name, value in weights.items()
        if not name.startswith(OUTSIDE)
    }
    c, stem, shrink = before.channels, own["net.stem.weight"], own["net.shrink.0.weight"]
    if before.patch != 2 or len(stem) < 9 * c:
        return found
    reading, passing = stem.detach().clone(), torch.zeros_like(shrink)
    old = weights["net.stem.weight"][:, : 4 * c].unflatten(1, (c, 2, 2))  # [out, c, p, q, di, dj]
    reading[: 9 * c] = 0
    for k in range(9 * c):  # channel k of the stem: colour k // 9 of the small picture, moved by (e, f)
        colour, e, f = k // 9, k // 3 % 3, k % 3
        reading[k, 4 * colour : 4 * colour + 4, e, f] = 0.25
    for u in range(-1, 3):  # of the old kernel, in small pixels from the upper left one of its own patch
        for v in range(-1, 3):
            (g, e), (h, f) = (_read_by(w) for w in (u, v))
            taps = [9 * colour + 3 * e + f for colour in range(c)]
            passing[:, taps, g, h] = old[:, :, u % 2, v % 2, u // 2 + 1, v // 2 + 1]
    zero = torch.zeros_like(own["net.stem.bias"])
    outside = {"net.stem.weight": reading, "net.stem.bias": zero, "net.shrink.0.weight": passing}
    return found | outside | {"net.shrink.0.bias": weights["net.stem.bias"]}


def _read_by(place: int) -> tuple[int, int]:
    """(which of two cells, which tap of its 3) reads the pixel at -1 ... 2."""
    cell = 0 if place < 1 else 1
    return cell, place - cell + 1
