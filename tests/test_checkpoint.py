"""Checkpoints are whole or not there: torn files, full disks, foreign weights, damaged run folders."""

from __future__ import annotations

import errno
import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from training import TINY, small_source, tiny_trainer

from sfumato.core import SfumatoError
from sfumato.denoiser import UNetConfig
from sfumato.train import Run, Trainer, fit, load_weights, resume
from sfumato.train import checkpoint as checkpoints

SOURCE = small_source()


def begun(folder: Path, steps: int = 12, **changes) -> tuple[Run, Trainer]:
    trainer = tiny_trainer(steps, source=SOURCE, **changes)
    run = Run(folder / "run")
    run.begin(trainer.recipe, SOURCE, trainer.budget, trainer.setting)
    return run, trainer


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run, trainer = begun(tmp_path_factory.mktemp("two"))
    steps = fit(run, trainer, reports=3, checkpoint_seconds=1e9)
    for report in steps:
        if report.progress.step == 4:
            checkpoints.save(run.checkpoints / "00000004", *trainer.state())
        if report.progress.step == 8:
            steps.close()
    assert [p.name for p in checkpoints.whole(run.checkpoints)] == ["00000004", "00000008"]
    return run.path


@pytest.fixture
def two(tmp_path: Path, template: Path) -> Run:
    """A run with whole checkpoints at steps 4 and 8 of 12."""
    shutil.copytree(template, tmp_path / "run")
    return Run(tmp_path / "run")


def flip(path: Path, place: int) -> None:
    raw = bytearray(path.read_bytes())
    raw[place] ^= 1
    path.write_bytes(raw)


DAMAGE = {
    "no manifest": lambda p: (p / "manifest.json").unlink(),
    "manifest empty": lambda p: (p / "manifest.json").write_text(""),
    "manifest cut": lambda p: (p / "manifest.json").write_text((p / "manifest.json").read_text()[:40]),
    "manifest of another kind": lambda p: (p / "manifest.json").write_text("[1, 2]"),
    "manifest without entries": lambda p: (p / "manifest.json").write_text('{"sha256": {}}'),
    "first byte flipped": lambda p: flip(p / "weights.safetensors", 0),
    "last byte flipped": lambda p: flip(p / "optimiser.safetensors", -1),
    "bit of the step flipped": lambda p: flip(p / "state.json", 9),
    "weights cut": lambda p: os.truncate(p / "weights.safetensors", 5000),
    "averages emptied": lambda p: os.truncate(p / "ema.safetensors", 0),
    "a file gone": lambda p: (p / "ema.safetensors").unlink(),
    "state gone": lambda p: (p / "state.json").unlink(),
    "empty folder": lambda p: [f.unlink() for f in p.iterdir()],
    "folder gone": shutil.rmtree,
    "a file in place of the folder": lambda p: (shutil.rmtree(p), p.write_text("oops")),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_checkpoint_gives_way_to_the_one_before(two, damage) -> None:
    newest = two.newest()
    assert newest.name == "00000008"
    DAMAGE[damage](newest)
    assert two.newest().name == "00000004"
    trainer = tiny_trainer(12, source=SOURCE)
    resume(two, trainer)
    assert trainer.step == 4
    assert len(two.averaged()) == len(trainer.weights)
    for _ in fit(two, trainer, reports=3):
        pass
    assert trainer.step == 12 and two.newest().name == "00000012"


def test_all_damaged_is_said_in_one_line(two) -> None:
    for path in checkpoints.whole(two.checkpoints):
        os.truncate(path / "weights.safetensors", 100)
    with pytest.raises(SfumatoError, match="holds no whole checkpoint") as caught:
        resume(two, tiny_trainer(12, source=SOURCE))
    assert "\n" not in str(caught.value)


def test_leftovers_of_a_crash_are_not_read_and_are_swept(two) -> None:
    left = two.checkpoints / ".tmp-00000010-123"
    shutil.copytree(two.newest(), left)
    also = two.snapshots / ".tmp-00000009-123"
    also.mkdir(parents=True)
    assert two.newest().name == "00000008"
    resume(two, tiny_trainer(12, source=SOURCE))
    assert not left.exists() and not also.exists()


def test_resuming_forgets_an_abandoned_future(two) -> None:
    """A torn newer checkpoint and averages stored beyond the resumed step belong to steps that will be made anew."""
    late = two.snapshots / "00000011"
    late.mkdir(parents=True, exist_ok=True)
    (two.newest() / "manifest.json").unlink()
    resume(two, tiny_trainer(12, source=SOURCE))
    assert not late.exists() and [p.name for p in two.checkpoints.iterdir()] == ["00000004"]


def test_pruning_keeps_the_newest_and_the_newest_whole_one(tmp_path) -> None:
    for step in range(1, 7):
        checkpoints.save(tmp_path / f"{step:08d}", {"weights": {"w": torch.ones(3)}}, {"step": step})
    checkpoints.prune(tmp_path, keep=2)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["00000005", "00000006"]
    (tmp_path / "00000006" / "manifest.json").unlink()
    shutil.copytree(tmp_path / "00000006", tmp_path / "00000007")
    checkpoints.prune(tmp_path, keep=2)
    assert checkpoints.newest(tmp_path).name == "00000005"


def test_a_checkpoint_holds_exactly_what_was_given(tmp_path) -> None:
    given = {
        "a/b": torch.randn(3, 4, 5, 5).contiguous(memory_format=torch.channels_last),
        "step": torch.tensor(7.0),
        "h": torch.ones(2).half(),
    }
    checkpoints.save(tmp_path / "00000001", {"weights": given, "ema": {}}, {"step": 1, "seconds": 0.1 + 0.2})
    found = checkpoints.load(tmp_path / "00000001", "weights")
    assert found.keys() == given.keys()
    assert all(torch.equal(found[k], v) and found[k].dtype == v.dtype for k, v in given.items())
    assert checkpoints.load_state(tmp_path / "00000001") == {"step": 1, "seconds": 0.1 + 0.2}
    names = {p.name for p in (tmp_path / "00000001").iterdir()}
    assert names == {"weights.safetensors", "ema.safetensors", "state.json", "manifest.json"}
    checkpoints.save(tmp_path / "00000001", {"weights": {"w": torch.zeros(1)}}, {"step": 1})  # again, in its place
    assert checkpoints.verify(tmp_path / "00000001") and not list(tmp_path.glob(".tmp-*"))


# --- full disk -----------------------------------------------------------------------------------------------------

FULL = [
    OSError(errno.ENOSPC, "No space left on device"),
    SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
]


@pytest.mark.parametrize("error", FULL, ids=["OSError", "SafetensorError"])
@pytest.mark.parametrize("nth", [1, 2, 3])
def test_a_full_disk_is_one_line_and_earlier_checkpoints_stay(two, monkeypatch, error, nth) -> None:
    before = {p.name: checkpoints.load(p, "weights") for p in checkpoints.whole(two.checkpoints)}
    trainer = tiny_trainer(12, source=SOURCE)
    resume(two, trainer)
    count, write = [0], checkpoints.save_file

    def full(tensors, path, *args) -> None:
        count[0] += 1
        if count[0] >= nth:
            Path(path).write_bytes(b"half of")
            raise error
        write(tensors, path, *args)

    monkeypatch.setattr(checkpoints, "save_file", full)
    with pytest.raises(SfumatoError, match="could not save .*No space left on device.*--resume") as caught:
        for _ in fit(two, trainer, reports=3):
            pass
    assert "\n" not in str(caught.value)
    monkeypatch.undo()
    assert not list(two.path.rglob(".tmp-*"))
    whole = checkpoints.whole(two.checkpoints)
    assert [p.name for p in whole] == sorted(before)
    for path in whole:
        assert all(torch.equal(v, before[path.name][k]) for k, v in checkpoints.load(path, "weights").items())
    again = tiny_trainer(12, source=SOURCE)
    resume(two, again)
    assert again.step == 8


@pytest.mark.parametrize("name", ["write_text", "mkdir", "rename"])
def test_a_full_disk_at_any_other_moment(two, monkeypatch, name) -> None:
    files, state = {"weights": {"w": torch.ones(2)}}, {"step": 9}

    def full(self, *args, **kwargs):
        raise FULL[0]

    monkeypatch.setattr(Path, name, full)
    with pytest.raises(SfumatoError, match="No space left"):
        checkpoints.save(two.checkpoints / "00000009", files, state)
    monkeypatch.undo()
    assert two.newest().name == "00000008" and not list(two.checkpoints.glob(".tmp-*"))


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path) -> None:
    (tmp_path / "file").write_text("in the way")
    trainer = tiny_trainer(5, source=SOURCE)
    with pytest.raises(SfumatoError, match="cannot write the run folder"):
        Run(tmp_path / "file" / "run").begin(trainer.recipe, SOURCE, trainer.budget, trainer.setting)


# --- other models and damaged folders ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("net", "said"),
    [
        (UNetConfig(patch=2, widths=(8, 16), blocks=(2, 1), embedding=32), "lack 'net.down.0.1"),
        (UNetConfig(patch=2, widths=(8,), blocks=(1,), embedding=32), "have an unknown 'net.down.1"),
        (UNetConfig(patch=2, widths=(8, 24), blocks=(1, 1), embedding=32), r"net.* is \(48, 32\), expected \(72, 32\)"),
    ],
)
def test_weights_of_another_model_are_refused_by_name(two, net, said) -> None:
    with pytest.raises(SfumatoError, match=f"another model's: .*{said}") as caught:
        resume(two, tiny_trainer(12, source=SOURCE, net=net))
    assert "\n" not in str(caught.value)


def test_refused_weights_leave_the_model_as_it_was() -> None:
    trainer = tiny_trainer(2, source=SOURCE)
    before = {n: p.detach().clone() for n, p in trainer.weights.items()}
    wrong = {n: torch.ones_like(p) for n, p in before.items()}
    last = list(wrong)[-1]
    wrong[last] = torch.ones(3, 3)
    with pytest.raises(SfumatoError, match=last):
        load_weights(trainer.denoiser, wrong)
    assert all(torch.equal(p, before[n]) for n, p in trainer.weights.items())


def test_a_run_describes_itself(tmp_path) -> None:
    run, trainer = begun(tmp_path)
    assert run.recipe() == trainer.recipe and run.budget() == trainer.budget
    described = run.describe()
    assert described["codec"] == {"channels": 1, "height": 8, "width": 8, "shapes": [[8, 8]]}
    assert described["classes"] == ["down", "across"]
    assert described["data"]["pictures"] == 64 and described["recipe"]["net"]["widths"] == list(TINY.widths)
    with pytest.raises(SfumatoError, match="already holds a run.*--resume"):
        run.begin(trainer.recipe, SOURCE, trainer.budget, trainer.setting)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "is no run folder .no run.json.*sfumato train"),
        ("", "cannot be read.*damaged"),
        ('{"recipe": {"net"', "cannot be read.*damaged"),
        ("[]", "damaged"),
        ("3", "damaged"),
        ("{}", "lacks 'recipe'.*damaged"),
        ('{"recipe": {}}', "lacks 'data'.*damaged"),
    ],
)
def test_a_damaged_run_folder_is_one_line(two, text, said) -> None:
    path = two.path / "run.json"
    path.unlink() if text is None else path.write_text(text)
    for ask in (two.describe, two.recipe, two.budget, two.averaged):
        with pytest.raises(SfumatoError, match=said) as caught:
            ask()
        assert "\n" not in str(caught.value)


def test_a_budget_or_recipe_that_makes_no_sense_is_one_line(two) -> None:
    path = two.path / "run.json"
    good = json.loads(path.read_text())
    for change in ({"budget": {"steps": "many"}}, {"budget": {"hours": 3}}, {"budget": None}, {"recipe": []}):
        path.write_text(json.dumps(good | change))
        with pytest.raises(SfumatoError) as caught:
            two.recipe(), two.budget()
        assert "\n" not in str(caught.value)


def test_half_a_run_folder(two, tmp_path) -> None:
    shutil.rmtree(two.checkpoints)
    with pytest.raises(SfumatoError, match="no whole checkpoint"):
        two.averaged()
    shutil.rmtree(two.snapshots, ignore_errors=True)
    (two.path / "log.jsonl").unlink(missing_ok=True)
    assert two.rows() == [] and two.recipe()
    with pytest.raises(SfumatoError, match="no run folder"):
        Run(tmp_path / "nowhere").averaged()


def test_a_log_line_cut_short_is_left_out(two) -> None:
    rows = two.rows()
    assert rows
    with (two.path / "log.jsonl").open("a") as file:
        file.write('{"step": 9, "lo')
    assert two.rows() == rows
    resume(two, tiny_trainer(12, source=SOURCE))
    assert two.rows() == rows and (two.path / "log.jsonl").read_text().endswith("}\n")


def test_any_width_can_be_asked_of_a_finished_run(tmp_path) -> None:
    run, trainer = begun(tmp_path, steps=80)
    for _ in fit(run, trainer, reports=3):
        pass
    assert len(checkpoints.whole(run.snapshots)) == 4
    for width, tracked in zip(trainer.ema.widths, trainer.ema.averages, strict=True):
        assert all(torch.equal(v, tracked[k]) for k, v in run.averaged(width).items())
    found = run.averaged(0.07)
    narrow, wide, between = (torch.cat([a[k].flatten() for k in sorted(found)]) for a in (*trainer.ema.averages, found))
    assert (between - narrow).norm() < (wide - narrow).norm() and (between - wide).norm() < (wide - narrow).norm()
    with pytest.raises(SfumatoError, match="between 0 and 0.28"):
        run.averaged(0.5)


def test_a_run_that_goes_wrong_leaves_the_last_good_checkpoint_the_newest(tmp_path) -> None:
    run, trainer = begun(tmp_path, steps=12)
    with pytest.raises(SfumatoError, match="the weights net.head.bias are not finite; the last checkpoint is good"):
        for report in fit(run, trainer, reports=3, checkpoint_seconds=1e9):
            if report.progress.step == 4:
                checkpoints.save(run.checkpoints / "00000004", *trainer.state())
            if report.progress.step == 6:
                trainer.weights["net.head.bias"].data[0] = float("nan")
    assert run.newest().name == "00000004"
    assert all(v.isfinite().all() for v in checkpoints.load(run.newest(), "weights").values())
    again = tiny_trainer(12, source=SOURCE)
    resume(run, again)
    for _ in fit(run, again, reports=3):
        pass
    assert again.step == 12


def test_previews_of_an_abandoned_future_are_forgotten(tmp_path) -> None:
    run = Run(tmp_path / "run")
    trainer = tiny_trainer(4, source=SOURCE)
    run.begin(trainer.recipe, SOURCE, trainer.budget, trainer.setting)
    for _ in fit(run, trainer):
        pass
    run.previews.mkdir()
    for name in ("00000003.png", "00000004.png", "00000007.png", "my own.png"):
        (run.previews / name).write_bytes(b"")
    resume(run, tiny_trainer(4, source=SOURCE))
    assert sorted(p.name for p in run.previews.iterdir()) == ["00000003.png", "00000004.png", "my own.png"]
