"""Quality and copying while a model trains: what the loss does not say, at a few points of the run, and when to stop."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from sfumato.core import SfumatoError
from sfumato.data import Source
from sfumato.measure.features import LEAST, features_for, thinned
from sfumato.measure.intervals import Interval, kid_interval, manifold_intervals
from sfumato.measure.memory import FEWEST, Gallery, Twins, copied, excess, ratio_of_medians

N = 64  # pictures of a reading
MOST = 500  # real pictures that they are compared with
SEEN = 16  # and as many at least
SHARE = 0.05  # of the training time, at most, goes into readings
POINTS = tuple(2.0 ** (-k / 2) for k in range(12, -1, -1))  # shares of the budget: 1/64 ... 1, ever farther apart
SEED = 20260102
NEIGHBOURS = 3


@dataclass(frozen=True)
class Reading:
    """What was seen after `step` steps: kernel distance, precision and recall by our own features; `copies`, the share of
    copied pictures beyond the base rate; `ratio`, how near to the training pictures (1: as near as they are to each other).
    """

    step: int
    seconds: float
    images: int
    kid: Interval
    precision: float
    recall: float
    copies: Interval
    ratio: Interval
    base: float

    def to_json(self) -> dict[str, Any]:
        """A flat row for the log; intervals as three numbers."""
        row: dict[str, Any] = {}
        for key, value in asdict(self).items():
            if isinstance(value, Interval):
                row |= {key: value.value, f"{key}_low": value.low, f"{key}_high": value.high}
            else:
                row[key] = value
        return row

    @classmethod
    def from_json(cls, row: dict[str, Any]) -> Reading:
        """The reading of a row."""
        intervals = {k: Interval(row[k], row[f"{k}_low"], row[f"{k}_high"]) for k in ("kid", "copies", "ratio")}
        plain = {k: row[k] for k in ("step", "seconds", "images", "precision", "recall", "base")}
        return cls(**plain, **intervals)

    @property
    def copying(self) -> bool:
        """More copies than pictures never seen would show, by the interval's lower end."""
        return self.copies.low > 0


class Meter:
    """Takes readings of a run on `source`, as many as `SHARE` of its time allows.

    The base rate of copies is that of the training pictures among themselves, each against all others: a set may be too
    small to hold pictures back. `features` are the set's own unless others are given; a set too small to train them is
    seen by its pixels at 8 a side. Raises SfumatoError for fewer than SEEN pictures.
    """

    def __init__(self, source: Source, features: Callable[[Tensor], Tensor] | None = None) -> None:
        self.gallery = Gallery(source)
        squares = self.gallery.source
        held = squares.validation_index
        # a handful of held-out pictures cannot tell a distribution
        rows = held if len(held) >= FEWEST else torch.arange(len(squares))
        if features is None:
            features = features_for(source) if len(source.train_index) >= LEAST else _pixels
        self.features = features
        if len(rows) < SEEN:
            raise SfumatoError(
                f"{len(rows)} pictures are too few to compare drawn ones with: at least {SEEN} are needed"
            )
        self.real = self.features(squares.batch(thinned(rows, MOST)).x0)
        learned = squares.batch(thinned(squares.train_index, MOST)).x0
        twins = self.gallery.nearest(learned, 3)
        # the nearest of a training picture is itself
        self.others = Twins(twins.rows[:, 1:], twins.distances[:, 1:])
        self.spent, self.last, self.passed = 0.0, 0.0, 0.0

    def due(self, share: float, seconds: float) -> bool:
        """Whether a point of the budget has been passed since the last reading, and its cost is allowed."""
        reached = max((p for p in POINTS if p <= share), default=0.0)
        if reached <= self.passed or self.spent + self.last > SHARE * seconds:
            return False
        self.passed = reached
        return True

    def read(self, draw: Callable[[], Tensor], step: int, seconds: float, images: int) -> Reading:
        """A reading of what `draw` gives: pictures [N, C, H, W] in [-1, 1], of the source's square size."""
        began = time.perf_counter()
        x0 = draw()
        fake = self.features(x0)
        overlap = manifold_intervals(self.real, fake, NEIGHBOURS)
        made = self.gallery.nearest(x0).distances
        usual = float(self.others.distances[:, 0].median())
        hits, base = (int(copied(d[:, 0], d[:, 1], usual).sum()) for d in (made, self.others.distances))
        reading = Reading(
            step=step,
            seconds=round(seconds, 3),
            images=images,
            kid=kid_interval(fake, self.real),
            precision=overlap["precision"].value,
            recall=overlap["recall"].value,
            copies=excess(hits, len(made), base, len(self.others.distances)),
            ratio=ratio_of_medians(made[:, 0], self.others.distances[:, 0]),
            base=base / len(self.others.distances),
        )
        self.last = time.perf_counter() - began
        self.spent += self.last
        return reading


def onset(readings: Sequence[Reading]) -> int | None:
    """The step at which copies begin: the first of two readings in a row that show them; None where there is none."""
    for first, second in zip(readings, readings[1:], strict=False):
        if first.copying and second.copying:
            return first.step
    return None


def best(readings: Sequence[Reading]) -> Reading | None:
    """The reading of the lowest kernel distance among those before any that shows copies; the first, where all do."""
    honest = []
    for reading in readings:
        if reading.copying:
            break
        honest.append(reading)
    return min(honest, key=lambda r: r.kid.value) if honest else next(iter(readings), None)


def _pixels(x0: Tensor) -> Tensor:
    """Pictures [N, C, H, W] as features [N, D]: their pixels at 8 a side."""
    return F.adaptive_avg_pool2d(x0, 8).flatten(1)
