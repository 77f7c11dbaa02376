"""A browser on a server of a tiny model, and what a visitor of the Studio does there."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from io import BytesIO
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, expect, sync_playwright
from serving import served, tiny_model

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


WAIT = 30_000


@pytest.fixture(scope="module")
def address(tmp_path_factory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("studio")
    pictures, rng = folder / "shapes", np.random.default_rng(0)
    pictures.mkdir()
    for k in range(24):
        Image.fromarray(rng.integers(0, 255, (16, 16, 3), dtype=np.uint8)).save(pictures / f"{k}.png")
    with served(tiny_model(folder), folder / "data", allow=(pictures,)) as (url, _):
        yield url


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture
def page(browser, address) -> Iterator[Page]:
    """A page of a new visitor; nothing may go wrong in it, and nothing may be asked of another server."""
    faults: list[str] = []
    context = browser.new_context(viewport={"width": 1200, "height": 900})
    found = context.new_page()
    found.on("pageerror", lambda error: faults.append(str(error)))
    # what the server refuses is told in the page, and the browser says it in the console too
    found.on(
        "console", lambda m: faults.append(m.text) if m.type == "error" and "status of 400" not in m.text else None
    )
    found.on("request", lambda r: None if r.url.startswith((address, "data:", "blob:")) else faults.append(r.url))
    found.goto(address)
    expect(found.locator("#model option")).not_to_have_count(0)
    yield found
    context.close()
    assert faults == []


def job_of(page: Page, address: str, number: int = 0) -> dict[str, Any]:
    """A job of the feed, as the server tells of it, once it has ended."""
    card = page.locator("#feed article").nth(number)
    expect(card.locator("progress")).to_be_hidden(timeout=WAIT)
    return httpx.get(f"{address}/api/jobs/{card.get_attribute('data-job')}").json()


def drawn(page: Page, address: str) -> dict[str, Any]:
    """Press Draw; the job when it is done."""
    before = (
        page.locator("#feed article").first.get_attribute("data-job") if page.locator("#feed article").count() else None
    )
    page.click("#draw")
    return newest(page, address, before)


def newest(page: Page, address: str, before: str | None) -> dict[str, Any]:
    first = page.locator("#feed article").first
    if before is None:
        expect(first).to_be_visible(timeout=WAIT)
    else:
        expect(first).not_to_have_attribute("data-job", before, timeout=WAIT)
    job = job_of(page, address)
    assert job["state"] == "done", job["error"]
    return job


def pixels(address: str, name: str) -> np.ndarray:
    return np.asarray(Image.open(BytesIO(httpx.get(f"{address}/api/files/{name}").content)))


def ask(page: Page, words: str, **fields: int) -> None:
    page.fill("#prompt", words)
    for name, value in fields.items():
        if name in ("steps", "guidance", "chaos") and not page.locator("#more").get_attribute("open") == "":
            page.click("#more summary")
        page.fill(f"#{name}", str(value))


def begin(page: Page, mode: str) -> None:
    page.check(f"input[value={mode}]", force=True)
