"""The benchmark of layouts: its measures on pictures whose truth is known, the command on tiny models, its tables."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from coloured import coloured
from training import TINY, shaken_model

from benchmarks import common, layouts, layouts_seen, layouts_tables, tables
from benchmarks.canvas_peers import pixels
from sfumato.core import SfumatoError
from sfumato.data import Source
from sfumato.data.canvas import Controls
from sfumato.data.layout import Box, layout_of, read_layout
from sfumato.tasks import Model
from sfumato.tasks.layout import layout

RED, BLUE = torch.tensor([1.0, -1.0, -1.0]), torch.tensor([-1.0, -1.0, 1.0])
LEFT, RIGHT = Box(0.125, 0.25, 0.375, 0.75, "red"), Box(0.625, 0.25, 0.875, 0.75, "blue")


def scene(*things: tuple[Box, torch.Tensor], size: int = 64) -> torch.Tensor:
    """Plain rectangles on a pale ground that runs from above to below."""
    run = torch.linspace(0.6, 0.9, size).reshape(1, -1, 1)
    x = (torch.tensor([0.8, 1.0, 1.1]).reshape(3, 1, 1) * run).repeat(1, 1, size)
    for box, colour in things:
        x0, y0, x1, y1 = (round(v * size) for v in box[:4])
        x[:, y0:y1, x0:x1] = colour.reshape(3, 1, 1)
    return x


class Colours:
    """A judge that knows two colours, and the ground: nearness to their shares among the pixels."""

    spec = (3, 32, 32)

    def pictures(self, x0: torch.Tensor) -> torch.Tensor:
        assert x0.shape[1:] == self.spec
        near = torch.stack(
            [((x0 - c.reshape(3, 1, 1)).abs().amax(1) < 0.5).float().mean((1, 2)) for c in (RED, BLUE)], 1
        )
        return torch.cat([near, torch.full((len(near), 1), 0.1)], 1)

    def texts(self, texts: list[str]) -> torch.Tensor:
        return torch.eye(3)[[["red", "blue", "none"].index(t) for t in texts]]

    def first(self, x0, own, pool, among, seed=0):
        names = ["red", "blue", "none"]
        return self.pictures(x0).argmax(1) == torch.tensor([names.index(o) for o in own])


def found(x: torch.Tensor, boxes: tuple[Box, ...]) -> list[bool]:
    own = [[box.text for box in boxes]]
    return layouts_seen.found(Colours(), ["red", "blue", "none"], x[None], [boxes], own, 3).tolist()


def test_the_right_thing_in_its_own_box():
    both = (LEFT, RIGHT)
    assert found(scene((LEFT, RED), (RIGHT, BLUE)), both) == [True, True]
    assert found(scene((LEFT, BLUE), (RIGHT, RED)), both) == [False, False]
    assert found(scene((LEFT, RED)), both) == [True, False]


def test_a_crop_keeps_proportions_on_the_ground():
    x = scene((LEFT, RED))
    part = layouts_seen.crops(x, [LEFT], (32, 32))[0]
    red = ((part - RED.reshape(3, 1, 1)).abs().amax(0) < 0.2).nonzero()
    height, width = (red.amax(0) - red.amin(0) + 1).tolist()
    assert height == round(32 * (1 - 2 * layouts_seen.ROOM)) and width == height // 2
    assert (part[:, 16, 0] - layouts_seen.ground(x, [LEFT]).mean((1, 2))).abs().max() < 1e-5


def test_the_ground_is_seen_behind_the_things():
    x = scene((LEFT, RED), (RIGHT, BLUE))
    assert (layouts_seen.ground(x, (LEFT, RIGHT))[..., 0] - scene()[..., 0]).abs().max() < 1e-4
    everything = Box(0.0, 0.0, 1.0, 1.0, "red")
    assert torch.isfinite(layouts_seen.ground(x, [everything])).all()


@pytest.mark.parametrize(
    ("fault", "right"),
    [
        ("none", True),
        ("one missing", False),
        ("one more", False),
        ("a speck", True),
        ("much too small", False),
        ("beside its box", False),
        ("another ground", True),
    ],
)
def test_the_count(fault, right):
    things = [(LEFT, RED), (RIGHT, BLUE)]
    if fault == "one missing":
        things.pop()
    if fault == "one more":
        things.append((Box(0.4, 0.8, 0.6, 0.95, ""), RED))
    if fault == "a speck":
        things.append((Box(0.48, 0.48, 0.53, 0.53, ""), RED))
    if fault == "much too small":
        things[0] = (Box(0.2, 0.4, 0.3, 0.6, ""), RED)
    if fault == "beside its box":
        things[0] = (Box(0.35, 0.25, 0.6, 0.75, ""), RED)
    x = scene(*things)
    if fault == "another ground":
        x = torch.where((x == scene()).all(0), -x / 2, x)
    assert layouts_seen.counted(x, (LEFT, RIGHT)) == right


def test_where_two_things_stand():
    above, below = Box(0.3, 0.05, 0.6, 0.35, "red"), Box(0.35, 0.6, 0.65, 0.9, "blue")
    assert layouts_seen.stands((LEFT, RIGHT)) == (0, -1) and layouts_seen.stands((RIGHT, LEFT)) == (0, 1)
    assert layouts_seen.stands((above, below)) == (1, -1) and layouts_seen.stands((below, above)) == (1, 1)
    x = torch.stack([scene((LEFT, RED), (RIGHT, BLUE)), scene((above, BLUE), (below, RED))])
    places = layouts_seen.located(Colours(), x, [("red", "blue")] * 2)
    truth = torch.tensor([[[0.25, 0.5], [0.75, 0.5]], [[0.5, 0.75], [0.45, 0.2]]])
    assert (places - truth).abs().max() < 0.2
    asked = [layouts_seen.stands((LEFT, RIGHT)), layouts_seen.stands((above, below))]
    assert layouts_seen.standing(places, asked).tolist() == [True, False]
    near = torch.tensor([[[0.5, 0.5], [0.55, 0.5]]])
    assert layouts_seen.standing(near, [(0, -1)]).tolist() == [False]  # too near to tell


def test_the_examples_of_the_docs_are_layouts():
    told = {path.stem: read_layout(path) for path in layouts.EXAMPLES.glob("*.json")}
    assert "house" in told and all(len(one.boxes) >= 2 for one in told.values())
    page = (layouts.EXAMPLES.parent / "layouts.md").read_text()
    assert all(f"(layouts/{name}.json)" in page for name in told)
    first, schema = (json.loads(block) for block in re.findall(r"```json\n(.*?)```", page, re.DOTALL))
    assert [box.text for box in layout_of(first).boxes] == ["evergreen tree", "house", "sun"]
    most = schema["properties"]["boxes"]["maxItems"]
    one = {"box": [0, 0, 1, 1], "text": "cat"}
    for n, side in ((1, schema["properties"]["width"]["minimum"]), (most, schema["properties"]["width"]["maximum"])):
        layout_of({"width": side, "height": side, "boxes": [one] * n})
    for n, side in ((most + 1, 64), (0, 64), (1, 0), (1, schema["properties"]["width"]["maximum"] + 1)):
        with pytest.raises(SfumatoError):
            layout_of({"width": side, "height": side, "boxes": [one] * n})


@pytest.fixture(scope="module")
def source() -> Source:
    """Pairs of coloured shapes side by side, half of them held out as layouts."""
    things = coloured()
    n = 24
    left, right = torch.arange(n), torch.arange(n) + 100
    shown = [things.images(rows)[:, ::2, ::2] for rows in (left, right)]
    canvas = np.full((n, 16, 16, 3), 255, np.uint8)
    canvas[:, 4:12, :8], canvas[:, 4:12, 8:] = shown
    names = things.columns["name"]
    captions = [f"a {names[a]} left of a {names[b]}, on white" for a, b in zip(left, right, strict=True)]
    boxes = [
        [[0.0, 0.25, 0.5, 0.75, names[a]], [0.5, 0.25, 1.0, 0.75, names[b]]] for a, b in zip(left, right, strict=True)
    ]
    return Source(
        name="scenes",
        pixels=canvas,
        keys=tuple(f"scene/{k}" for k in range(n)),
        captions=captions,
        columns={"boxes": boxes, "things": [[int(a), int(b)] for a, b in zip(left, right, strict=True)]},
        held=tuple("layouts" if k % 2 else "" for k in range(n)),
    )


@pytest.fixture(scope="module")
def models(source: Source, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Model]:
    """Tiny models that know boxes and words, words alone, and nothing: untrained, weights shaken so that all is heard."""
    made = {}
    for name in ("boxes", "words", "mute"):
        told: dict[str, Any] = {"conditions": () if name == "mute" else ("text",)}
        if name == "boxes":
            told["controls"] = Controls(("boxes",))
        made[name] = shaken_model(source, tmp_path_factory.mktemp(name) / "tiny", 0.05, net=TINY, **told)
        made[name].denoiser.steady = True
    return made


@pytest.fixture
def quick(models, source, monkeypatch, tmp_path):
    """The command on a tiny model, with a judge that finds every second thing."""

    class Second:
        spec, real = (3, 16, 16), {"held out": {"first": [0.9, 0.8, 1.0]}}

        def first(self, x0, own, pool, among, seed=0):
            assert len(x0) == len(own) and set(own) <= set(pool) and x0.shape[1:] == self.spec
            return torch.arange(len(own)) % 2 == 0

        def pictures(self, x0):
            return x0.mean((2, 3))

        def texts(self, texts):
            return torch.eye(3)[: len(texts)]

    monkeypatch.setattr(layouts, "load", lambda run: models[Path(run).name])
    monkeypatch.setattr(layouts, "open_as", lambda given, codec: source)
    monkeypatch.setattr(layouts, "open_source", lambda given, size: coloured())
    monkeypatch.setattr(layouts, "judge_for", lambda source, progress: Second())
    monkeypatch.setattr(layouts, "QUICK", {"layouts": 5, "positions": 3, "regions": 2, "examples": 2})

    def call(name: str = "boxes") -> dict[str, Any]:
        told = ["layouts", "--run", str(tmp_path / name), "--quick", "--work", str(tmp_path), "--steps", "2"]
        monkeypatch.setattr("sys.argv", told)
        layouts.main()
        return json.loads((tmp_path / "quick" / "layouts.json").read_text())["models"][name]["parts"]

    return call


def test_the_command_measures_every_way_and_fills_its_tables(quick, tmp_path, monkeypatch):
    parts = quick()
    assert list(parts["layouts"]) == [layouts.REAL, layouts.BOXES, layouts.BOTH, layouts.WORDS, layouts.REGIONS]
    real = parts["layouts"][layouts.REAL]
    assert real["boxes"][0] == 0.5 and real["n"] == 5 and real["of"] == 10 and real["calls"] == 0
    assert parts["layouts"][layouts.REGIONS]["n"] == 2 and parts["layouts"][layouts.BOXES]["calls"] == 2
    assert set(parts["positions"]) == {layouts.REAL, layouts.BOXES, layouts.BOTH, layouts.WORDS}
    assert "house" in parts["examples"] and parts["examples"]["house"]["n"] == 2
    page = "".join(f"<!-- table:{name} -->\n<!-- /table -->\n" for name in layouts_tables.TABLES)
    monkeypatch.setattr(common, "RESULTS", tmp_path / "quick")
    text = tables.fill(page, tmp_path / "quick")
    assert "right thing in its box in at least 85%, told by boxes | 0.500 | **no**" in text
    assert (
        "stand as the caption says" in text and "`house.json`" in text and "images/layouts_boxes_examples.png" in text
    )
    common.copy_sheets(layouts_tables.NAME, layouts_tables.SHEETS, tmp_path / "quick", tmp_path / "images")
    assert (tmp_path / "images" / "layouts_boxes_held.png").exists()


def test_what_is_done_is_not_done_again(quick, monkeypatch):
    before = quick()
    monkeypatch.setattr(layouts.Bench, "_draw", lambda *a: pytest.fail("drawn again"))
    monkeypatch.setattr(layouts, "in_boxes", lambda *a: pytest.fail("measured again"))
    assert quick() == before


def test_models_that_know_less(quick):
    assert list(quick("words")["layouts"]) == [layouts.REAL, layouts.WORDS, layouts.REGIONS]
    with pytest.raises(SystemExit, match="neither boxes nor captions"):
        quick("mute")


def test_it_draws_as_the_task_does(quick, models, source, monkeypatch, tmp_path):
    """Told by boxes alone, and by the boxes' own words in their regions: picture k is the task's picture k."""
    quick()
    rows = layouts.drawn(source.holdout["layouts"], 5)
    bench = layouts.Bench(
        models["boxes"],
        source,
        {"identity": "x", "parts": {}},
        lambda: None,
        layouts.QUICK,
        {"steps": 2},
        tmp_path,
        tmp_path,
        "boxes",
    )
    for way, by in ((layouts.BOXES, "slot"), (layouts.REGIONS, "guide")):
        x, calls, _ = bench.pictures(way, "same", rows[:3])
        for k, boxes in enumerate(bench.boxes(rows[:3])):
            told, model = layouts.Layout(16, 16, boxes), models["boxes"]
            if way == layouts.REGIONS:
                model = layouts.Unboxed(**vars(model))
            done = layout(model, told, seed=0, first=k, steps=2)
            assert done.by == by and done.network_calls == calls
            assert np.array_equal(np.asarray(done.images[0]), pixels(x[k : k + 1])[0])
    told_else, *_ = bench.pictures(layouts.BOTH, "same", rows[:3])
    assert not torch.equal(told_else, bench.pictures(layouts.BOXES, "same", rows[:3])[0])  # the caption is heard
