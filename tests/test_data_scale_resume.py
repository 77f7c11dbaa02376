"""Training on pictures that are not in memory: the same run as in memory, resumed twice, with any number of readers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from scaling import make_folder
from test_train_resume import assert_same, everything, train_until
from training import FLOAT32, TINY

import sfumato.data as data
from sfumato.data import source as source_module
from sfumato.data.lazy import Lazy
from sfumato.data.order import Window
from sfumato.data.pack import pack
from sfumato.data.records import open_records
from sfumato.data.source import Source
from sfumato.train import Budget, EMAConfig, Optimiser, Recipe, Run, Trainer, resume

BASE = Recipe(net=TINY, batch=8, optimiser=Optimiser(rate=2e-3, warmup=10), ema=EMAConfig(snapshots=4))
WINDOW = Window(rows=16, block=4)


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("sets")
    pack(open_records(str(make_folder(root / "pets", 40))), root / "packed", 60_000)
    return root / "packed"


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SFUMATO_CACHE", str(tmp_path / "cache"))


def lazily(packed: Path, monkeypatch: pytest.MonkeyPatch, readers: int = 2) -> Source:
    monkeypatch.setattr(source_module, "LIMIT_BYTES", 1)
    source = data.open(packed, size=8)
    assert isinstance(source.pixels, Lazy) and source.window == Window(8192, 64)
    return replace(source, pixels=replace(source.pixels, readers=readers), window=WINDOW)


def trainer(source: Source, recipe: Recipe, steps: int) -> Trainer:
    return Trainer(recipe.build(), recipe, source, Budget(steps=steps), FLOAT32)


def begin(folder: Path, source: Source, steps: int) -> tuple[Run, Trainer]:
    recipe = BASE.fit_to(source)
    made, run = trainer(source, recipe, steps), Run(folder)
    run.begin(recipe, source, made.budget, made.setting)
    return run, made


def test_in_memory_and_on_demand_are_the_same_run(packed: Path, tmp_path: Path, monkeypatch) -> None:
    in_memory = replace(data.open(packed, size=8), window=WINDOW)
    run, made = begin(tmp_path / "memory", in_memory, 30)
    train_until(run, made, 30, reports=4)
    truth = everything(run, made)
    run, made = begin(tmp_path / "lazy", lazily(packed, monkeypatch), 30)
    train_until(run, made, 30, reports=4)
    assert_same(everything(run, made), truth)


def test_resumed_twice_with_other_numbers_of_readers(packed: Path, tmp_path: Path, monkeypatch) -> None:
    """Stopped at steps 7 and 19, which lie within an epoch and a window, and gone on with by 1 and by 5 readers."""
    run, made = begin(tmp_path / "straight", lazily(packed, monkeypatch), 30)
    train_until(run, made, 30, reports=4)
    truth = everything(run, made)
    run, made = begin(tmp_path / "cut", lazily(packed, monkeypatch), 30)
    train_until(run, made, 7, reports=4)
    for stop, readers in ((19, 1), (30, 5)):
        run = Run(tmp_path / "cut")
        made = trainer(lazily(packed, monkeypatch, readers), run.recipe(), 30)
        resume(run, made)
        for step in range(made.step, made.step + 6):  # the very batches, not only their sum
            other = lazily(packed, monkeypatch, 3)
            assert torch.equal(made.batch(step)[0].x0, trainer(other, run.recipe(), 30).batch(step)[0].x0)
        train_until(run, made, stop, reports=4)
    assert_same(everything(run, made), truth)


def test_a_trained_step_asks_for_what_was_expected(packed: Path, tmp_path: Path, monkeypatch) -> None:
    """While a step is computed the next batch is read, and nothing else: every picture is decoded once per visit."""
    source = lazily(packed, monkeypatch)
    recipe = BASE.fit_to(source)
    made = trainer(source, recipe, 12)
    decoded = []
    really = Lazy._decode
    monkeypatch.setattr(Lazy, "_decode", lambda self, row: decoded.append(row) or really(self, row))
    steps = made.steps()
    for k in range(10):
        next(steps)
        ahead = made.source.train_index[made.order.at(k + 1)]
        assert set(source.pixels.ahead) == set(ahead.tolist())
    wanted = sum(len(set(made.order.at(k).tolist())) for k in range(11))
    assert len(decoded) == wanted
