"""Files made to harm: every one ends in one line, none crashes the pass, holds it up, or makes it eat memory."""

from __future__ import annotations

import json
import os
import random
import struct
import subprocess
import sys
import threading
import time
import zlib
from collections import Counter
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sfumato.cli import main
from sfumato.data.audit import audit, run

SIGNATURE = b"\x89PNG\r\n\x1a\n"


# a child begins with the pages of its parent, and as many as there are cores may be there at once
GROWN = """
import json, os, resource, sys
from sfumato.data.audit import audit
size = lambda who: resource.getrusage(who).ru_maxrss
before = size(resource.RUSAGE_SELF)

def grown():
    each = max(0, size(resource.RUSAGE_CHILDREN) - before)
    return size(resource.RUSAGE_SELF) - before + os.cpu_count() * each

"""


def picture(size: int = 64) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (size, size, 3), dtype=np.uint8))


def saved(kind: str, image: Image.Image | None = None, **options: object) -> bytes:
    buffer = BytesIO()
    (image or picture()).save(buffer, kind, **options)
    return buffer.getvalue()


def chunk(kind: bytes, body: bytes, length: int | None = None) -> bytes:
    return (
        struct.pack(">I", len(body) if length is None else length)
        + kind
        + body
        + struct.pack(">I", zlib.crc32(kind + body))
    )


def header(width: int, height: int, depth: int = 8, colour: int = 2) -> bytes:
    return chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))


def png(*chunks: bytes) -> bytes:
    return SIGNATURE + b"".join(chunks) + chunk(b"IEND", b"")


def zeros(n: int) -> bytes:
    pack = zlib.compressobj(9)
    return b"".join(pack.compress(bytes(min(1 << 20, n - at))) for at in range(0, n, 1 << 20)) + pack.flush()


def good_png(*extra: bytes) -> bytes:
    whole = saved("PNG")
    return whole[:33] + b"".join(extra) + whole[33:]


def segment(marker: int, body: bytes) -> bytes:
    return bytes((0xFF, marker)) + struct.pack(">H", len(body) + 2) + body


def jpeg_with(*segments: bytes) -> bytes:
    whole = saved("JPEG")
    return whole[:2] + b"".join(segments) + whole[2:]


def ifd(*entries: tuple[int, int, int, int], following: int = 0) -> bytes:
    rows = b"".join(struct.pack("<HHII", *e) for e in entries)
    return struct.pack("<H", len(entries)) + rows + struct.pack("<I", following)


def tiff(*entries: tuple[int, int, int, int], following: int = 0) -> bytes:
    return b"II*\0\x08\0\0\0" + ifd(*entries, following=following)


def frame_size(jpeg: bytes, width: int, height: int) -> bytes:
    at = next(jpeg.index(bytes((0xFF, m))) for m in (0xC0, 0xC2) if bytes((0xFF, m)) in jpeg)
    return jpeg[: at + 5] + struct.pack(">HH", height, width) + jpeg[at + 9 :]


def many_passes(n: int) -> bytes:
    """A progressive JPEG of 4,000 x 4,000 pixels whose last pass is there n times: seconds of work for each."""
    whole = frame_size(saved("JPEG", progressive=True), 4000, 4000)
    last = whole.rindex(b"\xff\xda")
    return whole[:last] + whole[last:-2] * n + whole[-2:]


SVG = b"""<?xml version="1.0"?><!DOCTYPE lolz [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">
<!ENTITY c "&b;&b;&b;&b;&b;&b;&b;&b;"><!ENTITY x SYSTEM "file:///etc/passwd">]><svg>&c;&x;</svg>"""

BAD = {  # must be told as unreadable
    "empty.png": b"",
    "zeros.jpg": bytes(5000),
    "text.png": b"I am a text file",
    "page.jpg": b"<html><script>alert(1)</script>",
    "entities.png": SVG,
    "pdf.webp": b"%PDF-1.7\n%\xe2\xe3",
    "zip.tif": b"PK\x03\x04" + bytes(100),
    "signature.png": SIGNATURE,
    "no-data.png": png(header(64, 64)),
    "30000.png": png(header(30_000, 30_000), chunk(b"IDAT", zeros(1 << 20))),
    "widest.png": png(header(2**31 - 1, 2**31 - 1)),
    "none.png": png(header(0, 0), chunk(b"IDAT", zeros(10))),
    "length.png": SIGNATURE + header(64, 64) + chunk(b"IDAT", b"x", 2**32 - 1),
    "depth.png": png(header(8, 8, depth=77), chunk(b"IDAT", zeros(100))),
    "no-palette-data.png": png(header(8, 8, colour=3), chunk(b"IDAT", b"junk")),
    "bad-crc.png": saved("PNG")[:60] + b"\0\1\2\3" + saved("PNG")[64:],
    "text-bomb.png": good_png(chunk(b"zTXt", b"Comment\0\0" + zeros(80 << 20))),
    "texts.png": good_png(*(chunk(b"zTXt", b"C%d\0\0" % k + zeros(900_000)) for k in range(90))),
    "truncated-10.png": saved("PNG")[: len(saved("PNG")) // 10],
    "truncated-50.png": saved("PNG")[: len(saved("PNG")) // 2],
    "truncated-90.png": saved("PNG")[: len(saved("PNG")) * 9 // 10],
    "truncated.jpg": saved("JPEG")[: len(saved("JPEG")) // 2],
    "start.jpg": b"\xff\xd8",
    "start2.jpg": b"\xff\xd8\xff\xe0\0\0",
    "ones.jpg": b"\xff" * 100_000,
    "65500.jpg": frame_size(saved("JPEG"), 65500, 65500),
    "passes.jpg": many_passes(300),
    "no-tables.jpg": b"\xff\xd8"
    + segment(0xC0, struct.pack(">BHHB", 8, 64, 64, 1) + b"\1\x11\0")
    + b"\xff\xda\0\x08\1\1\0\0\x3f\0",
    "truncated.webp": saved("WEBP", lossless=True)[:900],
    "huge.webp": b"RIFF"
    + struct.pack("<I", 40)
    + b"WEBPVP8X"
    + struct.pack("<I", 10)
    + b"\2\0\0\0"
    + b"\xff\xff\xff" * 2
    + bytes(20),
    "truncated.gif": b"GIF89a\x40\0\x40\0\xf7\0\0" + bytes(200),
    "screen.gif": b"GIF89a" + struct.pack("<HH", 65535, 65535) + b"\0\0\0,\0\0\0\0\xff\xff\xff\xff\0\2\2D\1\0;",
    "huge.bmp": b"BM"
    + struct.pack("<IIIIiiHHIIiiII", 100, 0, 54, 40, 60_000, 60_000, 1, 24, 0, 0, 0, 0, 0, 0)
    + bytes(50),
    "rle.bmp": b"BM"
    + struct.pack("<IIIIiiHHIIiiII", 100, 0, 54, 40, 64, 64, 1, 8, 1, 0, 0, 0, 0, 0)
    + b"\0\2\xff\xff" * 9,
    "loop.tif": tiff(following=8),
    "strips.tif": tiff(
        (256, 4, 1, 64),
        (257, 4, 1, 64),
        (258, 3, 1, 8),
        (259, 3, 1, 1),
        (262, 3, 1, 1),
        (273, 4, 1, 2**32 - 9),
        (278, 4, 1, 64),
        (279, 4, 1, 4096),
    ),
    "counts.tif": tiff((256, 4, 2**32 - 1, 8), (257, 4, 2**32 - 1, 8), (273, 4, 2**32 - 1, 8)),
    "float.tif": saved("TIFF", Image.fromarray(np.ones((8, 8), np.float32))),
    "deep.tif": saved("TIFF", Image.fromarray(np.full((8, 8), 70_000, np.int32))),
    "giant.ppm": b"P6 99999999999999999999 9 255\n" + bytes(9),
    "huge.ppm": b"P6 60000 60000 255\n" + bytes(100),
    "digits.ppm": b"P6 " + b"1" * 1_000_000,
    "blank.ppm": b"P6" + b" " * 1_000_000,
    "rle.tga": bytes((0, 0, 10, 0, 0, 0, 0, 0, 0, 0, 0, 0)) + struct.pack("<HH", 64, 64) + bytes((24, 0)) + b"\xff",
    "box.jp2": b"\0\0\0\x0cjP  \r\n\x87\n" + b"\0\0\0\0jp2h" + bytes(100),
    "box.avif": b"\0\0\0\x1cftypavif\0\0\0\0avifmif1miaf" + b"\xff" * 200,
}
ODD = {  # may be read: the pass must only live through them
    "exif-loop.jpg": jpeg_with(segment(0xE1, b"Exif\0\0" + tiff((0x8769, 4, 1, 8), (0x0112, 3, 1, 6), following=8))),
    "exif-count.jpg": jpeg_with(
        segment(0xE1, b"Exif\0\0" + tiff((0x010E, 2, 2**32 - 1, 8), (0x8769, 4, 1, 2**32 - 1)))
    ),
    "exif-type.jpg": jpeg_with(segment(0xE1, b"Exif\0\0" + tiff((0x0112, 2, 4, 0x41414141), (0x0131, 77, 9, 9)))),
    "exif-turn.jpg": jpeg_with(segment(0xE1, b"Exif\0\0" + tiff((0x0112, 3, 1, 200)))),
    "segments.jpg": jpeg_with(*[segment(0xEB, b"JP" + bytes(30))] * 5000),
    "fill.jpg": saved("JPEG")[:2] + b"\xff" * 200_000 + saved("JPEG")[2:],
    "comment.jpg": jpeg_with(*[segment(0xFE, b"Steps: 1, " * 6000)] * 9),
    "text-long.png": good_png(chunk(b"tEXt", b"parameters\0" + b"Steps: 1, " * 300_000)),
    "profile.png": good_png(chunk(b"iCCP", b"p\0\0" + zeros(40 << 20))),
    "jumbf.png": good_png(chunk(b"caBX", b"\xff" * 1000), chunk(b"caBX", b"")),
    "frames.png": good_png(chunk(b"acTL", struct.pack(">II", 2**31 - 1, 0))),
    "chunks.png": good_png(*[chunk(b"abCd", b"")] * 50_000),
    "bomb.png": png(header(9_000, 9_000, colour=0), chunk(b"IDAT", zeros(9_000 * 9_001))),
    "line.png": png(header(60_000, 1, colour=0), chunk(b"IDAT", zeros(60_001))),
    "animated.gif": saved(
        "GIF",
        picture(16).convert("P"),
        save_all=True,
        append_images=[picture(16).rotate(k).convert("P") for k in range(200)],
    ),
    "riff.webp": saved("WEBP") + b"XMP " + struct.pack("<I", 2**32 - 1) + b"x",
    "dot.png": saved("PNG", Image.new("1", (1, 1))),
}
NAMES = [
    "new\nline.png",
    "quote'\".png",
    "<script>alert(1)<!--.png",
    "turn\u202egnp.png",
    "-rf.png",
    "a b\t.png",
    "%s%n{0}.png",
    "\U0001f4a3" * 60 + ".png",
]


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("hostile")
    for name, data in (BAD | ODD).items():
        (root / name).write_bytes(data)
    for k, name in enumerate(NAMES):
        Image.new("RGB", (8, 8), (k, 9, 9)).save(root / name)
    with open(os.fsencode(root) + b"/bytes\xff\xfe.png", "wb") as file:
        file.write(b"no picture")
    os.mkfifo(root / "pipe.png")
    (root / "self.png").symlink_to("self.png")
    (root / "dangling.png").symlink_to("gone.png")
    (root / "zero.png").symlink_to("/dev/zero")
    (root / "folder.png").mkdir()
    deep = root / "deep"
    deep.mkdir()
    (deep / "up").symlink_to("..")
    (deep / "up2").symlink_to("../deep")
    with open(root / "sparse.png", "wb") as file:
        file.truncate(1 << 40)
    return root


UNREADABLE = {
    *BAD,
    "bytes\udcff\udcfe.png",
    "pipe.png",
    "self.png",
    "dangling.png",
    "zero.png",
    "folder.png",
    "sparse.png",
}


def test_there_are_enough() -> None:
    assert len(BAD) + len(ODD) + len(NAMES) + 9 >= 40


def test_every_hostile_file_ends_in_one_line(hostile: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "page.html"
    assert main(["audit", str(hostile), "--json", "--report", str(page)]) == 1
    printed = capsys.readouterr()
    faults = json.loads(printed.out)["faults"]
    told = Counter(name for f in faults["corrupt"] for name in f["files"])
    assert set(told) - set(ODD) == UNREADABLE and set(told.values()) == {1}
    for fault in faults["corrupt"]:
        assert fault["evidence"] and len(fault["evidence"]) < 200 and fault["evidence"].isprintable(), fault
    assert "new\nline" not in printed.err
    html = page.read_text(encoding="utf-8")
    assert "<script>" not in html and "\udcff" not in html and "bytes\\udcff" in html
    reasons = {f["files"][0]: f["evidence"] for f in faults["corrupt"]}
    assert "million pixels" in reasons["30000.png"] and "passes" in reasons["passes.jpg"]
    assert reasons["pipe.png"] == "not a regular file" and "GB" in reasons["sparse.png"]
    assert reasons["entities.png"] == "not a picture that Pillow can read"


def test_memory_and_time_stay_bounded(hostile: Path) -> None:
    """A process of its own, so that its greatest memory is known: the interpreter with torch and a few pictures."""
    code = GROWN + "audit(sys.argv[1])\nprint(grown())"
    started = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code, str(hostile)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout) < 400_000 and time.monotonic() - started < 60  # kB


def test_noise_in_every_format(tmp_path: Path) -> None:
    """Bytes overwritten at random, at known places of a seeded stream: read or refused, never a crash."""
    rng = random.Random(7)
    for kind in ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "TGA", "JPEG2000"):
        whole = saved(kind, picture(24))
        for k in range(12):
            data = bytearray(whole)
            for _ in range(rng.randint(1, 12)):
                data[rng.randrange(min(len(data), 600))] = rng.randrange(256)
            suffix = {"JPEG2000": "jp2"}.get(kind, kind.lower())
            (tmp_path / f"{k}.{suffix}").write_bytes(data[: rng.randint(len(data) // 2, len(data))])
    result = audit(str(tmp_path))
    bad = {n for f in result.findings if f.kind == "corrupt" for n in f.files}
    assert result.images + len(bad) == 108 and bad


def empties(folder: Path, n: int) -> None:
    folder.mkdir()
    for k in range(n):
        (folder / f"{k:06d}.png").touch()


@pytest.mark.parametrize("n", [2_000, pytest.param(100_000, marks=pytest.mark.slow)])
def test_a_folder_of_empty_files(tmp_path: Path, n: int, capsys: pytest.CaptureFixture[str]) -> None:
    empties(tmp_path / "set", n)
    page = tmp_path / "page.html"
    started = time.monotonic()
    assert main(["audit", str(tmp_path / "set"), "--json", "--report", str(page)]) == 1
    told = json.loads(capsys.readouterr().out)
    assert told["images"] == 0 and len(told["faults"]["corrupt"]) == n
    assert told["verdict"].startswith("nothing to train on")
    assert time.monotonic() - started < 10 + n / 1000 and page.stat().st_size < 200_000


def test_a_file_that_changes_while_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = saved("PNG")
    (tmp_path / "still.png").write_bytes(data)
    (tmp_path / "moving.png").write_bytes(data)
    really = Path.read_bytes

    def slow(path: Path) -> bytes:
        found = really(path)
        if path.name == "moving.png":
            path.write_bytes(data + b"more")
        return found

    monkeypatch.setattr(Path, "read_bytes", slow)
    result = audit(str(tmp_path))
    told = {f.files: f.evidence for f in result.findings if f.kind == "corrupt"}
    assert list(told) == [("moving.png",)] and "changed while it was read" in told[("moving.png",)]


def test_files_that_are_written_and_removed_all_the_time(tmp_path: Path) -> None:
    stop = threading.Event()
    (tmp_path / "still.png").write_bytes(saved("PNG"))
    for k in range(40):
        (tmp_path / f"{k}.png").write_bytes(saved("PNG"))

    def churn() -> None:
        rng = random.Random(1)
        while not stop.is_set():
            path = tmp_path / f"{rng.randrange(40)}.png"
            if rng.random() < 0.5:
                path.unlink(missing_ok=True)
            else:
                path.write_bytes(saved("PNG")[: rng.randint(0, 9000)])

    thread = threading.Thread(target=churn)
    thread.start()
    try:
        for _ in range(3):
            assert audit(str(tmp_path)).images >= 1
    finally:
        stop.set()
        thread.join()


def test_a_file_that_takes_too_long_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for k in range(12):
        (tmp_path / f"{k:02d}.png").write_bytes(saved("PNG", picture(8)))
    release, really = threading.Event(), run.look

    def stuck(data: bytes) -> run.Look:
        if data == slow:
            release.wait()
        return really(data)

    slow = saved("BMP", picture(9))
    for name in ("03.png", "04.png", "05.png"):
        (tmp_path / name).write_bytes(slow)
    monkeypatch.setattr(run, "look", stuck)
    monkeypatch.setattr(run, "SECONDS", 0.3)
    result = audit(str(tmp_path))
    release.set()
    late = {n for f in result.findings if f.kind == "corrupt" for n in f.files}
    assert late == {"03.png", "04.png", "05.png"} and result.images == 9


@pytest.mark.slow
def test_memory_hardly_grows(tmp_path: Path) -> None:
    """From 2,000 to 20,000 pictures: names and hashes, neither thumbnails (2 kB each) nor pictures (12 kB each)."""
    rng = np.random.default_rng(0)
    grown = {}
    for n in (2_000, 20_000):
        folder = tmp_path / str(n)
        folder.mkdir()
        for k in range(n):
            Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(folder / f"{k}.bmp")
        code = GROWN + "assert audit(sys.argv[1]).images\nprint(grown())"
        done = subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True, check=True)
        grown[n] = int(done.stdout)
    assert grown[20_000] - grown[2_000] < 18_000 * 1.2  # kB
