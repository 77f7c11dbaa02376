"""Small statistics of a few runs: rank correlation, and a mean with its interval."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import NamedTuple

from sfumato.measure.intervals import student


class Spread(NamedTuple):
    """A mean and half the width of its 95 % interval (None for a single value)."""

    mean: float
    half: float | None

    @property
    def apart_from_zero(self) -> bool:
        return self.half is not None and abs(self.mean) > self.half


def interval(values: Sequence[float]) -> Spread:
    """Mean of independent runs with the half-width of its 95 % interval by Student's t: t s / sqrt(n)."""
    mean = statistics.fmean(values)
    if len(values) < 2:
        return Spread(mean, None)
    return Spread(mean, student(len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values)))


def _ranks(values: Sequence[float]) -> list[float]:
    """Ranks from 1, equal values sharing the mean of theirs."""
    order = sorted(range(len(values)), key=values.__getitem__)
    ranks = [0.0] * len(values)
    first = 0
    while first < len(order):
        last = first
        while last + 1 < len(order) and values[order[last + 1]] == values[order[first]]:
            last += 1
        for k in range(first, last + 1):
            ranks[order[k]] = (first + last) / 2 + 1
        first = last + 1
    return ranks


def spearman(a: Sequence[float], b: Sequence[float]) -> float | None:
    """Spearman's rank correlation of two series, -1 ... 1; None for fewer than 3 pairs or when one never changes."""
    if len(a) < 3 or len(set(a)) < 2 or len(set(b)) < 2:
        return None
    return statistics.correlation(_ranks(a), _ranks(b))
