"""Small statistics of a few runs: rank correlation, and a mean with its interval."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import NamedTuple

# 97.5 % points of Student's t at 1, 2, ... degrees of freedom; beyond, the normal's is within 2 %
T_POINTS = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131)
T_POINTS += (2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042)


class Interval(NamedTuple):
    """A mean and half the width of its 95 % interval (None for a single value)."""

    mean: float
    half: float | None

    @property
    def apart_from_zero(self) -> bool:
        return self.half is not None and abs(self.mean) > self.half


def interval(values: Sequence[float]) -> Interval:
    """Mean of independent runs with the half-width of its 95 % interval by Student's t: t s / sqrt(n)."""
    mean = statistics.fmean(values)
    if len(values) < 2:
        return Interval(mean, None)
    t = T_POINTS[len(values) - 2] if len(values) - 1 <= len(T_POINTS) else 2.0
    return Interval(mean, t * statistics.stdev(values) / math.sqrt(len(values)))


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
