"""The benchmark of editing on a tiny model: it draws what the tasks draw, goes on where it stopped, and fills its tables."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from coloured import coloured
from PIL import Image
from torch import nn
from training import TINY, shaken_model

from benchmarks import canvas, canvas_combined, canvas_oracle, canvas_peers, canvas_tables, common, tables
from benchmarks.canvas_draw import REPAINT, SLOT, THROUGH, Kept, Ways, hole, masks, mosaics
from benchmarks.canvas_peers import Keras, opencv, pixels, resized, tensor
from sfumato.data import Source
from sfumato.data.canvas import Controls
from sfumato.guide.windows import starts
from sfumato.tasks import Model
from sfumato.tasks.inpaint import inpaint
from sfumato.tasks.upscale import OVERLAP, upscale

OPTIONS = {"steps": 3}


@pytest.fixture(scope="module")
def source() -> Source:
    """Coloured shapes, each in one box that holds it whole."""
    made = coloured()
    boxes = [[[0.0, 0.0, 1.0, 1.0, caption]] for caption in made.captions or []]
    return Source(**{**vars(made), "columns": {**made.columns, "boxes": boxes}})


@pytest.fixture(scope="module")
def models(source: Source, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Model]:
    """A tiny model with slots and one without, untrained, their weights shaken so that every condition matters."""
    made = {}
    for name in ("slots", "plain"):
        slots: dict[str, Any] = {"conditions": ("text",)}
        if name == "slots":
            slots["controls"] = Controls(("known", "lowres", "sketch", "boxes"))
        made[name] = shaken_model(source, tmp_path_factory.mktemp(name) / "tiny", 0.05, net=TINY, **slots)
        made[name].denoiser.steady = True
    return made


def picture(x: torch.Tensor) -> Image.Image:
    return Image.fromarray(pixels(x[None])[0])


@pytest.mark.parametrize(("name", "way"), [("slots", SLOT), ("plain", THROUGH)])
def test_it_fills_as_the_task_does(models, source, name, way):
    real = source.batch(source.validation_index[:3]).x0
    fill = masks(3, real.shape[2:])["box"]
    made, calls = Ways(models[name], OPTIONS).inpaint(way, real, fill, first=4)
    for k in range(3):
        done = inpaint(models[name], picture(real[k]), fill[k, 0].numpy(), seed=0, first=4 + k, **OPTIONS)
        assert done.network_calls == calls == 3
        assert np.array_equal(np.asarray(done.images[0]), pixels(made[k : k + 1])[0])
    assert torch.equal(torch.where(fill, 0.0, made), torch.where(fill, 0.0, tensor(pixels(real))))
    assert not torch.allclose(made, real, atol=0.1)


@pytest.mark.parametrize(("name", "way"), [("slots", SLOT), ("plain", THROUGH)])
def test_it_enlarges_as_the_task_does(models, source, name, way):
    small = torch.nn.functional.avg_pool2d(source.batch(source.validation_index[:2]).x0, 2)
    small = tensor(pixels(small))
    made, calls = Ways(models[name], OPTIONS).enlarge(way, small, 2, first=1)
    for k in range(2):
        done = upscale(models[name], picture(small[k]), 2, seed=0, first=1 + k, **OPTIONS)
        assert done.network_calls == calls
        assert np.array_equal(np.asarray(done.images[0]), pixels(made[k : k + 1])[0])


def test_repaint_makes_more_moves(models, source):
    real = source.batch(source.validation_index[:2]).x0
    fill = masks(2, real.shape[2:])["half"]
    _, calls = Ways(models["plain"], OPTIONS).inpaint(REPAINT, real, fill, 0)
    assert calls == 5 + 5 + 1  # three moves down, the last of them once
    assert SLOT not in Ways(models["plain"], {}).inpainting() and SLOT in Ways(models["slots"], {}).inpainting()


def test_masks_and_what_is_cut_out():
    found = masks(5, (16, 24))
    assert found["box"].sum().item() == 5 * 8 * 12 and found["half"].sum().item() == 5 * 16 * 12
    assert torch.equal(found["border"], ~found["box"])
    shares = found["strokes"].float().mean((1, 2, 3))
    assert (shares > 0.02).all() and (shares < 0.7).all() and len(shares.unique()) > 2
    assert torch.equal(found["strokes"][:2], masks(2, (16, 24))["strokes"])  # picture k has its own
    x = torch.arange(16.0 * 24).reshape(1, 1, 16, 24).expand(5, 1, 16, 24)
    assert torch.allclose(hole(x, found["border"]), x, atol=1e-3)  # its box is the whole picture
    corner = torch.zeros(1, 1, 16, 24, dtype=torch.bool)
    corner[..., 3:5, 7:10] = True
    flat = torch.where(corner, 1.0, -1.0)
    assert (hole(flat, corner) == 1).all()


def test_borders_are_those_of_the_windows():
    where = canvas.borders((32, 32), (16, 16))
    tops = starts(32, 16, 16 // OVERLAP, False, 2)
    edges = {n for first in tops for n in (first, first + 16)} - {0, 32}
    assert set((where[0, 0].diff(dim=0).any(1).nonzero().flatten() + 1).tolist()) == edges
    assert set((where[0, 0].diff(dim=1).any(0).nonzero().flatten() + 1).tolist()) == edges


def test_mosaics_have_no_joint_in_the_middle():
    x = torch.arange(1.0, 10.0).reshape(9, 1, 1, 1).expand(9, 1, 4, 4)
    large = mosaics(x, 1)
    assert large.shape == (1, 1, 8, 8)
    assert large[0, 0, 2:6, 2:6].unique().tolist() == [5.0]  # the middle picture whole
    assert large[0, 0, 0, 0] == 1 and large[0, 0, -1, -1] == 9


def test_what_is_drawn_is_drawn_once(tmp_path):
    asked: list[slice] = []

    def draw(rows: slice) -> tuple[torch.Tensor, int]:
        asked.append(rows)
        return torch.full((rows.stop - rows.start, 1, 2, 2), rows.start / 255), 7

    kept = Kept(tmp_path)
    first, calls, seconds = kept.pictures("a", 40, draw)
    again, *_ = kept.pictures("a", 40, draw)
    assert torch.equal(first, again) and len(first) == 40 and calls == 7 and seconds >= 0
    assert asked == [slice(0, 32), slice(32, 40)]
    kept.pictures("b", 3, draw)
    assert len(asked) == 3


def test_opencv_fills_the_hole_alone():
    x = torch.full((2, 3, 16, 16), 0.2)
    x[..., 8:] = -0.6
    fill = torch.zeros(2, 1, 16, 16, dtype=torch.bool)
    fill[..., 5:8, 2:5] = True  # inside of the first colour
    holed = torch.where(fill, 1.0, x)
    for method in ("Telea", "Navier-Stokes"):
        done = opencv(holed, fill, method)
        assert (done - tensor(pixels(x))).abs().max() < 0.02
    assert opencv(holed[:, :1], fill, "Telea").shape == (2, 1, 16, 16)


def test_pillow_enlarges_grey_and_colour():
    x = torch.full((2, 3, 8, 8), 0.5)
    for method in canvas_peers.RESAMPLING:
        assert (resized(x, 4, method) - 0.5).abs().max() < 0.01
        assert resized(x[:, :1], 2, method).shape == (2, 1, 16, 16)


def test_a_keras_network_is_read_as_it_is_written():
    """The same network in torch: a convolution, ReLU, a 1x1 convolution, both joined, the input added, doubled."""
    torch.manual_seed(0)
    first, second, last = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 3, 1), nn.Conv2d(7, 3, 5, padding=2)
    layers, weights, blob = [], [], b""

    def layer(kind: str, name: str, given: list[str], **config: Any) -> None:
        nodes = [[[g, 0, 0, {}] for g in given]] if given else []
        layers.append({"class_name": kind, "name": name, "config": config, "inbound_nodes": nodes})

    plain = {"activation": "linear", "strides": [1, 1]}
    layer("InputLayer", "in", [])
    layer("Conv2D", "a", ["in"], padding="same", **plain)
    layer("Activation", "r", ["a"], activation="relu")
    layer("Conv2D", "b", ["r"], padding="valid", **plain)
    layer("Add", "s", ["b", "in"])
    layer("Concatenate", "j", ["s", "r"])
    layer("UpSampling2D", "u", ["j"], size=[2, 2], interpolation="nearest")
    layer("Conv2D", "c", ["u"], padding="same", **plain)
    for name, conv in (("a", first), ("b", second), ("c", last)):
        for what, value in (("kernel", conv.weight.permute(2, 3, 1, 0)), ("bias", conv.bias)):
            value = value.detach().contiguous()
            weights.append({"name": f"{name}/{what}", "shape": list(value.shape), "dtype": "float32"})
            blob += value.numpy().astype("<f4").tobytes()
    config = {"layers": layers, "output_layers": [["c", 0, 0]]}
    told = {"modelTopology": {"model_config": {"config": config}}, "weightsManifest": [{"weights": weights}]}
    x = torch.randn(2, 3, 6, 5)
    r = first(x).relu()
    joined = torch.cat([second(r) + x, r], 1)
    expected = last(nn.functional.interpolate(joined, scale_factor=2, mode="nearest"))
    assert torch.allclose(Keras(json.loads(json.dumps(told)), blob)(x), expected, atol=1e-6)
    layers[2]["config"]["activation"] = "swish"
    with pytest.raises(SystemExit, match="no known kind"):
        Keras(told, blob)(x)


@pytest.fixture
def quick(models, source, monkeypatch, tmp_path):
    """The command on the tiny model with slots, its source, judges and features made up."""
    monkeypatch.setattr(canvas, "load", lambda run: models[Path(run).name])
    monkeypatch.setattr(canvas, "open_as", lambda given, codec: source)
    monkeypatch.setattr(canvas_combined, "open_source", lambda given, size: source)
    monkeypatch.setattr(canvas, "SPEED", 32)

    class Means:
        name = "means"

        def __call__(self, x0):
            return torch.nn.functional.adaptive_avg_pool2d(x0, 2).flatten(1)

    class Any_:
        spec = (3, 16, 16)

        def first(self, x0, own, pool, among, seed=0):
            assert len(x0) == len(own) and x0.shape[1:] == self.spec
            return torch.arange(len(own)) % 2 == 0

    monkeypatch.setattr(canvas, "features_for", lambda source: Means())
    monkeypatch.setattr(canvas_combined, "judge_for", lambda source, seen, progress: Any_())
    monkeypatch.setattr(
        canvas_peers,
        "esrgan",
        lambda folder, scale: lambda x: x.repeat_interleave(scale, 2).repeat_interleave(scale, 3),
    )
    monkeypatch.setattr(canvas, "QUICK", {"inpaint": 4, "upscale": 4, "seams": 3, "combined": 4, "reference": 8})

    def call(part: str, name: str = "slots") -> dict[str, Any]:
        told = [
            "canvas",
            part,
            "--run",
            str(tmp_path / name),
            "--source",
            "coloured",
            "--quick",
            "--work",
            str(tmp_path),
        ]
        monkeypatch.setattr("sys.argv", [*told, "--steps", "2"])
        canvas.main()
        return json.loads((tmp_path / "quick" / "canvas.json").read_text())["models"][name]["parts"]

    return call


def test_every_part_runs_and_fills_its_tables(quick, tmp_path, monkeypatch):
    for part in canvas.PARTS:
        parts = quick(part)
    assert set(parts["inpaint"]) == {"box", "half", "strokes", "border"}
    for ways in parts["inpaint"].values():
        assert list(ways) == ["truth", "Telea", "Navier-Stokes", SLOT, THROUGH, REPAINT, "replacement"]
        assert all(row["touched"] == 0 for row in ways.values())
        assert ways["truth"]["seam"] in ([1, 1, 1], None) and "psnr" not in ways["truth"]
    assert parts["inpaint"]["box"]["truth"]["seam"] == [1, 1, 1]
    for scale in ("x2", "x4"):
        assert parts["upscale"][scale][SLOT]["inconsistency"][0] < 1 and parts["upscale"][scale][SLOT]["calls"] == 2
    assert parts["upscale"]["speed"]["side"] == 32
    assert set(parts["combined"]) == {"real", "text", "boxes", "known", "sketch", "all"}
    assert parts["combined"]["real"]["sketch"][0] == 1 and parts["combined"]["all"]["known"][0] == 1
    page = "".join(f"<!-- table:{name} -->\n<!-- /table -->\n" for name in canvas_tables.TABLES)
    monkeypatch.setattr(common, "RESULTS", tmp_path / "quick")
    text = tables.fill(page, tmp_path / "quick")
    assert "trained slot" in text and "Navier-Stokes" in text and "within 5 points" in text and "inpaint box" in text
    common.copy_sheets(canvas_tables.NAME, canvas_tables.SHEETS, tmp_path / "quick", tmp_path / "images")
    assert (tmp_path / "images" / "canvas_slots_upscale_x4.png").exists()


def test_a_part_that_is_done_is_not_done_again(quick, models, monkeypatch):
    before = quick("seams")
    monkeypatch.setattr(canvas, "upscale", lambda *a, **k: pytest.fail("drawn again"))
    assert quick("seams") == before
    with torch.no_grad():
        next(iter(models["slots"].denoiser.parameters())).add_(0.01)  # another model: all its numbers are begun anew
    with pytest.raises(pytest.fail.Exception, match="drawn again"):
        quick("seams")


def test_a_model_without_slots_has_no_row_of_them(quick):
    parts = quick("upscale", "plain")
    assert SLOT not in parts["upscale"]["x2"] and THROUGH in parts["upscale"]["x2"]
    with pytest.raises(SystemExit, match="two are needed"):
        quick("combined", "plain")


def test_the_oracle_has_a_row_for_every_way(monkeypatch, tmp_path):
    for name, value in (("PAIRS", 20), ("PICTURES", 10), ("MOVES", 4), ("BATCH", 64)):
        monkeypatch.setattr(canvas_oracle, name, value)
    monkeypatch.setattr("sys.argv", ["canvas_oracle", "--steps", "5", "--results", str(tmp_path)])
    canvas_oracle.main()
    text = tables.fill("<!-- table:canvas_oracle -->\n<!-- /table -->\n", tmp_path)
    assert "the truth | 0.900 | 0.436" in text and "trained condition, Heun" in text and "RePaint" in text


@pytest.mark.slow
def test_a_condition_trained_from_nothing_is_unbiased():
    rows = canvas_oracle.measure(canvas_oracle.STEPS)
    for name in ("trained condition, Heun", "trained condition, DPM-Solver++"):
        assert rows[name]["mean"] == pytest.approx(canvas_oracle.TRUE_MEAN, abs=0.02)
        assert rows[name]["spread"] == pytest.approx(canvas_oracle.TRUE_SPREAD, abs=0.02)
