"""sfumato clean stopped at any moment: kill -9, full disks, two at once."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from cleaning import edit, hashes, make_pets, run, whole

from sfumato.core import SfumatoError
from sfumato.data.clean import plan_path, undo


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    return make_pets(tmp_path / "pets")


WATCHED = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "shutil.copyfile", "fcntl.flock"}


def dies_at(step: int, work: Callable[[], object], below: Path) -> bool:
    """Do the work in a process of its own that is killed with SIGKILL before its file operation `step`; whether it died."""
    child = os.fork()
    if child == 0:
        try:
            seen = 0

            def watch(event: str, given: tuple) -> None:
                nonlocal seen
                if event in WATCHED and str(below) in str(given[0]):
                    seen += 1
                    if seen == step:
                        os.kill(os.getpid(), signal.SIGKILL)

            sys.addaudithook(watch)
            work()
            os._exit(0)
        except BaseException:
            os._exit(9)
    status = os.waitpid(child, 0)[1]
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, f"failed before operation {step}"
    return os.WIFSIGNALED(status)


@pytest.mark.parametrize("what", ["first", "again", "undo"])
def test_kill_at_every_file_operation(pets: Path, tmp_path: Path, monkeypatch, what: str) -> None:
    """No set, or a whole one, after a kill before every single operation; the same command then finishes the work."""
    monkeypatch.setattr(os, "sync", lambda: None)
    monkeypatch.setattr(os, "fsync", lambda handle: None)
    place, start = tmp_path / "work", tmp_path / "start"
    place.mkdir()
    for name in (
        "a/3.png",
        "a/4.png",
        "a/2.png",
        "b/sixteen.png",
        "a/clear.png",
    ):  # every kind of action once is enough
        (pets / name).unlink()
    out = place / "clean"
    if what != "first":
        run(pets, out)
        if what == "again":
            edit(out, lambda t: t["actions"].__delitem__(slice(0, None, 2)))
    shutil.copytree(place, start)
    work = (lambda: undo(str(pets), out)) if what == "undo" else (lambda: run(pets, out))
    work()
    want, before, step = hashes(out), hashes(pets), 0
    while True:
        step += 1
        shutil.rmtree(place)
        shutil.copytree(start, place)
        if not dies_at(step, work, place):
            break
        if (out / "manifest.json").exists():
            whole(out)
        else:
            assert not out.exists()
        if what == "undo" and out.exists() and json.loads((out / "manifest.json").read_text())["state"] == "undone":
            assert hashes(out) == want
            continue
        work()
        assert hashes(out) == want and hashes(pets) == before
        assert sorted(os.listdir(place)) == ["clean", "clean.plan.json"]
        assert not [p for p in out.rglob(".*") if p.name != ".quarantine"]
        if what == "first" and step % 7 == 0:
            undo(str(pets), out)
            assert hashes(out) == before
    assert step > 30


def test_a_full_disk_is_told_and_work_goes_on_after_it(pets: Path, tmp_path: Path, monkeypatch) -> None:
    out = tmp_path / "clean"
    code = (
        "import resource, sys; from pathlib import Path; sys.path.insert(0, sys.argv[3]); import test_clean as t\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (700, 700))\n"  # the kernel refuses to write longer files
        "try: t.run(Path(sys.argv[1]), Path(sys.argv[2]))\n"
        "except t.SfumatoError as e: print(e); sys.exit(2)\n"
    )
    plan_path(out).write_bytes(make(pets, tmp_path))
    done = subprocess.run(
        [sys.executable, "-c", code, str(pets), str(out), str(Path(__file__).parent)], capture_output=True, text=True
    )
    assert done.returncode == 2 and "File too large" in done.stdout and "goes on where it stopped" in done.stdout, done
    assert not out.exists()
    run(pets, out)
    whole(out)


def make(pets: Path, tmp_path: Path) -> bytes:
    run(pets, tmp_path / "for-its-plan")
    return plan_path(tmp_path / "for-its-plan").read_bytes()


def test_too_little_space_is_told_before_the_disk_is_full(pets: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 10, 0))
    with pytest.raises(SfumatoError, match='0.00 GB free; choose a larger one, or write "link": true'):
        run(pets, tmp_path / "clean")
    edit(tmp_path / "clean", lambda t: t.update(link=True))
    assert run(pets, tmp_path / "clean")["linked"]
    assert os.path.samefile(pets / "a/1.png", tmp_path / "clean/a/1.png"), "copied before the plan was changed"


def test_links_of_a_stopped_run_become_copies_when_the_plan_says_so(pets: Path, tmp_path: Path, monkeypatch) -> None:
    out = tmp_path / "clean"
    plan_path(out).write_text(json.dumps({**json.loads(make(pets, tmp_path)), "link": True}))
    with monkeypatch.context() as patched:
        patched.setattr(os, "sync", lambda: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        with pytest.raises(SfumatoError, match="disk is full; free some space and run the same command again"):
            run(pets, out)
    edit(out, lambda t: t.update(link=False))
    assert not run(pets, out)["linked"] and not os.path.samefile(pets / "a/3.png", out / "a/3.png")


def test_two_at_once(pets: Path, tmp_path: Path, monkeypatch) -> None:
    out = tmp_path / "clean"
    with monkeypatch.context() as patched, pytest.raises(SfumatoError):  # stops on the way
        patched.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 10, 0))
        run(pets, out)
    (part,) = tmp_path.glob(".clean.*.part")
    handle = os.open(part, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    with pytest.raises(SfumatoError, match="another 'sfumato clean' works"):
        run(pets, out)
    os.close(handle)
    run(pets, out)
