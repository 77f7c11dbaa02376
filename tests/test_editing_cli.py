"""The commands that edit pictures, as a user types them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from editing import photograph, untrained
from PIL import Image

from sfumato.cli import main
from sfumato.cli.editing import TEXTS
from sfumato.tasks.receipt import receipt_in

KEYS = {"model", "weights", "task", "by", "notes", "prompt", "seed", "steps", "guidance"}
KEYS |= {"width", "height", "seconds", "network_calls", "out", "files"}
OWN = {
    "inpaint": ["--image", "photo.png", "--mask", "mask.png"],
    "outpaint": ["--image", "photo.png", "--zoom", "1.5"],
    "upscale": ["--image", "photo.png", "--scale", "2"],
    "layout": ["--layout", "layout.json"],
    "sketch": ["--image", "drawing.png"],
    "vary": ["--image", "photo.png", "--strength", "0.4"],
    "blend": ["photo.png", "drawing.png"],
    "tile": [],
}
SIZES = {"outpaint": (30, 21), "upscale": (40, 28), "layout": (16, 16), "sketch": (16, 16), "tile": (16, 16)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Two models, with all slots and with none, a picture, a mask, a drawing and a layout."""
    made = tmp_path_factory.mktemp("editing")
    untrained("text", "known", "lowres", "sketch", "boxes").export(made / "all.safetensors")
    untrained("text").export(made / "plain.safetensors")
    photograph(20, 14, seed=2).save(made / "photo.png")
    mask = np.zeros((14, 20), np.uint8)
    mask[4:10, 5:15] = 255
    Image.fromarray(mask).save(made / "mask.png")
    paper = np.full((40, 40), 255, np.uint8)
    paper[18:22] = 0
    Image.fromarray(paper).save(made / "drawing.png")
    boxes = [{"box": [0, 0, 8, 16], "text": "a red apple"}, {"box": [8, 0, 16, 16], "text": "a boat"}]
    (made / "layout.json").write_text(json.dumps({"width": 16, "height": 16, "boxes": boxes, "background": "a sea"}))
    return made


def run(folder: Path, capsys, monkeypatch, *arguments: str) -> tuple[int, dict, str]:
    monkeypatch.chdir(folder)
    code = main([*arguments])
    out, err = capsys.readouterr()
    return code, json.loads(out.splitlines()[-1]) if out.strip() else {}, err


def test_every_edit_is_tried() -> None:
    assert set(OWN) == set(TEXTS)


@pytest.mark.parametrize("model", ["all", "plain"])
@pytest.mark.parametrize("name", OWN)
def test_an_edit_writes_its_picture_and_tells_what_it_did(name, model, folder, capsys, monkeypatch) -> None:
    told = ["--seed", "7", "--steps", "1", "--out", f"new/{name}-{model}.png", "--json"]
    code, found, err = run(folder, capsys, monkeypatch, name, f"{model}.safetensors", *OWN[name], *told)
    assert code == 0 and set(found) == KEYS and found["task"] == name and found["seed"] == 7
    slot = name in ("inpaint", "outpaint", "upscale", "sketch", "layout")
    assert found["by"] == (None if not slot else "slot" if model == "all" else "guide")
    assert ("was trained without the condition" in err) == (found["by"] == "guide")
    with Image.open(folder / found["out"]) as picture:
        assert picture.size == SIZES.get(name, (20, 14)) == (found["width"], found["height"])
    assert found["files"] == [found["out"]]
    mark = receipt_in(folder / found["out"])
    assert mark["ai_made"] and mark["task"] == name and mark["weights"] == found["weights"]


def test_several_pictures_stand_beside_their_sheet(folder, capsys, monkeypatch) -> None:
    told = [
        "inpaint",
        "all.safetensors",
        *OWN["inpaint"],
        "--prompt",
        "a boat",
        "--steps",
        "1",
        "--seed",
        "3",
        "--json",
    ]
    code, found, _ = run(folder, capsys, monkeypatch, *told, "--n", "3", "--out", "three.png")
    assert code == 0 and found["files"] == ["three-1.png", "three-2.png", "three-3.png"] and found["prompt"] == "a boat"
    photo, mask = (np.asarray(Image.open(folder / name)) for name in ("photo.png", "mask.png"))
    pictures = [np.asarray(Image.open(folder / file)) for file in found["files"]]
    assert all(np.array_equal(picture[mask == 0], photo[mask == 0]) for picture in pictures)
    assert not np.array_equal(pictures[0], pictures[1]) and found["guidance"] == 3.0
    run(folder, capsys, monkeypatch, *told, "--out", "one.png")
    assert np.array_equal(np.asarray(Image.open(folder / "one.png")), pictures[0])


@pytest.mark.parametrize(
    "arguments,said",
    [
        (["inpaint", "all.safetensors", "--image", "photo.png", "--mask", "drawing.png"], "make it the same size"),
        (["inpaint", "all.safetensors", "--image", "layout.json", "--mask", "mask.png"], "not a picture"),
        (
            ["inpaint", "all.safetensors", "--image", "gone.png", "--mask", "mask.png"],
            "gone.png: there is no such file",
        ),
        (["inpaint", "no-model", *OWN["inpaint"]], "no run folder"),
        (["inpaint", "all.safetensors", *OWN["inpaint"], "--n", "0"], "at least 1 picture"),
        (["inpaint", "all.safetensors", *OWN["inpaint"], "--steps", "0"], "at least 1 step"),
        (["outpaint", "all.safetensors", "--image", "photo.png"], "nothing to add"),
        (["outpaint", "all.safetensors", "--image", "photo.png", "--to", "9x9"], "smaller than the picture"),
        (["outpaint", "all.safetensors", "--image", "photo.png", "--to", "big"], "width x height"),
        (["upscale", "all.safetensors", "--image", "."], "a folder"),
        (["vary", "all.safetensors", "--image", "photo.png", "--strength", "2"], "strength"),
        (["blend", "all.safetensors", "photo.png"], "2 to 16"),
        (["sketch", "all.safetensors", "--image", "mask.png"], "light paper"),
        (["layout", "all.safetensors", "--layout", "photo.png"], "JSON"),
        (["tile", "all.safetensors", "--size", "17x16"], "multiples of 4"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(arguments, said, folder, capsys, monkeypatch) -> None:
    code, _, err = run(folder, capsys, monkeypatch, *arguments, "--out", "bad.png")
    assert code == 2 and said in err and len(err.strip().splitlines()) == 1
    assert not (folder / "bad.png").exists()


def test_controls_are_given_together(folder, capsys, monkeypatch) -> None:
    told = [
        "--sketch",
        "drawing.png",
        "--layout",
        "layout.json",
        "--prompt",
        "a boat",
        "--steps",
        "1",
        "--out",
        "x.png",
    ]
    code, found, _ = run(folder, capsys, monkeypatch, "inpaint", "all.safetensors", *OWN["inpaint"], *told, "--json")
    assert code == 0 and found["by"] == "slot"
    code, _, err = run(folder, capsys, monkeypatch, "inpaint", "plain.safetensors", *OWN["inpaint"], *told)
    assert code == 2 and "leave --sketch away" in err


def test_the_file_that_is_written_keeps_pixels(folder, capsys, monkeypatch) -> None:
    code, _, err = run(folder, capsys, monkeypatch, "tile", "all.safetensors", "--out", "bad.jpg")
    assert code == 2 and ".png" in err
