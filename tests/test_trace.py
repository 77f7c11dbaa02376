"""sfumato trace finds what a picture was copied from, through the mark in the picture itself."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image
from test_memory import blobs

from sfumato.cli import main
from sfumato.data.audit.declared import claim
from sfumato.tasks.receipt import receipt_in

TINY = ["--size", "16", "--set", "net.widths=[8,16]", "--set", "net.blocks=[1,1]", "--set", "net.embedding=32"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with pictures, a run trained on them, and pictures sampled from it."""
    place = tmp_path_factory.mktemp("place")
    (place / "pictures").mkdir()
    for k, pixels in enumerate(blobs(60, 0, channels=3)):
        Image.fromarray(pixels).resize((48, 48), Image.Resampling.NEAREST).save(place / "pictures" / f"{k:02d}.png")
    run = str(place / "run")
    assert main(["train", str(place / "pictures"), "--run", run, "--steps", "2", "--set", "batch=4", *TINY]) == 0
    assert main(["sample", run, "--n", "2", "--steps", "2", "--seed", "7", "--out", str(place / "out")]) == 0
    assert main(["sample", run, "--n", "2", "--steps", "2", "--out", str(place / "sheet.png")]) == 0
    return place


def traced(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict:
    capsys.readouterr()
    assert main(["trace", *arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def test_a_copy_is_traced_to_its_picture(place: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    copy = tmp_path / "copy.jpg"  # another size, another format, mirrored
    Image.open(place / "pictures" / "33.png").resize((80, 80)).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(copy)
    out = tmp_path / "side.png"
    told = traced(capsys, str(copy), "--run", str(place / "run"), "--out", str(out))
    assert told["copied"] and told["neighbours"][0]["file"].endswith("33.png") and "a copy of" in told["words"]
    assert told["neighbours"][0]["distance"] < told["neighbours"][1]["distance"] / 3
    with Image.open(out) as side:
        assert side.width > 3.5 * side.height


def test_a_new_picture_is_no_copy(place: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    Image.fromarray(blobs(1, 99, channels=3)[0]).save(tmp_path / "new.png")
    told = traced(capsys, str(tmp_path / "new.png"), "--run", str(place / "run"))
    assert not told["copied"] and "no copy" in told["words"]


def test_samples_lead_to_their_run(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = place / "out" / "7-00001.png"
    told = receipt_in(file)
    assert told["model"] == "run" and told["picture"] == 1 and told["request"]["seed"] == 7
    assert str(place) not in json.dumps(told)  # no path of this machine travels with the picture
    monkeypatch.chdir(place)
    assert traced(capsys, str(file))["run"] == "run"
    monkeypatch.chdir(place.parent)
    assert main(["trace", str(file)]) == 2
    assert "--run" in capsys.readouterr().err


def test_the_audit_knows_our_mark(place: Path) -> None:
    for file in (place / "sheet.png", place / "out" / "7-00000.png"):
        assert claim(file.read_bytes()).made


def test_bad_input(place: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    run, text = str(place / "run"), tmp_path / "text.png"
    text.write_text("no picture")
    lone = tmp_path / "lone"
    shutil.copytree(place / "run", lone)
    (lone / "source.json").write_text(json.dumps({"source": str(tmp_path / "gone"), "size": 16}))
    picture = str(place / "pictures" / "01.png")
    for arguments, said in (
        ([str(tmp_path / "none.png"), "--run", run], "cannot be read"),
        ([str(text), "--run", run], "cannot be used"),
        ([str(place / "sheet.png"), "--run", run], "is a sheet"),
        ([picture], "does not say which model"),
        ([picture, "--run", str(tmp_path)], "is no run folder"),
        ([picture, "--run", str(lone)], "cannot be opened"),
        ([picture, "--run", run, "--out", str(tmp_path / "no" / "x.png")], "cannot write"),
        ([picture, "--run", run, "--out", str(tmp_path / "x.abc")], "cannot write"),
    ):
        assert main(["trace", *arguments]) == 2, arguments
        error = capsys.readouterr().err.splitlines()
        assert said in error[-1], (arguments, error)
