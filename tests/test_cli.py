"""The commands as a person meets them: whole processes, exit codes, one clear line for every bad input."""

from __future__ import annotations

import json
import os
import runpy
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import sfumato
from sfumato.cli import main
from sfumato.data import open as open_source
from sfumato.train import Run, checkpoint

TINY = ["--set", "net.widths=[8,16]", "--set", "net.blocks=[1,1]", "--set", "net.patch=1", "--set", "net.embedding=32"]


@pytest.fixture(autouse=True, scope="module")
def quiet_machine(tmp_path_factory: pytest.TempPathFactory):
    """A cache of the tests' own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SFUMATO_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny run on digits."""
    run = tmp_path_factory.mktemp("runs") / "digits"
    assert main(["train", "digits", "--run", str(run), "--steps", "40", *TINY]) == 0
    return run


def last_json(capsys: pytest.CaptureFixture[str]) -> dict:
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def test_train_prints_its_keys_and_the_run_describes_itself(tmp_path: Path, capsys) -> None:
    run = tmp_path / "run"
    assert main(["train", "digits", "--run", str(run), "--steps", "24", "--seed", "3", "--json", *TINY]) == 0
    told = last_json(capsys)
    keys = {"run", "steps", "images_seen", "images_per_second", "seconds", "loss", "validation_loss", "parameters"}
    assert keys <= set(told) and told["steps"] == 24 and told["images_seen"] == 24 * 32
    described = Run(run).describe()
    assert described["recipe"]["seed"] == 3 and described["data"]["pictures"] == 1797
    assert sum(p.numel() for p in Run(run).recipe().build().parameters()) == told["parameters"]
    assert {"checkpoints", "snapshots", "previews", "log.jsonl", "report.html"} <= {p.name for p in run.iterdir()}
    assert [row["step"] for row in Run(run).rows()][-1] == 24
    assert "Warnings" not in (run / "report.html").read_text()


def test_resume_reaches_the_end_and_refuses_other_settings(trained: Path, tmp_path: Path, capsys) -> None:
    run = tmp_path / "copy"
    shutil.copytree(trained, run)
    command = ["train", "digits", "--run", str(run), "--resume"]
    assert main([*command, "--steps", "50", "--json"]) == 0
    assert last_json(capsys)["steps"] == 50
    assert main([*command, "--seed", "1"]) == 2
    assert "keeps its seed" in capsys.readouterr().err
    assert main(["train", "digits", "--run", str(run), "--steps", "5"]) == 2
    assert "--resume" in capsys.readouterr().err


def test_sample_writes_a_grid_or_single_pictures(trained: Path, tmp_path: Path, capsys) -> None:
    grid, folder = tmp_path / "grid.png", tmp_path / "singles"
    options = ["--n", "3", "--steps", "4", "--seed", "5", "--json"]
    assert main(["sample", str(trained), *options, "--out", str(grid)]) == 0
    told = last_json(capsys)
    assert told["images"] == 3 and told["network_calls"] == 4 and told["seconds"] > 0
    assert Image.open(grid).width > 0
    assert main(["sample", str(trained), *options, "--out", str(folder)]) == 0
    pictures = [np.asarray(Image.open(p)) for p in sorted(folder.iterdir())]
    assert len(pictures) == 3 and pictures[0].shape == (8, 8)
    images = sfumato.load(trained).generate(n=3, seed=5, steps=4).images
    assert all((np.asarray(a) == b).all() for a, b in zip(images, pictures, strict=True))


def test_every_solver_and_class_and_guidance_can_be_asked_for(trained: Path) -> None:
    from sfumato.reverse import SOLVERS, pick_solver, suits

    model = sfumato.load(trained)
    for name in SOLVERS:
        if suits(pick_solver(name), model.denoiser.process):
            x0 = model.generate(n=2, steps=6, solver=name, class_name="7", guidance=1.5).x0
            assert x0.shape == (2, 1, 8, 8) and x0.isfinite().all()


def test_picture_k_is_the_same_alone_and_among_many(trained: Path) -> None:
    model = sfumato.load(trained)
    many = model.generate(n=70, seed=2, steps=5).x0
    alone = model.generate(n=1, seed=2, steps=5, first=66).x0
    assert torch.allclose(many[66], alone[0], atol=1e-4)


def test_an_exported_file_makes_the_same_pictures(trained: Path, tmp_path: Path, capsys) -> None:
    file = tmp_path / "model.safetensors"
    assert main(["export", str(trained), "--to", str(file), "--json"]) == 0
    assert last_json(capsys)["bytes"] == file.stat().st_size
    moved = tmp_path / "elsewhere" / "m.safetensors"
    moved.parent.mkdir()
    file.rename(moved)
    ours, theirs = (sfumato.load(p).generate(n=4, seed=1, steps=4) for p in (trained, moved))
    assert torch.equal(ours.x0, theirs.x0) and ours.captions == theirs.captions


def test_half_of_the_bytes_draw_nearly_the_same(trained: Path, tmp_path: Path, capsys) -> None:
    whole, half = tmp_path / "whole.safetensors", tmp_path / "half.safetensors"
    assert (
        main(["export", str(trained), "--to", str(whole)])
        == main(["export", str(trained), "--to", str(half), "--half"])
        == 0
    )
    weights = sum(p.numel() for p in sfumato.load(whole).denoiser.parameters())
    assert whole.stat().st_size - half.stat().st_size == pytest.approx(2 * weights, rel=0.01)
    ours, theirs = (sfumato.load(p).generate(n=2, seed=1, steps=4).x0 for p in (whole, half))
    assert 0 < (ours - theirs).abs().mean() < 0.02
    assert main(["calibrate", str(half), "--steps", "4"]) == 0  # writes the file anew, in the same precision
    assert half.stat().st_size < 0.6 * whole.stat().st_size


def test_measure_and_doctor_tell(trained: Path, capsys) -> None:
    assert main(["measure", str(trained), "--against", "digits", "--n", "32", "--curve", "--json"]) == 0
    told = last_json(capsys)
    assert {"kid", "fd", "precision", "recall", "n", "features", "floor", "noise", "curve"} <= set(told)
    assert told["features"].startswith("classifier-digits-8") and told["floor"]["kid"] < told["kid"]
    assert told["metrics"][0]["name"] == f"kid[{told['features']},n=32,ref=digits/validation]"
    assert set(told["refused"]) > {"fd", "recall"} and told["fd"] is None  # 32 pictures in 128 dimensions
    assert "copies" in told["memorisation"]["words"] and told["memorisation"]["n"] == 32
    assert rf"kid\[{told['features']}" in (trained / "card.md").read_text()
    assert len(told["classes"]) == 10 and all("would do" in row["note"] for row in told["classes"] if row["n"])
    # as if the run were being trained: a row beyond the newest checkpoint, a checkpoint half written
    with (trained / "log.jsonl").open("a") as log:
        log.write(json.dumps({"step": 10**6, "seconds": 1, "loss": 1.0, "validation_loss": 1.0}) + "\n")
    (trained / "checkpoints/.tmp-x").mkdir()
    before = {p: p.read_bytes() if p.is_file() else b"" for p in trained.rglob("*")}
    assert main(["doctor", str(trained), "--json"]) == 0
    assert {p: p.read_bytes() if p.is_file() else b"" for p in trained.rglob("*")} == before, "doctor only reads"
    (trained / "checkpoints/.tmp-x").rmdir()
    lines = (trained / "log.jsonl").read_text().splitlines(True)
    (trained / "log.jsonl").write_text("".join(lines[:-1]))
    told = last_json(capsys)
    assert told["machine"]["threads"] >= 1 and len(told["run"]["levels"]) > 3
    assert any(text.startswith("untrained") for text in told["run"]["findings"])


def test_pictures_of_the_training_set_are_known_again_under_any_name(trained: Path, tmp_path: Path, capsys) -> None:
    digits = open_source("digits")
    learned, held = digits.train_index[:40], digits.validation_index[:30]
    for k, row in enumerate(torch.cat([learned, held]).tolist()):
        Image.fromarray(digits.pixels[row, :, :, 0]).save(tmp_path / f"{k}.png")
    assert main(["measure", str(trained), "--against", str(tmp_path), "--n", "16", "--json"]) == 0
    told = last_json(capsys)
    bytes_of = {digits.pixels[k].tobytes() for k in digits.train_index.tolist()}
    assert told["n_reference"] == sum(digits.pixels[k].tobytes() not in bytes_of for k in held.tolist()) >= 28


def test_doctor_tells_a_trained_run_from_an_untrained_one(tmp_path: Path, capsys) -> None:
    run = tmp_path / "longer"
    wider = ["--set", "net.widths=[32,64]", "--set", "net.blocks=[1,1]", "--set", "net.patch=1"]
    assert main(["train", "digits", "--run", str(run), "--steps", "400", *wider]) == 0
    assert main(["doctor", str(run), "--json"]) == 0
    told = last_json(capsys)["run"]
    assert any(text.startswith(("healthy", "weak at 1 ", "weak at 2 ")) for text in told["findings"])
    assert told["overfit"]["passed"]


def test_the_demo_removes_its_own_run_and_nothing_else(tmp_path: Path, monkeypatch) -> None:
    demo = runpy.run_path(str(Path(__file__).parents[1] / "recipes" / "demo.py"))
    main_of_demo = demo["main"]
    main_of_demo.__globals__["sfumato"] = lambda arguments: 1
    monkeypatch.setattr(sys, "argv", ["demo.py", "--run", str(tmp_path)])
    (tmp_path / "photo.png").write_bytes(b"mine")
    assert main_of_demo() == 1 and (tmp_path / "photo.png").read_bytes() == b"mine"
    (tmp_path / "run.json").write_text("{}")
    assert main_of_demo() == 1 and not tmp_path.exists()


def test_doctor_of_a_run_whose_data_are_gone(trained: Path, tmp_path: Path, capsys) -> None:
    shutil.copytree(trained, tmp_path / "made-in-python")
    (tmp_path / "made-in-python/source.json").unlink()
    assert main(["doctor", str(tmp_path / "made-in-python")]) == 2
    assert "cannot be opened" in capsys.readouterr().err.splitlines()[-1]


BAD = {
    "steps 0": (["train", "digits", "--run", "{new}", "--steps", "0"], "budget"),
    "no minutes": (["train", "digits", "--run", "{new}", "--minutes", "-1"], "budget"),
    "steps and minutes": (["train", "digits", "--run", "{new}", "--steps", "3", "--minutes", "1"], "not allowed"),
    "unknown source": (["train", "digitz", "--run", "{new}", "--steps", "1"], "did you mean 'digits'"),
    "unknown recipe": (["train", "digits", "--run", "{new}", "--steps", "1", "--recipe", "gan"], "known: default"),
    "unknown setting": (["train", "digits", "--run", "{new}", "--steps", "1", "--set", "lr=1"], "has no 'lr'"),
    "setting of a wrong type": (["train", "digits", "--run", "{new}", "--steps", "1", "--set", "batch=x"], "batch"),
    "rate of zero": (["train", "digits", "--run", "{new}", "--steps", "1", "--set", "optimiser.rate=0"], "above 0"),
    "patch of zero": (["train", "digits", "--run", "{new}", "--steps", "1", "--set", "net.patch=0"], "net.patch"),
    "no blocks": (["train", "digits", "--run", "{new}", "--steps", "1", "--set", "net.blocks=[0,1,1,1]"], "net.blocks"),
    "size the network cannot take": (["train", "digits", "--run", "{new}", "--steps", "1", "--size", "10"], "--size"),
    "size 0": (["train", "digits", "--run", "{new}", "--steps", "1", "--size", "0"], "size"),
    "resume of nothing": (["train", "digits", "--run", "{new}", "--resume"], "no run folder"),
    "run folder is a file": (["train", "digits", "--run", "{file}", "--steps", "1"], "{file}"),
    "sampling from nothing": (["sample", "{new}", "--out", "x.png"], "no run folder"),
    "sampling from a picture": (["sample", "{file}", "--out", "x.png"], "cannot be read as a model"),
    "unknown solver": (["sample", "{run}", "--solver", "magic", "--out", "{new}"], "dpmpp2m"),
    "unknown grid": (["sample", "{run}", "--grid", "magic", "--out", "{new}"], "karras"),
    "categorical solver": (["sample", "{run}", "--solver", "unmask", "--out", "{new}"], "ddim"),
    "no pictures": (["sample", "{run}", "--n", "0", "--out", "{new}"], "at least 1"),
    "no sampling steps": (["sample", "{run}", "--steps", "0", "--out", "{new}"], "at least 1"),
    "unknown class": (["sample", "{run}", "--class", "77", "--out", "{new}"], "known: 0"),
    "prompt without captions": (["sample", "{run}", "--prompt", "a cat", "--out", "{new}"], "without captions"),
    "jpeg out": (["sample", "{run}", "--out", "x.jpg"], ".png"),
    "average out of range": (["sample", "{run}", "--ema", "0.9", "--out", "{new}"], "0.28"),
    "too few to measure": (["measure", "{run}", "--against", "digits", "--n", "3"], "16"),
    "measured against nothing": (["measure", "{run}", "--against", "nowhere"], "nowhere"),
    "export to a pickle": (["export", "{run}", "--to", "model.pt"], ".safetensors"),
    "doctor of nothing": (["doctor", "{new}"], "no run folder"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_clear_line_and_exit_2(name: str, trained: Path, tmp_path: Path, capsys) -> None:
    arguments, said = BAD[name]
    file = tmp_path / "picture.png"
    file.write_bytes(b"no model")
    names = {"{new}": str(tmp_path / "new"), "{run}": str(trained), "{file}": str(file)}
    given = [names.get(a, a) for a in arguments]
    before = {p: p.stat().st_mtime_ns for p in trained.rglob("*") if p.is_file()}
    try:
        code = main(given)
    except SystemExit as stop:
        code = stop.code
    told = capsys.readouterr().err.strip().splitlines()
    assert code == 2
    assert names.get(said, said) in told[-1] and told[-1].startswith("sfumato") and "Traceback" not in "".join(told)
    assert before == {p: p.stat().st_mtime_ns for p in trained.rglob("*") if p.is_file()}


def test_a_half_deleted_run_folder_and_foreign_weights(trained: Path, tmp_path: Path, capsys) -> None:
    half = tmp_path / "half"
    shutil.copytree(trained, half)
    for folder in (half / "checkpoints").iterdir():
        (folder / "ema.safetensors").unlink()
    assert main(["sample", str(half), "--out", str(tmp_path / "x.png")]) == 2
    assert "holds no whole checkpoint" in capsys.readouterr().err

    foreign = tmp_path / "foreign"
    shutil.copytree(trained, foreign)
    text = (foreign / "run.json").read_text()
    (foreign / "run.json").write_text(text.replace('"embedding": 32', '"embedding": 64'))
    assert main(["sample", str(foreign), "--out", str(tmp_path / "x.png")]) == 2
    assert "another model" in capsys.readouterr().err


def test_a_full_disk_loses_nothing(trained: Path, tmp_path: Path, capsys, monkeypatch) -> None:
    run = tmp_path / "full"
    shutil.copytree(trained, run)

    def full(*args: object, **named: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", full)
    assert main(["train", "digits", "--run", str(run), "--resume", "--steps", "60"]) == 2
    told = capsys.readouterr().err.strip().splitlines()[-1]
    assert "No space left" in told and "--resume" in told
    monkeypatch.undo()
    assert checkpoint.load_state(Run(run).newest())["step"] == 40


def test_two_processes_make_the_run_that_one_makes(tmp_path: Path) -> None:
    """SIGINT to a whole process in the middle, then --resume in another: the same weights, bit for bit."""
    straight, broken = tmp_path / "straight", tmp_path / "broken"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}  # another number of threads sums in another order

    def start(run: Path, *more: str) -> subprocess.Popen[str]:
        arguments = [sys.executable, "-m", "sfumato", "train", "digits", "--run", str(run), *more]
        return subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True, env=environment)

    whole = start(straight, "--steps", "60", *TINY)
    assert whole.communicate(timeout=120) and whole.returncode == 0
    cut = start(broken, "--steps", "60", *TINY)
    deadline = time.monotonic() + 120
    while not (broken / "log.jsonl").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    cut.send_signal(signal.SIGINT)
    told = cut.communicate(timeout=120)[1]
    assert cut.returncode == 0
    if "go on with --resume" in told:  # else it had already reached the end
        again = start(broken, "--resume")
        assert again.communicate(timeout=120) and again.returncode == 0
    one, two = (checkpoint.load(Run(p).newest(), "weights") for p in (straight, broken))
    settings = [Run(p).describe()["setting"] for p in (straight, broken)]
    if settings[0] == settings[1]:  # the probe may choose differently on a busy machine
        assert all(torch.equal(one[k], two[k]) for k in one)


def test_resume_refuses_pictures_that_changed(tmp_path: Path, capsys) -> None:
    folder, run = tmp_path / "pictures", tmp_path / "run"
    folder.mkdir()
    for k in range(12):
        Image.fromarray(np.full((8, 8), 20 * k, np.uint8)).save(folder / f"{k}.png")
    command = ["train", str(folder), "--run", str(run)]
    assert main([*command, "--size", "8", "--steps", "4", *TINY]) == 0
    (folder / "3.png").rename(folder / "other.png")
    assert main([*command, "--resume", "--steps", "6"]) == 2
    assert "restore them" in capsys.readouterr().err
    (folder / "other.png").rename(folder / "3.png")
    assert main([*command, "--resume", "--steps", "6"]) == 0
