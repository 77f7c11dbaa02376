"""Intervals against plain recomputation, and by counting how often they hold a truth that is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from sfumato.core import SfumatoError
from sfumato.measure import frechet_distance, frechet_interval, intervals, kid_interval, manifold, manifold_intervals

SEEN = ("precision", "recall", "density", "coverage")


def normal(n: int, d: int, seed: int) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("freedom", [1, 2, 3, 4, 5.5, 10, 19, 38, 200])
def test_student_is_students(freedom: float) -> None:
    assert intervals.student(freedom) == pytest.approx(stats.t.ppf(0.975, freedom), rel=6e-3)


def pairs(a: torch.Tensor, b: torch.Tensor, count: int) -> list[list[tuple[torch.Tensor, torch.Tensor]]]:
    """Both sets without each group of the one, then of the other: the long way."""
    of_a, of_b = intervals._groups(len(a), count, 0), intervals._groups(len(b), count, 1)
    return [[(a[of_a != g], b) for g in range(count)], [(a, b[of_b != g]) for g in range(count)]]


def test_shares_are_worth_what_the_spread_over_quarters_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """The long way: manifold of every pair of quarters, the variance among four, the mean over all shuffles."""
    monkeypatch.setattr("sfumato.measure.metrics.BLOCK_ELEMENTS", 1000)  # many ragged blocks
    real, fake = normal(90, 4, 1), normal(73, 4, 2) * 0.9 + 0.3
    found, whole = manifold_intervals(real, fake, 5), manifold(real, fake, 5)
    rows = []
    for seed in range(intervals.SHUFFLES):
        of_real, of_fake = intervals._groups(90, 4, 2 * seed), intervals._groups(73, 4, 2 * seed + 1)
        assert torch.bincount(of_real).tolist() == [23, 23, 22, 22]
        rows.append([tuple(manifold(real[of_real == g], fake[of_fake == g], 5)) for g in range(4)])
    for k, name in enumerate(SEEN):
        assert found[name].value == pytest.approx(whole[k])
        quarters = np.array([[m[k] for m in row] for row in rows])
        variance = quarters.var(1, ddof=1).mean() / 4
        if name == "density":
            assert found[name].high - whole[k] == pytest.approx(intervals.Z * variance**0.5, rel=1e-6)
        else:
            assert found[name].low < found[name].value < found[name].high


def test_frechet_without_a_group_is_the_distance_computed_again() -> None:
    a, b = normal(200, 6, 1) * 1.3, normal(150, 6, 2) + 0.2
    of_a, of_b = intervals._groups(200, 20, 0), intervals._groups(150, 20, 0)
    sides = [
        [frechet_distance(a[of_a != g], b) for g in range(20)],
        [frechet_distance(a, b[of_b != g]) for g in range(20)],
    ]
    found, value = frechet_interval(a, b), frechet_distance(a, b)
    assert found.plain.value == pytest.approx(value)
    half = intervals._error(*(torch.tensor(side, dtype=torch.float64) for side in sides))
    assert found.plain.high - value == pytest.approx(half, rel=1e-6)
    bias = sum(19 * (sum(side) / 20 - value) for side in sides)
    assert found.corrected.value == pytest.approx(value - bias, rel=1e-6)


@pytest.mark.parametrize("share", [0.0, 1.0, 0.3])
def test_a_share_has_wilsons_interval(share: float) -> None:
    n = 200
    found = intervals.wilson(share, n)
    truth = stats.binomtest(round(share * n), n).proportion_ci(method="wilson")
    assert (found.low, found.high) == pytest.approx((truth.low, truth.high), abs=1e-9)


def test_nothing_alike_and_all_alike_still_have_a_width() -> None:
    real = normal(100, 3, 1)
    far = manifold_intervals(real, normal(80, 3, 2) + 1000)
    assert all(found.value == found.low == 0 and 0 < found.high < 0.06 for found in far.values())
    same = manifold_intervals(real, real)["precision"]
    assert same.value == same.high == 1 and 0.8 < same.low < 0.97


def test_rows_in_an_order_have_the_interval_of_shuffled_ones() -> None:
    """Groups are drawn at random: a set sorted by class must not look more, or less, certain than it is."""
    a, b = normal(600, 4, 1), normal(600, 4, 2)
    rows = a[:, 0].argsort()
    widths = [(lambda i: i.high - i.low)(frechet_interval(x, b).plain) for x in (a, a[rows])]
    assert 0.5 < widths[0] / widths[1] < 2


def test_too_few_are_refused() -> None:
    with pytest.raises(SfumatoError, match="too few"):
        manifold_intervals(normal(15, 3, 1), normal(50, 3, 2))
    with pytest.raises(SfumatoError, match="too few"):
        frechet_interval(normal(50, 3, 1), normal(15, 3, 2))


def simulated(trials: int, n: int, d: int) -> dict[str, list[intervals.Interval]]:
    """Every interval for so many pairs of sets from N(0, I) and N(0.4, 1.2^2 I) in d dimensions."""
    found: dict[str, list[intervals.Interval]] = {}
    for s in range(trials):
        real, fake = normal(n, d, 2 * s), normal(n, d, 2 * s + 1) * 1.2 + 0.4
        frechet = frechet_interval(fake, real)
        row = {"fd": frechet.plain, "fd_corrected": frechet.corrected, "kid": kid_interval(fake, real)}
        for key, one in (row | manifold_intervals(real, fake)).items():
            found.setdefault(key, []).append(one)
    return found


@pytest.mark.parametrize(("trials", "n", "d"), [(50, 120, 4), pytest.param(200, 400, 8, marks=pytest.mark.slow)])
def test_intervals_hold_the_truth_as_often_as_they_say(trials: int, n: int, d: int) -> None:
    """They hold it not seldomer than a true 95 % would in all but 1 of 10,000 runs, and are no wider than they need be.

    The distance of the two Gaussians, d (0.4^2 + 0.2^2), is the truth of the corrected Fréchet distance. What the others
    estimate, the mean over sets of these sizes, is that of all trials. Half widths lie within 0.75 and 1.5 of 1.96 spreads.
    """
    least = stats.binom.ppf(1e-4, trials, 0.95)
    for key, found in simulated(trials, n, d).items():
        values = torch.tensor([one.value for one in found])
        truth = d * (0.4**2 + 0.2**2) if key == "fd_corrected" else float(values.mean())
        times = sum(one.low <= truth <= one.high for one in found)
        half = sum(one.high - one.low for one in found) / trials / 2
        print(
            f"{key}: {times} of {trials}, half width {half / (intervals.Z * float(values.std())):.2f} of what is needed"
        )
        assert times >= least, (key, times)
        assert 0.75 < half / (intervals.Z * float(values.std())) < 1.5, (key, half)
