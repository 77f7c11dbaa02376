"""Quality and copies while a model trains, and the stop: planted copies, honest pictures, nothing changed by looking."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from sfumato.cli import main, metering
from sfumato.data import Source
from sfumato.measure import meter as meters
from sfumato.measure.intervals import Interval
from sfumato.measure.meter import POINTS, SHARE, Meter, Reading, best, onset
from sfumato.tasks import load
from sfumato.train import Run, Setting, checkpoint

torch.set_num_threads(1)


def corners(x: Tensor) -> Tensor:
    """Features that need no training: means over eight fields."""
    return torch.nn.functional.adaptive_avg_pool2d(x, (2, 4)).mean(1).flatten(1)


@pytest.fixture(autouse=True)
def plain_features(monkeypatch) -> None:
    monkeypatch.setattr(meters, "features_for", lambda source: corners)


def noise_source(n: int, seed: int = 0) -> Source:
    """Pictures of independent pixels: new ones lie as far from the set as its members from each other."""
    pixels = np.random.default_rng(seed).integers(0, 256, (n, 8, 8, 1), dtype=np.uint8)
    return Source("noise", pixels, tuple(f"{k}.png" for k in range(n)))


def new(n: int, seed: int) -> Tensor:
    return torch.rand(n, 1, 8, 8, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def read(meter: Meter, x0: Tensor, step: int = 1) -> Reading:
    return meter.read(lambda: x0, step, 1.0, 32)


def test_planted_copies_are_seen_and_honest_pictures_raise_no_alarm() -> None:
    source = noise_source(60)
    meter = Meter(source)
    alarms = sum(read(meter, new(64, seed)).copying for seed in range(40))
    assert alarms == 0
    learned = source.batch(source.train_index).x0
    mixed = torch.cat([learned[:16] + 0.02 * new(16, 1), new(48, 2)])
    seen = read(meter, mixed)
    assert seen.copying and seen.copies.low < 0.25 < seen.copies.high and abs(seen.copies.value - 0.25) < 0.02
    whole = read(meter, learned[torch.arange(64) % len(learned)])
    assert whole.copies.low > 0.9 and whole.ratio.high < 0.01
    assert 0.9 < read(meter, new(64, 3)).ratio.value < 1.1


def test_a_set_that_repeats_itself_has_a_base_rate_and_raises_no_alarm() -> None:
    """Every picture twice with a little noise: new members of such a set look like copies, and are none of the model's."""
    once = noise_source(30)
    pixels = np.concatenate([once.pixels, np.clip(once.pixels.astype(int) + 2, 0, 255).astype(np.uint8)])
    meter = Meter(Source("twins", pixels, tuple(f"{k}.png" for k in range(60))))
    reading = read(meter, new(64, 4))
    assert meter.others.distances[:, 0].median() < 0.1 and reading.base > 0.5 and not reading.copying


def reading(step: int, kid: float, copying: bool) -> Reading:
    copies = Interval(0.2, 0.1, 0.3) if copying else Interval(0.0, 0.0, 0.05)
    return Reading(step, float(step), step, Interval(kid, kid, kid), 0.5, 0.5, copies, Interval(1, 1, 1), 0.0)


def test_one_reading_is_no_onset_and_the_best_is_sought_before_it() -> None:
    rows = [reading(1, 9, False), reading(2, 5, False), reading(3, 6, True), reading(4, 4, False), reading(5, 3, True)]
    assert onset(rows) is None
    rows.append(reading(6, 2, True))
    assert onset(rows) == 5 and best(rows) == rows[1]
    assert best(rows[2:]) == rows[2], "where all show copies, the earliest"
    assert onset([]) is None and best([]) is None
    assert Reading.from_json(json.loads(json.dumps(rows[2].to_json()))) == rows[2]


def test_readings_keep_to_their_points_and_to_their_share_of_the_time() -> None:
    meter = Meter(noise_source(40))
    taken = []
    for k in range(1, 2001):
        if meter.due(k / 2000, seconds=k * 1.0):
            taken.append(k / 2000)
            meter.last = 12.0
            meter.spent += meter.last
            assert meter.spent - meter.last <= SHARE * k
    assert 1 < len(taken) < len(POINTS) and all(any(0 <= t - p < 0.2 for p in POINTS) for t in taken)
    free = Meter(noise_source(40))
    assert sum(free.due(k / 2000, 1.0) for k in range(1, 2001)) == len(POINTS)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(5)
    for k in range(30):
        (tmp_path / "data").mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (8, 8), dtype=np.uint8)).save(tmp_path / "data" / f"{k}.png")
    return tmp_path


def train(folder: Path, run: str, *more: str) -> int:
    arguments = ["train", str(folder / "data"), "--run", str(folder / run), "--steps", "24", *more]
    if "--resume" not in more:
        arguments += ["--size", "8", "--set", "batch=4", "--set", "net.widths=[8,16]", "--set", "net.blocks=[1,1]"]
        arguments += ["--set", "net.embedding=16"]
    return main(arguments)


def weights(run: Path) -> dict[str, Tensor]:
    newest = checkpoint.newest(run / "checkpoints")
    return {f"{n}/{k}": v for n in ("weights", "ema", "optimiser") for k, v in checkpoint.load(newest, n).items()}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


@pytest.fixture
def eager(monkeypatch) -> None:
    """A meter that reads at every point of a run that takes a second."""
    monkeypatch.setattr(metering, "LEAST_SECONDS", 0.0)
    monkeypatch.setattr(meters, "SHARE", 1e9)


def test_looking_changes_nothing_of_the_training(folder: Path, monkeypatch) -> None:
    setting = Setting(None, False)
    monkeypatch.setattr("sfumato.train.plan.probe", lambda *_: (setting, {str(setting): 0.01}))
    assert train(folder, "blind") == 0
    monkeypatch.setattr(metering, "LEAST_SECONDS", 0.0)
    monkeypatch.setattr(meters, "SHARE", 1e9)
    assert train(folder, "seen", "--copies", "allow") == 0
    rows = Run(folder / "seen").rows("meter")
    assert len(rows) >= 8 and [r["step"] for r in rows] == sorted({r["step"] for r in rows})
    assert not (folder / "blind" / "meter.jsonl").exists()
    assert same(weights(folder / "blind"), weights(folder / "seen"))
    page = (folder / "seen" / "report.html").read_text()
    assert "kernel distance" in page and "Precision and recall" in page


def test_training_stops_when_copies_begin_and_the_best_average_before_is_the_model(
    folder: Path, eager: None, monkeypatch, capsys
) -> None:
    """From step 12 on the pictures of a reading are training pictures."""
    honest = metering.Metering._draw

    def planted(self: metering.Metering) -> Tensor:
        if self.trainer.step < 12:
            return honest(self)
        index = self.trainer.source.train_index
        return self.trainer.source.batch(index[torch.arange(64) % len(index)]).x0

    monkeypatch.setattr(metering.Metering, "_draw", planted)
    assert train(folder, "run") == 0
    run = Run(folder / "run")
    rows = run.rows("meter")
    told = capsys.readouterr().err
    assert "copies begin: stop" in told
    stopped = rows[-1]["step"]
    assert [r["step"] >= 12 for r in rows].count(True) == 2 and 12 < stopped < 24
    chosen = run.chosen()
    lowest = min((r for r in rows if r["step"] < 12), key=lambda r: r["kid"])
    assert chosen["step"] == lowest["step"] and f"step {chosen['step']:,}" in chosen["why"]

    kept = checkpoint.load(run.best / f"{chosen['step']:08d}", "ema")
    drawn_with = dict(load(run.path).denoiser.named_parameters())
    assert all(torch.equal(drawn_with[k], v.float()) for k, v in kept.items())
    last = dict(load(run.path, ema=0.1).denoiser.named_parameters())
    assert any(not torch.equal(last[k], drawn_with[k]) for k in last)

    assert train(folder, "run", "--resume", "--copies", "allow") == 0
    assert run.chosen() is None and run.rows("meter")[-1]["step"] == 24
    after = dict(load(run.path).denoiser.named_parameters())
    assert any(not torch.equal(after[k], drawn_with[k]) for k in after)


def test_short_runs_have_no_meter_and_a_damaged_choice_is_told(folder: Path, capsys) -> None:
    assert train(folder, "run") == 0
    run = Run(folder / "run")
    assert not (run.path / "meter.jsonl").exists() and run.chosen() is None
    (run.path / "chosen.json").write_text("{")
    assert main(["sample", str(run.path), "--out", str(folder / "x.png")]) == 2
    assert "chosen.json cannot be read" in capsys.readouterr().err


def test_a_set_of_few_pictures_is_trained_without_a_meter(folder: Path, eager: None, capsys) -> None:
    for k in range(12, 30):
        (folder / "data" / f"{k}.png").unlink()
    assert train(folder, "run", "--steps", "3") == 0
    assert "no meter: 12 pictures are too few" in capsys.readouterr().err
    assert (folder / "run" / "report.html").exists() and not (folder / "run" / "meter.jsonl").exists()


def test_what_is_wrong_stands_at_the_top_of_the_report(folder: Path, capsys) -> None:
    data = folder / "data"
    for k in range(30):
        place = data / ("rare" if k < 4 else "common")
        place.mkdir(exist_ok=True)
        (data / f"{k}.png").rename(place / f"{k}.png")
    (data / "common" / "torn.png").write_bytes(b"no picture")
    info = PngInfo()
    info.add_text("parameters", "Steps: 20, Sampler: Euler, CFG scale: 7, Seed: 1")
    Image.new("L", (8, 8)).save(data / "common" / "made.png", pnginfo=info)
    assert train(folder, "run", "--steps", "3") == 0
    page = (folder / "run" / "report.html").read_text()
    assert page.index("Warnings") < page.index("How good is it?")
    told = page[page.index("Warnings") : page.index("How good is it?")]
    for words in (
        "declare that AI made them",
        "1 files were left out",
        "torn.png",
        "copies them",
        "20 pictures: rare<",
    ):
        assert words in told, told
    assert "common" not in told.split("20 pictures:")[1]
