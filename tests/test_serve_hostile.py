"""Two hundred hostile uploads at every door that takes a file: refused or taken, never a fault, in bounded time and memory."""

from __future__ import annotations

import base64
import random
import resource
import struct
import sys
import zlib
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image
from serving import RED, png, served, tiny_model

SECONDS = 20.0  # for one answer
MEGABYTES = 500  # above what the server held before: one picture of the largest size taken, its file and its copies
NAMES = (
    "../../etc/passwd",
    "a\nb.png",
    'q"; name="prompt',
    "C:\\x.png",
    "\u202egnp.exe",
    "n" * 5000,
    "x\r\nHost: evil",
)
TYPES = ("image/png", "text/html", "application/x-python", "image/svg+xml", "multipart/form-data", "", "\u00fc")


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def bomb(width: int, height: int, rows: int, bits: int = 8, colour: int = 2) -> bytes:
    """A PNG of this size by its header, whose pixels are `rows` bytes of zeros."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(rows))) + chunk(b"IEND", b"")


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    file = BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def hostile() -> Iterator[bytes]:
    """200 files: bombs, torn and bent ones, other formats and modes, and things that are no pictures."""
    for width, height in (
        (30_000, 30_000),
        (2**31 - 1, 1),
        (1, 2**31 - 1),
        (0, 8),
        (8, 0),
        (5_600, 5_700),
        (65_535, 480),
    ):
        for rows in (0, 1_000, 20_000_000):
            yield bomb(width, height, rows)
    for bits, colour in ((16, 0), (16, 2), (16, 6), (1, 0), (3, 2), (8, 3), (8, 9), (255, 255)):
        yield bomb(8, 8, 1_000, bits, colour)
    for kind in (b"zTXt", b"iTXt", b"iCCP", b"eXIf", b"tEXt", b"acTL"):
        body = b"k\0\0" + (b"\1\0\0\0" if kind == b"iTXt" else b"") + zlib.compress(bytes(30_000_000))
        good = saved(RED, "PNG")
        yield good[:33] + chunk(kind, body) + good[33:]
    rng = np.random.default_rng(0)
    noise = Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8))
    deep = Image.fromarray(rng.integers(0, 65_536, (16, 16), dtype=np.uint16))
    frames = [Image.new("RGB", (16, 16), (k, 0, 0)) for k in range(50)]
    kinds = [saved(noise.convert("CMYK"), "JPEG"), saved(deep, "PNG"), saved(noise.convert("CMYK"), "TIFF")]
    kinds += [
        saved(frames[0], kind, save_all=True, append_images=frames[1:]) for kind in ("GIF", "PNG", "WEBP", "TIFF")
    ]
    kinds += [saved(noise, kind) for kind in ("BMP", "ICO", "PPM", "TGA", "PDF", "EPS", "JPEG2000", "JPEG", "WEBP")]
    kinds += [saved(noise.convert(mode), "PNG") for mode in ("1", "L", "LA", "P", "RGBA")]
    kinds += [saved(Image.new("RGB", size), "PNG") for size in ((1, 1), (1, 4_000), (4_000, 1), (17, 15))]
    yield from kinds
    yield from (
        b"",
        b"\0",
        b"\xff\xd8\xff",
        b"\x89PNG\r\n\x1a\n",
        b"RIFF\0\0\0\0WEBP",
        b"GIF89a",
        b"PK\3\4" + bytes(100),
    )
    yield from (
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"%!PS\n{} loop",
        b"\x80\x04cos\nsystem\n.",
        b"[" * 500_000,
    )
    torn, rest = random.Random(0), 200 - (7 * 3 + 8 + 6 + len(kinds) + 11)
    for k in range(rest):
        data = bytearray(kinds[k % len(kinds)])
        for _ in range(k % 5):
            data[torn.randrange(len(data))] = torn.randrange(256)
        yield bytes(data[: torn.randrange(1, len(data) + 1)])


def calls(k: int, data: bytes) -> Iterator[tuple[str, dict]]:
    """One file at every door, under a name and a content type of its own."""
    text, name, kind = base64.b64encode(data).decode(), NAMES[k % len(NAMES)], TYPES[k % len(TYPES)]
    one, small = (name, data, kind), ("p.png", png(RED).getvalue())
    words = {"prompt": "owl", "n": "1"}
    yield "/api/uploads", {"files": {"file": one}}
    yield "/v1/images/edits", {"files": {"image": one}, "data": words}
    yield "/v1/images/edits", {"files": {"image": small, "mask": one}, "data": words}
    yield "/v1/images/variations", {"files": {"image": one}}
    yield "/sdapi/v1/img2img", {"json": {"prompt": "owl", "steps": 1, "init_images": [text]}}
    yield "/sdapi/v1/img2img", {"json": {"prompt": "owl", "steps": 1, "init_images": [text[:-3] + "\n*"]}}
    mask = {"prompt": "owl", "steps": 1, "init_images": [base64.b64encode(small[1]).decode()], "mask": text}
    yield "/sdapi/v1/img2img", {"json": mask}
    yield "/sdapi/v1/png-info", {"json": {"image": "data:text/html;base64," + text}}


def peak() -> float:
    """The most memory that this process, and the server in it, has held, in megabytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("hostile")
    with served(tiny_model(folder), folder / "data") as (address, _):
        yield address


def endured(url: str, files: list[tuple[int, bytes]]) -> dict[int, int]:
    """How often each status was answered."""
    found: dict[int, int] = {}
    with httpx.Client(base_url=url, trust_env=False, timeout=SECONDS) as http:
        for k, data in files:
            for path, told in calls(k, data):
                answer = http.post(path, **told)
                assert answer.status_code in (200, 400, 413), (
                    k,
                    data[:40],
                    path,
                    answer.status_code,
                    answer.text[:300],
                )
                assert len(answer.text) < 2_000 or answer.status_code == 200, (k, path)
                found[answer.status_code] = found.get(answer.status_code, 0) + 1
        assert http.get("/health").json() == {"status": "ok", "waiting": 0, "running": 0}
    return found


def test_a_share_of_them(url: str) -> None:
    files = list(enumerate(hostile()))
    assert len(files) == 200
    before = peak()
    found = endured(url, files[::10])
    assert found[400] > found.get(200, 0) > 0 and peak() - before < MEGABYTES


@pytest.mark.slow
def test_all_two_hundred(url: str) -> None:
    before = peak()
    found = endured(url, list(enumerate(hostile())))
    assert sum(found.values()) == 1600 and found[200] > 100 and peak() - before < MEGABYTES


@pytest.mark.parametrize("door", ["/api/jobs", "/sdapi/v1/img2img", "/v1/images/generations"])
def test_deep_and_wide_json(url: str, door: str) -> None:
    nested = [b'{"prompt":' + b"[" * 100_000 + b"]" * 100_000 + b"}", b'{"a":' * 50_000 + b"1" + b"}" * 50_000]
    for body in (*nested, b'{"prompt": "' + b"a" * 5_000_000 + b'"}', b'{"n": ' + b"9" * 100_000 + b"}"):
        answer = httpx.post(url + door, content=body, headers={"content-type": "application/json"}, timeout=SECONDS)
        assert answer.status_code in (400, 413), (body[:30], answer.text[:200])


def test_a_full_disk_ends_jobs_with_words_and_the_server_stays(tmp_path: Path, monkeypatch) -> None:
    """The fault is planted where the store writes pictures."""
    real = Path.open

    def full(self: Path, mode: str = "r", *rest: object, **more: object):
        if self.suffix == ".part":
            raise OSError(28, "No space left on device")
        return real(self, mode, *rest, **more)

    with served(tiny_model(tmp_path), tmp_path / "data") as (url, desk):
        body = {"prompt": "owl", "n": 1, "size": "16x16", "seed": 1}
        with monkeypatch.context() as patch:
            patch.setattr(Path, "open", full)
            for answer in (
                httpx.post(url + "/v1/images/generations", json=body, timeout=SECONDS),
                httpx.post(url + "/api/uploads", files={"file": ("x.png", png(RED))}, timeout=SECONDS),
            ):
                assert answer.status_code >= 400 and "No space left" in answer.json()["error"]["message"], answer.text
            assert httpx.get(url + "/health").json()["status"] == "ok"
            assert desk.store.counts()["failed"] == 1 and not list((tmp_path / "data" / "files").rglob("*.part"))
        assert httpx.post(url + "/v1/images/generations", json=body, timeout=SECONDS).status_code == 200
