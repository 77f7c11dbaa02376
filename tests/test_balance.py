"""Balance: the drawn frequencies are those of the rule, exactly, and the order stays a pure function of the step."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
import torch
from training import small_source, tiny_recipe, tiny_trainer

from sfumato.core import SfumatoError
from sfumato.data import Order, Source
from sfumato.data.balance import Balance, EffectiveNumber, Temperature, order_of, parse, told
from sfumato.data.order import WeightedOrder, Window
from sfumato.settings import from_dict, override, to_dict
from sfumato.train import Recipe

COUNTS = {"a": 400, "b": 100, "c": 37, "rare": 4}


def classed(counts: dict[str, int] = COUNTS, unknown: int = 0, **columns: list) -> Source:
    """Pictures of these classes, the unlabelled last; every file name falls on the training side of the split."""
    labels = [k for k, n in enumerate(counts.values()) for _ in range(n)] + [-1] * unknown
    pixels = np.arange(len(labels) * 4, dtype=np.uint32).reshape(-1, 2, 2, 1).astype(np.uint8)
    names = tuple(f"{k:05d}.png" for k in range(len(labels)))
    return Source("classed", pixels, names, tuple(counts), torch.tensor(labels), columns=columns)


def every(source: Source) -> torch.Tensor:
    return torch.arange(len(source))


def shares(source: Source, weights: torch.Tensor) -> list[float]:
    return [float(weights[source.labels == k].sum()) for k in range(len(source.classes))]


def first_epochs(order, epochs: int) -> torch.Tensor:
    """All draws of the first epochs, through `at` alone."""
    steps = -(-epochs * order.n // order.batch)
    return torch.cat([order.at(step) for step in range(steps)])[: epochs * order.n]


@pytest.mark.parametrize("power", [0.0, 0.3, 0.5, 1.0])
def test_temperature_gives_n_to_the_power(power) -> None:
    source = classed()
    got = shares(source, Balance(Temperature(power)).weights(source, every(source)))
    raised = [math.exp(power * math.log(n)) for n in COUNTS.values()]
    assert got == pytest.approx([r / sum(raised) for r in raised], rel=1e-12)


@pytest.mark.parametrize("beta", ["0", "0.9", "0.99", "0.999"])
def test_effective_numbers_are_geometric_sums(beta) -> None:
    """E_n = 1 + beta + ... + beta^(n-1), added up as fractions: the paper's derivation, not its closed form."""
    b = Fraction(beta)
    effective = [sum(b**k for k in range(n)) for n in COUNTS.values()]
    weighted = [n / e for n, e in zip(COUNTS.values(), effective, strict=True)]
    expected = [float(w / sum(weighted)) for w in weighted]
    source = classed()
    got = shares(source, Balance(EffectiveNumber(float(beta))).weights(source, every(source)))
    assert got == pytest.approx(expected, rel=1e-9)


def test_unlabelled_pictures_keep_their_share() -> None:
    source = classed({"a": 60, "b": 20}, unknown=20)
    weights = Balance(Temperature(0.0)).weights(source, every(source))
    assert float(weights[source.labels < 0].sum()) == pytest.approx(0.2)
    assert shares(source, weights) == pytest.approx([0.4, 0.4])


def test_a_column_divides_a_class_share_inside_the_class_only() -> None:
    """Weights that would drown the rare class alone do not when the class rule is there."""
    heavy = [1000.0] * 90 + [1.0, 3.0] * 5
    source = classed({"a": 90, "rare": 10}, weight=heavy)
    alone = Balance(column="weight").weights(source, every(source))
    assert shares(source, alone)[1] == pytest.approx(20 / 90020)
    both = Balance(Temperature(0.0), "weight").weights(source, every(source))
    assert shares(source, both) == pytest.approx([0.5, 0.5])
    rare = both[source.labels == 1]
    assert float(rare[1] / rare[0]) == pytest.approx(3.0)


@pytest.mark.parametrize("batch", [1, 7, 32, 1000])
def test_every_row_and_every_class_comes_as_often_as_its_weight_says(batch) -> None:
    """Per epoch: floor or ceil of n w for each row, and of n S for each class; nothing else adds up to n."""
    source = classed()
    balance = Balance(Temperature(0.5))
    order = order_of(source, batch, 3, balance)
    rows = source.train_index
    weights, labels, n = balance.weights(source, rows), source.labels[rows], len(rows)
    draws = first_epochs(order, 4).reshape(4, n)
    for epoch in draws:
        got = torch.bincount(epoch, minlength=n).double()
        assert bool((got - n * weights).abs().max() < 1)
        for k in range(len(source.classes)):
            assert abs(float(got[labels == k].sum()) - n * float(weights[labels == k].sum())) < 1
    assert not torch.equal(draws[0], draws[1])


def test_over_many_epochs_each_row_reaches_its_share() -> None:
    """Mean of 400 epochs against n w, within five standard errors of a count that is floor or ceil (variance p (1 - p))."""
    weights = torch.tensor([0.03, 0.4, 1.0, 1.7, 2.9, 0.0, 5.2])
    order = WeightedOrder(weights, batch=5, seed=1)
    epochs = 400
    got = torch.bincount(first_epochs(order, epochs), minlength=7).double() / epochs
    expected = 7 * weights.double() / weights.double().sum()
    p = expected % 1
    assert bool(((got - expected).abs() <= 5 * (p * (1 - p) / epochs).sqrt() + 1e-9).all())
    assert got[5] == 0


def test_repeats_of_a_picture_are_spread_over_the_epoch() -> None:
    weights = torch.ones(1000)
    weights[17] = 100.0
    places = (first_epochs(WeightedOrder(weights, 50), 1) == 17).nonzero()[:, 0]
    assert 85 <= len(places) <= 95 and int(places.diff().max()) < 200 and int(places.diff().min()) >= 1
    assert len(set((places // 50).tolist())) >= 15, "laid side by side they would fill two batches"


def test_the_order_is_a_pure_function_of_the_step() -> None:
    weights = torch.rand(53, generator=torch.Generator().manual_seed(0))
    forward = [WeightedOrder(weights, 8, 5).at(step) for step in range(40)]
    one = WeightedOrder(weights, 8, 5)
    for step in reversed(range(40)):
        assert torch.equal(one.at(step), forward[step])
    assert not torch.equal(WeightedOrder(weights, 8, 6).at(0), forward[0])
    whole = WeightedOrder(weights, 320, 5).at(0)
    assert torch.equal(torch.cat(forward), whole), "the batch only cuts the row of draws"


def test_equal_weights_show_every_picture_once_per_epoch() -> None:
    draws = first_epochs(WeightedOrder(torch.ones(40), 7), 3).reshape(3, 40)
    assert all(sorted(epoch.tolist()) == list(range(40)) for epoch in draws)


def test_the_trainer_draws_by_the_recipe_and_without_a_rule_as_ever() -> None:
    source = small_source(200)
    rare = torch.cat([torch.arange(200)[source.labels == 0], torch.arange(200)[source.labels == 1][:8]])
    source = source.take(rare)
    plain = tiny_trainer(source=source)
    same = Order(len(source.train_index), 8, 0)
    assert all(torch.equal(plain.order.at(k), same.at(k)) for k in range(30))
    balanced = tiny_trainer(source=source, balance=Balance(Temperature(0.0)))
    steps = len(source.train_index)  # whole epochs: 8 per batch
    seen = Counter(int(v) for k in range(steps) for v in source.labels[balanced.batch(k)[0].index])
    assert seen[0] == seen[1] or abs(seen[0] - seen[1]) <= 2 * 8
    rows = torch.cat([balanced.batch(k)[0].index for k in range(steps)])
    assert set(rows.tolist()) <= set(source.train_index.tolist()), "held-out pictures stay unseen"


def test_a_balanced_run_resumes_where_it_stopped() -> None:
    source, balance = small_source(), Balance(EffectiveNumber(0.9))
    straight, first = (tiny_trainer(12, source=source, balance=balance) for _ in range(2))
    list(straight.steps())
    steps = first.steps()
    for _ in range(5):
        next(steps)
    second = tiny_trainer(12, source=source, balance=balance)
    second.load(*first.state())
    list(second.steps())
    assert all(torch.equal(p, second.weights[name]) for name, p in straight.weights.items())


@pytest.mark.parametrize("cap", [0.0, 0.1, 0.25])
def test_the_cap_holds_for_what_is_drawn(cap) -> None:
    marks = [k % 2 == 0 for k in range(541)]
    source = classed(ai_made=marks)
    balance = Balance(Temperature(0.0), ai_made=cap)
    order = order_of(source, 16, 0, balance)
    n = order.n
    made = torch.tensor(marks)[source.train_index]
    for epoch in first_epochs(order, 3).reshape(3, n):
        assert abs(int(made[epoch].sum()) - cap * n) <= 1


def test_a_cap_that_is_kept_anyway_changes_nothing() -> None:
    source = classed(ai_made=[k < 10 for k in range(541)])
    rows = every(source)
    assert torch.equal(Balance(ai_made=0.5).weights(source, rows), Balance().weights(source, rows))


def test_mistakes_are_answered_with_one_line() -> None:
    source = classed(weight=[1.0] * 540 + ["much"], ai_made=[True] * 541)
    rows = every(source)
    bare = dataclasses.replace(source, labels=None, classes=())
    for call, line in (
        (lambda: Balance(Temperature()).weights(bare, rows), "needs classes"),
        (lambda: Balance(column="wait").weights(source, rows), "no column 'wait'"),
        (lambda: Balance(column="weight").weights(source, rows), "'00540.png' has weight = 'much'"),
        (lambda: Balance(ai_made=0.2).weights(source, rows), "--ai-made allow"),
        (lambda: Balance(ai_made=1.2), "0 ... 1"),
        (lambda: Temperature(-1.0), "power"),
        (lambda: EffectiveNumber(1.0), "beta"),
        (lambda: WeightedOrder(torch.zeros(3), 2), "weights"),
        (lambda: parse("fair"), "temperature=T"),
        (lambda: parse("temperature=0.5"), "from 1"),
        (lambda: parse("equal,effective=0.9"), "two rules"),
    ):
        with pytest.raises(SfumatoError, match=line.replace(".", r"\.")) as error:
            call()
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "balance"),
    [
        ("equal", Balance(Temperature(0.0))),
        ("temperature=2", Balance(Temperature(0.5))),
        ("temperature=inf", Balance(Temperature(0.0))),
        ("effective=0.99", Balance(EffectiveNumber(0.99))),
        ("column=stars", Balance(column="stars")),
        ("equal,column=stars", Balance(Temperature(0.0), "stars")),
    ],
)
def test_rules_as_people_write_them(text, balance) -> None:
    assert parse(text) == balance


def test_a_balance_is_part_of_the_recipe() -> None:
    recipe = tiny_recipe(small_source(), balance=Balance(EffectiveNumber(0.5), "w", 0.2))
    assert from_dict(Recipe, to_dict(recipe)) == recipe
    again = override(recipe, ["balance=Balance", "balance.classes=Temperature", "balance.classes.power=0.25"])
    assert again.balance == Balance(Temperature(0.25))


def test_what_is_told_adds_up() -> None:
    source = classed()
    facts = told(Balance(Temperature(0.0)), source)
    assert list(facts["class_shares"].values()) == pytest.approx([0.25] * 4)
    assert sum(facts["class_shares_before"].values()) == pytest.approx(1, abs=1e-3)
    rare = int((source.labels[source.train_index] == 3).sum())
    assert facts["most_draws_of_one_picture"] == pytest.approx(len(source.train_index) / 4 / rare, abs=0.01)


def test_on_a_disk_balanced_draws_stay_within_a_window() -> None:
    """The same draws of an epoch as from memory, but those of any window come from a few stretches of neighbours."""
    n, window = 4000, Window(rows=400, block=20)
    weights = torch.rand(n, generator=torch.Generator().manual_seed(0)) + 0.1
    free, near = WeightedOrder(weights, 100, 3), WeightedOrder(weights, 100, 3, window=window)
    epoch = [torch.cat([order.at(step) for step in range(n // 100)]) for order in (free, near)]
    assert torch.equal(epoch[0].sort().values, epoch[1].sort().values)
    reach = [[len((part // 20).unique()) for part in drawn.split(400)] for drawn in epoch]
    assert max(reach[1]) <= 2.5 * 400 / 20 < min(reach[0]), "stretches of 20 places that 400 draws touch"
    assert not torch.equal(near.at(0).sort().values, near.at(0)) and torch.equal(near.at(17), near.at(17))
