"""The model card: what a file knows, what measure found, and what only the user can tell."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image
from training import small_source

from sfumato.cli import main
from sfumato.data.files import write_text

TINY = ["--size", "8", "--set", "net.widths=[8,16]", "--set", "net.blocks=[1,1]", "--set", "net.embedding=32"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, run = tmp_path_factory.mktemp("pictures"), tmp_path_factory.mktemp("runs") / "bars"
    for k, pixels in enumerate(small_source(24).pixels[..., 0]):
        Image.fromarray(pixels).save(folder / f"{k:02d}.png")
    assert main(["train", str(folder), "--run", str(run), "--steps", "2", "--set", "batch=4", *TINY]) == 0
    return run


def row(run: Path, key: str) -> str:
    lines = (run / "card.md").read_text().splitlines()
    return next(line for line in lines if line.startswith(f"| {key} |"))


def test_what_is_told_is_kept(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["card", str(trained), "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == {"card": str(trained / "card.md")}
    assert "not stated" in row(trained, "licence of the data") and "not known" in row(trained, "energy of training")
    assert main(["card", str(trained), "--licence", "CC0-1.0", "--watts", "90"]) == 0
    assert main(["card", str(trained)]) == 0
    assert "CC0-1.0" in row(trained, "licence of the data") and "at 90 W" in row(trained, "energy of training")


def test_energy_is_time_times_power(trained: Path) -> None:
    log = [json.loads(line) for line in (trained / "log.jsonl").read_text().splitlines()]
    write_text(trained / "log.jsonl", "".join(json.dumps({**r, "seconds": 7200.0}) + "\n" for r in log))
    assert main(["card", str(trained), "--watts", "150"]) == 0
    assert "300.0 Wh: 2.00 hours at 150 W" in row(trained, "energy of training")


def test_what_measure_found_stands_in_the_card(trained: Path) -> None:
    assert main(["card", str(trained)]) == 0
    assert "Not measured" in (trained / "card.md").read_text()
    found = {"name": "kid[x,n=1000]", "value": 0.0123, "low": 0.01, "high": 0.0146, "floor": -0.0004}
    alone = {"name": "recall[x,n=1000]", "value": 0.5, "low": None, "high": None, "floor": None}
    write_text(trained / "measure.json", json.dumps({"metrics": [found, alone]}))
    assert main(["card", str(trained)]) == 0
    page = (trained / "card.md").read_text()
    assert r"| kid\[x,n=1000\] | 0.0123 | 0.01 | 0.0146 | -0.0004 |" in page
    assert r"| recall\[x,n=1000\] | 0.5 |  |  |  |" in page
    (trained / "measure.json").unlink()


@pytest.mark.parametrize(
    ("arguments", "said"), [(["--watts", "0"], "more than 0"), (["--watts", "nan"], "more than 0")]
)
def test_bad_input(arguments: list[str], said: str, trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["card", str(trained), *arguments]) == 2
    assert said in capsys.readouterr().err


def test_a_damaged_file_is_named(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (trained / "measure.json").write_text("{")
    assert main(["card", str(trained)]) == 2
    assert "measure.json cannot be read" in capsys.readouterr().err
    (trained / "measure.json").unlink()
    assert main(["card", str(trained.parent)]) == 2
    assert "is no run folder" in capsys.readouterr().err
