"""Caption rules of a training from the icon set: each alone, drawn anew, from the caption's own stream."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from training import small_source, tiny_recipe, tiny_trainer

import sfumato
from sfumato.core import Noise, SfumatoError
from sfumato.data import Captions, encode, icons
from sfumato.data.captions import FILLER
from sfumato.data.colours import NAMES
from sfumato.data.source import Source
from sfumato.tasks import Model
from sfumato.train import Run

APPLE = "apple, fruit, diet, food and drink, red and green, flat style"


def many(rules: Captions, caption: str = APPLE, n: int = 300, others: tuple[str, ...] = ()) -> Counter[str]:
    return Counter(rules.change(caption, Noise([s]), others) for s in Noise.of(0, n).seeds)


def near(count: int, share: float, n: int = 300) -> bool:
    return abs(count / n - share) < 5 * (share * (1 - share) / n) ** 0.5


def test_phrases_are_left_away_but_never_the_first() -> None:
    seen = many(Captions(leave=0.5))
    phrases = Counter(p for caption, count in seen.items() for p in caption.split(", ") * count)
    assert phrases["apple"] == 300 and all(caption.startswith("apple") for caption in seen)
    assert all(near(phrases[p], 0.5) for p in APPLE.split(", ")[1:])
    assert len(seen) > 25, "each phrase by itself"
    assert set(many(Captions(leave=1.0))) == {"apple"}


def test_another_name_stands_for_the_first_phrase() -> None:
    seen = many(Captions(alternative=0.5), "apple, fruit", others=("Apfel", "pomme"))
    assert set(seen) == {"apple, fruit", "Apfel, fruit", "pomme, fruit"}
    assert near(seen["apple, fruit"], 0.5) and near(seen["pomme, fruit"], 0.25)
    assert many(Captions(alternative=1.0), "apple, fruit") == {"apple, fruit": 300}, "nothing is invented"
    assert set(many(Captions(alternative=1.0), "apple", others=("Apfel",))) == {"Apfel"}


def test_colours_come_before_the_noun() -> None:
    rules = Captions(colour_first=1.0)
    seen = many(rules)
    rest = "apple, fruit, diet, food and drink, flat style"
    assert set(seen) == {f"red and green {rest}", f"red {rest}"} and near(seen[f"red {rest}"], 0.5)
    for same in ("red apple, fruit, red and green", "apple, fruit", "apple, red wine, fruit", "red and green"):
        assert set(many(rules, same)) == {same}
    both = many(Captions(colour_first=1.0, alternative=1.0), others=("Apfel",))
    assert set(both) == {APPLE.replace("apple", "Apfel")}, "no English colour before a name of another language"


def test_the_first_phrase_may_stand_alone() -> None:
    first = APPLE.split(",")[0]
    assert set(many(Captions(alone=1.0))) == {first} and near(many(Captions(alone=0.3))[first], 0.3)


def test_commas_may_go() -> None:
    assert set(many(Captions(joined=1.0))) == {APPLE.replace(",", "")}


def test_filler_surrounds_the_whole_caption() -> None:
    seen = many(Captions(filler=1.0, filler_words=200))
    assert all(caption.count(APPLE) == 1 for caption in seen)
    before = [len(c.split(APPLE)[0].split()) for c in seen]
    words = [len(c.replace(APPLE, "").replace(".", " ").split()) for c in seen]
    assert max(words) <= 200 and max(words) > 150 and sum(w < 15 for w in words) > 100, (
        "short ones are as likely as long"
    )
    assert min(before) == 0 and max(before) > 60, "anywhere in it"
    assert near(300 - many(Captions(filler=0.3))[APPLE], 0.3)


def test_filler_words_show_nothing() -> None:
    assert len(FILLER) == len(set(FILLER)) > 250 and not set(FILLER) & {*NAMES, "style", "gray"}


def test_the_order_of_changes_makes_prompts_of_the_kind_people_write() -> None:
    rules = Captions(colour_first=1.0, leave=1.0, template=1.0, templates=("a {}",))
    assert set(many(rules)) == {"a red and green apple", "a red apple"}


@pytest.mark.parametrize("field", ["alone", "leave", "alternative", "colour_first", "joined", "filler"])
def test_probabilities_are_checked(field: str) -> None:
    with pytest.raises(SfumatoError, match=f"{field} must lie in 0 ... 1"):
        Captions(**{field: 1.5})
    with pytest.raises(SfumatoError, match="filler_words"):
        Captions(filler_words=0)


def test_the_rules_of_icons_vary_and_depend_on_the_stream_alone() -> None:
    seen = many(icons.CAPTIONS, others=("Apfel", "りんご"), n=200)
    assert len(seen) > 140 and "" not in seen
    assert 0.04 < sum(n for c, n in seen.items() if "Apfel" in c or "りんご" in c) / 200 < 0.30
    noise = Noise.of(3, 8)
    together = icons.CAPTIONS.changed([APPLE] * 8, noise, [["Apfel"]] * 8)
    alone = [icons.CAPTIONS.change(APPLE, Noise([s]), ["Apfel"]) for s in noise.seeds]
    assert together == alone and len(set(alone)) > 4


def test_an_alternative_that_is_no_text_is_refused() -> None:
    with pytest.raises(SfumatoError, match="alternatives"):
        Captions(alternative=1.0).changed(["apple"], Noise.of(0, 1), [[3]])


# the condition style


def styled() -> Source:
    source = small_source()
    n = len(source)
    return replace(
        source,
        captions=["a cat, black"] * n,
        columns={"alternatives": [["eine Katze"]] * n},
        styles=("ink", "oil"),
        style_labels=torch.arange(n) % 2,
    )


def test_style_and_text_are_dropped_apart_and_together() -> None:
    source = styled()
    recipe = tiny_recipe(source, condition_dropout=0.2, each_dropout=0.3, captions=Captions(alternative=1.0))
    assert {spec.name: spec.size for spec in recipe.net.slots}["style"] == 2
    rows = torch.zeros(1500, dtype=torch.int64)
    cond = recipe.look(source, rows, Noise.of(1, 1500)).cond
    style, text = cond["style"].mask, cond["text"].mask.any(1)
    for found, share in (
        (style & text, 0.392),
        (style & ~text, 0.168),
        (~style & text, 0.168),
        (~style & ~text, 0.272),
    ):
        assert near(int(found.sum()), share, 1500)
    assert torch.equal(cond["text"].value[0], encode(["eine Katze, black"])[0][0])
    again = recipe.look(source, rows[:7], Noise.of(1, 7)).cond
    assert torch.equal(again["style"].mask, style[:7]), "picture k alone, or in any batch"


def test_runs_and_models_tell_their_styles(tmp_path: Path) -> None:
    source = styled()
    trainer = tiny_trainer(2, source=source)
    run = Run(tmp_path / "run")
    run.begin(trainer.recipe, source, trainer.budget, trainer.setting)
    model = Model(trainer.denoiser, source.codec, run.describe())
    assert model.styles == ("ink", "oil")
    model.export(tmp_path / "model.safetensors")
    assert sfumato.load(tmp_path / "model.safetensors").styles == ("ink", "oil")
