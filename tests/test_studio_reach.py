"""The Studio in a browser, by whoever uses it: keys, a phone, colours, a token, trainings."""

# ruff: noqa: F811 - fixtures are imported by name
from __future__ import annotations

import pytest
from playwright.sync_api import expect
from serving import served, tiny_model
from walking import CHROMIUM, WAIT, address, ask, begin, browser, drawn, newest, page, pixels  # noqa: F401

pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")]
CONTROLS = "a, button, input, select, textarea, summary, canvas[tabindex], [role=application]"


def test_all_of_it_by_keys(page, address) -> None:
    page.locator("body").press("/")
    page.keyboard.type("owl")
    page.keyboard.press("Control+Enter")
    expect(page.locator("#feed article").first.get_by_role("button", name="Again")).to_be_visible(timeout=WAIT)
    tile = page.locator("#feed article").first.locator("button.tile").first
    expect(tile).to_be_visible(timeout=WAIT)
    tile.focus()
    page.keyboard.press("Enter")
    expect(page.locator("#viewer")).to_be_visible()
    page.keyboard.press("f")
    canvas = page.locator(".easel.mask canvas").last
    expect(canvas).to_be_visible()
    canvas.focus()
    page.keyboard.down("Space")
    for _ in range(4):
        page.keyboard.press("ArrowRight")
    page.keyboard.up("Space")
    before = page.locator("#feed article").first.get_attribute("data-job")
    page.focus("#prompt")
    page.keyboard.press("Control+Enter")
    job = newest(page, address, before)
    mask = pixels(address, job["request"]["mask"])[..., 0] > 127
    assert mask[8, 8:12].all() and mask.sum() < 100
    page.focus("#draw")
    for key, room in (("2", "gallery"), ("3", "train"), ("1", "make")):
        page.keyboard.press(key)
        expect(page.locator(f"#room-{room}")).to_be_visible()
    page.locator("body").press("?")
    expect(page.locator("#keys")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator("#keys")).to_be_hidden()


@pytest.mark.parametrize("room", ["make", "gallery", "train"])
def test_every_control_is_reached_by_tab_seen_and_named(page, room) -> None:
    page.click(f"[data-room={room}]")
    page.wait_for_timeout(600)
    count = f"[...document.querySelectorAll('{CONTROLS}')].filter(e => e.checkVisibility() && !e.disabled).length"
    script = """() => {
      const e = document.activeElement;
      const box = e.type === 'radio' || e.type === 'file' ? e.parentElement : e;
      const style = getComputedStyle(e.type === 'radio' ? e.nextElementSibling : box);
      const name = e.getAttribute('aria-label') || e.labels?.[0]?.textContent || e.textContent
        || e.querySelector('img')?.alt;
      return [e === document.body, e.outerHTML.slice(0, 80), Boolean(name?.trim()), style.outlineStyle !== 'none'];
    }"""
    page.evaluate("document.activeElement.blur(); window.scrollTo(0, 0)")
    reached = {}
    for _ in range(page.evaluate(count) + 8):
        page.keyboard.press("Tab")
        body, text, named, seen = page.evaluate(script)
        if not body:
            reached[text] = named, seen
    assert len(reached) >= 6
    assert [text for text, (named, _) in reached.items() if not named] == []
    assert [text for text, (_, seen) in reached.items() if not seen] == []
    missed = page.evaluate(
        f"[...document.querySelectorAll('{CONTROLS}')].filter(e => e.checkVisibility() && !e.disabled && e.tabIndex < 0).length"
    )
    assert missed == 0


@pytest.mark.parametrize("mode", ["generate", "sketch", "layout", "inpaint", "vary"])
def test_a_phone_shows_all_of_it(page, mode) -> None:
    page.set_viewport_size({"width": 360, "height": 740})
    begin(page, mode)
    for room in ("make", "gallery", "train"):
        page.click(f"[data-room={room}]")
        page.wait_for_timeout(200)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), room
    page.click("[data-room=make]")
    low = "e => e.checkVisibility() && e.getBoundingClientRect().height < 38"
    small = page.evaluate(f"[...document.querySelectorAll('button, select')].filter({low}).map(e => e.outerHTML)")
    assert small == []


def test_a_job_goes_on_when_the_page_is_opened_again(page, address) -> None:
    ask(page, "owl", n=8, steps=200)
    page.click("#draw")
    first = page.locator("#feed article").first
    expect(first).to_contain_text("step")
    name = first.get_attribute("data-job")
    page.reload()
    card = page.locator(f"[data-job='{name}']")
    expect(card.get_by_role("button", name="Cancel")).to_be_visible()
    expect(card.locator(".tile img[src^='data:image/']").first).to_be_visible(timeout=WAIT)
    expect(page.locator("#prompt")).to_have_value("owl")
    card.get_by_role("button", name="Cancel").click()
    expect(card).to_contain_text("cancelled")


def test_with_a_token_the_page_draws_and_the_address_forgets_it(browser, tmp_path) -> None:
    token = "a-token-of-ours"
    with served(tiny_model(tmp_path), tmp_path / "data", token=token) as (url, _):
        context = browser.new_context()
        page = context.new_page()
        assert page.goto(f"{url}/?token={token}").status == 200 and page.url == f"{url}/"
        assert token not in page.evaluate("document.cookie + JSON.stringify(localStorage)")
        ask(page, "owl", n=2, steps=60)
        page.click("#draw")
        card = page.locator("#feed article").first
        expect(card.locator("button.tile img")).to_have_count(2, timeout=WAIT)
        assert card.locator("button.tile img").first.evaluate("i => i.decode().then(() => i.naturalWidth)") == 16
        context.close()
        stranger = browser.new_context()
        assert stranger.request.get(f"{url}/").status == stranger.request.get(f"{url}/api/jobs").status == 401
        stranger.close()


def test_colours_follow_the_system_and_the_choice(page) -> None:
    ground = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(ground)
    page.emulate_media(color_scheme="dark")
    dark = page.evaluate(ground)
    assert light != dark
    page.click("#theme")
    assert page.evaluate(ground) == light
    page.reload()
    assert page.evaluate(ground) == light, "the choice is kept"
    page.click("#theme")
    assert page.evaluate(ground) == dark


def test_a_refusal_is_told_in_words(page) -> None:
    ask(page, "owl --ar 0:0")
    page.click("#draw")
    expect(page.locator("#notes p")).to_contain_text("ar")
    expect(page.locator("#draw")).to_be_enabled()


def test_a_folder_is_audited_trained_on_and_used(page, address) -> None:
    page.click("[data-room=train]")
    page.select_option("select[name=source]", "shapes")
    page.click("#audit")
    expect(page.locator("[data-audit]")).to_contain_text("24 pictures in shapes", timeout=WAIT)
    page.fill("input[name=minutes]", "0.1")
    page.fill("input[name=name]", "shapes of mine")
    page.get_by_role("button", name="Train", exact=True).click()
    shown = page.locator("[data-training]")
    expect(shown).to_contain_text("shapes of mine")
    expect(page.locator("#stop")).to_be_visible()
    expect(page.locator("#use")).to_be_visible(timeout=4 * WAIT)
    expect(shown.locator("dd", has_text="done")).to_be_visible()
    expect(shown.locator("svg[aria-label^='Loss']")).to_be_visible()
    expect(shown.locator("img.preview")).to_be_visible()
    page.click("#use")
    expect(page.locator("#model")).to_have_value("shapes of mine", timeout=WAIT)
    page.click("[data-room=make]")
    page.fill("#n", "2")
    job = drawn(page, address)
    assert job["model"] == "shapes of mine" and len(job["files"]) == 2


def test_a_training_that_is_stopped_keeps_what_it_learned(page, address) -> None:
    page.click("[data-room=train]")
    page.select_option("select[name=source]", "shapes")
    page.fill("input[name=minutes]", "30")
    page.fill("input[name=name]", "stopped")
    page.get_by_role("button", name="Train", exact=True).click()
    shown = page.locator("[data-training]")
    expect(shown.locator("h2")).to_have_text("stopped")
    expect(shown).to_contain_text("images/s", timeout=4 * WAIT)
    page.get_by_role("button", name="Train", exact=True).click()
    expect(page.locator("#notes p", has_text="another train runs")).to_be_visible()
    page.click("#stop")
    expect(shown.locator("dd", has_text="stopped")).to_be_visible(timeout=2 * WAIT)
    page.click("#use")
    expect(page.locator("#model")).to_have_value("stopped", timeout=WAIT)
