"""Layouts from files: what is read, and what every mistake is told."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from sfumato.core import SfumatoError
from sfumato.data.layout import Box, layout_of, read_layout

BOXES = [{"box": [0.1, 0.2, 0.5, 0.9], "text": "red apple"}, {"box": [0, 0, 1, 1], "text": "table"}]


def told(**changes: Any) -> dict[str, Any]:
    return {"width": 64, "height": 32, "background": "on white", "boxes": BOXES, **changes}


def test_fractions_and_pixels_tell_the_same_boxes(tmp_path: Path) -> None:
    path = tmp_path / "layout.json"
    path.write_text(json.dumps(told()), encoding="utf-8")
    found = read_layout(path)
    assert (found.width, found.height, found.background) == (64, 32, "on white")
    assert found.boxes == (Box(0.1, 0.2, 0.5, 0.9, "red apple"), Box(0, 0, 1, 1, "table"))
    pixels = layout_of(told(boxes=[{"box": [16, 8, 64, 32], "text": "cat"}]))
    assert pixels.boxes == (Box(0.25, 0.25, 1, 1, "cat"),)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"boxes": []}, "no boxes"),
        ({"boxes": None}, "list of"),
        ({"boxes": BOXES * 250}, "500 boxes and 64 are the most"),
        ({"boxes": [{"box": [0.1, 0.1, 0.1, 0.9], "text": "a"}]}, "box 0.* no area"),
        ({"boxes": [*BOXES, {"box": [0.5, 0.9, 0.9, 0.1], "text": "a"}]}, "box 2.* no area"),
        ({"boxes": [{"box": [0, 0, 65, 32], "text": "a"}]}, "outside of the picture of 64x32"),
        ({"boxes": [{"box": [-0.1, 0, 0.5, 0.5], "text": "a"}]}, "outside"),
        ({"boxes": [{"box": [0, 0, math.nan, 1], "text": "a"}]}, "four numbers"),
        ({"boxes": [{"box": [0, 0, True, 1], "text": "a"}]}, "four numbers"),
        ({"boxes": [{"box": [0, 0, 1], "text": "a"}]}, "four numbers"),
        ({"boxes": [{"box": [0, 0, 1, 1]}]}, "text"),
        ({"boxes": [{"box": [0, 0, 1, 1], "text": "  "}]}, "text"),
        ({"boxes": ["cat"]}, "text"),
        ({"width": 0}, "width"),
        ({"height": "32"}, "height"),
        ({"background": 3}, "background"),
    ],
)
def test_every_mistake_is_named_in_one_line(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(SfumatoError, match=said) as error:
        layout_of(told(**changes))
    assert "\n" not in str(error.value)


def test_files_that_are_no_layouts_are_told(tmp_path: Path) -> None:
    for content, said in (("{", "no JSON"), ("[1]", "object"), ("[" * 100_000, "no JSON")):
        path = tmp_path / "a.json"
        path.write_text(content, encoding="utf-8")
        with pytest.raises(SfumatoError, match=said):
            read_layout(path)
    with pytest.raises(SfumatoError, match="cannot be read"):
        read_layout(tmp_path / "none.json")
