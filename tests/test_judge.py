"""The judge of pictures and captions, on drawn shapes: obedient, deaf, colour-blind and styleless generators are told apart."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from coloured import COLOURS, NAMES, SHAPES, SIZE, STYLES, as_x0, coloured, drawn

from sfumato.core import SfumatoError
from sfumato.data import Source
from sfumato.measure import judge as room
from sfumato.measure.faithful import FILLER, LENGTH, PLACES, buried, colours_obeyed, faithfulness, relative
from sfumato.measure.intervals import Interval
from sfumato.measure.judge import Judge, judge_for, meanings, read

SEEN = 3000
torch.set_num_threads(1)


@pytest.fixture(scope="module")
def source() -> Source:
    return coloured()


@pytest.fixture(scope="module")
def judge(source: Source, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Judge]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SFUMATO_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setattr(room, "BATCH", 32)
        torch.manual_seed(3)
        before = torch.get_rng_state()
        made = judge_for(source, SEEN)
        assert torch.equal(torch.get_rng_state(), before)
        yield made


def asked(source: Source, rows: torch.Tensor) -> tuple[list[str], list[str]]:
    """What a generator is told: names and styles."""
    return [source.columns["name"][k] for k in rows.tolist()], [STYLES[k] for k in source.style_labels[rows].tolist()]


def test_its_own_accuracy_is_told_by_kind(judge: Judge, source: Source) -> None:
    assert set(judge.real) == {"trained on", "kept from it", "held out: glyphs", "held out: pairs"}
    assert judge.real["trained on"]["first"]["value"] > 0.95
    assert judge.real["kept from it"]["first"]["value"] > 0.9
    assert judge.real["kept from it"]["style"]["value"] > 0.95
    new = as_x0(
        drawn(*asked(source, rows := source.train_index[::3]), seed=77)
    )  # nor are these in its accuracy by chance
    own = [meanings(source)[k] for k in rows.tolist()]
    again = judge.first(new, own, meanings(source)).double().mean()
    assert abs(again - judge.real["kept from it"]["first"]["value"]) < 0.1


def test_what_it_learns_from_holds_no_held_out_glyph_and_all_pairs(source: Source) -> None:
    rows = room._rows(source, meanings(source))
    assert not set(rows.train.tolist()) & set(source.holdout["glyphs"].tolist())
    kept = set(rows.asked["kept from it"].tolist())
    assert kept and not kept & set(rows.train.tolist())
    assert set(source.holdout["pairs"].tolist()) <= set(rows.train.tolist()) | kept
    lone = coloured(copies=1)
    lone = lone.take(torch.arange(0, len(lone), 2))  # one picture of each text: none can be kept back
    bare = room._rows(lone, meanings(lone))
    assert "kept from it" not in bare.asked and len(bare.train) == len(lone) - len(lone.holdout["glyphs"])


def test_an_obedient_generator_scores_as_real_pictures_do(judge: Judge, source: Source) -> None:
    for rows in (source.train_index[::2], source.holdout["pairs"]):
        told = faithfulness(judge, as_x0(drawn(*asked(source, rows), seed=5)), source, rows)
        assert told["relative"]["value"] > 0.93 and told["style"]["value"] > 0.95
        assert told["first"]["low"] < told["first"]["value"] <= told["first"]["high"]
        assert told["n"] == len(rows) and told["chance"] == 1 / 50


def test_a_deaf_generator_scores_one_in_fifty(judge: Judge, source: Source) -> None:
    rows = source.train_index
    rng = np.random.default_rng(1)
    names, styles = (rng.choice(of, len(rows)).tolist() for of in (NAMES, STYLES))
    told = faithfulness(judge, as_x0(drawn(names, styles, seed=6)), source, rows)
    n, p = len(rows), 1 / 50
    assert abs(told["first"]["value"] - p) < 4 * (p * (1 - p) / n) ** 0.5
    assert abs(told["style"]["value"] - 0.5) < 4 * (0.25 / n) ** 0.5


def test_grey_noise_shows_nothing(judge: Judge, source: Source) -> None:
    rows = source.train_index
    x0 = torch.randn(len(rows), 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0)).clamp(-1, 1)
    assert faithfulness(judge, x0, source, rows)["first"]["value"] < 0.1


def test_the_wrong_style_is_found_though_the_shape_is_right(judge: Judge, source: Source) -> None:
    rows = source.train_index[::2]
    names, styles = asked(source, rows)
    other = [STYLES[1 - STYLES.index(s)] for s in styles]
    told = faithfulness(judge, as_x0(drawn(names, other, seed=7)), source, rows)
    assert told["style"]["value"] < 0.05 and told["relative"]["value"] > 0.9


def test_wrong_colours_are_found(judge: Judge, source: Source) -> None:
    rows = source.train_index[::2]
    names, styles = asked(source, rows)
    turned = dict(zip(COLOURS, [*list(COLOURS)[1:], next(iter(COLOURS))], strict=True))
    wrong = [" ".join((turned[n.split()[0]], n.split()[1])) for n in names]
    wanted, objects = ([n.split()[k] for n in names] for k in (0, 1))
    right, off = (as_x0(drawn(n, ["filled"] * len(n), seed=8)) for n in (names, wrong))
    assert all(told.value == 1 for told in colours_obeyed(right, wanted, objects))
    assert all(told.value == 0 for told in colours_obeyed(off, wanted, objects))
    assert faithfulness(judge, off, source, rows)["first"]["value"] < 0.2
    half = torch.where(torch.arange(len(rows))[:, None, None, None] % 2 == 0, right, off)
    assert colours_obeyed(half, wanted, objects)[0].value == pytest.approx(0.5, abs=0.01)
    assert colours_obeyed(torch.ones_like(right), wanted, objects)[0].value == 0  # nothing but the ground


def test_a_colour_counts_from_a_fifth_of_the_object_and_first_when_it_is_most() -> None:
    x0 = torch.ones(3, 3, SIZE, SIZE)
    for picture, red in zip(x0, (1, 4, 9), strict=True):  # of ten rows, the rest blue
        picture[:, 3:13, 3:13] = torch.tensor([-0.7, -0.45, 0.7])[:, None, None]
        picture[:, 3 : 3 + red, 3:13] = torch.tensor([0.73, -0.76, -0.76])[:, None, None]
    named, most = ([colours_obeyed(x, ["red"], ["box"])[k].value for x in x0.split(1)] for k in (0, 1))
    assert named == [0, 1, 1] and most == [0, 0, 1]


def test_intervals_count_texts_and_not_copies_of_a_picture() -> None:
    few = room.shares(torch.tensor([True, False] * 50), ["a", "b"] * 50)
    many = room.shares(torch.tensor([True, False] * 50), [str(k) for k in range(100)])
    assert few.value == many.value == 0.5 and few.high - few.low > 3 * (many.high - many.low)
    assert relative(Interval(0.4, 0.3, 0.5), 0.8) == pytest.approx((0.5, 0.375, 0.625))
    assert relative(Interval(0.4, 0.3, 0.5), 0.0) is None


def test_others_are_the_same_for_every_set_of_pictures_and_never_the_own_text(judge: Judge, source: Source) -> None:
    """With vectors planted by hand the right answer is known: the own text wins, loses to one other, or ties."""
    pool = sorted(set(meanings(source)))
    own = [pool[k % len(pool)] for k in range(200)]
    vectors = dict(zip(pool, torch.eye(len(pool)), strict=True))

    class Planted(Judge):
        def pictures(self, x0):
            return torch.stack([vectors[o] for o in own]) * x0.mean((1, 2, 3))[:, None]

        def texts(self, texts):
            return torch.stack([vectors[t] for t in texts])

    planted = Planted("p", "", (3, 2, 2), (), {}, 0.0, judge.net)
    assert planted.first(torch.ones(200, 3, 2, 2), own, pool).all()
    assert not planted.first(torch.zeros(200, 3, 2, 2), own, pool).any()  # all alike: a tie is lost
    assert not planted.first(-torch.ones(200, 3, 2, 2), own, pool).any()
    part = planted.first(torch.ones(200, 3, 2, 2), own, pool + pool, among=2)
    assert part.all()
    with pytest.raises(SfumatoError, match="50 texts"):
        planted.first(torch.ones(1, 3, 2, 2), [pool[0]], pool[:40])
    with pytest.raises(SfumatoError, match="right ones among them"):
        planted.first(torch.ones(1, 3, 2, 2), ["no such text"], pool)


def test_cached_by_pictures_texts_and_what_is_held_out(judge: Judge, source: Source) -> None:
    x = as_x0(drawn(NAMES[:8], ["filled"] * 8, seed=1))
    again = judge_for(source, SEEN)
    assert again.seconds == judge.seconds and again.real == judge.real
    assert torch.equal(again.pictures(x), judge.pictures(x)) and torch.equal(again.style(x), judge.style(x))
    known = room._identity(source, meanings(source), SEEN)
    assert known == judge.fingerprint
    others = (
        replace(source, style_labels=1 - source.style_labels),
        replace(source, groups=tuple(f"{g}!" for g in source.groups)),
        replace(source, pixels=source.pixels[::-1].copy()),
    )
    prints = {room._identity(other, meanings(source), SEEN) for other in others}
    prints |= {room._identity(source, [f"{m}!" for m in meanings(source)], SEEN), room._identity(source, ["x"], 1)}
    assert len(prints) == 5 and known not in prints
    (weights,) = room.shared.cache_folder().glob("judge-*.safetensors")
    assert weights.with_suffix(".json").exists()


def test_meanings_leave_style_and_colour_out(source: Source) -> None:
    assert meanings(source)[0] == f"{NAMES[0]}, red, circle" and SHAPES[0] == "circle"
    assert meanings(replace(source, columns={}))[0] == f"a {NAMES[0]}, filled"
    assert meanings(replace(source, columns={"name": source.columns["name"]}))[0] == NAMES[0]
    with pytest.raises(SfumatoError, match="no captions"):
        meanings(replace(source, columns={}, captions=None))


def test_a_text_is_the_mean_of_its_words_whatever_their_order(judge: Judge) -> None:
    texts = read(["red apple, fruit", "?!", ""])
    assert texts.count == 3 and set(texts.row.tolist()) == {0, 1, 2}
    total = torch.zeros(3).index_add_(0, texts.row, texts.weights)
    assert total.tolist() == pytest.approx([3.0, 2.0, 1.0])  # a word weighs 1, however many letters it has
    one, two, three = judge.texts(["red circle", "circle RED", "blue bar"])
    assert torch.allclose(one, two, atol=1e-6) and not torch.allclose(one, three, atol=0.1)
    assert one.norm() == pytest.approx(1, abs=1e-5)


def test_dropping_phrases_never_empties_a_text() -> None:
    texts = read(["name, one, two, three"] * 500)
    kept = room._dropped(texts, torch.Generator().manual_seed(0))
    left = torch.zeros(500).index_add_(0, kept.row, kept.weights)
    assert left.min() > 0
    name = texts.phrase % 4 == 0
    names, others = ((kept.weights[where] > 0).float().mean() for where in (name, ~name))
    assert 0.85 < names < 0.97 and 0.42 < others < 0.58


@pytest.mark.parametrize("place", PLACES)
def test_the_fact_stands_where_it_should(place: int) -> None:
    words = buried("a red apple", place, seed=place).split()
    assert len(words) == LENGTH and words[place - 1 : place + 2] == ["a", "red", "apple"]
    assert " ".join(words).count("red apple") == 1
    elsewhere = {w.strip(".,").lower() for line in FILLER for w in line.split()}
    assert not elsewhere & {"red", "apple", *COLOURS, *SHAPES}
    assert buried("x", place, seed=1) != buried("x", place, seed=2)


def test_mistakes_are_named(judge: Judge, source: Source) -> None:
    rows = source.train_index[:4]
    with pytest.raises(SfumatoError, match="4 captions"):
        faithfulness(judge, torch.zeros(3, 3, SIZE, SIZE), source, rows)
    with pytest.raises(SfumatoError, match="NaN"):
        judge.pictures(torch.full((1, 3, SIZE, SIZE), float("nan")))
    with pytest.raises(SfumatoError, match="judges pictures"):
        judge.pictures(torch.zeros(1, 3, 8, 8))
    with pytest.raises(SfumatoError, match="too few"):
        judge_for(source.take(torch.arange(40)))
    with pytest.raises(SfumatoError, match="cannot begin"):
        buried("a b", 1050)
