"""sfumato measure of sets of pictures, of likelihoods, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from sfumato.cli import measure as room
from sfumato.cli.main import main


def write(folder: Path, n: int, seed: int, side: int = 8, colour: bool = False, sigma: int = 60) -> Path:
    """Smooth pictures: a ramp in a random direction, with noise."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    across = np.linspace(-1, 1, side)
    for k in range(n):
        a, b = rng.normal(0, sigma, 2)
        picture = 128 + a * across[:, None] + b * across[None] + rng.normal(0, 8, (side, side))
        pixels = np.clip(picture, 0, 255).astype(np.uint8)
        if colour:
            pixels = np.stack([pixels, pixels // 2, 255 - pixels], 2)
        Image.fromarray(pixels).save(folder / f"{k:04}.png")
    return folder


def told(capsys: pytest.CaptureFixture) -> tuple[dict, str]:
    out = capsys.readouterr()
    return json.loads(out.out.strip().splitlines()[-1]), out.err


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("sets")
    made = {
        "real": write(root / "real", 300, 1),
        "alike": write(root / "alike", 280, 2),
        "dull": write(root / "dull", 280, 3, sigma=20),
        "big": write(root / "big", 70, 4, side=16),
        "colour": write(root / "colour", 70, 5, colour=True),
        "few": write(root / "few", 9, 6),
    }
    return made


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SFUMATO_CACHE", str(tmp_path_factory.getbasetemp() / "measure-cache"))


def test_a_set_is_measured_against_a_set(folders: dict[str, Path], capsys: pytest.CaptureFixture) -> None:
    found = {}
    for name in ("alike", "dull"):
        assert main(["measure", str(folders[name]), "--against", str(folders["real"]), "--json"]) == 0
        found[name], err = told(capsys)
    alike, dull = found["alike"], found["dull"]
    assert alike["n"] == 280 and alike["n_reference"] == 300 and alike["floor"]["n"] == 150
    kid = [{m["key"]: m for m in result["metrics"]}["kid"] for result in (alike, dull)]
    assert kid[0]["low"] < 0 < kid[0]["high"] or kid[0]["value"] < 0.1 * kid[1]["value"]
    assert kid[1]["low"] > kid[0]["high"] and dull["fd"] > 3 * alike["fd"]
    assert kid[0]["name"].endswith(",n=280,ref=real]") and kid[0]["name"] in json.dumps(alike)
    lines = err.splitlines()
    assert any(line.startswith("kid[") and " to " in line for line in lines)
    assert not (folders["alike"] / "measure.json").exists()


def test_a_set_against_itself_is_told(folders: dict[str, Path], capsys: pytest.CaptureFixture) -> None:
    assert main(["measure", str(folders["real"]), "--against", str(folders["real"]), "--json"]) == 0
    result, err = told(capsys)
    assert "300 pictures of real are in real too" in err and result["precision"] == 1


def test_big_pictures_are_thinned_so_that_memory_is_bounded() -> None:
    for spec, most in (((1, 8, 8), 10_000), ((3, 64, 64), 10_000), ((3, 256, 256), 682), ((3, 4096, 4096), 16)):
        source = SimpleNamespace(codec=SimpleNamespace(spec=spec))
        assert room._most(source) == most
    rows = room._spread(torch.arange(30_000), 10_000)
    assert len(rows.unique()) == 10_000 and rows[0] == 0 and rows[-1] == 29_999


BAD = {
    "other size": (["{big}", "--against", "{real}"], "say at what --size"),
    "other colour mode": (["{colour}", "--against", "{real}"], "colour and real is grey"),
    "too few": (["{few}", "--against", "{real}"], "few has only 9 pictures"),
    "too few real ones": (["{real}", "--against", "{few}"], "few has only 9 pictures"),
    "a curve of pictures": (["{alike}", "--against", "{real}", "--curve"], "--curve is of a model"),
    "bits of pictures": (["{alike}", "--against", "{real}", "--bits"], "--bits is of a model"),
    "few bits": (["{alike}", "--against", "{real}", "--bits", "3"], "16 are the least"),
    "a pickle": (["{alike}", "--against", "{real}", "--weights", "net.pth"], "convert it once"),
    "no weights": (["{alike}", "--against", "{real}", "--weights", "none.safetensors"], "cannot be read"),
    "nothing": (["nowhere", "--against", "{real}"], "nowhere"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_clear_line(name: str, folders: dict[str, Path], capsys: pytest.CaptureFixture) -> None:
    arguments, words = BAD[name]
    assert main(["measure", *(a.format(**folders) if "{" in a else a for a in arguments)]) == 2
    err = capsys.readouterr().err.strip().splitlines()
    assert words in err[-1] and err[-1].startswith("sfumato measure: ")


def test_another_size_can_be_asked_for(folders: dict[str, Path], capsys: pytest.CaptureFixture) -> None:
    assert main(["measure", str(folders["big"]), "--against", str(folders["real"]), "--size", "8", "--json"]) == 0
    result, err = told(capsys)
    assert result["fd"] is None and "fd is not given" in err and result["recall"] is not None


def test_bits_per_dimension_of_a_run(tmp_path: Path, folders: dict[str, Path], capsys: pytest.CaptureFixture) -> None:
    run, tiny = tmp_path / "run", ["--set", "net.widths=[8,16]", "--set", "net.blocks=[1,1]", "--set", "net.patch=2"]
    assert main(["train", str(folders["real"]), "--run", str(run), "--steps", "20", *tiny]) == 0
    capsys.readouterr()
    arguments = ["measure", str(run), "--against", str(folders["alike"]), "--n", "60", "--bits", "16", "--json"]
    assert main(arguments) == 0
    result, _ = told(capsys)
    (bits,) = (m for m in result["metrics"] if m["key"] == "bits")
    assert bits["name"] == "bits[uniformly-dequantised,n=16,ref=alike]"
    assert 2 < bits["low"] < bits["value"] < bits["high"] < 16  # 8 would be uniform noise
    assert ("memorisation" in result) != any("copies are not counted" in note for note in result["notes"])
    assert json.loads((run / "measure.json").read_text())["metrics"] == result["metrics"]
    page = (run / "report.html").read_text()
    assert "95 % interval" in page and "bits per dimension" in page
