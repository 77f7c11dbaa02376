"""Did the model copy: generated pictures against every training picture, beside what pictures it never saw would get."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from sfumato.core import SfumatoError
from sfumato.data import Source
from sfumato.measure.intervals import Interval, wilson
from sfumato.measure.metrics import nearest

RATIO = 1 / 3  # of the second nearest distance, or of what is usual: under it a picture is a copy (arXiv 2505.16959)
SIDE = 32  # pictures are compared at this many pixels at most: a copy stays one, and more would say nothing new
BLOCK = 4000  # training pictures at once
FEWEST = 16
FEWEST_TRAINING = 3
RESAMPLED = 1000
PLENTY = 0.05  # of held-out pictures that look like copies: it is said


def copied(first: Tensor, second: Tensor, usual: Tensor | float) -> Tensor:
    """Which pictures are copies, bool [N], by their distances to the nearest and the second nearest training picture [N].

    d1 < d2 / 3 (Yoon et al. 2023; Bonnaire et al. 2025, arXiv 2505.16959), or d1 < usual / 3, where `usual` is the median
    d1 of held-out pictures: that finds a copy of a picture that the training set holds twice.
    """
    return (first < RATIO * second) | (first < RATIO * usual)


class Twins(NamedTuple):
    """Nearest training pictures: their rows in the source, int64 [N, k], and distances [N, k], nearest first."""

    rows: Tensor
    distances: Tensor


class Gallery:
    """The training pictures of a source, in which the nearest to any picture are sought.

    The distance is the root mean square difference of the pixels in [-1, 1], at 32 pixels a side at most, to the picture or
    to its mirror image, whichever is nearer: 0 is the same picture, 2 is black against white.
    """

    def __init__(self, source: Source) -> None:
        self.source = source.squares()
        if len(self.source.train_index) < FEWEST_TRAINING:
            raise SfumatoError(
                f"{source.name} has {len(self.source.train_index)} training pictures, too few to tell a copy: "
                f"{FEWEST_TRAINING} are the least"
            )

    def _blocks(self) -> Iterator[tuple[Tensor, Tensor]]:
        for rows in self.source.train_index.split(BLOCK):
            if len(rows) < 3:  # the last block may be shorter than the neighbours sought in it
                rows = self.source.train_index[-3:]
            yield rows, _small(self.source.batch(rows).x0)

    def nearest(self, x0: Tensor, k: int = 2) -> Twins:
        """The k <= 3 training pictures nearest to each of x0 [N, C, H, W] in [-1, 1], of the source's size.

        Raises SfumatoError for pictures of another size or colour mode, and for NaN.
        """
        spec = tuple(self.source.codec.spec)
        if tuple(x0.shape[1:]) != spec:
            c, h, w = spec
            raise SfumatoError(
                f"pictures of shape {tuple(x0.shape[1:])} are not comparable with training pictures of {c} channels, {h}x{w}"
            )
        looks = [_small(x0), _small(x0.flip(-1))]
        root = math.sqrt(looks[0][0].numel())
        best = Twins(torch.empty(len(x0), 0, dtype=torch.int64), torch.empty(len(x0), 0))
        for rows, train in self._blocks():
            for look in looks:
                index, distance = nearest(look, train, k)
                best = _merged(
                    torch.cat([best.rows, rows[index]], 1), torch.cat([best.distances, distance / root], 1), k
                )
        return best


def _small(x0: Tensor) -> Tensor:
    """Pictures at SIDE pixels a side at most, by means over areas; float32."""
    height, width = (min(side, SIDE) for side in x0.shape[2:])
    return x0 if x0.shape[2:] == (height, width) else F.adaptive_avg_pool2d(x0, (height, width))


def _merged(rows: Tensor, distances: Tensor, k: int) -> Twins:
    """The k nearest of candidates [N, m], every row once."""
    order = distances.argsort(dim=1, stable=True)
    rows, distances = rows.gather(1, order), distances.gather(1, order)
    again = (rows[:, :, None] == rows[:, None, :]).tril(-1).any(2)  # a row that stands further left already
    found = distances.masked_fill(again, math.inf).topk(min(k, rows.shape[1]), dim=1, largest=False)
    return Twins(rows.gather(1, found.indices), found.values)


@dataclass(frozen=True)
class Memorisation:
    """How much of what was generated is copied.

    `share` of the generated and `base` of the held-out pictures that the rule calls copies; `copies`: what lies above the
    base, (share - base) / (1 - base), with its 95 % interval; `ratio`: median distance from a generated picture to its
    nearest training picture over that of held-out pictures (1: no nearer than new pictures are), with its interval;
    `usual`: that median of held-out pictures.
    """

    copies: Interval
    ratio: Interval
    share: float
    base: float
    usual: float
    n: int
    n_held_out: int
    n_train: int

    @property
    def words(self) -> str:
        """One sentence for people."""
        few, many = (f"{100 * end:.1f}" for end in self.copies[1:])
        if self.copies.low > 0:
            said = f"about {100 * self.copies.value:.1f} % of the pictures are copies of training pictures ({few} to {many} %)"
        else:
            said = f"no more copies than among pictures never seen (at most {many} % of {self.n:,})"
        if self.base > PLENTY:
            said += f"; of pictures never seen {100 * self.base:.0f} % count as copies: the data hold much of the same"
        nearer = "as near to the training pictures as new pictures are"
        if self.ratio.high < 1:
            nearer = f"nearer to the training pictures than new pictures are, {self.ratio.value:.2f} of their distance"
        elif self.ratio.low > 1:
            nearer = (
                f"farther from the training pictures than new pictures are, {self.ratio.value:.2f} of their distance"
            )
        return f"{said}; {nearer}"

    def to_json(self) -> dict[str, Any]:
        """All fields, intervals as value, low and high, and the words."""
        plain = {**asdict(self), "copies": self.copies._asdict(), "ratio": self.ratio._asdict()}
        return {**plain, "words": self.words}


def memorisation(generated: Tensor, gallery: Gallery, held_out: Tensor) -> Memorisation:
    """Count copies among `generated` [N, C, H, W] by the rule of `copied`, beside pictures that were not trained on.

    held_out: [M, C, H, W]; both in [-1, 1] and of the gallery's size. The interval of the copies is Newcombe's (1998,
    method 10) of a difference of two shares, that of the ratio from 1,000 resamplings. Raises SfumatoError for fewer than
    16 pictures on a side, for other sizes and for NaN.
    """
    for x, who in ((generated, "generated"), (held_out, "held-out")):
        if len(x) < FEWEST:
            raise SfumatoError(
                f"{len(x)} {who} pictures do not tell whether a model copies: {FEWEST} are the least, 500 give a share "
                "to 2 points"
            )
    made, held = gallery.nearest(generated).distances, gallery.nearest(held_out).distances
    usual = float(held[:, 0].median())
    hits, base_hits = (int(copied(d[:, 0], d[:, 1], usual).sum()) for d in (made, held))
    return Memorisation(
        copies=excess(hits, len(made), base_hits, len(held)),
        ratio=ratio_of_medians(made[:, 0], held[:, 0]),
        share=hits / len(made),
        base=base_hits / len(held),
        usual=usual,
        n=len(made),
        n_held_out=len(held),
        n_train=len(gallery.source.train_index),
    )


def excess(hits: int, n: int, base_hits: int, m: int) -> Interval:
    """What share of n pictures are hits beyond the base rate: (p - b) / (1 - b), at least 0, with its 95 % interval.

    Pictures that are no copies hit by chance as held-out ones do: p = c + (1 - c) b. The interval of p - b joins Wilson's
    of both (Newcombe 1998, method 10).
    """
    p, b = wilson(hits / n, n), wilson(base_hits / m, m)
    if p.value <= b.value:  # fewer hits than new pictures have: at most all of them are copies
        return Interval(0.0, 0.0, p.high)
    gap = p.value - b.value
    low = gap - math.hypot(p.value - p.low, b.high - b.value)
    high = gap + math.hypot(p.high - p.value, b.value - b.low)
    return Interval(*(min(1.0, max(0.0, x / (1 - b.value))) for x in (gap, low, high)))


def ratio_of_medians(made: Tensor, held: Tensor) -> Interval:
    """Ratio of the medians of two rows of distances, with the interval of resampled medians."""

    def medians(x: Tensor) -> Tensor:
        generator = torch.Generator().manual_seed(len(x))
        drawn = (x[torch.randint(len(x), (len(x),), generator=generator)].median() for _ in range(RESAMPLED))
        return torch.stack(list(drawn))

    floor = 1e-12  # a copycat's distances are 0, and held-out pictures may all be copies too
    ratios = (medians(made) / medians(held).clamp_min(floor)).double()
    low, high = torch.quantile(ratios, torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    value = float(made.median() / held.median().clamp_min(floor))
    return Interval(value, min(low, value), max(high, value))
