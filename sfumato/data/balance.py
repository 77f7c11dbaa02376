"""How often each picture is drawn: class balance by rule, weights per picture, a cap on AI-made pictures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sfumato.core import SfumatoError
from sfumato.data.hygiene import ai_marks
from sfumato.data.order import Dealt, Order, WeightedOrder
from sfumato.data.source import Source


@dataclass(frozen=True)
class Temperature:
    """A class of n pictures gets a share proportional to n^power; 1 / power is the temperature.

    1 leaves the data as they are, 0 makes all classes alike (Conneau et al. 2020, arXiv 1911.02116, section 3.1).
    """

    power: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.power <= 1:
            raise SfumatoError(f"balance: the power (1 / temperature) must lie in 0 ... 1, not {self.power:g}")

    def shares(self, counts: Tensor) -> Tensor:
        """Counts [C] of 1 or more -> shares float64 [C] that sum to 1."""
        raised = counts.double() ** self.power
        return raised / raised.sum()


@dataclass(frozen=True)
class EffectiveNumber:
    """A picture in a class of n is weighted by 1 / E_n, with E_n = (1 - beta^n) / (1 - beta) its effective number.

    0 leaves the data as they are, towards 1 all classes become alike (Cui et al. 2019, arXiv 1901.05555).
    """

    beta: float = 0.999

    def __post_init__(self) -> None:
        if not 0 <= self.beta < 1:
            raise SfumatoError(
                f"balance: beta of the effective number must lie in 0 ... 1 (below 1), not {self.beta:g}"
            )

    def shares(self, counts: Tensor) -> Tensor:
        """Counts [C] of 1 or more -> shares float64 [C] that sum to 1."""
        n = counts.double()
        weighted = n * (1 - self.beta) / (1 - self.beta**n)
        return weighted / weighted.sum()


@dataclass(frozen=True)
class Balance:
    """Rows -> how often they are drawn.

    `classes`: the share of each class; pictures without a class keep their share. `column`: a metadata column of
    weights, 0 or more; with `classes` it divides each class's share among the pictures of that class only, so that
    rare classes are not drowned. `ai_made`: at most this share of all draws shows AI-made pictures; the two sides are
    scaled to it, each within itself as before.
    """

    classes: Temperature | EffectiveNumber | None = None
    column: str | None = None
    ai_made: float | None = None

    def __post_init__(self) -> None:
        if self.ai_made is not None and not 0 <= self.ai_made <= 1:
            raise SfumatoError(f"the cap on AI-made pictures must lie in 0 ... 1, not {self.ai_made:g}")

    def weights(self, source: Source, rows: Tensor) -> Tensor:
        """Rows int64 [n] of a source -> the share of draws of each, float64 [n], 0 or more, summing to 1.

        Raises SfumatoError when the source lacks what the rule needs, or nothing is left to draw.
        """
        weights = self._column(source, rows)
        if self.classes is not None:
            if source.labels is None:
                raise SfumatoError(
                    "balance by class needs classes: sort the pictures into subfolders, or leave it away"
                )
            weights = _by_class(self.classes, source.labels[rows], weights)
        if not bool(weights.sum() > 0):
            raise SfumatoError("balance: every picture to learn from has weight 0")
        weights = weights / weights.sum()
        return weights if self.ai_made is None else _capped(weights, ai_marks(source)[rows], self.ai_made)

    def _column(self, source: Source, rows: Tensor) -> Tensor:
        if self.column is None:
            return torch.ones(len(rows), dtype=torch.float64)
        if self.column not in source.columns:
            known = ", ".join(sorted(source.columns)) or "none"
            raise SfumatoError(f"balance: no column {self.column!r} in the metadata; there are: {known}")
        values = source.columns[self.column]
        return torch.tensor([_weight(values[k], source.keys[k], self.column) for k in rows.tolist()]).double()


def _weight(value: Any, key: str, column: str) -> float:
    try:
        weight = float(value)
    except (TypeError, ValueError):
        weight = -1.0
    if not 0 <= weight < float("inf"):
        raise SfumatoError(f"balance: {key!r} has {column} = {value!r}; every weight must be a number of 0 or more")
    return weight


def _by_class(rule: Temperature | EffectiveNumber, labels: Tensor, within: Tensor) -> Tensor:
    """Weights [n] with the rule's class shares, divided inside each class as `within` [n] says."""
    kinds, place, counts = labels.unique(return_inverse=True, return_counts=True)
    known = kinds >= 0
    shares = counts.double() / len(labels)
    if known.any():
        shares[known] = rule.shares(counts[known]) * shares[known].sum()
    total = torch.zeros(len(kinds), dtype=torch.float64).index_add_(0, place, within)
    # a class whose pictures all weigh 0 is left out, and its share falls to the others
    return within * (shares / total.where(total > 0, 1))[place]


def _capped(weights: Tensor, marked: Tensor, cap: float) -> Tensor:
    """Weights [n] that sum to 1, with the marked ones scaled down to a share of `cap` where they have more."""
    share, rest = weights[marked].sum(), weights[~marked].sum()
    if share <= cap:
        return weights
    if rest <= 0:
        raise SfumatoError(
            f"all pictures to learn from are marked as AI-made, so their share cannot be {cap:g}: "
            "add others, or give --ai-made allow"
        )
    return torch.where(marked, weights * (cap / share), weights * ((1 - cap) / rest))


def parse(text: str) -> Balance:
    """What --balance says: equal, temperature=T (1 or more), effective=BETA, column=NAME; a comma joins class and column."""
    balance: dict[str, Any] = {}
    for part in text.split(","):
        name, _, value = part.strip().partition("=")
        kind = "column" if name == "column" else "classes"
        if kind in balance:
            raise SfumatoError(f"--balance {text!r} gives two rules of one kind; give one for classes and one column")
        if name == "equal" and not value:
            balance[kind] = Temperature(0.0)
        elif name == "temperature":
            balance[kind] = Temperature(1 / _number(text, value, 1, float("inf")))
        elif name == "effective":
            balance[kind] = EffectiveNumber(_number(text, value, 0, 1))
        elif name == "column" and value:
            balance[kind] = value
        else:
            raise SfumatoError(
                f"--balance {text!r}: write equal, temperature=T, effective=BETA, column=NAME, or two joined by a comma"
            )
    return Balance(**balance)


def _number(text: str, value: str, least: float, most: float) -> float:
    try:
        number = float(value)
    except ValueError:
        number = float("nan")
    if not least <= number <= most:
        raise SfumatoError(f"--balance {text!r}: {value!r} should be a number from {least:g} to {most:g}")
    return number


def order_of(source: Source, batch: int, seed: int, balance: Balance | None = None) -> Dealt:
    """Which training rows come at which step: every one once per epoch, or as a balance says, batches of one shape each.

    Under a balance classes and AI-made pictures have exact totals among the pictures of each shape, and each shape its
    share of the steps, to one in n.
    """
    rows = source.train_index
    bucket, n = source.bucket[rows], len(rows)
    weights = None if balance is None else balance.weights(source, rows)
    strata = torch.zeros(n, dtype=torch.int64) if source.labels is None else source.labels[rows] + 1
    if balance is not None and balance.ai_made is not None:
        strata = strata + ai_marks(source)[rows].long() * (len(source.classes) + 1)
    places, orders, counts = [], [], []
    for k in range(len(source.shapes)):
        mine = (bucket == k).nonzero()[:, 0]
        count = len(mine) if weights is None else round(float(weights[mine].sum()) * n)
        if not count:
            continue
        own = seed + (k << 32)  # shapes of as many pictures should not be shuffled alike
        window = source.window and source.window.scaled(len(mine) / n)
        if weights is None:
            orders.append(Order(len(mine), batch, own, window))
        else:
            orders.append(WeightedOrder(weights[mine], batch, own, strata[mine], window))
        places.append(mine)
        counts.append(count)
    return Dealt(places, orders, counts)


def told(balance: Balance, source: Source) -> dict[str, Any]:
    """What a balance does to the rows to learn from, JSON-able: most draws of one picture per pass, shares of classes."""
    rows = source.train_index
    weights = balance.weights(source, rows)
    found: dict[str, Any] = {"most_draws_of_one_picture": round(float(weights.max()) * len(rows), 2)}
    if source.labels is not None:
        labels = source.labels[rows]
        shares = {name: round(float(weights[labels == k].sum()), 4) for k, name in enumerate(source.classes)}
        before = {name: round(float((labels == k).double().mean()), 4) for k, name in enumerate(source.classes)}
        found |= {"class_shares": shares, "class_shares_before": before}
    return found
