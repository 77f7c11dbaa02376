"""What users could meet and must not: answers that come in parts, layouts that poison the gallery, palettes, photographs."""

# ruff: noqa: F811 - fixtures are imported by name

from __future__ import annotations

import asyncio
import json
import sys
from io import BytesIO
from pathlib import Path

import aiohttp.web
import numpy as np
import pytest
from PIL import Image
from serving import http, model, png, server, url  # noqa: F401

from sfumato.serve.client import Client
from sfumato.serve.edits import _filled
from sfumato.serve.pictures import taken
from sfumato.serve.store import Store
from sfumato.serve.works import Work, Works
from sfumato.tasks import load


def boxed(text: str, **more: object) -> dict:
    return {"width": 16, "height": 16, "boxes": [{"box": [0, 0, 8, 8], "text": text}], **more}


@pytest.mark.parametrize(
    ("task", "layout"),
    [
        ("generate", boxed("owl")),
        ("layout", {"x": "y"}),
        ("layout", boxed("owl " * 200)),
        ("layout", boxed("owl", background="o" * 5000)),
        ("layout", {**boxed("owl"), "boxes": boxed("owl")["boxes"] * 65}),
        ("layout", {**boxed("owl"), "boxes": [{"box": [0, 0, 10**400, 8], "text": "owl"}]}),
    ],
)
def test_a_layout_is_judged_before_it_is_kept(url: str, task: str, layout: dict) -> None:
    said = http.post(url + "/api/jobs", json={"task": task, "prompt": "owl", "layout": layout})
    assert said.status_code == 400 and "layout" in said.json()["error"]["message"]


def test_half_a_character_and_what_a_layout_does_not_have_are_left_out(url: str) -> None:
    deep: dict = {}
    for _ in range(200):
        deep = {"deep": deep}
    body = json.dumps({"task": "layout", "prompt": "owl", "layout": boxed("owl \ud800", more=deep)})
    said = http.post(url + "/api/jobs", content=body, headers={"content-type": "application/json"})
    assert said.status_code == 200
    (job, *_) = http.get(url + "/api/jobs").json()["jobs"]
    assert job["request"]["layout"] == boxed("owl ?", background="") | {
        "boxes": [{"box": [0.0, 0.0, 0.5, 0.5], "text": "owl ?"}]
    }


def test_parents_are_names_of_files_and_jobs(url: str) -> None:
    body = json.dumps({"prompt": "owl", "parents": ["\ud800"]})
    said = http.post(url + "/api/jobs", content=body, headers={"content-type": "application/json"})
    assert said.status_code == 400


def test_a_file_that_comes_in_parts_is_whole() -> None:
    whole = np.random.default_rng(0).bytes(300_000)

    async def slow(request: aiohttp.web.Request) -> aiohttp.web.StreamResponse:
        answer = aiohttp.web.StreamResponse()
        await answer.prepare(request)
        for k in range(0, len(whole), 50_000):
            await answer.write(whole[k : k + 50_000])
            await asyncio.sleep(0.01)
        return answer

    async def fetched() -> bytes:
        app = aiohttp.web.Application()
        app.router.add_get("/api/files/{name}", slow)
        runner = aiohttp.web.AppRunner(app)
        await runner.setup()
        site = aiohttp.web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = site._server.sockets[0].getsockname()[1]
        try:
            async with aiohttp.ClientSession() as session:
                return await Client(session, f"http://127.0.0.1:{port}").file("a" * 64)
        finally:
            await runner.cleanup()

    assert asyncio.run(fetched()) == whole


def test_a_long_answer_of_an_audit_is_read_to_its_end(tmp_path: Path) -> None:
    code = "import json; print('first'); print(json.dumps({'findings': ['x' * 1000] * 1000}))"

    async def followed() -> Work:
        works = Works(tmp_path, [])
        work = Work("a" * 16, "audit", "s", "n")
        pipe = asyncio.subprocess.PIPE
        work.process = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdout=pipe, stderr=pipe)
        await asyncio.wait_for(works._follow(work), 30)
        return work

    work = asyncio.run(followed())
    assert work.state == "done" and len(work.result["findings"]) == 1000


def test_the_kept_pixels_of_a_large_palette_picture_stay(model: Path) -> None:
    large = Image.new("RGB", (300, 300), (10, 200, 30)).convert("P", palette=Image.Palette.ADAPTIVE)
    mask = np.zeros((300, 300), np.uint8)
    mask[100:140, 100:140] = 255
    result = _filled(load(model), large, Image.fromarray(mask), lambda done: None, {"steps": 2, "seed": 0})
    kept = np.asarray(result.images[0].convert("RGB"))[mask == 0]
    assert (kept == np.asarray(large.convert("RGB"))[mask == 0]).all()


def test_a_photograph_on_its_side_has_the_size_that_is_seen(url: str, tmp_path: Path) -> None:
    photo, file = Image.new("RGB", (24, 16), (90, 90, 200)), BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    photo.save(file, "JPEG", exif=exif)
    stored = taken(Store(tmp_path), file.getvalue())
    assert (stored.width, stored.height) == (16, 24)
    mask = Image.new("L", (16, 24), 0)
    mask.paste(255, (4, 4, 12, 12))
    sent = {"image": ("a.jpg", file.getvalue(), "image/jpeg"), "mask": ("m.png", png(mask).read(), "image/png")}
    said = http.post(url + "/v1/images/edits", files=sent, data={"prompt": "owl"})
    assert said.status_code == 200, said.text
