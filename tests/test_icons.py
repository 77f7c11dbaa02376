"""The icon set: fetched and drawn from tiny packages, opened as a source, split so that nothing leaks."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from icon_packages import GLYPHS, calls, store  # noqa: F401
from PIL import Image

import sfumato.data as data
from sfumato.cli.main import main
from sfumato.core import SfumatoError
from sfumato.data import Source, emoji, icons, icons_get
from sfumato.data.order import split

TWO = ["noto", "fxemoji"]
NAMED = [name for _, name, *_ in GLYPHS if "France" not in name]


def get(styles: list[str] = TWO, size: int = 16) -> dict:
    return icons_get.get(list(styles), size, lambda text: None)


def centre(source: Source, key: str) -> list[int]:
    return source.images(torch.tensor([source.keys.index(key)]))[0, 5, 5].tolist()


def test_the_right_drawing_goes_with_the_right_name(store: Path) -> None:  # noqa: F811
    told = get()
    source = data.open("icons", size=16)
    assert source.styles == ("noto", "fxemoji") and source.codec.spec == (3, 16, 16)
    assert [source.columns["name"][k] for k in range(len(source)) if source.columns["style"][k] == "noto"] == sorted(
        NAMED, key=lambda name: next(code.replace("-FE0F", "") for code, n, *_ in GLYPHS if n == name)
    )
    assert centre(source, "noto/1F534") == [0xE0, 0x20, 0x20] and centre(source, "fxemoji/1F535") == [0x20, 0x60, 0xE0]
    # flags of countries, skin tones and hidden icons are left out, by code point and by name alike
    assert not any("1F3FF" in key or "1F1EB" in key for key in source.keys)
    assert [told["styles"][s]["pictures"] for s in TWO] == [len(NAMED), len(NAMED)]
    assert told["styles"]["noto"]["licence"]["spdx"] == "Apache-2.0" and told["made"] == TWO
    assert source.summary()["licence"].startswith("noto: Apache-2.0, the draughtsman, https://example.org")
    json.dumps(source.summary())


def test_captions_are_name_keywords_groups_colours_style(store: Path) -> None:  # noqa: F811
    get()
    source = data.open("icons", size=16)
    row = source.keys.index("fxemoji/1F534")
    assert source.captions[row] == "red circle, round, red, geometric, group and 8, firefox style"
    egg = source.keys.index("noto/1F95A")
    assert source.columns["colours"][egg] == ["white"], "white on white is told by transparency, and is no background"
    assert source.captions[egg] == "egg, food, hen, food or fruit, group and 4, white, noto style"
    assert source.columns["names"][egg]["de"] == "de egg" and "ja egg" in source.columns["alternatives"][egg]
    assert [source.columns[k][egg] for k in ("glyph", "subgroup", "keywords")] == [
        "1F95A",
        "food or fruit",
        ["food", "hen"],
    ]
    slot = source.batch(torch.tensor([egg, row])).cond["style"]
    assert slot.role == "vector" and slot.value.tolist() == [0, 1] and slot.mask.all()


def test_drawings_that_are_not_square_are_padded(store: Path) -> None:  # noqa: F811
    """fxemoji's second drawing of the apple, 32 x 16, is taken by its short code when it comes first in the alphabet."""
    get(["fxemoji"])
    source = data.open("icons:fxemoji", size=16)
    picture = source.images(torch.tensor([source.keys.index("fxemoji/1F34E")]))[0]
    green = (picture == [0, 0xA0, 0]).all(-1)
    assert green[4:12].all() and (picture[:4] == 255).all() and (picture[12:] == 255).all()


def test_what_was_got_needs_no_npm_again(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    get()
    first = data.open("icons", size=16)
    assert calls(store) == ["emojibase-data@17.0.0", "@iconify-json/noto@1.2.9", "@iconify-json/fxemoji@1.2.2"]
    monkeypatch.setenv("PATH", "/nowhere")
    assert get()["made"] == []
    assert get(size=24)["made"] == TWO, "the packages are kept: other sizes are drawn from them"
    assert len(calls(store)) == 3
    assert (data.open("icons", size=16).pixels == first.pixels).all()
    assert data.open("icons", size=20).codec.spec == (3, 20, 20)
    with pytest.raises(SfumatoError, match="sfumato data get emoji --size 96"):
        data.open("icons", size=96)


def test_a_network_that_fails_loses_nothing(store: Path) -> None:  # noqa: F811
    (store / "broken").write_text("fxemoji")
    with pytest.raises(SfumatoError, match="npm cannot fetch @iconify-json/fxemoji.*ENOTFOUND.*what was got is kept"):
        get()
    assert data.open("icons", size=16).styles == ("noto",)
    (store / "broken").unlink()
    assert get()["made"] == ["fxemoji"] and data.open("icons", size=16).styles == ("noto", "fxemoji")
    assert [c for c in calls(store) if "fxemoji" not in c] == ["emojibase-data@17.0.0", "@iconify-json/noto@1.2.9"]
    assert not [p for p in icons.folder().rglob("*part*")]


def test_killed_amid_a_fetch_it_goes_on_where_it_was(store: Path) -> None:  # noqa: F811
    (store / "slow").write_text("fxemoji")
    worker = os.fork()
    if worker == 0:
        os.setsid()
        try:
            get()
        finally:
            os._exit(0)
    until = time.monotonic() + 60
    while not any("fxemoji" in c for c in calls(store)) and time.monotonic() < until:
        time.sleep(0.02)
    os.killpg(worker, signal.SIGKILL)
    assert os.waitpid(worker, 0)[1] == signal.SIGKILL, "it was not waiting for npm"
    (store / "slow").unlink()
    assert get()["made"] == ["fxemoji"] and len(data.open("icons", size=16)) == 2 * len(NAMED)
    assert [c for c in calls(store) if "noto" in c] == ["@iconify-json/noto@1.2.9"]


def test_another_archive_than_the_pinned_one_is_refused(store: Path) -> None:  # noqa: F811
    archive = next(store.glob("*noto*.tgz"))
    archive.write_bytes(archive.read_bytes() + b"\0")
    with pytest.raises(SfumatoError, match="sha512 differs"):
        get()
    assert not list(icons.folder().rglob("*noto*"))


def test_a_damaged_file_is_named_and_mended(store: Path) -> None:  # noqa: F811
    get()
    path = icons.folder() / "noto-16.npz"
    for damage in (path.read_bytes()[:200], b"", b"PK\x03\x04 rubbish"):
        path.write_bytes(damage)
        with pytest.raises(SfumatoError, match="noto-16.npz is damaged"):
            data.open("icons", size=16)
        assert get()["made"] == ["noto"] and data.open("icons", size=16).styles == ("noto", "fxemoji")


def test_mistakes_are_told_in_one_line(store: Path, capsys: pytest.CaptureFixture) -> None:  # noqa: F811
    for source, message in {
        "icons": "get it once with: sfumato data get emoji",
        "icons:noto": "sfumato data get emoji --styles noto",
        "icons:fluent-flt": "no style 'fluent-flt'; did you mean 'fluent-flat'",
    }.items():
        with pytest.raises(SfumatoError, match=message):
            data.open(source)
    assert data.located("icons:noto") == "icons:noto"
    assert main(["data", "get", "emoji", "--styles", "nota"]) == 2
    assert "did you mean 'noto'" in capsys.readouterr().err
    assert main(["data", "get", "emoji", "--size", "4"]) == 2
    assert main(["data", "get", "emoji", "--styles", *TWO, "--size", "16", "--json"]) == 0
    out = capsys.readouterr()
    assert json.loads(out.out.splitlines()[-1])["styles"]["noto"]["pictures"] == len(NAMED)
    assert "Apache-2.0, by the draughtsman" in out.err


def test_without_npm_pip_gives_one_style(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found, versions, licence = emoji._glyphs("emoji")
    chosen = [g for g in found if g[0].stem in ("1F534", "1F34E", "1F1EB-1F1F7")]
    monkeypatch.setattr(emoji, "_glyphs", lambda kind: (chosen, versions, licence))
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setenv("SFUMATO_CACHE", str(tmp_path))
    said: list[str] = []
    assert list(icons_get.get([], 32, said.append)["styles"]) == ["openmoji"]
    assert "npm is not installed" in said[0] and "CC-BY-SA-4.0" in said[-1]
    source = data.open("icons", size=32)
    assert sorted(source.columns["name"]) == ["red apple", "red circle"]
    assert source.columns["names"][source.columns["name"].index("red apple")]["de"] == "roter apfel"
    assert source.columns["colours"][source.columns["name"].index("red circle")][0] == "red"
    with pytest.raises(SfumatoError, match="'noto' comes through npm"):
        icons_get.get(["noto"], 32, said.append)


# what is held out


def many(glyphs: int, styles: int, alone: int = 0) -> Source:
    """Every glyph in every style, and `alone` more in the first style only."""
    names = [f"{k:X}" for k in range(glyphs + alone)]
    rows = [(name, style) for style in range(styles) for name in (names if style == 0 else names[:glyphs])]
    return Source(
        name="many",
        pixels=np.zeros((len(rows), 1, 1, 3), np.uint8),
        keys=tuple(f"{style}/{name}" for name, style in rows),
        styles=tuple(map(str, range(styles))),
        style_labels=torch.tensor([style for _, style in rows]),
        groups=tuple(name for name, _ in rows),
    )


def test_held_out_glyphs_and_pairs_do_not_leak() -> None:
    source = many(2000, 5, alone=300)
    train, pairs, glyphs = source.train_index.tolist(), *(source.holdout[k].tolist() for k in ("pairs", "glyphs"))
    assert sorted(train + pairs + glyphs) == list(range(len(source)))
    assert source.validation_index.tolist() == sorted(pairs + glyphs)
    trained = {source.groups[k] for k in train}
    assert not trained & {source.groups[k] for k in glyphs}
    assert {source.groups[k] for k in pairs} <= trained, "a pair's glyph is trained on in another style"
    held = len({source.groups[k] for k in glyphs})
    assert abs(held - 115) < 4 * (2300 * 0.05 * 0.95) ** 0.5
    possible = 5 * (2000 - len({source.groups[k] for k in glyphs} & {f"{k:X}" for k in range(2000)}))
    assert abs(len(pairs) - 0.1 * possible) < 4 * (possible * 0.09) ** 0.5
    assert not any(int(source.groups[k], 16) >= 2000 for k in pairs), "the only drawing of a glyph is no pair"


def test_a_glyph_in_two_styles_keeps_one() -> None:
    """Of a glyph whose pairs all fall under the bound, one stays in training."""
    source = many(4000, 2)
    trained = {source.groups[k] for k in source.train_index.tolist()}
    assert trained | {source.groups[k] for k in source.holdout["glyphs"].tolist()} == set(source.groups)


def test_rows_of_one_group_and_style_stay_together() -> None:
    """Men and women at one work are one drawing: no style has one of them in training and the other held out."""
    source = many(400, 3)
    twice = source.take(torch.arange(len(source)).repeat_interleave(2))
    side = torch.zeros(len(twice), dtype=torch.int64)
    for number, rows in enumerate(twice.holdout.values(), 1):
        side[rows] = number
    assert (side[::2] == side[1::2]).all() and len(twice.holdout["pairs"]) > 50


def test_drawings_that_are_alike_are_one_group(store: Path) -> None:  # noqa: F811
    get()
    source = data.open("icons", size=16)
    group = dict(zip(source.keys, source.groups, strict=True))
    assert group["noto/1F468-200D-1F692"] == group["fxemoji/1F469-200D-1F692"] == "1F9D1-1F692"
    assert group["noto/1F534"] == group["fxemoji/1F534"] != group["noto/1F535"]
    assert icons.base("1F3C3-200D-2642-FE0F-200D-27A1-FE0F") == "1F3C3" and icons.base("2642-FE0F") == "2642-FE0F"
    same = np.full((1, 2, 2, 3), 7, np.uint8)
    other = np.full((1, 2, 2, 3), 9, np.uint8)
    pixels = [np.concatenate([same, same, other]), np.concatenate([other, same])]
    found = icons._drawings(["A", "B", "C", "B", "D"], pixels)
    assert found[0] == found[1] == found[3] and len(set(found)) == 3, (
        "equal pixels in one style join, in two they need not"
    )


def test_skin_tones_of_one_drawing_are_one_group() -> None:
    glyphs, _, _ = emoji._glyphs("emoji-people")
    groups = [emoji._drawing(path.stem) for path, _ in glyphs]
    train, held = split(groups)
    assert not {groups[k] for k in train.tolist()} & {groups[k] for k in held.tolist()}
    assert 200 < len(set(groups)) < 0.3 * len(glyphs) and 0.02 < len(held) / len(glyphs) < 0.09


def test_a_folder_has_styles_by_its_metadata(tmp_path: Path) -> None:
    styles = ["ink", "oil", "ink", None]
    for k in range(4):
        Image.new("RGB", (8, 8), (60 * k, 0, 9)).save(tmp_path / f"{k}.png")
    rows = [{"file_name": f"{k}.png", "text": "a cat", "style": style} for k, style in enumerate(styles)]
    (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    source = data.open(tmp_path, size=8)
    assert source.styles == ("ink", "oil") and source.style_labels.tolist() == [0, 1, 0, -1]
    slot = source.batch(torch.arange(4)).cond["style"]
    assert slot.mask.tolist() == [True, True, True, False] and source.columns["style"] == styles
    assert list(source.holdout) == ["pictures"], "without groups every picture is held out by its own name"
    assert source.summary()["style_counts"] == {"ink": 2, "oil": 1}
