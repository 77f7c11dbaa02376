"""A tiny model of captioned pictures and a server on it, which the tests of serving share."""

from __future__ import annotations

import base64
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import httpx
import numpy as np
import openai
import pytest
import uvicorn
from PIL import Image
from training import shaken_model, told_source

from sfumato.denoiser import UNetConfig
from sfumato.serve.app import build
from sfumato.serve.desk import Desk
from sfumato.serve.shelf import Shelf
from sfumato.serve.store import Store
from sfumato.serve.works import Works

CAPTIONS = ("red apple, fruit, red", "strawberry, berry, fruit, red", "police car, vehicle, blue", "owl, bird, brown")

http = httpx.Client(verify=False, trust_env=False, timeout=60)  # one for all: making one takes longer than a request


def tiny_model(folder: Path) -> Path:
    """An exported model of captions and two styles, 16 x 16; untrained, its weights shaken so that every word matters."""
    net = UNetConfig(patch=2, widths=(8, 16), blocks=(1, 1), embedding=16, attention=(1,), head=8)
    return shaken_model(told_source(CAPTIONS), folder / "run", 0.2, net=net).export(folder / "tiny.safetensors")


@contextmanager
def served(
    model: Path, data: Path, token: str | None = None, allow: Sequence[Path] = (), names: tuple[str, ...] = ()
) -> Iterator[tuple[str, Desk]]:
    """A server in a thread of this process: its address and its desk."""
    desk = Desk(Store(data), Shelf([str(model)]))
    app = build(desk, token=token, works=Works(data / "trainings", allow), names=names)
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None, timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}", desk
    finally:
        server.should_exit = True
        thread.join(30)


def png(image: Image.Image) -> BytesIO:
    """A picture as a file to upload."""
    file = BytesIO()
    image.save(file, "PNG")
    file.seek(0)
    file.name = "picture.png"
    return file


def opened(b64: str) -> Image.Image:
    """A picture of an answer."""
    return Image.open(BytesIO(base64.b64decode(b64)))


RED = Image.new("RGB", (16, 16), (200, 30, 30))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def server(model: Path, tmp_path_factory: pytest.TempPathFactory):
    with served(model, tmp_path_factory.mktemp("data")) as (url, desk):
        yield url, desk


@pytest.fixture(scope="module")
def url(server) -> str:
    return server[0]


@pytest.fixture(scope="module")
def client(url: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=url + "/v1", api_key="any", max_retries=0)


def pixels(image: Image.Image) -> list:
    return np.asarray(image).tolist()


def ended(url: str, name: str) -> dict:
    for _ in range(400):
        job = http.get(f"{url}/api/jobs/{name}").json()
        if job["state"] not in ("queued", "running"):
            return job
        time.sleep(0.02)
    raise AssertionError(job)
