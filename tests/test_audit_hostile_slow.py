"""Hostile sets that take seconds: run by make test-slow. Memory is that of a process of its own, measured at its peak."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_audit_hostile import GROWN, chunk, frame_size, header, many_passes, png, saved, zeros

import sfumato.data as data
from sfumato.core import SfumatoError
from sfumato.data.audit import audit

pytestmark = pytest.mark.slow

CHILD = (
    GROWN
    + """
if len(sys.argv) > 2:  # give up all rights, once everything is imported
    audit(sys.argv[2])
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
before = size(resource.RUSAGE_SELF)
found = audit(sys.argv[1])
bad = {name: f.evidence for f in found.findings if f.kind == "corrupt" for name in f.files}
print(json.dumps({"images": found.images, "bad": bad, "grown": grown()}))
"""
)


def child(folder: Path | str, seconds: float, warm: Path | None = None) -> dict:
    """What an audit in a process of its own says, and by how many kB its memory grew; it must end in time.

    With `warm`, a set to begin with, it then goes on as a user without rights (it must have been started as root).
    """
    started = time.monotonic()
    cache = {**os.environ, "SFUMATO_CACHE": f"{folder}/.cache"}
    call = [sys.executable, "-c", CHILD, str(folder), *([] if warm is None else [str(warm)])]
    done = subprocess.run(call, capture_output=True, text=True, timeout=2 * seconds, env=cache)
    assert done.returncode == 0, done.stderr[-2000:]
    assert time.monotonic() - started < seconds
    return json.loads(done.stdout)


def test_zip_bombs_do_not_add_up(tmp_path: Path) -> None:
    """Eight files of 170 kB that decode to 170 million grey pixels each: one at a time, so no more than one in memory."""
    bomb = png(header(13_000, 13_000, colour=0), chunk(b"IDAT", zeros(13_000 * 13_001)))
    assert len(bomb) < 200_000
    for k in range(8):
        (tmp_path / f"{k}.png").write_bytes(bomb + bytes([k]))
    found = child(tmp_path, 120)
    assert found["images"] == 8 and found["grown"] < 400_000, found


@pytest.mark.parametrize("kind", ["png", "jpg", "bmp", "ppm", "gif", "tif"])
def test_headers_that_promise_900_million_pixels(tmp_path: Path, kind: str) -> None:
    """30,000 x 30,000 in 60 files of every format: refused by their headers, no memory for what they promise."""
    side = 30_000
    raw = {
        "png": png(header(side, side), chunk(b"IDAT", zeros(1 << 20))),
        "jpg": frame_size(saved("JPEG"), side, side),
        "bmp": saved("BMP")[:18] + side.to_bytes(4, "little") * 2 + saved("BMP")[26:],
        "ppm": f"P6 {side} {side} 255\n".encode() + bytes(100),
        "gif": b"GIF89a" + side.to_bytes(2, "little") * 2 + saved("GIF")[10:],
        "tif": b"II*\0\x08\0\0\0\x02\0"
        + b"".join(tag.to_bytes(2, "little") + b"\4\0\1\0\0\0" + side.to_bytes(4, "little") for tag in (256, 257))
        + bytes(4),
    }[kind]
    for k in range(60):
        (tmp_path / f"{k}.{kind}").write_bytes(raw + bytes([k]))
    found = child(tmp_path, 60)
    assert found["images"] + len(found["bad"]) == 60 and found["grown"] < 300_000, found
    if kind != "gif":  # a GIF's frame may be smaller than its screen: it is read
        assert not found["images"]


def test_many_progressive_passes(tmp_path: Path) -> None:
    for k in range(20):
        (tmp_path / f"{k}.jpg").write_bytes(many_passes(150 + k))
    found = child(tmp_path, 60)
    assert len(found["bad"]) == 20 and all("passes" in why for why in found["bad"].values())


def test_files_that_grow_and_shrink_under_a_reader(tmp_path: Path) -> None:
    """Eight large pictures are cut off, grown and renamed over all the time: read or told, never a crash, never a hang."""
    noise = np.random.default_rng(0).integers(0, 256, (600, 600, 3), dtype=np.uint8)
    whole, stop = saved("PNG", Image.fromarray(noise)), threading.Event()
    for k in range(8):
        (tmp_path / f"{k}.png").write_bytes(whole)

    def churn(k: int) -> None:
        path, turn = tmp_path / f"{k}.png", 0
        while not stop.is_set():
            turn += 1
            if turn % 3 == 0:
                path.write_bytes(whole[: 1000 * (turn % 900)])
            elif turn % 3 == 1:
                with path.open("ab") as file:
                    file.write(whole)
            else:
                spare = tmp_path / f".{k}.part"
                spare.write_bytes(whole)
                os.replace(spare, path)

    threads = [threading.Thread(target=churn, args=(k,)) for k in range(0, 8, 2)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(5):
            found = audit(str(tmp_path))
            bad = {name for f in found.findings if f.kind == "corrupt" for name in f.files}
            assert found.images + len(bad) == 8 and not bad & {"1.png", "3.png", "5.png", "7.png"}
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def test_folders_that_may_not_be_read(tmp_path: Path) -> None:
    """As a user without rights: what can be read is read, and the files that cannot are told."""
    Image.new("RGB", (40, 40)).save(tmp_path / "warm.png")
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        root.chmod(0o777)
        for folder in ("open", "closed", "blind"):
            (root / folder).mkdir()
            for k in range(3):
                Image.new("RGB", (40, 40), (k, 9, 9)).save(root / folder / f"{k}.png")
        (root / "open" / "0.png").chmod(0)
        (root / "closed").chmod(0)
        (root / "blind").chmod(0o444)  # names can be listed, files cannot be opened
        try:
            found = child(root, 60, tmp_path if os.geteuid() == 0 else None)
        finally:
            for folder in ("closed", "blind"):
                (root / folder).chmod(0o755)
        assert found["images"] == 2
        assert {"open/0.png", "blind/0.png", "blind/1.png", "blind/2.png"} <= set(found["bad"])
        assert any("closed" in name for name in found["bad"]), "a folder that cannot be listed is told"


def test_loops_of_links_and_a_maze(tmp_path: Path) -> None:
    """Links to parents, to each other and to themselves in 2,000 folders: every picture once, nothing followed for ever."""
    for k in range(2000):
        folder = tmp_path / f"{k % 20}" / f"{k}"
        folder.mkdir(parents=True)
        (folder / "up").symlink_to("..")
        (folder / "root").symlink_to(tmp_path)
        (folder / "a").symlink_to("b")
        (folder / "b").symlink_to("a")
        (folder / "self.png").symlink_to("self.png")
    Image.new("RGB", (40, 40)).save(tmp_path / "7" / "7" / "one.png")
    found = child(tmp_path, 60)
    assert found["images"] == 1 and len(found["bad"]) == 2000


def test_a_path_as_deep_as_it_can_be(tmp_path: Path) -> None:
    here, depth = os.getcwd(), 0
    os.chdir(tmp_path)
    try:
        for depth in range(400):  # 400 x 9 characters, near the 4,096 that a path may have
            os.mkdir("d" * 8)
            os.chdir("d" * 8)
            if depth % 100 == 0:
                Image.new("RGB", (40, 40), (depth % 250, 0, 0)).save("p.png")
    finally:
        os.chdir(here)
    assert child(tmp_path, 60)["images"] == 4


def test_training_on_100000_empty_files_is_one_line(tmp_path: Path) -> None:
    for k in range(100_000):
        (tmp_path / f"{k:06d}.png").touch()
    started = time.monotonic()
    with pytest.raises(SfumatoError, match="none of the 100000 pictures .* empty file") as caught:
        data.open(tmp_path, size=8, buckets=3)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300 and time.monotonic() - started < 90
