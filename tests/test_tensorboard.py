"""TensorBoard's own reader finds the log of a run in what we write."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image
from test_memory import blobs

from sfumato.cli import main
from sfumato.train import Run

TINY = ["--size", "16", "--set", "net.widths=[8,16]", "--set", "net.blocks=[1,1]", "--set", "net.embedding=32"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, run = tmp_path_factory.mktemp("pictures"), tmp_path_factory.mktemp("runs") / "run"
    for k, pixels in enumerate(blobs(30, 0)[..., 0]):
        Image.fromarray(pixels).save(folder / f"{k:02d}.png")
    assert main(["train", str(folder), "--run", str(run), "--steps", "4", "--set", "batch=4", *TINY]) == 0
    return run


def test_every_number_and_preview_is_read_back(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    out = tmp_path / "events"
    assert main(["tensorboard", str(trained), "--to", str(out), "--json"]) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    events = EventAccumulator(str(out)).Reload()
    rows = Run(trained).rows()
    assert told["rows"] == len(rows) > 1
    for name in ("loss", "validation_loss", "trained_loss", "images"):
        read = {e.step: e.value for e in events.Scalars(name)}
        assert read == pytest.approx({row["step"]: row[name] for row in rows}, rel=1e-6)
    quarters = [events.Scalars(f"validation_levels/{name}") for name in ("least noise", "little", "much", "most noise")]
    assert [q[-1].value for q in quarters] == pytest.approx(rows[-1]["validation_levels"], rel=1e-6)
    shown = events.Images("previews")
    assert told["previews"] == len(shown) > 0
    assert (shown[-1].height, shown[-1].width) == Image.open(sorted((trained / "previews").glob("*.png"))[-1]).size[
        ::-1
    ]


def test_bad_input(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    for arguments, said in (
        ([str(tmp_path)], "is no run folder"),
        ([str(trained), "--to", str(tmp_path / "full")], "holds something already"),
    ):
        assert main(["tensorboard", *arguments]) == 2
        assert said in capsys.readouterr().err
