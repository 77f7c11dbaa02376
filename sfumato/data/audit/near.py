"""Near-duplicates: pictures that are resized, recompressed, slightly cropped, mirrored or relit copies of each other."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sfumato.data.audit import align, pictures
from sfumato.data.audit.candidates import again, candidates
from sfumato.data.audit.sharpness import detail
from sfumato.data.audit.table import Column

ASPECT = 1.25  # greatest ratio of proportions between near-duplicates
BLOCK = 256  # pairs worked on at a time: what fits a cache
# what a true pair leaves at most, chosen by benchmarks/planted_faults.py on seeds that its table does not use
SHAPE, COLOUR = 0.25, 14.0
DETAIL, DETAIL_PER_MEAN = 7.0, 1.0  # a changed detail stands out from the difference that is everywhere
MOVED, OVERLAP, GAIN = 0.15, 0.66, 1.2
NEARLY = 1.75  # a distance at which another registration may still find the same picture
GREY_SHARE, GREY_GAIN = 0.5, 1.06  # of the limits, where one picture has no colour and colour proves nothing


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


def near_duplicates(
    thumbs: Column | np.ndarray, colours: Column | np.ndarray, aspect: np.ndarray, rows: np.ndarray
) -> list[Group]:
    """Groups of pictures that are altered copies of each other, by number within `rows` int [N].

    `thumbs` uint8 [-, 32, 32] grey and `colours` uint8 [-, 16, 16, 3] show the whole picture, its sides squeezed to a
    square and low-passed (Pillow's BILINEAR); `aspect` is width / height [N]. Candidates are neighbours by small
    correlations (see candidates); each pair is registered and compared place by place (see align).
    """
    details = [detail(thumbs[rows[i : i + BLOCK]]) for i in range(0, len(rows), BLOCK)]
    shown = np.flatnonzero(np.concatenate([*details, np.empty(0)]) >= pictures.DETAIL)  # smooth ones show nothing
    if len(shown) < 2:
        return []
    where, ratio = rows[shown], torch.from_numpy(np.log(np.asarray(aspect, np.float64)[shown]))

    def verified(first: Tensor, second: Tensor, guess: Tensor) -> list[_Pair]:
        alike = (ratio[first] - ratio[second]).abs() <= np.log(ASPECT)
        blocks = zip(*(t[alike].split(BLOCK) for t in (first, second, guess)), strict=True)
        return [pair for block in blocks for pair in _verify(thumbs, colours, where, *block)]

    best: dict[tuple[int, int], _Pair] = {}
    found = candidates(thumbs, where, verified)
    for pair in sorted((p for several in found for p in several), key=lambda p: p.distance):
        best.setdefault((min(pair.rows), max(pair.rows)), pair)
    pairs = list(best.values())
    return [Group([int(shown[r]) for r in rows], told) for rows, told in _groups(_without_doubtful_grey(pairs))]


def _verify(
    thumbs: Column | np.ndarray,
    colours: Column | np.ndarray,
    where: np.ndarray,
    first: Tensor,
    second: Tensor,
    guess: Tensor,
) -> list[_Pair]:
    """Register and compare one batch of pairs, numbers within `where`; those that match."""
    if not len(first):
        return []
    a, b = (torch.from_numpy(thumbs[where[x.numpy()]])[:, None].float() for x in (first, second))
    c, d = (torch.from_numpy(colours[where[x.numpy()]]).permute(0, 3, 1, 2).float() for x in (first, second))
    pairs, nearly = _laid(first, second, (a, b, c, d), guess)
    if len(nearly):
        first, second = first[nearly], second[nearly]
        pairs += _laid(first, second, tuple(x[nearly] for x in (a, b, c, d)), again(a[nearly], b[nearly]))[0]
    return pairs


def _laid(first: Tensor, second: Tensor, shown: tuple[Tensor, ...], guess: Tensor) -> tuple[list[_Pair], Tensor]:
    """Those that match, registered from a guess; and the places of those that come near to it."""
    a, b, *tints = shown
    match = align.compare(a, b, tuple(tints), align.fine(a, b, guess))
    distance, alike = _judge(match)
    pairs = [
        _Pair(
            (int(first[k]), int(second[k])),
            float(distance[k]),
            (bool(match.grey[k, 0]), bool(match.grey[k, 1])),
            _told(match, k),
        )
        for k in alike.nonzero()[:, 0].tolist()
    ]
    return pairs, (~alike & (distance <= NEARLY)).nonzero()[:, 0]


def _judge(match: align.Match) -> tuple[Tensor, Tensor]:
    """Distance (0 the same, 1 at the limit) and whether the two show the same, [P] each."""
    distance = torch.stack(
        [match.shape / SHAPE, match.detail / (DETAIL + DETAIL_PER_MEAN * match.mean), match.colour / COLOUR]
    ).amax(0)
    mixed = match.grey[:, 0] != match.grey[:, 1]
    gain = torch.maximum(match.gain, 1 / match.gain.clamp_min(1e-6))
    alike = (distance <= torch.where(mixed, GREY_SHARE, 1.0)) & (gain <= torch.where(mixed, GREY_GAIN, GAIN))
    return distance, alike & (match.moved <= MOVED) & (match.overlap >= OVERLAP)


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
