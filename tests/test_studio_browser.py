"""The Studio in a real browser: every way of making a picture, the queue, the gallery, trainings, keys, and a phone."""

# ruff: noqa: F811 - fixtures are imported by name
from __future__ import annotations

import base64
import json
from io import BytesIO

import httpx
import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Page, expect
from walking import CHROMIUM, WAIT, address, ask, begin, browser, drawn, job_of, newest, page, pixels  # noqa: F401

pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")]
HOSTILE = "<img src=x onerror=document.title='broken'> & \"quotes\""


def stroke(page: Page, place: str, *points: tuple[float, float]) -> None:
    """Draw with the mouse, in shares of an element."""
    box = page.locator(place).last.bounding_box()
    at = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in points]
    page.mouse.move(*at[0])
    page.mouse.down()
    for x, y in at[1:]:
        page.mouse.move(x, y, steps=6)
    page.mouse.up()


def drop(page: Page, data: bytes, name: str = "picture.png") -> None:
    script = """([text, name]) => {
      const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
      const given = new DataTransfer();
      given.items.add(new File([bytes], name, { type: "image/png" }));
      return given;
    }"""
    given = page.evaluate_handle(script, [base64.b64encode(data).decode(), name])
    page.dispatch_event("body", "drop", {"dataTransfer": given})


def test_a_prompt_gives_four_pictures_with_previews_on_the_way(page, address) -> None:
    ask(page, "red apple, fruit", steps=100)
    page.click("#draw")
    card = page.locator("#feed article").first
    expect(card.locator(".tile img[src^='data:image/']").first).to_be_visible(timeout=WAIT)
    job = job_of(page, address)
    assert job["state"] == "done" and len(job["files"]) == 4 and job["request"]["steps"] == 100
    shown = card.locator("button.tile img")
    expect(shown).to_have_count(4)
    assert [image.get_attribute("src") for image in shown.all()] == [f"/api/files/{f['hash']}" for f in job["files"]]
    assert all(image.evaluate("i => i.decode().then(() => i.naturalWidth)") == 16 for image in shown.all())


def test_a_picture_is_varied_upscaled_and_zoomed_out_and_knows_its_family(page, address) -> None:
    ask(page, "owl, bird", n=2)
    parent = drawn(page, address)
    for text, task, size in (
        ("Vary a little", "vary", 16),
        ("Upscale ×2", "upscale", 32),
        ("Zoom out", "outpaint", 24),
    ):
        page.locator(f"[data-job='{parent['id']}'] button.tile").nth(1).click()
        before = page.locator("#feed article").first.get_attribute("data-job")
        page.get_by_role("button", name=text).click()
        expect(page.locator("#viewer")).to_be_hidden()
        child = newest(page, address, before)
        assert child["task"] == task and {f["width"] for f in child["files"]} == {size}
        assert set(child["parents"]) == {parent["id"], parent["files"][1]["hash"]}
    page.locator(f"[data-job='{child['id']}'] button.tile").first.click()
    made_from = page.locator("[data-from] button")
    expect(made_from).to_have_count(1)
    made_from.click()
    expect(page.locator("[data-of] button")).to_have_count(3)
    expect(page.locator("#viewer dd", has_text=f"{parent['result']['seed']}, picture 2")).to_be_visible()


def test_only_what_is_painted_over_changes(page, address) -> None:
    ask(page, "strawberry", n=1)
    parent = drawn(page, address)
    page.locator("#feed button.tile").first.click()
    page.get_by_role("button", name="Fill").click()
    expect(page.locator(".easel.mask")).to_be_visible()
    page.click("#draw")
    expect(page.locator("#notes p", has_text="Paint over")).to_be_visible()
    stroke(page, ".easel canvas", (0.2, 0.3), (0.5, 0.3))
    job = drawn(page, address)
    mask = pixels(address, job["request"]["mask"])[..., 0] > 127
    assert mask[4:6, 4:8].all() and not mask[9:].any() and not mask[:, 11:].any()
    for file in job["files"]:
        made, given = pixels(address, file["hash"]), pixels(address, parent["files"][0]["hash"])
        assert (made[~mask] == given[~mask]).all() and (made[mask] != given[mask]).any()
    assert parent["id"] in job["parents"]
    page.click("#clear")
    page.locator("#feed article").first.get_by_role("button", name="Again").click()
    expect(page.locator(".easel.mask")).to_be_visible()
    expect(page.locator("#prompt")).to_have_value("strawberry")


def test_a_sketch_is_sent_as_dark_lines_on_white(page, address) -> None:
    begin(page, "sketch")
    ask(page, "police car", n=1)
    stroke(page, ".easel canvas", (0.25, 0.25), (0.75, 0.25))
    stroke(page, ".easel canvas", (0.5, 0.6), (0.5, 0.9))
    page.get_by_role("button", name="Undo").click()
    job = drawn(page, address)
    lines = pixels(address, job["request"]["sketch"])[..., :3]
    height, width = lines.shape[:2]
    assert (lines[height // 4, width // 3 : width // 2] < 50).all(), "the line"
    assert (lines[height // 2 :] == 255).all(), "what was undone"
    assert job["task"] == "sketch" and len(job["files"]) == 1
    page.click("#clear")
    page.locator("#feed article").first.get_by_role("button", name="Again").click()
    again = drawn(page, address)
    assert again["request"]["sketch"] == job["request"]["sketch"]


def test_boxes_go_where_they_are_drawn(page, address) -> None:
    begin(page, "layout")
    stroke(page, ".plan", (0.1, 0.2), (0.5, 0.7))
    page.keyboard.type("red apple")
    stroke(page, ".plan", (0.6, 0.1), (0.95, 0.5))
    page.click("#draw")
    expect(page.locator("#notes p", has_text="every box")).to_be_visible()
    page.locator(".words").nth(1).fill("owl")
    stroke(page, ".plan", (0.55, 0.9), (0.552, 0.902))
    expect(page.locator(".box")).to_have_count(2)
    job = drawn(page, address)
    expect(page.locator("#feed article").first).to_contain_text("red apple · owl")
    told = job["request"]["layout"]["boxes"]
    assert [box["text"] for box in told] == ["red apple", "owl"]
    assert np.allclose([box["box"] for box in told], [[0.1, 0.2, 0.5, 0.7], [0.6, 0.1, 0.95, 0.5]], atol=0.02)


def test_a_box_is_moved_and_sized_by_keys_and_by_its_corner(page, address) -> None:
    begin(page, "layout")
    page.get_by_role("button", name="Add a box").click()
    page.keyboard.type("owl")
    page.locator(".box").focus()
    for key in ("ArrowRight", "ArrowRight", "ArrowUp", "Shift+ArrowDown"):
        page.keyboard.press(key)
    job = drawn(page, address)
    assert np.allclose(job["request"]["layout"]["boxes"][0]["box"], [0.34, 0.28, 0.74, 0.7], atol=1e-3)
    stroke(page, ".plan", (0.735, 0.695), (0.9, 0.9))
    job = drawn(page, address)
    assert np.allclose(job["request"]["layout"]["boxes"][0]["box"], [0.34, 0.28, 0.9, 0.9], atol=0.02)
    page.locator(".box").focus()
    page.keyboard.press("Delete")
    expect(page.locator(".box")).to_have_count(0)


def test_a_job_is_cancelled(page, address) -> None:
    ask(page, "owl", n=10, steps=250)
    page.click("#draw")
    page.locator("#feed article").first.get_by_role("button", name="Cancel").click()
    expect(page.locator("#feed article").first).to_contain_text("cancelled")
    assert job_of(page, address)["state"] == "cancelled"
    expect(page.locator("#queue")).to_be_empty()


def test_the_queue_shows_what_waits(page, address) -> None:
    ask(page, "owl", n=10, steps=250)
    for _ in range(4):
        page.click("#draw")
        expect(page.locator("#draw")).to_be_enabled()
    expect(page.locator("#queue")).to_contain_text("waiting")
    while page.get_by_role("button", name="Cancel").count():
        page.get_by_role("button", name="Cancel").first.click(timeout=2000)
        page.wait_for_timeout(100)
    expect(page.locator("#queue")).to_be_empty()


def test_the_gallery_finds_by_words_and_tells_words_as_words(page, address) -> None:
    ask(page, HOSTILE, n=1)
    drawn(page, address)
    ask(page, "one heron of its own", n=2)
    drawn(page, address)
    expect(page.locator("#feed")).to_contain_text(HOSTILE)
    page.click("[data-room=gallery]")
    page.fill("#words", "heron of its")
    expect(page.locator("#wall .tile")).to_have_count(2)
    page.locator("#wall .tile").first.click()
    expect(page.locator("#viewer")).to_contain_text("heron")
    page.keyboard.press("ArrowRight")
    expect(page.locator("#viewer dd", has_text="picture 2")).to_be_visible()
    page.keyboard.press("Escape")
    page.fill("#words", "no such words at all")
    expect(page.locator("#wall-empty")).to_be_visible()
    assert page.title() == "Sfumato Studio"


def test_a_dropped_picture_brings_its_settings_and_they_make_it_again(page, address) -> None:
    ask(page, "police car", n=3, steps=7)
    page.select_option("#style", "glossy")
    first = drawn(page, address)
    data = httpx.get(f"{address}/api/files/{first['files'][2]['hash']}").content
    page.click("#clear")
    expect(page.locator("#prompt")).to_have_value("")
    drop(page, data)
    page.get_by_role("button", name="Recall settings").click()
    expect(page.locator("#prompt")).to_have_value("police car")
    again = drawn(page, address)
    assert again["id"] != first["id"] and again["files"] == first["files"]


@pytest.mark.parametrize("torn", ["cut", "no json", "another program"])
def test_a_dropped_picture_without_settings_can_still_be_worked_on(page, address, torn) -> None:
    from PIL.PngImagePlugin import PngInfo

    info, file = PngInfo(), BytesIO()
    info.add_text(
        "parameters" if torn == "another program" else "sfumato", "{" if torn == "no json" else json.dumps({"a": 1})
    )
    Image.new("RGB", (16, 16), (200, 30, 30)).save(file, "PNG", pnginfo=None if torn == "cut" else info)
    data = file.getvalue()
    if torn == "cut":  # a chunk that says it is longer than the file
        data = data[:8] + (2**31 - 1).to_bytes(4, "big") + data[12:]
        drop(page, data)
        expect(page.locator("#notes p", has_text="cannot read this")).to_be_visible()
        return
    drop(page, data)
    expect(page.locator("#dropped")).to_contain_text("no settings of ours")
    page.locator("#dropped").get_by_role("button", name="Vary").click()
    page.fill("#n", "1")
    job = drawn(page, address)
    assert job["task"] == "vary" and len(job["files"]) == 1
