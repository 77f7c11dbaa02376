"""The benchmark of text to picture: prompts, joined conditions, the store, sheets, tables, and the peer that goes on."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from coloured import NAMES, STYLES, as_x0, coloured, drawn
from PIL import Image
from training import FLOAT32, TINY, tiny_recipe

from benchmarks import common, tables, text_models, text_peer, text_prompts, text_sheets, text_tables, text_to_picture
from benchmarks.text_models import Ours, Store, joined
from sfumato.core import Cond, Slot
from sfumato.data import Source, colours
from sfumato.data.open import open as open_source
from sfumato.measure import judge as judge_room
from sfumato.measure.judge import meanings
from sfumato.tasks import Request, generate
from sfumato.train import Budget, Run, Trainer, fit

OPTIONS = {"steps": 3, "guidance": 2.0}


@pytest.fixture(scope="module")
def source() -> Source:
    return coloured()


@pytest.fixture(scope="module")
def run(source: Source, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny run on captions, a few steps long, whose weights are then shaken so that every condition matters."""
    torch.manual_seed(0)
    recipe = tiny_recipe(source, net=TINY, conditions=("text", "style"))
    trainer = Trainer(recipe.build(), recipe, source, Budget(steps=3), FLOAT32)
    folder = Run(tmp_path_factory.mktemp("run") / "tiny")
    folder.begin(recipe, source, trainer.budget, trainer.setting)
    for _ in fit(folder, trainer, reports=3):
        pass
    return folder.path


@pytest.fixture
def ours(run: Path) -> Ours:
    made = Ours(run, OPTIONS)
    generator = torch.Generator().manual_seed(1)
    for p in made.model.denoiser.parameters():
        p.data += 0.2 * torch.randn(p.shape, generator=generator)
    return made


def test_a_picture_is_what_generate_draws_for_its_prompt_alone(ours: Ours) -> None:
    prompts = ["a red circle", "a very long caption of a blue cross among many more words", "green"]
    styles = ["outline", None, "filled"]
    together = ours.draw(prompts, styles, seed=4, first=7)
    for k, (prompt, style) in enumerate(zip(prompts, styles, strict=True)):
        alone = generate(ours.model, Request(n=1, seed=4, first=7 + k, prompt=prompt, style=style, **OPTIONS)).x0
        assert torch.allclose(together[k : k + 1], alone, atol=1e-4)
    assert not torch.allclose(ours.draw(prompts, ["filled", None, "filled"], 4, 7)[:1], together[:1], atol=1e-2)
    assert not torch.allclose(ours.draw(["x"] * 3, [None] * 3, 4, 7), together, atol=1e-2)  # the prompt matters


def test_joined_conditions_are_padded_and_masked() -> None:
    def one(n: int, label: int) -> Cond:
        tokens = Slot(torch.full((1, n, 2), label), "tokens", torch.ones(1, n, dtype=torch.bool))
        return Cond({"text": tokens, "style": Slot(torch.tensor([label]), "vector")})

    both = joined([one(2, 5), one(4, 6)])
    assert both["text"].value[:, :, 0].tolist() == [[5, 5, 0, 0], [6, 6, 6, 6]]
    assert both["text"].mask.tolist() == [[True, True, False, False], [True] * 4]
    assert both["style"].value.tolist() == [5, 6] and both["style"].mask.all()


class Painter:
    """A model that draws whatever its prompt names, and counts."""

    facts: dict[str, Any] = {"kind": "planted", "parameters": 1, "training": {}, "drawn": {}}
    identity = "painter"

    def __init__(self, stops_after: int = 10**9) -> None:
        self.calls, self.stops_after = 0, stops_after

    def draw(self, prompts, styles, seed, first=0):
        if self.calls >= self.stops_after:
            raise KeyboardInterrupt
        self.calls += 1
        names = [next((n for n in NAMES if n in prompt), NAMES[0]) for prompt in prompts]
        return as_x0(drawn(names, [s or STYLES[0] for s in styles], seed + first))


def test_what_is_drawn_is_kept_and_a_stop_loses_nothing(source: Source, tmp_path: Path) -> None:
    asked = text_prompts.of_rows(source, torch.arange(2 * text_models.CHUNK + 5))
    whole = Store(tmp_path / "a").pictures(Painter(), asked, 0)
    store, stopped, later = Store(tmp_path / "b"), Painter(2), Painter()
    with pytest.raises(KeyboardInterrupt):
        store.pictures(stopped, asked, 0)
    assert torch.equal(store.pictures(later, asked, 0), whole) and later.calls == 1
    assert whole.shape == (len(asked), 3, 16, 16)
    again = Painter(0)
    assert torch.equal(store.pictures(again, asked, 0), whole)
    other = Painter()
    other.identity = "another"
    store.pictures(other, asked, 0)
    assert other.calls == 3
    store.pictures(later, asked, 1)
    assert later.calls == 4  # another seed is drawn anew


def test_rows_asked_for_are_of_their_kind(source: Source) -> None:
    found = text_prompts.kinds(source, 30)
    assert set(found) == {"seen", "glyphs", "pairs"}
    held = set(source.validation_index.tolist())
    assert len(found["seen"]) == 30 and not held & set(found["seen"].rows.tolist())
    for kind in ("glyphs", "pairs"):
        assert set(found[kind].rows.tolist()) <= set(source.holdout[kind].tolist())
    for asked in found.values():
        for prompt, style, row in zip(asked.prompts, asked.styles, asked.rows.tolist(), strict=True):
            assert source.captions[row] == prompt and STYLES[source.style_labels[row]] == style


def test_long_prompts_hold_the_name_at_its_place_and_colours_every_pair(source: Source) -> None:
    long = text_prompts.long(source, 4)
    assert list(long) == ["alone", "word 5", "word 100", "word 500", "word 1000"]
    for name, prompt, said in zip(
        long["alone"].prompts, long["word 500"].prompts, long["alone"].about["said"], strict=True
    ):
        assert prompt.split()[499 : 499 + len(name.split())] == name.split() and said in meanings(source)
    names = list(source.columns["name"])
    names[int(source.train_index[0])] += " car"
    asked = text_prompts.colours(replace(source, columns={"name": names}), 40)
    assert asked.prompts == [f"{colour} car" for colour in text_prompts.COLOURS]
    assert set(asked.about["colour"]) <= set(colours.NAMES) and "white" not in asked.about["colour"]
    assert text_prompts.plain(asked).prompts == ["car"] * len(asked)


def test_shown_pictures_are_trained_or_held_out_as_told(source: Source) -> None:
    seen = text_prompts.shown_seen(source)
    assert len(seen) == 8 * len(STYLES) and seen.styles == list(STYLES) * 8
    train = {(source.columns["name"][k], STYLES[source.style_labels[k]]) for k in source.train_index.tolist()}
    assert set(zip(seen.prompts, seen.styles, strict=True)) <= train
    assert len(text_prompts.shown_pairs(source)) == 24
    assert len(set(text_prompts.shown_unseen(source).prompts)) == 24


def test_a_sheet_shows_every_picture_with_ink_below() -> None:
    reds = [Image.new("RGB", (16, 16), (200, 10 * k, 0)) for k in range(4)]
    page = np.asarray(
        text_sheets.sheet([[a, b] for a, b in zip(reds[:2], reds[2:], strict=True)], ["one", "two " * 40], 2)
    )
    shown = {tuple(c) for c in page.reshape(-1, 3).tolist()}
    assert {(200, 10 * k, 0) for k in range(4)} <= shown
    side = text_sheets.SIDE
    below = page[text_sheets.GAP + side :, :]
    assert (below.min(2) < 100)[:, : 2 * side].any() and (below.min(2) < 100)[:, 2 * side + 20 :].any()
    with pytest.raises(ValueError, match="1 groups"):
        text_sheets.sheet([reds], [], 2)


@pytest.fixture
def bench(source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> text_to_picture.Bench:
    """Extractor and judge are untrained: here it only matters that what they say arrives."""
    monkeypatch.setattr("sfumato.measure.features._train", lambda *a: None)
    net = judge_room._build((3, 16, 16), 2).eval()
    real = {"trained on": {"n": 9, "first": {"value": 0.91, "low": 0.8, "high": 0.95}}}
    judge = judge_room.Judge("judge", "", (3, 16, 16), STYLES, real, 1.0, net)
    monkeypatch.setattr(text_to_picture, "ENOUGH", 16)
    numbers = {"rows": 40, "colours": 8, "long": 4}
    return text_to_picture.Bench(Painter(), source, judge, Store(tmp_path), numbers, tmp_path / "sheets")


def test_every_part_is_measured_and_the_tables_say_what_was(bench: text_to_picture.Bench, tmp_path: Path) -> None:
    parts = {name: text_to_picture.RUN_PART[name](bench) for name in ("rows", "long", "speed", "sheets")}
    rows = parts["rows"]
    assert [one["n"] for one in rows.values()] == [40, len(bench.source.holdout["glyphs"]), 40]
    part = {"value": 0.875, "low": 0.5, "high": 0.99}
    rows["seen"]["relative"] = part
    assert rows["pairs"]["quality"]["copies"]["share"] < 0.9 and "kid" in rows["pairs"]["quality"]
    assert parts["long"]["word 1000"] == parts["long"]["alone"]  # the painter finds the name wherever it stands
    model = {"role": "run", **Painter.facts, "parts": parts}
    told = {"name": bench.judge.name, "seconds": 1.0, "real": bench.judge.real, "chance": 1 / 50}
    common.write("text_to_picture", common.envelope(models={"planted": model}, judge=told, commands=["x"]), tmp_path)
    for table in text_tables.TABLES:
        shown = tables.render(table, tmp_path)
        assert "planted" in shown or table in ("text_judge", "text_sheets")
    assert "**0.88** (0.50 to 0.99)" in tables.render("text_faithful", tmp_path)
    assert "**0.91** (0.80 to 0.95)" in tables.render("text_judge", tmp_path)
    assert (bench.sheets / "text_to_picture_pairs.png").exists()
    slow = {**parts, "speed": {"grid_of_four": common.spread([9.0])}}
    aims = text_tables.aims({"models": {"planted": {**model, "parts": slow}}})
    line = next(line for line in aims.splitlines() if "grid of four" in line)
    assert "9.000" in line and "**no**" in line
    seen = next(line for line in aims.splitlines() if "seen captions, relative" in line)
    assert "0.875" in seen and "**no**" in seen


def peer_facts(source: Source) -> dict[str, Any]:
    facts = {"rate": 1e-3, "batch": 8, "precision": "float32", "seed": 0, "widths": [8, 8, 16, 16], "size": 16}
    return facts | {"channels": 3, "styles": list(source.styles), "source": "coloured"}


def test_the_peer_goes_on_after_a_stop_as_if_there_were_none(source: Source, tmp_path: Path) -> None:
    through = text_peer.Trainer(peer_facts(source), source)
    losses = [through.train_step() for _ in range(3)]
    stopped = text_peer.Trainer(peer_facts(source), source)
    assert stopped.train_step() == losses[0]
    stopped.save(tmp_path / text_peer.FILE, 60.0)
    later = text_peer.Trainer(peer_facts(source), source)
    assert later.load(tmp_path / text_peer.FILE) == 60.0
    assert [later.train_step() for _ in range(2)] == losses[1:]
    for a, b in zip(through.net.parameters(), later.net.parameters(), strict=True):
        assert torch.equal(a, b)
    for a, b in zip(through.ema.shadow_params, later.ema.shadow_params, strict=True):
        assert torch.equal(a, b)


def test_the_peer_draws_by_its_prompt_and_alone_as_in_a_batch(
    source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text_peer, "STEPS", 3)
    trainer = text_peer.Trainer(peer_facts(source), source)
    trainer.train_step()
    generator = torch.Generator().manual_seed(0)
    for p in trainer.ema.shadow_params:
        p += 0.1 * torch.randn(p.shape, generator=generator)
    trainer.save(tmp_path / text_peer.FILE, 1.0)
    peer = text_models.open_model(tmp_path, OPTIONS)
    assert isinstance(peer, text_peer.Peer) and peer.facts["training"]["images"] == 8
    both = peer.draw(["a red circle", "a blue bar of many words"], ["filled", None], 3, first=2)
    assert torch.allclose(peer.draw(["a blue bar of many words"], [None], 3, first=3), both[1:], atol=1e-3)
    assert not torch.allclose(peer.draw(["green", "green"], ["filled", None], 3, first=2), both, atol=1e-3)
    assert not torch.allclose(peer.draw(["a red circle"], ["outline"], 3, first=2), both[:1], atol=1e-3)


def test_the_peers_weights_are_as_many_as_ours() -> None:
    widths = text_peer.fitting_widths(5e6, 64, 3, 5)
    with torch.device("meta"):
        count = sum(p.numel() for p in text_peer.build_net(widths, 64, 3, 5).parameters())
    assert abs(count / 5e6 - 1) < 0.2


def test_word_ids_of_empty_captions_leave_attention_one_place() -> None:
    ids, mask = text_peer.word_ids(["", "red " * 500])
    assert ids.shape == (2, text_peer.WORDS) and mask[0].sum() == 1 and mask[1].all() and (ids[1] == ids[1, 0]).all()


def test_a_run_is_measured_and_an_interrupted_benchmark_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "shapes"
    folder.mkdir()
    names, styles = [n for n in NAMES[:24] for _ in range(6)], [STYLES[k % 2] for k in range(24 * 6)]
    rows = []
    for k, (name, style, pixels) in enumerate(zip(names, styles, drawn(names, styles, 0), strict=True)):
        Image.fromarray(pixels).save(folder / f"{k}.png")
        rows.append(json.dumps({"file_name": f"{k}.png", "text": f"a {name}", "name": name, "style": style}))
    (folder / "metadata.jsonl").write_text("\n".join(rows))
    source = open_source(folder, 16)
    assert source.styles == STYLES
    recipe = tiny_recipe(source, net=TINY, conditions=("text", "style"))
    trainer = Trainer(recipe.build(), recipe, source, Budget(steps=2), FLOAT32)
    run = Run(tmp_path / "run")
    run.begin(recipe, source, trainer.budget, trainer.setting)
    for _ in fit(run, trainer, reports=2):
        pass

    monkeypatch.setenv("SFUMATO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(judge_room, "LEAST_SEEN", 128)
    monkeypatch.setattr(judge_room, "EPOCHS", 1)
    monkeypatch.setattr("sfumato.measure.features._train", lambda *a: None)  # an untrained extractor is one too
    order = {"label": "tiny", "role": "run", "path": str(run.path), "source": str(folder), "options": OPTIONS}
    order |= {"numbers": {"rows": 20, "colours": 9, "long": 2}, "work": str(tmp_path), "results": str(tmp_path)}
    first = text_to_picture.measure_model(order | {"parts": ["rows"]})
    assert first["parts"]["rows"]["seen"]["n"] == 20 and first["training"]["step"] == 2

    def never(*args: Any) -> None:
        raise AssertionError("drawn again")

    with monkeypatch.context() as patch:
        patch.setattr(Ours, "draw", never)
        again = text_to_picture.measure_model(order | {"parts": ["rows"]})
        assert again == first
        patch.setattr(judge_room, "VERSION", "v0")  # another judge measures again, from the pictures that are kept
        assert text_to_picture.measure_model(order | {"parts": ["rows"]})["parts"]["rows"]["seen"]["n"] == 20
        with pytest.raises(AssertionError, match="drawn again"):
            text_to_picture.measure_model(order | {"parts": ["rows", "sheets"]})
    whole = text_to_picture.measure_model(order | {"parts": ["rows", "sheets"]})
    data = common.read("text_to_picture", tmp_path)
    assert data["models"]["tiny"] == json.loads(json.dumps(whole)) and set(whole["parts"]) == {"rows", "sheets"}
    assert (tmp_path / "grids" / "tiny" / "text_to_picture_seen.png").exists()
    assert "tiny" in text_to_picture.summary(data) and "images/text_to_picture_seen.png" in text_tables.sheets(data)
    assert text_tables.pictures(tmp_path, tmp_path / "images")
    text_to_picture.cold(order)
    assert Image.open(tmp_path / "cold.png").size == (16, 16)
