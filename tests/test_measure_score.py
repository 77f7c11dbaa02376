"""What a result says: names, refusals, classes; and sets whose answers are known."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from sfumato.core import SfumatoError
from sfumato.measure import Classes, frechet_distance, kid, manifold, measure, metric_name, score, verdict
from sfumato.measure.pretext import blur
from sfumato.measure.score import refusals

SIDE = 4
WIDTH = SIDE * SIDE


@dataclass(frozen=True)
class Plain:
    """Pixels as features."""

    name: str = "pixels-4-v1"

    def __call__(self, x0: Tensor) -> Tensor:
        return x0.flatten(1)


def pictures(n: int, seed: int, centre: float = 0.0) -> Tensor:
    return torch.randn(n, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(seed)) * 0.2 + centre


def test_a_name_holds_all_that_a_number_depends_on() -> None:
    result = measure(pictures(60, 1), pictures(80, 2), Plain(), pictures(60, 3), split="set/validation")
    names = {row["key"]: row["name"] for row in result["metrics"]}
    assert names["kid"] == "kid[pixels-4-v1,n=60,ref=set/validation]"
    assert metric_name("kid", "pixels-4-v1", 60, "set/validation") == names["kid"]
    assert len(set(names.values())) == 7 and result["metrics"][0]["key"] == result["headline"] == "kid"
    assert metric_name("recall", "e", 9, "s", "cat") == "recall[e,n=9,ref=s,class=cat]"
    for row in result["metrics"]:
        assert row["low"] <= row["value"] <= row["high"] and row["floor_low"] <= row["floor"] <= row["floor_high"]
        assert row["value"] == result[row["key"]] and row["floor"] == result["floor"][row["key"]]


def test_the_old_keys_hold_the_plain_numbers() -> None:
    a, b = pictures(60, 1, 0.1), pictures(80, 2)
    result, x, y = measure(a, b, Plain()), a.flatten(1), b.flatten(1)
    assert (result["kid"], result["kid_se"]) == pytest.approx(tuple(kid(x, y)))
    assert result["fd"] == pytest.approx(frechet_distance(x, y))
    assert {k: result[k] for k in manifold(y, x)._asdict()} == pytest.approx(manifold(y, x)._asdict())
    assert "floor" not in result and "classes" not in result


def test_from_5000_pictures_on_the_frechet_distance_leads(monkeypatch: pytest.MonkeyPatch) -> None:
    assert score.MANY == 5000
    monkeypatch.setattr(score, "MANY", 60)
    for n, headline in ((59, "kid"), (60, "fd")):
        result = measure(pictures(n, 1), pictures(80, 2), Plain())
        assert result["headline"] == result["metrics"][0]["key"] == headline


@pytest.mark.parametrize(
    ("n", "gone"),
    [
        (16, {"fd", "fd_corrected", "precision", "recall", "density", "coverage"}),
        (31, {"fd", "fd_corrected", "precision", "recall", "density", "coverage"}),
        (32, {"precision", "recall", "density", "coverage"}),
        (50, set()),
    ],
)
def test_a_number_without_meaning_is_not_given(n: int, gone: set[str]) -> None:
    """Features of 16 dimensions: 32 pictures for a covariance, 50 for an overlap, on the smaller side."""
    for a, b in ((pictures(n, 1), pictures(90, 2)), (pictures(90, 1), pictures(n, 2))):
        result = measure(a, b, Plain(), pictures(90, 3))
        assert set(result["refused"]) == gone == set(refusals(n, WIDTH))
        assert {key for key in (*gone, "kid") if result[key] is None} == gone
        assert gone.isdisjoint(row["key"] for row in result["metrics"])
        told = " ".join(result["notes"])
        assert ("fd is not given" in told) == ("fd" in gone) and ("recall is not given" in told) == ("recall" in gone)
        for key in gone:
            enough = result["refused"][key]["enough"]
            assert key not in refusals(enough, WIDTH) and key in refusals(enough - 1, WIDTH)


def test_the_place_between_noise_and_real_pictures_survives_a_refusal() -> None:
    few = measure(pictures(20, 1), pictures(20, 2), Plain(), pictures(20, 3))
    bad = measure(pictures(20, 1, 0.5), pictures(20, 2), Plain(), pictures(20, 3))
    assert few["fd"] is None and few["place"] > bad["place"] > 0
    assert verdict((), few)[0].startswith("The samples are almost like real pictures: kernel distance ")


def test_one_half_against_the_other_is_a_floor() -> None:
    reference = pictures(200, 2)
    found = measure(pictures(60, 1), reference, Plain(), halves=True)
    assert found["floor"]["n"] == 100 and abs(found["floor"]["kid"]) < 4 * found["floor"]["kid_se"]
    reference[::2] += 3  # sorted sets must not fall into unlike halves
    mixed = measure(pictures(60, 1), reference, Plain(), halves=True)
    unlike = kid(reference[::2].flatten(1), reference[1::2].flatten(1)).value
    assert abs(mixed["floor"]["kid"]) < 0.05 * unlike
    assert "floor" not in measure(pictures(60, 1), reference[:31], Plain(), halves=True)


def labelled(n: int, kinds: int, seed: int) -> tuple[Tensor, Tensor]:
    """Far clusters, one a class."""
    label = torch.arange(n) % kinds
    x = pictures(n, seed)
    x[torch.arange(n), 0, label // SIDE, label % SIDE] += 30
    return x, label


def test_classes_are_scored_alone_or_say_what_would_do() -> None:
    (a, of_a), (b, of_b) = labelled(400, 4, 1), labelled(600, 4, 2)
    a[of_a == 1] = a[of_a == 1][:1]  # one class is a single picture again and again
    few = of_a != 2
    few[(of_a == 2).nonzero()[:20, 0]] = True
    a, of_a = a[few], of_a[few]
    of_a[of_a == 3] = -1
    result = measure(a, b, Plain(), split="s", classes=Classes(("a", "b", "c", "d"), of_a, of_b))
    rows = {row["class"]: row for row in result["classes"]}
    scores = {name: {m["key"]: m for m in rows[name]["metrics"]} for name in "ab"}
    assert scores["a"]["recall"]["value"] > 0.8 > 0.1 > scores["b"]["recall"]["value"]
    assert scores["b"]["kid"]["low"] > scores["a"]["kid"]["high"]
    assert scores["a"]["recall"]["name"] == "recall[pixels-4-v1,n=100,ref=s,class=a]"
    assert "has 20 generated (about 1,100 in all would do)" in rows["c"]["note"] and not rows["c"]["metrics"]
    assert "has 0 generated" in rows["d"]["note"]
    real, of_real = labelled(400, 4, 3)
    classes = Classes(("a", "b", "c", "d"), of_a, of_b, of_real)
    first = measure(a, b, Plain(), real, split="s", classes=classes)["classes"][0]["metrics"]
    seen, mine = b[of_b == 0].flatten(1), real[: len(a)][of_real[: len(a)] == 0].flatten(1)
    assert {m["key"]: m["floor"] for m in first} == pytest.approx(
        {"kid": kid(mine, seen).value} | {k: manifold(seen, mine)._asdict()[k] for k in ("precision", "recall")}
    )


def test_bad_pictures_are_named() -> None:
    good, nan = pictures(60, 1), pictures(60, 1)
    nan[7, 0, 0, 0] = float("nan")
    for a, b, words in (
        (good[:15], good, "15 generated pictures say nothing: 16"),
        (good, good[:3], "3 reference pictures"),
        (nan, good, "1 of the 60 generated pictures hold NaN"),
        (good, nan, "1 of the 60 reference pictures hold NaN"),
        (good, good.expand(-1, 3, -1, -1), "are grey, the reference colour"),
        (good, good[:, :, :3], "are 4x4, the reference 3x4"),
    ):
        with pytest.raises(SfumatoError, match=words):
            measure(a, b, Plain())


@pytest.mark.parametrize("missing", [1, 3, 7])
def test_missing_kinds_take_their_exact_share_of_recall_and_coverage(missing: int) -> None:
    """Ten far clusters, each drawn alike: recall and coverage are those of the clusters that are left, nothing else.

    What a kept cluster scores does not depend on the others, so the whole is the mean over clusters with 0 for each that
    is missing: exact, not to some tolerance.
    """
    (a, of_a), (b, of_b) = labelled(600, 10, 1), labelled(800, 10, 2)
    kept, seen = of_a >= missing, b.flatten(1)
    whole, part = manifold(seen, a.flatten(1)), manifold(seen, a[kept].flatten(1))
    alone = [manifold(seen[of_b == k], a[of_a == k].flatten(1)) for k in range(10)]
    for name in ("recall", "coverage"):
        each = [getattr(m, name) for m in alone]
        assert getattr(whole, name) == pytest.approx(sum(each) / 10)
        assert getattr(part, name) == pytest.approx(sum(each[missing:]) / 10)
    found = measure(a[kept], b, Plain())["metrics"]
    (recall,) = (row for row in found if row["key"] == "recall")
    assert recall["high"] < whole.recall, "the interval shuts out what all kinds would get"


def test_repeated_pictures_lower_recall_and_coverage_not_precision() -> None:
    real, fake = pictures(400, 1).flatten(1), pictures(400, 2).flatten(1)
    found = manifold(real, fake[:20].repeat(20, 1))
    fresh = manifold(real, fake)
    assert found.recall < 0.1 * fresh.recall and found.coverage < 0.3 * fresh.coverage


BIG = 8


def smooth(n: int, seed: int) -> Tensor:
    return blur(torch.randn(n, 1, BIG, BIG, generator=torch.Generator().manual_seed(seed)), 1.0) * 1.5


@pytest.mark.parametrize("way", ["blur", "noise", "mixed"])
def test_worse_pictures_never_score_better(way: str) -> None:
    """Five grades of each: KID and the Fréchet distance rise with every one, and the last loses precision or recall."""
    x, reference = smooth(500, 1), smooth(600, 2)
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(3))
    spoilt = {
        "blur": lambda g: blur(x, 0.3 * g) if g else x,
        "noise": lambda g: x + 0.15 * g * noise,
        "mixed": lambda g: (1 - 0.1 * g) * x + 0.1 * g * x.roll(1, 0),
    }[way]
    found = [measure(spoilt(g), reference, Plain()) for g in range(6)]
    for key in ("kid", "fd_corrected"):
        values = [f[key] for f in found]
        steps = [b - a for a, b in zip(values, values[1:], strict=False)]
        assert sum(step > 0 for step in steps) >= 4 and min(steps[1:]) > 0, (
            key,
            values,
        )  # the first may drown in noise
    assert found[5]["precision"] < found[0]["precision"] - 0.1 or found[5]["recall"] < found[0]["recall"] - 0.1
