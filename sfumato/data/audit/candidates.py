"""Which pictures may be near-duplicates of each other: neighbours of small correlations over parts of each picture."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from sfumato.data.audit import align
from sfumato.data.audit.pool import give_back, on_every_core
from sfumato.data.audit.table import Column, Table

FLAT = 4.0  # levels: a picture with less contrast than this shows nothing to compare
NEAREST, LOOSE = 32, 0.82  # first search: neighbours kept per picture, least correlation of 8x8 pictures
KEPT, TIGHT = 12, 0.86  # second search: the same, of 16x16 pictures over all parts
LEFT = (60.0, 34.0, 25.0)  # third: levels that each step of registration may leave at a place, beyond the mean
CELL, PROBED = 512, 12  # first search: pictures per cell, about; cells with the nearest centres that are searched
BLOCK, ASKING = 256, 512  # pictures worked on at a time: what fits a cache; what asks the index at once
# parts of a picture that are looked for in the others: scale and shift across, scale and shift down
SPANS = ((0.96, 0.0), (0.92, -0.04), (0.92, 0.04), (0.88, 0.0))  # a fiftieth or three off each of two sides
WHOLE, (MOST, _, _, LEAST) = (1.0, 0.0), SPANS
PARTS = (
    (WHOLE, WHOLE),
    ((0.92, 0.0), (0.92, 0.0)),
    (MOST, LEAST),
    (LEAST, MOST),
    *((x, y) for x in SPANS for y in SPANS),
    ((1.08, 0.0), (1.08, 0.0)),  # the whole, about, for one that is a part itself
)
FEW = 4  # of them are used in the first search
TRIED, STEPS = 5, 2  # of them are registered, by so many steps, where one registration was not enough
HALF = np.dtype([("half", "u1", (16, 16))])


def candidates(
    thumbs: Column | np.ndarray, rows: np.ndarray, take: Callable[[Tensor, Tensor, Tensor], Any]
) -> list[Any]:
    """Pairs worth comparing, given to `take` for ASKING pictures at a time, in some thread; what it returns, in order.

    They are numbers within `rows`, int64 [P] twice, and the affine [P, 2, 3] that about lays one on one. No list of all
    of them is ever made, so memory does not grow with their number. A pair may come twice, the other way round: a part
    is easier found in the whole, clipped light in unclipped.
    Each picture is compared at 8x8 with those of the PROBED cells nearest to it, its NEAREST at 16x16 over all PARTS,
    the KEPT best of them by a few steps of registration: the work per picture does not grow with their number, but for
    the choice of cells (one centre per CELL pictures).
    """
    halves, index = _read(thumbs, rows)
    few, guesses = _guesses(FEW), _guesses(len(PARTS))

    def search(start: int) -> Any:
        here = torch.arange(start, min(start + ASKING, len(rows)))
        asking = torch.from_numpy(halves[here.numpy()])[:, None].float()
        looks = F.avg_pool2d(_looks(align.blur(asking, 0.5), few), 2)
        parts = (here, asking, *index.nearest(_unit(looks), here))
        blocks = zip(*(part.split(BLOCK) for part in parts), strict=True)
        found = [_alike(halves, guesses, *block) for block in blocks]
        taken = take(*(torch.cat(part) for part in zip(*found, strict=True)))
        give_back()
        return taken

    return on_every_core(search, range(0, len(rows), ASKING))


def _read(thumbs: Column | np.ndarray, rows: np.ndarray) -> tuple[Column, _Index]:
    """Pictures of half the size in a table, and the index of their halves."""
    halves, low = Table(HALF), torch.empty(len(rows), 64, dtype=torch.float16)

    def read(i: int) -> None:
        grey = torch.from_numpy(thumbs[rows[i : i + BLOCK]])[:, None].float()
        half = _half(grey)
        block = np.empty(len(half), HALF)
        block["half"] = half[:, 0].round().to(torch.uint8).numpy()
        halves[i] = block
        low[i : i + BLOCK] = _unit(F.avg_pool2d(align.blur(half, 0.5), 2)[:, 0])

    on_every_core(read, range(0, len(rows), BLOCK))
    return halves.column("half"), _Index(low)


def again(first: Tensor, second: Tensor) -> Tensor:
    """Another start for pairs of thumbnails float [P, 1, 32, 32] that one registration did not lay on each other.

    A registration ends in the nearest valley, and the part of a picture that is most like another is not always the right
    one: the TRIED parts that are most like are registered, and the one that leaves least is taken. Affine [P, 2, 3].
    """
    (small, seen), guesses = (_half(x) for x in (first, second)), _guesses(len(PARTS))
    looks = _looks(small, guesses)
    like = (_unit(looks) * _unit(seen)).sum(-1)
    which = like.topk(TRIED).indices.flatten()
    pair = torch.arange(len(first)).repeat_interleave(TRIED)
    _, affine, left = align.register(
        looks[pair, which][:, None], small[pair], seen[pair], guesses[which], (math.inf,) * STEPS
    )
    best = left.reshape(-1, TRIED).argmin(1)
    return affine.reshape(-1, TRIED, 2, 3)[torch.arange(len(first)), best]


def _half(grey: Tensor) -> Tensor:
    """Thumbnails at half the size."""
    return align.blur(F.avg_pool2d(grey, 2), 0.7)


def _unit(x: Tensor) -> Tensor:
    """Pictures [..., H, W] -> their values less the mean, length one (flat ones shorter), [..., H * W]."""
    x = x.flatten(-2)
    x = x - x.mean(-1, keepdim=True)
    return x / x.norm(dim=-1, keepdim=True).clamp_min(FLAT * x.shape[-1] ** 0.5)


def _guesses(parts: int) -> Tensor:
    """The affine of the first parts, as they are and then mirrored, float [2 * parts, 2, 3]."""
    rows = [[[m * w, 0.0, m * x], [0.0, h, y]] for m in (1.0, -1.0) for (w, x), (h, y) in PARTS[:parts]]
    return torch.tensor(rows)


def _looks(small: Tensor, guesses: Tensor) -> Tensor:
    """Pictures [B, 1, H, H] seen through every guess [G, 2, 3] -> [B, G, H, H]."""
    n, g = len(small), len(guesses)
    wide = small.transpose(0, 1).expand(g, -1, -1, -1)  # pictures as channels: one grid per guess serves them all
    return align.warp(wide, guesses)[0].transpose(0, 1).reshape(n, g, *small.shape[2:])


class _Index:
    """Unit vectors float16 [N, D] in cells around centres, so that the nearest are looked for in a few of them."""

    def __init__(self, vectors: Tensor) -> None:
        self.centres = _centres(vectors, max(1, round(len(vectors) / CELL)))
        blocks = vectors.split(ASKING)
        home = torch.cat([(block.float() @ self.centres.T).argmax(1) for block in blocks])
        self.order = torch.argsort(home, stable=True)
        self.vectors = vectors[self.order]
        self.bounds = [0, *torch.bincount(home, minlength=len(self.centres)).cumsum(0).tolist()]

    def nearest(self, looks: Tensor, own: Tensor) -> tuple[Tensor, Tensor]:
        """looks [B, L, D] of the vectors `own` [B] -> greatest products over the looks, and whose, [B, NEAREST] each.

        -2 for a vector itself, and where there are not as many.
        """
        score = (looks @ self.centres.T).amax(1)
        probed = torch.zeros_like(score, dtype=torch.bool)
        probed.scatter_(1, score.topk(min(PROBED, score.shape[1])).indices, True)
        best = torch.full((len(looks), NEAREST + 1), -2.0)
        whose = torch.zeros_like(best, dtype=torch.int64)
        for cell, members in self._parts(probed.any(0)):
            asking = probed[:, cell].nonzero()[:, 0]
            asked, stored = looks[asking].transpose(0, 1), self.vectors[members].float().T
            like = asked[0] @ stored  # [asking, members]
            for look in asked[1:]:  # not all looks at once: this is the largest tensor of an audit
                torch.maximum(like, look @ stored, out=like)
            like, which = like.topk(min(NEAREST + 1, like.shape[1]))
            like, order = torch.cat([best[asking], like], 1).topk(NEAREST + 1)
            whose[asking] = torch.cat([whose[asking], self.order[members][which]], 1).gather(1, order)
            best[asking] = like
        best[whose == own[:, None]] = -2.0
        best, order = best.topk(NEAREST)
        return best, whose.gather(1, order)

    def _parts(self, wanted: Tensor) -> Iterator[tuple[int, slice]]:
        """The cells wanted [cells], each in stretches of at most 4 CELL vectors: pictures much alike share one cell."""
        for cell in wanted.nonzero()[:, 0].tolist():
            first, last = self.bounds[cell], self.bounds[cell + 1]
            for start in range(first, last, 4 * CELL):
                yield cell, slice(start, min(start + 4 * CELL, last))


def _centres(vectors: Tensor, n: int, rounds: int = 6) -> Tensor:
    """n centres of spherical k-means (Dhillon and Modha 2001) on an even sample, float [n, D]."""
    sample = vectors[:: max(1, len(vectors) // (32 * n))].float()
    centres = sample[:: max(1, len(sample) // n)][:n]
    for _ in range(rounds if n > 1 else 0):
        sums = torch.zeros_like(centres).index_add_(0, (sample @ centres.T).argmax(1), sample)
        centres = torch.where(sums.norm(dim=1, keepdim=True) > 0, F.normalize(sums), centres)
    return centres


def _alike(
    halves: Column, guesses: Tensor, own: Tensor, small: Tensor, rough: Tensor, near: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Of the neighbours `near` of the pictures `own`: rows first, second [P], affine [P, 2, 3]."""
    at, place = (rough >= LOOSE).nonzero(as_tuple=True)
    others, where = near[at, place].unique(return_inverse=True)
    seen = torch.from_numpy(halves[others.numpy()])[:, None].float()
    spot = torch.full_like(near, -1)
    spot[at, place] = where
    looks = _looks(small, guesses)
    pool = torch.cat([_unit(seen[:, 0]), torch.zeros(1, looks[0, 0].numel())])  # the last is like nothing
    close, which = (_unit(looks) @ pool[spot].transpose(1, 2)).max(1)
    close, order = close.topk(min(KEPT, close.shape[1]))
    at, place = (close >= TIGHT).nonzero(as_tuple=True)
    column = order[at, place]
    second, which = near[at, column], which[at, column]
    found = []
    for part in torch.arange(len(at)).split(BLOCK):  # what registration works on is 16 kB a pair
        i, j = at[part], which[part]
        kept, affine, _ = align.register(looks[i, j][:, None], small[i], seen[spot[i, column[part]]], guesses[j], LEFT)
        found.append((part[kept], affine))
    kept, affine = (torch.cat(parts) for parts in zip(*found, strict=True))
    return own[at[kept]], second[kept], affine
