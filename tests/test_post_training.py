"""The commands that come after a training: distill, calibrate, autoguidance, and what the files they make tell."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path

import pytest
import torch

import sfumato
import sfumato.cli.neon
from sfumato.cli import main
from sfumato.cli import neon as neon_command
from sfumato.cli import train as training
from sfumato.core import Noise
from sfumato.forward import RectifiedFlow
from sfumato.guide import autoguide
from sfumato.measure import Kid
from sfumato.measure.oracles import Mixture
from sfumato.reverse import DPMpp2M, flow, sample
from sfumato.tasks.receipt import receipt_in
from sfumato.train import Consistency, Run

TINY = ["--set", "net.widths=[8,16]", "--set", "net.blocks=[1,1]", "--set", "net.patch=1", "--set", "net.embedding=32"]


@pytest.fixture(autouse=True, scope="module")
def own_cache(tmp_path_factory: pytest.TempPathFactory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SFUMATO_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "digits"
    assert main(["train", "digits", "--run", str(run), "--steps", "48", *TINY]) == 0
    return run


@pytest.fixture(scope="module")
def stopped(base: Path) -> Path:
    """A distillation with guidance that was stopped after its first preview."""
    run = base.parent / "few"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "_preview", lambda *a: os.kill(os.getpid(), signal.SIGINT))
        command = ["distill", str(base), "--run", str(run), "--steps", "24", "--guidance", "2", "--calls", "2"]
        assert main(command) == 0
    assert 0 < Run(run).rows()[-1]["step"] < 24 or not Run(run).rows()
    return run


@pytest.fixture(scope="module")
def few(stopped: Path) -> Path:
    run = stopped.parent / "few-whole"
    shutil.copytree(stopped, run)
    assert main(["distill", str(stopped.parent / "digits"), "--run", str(run), "--resume"]) == 0
    return run


def refused(capsys: pytest.CaptureFixture[str], *command: str) -> str:
    capsys.readouterr()
    assert main(list(command)) == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert said.startswith(f"sfumato {command[0]}: ")
    return said


# --- few steps ------------------------------------------------------------------------------------------------------


def test_a_few_step_model_says_how_it_is_sampled(few: Path, tmp_path: Path, capsys) -> None:
    """From the run folder and from one file; the base's way of sampling is no longer its own."""
    facts = Run(few).describe()
    assert facts["began"] == {"how": "distill", "from": "digits"}
    assert isinstance(Run(few).recipe().objective, Consistency) and Run(few).recipe().objective.guidance == 2
    assert main(["export", str(few), "--to", str(tmp_path / "few.safetensors")]) == 0
    x0 = {}
    for model in (few, tmp_path / "few.safetensors"):
        capsys.readouterr()
        out = tmp_path / "sheet.png"
        assert main(["sample", str(model), "--n", "4", "--class", "3", "--out", str(out), "--json"]) == 0
        assert json.loads(capsys.readouterr().out.splitlines()[-1])["network_calls"] == 2
        asked = receipt_in(out)["request"]
        assert (asked["solver"], asked["steps"]) == ("consistency", 2)
        x0[model] = sfumato.load(model).generate(n=4).x0
    assert torch.equal(*x0.values())
    assert sfumato.load(few).generate(n=4, steps=1).network_calls == 1


def test_it_began_with_the_weights_of_its_model(base: Path, stopped: Path) -> None:
    first, kept = sfumato.load(base), sfumato.load(stopped / training.BASE)
    after = sfumato.load(stopped)
    gap = far = 0.0
    for name, p in first.denoiser.named_parameters():
        assert torch.equal(p, dict(kept.denoiser.named_parameters())[name])
        gap += float((p - dict(after.denoiser.named_parameters())[name]).square().sum())
        far += float(p.square().sum())
    assert 0 < gap < 0.1 * far


def test_a_stopped_distillation_goes_on_bit_for_bit(stopped: Path, few: Path) -> None:
    """Once to the end in one go, once stopped again on the way: the teacher is read from the run's own folder."""
    run = stopped.parent / "few-twice"
    shutil.copytree(stopped, run)
    shutil.copytree(stopped.parent / "digits", stopped.parent / "moved")
    command = ["distill", str(stopped.parent / "nowhere"), "--source", "digits", "--run", str(run), "--resume"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "_preview", lambda *a: os.kill(os.getpid(), signal.SIGINT))
        assert main(command) == 0
    assert main(command) == 0
    ours, theirs = Run(run).averaged(), Run(few).averaged()
    assert all(torch.equal(ours[k], theirs[k]) for k in theirs)
    assert [r["loss"] for r in Run(run).rows()] == [r["loss"] for r in Run(few).rows()]


def test_what_cannot_be_distilled_is_one_line(base: Path, few: Path, tmp_path: Path, capsys) -> None:
    new = ["--run", str(tmp_path / "new"), "--steps", "2"]
    assert "few-step model already" in refused(capsys, "distill", str(few), *new)
    assert "no run folder" in refused(capsys, "distill", str(tmp_path / "none"), "--source", "digits", *new)
    assert "--calls" in refused(capsys, "distill", str(base), *new, "--calls", "0")
    assert "keeps its net" in refused(capsys, "distill", str(base), *new, "--set", "net.embedding=64")
    assert "--set objective" in refused(capsys, "distill", str(base), *new, "--set", "objective=SquaredError")
    file = tmp_path / "digits.safetensors"
    assert main(["export", str(base), "--to", str(file)]) == 0
    assert "--source" in refused(capsys, "distill", str(file), *new)
    for name in ("X0", "Eps"):
        other = tmp_path / name
        shutil.copytree(base, other)
        facts = json.loads((other / "run.json").read_text())
        facts["recipe"]["parameterisation"] = {"is": name}
        (other / "run.json").write_text(json.dumps(facts))
        assert "EDMTarget" in refused(capsys, "distill", str(other), *new)
    assert "sfumato distill" in refused(capsys, "train", "digits", "--run", str(few), "--resume")
    assert "adapt the model" in refused(capsys, "adapt", str(few), "digits", *new)
    assert "already holds a run" in refused(capsys, "distill", str(base), "--run", str(few))
    assert "few-step" in refused(capsys, "calibrate", str(few))
    assert "denois" in refused(capsys, "doctor", str(few))
    assert not (tmp_path / "new" / "run.json").exists()


# --- times of its own -----------------------------------------------------------------------------------------------


def test_calibrated_times_are_kept_with_the_model(base: Path, tmp_path: Path, capsys) -> None:
    run, file = tmp_path / "run", tmp_path / "digits.safetensors"
    shutil.copytree(base, run)
    assert "calibrated" in refused(capsys, "sample", str(run), "--grid", "calibrated", "--out", str(tmp_path / "a.png"))
    assert main(["export", str(run), "--to", str(file), "--with-weak"]) == 0
    times = {}
    for model in (run, file):
        capsys.readouterr()
        assert main(["calibrate", str(model), "--steps", "4", "6", "--json"]) == 0
        told = json.loads(capsys.readouterr().out.splitlines()[-1])["steps"]
        loaded = sfumato.load(model)
        stored = loaded.facts.get("calibrated", {}).get("dpmpp2m", {})
        assert set(stored) == {steps for steps, row in told.items() if row["kept"]}
        assert all(row["kept"] == (row["error_calibrated"] < row["error_flow"]) for row in told.values())
        times[model] = stored
        for steps in stored:
            result = loaded.generate(n=2, grid="calibrated", steps=int(steps))
            assert result.network_calls == int(steps)
            assert not torch.equal(result.x0, loaded.generate(n=2, steps=int(steps)).x0)
    assert times[run] == times[file] and times[run]
    assert sfumato.load(file).weak is not None  # what else the file held is still there
    assert "9 steps" in refused(
        capsys, "sample", str(run), "--grid", "calibrated", "--steps", "9", "--out", str(tmp_path / "a.png")
    )


# --- autoguidance ---------------------------------------------------------------------------------------------------


def test_autoguidance_goes_to_the_likelier_mode() -> None:
    """The weak self knows the modes, blurred and alike; the strong one knows that one of them is likelier."""
    process, means = RectifiedFlow(), torch.tensor([[-0.5, 0.0], [0.5, 0.0]])
    strong = Mixture(process, means, 0.01, torch.tensor([0.35, 0.65]))
    weak = Mixture(process, means, 0.04)
    share, spread = {}, {}
    for w in (1.0, 1.5, 2.0):
        noise = Noise.of(0, 600)
        x = sample(autoguide(weak, w)(strong), (600, 2), noise, DPMpp2M(), flow(24, process))
        right = x[:, 0] > 0
        share[w], spread[w] = right.float().mean().item(), x[right].std(0).mean().item()
    assert share[1.0] == pytest.approx(0.65, abs=0.06)
    assert share[2.0] > share[1.5] > share[1.0] + 0.02
    assert spread[2.0] < spread[1.0]


def test_autoguidance_of_one_is_none_and_of_two_asks_the_early_self(base: Path, tmp_path: Path, capsys) -> None:
    model = sfumato.load(base)
    none, one, two = (model.generate(n=4, **more) for more in ({}, {"autoguidance": 1.0}, {"autoguidance": 2.0}))
    assert torch.equal(none.x0, one.x0) and one.network_calls == none.network_calls
    assert not torch.equal(none.x0, two.x0) and two.network_calls == 2 * none.network_calls
    early = Run(base).early()
    assert all(torch.equal(p, early[k]) for k, p in model.weak().named_parameters())
    bare, full = tmp_path / "bare.safetensors", tmp_path / "full.safetensors"
    assert main(["export", str(base), "--to", str(bare)]) == 0
    assert main(["export", str(base), "--to", str(full), "--with-weak"]) == 0
    assert torch.equal(sfumato.load(full).generate(n=4, autoguidance=2.0).x0, two.x0)
    assert 1.4 < full.stat().st_size / bare.stat().st_size < 1.6
    out = str(tmp_path / "a.png")
    assert "--with-weak" in refused(capsys, "sample", str(bare), "--autoguidance", "2", "--out", out)
    assert "--with-weak" in refused(
        capsys, "export", str(bare), "--to", out.replace("png", "safetensors"), "--with-weak"
    )


# --- neon -----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_neon_moves_the_weights_away_from_what_its_own_pictures_taught(base: Path, tmp_path: Path, capsys) -> None:
    """w = (1 + k) base - k tuned, with the k that scores least, if it scores less on other pictures too."""
    scores = iter([5.0, 4.0, 3.0, 2.0, 4.0, 5.0, 5.0, 1.0])  # k = 0, 0.25, 0.5, 1, 1.5, 2; then before and after
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(neon_command, "kid", lambda a, b: Kid(next(scores), 0.1))
        assert main(["neon", str(base), "--run", str(tmp_path / "n"), "--steps", "6", "--n", "128", "--json"]) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert told["k"] == 1.0 and told["kept"] and next(scores, None) is None
    first, tuned, got = (
        dict(sfumato.load(p).denoiser.named_parameters()) for p in (base, tmp_path / "n", told["file"])
    )
    moved = 0.0
    for name, p in got.items():
        assert torch.allclose(p, 2 * first[name] - tuned[name], atol=1e-6)
        moved += float((p - first[name]).abs().sum())
    assert moved > 0
    source = Run(tmp_path / "n").describe()["data"]
    assert source["name"] == "its own pictures" and source["ai_made"]["share"] == 1


@pytest.mark.slow
def test_neon_that_does_not_help_writes_nothing(base: Path, tmp_path: Path, capsys) -> None:
    scores = iter([5.0, 4.0, 3.0, 2.0, 4.0, 5.0, 1.0, 1.5])  # better on the first pictures, worse on the others
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(neon_command, "kid", lambda a, b: Kid(next(scores), 0.1))
        assert main(["neon", str(base), "--run", str(tmp_path / "n"), "--steps", "2", "--n", "128", "--json"]) == 0
    assert not json.loads(capsys.readouterr().out.splitlines()[-1])["kept"]
    assert not (tmp_path / "n" / neon_command.FILE).exists()
    assert "--n" in refused(capsys, "neon", str(base), "--run", str(tmp_path / "m"), "--n", "5")
