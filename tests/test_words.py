"""Text and watermarks in pictures: planted ones are read and told, look-alikes are not; without the extra it says so."""

from __future__ import annotations

import builtins
import json
import socket
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.planted_text import plant
from sfumato.cli import main
from sfumato.data.audit import audit
from sfumato.data.audit.words import Word, believed, make_reader, spread, told

PLANTED = ("caption", "watermark", "corner")
CLEAN = ("none", "stripes", "bricks", "leaves")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("words")
    for k, kind in enumerate((*PLANTED, *CLEAN)):
        picture, words = plant(kind, np.random.default_rng([7, k]))
        picture.save(root / f"{kind}.png")
        (root / f"{kind}.words").write_text(words)
    return root


def test_planted_text_is_found_with_its_words_and_nothing_else(folder: Path, capsys, monkeypatch) -> None:
    monkeypatch.setattr(socket.socket, "connect", lambda *a: pytest.fail("it asked the network"))
    page = folder / "page.html"
    assert main(["audit", str(folder), "--text", "--json", "--report", str(page)]) == 1
    faults = json.loads(capsys.readouterr().out.splitlines()[-1])["faults"]["text_or_watermark"]
    by_name = {fault["files"][0]: fault for fault in faults}
    assert set(by_name) == {f"{kind}.png" for kind in PLANTED}
    for kind in PLANTED:
        fault = by_name[f"{kind}.png"]
        letters = "".join(filter(str.isalnum, (folder / f"{kind}.words").read_text())).lower()
        assert letters[:4] in "".join(filter(str.isalnum, fault["evidence"])).lower(), fault
        assert "% sure" in fault["evidence"] and "of the picture" in fault["evidence"]
        assert (fault["severity"], fault["fix"]) == ("warning", "review")
    assert "what looks like letters" in page.read_text(encoding="utf-8")


def test_nothing_is_read_unless_it_is_asked_for(folder: Path, monkeypatch) -> None:
    monkeypatch.setattr("sfumato.data.audit.words.make_reader", lambda: pytest.fail("made"))
    assert not [f for f in audit(str(folder)).findings if f.kind == "text_or_watermark"]


def test_without_the_extra_the_line_names_it(folder: Path, capsys, monkeypatch) -> None:
    really = builtins.__import__

    def absent(name: str, *rest):
        if name.startswith("rapidocr"):
            raise ModuleNotFoundError(name)
        return really(name, *rest)

    monkeypatch.setattr(builtins, "__import__", absent)
    assert main(["audit", str(folder), "--text", "3"]) == 2
    assert "pip install 'sfumato[ocr]'" in capsys.readouterr().err
    monkeypatch.undo()
    assert main(["audit", str(folder), "--text", "-3"]) == 2
    assert "read so many pictures" in capsys.readouterr().err


def test_a_bounded_sample_is_spread_over_the_set(folder: Path, monkeypatch) -> None:
    assert spread(range(100), 5) == [0, 24, 49, 74, 99] and spread([3, 8], 5) == [3, 8] == spread([3, 8], 0)
    seen = []
    monkeypatch.setattr("sfumato.data.audit.words.make_reader", lambda: lambda picture: seen.append(picture.size) or [])
    steps = []
    audit(str(folder), lambda done, total, what: steps.append((what, done, total)), text=2)
    assert len(seen) == 2 and steps[-2:] == [("reading text", 1, 2), ("reading text", 2, 2)]


def test_a_large_picture_is_read_small_and_a_file_that_goes_away_is_let_go(tmp_path: Path, monkeypatch) -> None:
    for name in "ab":
        Image.new("RGB", (3000, 1500), "white").save(tmp_path / f"{name}.png")
    seen = []

    def read(picture: Image.Image) -> list[Word]:
        seen.append(picture.size)
        (tmp_path / "b.png").unlink(missing_ok=True)
        return [Word("SAMPLE", 0.99, (0.0, 0.4, 1.0, 0.6))]

    monkeypatch.setattr("sfumato.data.audit.words.make_reader", lambda: read)
    found = [f for f in audit(str(tmp_path), text=0).findings if f.kind == "text_or_watermark"]
    assert seen == [(960, 480)] and [f.files for f in found] == [("a.png",)]
    assert found[0].evidence == "reads 'SAMPLE' centre across (99% sure); text covers 20.0% of the picture"


def test_only_sure_words_count() -> None:
    box = (0.0, 0.0, 0.1, 0.1)
    words = [Word("abc", 0.79, box), Word("a|", 0.99, box), Word("--.", 0.99, box), Word("ab1", 0.8, box)]
    assert [w.text for w in believed(words)] == ["ab1"]
    many = [Word(f"word{k}", 0.9, (0.7, 0.8, 0.9, 0.9)) for k in range(7)]
    assert told(many).startswith("reads 'word0' bottom right (90% sure)") and "and 2 more" in told(many)


def test_the_reader_reports_boxes_as_shares() -> None:
    picture, _ = plant("none", np.random.default_rng(0))
    from PIL import ImageDraw, ImageFont

    ImageDraw.Draw(picture).text((200, 20), "HELLO", "black", ImageFont.load_default(30))
    words = make_reader()(picture)
    assert [w.text for w in words] == ["HELLO"] and words[0].sure > 0.9
    left, top, right, bottom = words[0].box
    assert 0.55 < left < 0.66 and 0.85 < right < 1 and top < 0.15 and 0.15 < bottom < 0.3
