"""Pictures larger than the network knows: beliefs of overlapping windows, blended into one.

All windows of a large x_t are denoised at the same time t and their beliefs' means (or logits) are averaged with smooth
weights (MultiDiffusion, Bar-Tal et al. 2023, arXiv 2302.08113), so any solver walks the large picture as if one network
had seen it whole.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from sfumato.core import EDGES, THOUSAND, Cond, Denoise, Posterior, SfumatoError, Slot, Time
from sfumato.guide.wrap import Guide, Guided

MOST = 64  # windows in one network call: bounded memory, and the same picture whatever it is


@dataclass(frozen=True)
class Tiling:
    """Where the windows lie: their first `rows` and `columns`, their `shape`, and whether they go round the edges."""

    rows: tuple[int, ...]
    columns: tuple[int, ...]
    shape: tuple[int, int]
    size: tuple[int, int]

    def places(self) -> list[tuple[Tensor, Tensor]]:
        """Row and column numbers of each window, int64 [h] and [w]."""
        return [
            ((top + torch.arange(self.shape[0])) % self.size[0], (left + torch.arange(self.shape[1])) % self.size[1])
            for top in self.rows
            for left in self.columns
        ]


def starts(size: int, window: int, overlap: int, circular: bool, align: int) -> tuple[int, ...]:
    """First places of the fewest windows that cover `size` and overlap by `overlap` or more.

    They are multiples of `align`, but for the last, which ends with the picture. A `circular` axis has no ends: its windows
    are evenly spaced, two at least, so that each border lies inside another window.
    """
    stride = max(align, (window - overlap) // align * align)
    if circular:
        count = max(2, math.ceil(size / stride))
        return tuple(sorted({k * size // count for k in range(count)}))
    return (*range(0, size - window, stride), max(0, size - window))


def ramp(window: int, overlap: int) -> Tensor:
    """Weights of one window along an axis, float32 [window]: sin^2 over the overlap at either end, 1 between, above 0."""
    near = torch.minimum(torch.arange(window), torch.arange(window).flip(0)) + 0.5
    return torch.sin(0.5 * math.pi * (near / max(1, min(overlap, window // 2))).clamp_max(1)).square()


def windows(
    shape: tuple[int, int],
    overlap: int | None = None,
    *,
    circular: bool = False,
    needed: Tensor | None = None,
    align: int = 1,
    most: int = MOST,
) -> Guide:
    """lin = sum_k w_k lin_k over the windows k of `shape` (height, width) that hold a place; the w_k are smooth and sum to 1.

    Maps among the conditions are cut as the window is, placed words are told in the window's own coordinates,
    all else every window hears alike. A picture no larger than the window is left to the network whole.

    Args: `overlap` pixels that neighbours share at least (a quarter of the window's shorter side); `circular`: windows go
    round the edges, so that opposite ones fit together; `needed` bool [H, W]: windows without any such place are left
    out, and the belief where no window lies is 0; `align`: windows begin at multiples of this; `most` windows per call.
    Raises SfumatoError for an overlap as large as the window.
    """
    shared = min(shape) // 4 if overlap is None else overlap
    if not 0 <= shared < min(shape):
        raise SfumatoError(
            f"windows of {shape[1]}x{shape[0]} overlap by 0 to {min(shape) - 1} pixels, not {shared}: give a smaller overlap"
        )

    def guide(denoise: Denoise) -> Denoise:
        def believe(x_t: Tensor, t: Time, cond: Cond) -> Posterior:
            tiling, parts, weights = _laid(tuple(x_t.shape[-2:]), shape, shared, circular, needed, align)
            if tiling.shape == tiling.size and not circular:
                return denoise(x_t, t, cond)
            rows = [(k, b) for k in range(len(parts)) for b in range(len(x_t))]
            lin = None
            for first in range(0, len(rows), most):
                some = rows[first : first + most]
                index = torch.tensor([b for _, b in some])
                cut = torch.stack([_cut(x_t[b], *parts[k]) for k, b in some])
                told = Cond({name: _part(slot, some, parts, tiling) for name, slot in cond.items()})
                found = denoise(cut, t[index] if isinstance(t, Tensor) else t, told).lin
                if lin is None:
                    lin = found.new_zeros(len(x_t), *found.shape[1:-2], *tiling.size)
                for (k, b), one in zip(some, found, strict=True):
                    r, c = parts[k]
                    lin[b][..., r.unsqueeze(1), c] += weights[k].to(one) * one
            lin = torch.zeros_like(x_t) if lin is None else lin
            return denoise.process.posterior(x_t, t, lin)

        return Guided(denoise.process, believe)

    return guide


def _laid(
    size: tuple[int, int],
    shape: tuple[int, int],
    overlap: int,
    circular: bool,
    needed: Tensor | None,
    align: int,
) -> tuple[Tiling, list[tuple[Tensor, Tensor]], list[Tensor]]:
    """The windows of a picture of this size: where each lies, and its weights [h, w]."""
    inside = min(shape[0], size[0]), min(shape[1], size[1])
    tops, lefts = (starts(n, w, overlap, circular, align) for n, w in zip(size, inside, strict=True))
    tiling = Tiling(tops, lefts, inside, size)
    parts = tiling.places()
    if needed is not None:
        parts = [(r, c) for r, c in parts if bool(needed[r][:, c].any())]
    one = ramp(inside[0], overlap).unsqueeze(1) * ramp(inside[1], overlap)
    total = torch.zeros(size)
    for r, c in parts:
        total[r.unsqueeze(1), c] += one
    return tiling, parts, [one / total[r.unsqueeze(1), c] for r, c in parts]


def _cut(x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    return x.index_select(-2, rows).index_select(-1, columns)


def _part(slot: Slot, some: list[tuple[int, int]], parts: list[tuple[Tensor, Tensor]], tiling: Tiling) -> Slot:
    """A condition of some windows, one row for each, as these windows see it."""
    index = torch.tensor([b for _, b in some])
    if slot.role in ("map", "frames"):
        cut = torch.stack([_cut(slot.value[b], *parts[k]) for k, b in some])
        return Slot(cut, slot.role, None if slot.mask is None else slot.mask[index])
    slot = slot.take(index)
    if slot.role != "placed":
        return slot
    return _boxed(slot, torch.tensor([[int(parts[k][1][0]), int(parts[k][0][0])] for k, _ in some]), tiling)


def _boxed(slot: Slot, corners: Tensor, tiling: Tiling) -> Slot:
    """Placed words in thousandths of each row's window, whose left and top are `corners` [B, 2]; words of boxes that do not
    reach into it are masked."""
    (height, width), (h, w) = tiling.size, tiling.shape
    whole, inside = torch.tensor([width, height]), torch.tensor([w, h])
    ids, corner = slot.value.clone(), corners.unsqueeze(1)
    first, last = ((ids[..., k - EDGES : ids.shape[-1] - 2 + k] * whole / THOUSAND - corner) / inside for k in (0, 2))
    seen = ((first < 1) & (last > 0)).all(-1)
    ids[..., -EDGES:] = (torch.cat([first, last], -1).clamp(0, 1) * THOUSAND).round().to(ids.dtype)
    return Slot(ids, slot.role, slot.present() & seen)
