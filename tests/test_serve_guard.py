"""Who may come in, and what: hosts, origins, bodies, uploads, folders."""

from __future__ import annotations

import base64
import json
import random
import socket
import struct
import time
import zlib
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image
from serving import http, png, served, tiny_model

from sfumato.core import SfumatoError
from sfumato.serve import guard
from sfumato.serve.works import Works


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("guard")
    with served(tiny_model(folder), folder / "data") as (url, desk):
        yield url, desk


@pytest.fixture(scope="module")
def url(server) -> str:
    return server[0]


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "", "localhost@evil", "[::1", "a b"])
def test_names_that_are_not_ours_are_refused(url: str, host: str) -> None:
    assert http.get(url + "/health", headers={"host": host}).status_code == 403


@pytest.mark.parametrize("host", ["localhost:7860", "127.0.0.1", "[::1]:7860", "192.168.1.5:7860"])
def test_addresses_and_localhost_are_known(url: str, host: str) -> None:
    assert http.get(url + "/health", headers={"host": host}).status_code == 200


def test_a_name_that_the_owner_gave_is_known(tmp_path: Path) -> None:
    with served(tiny_model(tmp_path), tmp_path / "data", names=("Studio.example.com",)) as (url, _):
        own = {"host": "studio.example.com", "origin": "https://studio.example.com"}
        assert http.get(url + "/api/models", headers=own).status_code == 200
        assert http.get(url + "/api/models", headers={"host": "other.example.com"}).status_code == 403


def test_other_web_pages_are_refused(url: str) -> None:
    own = url.removeprefix("http://")
    for origin in ("http://[", "http://evil.example", "null", "http://127.0.0.1:1", f"http://{own}.evil.example"):
        assert http.post(url + "/api/jobs", json={"prompt": "owl"}, headers={"origin": origin}).status_code == 403
    assert http.get(url + "/health", headers={"origin": url}).status_code == 200
    crossed = http.post(url + "/api/jobs", json={"prompt": "owl"}, headers={"sec-fetch-site": "cross-site"})
    assert crossed.status_code == 403
    headers = http.get(url + "/health").headers
    assert headers["x-frame-options"] == "DENY" and "access-control-allow-origin" not in headers


def raw(url: str, data: bytes, wait: float = 5.0) -> bytes:
    host, _, port = url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=wait) as link:
        link.sendall(data)
        found = b""
        try:
            while chunk := link.recv(65536):
                found += chunk
        except TimeoutError:
            pass
        return found


def test_bodies_are_bounded_while_they_come(url: str, monkeypatch) -> None:
    head = b"POST /api/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nConnection: close\r\n"
    assert b" 413 " in raw(url, head + b"Content-Length: 64000001\r\n\r\n")
    monkeypatch.setattr(guard, "BODY", 1000)
    chunk = b"200\r\n" + b" " * 512 + b"\r\n"
    assert b" 413 " in raw(url, head + b"Transfer-Encoding: chunked\r\n\r\n" + 3 * chunk)
    monkeypatch.setattr(guard, "BODY", 64_000_000)
    monkeypatch.setattr(guard, "HELD", 1000)
    assert b" 503 " in raw(url, head + b"Transfer-Encoding: chunked\r\n\r\n" + 3 * chunk)
    for _ in range(100):
        assert b" 400 " in raw(url, head + b'Content-Length: 13\r\n\r\n{"prompt": 5}'), "all bytes were given back"
    monkeypatch.setattr(guard, "PATIENCE", 0.2)
    began = time.monotonic()
    assert b" 408 " in raw(url, head + b"Content-Length: 100\r\n\r\n{")
    assert time.monotonic() - began < 3
    assert b" 400 " in raw(url, head + b"Host: evil.example\r\nContent-Length: 2\r\n\r\n{}")


def hostile() -> list[bytes]:
    """Files that are no pictures, torn ones, and bombs."""
    good = png(Image.new("RGB", (8, 8))).getvalue()
    jpeg = BytesIO()
    Image.new("RGB", (64, 64)).save(jpeg, "JPEG")
    gif = BytesIO()
    Image.new("P", (8, 8)).save(gif, "GIF")

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    def header(width: int, height: int) -> bytes:
        return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))

    bomb = header(50_000, 50_000) + chunk(b"IDAT", zlib.compress(b"\0" * 1_000_000)) + chunk(b"IEND", b"")
    large = header(6_000, 6_000) + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")
    texts = header(8, 8) + b"".join(chunk(b"zTXt", b"k\0\0" + zlib.compress(b"a" * 10_000_000)) for _ in range(3))
    svg = b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'
    return [b"", b"x", svg, gif.getvalue(), good[:45], jpeg.getvalue()[:300], bomb, large, texts, b"%PDF-1.4"]


def test_hostile_pictures_are_refused_at_every_door(server) -> None:
    url, desk = server
    before = desk.totals["done"]
    for data in hostile():
        text = base64.b64encode(data).decode()
        answers = [
            http.post(url + "/api/uploads", files={"file": ("../../x.png", data)}),
            http.post(url + "/v1/images/edits", files={"image": ("x.png", data)}, data={"prompt": "owl"}),
            http.post(url + "/sdapi/v1/img2img", json={"prompt": "owl", "init_images": [text]}),
        ]
        assert [answer.status_code for answer in answers] == [400] * 3, (data[:40], [a.text for a in answers])
    assert desk.totals["done"] == before
    rng, good = random.Random(0), png(Image.new("RGB", (8, 8))).getvalue()
    for k in range(40):  # some of these are pictures still
        torn = bytearray(good)
        for _ in range(1 + k % 4):
            torn[rng.randrange(8, len(torn))] = rng.randrange(256)
        upload = {"file": ("x.png", bytes(torn[: rng.randrange(9, len(torn) + 1)]))}
        assert http.post(url + "/api/uploads", files=upload).status_code in (200, 400)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"--x\r\n",
        b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\nabc',
        b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\nabc\r\n--y--',
        b"--x\r\nContent-Disposition: form-data\r\n\r\nabc\r\n--x--",
        b"--x\r\nContent-Disposition: form-data; name=file\r\n" + b"A: b\r\n" * 500 + b"\r\n--x--",
        b"\xff\xfe" * 100,
    ],
)
def test_torn_forms_are_refused(url: str, body: bytes) -> None:
    headers = {"content-type": "multipart/form-data; boundary=x"}
    for path in ("/api/uploads", "/v1/images/edits", "/v1/images/variations"):
        assert http.post(url + path, content=body, headers=headers).status_code == 400
        assert http.post(url + path, content=body, headers={"content-type": "multipart/form-data"}).status_code == 400


def test_no_address_is_fetched_and_no_path_taken(url: str) -> None:
    for given in ("http://127.0.0.1:1/x.png", "file:///etc/passwd", "https://example.com/a.png", "not base64!"):
        answer = http.post(url + "/sdapi/v1/img2img", json={"prompt": "owl", "init_images": [given]})
        assert answer.status_code == 400
    for path in (
        "/api/files/..%2f..%2fjobs.sqlite",
        "/files/%2e%2e/jobs.sqlite",
        "/api/jobs/..%2f..",
        "/files/" + "0" * 64,
    ):
        assert http.get(url + path).status_code == 404
    wrong = {"prompt": "owl", "task": "vary", "image": "../../../etc/passwd"}
    assert http.post(url + "/api/jobs", json=wrong).status_code == 400
    for wrong in (
        {"image": "0" * 64},
        {"parents": ["nobody"]},
        {"model": "../x"},
        {"size": "13x7"},
        {"n": 0},
        {"zoom": 1},
    ):
        answer = http.post(url + "/api/jobs", json={"prompt": "owl"} | wrong)
        assert answer.status_code in (400, 404) and answer.json()["error"]["message"], wrong


@pytest.mark.parametrize(
    "body",
    [
        "",
        "{",
        "[]",
        "null",
        '{"prompt": 3}',
        '{"prompt": "owl", "seed": NaN}',
        '{"prompt": "\\ud800", "n": 1}',
        "[" * 5000,
    ],
)
def test_wrong_json_is_answered_with_400(url: str, body: str) -> None:
    headers = {"content-type": "application/json"}
    for path in ("/v1/images/generations", "/sdapi/v1/txt2img", "/v1/models/tiny:predict", "/api/jobs", "/api/audit"):
        status = http.post(url + path, content=body.encode(), headers=headers, timeout=30).status_code
        assert status == 400 or (status == 200 and "ud800" in body), (path, status)


def test_only_folders_that_the_owner_named_are_audited(server, tmp_path: Path) -> None:
    url, _ = server
    assert http.get(url + "/api/sources").json() == {"sources": []}
    for folder in ("/etc", "..", "emoji", str(tmp_path)):
        assert http.post(url + "/api/audit", json={"folder": folder}).status_code == 400
        assert http.post(url + "/api/trainings", json={"source": folder}).status_code == 400
    pictures, other = tmp_path / "pictures", tmp_path / "other"
    for folder in (pictures / "cats" / "deep", pictures / ".hidden", other):
        folder.mkdir(parents=True)
    (pictures / "link").symlink_to(other)
    works = Works(tmp_path / "works", [pictures])
    assert list(works.sources()) == ["pictures", "pictures/cats", "pictures/cats/deep"]
    with pytest.raises(SfumatoError, match="no such folder"):
        Works(tmp_path / "works", [tmp_path / "none"])


@pytest.mark.slow
def test_an_audit_and_a_training_run_and_tell(tmp_path: Path) -> None:
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for k in range(24):
        Image.new("RGB", (16, 16), (10 * k, 255 - 10 * k, 90)).save(pictures / f"{k}.png")
    with served(tiny_model(tmp_path), tmp_path / "data", allow=[pictures]) as (url, desk):
        assert http.get(url + "/api/sources").json() == {"sources": ["pictures"]}
        audit = http.post(url + "/api/audit", json={"folder": "pictures"}).json()["id"]
        told = {"source": "pictures", "name": "mine", "minutes": 30, "size": 8}
        training = http.post(url + "/api/trainings", json=told).json()["id"]
        assert http.post(url + "/api/trainings", json=told).status_code == 400, "one at a time"
        assert http.post(f"{url}/api/trainings/{training}/use").status_code == 409
        seen = until(f"{url}/api/trainings/{training}", lambda t: t["rows"] or t["state"] != "running")
        assert seen["state"] == "running", seen["error"]
        http.delete(f"{url}/api/trainings/{training}")
        seen = until(f"{url}/api/trainings/{training}", lambda t: t["state"] != "running")
        assert seen["state"] == "stopped" and seen["result"]["steps"] > 0
        assert http.post(f"{url}/api/trainings/{training}/use").json() == {"model": "mine"}
        assert [m["name"] for m in http.get(url + "/api/models").json()["models"]] == ["tiny", "mine"]
        seen = until(f"{url}/api/audit/{audit}", lambda t: t["state"] != "running")
        assert seen["state"] == "done" and seen["result"]["images"] == 24
        assert http.get(f"{url}/api/audit/{training}").status_code == 404
    assert [w.state for w in Works(tmp_path / "data" / "trainings", []).all("train")] == ["stopped"]


def until(address: str, fits) -> dict:
    for _ in range(2000):
        told = http.get(address).json()
        if fits(told):
            return told
        time.sleep(0.05)
    raise AssertionError(json.dumps(told)[:2000])
