"""Palettes of users' own maps: what is one, what is none, and runs that are told by them."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from mapped import AREAS, DRAWN, PALETTE, RULES, SHOWN, SMALL, make, planted, save
from PIL import Image
from torch import Tensor
from training import FLOAT32, TINY

from sfumato import data
from sfumato.cli import main
from sfumato.core import SfumatoError
from sfumato.data import Augment, drawings
from sfumato.data import source as sources
from sfumato.data.canvas import Controls
from sfumato.data.drawings import Area
from sfumato.tasks import layout, load
from sfumato.train import Budget, Recipe, Run, Trainer, fit, resume, take_over

torch.set_num_threads(1)


# palettes


def test_palettes_keep_their_names_and_order(tmp_path) -> None:
    source = data.open(make(tmp_path, n=3))
    assert source.own["classes"].palette() == tuple(Area(c, c) for c in sorted(PALETTE))
    (tmp_path / "maps" / "palette.json").write_text(
        json.dumps({"#FF00FF": "roof", "#000000": "ground", "#00ff00": "road"})
    )
    palette = data.open(tmp_path).own["classes"].palette()
    assert palette == (Area("#ff00ff", "roof"), Area("#000000", "ground"), Area("#00ff00", "road"))
    values = data.open(tmp_path).own["classes"].at(torch.arange(3), palette)[0]
    order = torch.tensor([2, 3, 1])  # of ground, road and roof, from 1
    assert torch.equal(values[:, 0].long(), order[torch.from_numpy(np.stack([planted(k) for k in range(3)]))])


def test_maps_in_colours_by_number_or_in_grey_are_read_alike(tmp_path) -> None:
    classes = planted(0)
    rgb = Image.fromarray(DRAWN[classes])
    by_number = Image.fromarray(classes.astype(np.uint8))
    by_number.putpalette(DRAWN.flatten().tolist())
    grey = Image.fromarray((classes * 7).astype(np.uint8))
    greys = tuple(Area(f"#{7 * k:02x}{7 * k:02x}{7 * k:02x}", str(k)) for k in range(3))
    by_number.save(tmp_path / "p.png")
    for picture, palette in ((rgb, AREAS), (Image.open(tmp_path / "p.png").convert("RGB"), AREAS), (grey, greys)):
        assert np.array_equal(drawings.areas(picture, palette), classes)
    clear = np.dstack([DRAWN[classes], np.where(classes == 2, 0, 255)]).astype(np.uint8)
    assert np.array_equal(drawings.areas(Image.fromarray(clear), AREAS), np.where(classes == 2, -1, classes))


def test_smoothed_edges_take_the_nearer_side_and_never_a_third_class() -> None:
    """Black to white by greys, while grey is a class of its own that stands elsewhere."""
    palette = (Area("#000000", "a"), Area("#ffffff", "b"), Area("#808080", "c"))
    large = np.zeros((90, 90), np.uint8)
    y, x = np.mgrid[:90, :90]
    large[(x - 60) ** 2 + (y - 30) ** 2 < 400] = 255
    large[60:, :30] = 128
    small = np.asarray(Image.fromarray(large).resize((30, 30), Image.Resampling.BOX))
    found = drawings.areas(Image.fromarray(small), palette)
    assert len(np.unique(small)) > 5, "its edges are smoothed"
    want = np.where(small >= 128, 1, 0)
    want[20:, :10] = 2
    assert np.array_equal(found, want)


def wrong(folder: Path, message: str) -> None:
    source = data.open(folder)
    with pytest.raises(SfumatoError, match=message) as error:
        Recipe(net=TINY, controls=RULES).fit_to(source)
    assert "\n" not in str(error.value)


def test_maps_that_are_none_are_told_by_name(tmp_path) -> None:
    folder = make(tmp_path)
    noise = np.random.default_rng(0).integers(0, 256, (16, 16, 3))
    save(folder, "maps/5.png", noise)
    wrong(folder, r"maps/5.png: this map holds 256 colours.*photograph")
    (folder / "maps" / "palette.json").write_text(json.dumps(PALETTE))
    wrong(
        folder, r"maps/5.png: 2\d\d pixels .*photograph.*; the palette has #000000 ground, #00ff00 road, #ff00ff roof"
    )
    spot = DRAWN[planted(5)].copy()
    spot[8:12, 3:7] = (200, 200, 10)
    save(folder, "maps/5.png", spot)
    wrong(folder, r"maps/5.png: 16 pixels of this map are of no colour of the palette, the first #c8c80a at x 3, y 8")
    save(folder, "maps/5.png", DRAWN[planted(5)][:, :15])
    wrong(folder, r"maps/5.png: it is 15x16 pixels and its picture 5.png is 16x16")
    Image.fromarray(planted(5).astype(np.uint16)).save(folder / "maps" / "5.png")
    wrong(folder, r"maps/5.png: 16 bits per channel")
    (folder / "maps" / "5.png").write_bytes(b"no picture")
    wrong(folder, r"maps/5.png: not a picture")
    (folder / "maps" / "5.png").unlink()
    for k in range(12):
        save(folder, f"maps/{k}.png", np.full((16, 16, 3), 1) * np.arange(16 * k, 16 * k + 16)[:, None, None])
    (folder / "maps" / "palette.json").unlink()
    wrong(folder, r"the maps hold 192 colours together, more than 64")
    save(folder, "maps/7.gif", np.zeros((16, 16)))
    with pytest.raises(SfumatoError, match=r"7.gif and .*7.png belong to one picture"):
        data.open(folder)


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ("{", "JSON"),
        ("[]", "object of 1 to 64"),
        ("{}", "object of 1 to 64"),
        ('{"red": "road"}', "'red' is no colour"),
        ('{"#ff0000": ""}', "give it a name"),
        ('{"#ff0000": 3}', "give it a name"),
        ('{"#ff0000": "a", "#FF0000": "b"}', "colour '#ff0000' stands there twice"),
        ('{"#ff0000": "a", "#00ff00": "a"}', "name 'a' stands there twice"),
    ],
)
def test_a_palette_that_is_none(tmp_path, told, message) -> None:
    make(tmp_path, n=2)
    (tmp_path / "maps" / "palette.json").write_text(told)
    wrong(tmp_path, f"palette.json.*{message}")


def test_sketches_and_masks_that_are_none_are_told_by_name(tmp_path) -> None:
    make(tmp_path)
    save(tmp_path, "sketches/3.png", 255 * (planted(3) == 2))
    wrong(tmp_path, r"sketches/3.png: a sketch has dark lines on light paper")
    save(tmp_path, "sketches/3.png", 255 * (planted(3) != 2))
    save(tmp_path, "masks/9.png", np.zeros((8, 8)))
    wrong(tmp_path, r"masks/9.png: it is 8x8 pixels and its picture 9.png is 16x16")


# training and use


def trained(run: Path, folder: Path, stops: tuple[int, ...]) -> dict[str, Tensor]:
    """The weights after 6 steps, begun anew by a new process at each of `stops`."""
    recipe = Recipe(net=TINY, batch=4, controls=dataclasses.replace(RULES, masks=0.5, each=0.7), augment=Augment())
    source = data.open(folder)
    recipe = recipe.fit_to(source)
    trainer = Trainer(recipe.build(), recipe, source, Budget(steps=6), FLOAT32)
    kept = Run(run)
    kept.begin(recipe, source, trainer.budget, trainer.setting)
    for stop in (*stops, 6):
        reports = fit(kept, trainer)
        for report in reports:
            if report.progress.step == stop:
                reports.close()
        if stop < 6:
            recipe = kept.recipe()
            trainer = Trainer(recipe.build(), recipe, data.open(folder), kept.budget(), FLOAT32)
            resume(kept, trainer)
            assert trainer.step == stop
    return {k: p.detach().clone() for k, p in trainer.denoiser.named_parameters()}


@pytest.mark.parametrize("limit", [sources.LIMIT_BYTES, 1], ids=["in memory", "read for each batch"])
def test_a_resumed_run_sees_the_same_to_the_bit(tmp_path, monkeypatch, limit) -> None:
    monkeypatch.setattr(sources, "LIMIT_BYTES", limit)
    folder = make(tmp_path / "set")
    straight = trained(tmp_path / "straight", folder, ())
    again = trained(tmp_path / "again", folder, (2, 5))
    assert all(torch.equal(p, again[k]) for k, p in straight.items())
    for k in range(12):
        save(folder, f"maps/{k}.png", DRAWN[planted(k + 1)])
    other = trained(tmp_path / "other", folder, ())
    assert not all(torch.equal(p, other[k]) for k, p in straight.items()), "the maps are seen"


@pytest.fixture
def run(tmp_path, monkeypatch, capsys) -> Path:
    """A run of two steps on a folder with maps in a named palette."""
    monkeypatch.setattr("sfumato.cli.train.metering", lambda *about: None)
    folder = make(tmp_path / "set")
    (folder / "maps" / "palette.json").write_text(json.dumps(PALETTE))
    (folder / "masks" / "0.png").unlink()
    told = ["--slots", "known,classes", "--steps", "2", "--size", "16", *SMALL]
    assert main(["train", str(folder), "--run", str(tmp_path / "runs" / "one"), *told]) == 0
    said = capsys.readouterr().err
    assert "masks: 11 of 12 pictures have one of their own" in said and "maps: 12 of 12 " in said
    assert "classes: 3 of the palette #000000 ground, #00ff00 road, #ff00ff roof" in said
    assert "sketches: 12 are not read: add sketch to --slots" in said
    return tmp_path / "runs" / "one"


def test_the_palette_stays_with_the_model(run, tmp_path, capsys) -> None:
    exported = load(run).export(tmp_path / "one.safetensors")
    for path in (run, exported):
        model = load(path)
        assert drawings.palette_of(model.facts) == AREAS
        assert next(spec.size for spec in model.denoiser.net.config.slots if spec.name == "classes") == 3
    assert main(["models", str(run.parent), "--json"]) == 0
    said = capsys.readouterr()
    assert "#00ff00 road" in said.err
    told = next(m for m in json.loads(said.out.splitlines()[-1])["models"] if m["name"] == "one")
    assert told["palette"] == [{"colour": c, "name": n} for c, n in PALETTE.items()]


def test_a_run_goes_on_with_its_maps_alone(run, tmp_path, capsys) -> None:
    folder = tmp_path / "set"
    go_on = ["train", str(folder), "--run", str(run), "--resume", "--steps", "3"]
    shutil.move(folder / "maps" / "4.png", tmp_path / "4.png")
    assert main(go_on) == 2 and "the masks, maps or sketches of the pictures are not those" in capsys.readouterr().err
    shutil.move(tmp_path / "4.png", folder / "maps" / "4.png")
    assert main(go_on) == 0


def test_a_map_in_the_models_own_colours_is_drawn(run, tmp_path, capsys, monkeypatch) -> None:
    model, classes = load(run), planted(3)
    seen = {}
    before = type(model.denoiser.net).forward

    def spy(net, x, c_noise, cond, **how):
        seen["classes"] = cond["classes"].value
        return before(net, x, c_noise, cond, **how)

    monkeypatch.setattr(type(model.denoiser.net), "forward", spy)
    result = layout(model, None, colours=Image.fromarray(DRAWN[classes].astype(np.uint8)), steps=1, seed=0)
    assert result.by == "slot" and result.images[0].size == (16, 16)
    want = torch.nn.functional.one_hot(torch.from_numpy(classes), 3).permute(2, 0, 1).float()
    assert torch.equal(seen["classes"][0], want)
    save(tmp_path, "map.png", DRAWN[classes])
    save(tmp_path, "other.png", SHOWN[classes])
    out = ["--out", str(tmp_path / "out.png"), "--steps", "1"]
    assert main(["layout", str(run), "--colours", str(tmp_path / "map.png"), *out]) == 0
    capsys.readouterr()
    assert main(["layout", str(run), "--colours", str(tmp_path / "other.png"), *out]) == 2
    assert "the palette has #000000 ground, #00ff00 road, #ff00ff roof" in capsys.readouterr().err
    assert main(["layout", str(run), *out]) == 2
    assert "--colours FILE" in capsys.readouterr().err


def test_a_model_of_another_palette_is_no_beginning(run, tmp_path, capsys) -> None:
    """Its own palette is kept; a model of the eleven basic colours has other channels."""
    source = data.open(tmp_path / "set")
    basic = Recipe(net=TINY, controls=Controls(("classes",))).fit_to(dataclasses.replace(source, own={}))
    mine = Recipe(net=TINY, controls=Controls(("classes",))).fit_to(source)
    with pytest.raises(SfumatoError, match="the map 'classes' has 3 channels here and 11 there"):
        take_over(mine.build(), dict(basic.build().named_parameters()), basic.net, mine.net)
    for k in range(12):
        save(tmp_path, f"set/maps/{k}.png", DRAWN[planted(k)][..., ::-1].copy() // 2)
    (tmp_path / "set" / "maps" / "palette.json").unlink()
    told = ["--start", str(run), "--steps", "1", *SMALL]
    assert main(["train", str(tmp_path / "set"), "--run", str(tmp_path / "next"), *told]) == 2
    assert "the palette has #000000 ground" in capsys.readouterr().err
