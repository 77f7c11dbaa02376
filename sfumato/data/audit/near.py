"""Near-duplicates: pictures that are resized, recompressed, slightly cropped, mirrored or relit copies of each other."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from sfumato.data.audit import align

ASPECT = 1.25  # greatest ratio of proportions between near-duplicates
FLAT = 4.0  # levels: a picture with less contrast than this shows nothing to compare
NEAREST, LOOSE = 32, 0.82  # first search: neighbours kept per picture, least correlation of 8x8 pictures
KEPT, TIGHT = 8, 0.9  # second search: the same, of 16x16 pictures over all parts
CELLS = 2**24  # correlations held in memory at a time
BLOCK = 256  # pictures or pairs worked on at a time: what fits a cache
# what a true pair leaves at most, chosen by benchmarks/planted_faults.py on seeds that its table does not use
ROUGH, SHAPE, COLOUR = 0.35, 0.25, 14.0
DETAIL, DETAIL_PER_MEAN = 8.0, 1.0  # a changed detail stands out from the difference that is everywhere
MOVED, OVERLAP, GAIN = 0.15, 0.7, 1.2
GREY_SHARE, GREY_GAIN = 0.5, 1.06  # of the limits, where one picture has no colour and colour proves nothing
# parts of a picture (scale, shift to the right, shift down) that are looked for in the others
PARTS = (
    (1.0, 0.0, 0.0), (0.92, 0.0, 0.0), (0.92, -0.05, -0.05), (0.92, -0.05, 0.05), (0.92, 0.05, -0.05),
    (0.92, 0.05, 0.05), (0.96, 0.03, 0.03), (0.96, -0.03, 0.03), (0.96, 0.03, -0.03), (0.96, -0.03, -0.03),
    (0.88, 0.0, 0.0),
)  # fmt: skip
FEW = 2  # of them are used in the first search


@dataclass(frozen=True)
class Group:
    """Pictures that show the same: row numbers, the one with the most partners first, and what was seen."""

    rows: list[int]
    evidence: str


@dataclass(frozen=True)
class _Pair:
    """Two rows that show the same, a distance (0 the same, 1 at the limit), which have no colour, what differs."""

    rows: tuple[int, int]
    distance: float
    grey: tuple[bool, bool]
    told: str


def near_duplicates(thumbs: np.ndarray, colours: np.ndarray, aspect: np.ndarray) -> list[Group]:
    """Groups of pictures that are altered copies of each other.

    `thumbs` uint8 [N, 32, 32] grey and `colours` uint8 [N, 16, 16, 3] show the whole picture, its sides squeezed to a
    square and low-passed (Pillow's BILINEAR); `aspect` is width / height [N]. Candidates are the nearest neighbours of
    small correlations over parts of every picture, as it is and mirrored; each pair is registered and compared place
    by place (see align). The first search costs 512 N^2 operations (blocked matrix products), the rest grows with N.
    """
    shown = np.flatnonzero(thumbs.reshape(len(thumbs), -1).std(1) >= FLAT)
    if len(shown) < 2:
        return []
    grey, colour = torch.from_numpy(thumbs[shown]), torch.from_numpy(colours[shown])
    ratio = torch.from_numpy(np.log(np.asarray(aspect, np.float64)[shown]))
    with torch.inference_mode():
        first, second, guess = _candidates(grey)
        alike = (ratio[first] - ratio[second]).abs() <= np.log(ASPECT)
        first, second, guess = first[alike], second[alike], guess[alike]
        pairs: list[_Pair] = []
        for i in range(0, len(first), BLOCK):
            block = slice(i, i + BLOCK)
            pairs += _verify(grey, colour, first[block], second[block], guess[block])
    return [Group([int(shown[r]) for r in rows], told) for rows, told in _groups(_without_doubtful_grey(pairs))]


def _unit(x: Tensor) -> Tensor:
    """Pictures [..., H, W] -> their values less the mean, length one (flat ones shorter), [..., H * W]."""
    x = x.flatten(-2)
    x = x - x.mean(-1, keepdim=True)
    return x / x.norm(dim=-1, keepdim=True).clamp_min(FLAT * x.shape[-1] ** 0.5)


def _guesses(parts: int) -> Tensor:
    """The affine of the first parts, as they are and then mirrored, float [2 * parts, 2, 3]."""
    rows = [[[m * s, 0.0, m * x], [0.0, s, y]] for m in (1.0, -1.0) for s, x, y in PARTS[:parts]]
    return torch.tensor(rows)


def _looks(small: Tensor, guesses: Tensor) -> Tensor:
    """Pictures [B, 1, H, H] seen through every guess [G, 2, 3] -> [B, G, H, H]."""
    n, g = len(small), len(guesses)
    wide = small.expand(n, g, *small.shape[2:]).reshape(n * g, 1, *small.shape[2:])
    return align.warp(wide, guesses.repeat(n, 1, 1))[0].reshape(n, g, *small.shape[2:])


def _candidates(grey: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Pairs worth registering: rows first and second, int64 [P], and the affine [P, 2, 3] that about lays one on one."""
    n = len(grey)
    middle = torch.cat([align.blur(_half(grey[i : i + BLOCK]), 0.7) for i in range(0, n, BLOCK)])
    few, all_guesses = _guesses(FEW), _guesses(len(PARTS))
    low, high = _unit(F.avg_pool2d(align.blur(middle, 0.5), 2)[:, 0]), _unit(middle[:, 0])
    keep, rows = min(NEAREST, n - 1), max(1, CELLS // n)
    found = []
    for start in range(0, n, min(rows, BLOCK)):
        block = middle[start : start + min(rows, BLOCK)]
        place = torch.arange(start, start + len(block))
        looks = _unit(F.avg_pool2d(_looks(align.blur(block, 0.5), few).flatten(0, 1)[:, None], 2)[:, 0])
        looks = looks.reshape(len(block), len(few), -1)
        like = looks[:, 0] @ low.T
        for g in range(1, len(few)):
            torch.maximum(like, looks[:, g] @ low.T, out=like)
        like[torch.arange(len(block)), place] = -2.0
        rough, near = like.topk(keep, 1)
        close, which = (_unit(_looks(block, all_guesses)) @ high[near].transpose(1, 2)).max(1)
        close[rough < LOOSE] = -2.0
        close, order = close.topk(min(KEPT, keep), 1)
        good = close >= TIGHT
        chosen = [place[:, None].expand_as(order), near.gather(1, order), which.gather(1, order), close]
        found.append([t[good] for t in chosen])
    first, second, which, close = (torch.cat(part) for part in zip(*found, strict=True))
    # a pair found from both sides is looked at once, by the better guess
    order = torch.argsort(close, descending=True, stable=True)
    key = (torch.minimum(first, second) * n + torch.maximum(first, second))[order]
    order = order[torch.argsort(key, stable=True)]
    key = key.sort().values
    new = torch.ones_like(key, dtype=torch.bool)
    new[1:] = key[1:] != key[:-1]
    best = order[new]
    return first[best], second[best], all_guesses[which[best]]


def _half(grey: Tensor) -> Tensor:
    return F.avg_pool2d(grey[:, None].float(), 2)


def _verify(grey: Tensor, colour: Tensor, first: Tensor, second: Tensor, guess: Tensor) -> list[_Pair]:
    """Register and compare one batch of pairs; those that match."""
    a, b = grey[first, None].float(), grey[second, None].float()
    affine, rough = align.coarse(a, b, guess)
    go = (rough <= ROUGH).nonzero()[:, 0]
    if not len(go):
        return []
    a, b, first, second = a[go], b[go], first[go], second[go]
    colours = (colour[first].permute(0, 3, 1, 2).float(), colour[second].permute(0, 3, 1, 2).float())
    match = align.compare(a, b, colours, align.fine(a, b, affine[go]))
    distance = torch.stack(
        [match.shape / SHAPE, match.detail / (DETAIL + DETAIL_PER_MEAN * match.mean), match.colour / COLOUR]
    ).amax(0)
    mixed = match.grey[:, 0] != match.grey[:, 1]
    gain = torch.maximum(match.gain, 1 / match.gain.clamp_min(1e-6))
    alike = (distance <= torch.where(mixed, GREY_SHARE, 1.0)) & (gain <= torch.where(mixed, GREY_GAIN, GAIN))
    alike &= (match.moved <= MOVED) & (match.overlap >= OVERLAP)
    return [
        _Pair(
            (int(first[k]), int(second[k])),
            float(distance[k]),
            (bool(match.grey[k, 0]), bool(match.grey[k, 1])),
            _told(match, k),
        )
        for k in alike.nonzero()[:, 0].tolist()
    ]


def _told(match: align.Match, k: int) -> str:
    """What makes the two differ, in words."""
    parts = ["mirrored"] if match.mirrored[k] else []
    if match.moved[k] > 0.02:
        parts.append(f"cropped or turned, corners moved by {match.moved[k]:.0%} of the side")
    if abs(match.gain[k] - 1) > 0.03 or abs(match.offset[k]) > 5:
        parts.append(f"contrast x{match.gain[k]:.2f}, brightness {match.offset[k]:+.0f}")
    if match.grey[k, 0] != match.grey[k, 1]:
        parts.append("one without colour")
    left = f"the difference left is {match.shape[k]:.0%} of the contrast (limit {SHAPE:.0%})"
    return ", ".join([*parts, left])


def _without_doubtful_grey(pairs: list[_Pair]) -> list[_Pair]:
    """A grey version goes with the nearest coloured picture only: pictures that differ in colour alone stay apart."""
    nearest: dict[int, float] = {}
    for pair in pairs:
        if pair.grey[0] != pair.grey[1]:
            row = pair.rows[pair.grey.index(True)]
            nearest[row] = min(pair.distance, nearest.get(row, 2.0))
    return [p for p in pairs if p.grey[0] == p.grey[1] or p.distance == nearest[p.rows[p.grey.index(True)]]]


def _groups(pairs: list[_Pair]) -> list[tuple[list[int], str]]:
    """Connected pictures, and what is told of their most different pair."""
    parent: dict[int, int] = {}

    def root(x: int) -> int:
        while parent.setdefault(x, x) != x:
            parent[x] = parent[parent[x]]
            x = parent[x]
        return x

    partners: dict[int, int] = defaultdict(int)
    for pair in pairs:
        a, b = pair.rows
        parent[root(a)] = root(b)
        partners[a] += 1
        partners[b] += 1
    members, widest = defaultdict(list), {}
    for row in list(parent):
        members[root(row)].append(row)
    for pair in pairs:
        group = root(pair.rows[0])
        if group not in widest or pair.distance > widest[group].distance:
            widest[group] = pair
    return sorted((sorted(rows, key=lambda r: (-partners[r], r)), widest[g].told) for g, rows in members.items())
