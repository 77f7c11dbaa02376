"""The experiments on the state of the data: what they build is what they say, and their tables hold what was measured."""

from __future__ import annotations

import io
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image, UnidentifiedImageError

from benchmarks import common, data_matters, data_tables, tables
from sfumato.data import Source
from sfumato.data.hygiene import ai_marks


def pictures(n: int, classes: int = 4, size: int = 32) -> Source:
    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (n, 8, 8, 1), dtype=np.uint8)
    pixels = small.repeat(size // 8, 1).repeat(size // 8, 2)
    labels = torch.arange(n) % classes
    return Source("made up", pixels, tuple(f"{k:05d}.png" for k in range(n)), tuple("abcdef"[:classes]), labels)


def test_every_second_class_is_cut_and_seeds_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data_matters, "FREQUENT", 50)
    monkeypatch.setattr(data_matters, "RARE", 5)
    full = pictures(400)
    for seed, counts in ((0, [50, 5, 50, 5]), (1, [5, 50, 5, 50])):
        cut = data_matters.unbalanced(full, seed, True)
        assert torch.bincount(cut.labels).tolist() == counts
        assert set(cut.keys) <= {full.keys[k] for k in full.train_index.tolist()}, "no held-out picture is learned from"
    assert torch.bincount(data_matters.unbalanced(full, 0, False).labels).tolist() == [50] * 4


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_exactly_the_share_of_training_rows_is_replaced_and_marked(share) -> None:
    base, drawn = pictures(200), np.full((200, 32, 32, 1), 7, np.uint8)
    mixed = data_matters.replaced(base, drawn, share, seed=0, generation=1)
    made = (mixed.pixels == 7).all((1, 2, 3))
    assert made.sum() == round(share * len(base.train_index))
    assert ai_marks(mixed).tolist() == made.tolist()
    assert not made[base.validation_index.numpy()].any()
    assert np.array_equal(mixed.pixels[~made], base.pixels[~made])
    again = data_matters.replaced(base, drawn, share, seed=0, generation=1)
    assert np.array_equal(again.pixels, mixed.pixels)


def test_the_spoilt_folder_holds_thirty_per_cent_of_faults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data_matters, "open_source", lambda name, size: pictures(900))
    lab = SimpleNamespace(n=100)
    named = data_matters.spoilt_folder(lab, tmp_path / "set", seed=0)
    faults = len(named["copy"]) + len(named["corrupted"])
    assert abs(faults / (faults + len(named["original"])) - 0.3) < 0.01
    assert {p.name for p in (tmp_path / "set").iterdir()} == set(named["original"] + named["copy"] + named["corrupted"])
    before = {p.name: p.read_bytes() for p in (tmp_path / "set").iterdir()}
    assert data_matters.spoilt_folder(lab, tmp_path / "set", seed=0) == named, "made once"
    twin = data_matters.spoilt_folder(lab, tmp_path / "twin", seed=0)
    assert twin == named and all((tmp_path / "twin" / n).read_bytes() == b for n, b in before.items())

    def pixels(name: str) -> np.ndarray:
        return np.asarray(Image.open(tmp_path / "set" / name).convert("L").resize((32, 32)), np.float64)

    originals = np.stack([pixels(name) for name in named["original"]])
    copies = named["copy"][: data_matters.COPIES]
    assert named["copied"] == named["original"][: len(named["copied"])]
    nearest = [int(np.abs(originals - pixels(name)).mean((1, 2)).argmin()) for name in copies]
    assert nearest == [0] * len(copies), "the first copies are of the first original"
    assert len({before[name] for name in copies}) > data_matters.COPIES / 3, "and are made in several ways"


def test_spoilt_pictures_are_spoilt() -> None:
    picture = Image.fromarray(pictures(1).pixels[0, :, :, 0])
    rng, true = np.random.default_rng(0), np.asarray(picture, np.float64)
    cut, blank, noisy, blurred = (data_matters.spoilt(picture, k, rng) for k in range(4))
    with pytest.raises((OSError, UnidentifiedImageError, SyntaxError)):
        Image.open(io.BytesIO(cut)).load()
    assert np.asarray(Image.open(io.BytesIO(blank))).std() == 0
    for content in (noisy, blurred):
        assert np.abs(np.asarray(Image.open(io.BytesIO(content)), np.float64) - true).mean() > 30
    assert np.asarray(Image.open(io.BytesIO(blurred))).std() < true.std() / 3


def result(name: str, runs: list[dict], folder: Path) -> None:
    sized = [{"steps": 10, "n": 100, **run} for run in runs]
    common.write(f"data_{name}", common.envelope(runs=sized, commands=["python -m benchmarks.data_matters"]), folder)


@pytest.fixture
def results(tmp_path: Path) -> Path:
    def cut(variant: str, seed: int, rare: float) -> dict:
        names = ["b"] if seed == 0 else ["a"]
        classes = {c: {"recall": rare if c in names else 0.8, "precision": 0.7, "pictures": 9} for c in "ab"}
        return {"variant": variant, "seed": seed, "classes": classes, "rare": names, "pictures": 18, "seconds": 90.0}

    result("imbalance", [cut("none", 0, 0.2), cut("none", 1, 0.4), cut("equal", 0, 0.6)], tmp_path)
    cleaned = {"kid": 0.05, "kid_se": 0.01, "copies": 0.02, "near_copied": 0.01, "share_copied": 0.007}
    cleaned |= {"pictures": 70, "seconds": 60.0, "left": dict.fromkeys(("original", "copied", "copy", "corrupted"), 3)}
    cleaned |= {"planted": {"original": 70, "copied": 2, "copy": 15, "corrupted": 15}}
    result("clean", [{"variant": v, "seed": 0, **cleaned} for v in ("spoilt", "cleaned")], tmp_path)
    generations = [{"generation": g, "recall": 0.6 - g / 10, "precision": 0.9, "kid": 0.1} for g in range(3)]
    result("collapse", [{"variant": v, "seed": 0, "generations": generations} for v in ("0 %", "50 %, cap")], tmp_path)
    return tmp_path


def test_the_tables_hold_what_was_measured(results: Path) -> None:
    text = tables.render("imbalance", results)
    assert "| cut | 0.300 | 0.800 |" in text and "| cut, `--balance equal` | 0.600 |" in text
    assert "| a | 0.400 | – |" in text and "| b | 0.200 | 0.600 |" in text, "each class where it was rare"
    text = tables.render("clean", results)
    assert "0.0500 ± 0.0100" in text and "Planted: 15 copies of 2 pictures" in text
    assert "| 0 % | 0.600 | 0.500 | 0.400 |" in tables.render("collapse", results)
    for name in data_tables.TABLES:
        assert "python -m benchmarks.data_matters" in tables.render(name, results), "a command stands beside"
    assert "data_matters imbalance" in tables.render("imbalance", results / "empty")


def test_runs_of_another_size_do_not_mix(results: Path) -> None:
    path = results / "data_imbalance.json"
    data = json.loads(path.read_text())
    data["runs"].insert(0, {**data["runs"][0], "steps": 999, "classes": {}})
    path.write_text(json.dumps(data))
    assert "| cut | 0.300 |" in tables.render("imbalance", results)


def test_pictures_are_drawn_for_all_that_is_measured(results: Path, tmp_path: Path) -> None:
    drawn = data_tables.pictures(results, tmp_path / "images")
    assert [p.name for p in drawn] == ["data_imbalance.png", "data_clean.png", "data_collapse.png"]
    for path in drawn:
        assert np.asarray(Image.open(path).convert("L")).std() > 5, "something is on it"
        assert f"images/{path.name}" in tables.render(path.stem.removeprefix("data_"), results)
    assert data_tables.pictures(tmp_path / "nothing", tmp_path / "images") == []
