"""Picture shapes: which few a set of different proportions is laid into, and what each picture loses by it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from sfumato.core import SfumatoError

Shape = tuple[int, int]  # height, width in pixels

WIDEST = 3.0  # longer to shorter side of a shape
LEAST = 32  # pictures of a shape, where the set has enough: a batch should not hold one picture many times
MOST = 5  # shapes when nothing is said


def usual_multiple(size: int) -> int:
    """What the sides must be multiples of for the named recipes at powers of two: a quarter of the size, at least 8."""
    return max(8, size // 4)


@dataclass(frozen=True)
class Buckets:
    """Up to `most` picture shapes (H, W) for a set: sides multiples of `multiple(size)`, areas near size x size.

    `fixed` shapes are taken as they are, in this order: those of a run that goes on.
    """

    most: int = MOST
    multiple: Callable[[int], int] = usual_multiple
    fixed: tuple[Shape, ...] = ()

    def __post_init__(self) -> None:
        if self.most < 1:
            raise SfumatoError(f"pictures are laid into 1 shape or more, not {self.most}")

    def shapes(self, size: int, aspects: np.ndarray) -> tuple[Shape, ...]:
        """The shapes for pictures of these aspects (width / height, [N]), that of the most pictures first.

        Of all sets of `most` candidates the one that cuts away the least in all; then shapes with fewer pictures than
        LEAST (in small sets N / (2 most)) are given up one by one, their pictures going to the next best.
        """
        if self.fixed:
            return self.fixed
        chosen = least_cut(aspects, candidates(size, self.multiple(size)), self.most)
        fewest = min(LEAST, len(aspects) // (2 * self.most))
        while True:
            counts = np.bincount(nearest(aspects, chosen)[0], minlength=len(chosen))
            if len(chosen) == 1 or counts.min() >= max(1, fewest):
                return tuple(chosen[k] for k in np.argsort(-counts, kind="stable"))
            del chosen[int(counts.argmin())]


def candidates(size: int, multiple: int) -> list[Shape]:
    """All shapes with sides of `multiple` pixels times a whole number, narrow ones first.

    Areas are within multiple / size of size^2 (the rounding of a side), proportions within 1 : WIDEST.
    Raises SfumatoError when the square itself is none of them.
    """
    if size % multiple:
        raise SfumatoError(
            f"the network needs sides that are multiples of {multiple}, {size} is none: "
            f"use --size {-(-size // multiple) * multiple}"
        )
    units = size // multiple
    sides = range(1, 2 * units + 1)
    least, most = units * units - units, units * units + units
    found = [(h, w) for h in sides for w in sides if least <= h * w <= most and max(h, w) <= WIDEST * min(h, w)]
    return [(h * multiple, w * multiple) for h, w in sorted(found, key=lambda s: (s[1] / s[0], -s[0]))]


def nearest(aspects: np.ndarray, shapes: Sequence[Shape]) -> tuple[np.ndarray, np.ndarray]:
    """Which shape cuts least off each picture, int64 [N], and what share of its pixels that is, float64 [N].

    A centre crop of aspect b from a picture of aspect a loses 1 - min(a / b, b / a); of equal ones the first is taken.
    """
    cut = _cut(aspects, shapes)
    index = cut.argmin(1)
    return index, cut[np.arange(len(cut)), index]


def _cut(aspects: np.ndarray, shapes: Sequence[Shape]) -> np.ndarray:
    """Share of the pixels that each shape cuts off each picture, [N, S]."""
    ratio = np.asarray(aspects, np.float64)[:, None] / np.array([w / h for h, w in shapes])
    return 1 - np.minimum(ratio, 1 / ratio)


def least_cut(aspects: np.ndarray, shapes: Sequence[Shape], most: int) -> list[Shape]:
    """The at most `most` of `shapes` (narrow ones first) that cut least off the pictures in all; the fewest of equals.

    Exact, by dynamic programming: between two neighbours of the choice a picture goes to one of the two.
    """
    cut, aspect = _cut(aspects, shapes), np.asarray(aspects, np.float64)
    places = np.array([w / h for h, w in shapes])
    n = len(shapes)
    between = np.zeros((n, n))
    for a in range(n):
        for b in range(a + 1, n):
            inside = (aspect >= places[a]) & (aspect < places[b])
            between[a, b] = np.minimum(cut[inside, a], cut[inside, b]).sum()
    total = np.array([cut[aspect < places[k], k].sum() for k in range(n)])  # what lies before the last one chosen
    after = np.array([cut[aspect >= places[k], k].sum() for k in range(n)])
    chosen = [[k] for k in range(n)]
    best, kept = float((total + after).min()), chosen[int((total + after).argmin())]
    for _ in range(min(most, n) - 1):
        with_one_more = np.where(np.tri(n, k=-1, dtype=bool).T, total[:, None] + between, np.inf)
        before = with_one_more.argmin(0)
        total = with_one_more[before, np.arange(n)]
        chosen = [[*chosen[before[k]], k] for k in range(n)]
        if float((total + after).min()) < best - 1e-9:
            best, kept = float((total + after).min()), chosen[int((total + after).argmin())]
    return [shapes[k] for k in kept]
