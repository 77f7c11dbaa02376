"""Scenes composed of icons: what stands where, what is said of it, and what is never learned from."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import sfumato
import sfumato.data
from sfumato.data import Source, icons, scenes
from sfumato.data.builtin import resize_all
from sfumato.data.colours import NAMES as COLOURS
from sfumato.data.scenes import FAINT, GROUNDS, Cut, Scene, Thing, compose

SIDE = 32
HUES = {"red": (220, 30, 30), "blue": (30, 60, 220), "green": (20, 150, 50), "black": (10, 10, 10)}


def drawing(k: int) -> np.ndarray:
    """A rectangle of its own size, place and colour on white, with a white hole that is no ground."""
    picture = np.full((SIDE, SIDE, 3), 255, np.uint8)
    left, top = 3 + k % 5, 2 + k % 7
    right, bottom = left + 12 + k % 9, top + 10 + k % 11
    picture[top:bottom, left:right] = [*HUES.values()][k % 4]
    picture[top + 3 : top + 6, left + 3 : left + 7] = 255
    return picture


def small_icons(given: str, size: int | None) -> Source:
    n, styles = 60, ("noto", "fluent-flat")
    labels = torch.arange(2 * n) % 2
    hues = [[*HUES][k // 2 % 4] for k in range(2 * n)]
    return Source(
        name=given,
        pixels=np.stack([drawing(k // 2) for k in range(2 * n)]),
        keys=tuple(f"{styles[k % 2]}/{k // 2}" for k in range(2 * n)),
        captions=[f"thing{k // 2}, shape, {hues[k]}, style" for k in range(2 * n)],
        columns={"colours": [[hue] for hue in hues], "alternatives": [[] for _ in range(2 * n)]},
        styles=styles,
        style_labels=labels,
        groups=tuple(f"glyph{k // 2}" for k in range(2 * n)),
    )


def small_icons_of_any_size(given: str, size: int | None) -> Source:
    source = small_icons(given, SIDE)
    return source.with_pixels(resize_all(source.pixels, size or SIDE))


@pytest.fixture(scope="module")
def source() -> Source:
    patch = pytest.MonkeyPatch()
    patch.setattr(icons, "load", small_icons)
    patch.setattr(scenes, "PLANNED", 300)
    yield sfumato.data.open("scenes:noto,fluent-flat", size=SIDE)
    patch.undo()


def test_the_ground_is_cut_away_and_holes_within_are_not() -> None:
    pixels = np.stack([drawing(k) for k in range(20)])
    spiral = np.full((SIDE, SIDE, 3), 255, np.uint8)
    for k in range(2, 14, 4):  # walls with doors at alternate ends: the ground winds its way in
        spiral[k, k:-1] = 0
        spiral[k + 2, 1:-k] = 0
    pale = np.full((SIDE, SIDE, 3), 255, np.uint8)
    pale[4:20, 4:20] = 240
    cut = Cut(np.concatenate([pixels, spiral[None], pale[None]]))
    assert (cut.darkness[:20] > FAINT).all() and cut.darkness[21] == 15
    shown = cut.rgba[:, 3] > 0
    for k in range(20):
        left, top = 3 + k % 5, 2 + k % 7
        assert cut.box[k].tolist() == [left, top, left + 12 + k % 9, top + 10 + k % 11]
        assert shown[k].sum() == (12 + k % 9) * (10 + k % 11)  # the hole among it
    assert torch.equal(shown[20], torch.from_numpy(spiral.sum(-1) == 0))


def test_a_thing_fills_its_box_and_nothing_else() -> None:
    cut = Cut(drawing(0)[None])
    picture = compose(Scene((Thing(0, (0.25, 0.5, 0.75, 1.0)),), "pale blue"), cut, 64)
    ground = compose(Scene((), "pale blue"), cut, 64)
    changed = (picture != ground).any(-1)
    assert changed[32:, 16:48].mean() > 0.95 and not changed[:32].any() and not changed[:, :16].any()
    assert picture[40, 17].tolist() == [*HUES["red"]]
    assert ground[0, 0].tolist() == [*bytes.fromhex(GROUNDS["pale blue"][0][1:])]


def test_icons_stay_as_they_are_and_scenes_are_the_same_alone_and_opened_again(source: Source) -> None:
    assert len(source) == 420 and np.array_equal(source.images(torch.tensor([7]))[0], drawing(3))
    rows = torch.tensor([419, 130, 5, 200])
    together = source.images(rows)
    for picture, row in zip(together, rows, strict=True):
        assert np.array_equal(source.images(row[None])[0], picture)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(icons, "load", small_icons)
        patch.setattr(scenes, "PLANNED", 300)
        again = sfumato.data.open("scenes:noto,fluent-flat", size=SIDE)
    assert np.array_equal(again.images(rows), together) and again.captions == source.captions
    part = source.take(rows)
    assert (
        np.array_equal(part.images(torch.arange(4)), together)
        and part.columns["boxes"][0] == source.columns["boxes"][419]
    )


def test_boxes_tell_where_things_are(source: Source) -> None:
    for row in range(120, 420):
        boxes, picture = source.columns["boxes"][row], source.images(torch.tensor([row]))[0].astype(int)
        outside = np.ones((SIDE, SIDE), bool)
        for x0, y0, x1, y1, _ in boxes:
            assert 0 <= x0 < x1 <= 1 and 0 <= y0 < y1 <= 1
            inside = (slice(round(y0 * SIDE), round(y1 * SIDE)), slice(round(x0 * SIDE), round(x1 * SIDE)))
            outside[
                max(0, inside[0].start - 1) : inside[0].stop + 1, max(0, inside[1].start - 1) : inside[1].stop + 1
            ] = False
            assert picture[inside].min() < 200, (row, boxes)
        assert picture[outside].min() >= 205  # pale ground


def test_captions_are_true(source: Source) -> None:
    counts, told = set(), set()
    for row in range(120, 420):
        boxes, caption = source.columns["boxes"][row], source.captions[row]
        names = [box[4] for box in boxes]
        first, ground, _ = caption.split(", ")
        counts.add(len(boxes))
        assert ground.removeprefix("on ") in GROUNDS
        assert all(name.split()[-1] in first for name in names)
        for name in names:
            for hue in set(name.split()) & set(COLOURS):
                assert f"{hue}" in source.captions[int(name.split()[-1].removeprefix("thing")) * 2]
        for how, axis, sign in (("left of", 0, -1), ("right of", 0, 1), ("above", 1, -1), ("below", 1, 1)):
            if f" {how} " in first:
                a, b = (part.removeprefix("a ").split()[-1] for part in first.split(f" {how} "))
                middle = {box[4].split()[-1]: box[axis] + box[2 + axis] for box in boxes}
                assert a == b or (middle[a] - middle[b]) * sign > 0
                told.add(how)
        if " times " in first:
            assert first.split()[0] == ("one", "two", "three", "four", "five")[len(boxes) - 1]
    assert counts == {1, 2, 3, 4, 5} and told == {"left of", "right of", "above", "below"}


def test_nothing_held_out_is_shown_and_layouts_are_held_out_too(source: Source) -> None:
    held = {kind: set(rows.tolist()) for kind, rows in source.holdout.items()}
    assert set(held) == {"glyphs", "pairs", "layouts"} and min(map(len, held.values())) > 0
    learned = set(source.train_index.tolist())
    assert learned.isdisjoint(set.union(*held.values())) and len(learned) + sum(map(len, held.values())) == len(source)
    shown = {row for things in source.columns["things"] if things for row in things}
    assert shown <= learned and min(held["layouts"]) >= 120 > max(held["glyphs"])
    styles = {int(source.style_labels[row]) for row in source.columns["things"][150]}
    assert styles == {int(source.style_labels[150])}


def test_the_recipe_of_the_drawing_model_goes_through_both_stages_and_goes_on(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(icons, "load", small_icons_of_any_size)
    monkeypatch.setattr(scenes, "PLANNED", 40)
    # what takes its time is tested elsewhere: the report, and the meter beside the training
    monkeypatch.setattr("sfumato.cli.train.build_report", lambda run, source: run.path / "report.html")
    monkeypatch.setattr("sfumato.cli.train.metering", lambda *about: None)
    recipe = runpy.run_path(str(Path(__file__).parents[1] / "recipes" / "drawing.py"))
    told = [
        "--sizes",
        "16",
        "32",
        "--set",
        "net.widths=[8,16]",
        "--set",
        "net.blocks=[1,1]",
        "--set",
        "net.attention=[1]",
    ]
    told += ["--set", "net.head=8", "--set", "net.embedding=32", "--set", "batch=8", "--hours", "0.001"]
    monkeypatch.setattr(sys, "argv", ["drawing.py", "--run", str(tmp_path), *told])
    command, called = recipe["main"].__globals__["sfumato"], []
    # times of its own are tested elsewhere, and take longer than all the rest of this
    recipe["main"].__globals__["sfumato"] = lambda said: (
        called.append(said[0]) or 0 if said[0] == "calibrate" else command(said)
    )
    assert recipe["main"]() == 0 and called == ["calibrate"]
    model = sfumato.load(tmp_path / "drawing.safetensors")
    slots = {spec.name for spec in model.denoiser.net.config.slots}
    assert slots == {"style", "text", "known", "lowres", "sketch", "boxes"} and model.codec.spec == (3, 32, 32)
    assert model.facts["half"]
    before = (tmp_path / "canvas" / "log.jsonl").read_bytes()
    assert recipe["main"]() == 0 and (tmp_path / "canvas" / "log.jsonl").read_bytes() == before  # nothing left to train
