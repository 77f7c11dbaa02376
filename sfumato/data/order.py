"""Which rows come when: a pure function of the step number, and which rows are held out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b

import torch
from torch import Tensor

from sfumato.core import SfumatoError

HELD_OUT = 0.05
PAIRS_OUT = 0.10


def _hash63(text: str) -> int:
    return int.from_bytes(blake2b(text.encode("utf-8", "surrogateescape"), digest_size=8).digest(), "big") >> 1


@lru_cache(maxsize=4)
def _permutation(n: int, seed: int, epoch: int) -> Tensor:
    return _shuffled(n, f"order/{seed}/{epoch}")


def _shuffled(n: int, of: str) -> Tensor:
    return torch.randperm(n, generator=torch.Generator().manual_seed(_hash63(of)))


@dataclass(frozen=True)
class Window:
    """How to shuffle what lies on a disk: stretches of `block` neighbours in random order, cut into windows of `rows`
    places, each shuffled; so at any time only the stretches of one or two windows are read."""

    rows: int
    block: int

    def __post_init__(self) -> None:
        if self.rows < 1 or self.block < 1:
            raise SfumatoError(f"a window needs rows and a block of 1 or more, not {self.rows} and {self.block}")

    def scaled(self, share: float) -> Window:
        """The window of this share of the pictures, spread over the set: it reaches as far on the disk."""
        return Window(max(1, round(self.rows * share)), max(1, round(self.block * share)))


@lru_cache(maxsize=4)
def _stretches(n: int, block: int, seed: int, epoch: int) -> tuple[Tensor, Tensor]:
    """The shuffled stretches' numbers, and the places at which they end."""
    order = _shuffled(-(-n // block), f"blocks/{seed}/{epoch}")
    lengths = torch.full((len(order),), block)
    lengths[order == len(order) - 1] = n - (len(order) - 1) * block
    return order, lengths.cumsum(0)


@lru_cache(maxsize=4)
def _window(n: int, window: Window, seed: int, epoch: int, number: int) -> Tensor:
    """The positions of one window of an epoch, shuffled."""
    order, ends = _stretches(n, window.block, seed, epoch)
    places = torch.arange(number * window.rows, min((number + 1) * window.rows, n))
    stretch = torch.searchsorted(ends, places, right=True)
    begins = torch.cat([ends.new_zeros(1), ends[:-1]])
    positions = order[stretch] * window.block + places - begins[stretch]
    return positions[_shuffled(len(positions), f"window/{seed}/{epoch}/{number}")]


def _windows(n: int, window: Window, seed: int, epoch: int) -> Tensor:
    """All windows of an epoch, one after the other."""
    return torch.cat([_window(n, window, seed, epoch, k) for k in range(-(-n // window.rows))])


class _Epochs:
    """Epochs of `n` places laid end to end and cut into batches of `batch`; a pure function of the step, without state."""

    n: int
    batch: int

    def at(self, step: int) -> Tensor:
        """Positions int64 [batch] of this step (0 or more); the same whenever and however often it is asked."""
        if step < 0:
            raise SfumatoError(f"steps count from 0, not {step}")
        first, last = step * self.batch, (step + 1) * self.batch
        pieces = []
        for epoch in range(first // self.n, (last - 1) // self.n + 1):
            start = epoch * self.n
            pieces += self._places(epoch, max(first - start, 0), min(last - start, self.n))
        return torch.cat(pieces)

    def _places(self, epoch: int, first: int, last: int) -> list[Tensor]:
        """What lies at the places first ... last - 1 of an epoch."""
        raise NotImplementedError

    def epoch(self, step: int) -> float:
        """How many epochs lie before this step."""
        return step * self.batch / self.n


@dataclass(frozen=True)
class Order(_Epochs):
    """Shuffled positions 0 ... n-1 without state: the epochs' permutations laid end to end and cut into batches.

    Epoch e is a fresh permutation from (seed, e), of the whole set or within a `window`; `at(step)` covers places
    step * batch ... (step + 1) * batch - 1 of that endless row, so every position comes exactly once per n places, and
    a batch may exceed n.
    """

    n: int
    batch: int
    seed: int = 0
    window: Window | None = None

    def __post_init__(self) -> None:
        if self.n < 1 or self.batch < 1:
            raise SfumatoError(f"an order needs pictures and a batch of 1 or more, not n={self.n}, batch={self.batch}")

    def _places(self, epoch: int, first: int, last: int) -> list[Tensor]:
        if self.window is None:
            return [_permutation(self.n, self.seed, epoch)[first:last]]
        rows = self.window.rows
        return [
            _window(self.n, self.window, self.seed, epoch, k)[max(first - k * rows, 0) : last - k * rows]
            for k in range(first // rows, (last - 1) // rows + 1)
        ]


class WeightedOrder(_Epochs):
    """Positions 0 ... n-1 drawn in proportion to weights [n], as a pure function of the step, without state.

    An epoch has n draws: rows lie in a random order (each stratum together), position k owns a stretch of length
    n w_k / sum w, and the points u, u + 1, ... hit it floor or ceil of that many times, as they do each stratum as a whole
    (systematic sampling, Madow 1949); then the draws are shuffled, with a `window` in the way of the disk as in Order.
    Everything comes from (seed, epoch).
    """

    def __init__(
        self,
        weights: Tensor,
        batch: int,
        seed: int = 0,
        strata: Tensor | None = None,
        window: Window | None = None,
    ) -> None:
        """`strata` int64 [n]: groups whose totals should be exact too, such as classes."""
        if batch < 1 or not len(weights) or not bool((weights >= 0).all()) or not bool(weights.sum() > 0):
            raise SfumatoError(
                f"an order needs weights of 0 or more, not all 0, and a batch of 1 or more, not {batch} of {len(weights)}"
            )
        self.n, self.batch, self.seed, self.window = len(weights), batch, seed, window
        self._rows = (weights > 0).nonzero()[:, 0]
        self._weights = weights.double()[self._rows] * (self.n / weights.double().sum())
        self._strata = None if strata is None else strata[self._rows]
        self._kept: dict[int, Tensor] = {}

    def _draws(self, epoch: int) -> Tensor:
        if epoch not in self._kept:
            generator = torch.Generator().manual_seed(_hash63(f"balance/{self.seed}/{epoch}"))
            laid = torch.randperm(len(self._rows), generator=generator)
            if self._strata is not None:
                laid = laid[self._strata[laid].argsort(stable=True)]
            ends = self._weights[laid].cumsum(0)
            points = torch.arange(self.n, dtype=torch.float64) + torch.rand(1, generator=generator, dtype=torch.float64)
            hit = torch.searchsorted(ends, points, right=True).clamp_max(len(laid) - 1)
            drawn = self._rows[laid[hit]]
            if self.window is None:
                draws = drawn[torch.randperm(self.n, generator=generator)]
            else:
                draws = drawn.sort().values[_windows(self.n, self.window, self.seed, epoch)]
            self._kept = {**dict(list(self._kept.items())[-1:]), epoch: draws}
        return self._kept[epoch]

    def _places(self, epoch: int, first: int, last: int) -> list[Tensor]:
        return [self._draws(epoch)[first:last]]


class Dealt:
    """Batches of one bucket each: the steps are dealt to the buckets in proportion, without state.

    `counts[b]` of every sum(counts) steps go to bucket b, the j-th of them at the place (j + 1/2) / counts[b] of the way:
    so at any step a bucket has had its share of the steps to within 1/2 + its share of half the number of buckets. Its
    k-th batch is that of its own order, whose positions are `rows[b]` of the whole. With one bucket this is its order.
    """

    def __init__(self, rows: Sequence[Tensor], orders: Sequence[_Epochs], counts: Sequence[int]) -> None:
        self.rows, self.orders, self.counts = rows, orders, counts
        self.n, self.batch = sum(len(r) for r in rows), orders[0].batch
        bucket = torch.repeat_interleave(torch.tensor(counts))
        turn = torch.cat([torch.arange(c) for c in counts])
        place = (turn.double() + 0.5) / torch.tensor(counts)[bucket]
        dealt = place.argsort(stable=True)
        self._bucket, self._turn = bucket[dealt], turn[dealt]

    def at(self, step: int) -> Tensor:
        """Positions int64 [batch] of this step (0 or more), all of one bucket."""
        if step < 0:
            raise SfumatoError(f"steps count from 0, not {step}")
        period, place = divmod(step, len(self._bucket))
        bucket = int(self._bucket[place])
        turn = period * self.counts[bucket] + int(self._turn[place])
        return self.rows[bucket][self.orders[bucket].at(turn)]

    def epoch(self, step: int) -> float:
        """How many epochs lie before this step."""
        return step * self.batch / self.n


def split(names: Sequence[str], seed: int = 0) -> tuple[Tensor, Tensor]:
    """Names of pictures -> (train rows, held-out rows), int64 ascending, disjoint and together all of them.

    Rows of one name stay together: they are held out when hash(seed, name) < 5 % of the range, so adding or removing
    files moves no other file. When no name falls there, the lowest hash is held out. Pictures of a single name are both
    trained on and held out.
    """
    hashes = {name: _hash63(f"split/{seed}/{name}") for name in names}
    by_hash = sorted(hashes, key=hashes.__getitem__)
    held = {name for name in by_hash if hashes[name] < HELD_OUT * 2**63} or set(by_hash[:1])
    if len(held) == len(hashes) > 1:
        held.discard(by_hash[-1])
    train = [row for row, name in enumerate(names) if name not in held or len(hashes) == 1]
    out = [row for row, name in enumerate(names) if name in held]
    return torch.tensor(train, dtype=torch.int64), torch.tensor(out, dtype=torch.int64)


def split_pairs(names: Sequence[str], kinds: Tensor, rows: Tensor, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Rows to learn from -> (train rows, held-out rows): about 10 % of the (name, kind) pairs are held out.

    names: one per row of the set, `kinds` int64 likewise; rows of one pair stay together. A pair is held out when
    hash(seed, name, kind) < 10 % of the range and the name stays in training in another kind.
    """
    kinds_of: dict[str, dict[int, int]] = {}
    for row in rows.tolist():
        kind = int(kinds[row])
        kinds_of.setdefault(names[row], {})[kind] = _hash63(f"pairs/{seed}/{names[row]}/{kind}")
    held = set()
    for name, hashes in kinds_of.items():
        chosen = [kind for kind in sorted(hashes, key=hashes.__getitem__) if hashes[kind] < PAIRS_OUT * 2**63]
        held.update((name, kind) for kind in chosen[: len(hashes) - 1])
    out = torch.tensor([(names[row], int(kinds[row])) in held for row in rows.tolist()], dtype=torch.bool)
    return rows[~out], rows[out]
