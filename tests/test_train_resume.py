"""A resumed run is the same run, bit for bit; and no kill -9 costs more than one checkpoint."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from training import FLOAT32, TINY, small_source

from sfumato.data import Augment
from sfumato.denoiser import TransformerConfig
from sfumato.train import Budget, EMAConfig, Optimiser, Recipe, Run, Setting, Trainer, fit, resume
from sfumato.train import checkpoint as checkpoints

BASE = Recipe(net=TINY, batch=8, optimiser=Optimiser(rate=2e-3, warmup=10), ema=EMAConfig(snapshots=4))


def start(folder: Path, steps: int, recipe: Recipe = BASE, setting: Setting = FLOAT32) -> tuple[Run, Trainer]:
    """What a new process makes to begin a run."""
    source = small_source()
    recipe = recipe.fit_to(source)
    trainer = Trainer(recipe.build(), recipe, source, Budget(steps=steps), setting)
    run = Run(folder)
    run.begin(recipe, source, trainer.budget, trainer.setting)
    return run, trainer


def again(folder: Path, setting: Setting = FLOAT32) -> tuple[Run, Trainer]:
    """What a new process makes to go on: nothing but the folder and the data."""
    run = Run(folder)
    recipe = run.recipe()
    trainer = Trainer(recipe.build(), recipe, small_source(), run.budget(), setting)
    resume(run, trainer)
    return run, trainer


def train_until(run: Run, trainer: Trainer, step: int, **options) -> None:
    if trainer.step >= step:
        return
    reports = fit(run, trainer, **options)
    for report in reports:
        if report.progress.step == step:
            reports.close()


def everything(run: Run, trainer: Trainer) -> dict[str, Any]:
    """All that a run leaves behind, seconds aside."""
    files, state = trainer.state()
    tensors = {f"{f}/{k}": v.detach().clone() for f, group in files.items() for k, v in group.items()}
    for folder in [*checkpoints.whole(run.snapshots), run.newest()]:
        for file in sorted(folder.glob("*.safetensors")):
            tensors |= {f"{folder.name}/{file.stem}/{k}": v for k, v in checkpoints.load(folder, file.stem).items()}
    rows = [{k: v for k, v in row.items() if k != "seconds"} for row in run.rows()]
    return {"tensors": tensors, "rows": rows, "state": {k: v for k, v in state.items() if k != "seconds"}}


def assert_same(one: dict[str, Any], two: dict[str, Any]) -> None:
    assert one["tensors"].keys() == two["tensors"].keys()
    different = [k for k, v in one["tensors"].items() if not torch.equal(v, two["tensors"][k])]
    assert different == []
    assert one["rows"] == two["rows"] and one["state"] == two["state"]


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    run, trainer = start(tmp_path_factory.mktemp("straight") / "run", 200)
    train_until(run, trainer, 200)
    found = everything(run, trainer)
    assert trainer.step == 200 and len(found["rows"]) == 20 and found["rows"][-1]["step"] == 200
    assert len(checkpoints.whole(run.snapshots)) == 4
    return found


@pytest.mark.parametrize("stops", [(80, 150), (83, 146)], ids=str)
def test_two_resumes_are_bit_identical_to_200_straight_steps(straight, tmp_path, stops) -> None:
    """80 + 70 + 50, and stops that lie between two rows of the log and between two updates of the averages."""
    run, trainer = start(tmp_path / "run", 200)
    train_until(run, trainer, stops[0])
    for stop in (stops[1], 200):
        del run, trainer
        torch.manual_seed(stop)  # a new process has another global generator
        run, trainer = again(tmp_path / "run")
        train_until(run, trainer, stop)
        assert trainer.step == stop
    assert_same(everything(run, trainer), straight)


def test_resuming_twice_in_a_row_without_a_step_changes_nothing(straight, tmp_path) -> None:
    run, trainer = start(tmp_path / "run", 200)
    train_until(run, trainer, 80)
    before = everything(run, trainer)
    for _ in range(2):
        run, trainer = again(tmp_path / "run")
        assert_same(everything(run, trainer), before)
        fit(run, trainer).close()
    train_until(run, trainer, 200)
    assert_same(everything(run, trainer), straight)


def test_a_finished_run_that_is_resumed_does_nothing(tmp_path) -> None:
    run, trainer = start(tmp_path / "run", 10)
    train_until(run, trainer, 10)
    before = everything(run, trainer)
    run, trainer = again(tmp_path / "run")
    assert list(fit(run, trainer)) == []
    assert_same(everything(run, trainer), before)


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError], ids=lambda e: e.__name__)
def test_an_interrupt_within_a_step_saves_nothing_torn(straight, tmp_path, monkeypatch, error) -> None:
    """The optimiser has moved some weights when a second Ctrl-C comes: that state must not become a checkpoint."""
    run, trainer = start(tmp_path / "run", 200)
    train_until(run, trainer, 80)
    run, trainer = again(tmp_path / "run")
    last = trainer.optimisers[-1]
    steps, move = 0, last.step

    def interrupted() -> None:
        nonlocal steps
        steps += 1
        if steps == 10:
            raise error
        move()

    monkeypatch.setattr(last, "step", interrupted)
    with pytest.raises(error):
        train_until(run, trainer, 200)
    run, trainer = again(tmp_path / "run")
    assert trainer.step == 80
    train_until(run, trainer, 200)
    assert_same(everything(run, trainer), straight)


def variant(**changes) -> Recipe:
    return Recipe(
        **{"net": TINY, "batch": 8, "ema": EMAConfig(snapshots=4), "optimiser": Optimiser(warmup=5)} | changes
    )


VARIANTS = {
    "augmented, in micro-batches": (variant(augment=Augment(), accumulate=4), FLOAT32),
    "transformer": (variant(net=TransformerConfig(patch=2, width=32, depth=1, head=16, bottleneck=8)), FLOAT32),
    "AdamW alone": (variant(optimiser=Optimiser(warmup=5, muon=0.0)), FLOAT32),
    "channels_last": (variant(), Setting(None, True)),
    "half precision, channels_last": (variant(), Setting(torch.bfloat16, True)),
}


@pytest.mark.parametrize("name", VARIANTS)
def test_resume_is_exact_for_every_kind_of_run(tmp_path, name) -> None:
    recipe, setting = VARIANTS[name]
    run, trainer = start(tmp_path / "straight", 40, recipe, setting)
    train_until(run, trainer, 40, reports=4)
    truth = everything(run, trainer)
    run, trainer = start(tmp_path / "cut", 40, recipe, setting)
    for stop in (13, 30, 40):
        if stop > 13:
            run, trainer = again(tmp_path / "cut", setting)
        train_until(run, trainer, stop, reports=4)
    assert_same(everything(run, trainer), truth)


def test_a_time_budget_goes_on_from_the_seconds_already_spent(tmp_path) -> None:
    run, trainer = start(tmp_path / "run", 10)
    now = [0.0]

    def clock() -> float:
        now[0] += 1.0
        return now[0]

    trainer.budget = Budget(seconds=30.0, clock=clock)
    train_until(run, trainer, 12)
    run, other = again(tmp_path / "run")
    other.budget = Budget(seconds=30.0, clock=clock)
    assert other.seconds == 12.0 and other.share == pytest.approx(0.4)
    assert len(list(fit(run, other))) == 18


def test_log_rows_of_steps_that_were_lost_are_written_once(tmp_path) -> None:
    run, trainer = start(tmp_path / "run", 20)
    reports = fit(run, trainer, checkpoint_seconds=1e9)
    for report in reports:
        if report.progress.step == 8:
            checkpoints.save(run.checkpoints / "00000008", *trainer.state())
        if report.progress.step == 15:
            break  # as if killed: no checkpoint of step 15
    reports.close()
    (run.checkpoints / "00000015" / "manifest.json").unlink()
    assert run.newest().name == "00000008"
    run, trainer = again(tmp_path / "run")
    assert [row["step"] for row in run.rows()] == list(range(1, 9))
    train_until(run, trainer, 20)
    assert [row["step"] for row in run.rows()] == list(range(1, 21))


# --- kill -9 -------------------------------------------------------------------------------------------------------

KILLS = 20


def killed(folder: Path, steps: int, seed: int) -> dict[str, Any]:
    """Train in forked children that save after every step, kill each at a random moment, and look at what is left."""
    import random
    import signal
    import time

    rng, left_behind, resumed_at = random.Random(seed), 0, []
    start(folder, steps)

    def child(pipe: int, checkpoint_seconds: float) -> None:
        if any(checkpoints.whole(Run(folder).checkpoints)):
            run, trainer = again(folder)
        else:
            recipe = Run(folder).recipe()
            run, trainer = Run(folder), Trainer(recipe.build(), recipe, small_source(), Budget(steps=steps), FLOAT32)
        for report in fit(run, trainer, checkpoint_seconds=checkpoint_seconds):
            os.write(pipe, report.progress.step.to_bytes(4, "little"))  # its checkpoint was whole by now

    for kill in range(KILLS + 1):
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                child(write, 0.0 if kill < KILLS else 1e9)
                os._exit(0)
            finally:
                os._exit(1)
        os.close(write)
        if kill < KILLS:
            said = os.read(read, 4)
            time.sleep(rng.random() * 0.1)
            os.kill(pid, signal.SIGKILL)
        code = os.waitpid(pid, 0)[1]
        while more := os.read(read, 4096):
            said = more[-4:]
        os.close(read)
        step = int.from_bytes(said, "little")
        assert os.WIFSIGNALED(code) if kill < KILLS else code == 0, (kill, code)
        left_behind += bool(list(folder.rglob(".tmp-*")))
        run, trainer = again(folder)  # loads, or raises
        assert checkpoints.verify(run.newest()) and step <= trainer.step <= step + 1, (kill, step, trainer.step)
        resumed_at.append(trainer.step)
    assert resumed_at == sorted(resumed_at) and resumed_at[-1] == steps
    return {
        "kills": KILLS,
        "torn saves": left_behind,
        "resumed at": resumed_at,
        "same": same_as_straight(folder, steps),
    }


def same_as_straight(folder: Path, steps: int) -> bool:
    run, trainer = start(folder.with_name("straight"), steps)
    train_until(run, trainer, steps)
    truth = everything(run, trainer)
    assert_same(everything(*again(folder)), truth)
    return True


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_twenty_kills_in_the_middle_of_saving(tmp_path) -> None:
    """Each child saves after every step. After each kill the newest checkpoint verifies, loads and is at most one step
    behind; at the end the run is bit-identical to one that nobody killed."""
    tests = Path(__file__).parent
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tests.parent), str(tests)]), "OMP_NUM_THREADS": "1"}
    code = (
        "import json, pathlib, test_train_resume as t\n"
        f"print(json.dumps(t.killed(pathlib.Path({str(tmp_path / 'run')!r}), 200, 0)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["kills"] == KILLS and found["same"]
    assert found["torn saves"] >= 3, found  # else the kills missed what they were aimed at
