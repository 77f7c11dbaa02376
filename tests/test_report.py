"""The report: everything shown, nothing from outside becomes markup, and words that match planted histories."""

from __future__ import annotations

import base64
import io
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from sfumato.core import SfumatoError
from sfumato.measure import Neighbours, Report, Strip, grid_image, verdict, write_report
from sfumato.measure.plots import curves
from sfumato.measure.words import duration, level, number, way

EVIL = "<script>alert('x')</script>&\"'"


def flat(value: int, size: tuple[int, int] = (8, 8), mode: str = "L") -> Image.Image:
    return Image.new(mode, size, value if mode == "L" else (value, 0, 0))


def scores(fd: float, precision: float = 0.7, recall: float = 0.7) -> dict:
    ends = {"kid": 0.1, "kid_se": 0.01, "density": 1.0, "coverage": 0.5}
    return {
        **ends,
        "fd": fd,
        "precision": precision,
        "recall": recall,
        "n": 1000,
        "n_reference": 10000,
        "features": f"classifier-{EVIL}-32-v1",
        "notes": [],
        "floor": {**ends, "fd": 1.0, "precision": 0.85, "recall": 0.9},
        "noise": {**ends, "fd": 400.0, "precision": 0.0, "recall": 0.0},
    }


def history(train: list[float], held: list[float], fd: list[float] | None = None) -> list[dict]:
    rows = [
        {"step": 100 * (k + 1), "seconds": 10.0 * (k + 1), "images": 3200 * (k + 1), "loss": a, "validation_loss": b}
        for k, (a, b) in enumerate(zip(train, held, strict=True))
    ]
    for row, value in zip(rows, fd or [], strict=False):
        row["fd"] = value
    return rows


def whole() -> Report:
    falling = [1 / (k + 1) for k in range(12)]
    strip = Strip((0.0, 0.5, 1.0), [[flat(1), flat(2), flat(3)]] * 2)
    return Report(
        title=EVIL,
        source={"name": EVIL, "train": 57000, "width": 8, "height": 8, "class_counts": {EVIL: 3}, "licence": EVIL},
        history=history(falling, falling, [300.0 / (k + 1) for k in range(12)]),
        samples=[flat(10 * k) for k in range(7)],
        captions=[EVIL] * 7,
        metrics=scores(12.0),
        forward=strip,
        reverse=Strip((1.0, 0.5, 0.0), strip.rows),
        previews=[(100, flat(9, (40, 20))), (200, flat(8, (40, 20)))],
        neighbours=[
            Neighbours(flat(70), [flat(71), flat(90)], [0.1, 2.0]),
            Neighbours(flat(30), [flat(40), flat(50)], [1.9, 2.0]),
        ],
        held_out=1.5,
        recipe={"net": {"widths": (1, 2), EVIL: EVIL}},
        machine={"threads": 2},
        parameters=5_000_000,
        warnings=[EVIL],
    )


class Tags(HTMLParser):
    """Collects tags and checks that every one is closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.seen.append(tag)
        if tag not in ("img", "meta", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_everything_is_shown_once_and_in_order(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "w.safetensors").write_bytes(b"0" * 2_000_000)
    path = write_report(tmp_path, whole())
    html = path.read_text()
    assert path == tmp_path / "report.html" and not list(tmp_path.glob("*.part"))
    heads = re.findall(r"<h2>(.*?)</h2>", html)
    assert heads == [
        "Warnings", "How good is it?", "What it makes", "How it learned", "From picture to noise",
        "From noise to picture",
        "Learned or copied?", "The data", "Recipe and machine", "Files in this folder",
    ]  # fmt: skip
    for words in ("57,000 pictures", "2 min 0 s", "12", "real pictures: 1", "pure noise: 400", "2.00 MB", "5,000,000"):
        assert words in html
    assert html.count("<svg") == 2 and "t = 0.50" in html and "1 of 2 are copies" in html
    assert not re.search(r'(src|href)="(?!data:|#)', html)  # nothing is fetched from anywhere


def test_nothing_from_outside_becomes_markup(tmp_path: Path) -> None:
    html = write_report(tmp_path / EVIL.replace("/", ""), whole()).read_text()
    assert "<script" not in html and EVIL not in html
    tags = Tags()
    tags.feed(html)
    assert not tags.open and "script" not in tags.seen


def test_embedded_pictures_are_the_pictures(tmp_path: Path) -> None:
    image = Image.effect_noise((16, 16), 80)
    html = write_report(tmp_path, Report("t", {}, samples=[image])).read_text()
    (data,) = re.findall(r'src="data:image/png;base64,([^"]+)"', html)
    found = Image.open(io.BytesIO(base64.b64decode(data)))
    assert found.size == (16, 16) and found.tobytes() == image.tobytes()


def test_an_empty_report_is_a_page(tmp_path: Path) -> None:
    tags = Tags()
    tags.feed(write_report(tmp_path / "new", Report("nothing", {})).read_text())
    assert not tags.open and "svg" not in tags.seen


def test_curves_survive_numbers_that_are_none(tmp_path: Path) -> None:
    rows = history([1.0, float("nan"), 0.5], [1.0, float("inf"), 0.5])
    html = write_report(tmp_path, Report("t", {}, history=rows)).read_text()
    assert "Training diverged" in html and "<svg" in html


def test_without_matplotlib_the_error_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    with pytest.raises(SfumatoError, match=r"pip install 'sfumato\[report\]'"):
        write_report(tmp_path, whole())


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SfumatoError, match="cannot be written"):
        write_report(tmp_path / "file", Report("t", {}))


FALLING = [1.0 / (k + 1) for k in range(12)]
FLAT = [1.0, 0.6, 0.4, 0.35, 0.32] + [0.3] * 7


@pytest.mark.parametrize(
    ("train", "held", "fd", "words"),
    [
        (FALLING, FALLING, None, "still falling"),
        (FLAT, FLAT, None, "change little"),
        (FLAT, FLAT, [100.0 - 8 * k for k in range(12)], "samples still improve"),
        (FLAT, FLAT, [100.0] * 12, "change little"),
        (FALLING, FALLING[:6] + [FALLING[5] * (1 + 0.1 * k) for k in range(6)], None, "since step 600"),
        (FLAT[:6] + [0.9] * 6, FLAT[:6] + [0.9] * 6, None, "learning rate is probably too high"),
        (FLAT[:6] + [float("nan")] * 6, FLAT, None, "diverged: the loss is no number from step 700"),
        ([1.0] * 3, [1.0] * 3, None, "too short"),
    ],
)
def test_words_of_planted_curves(train: list[float], held: list[float], fd: list[float] | None, words: str) -> None:
    (told,) = verdict(history(train, held, fd), None)
    assert words in told
    assert ("copying" in told) == (words == "since step 600")


def test_words_of_planted_scores() -> None:
    assert way(scores(400.0)) == 0 and way(scores(1.0)) == 1 and way(scores(20.0)) == pytest.approx(0.5)
    assert way({"fd": 3.0}) is None and way({**scores(3.0), "fd": float("nan")}) is None
    assert way({**scores(3.0), "noise": {"fd": 0.5}}) is None
    names = [level(scores(fd)) for fd in (1.2, 8.0, 40.0, 120.0, 390.0)]
    assert names[0] == "almost like real pictures" and names[-1] == "hardly better than noise" and len(set(names)) == 5
    good = verdict([], scores(8.0))
    assert "70 (85 for real ones)" in good[1] and len(good) == 2
    assert "never made" in verdict([], scores(8.0, precision=0.8, recall=0.2))[2]
    assert "unlike anything" in verdict([], scores(8.0, precision=0.2, recall=0.8))[2]


def test_copies_are_found_even_when_the_data_hold_them_twice() -> None:
    image = flat(1)
    assert Neighbours(image, [image] * 2, [0.3, 1.0]).copied(0.5)
    assert not Neighbours(image, [image] * 2, [0.34, 1.0]).copied(0.5)
    twice = Neighbours(image, [image] * 3, [0.3, 0.31, 2.0])
    assert twice.copied(1.0) and not twice.copied(0.5)


def test_quality_is_drawn_as_kernel_distance_where_there_is_no_frechet_distance() -> None:
    rows = [{"seconds": 60.0 * k, "kid": value} for k, value in enumerate((300.0, 40.0, -1.0))]
    ends = {"floor": {"kid": -0.5, "fd": None}, "noise": {"kid": 3000.0, "fd": None}}
    for history, marked in ((rows[:2], True), (rows, False)):  # what is below 0 has no place on a logarithmic axis
        ((title, svg),) = curves(history, ends)
        assert title == "Quality" and "kernel distance" in svg
        assert ("pure noise" in svg) == marked and "real pictures" not in svg
    assert "Fréchet" in dict(curves([{**row, "fd": 9.0} for row in rows], ends))["Quality"]


def test_the_measured_share_of_copies_stands_beside_the_neighbours(tmp_path: Path) -> None:
    image, counted = flat(1), {"n": 1000, "words": "about 5.0 % <i>copies</i>"}
    report = Report(
        "x",
        {},
        neighbours=[Neighbours(image, [image] * 2, [0.3, 1.0])],
        metrics={**scores(8.0), "memorisation": counted},
    )
    page = write_report(tmp_path, report).read_text()
    assert "1 of 1 are copies" in page and "Of 1,000 pictures: about 5.0 % &lt;i&gt;copies" in page


def test_numbers_and_times_as_people_write_them() -> None:
    assert [number(v) for v in (None, float("nan"), 0, 57000, 12.345, 0.00012, 1234.5)] == [
        "–", "–", "0", "57,000", "12.3", "1.2e-04", "1,234",
    ]  # fmt: skip
    assert [duration(s) for s in (47.6, 243, 7500)] == ["48 s", "4 min 3 s", "2 h 5 min"]


def test_a_sheet_keeps_every_pixel() -> None:
    tiles = [flat(k, (32, 16)) for k in range(5)]
    sheet = grid_image(tiles, columns=2, pad=1)
    assert sheet.mode == "L" and sheet.size == (2 * 65 + 1, 3 * 33 + 1)
    for k in range(5):
        x, y = 1 + k % 2 * 65, 1 + k // 2 * 33
        assert set(sheet.crop((x, y, x + 64, y + 32)).getdata()) == {k}
    assert grid_image([flat(1, (200, 200), "RGB")]).size == (204, 204)
    mixed = grid_image([flat(1, (32, 16)), flat(2, (16, 32))], columns=2, pad=1)
    assert mixed.size == (2 * 65 + 1, 66) and {mixed.getpixel(at) for at in ((1, 17), (64, 48))} == {1}
    assert {mixed.getpixel(at) for at in ((82, 1), (113, 64))} == {2} and mixed.getpixel((81, 1)) == 128
    with pytest.raises(SfumatoError, match="no pictures"):
        grid_image([])
