"""Layouts: what stands where, told by boxes with words of their own."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from sfumato.core import SfumatoError
from sfumato.data.records import shown

MOST = 64  # boxes of one picture
FAR = 1e9  # no edge lies there: NaN, infinities and numbers of a thousand digits neither
SHOWN_MOST = 80  # characters of a wrong value that an error repeats


class Box(NamedTuple):
    """A thing in its place: left, top, right and bottom edge in 0 ... 1 of the picture's width and height, and its words."""

    x0: float
    y0: float
    x1: float
    y1: float
    text: str


@dataclass(frozen=True)
class Layout:
    """`boxes` on a picture of `width` x `height` pixels, the first at the back; `background`: what is said of the whole."""

    width: int
    height: int
    boxes: tuple[Box, ...]
    background: str = ""


def read_layout(path: str | Path) -> Layout:
    """The layout of a JSON file, see `layout_of`. Raises SfumatoError when it cannot be read."""
    try:
        told = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise SfumatoError(f"{shown(path)} cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise SfumatoError(f"{shown(path)} is no JSON ({str(error)[:SHOWN_MOST]}): see docs/layouts.md") from error
    return layout_of(told, shown(path))


def layout_of(told: Any, where: str = "the layout") -> Layout:
    """{"width", "height", "background"?, "boxes": [{"box": [x0, y0, x1, y1], "text"}]} -> Layout.

    A box is told in fractions of the picture, or, when any of its numbers is above 1, in pixels. Raises SfumatoError naming
    the box that does not fit: outside of the picture, without area, without words, not four numbers; too many boxes.
    """
    if not isinstance(told, dict) or not isinstance(told.get("boxes"), list):
        raise SfumatoError(f'{where}: a layout is an object with "width", "height" and a list of "boxes"')
    width, height = (_side(told, name, where) for name in ("width", "height"))
    background = told.get("background", "")
    if not isinstance(background, str):
        raise SfumatoError(f"{where}: background should be words, not {str(background)[:SHOWN_MOST]!r}")
    if not told["boxes"]:
        raise SfumatoError(f"{where} has no boxes: give at least one, or ask by a prompt alone")
    if len(told["boxes"]) > MOST:
        raise SfumatoError(f"{where} has {len(told['boxes']):,} boxes and {MOST} are the most: leave small ones away")
    boxes = tuple(_box(box, f"{where}, box {k}", width, height) for k, box in enumerate(told["boxes"]))
    return Layout(width, height, boxes, background)


def _side(told: dict[str, Any], name: str, where: str) -> int:
    value = told.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= 65536:
        raise SfumatoError(f"{where}: {name} should be a number of pixels, not {str(value)[:SHOWN_MOST]!r}")
    return value


def _box(told: Any, where: str, width: int, height: int) -> Box:
    numbers, text = (told.get("box"), told.get("text")) if isinstance(told, dict) else (None, None)
    if not isinstance(text, str) or not text.strip():
        raise SfumatoError(f'{where}: every box says in "text" what stands there')
    fine = isinstance(numbers, list) and len(numbers) == 4
    fine = fine and all(isinstance(n, int | float) and not isinstance(n, bool) and abs(n) < FAR for n in numbers)
    if not fine:
        raise SfumatoError(
            f'{where}: "box" should be four numbers [left, top, right, bottom], not {str(numbers)[:SHOWN_MOST]}'
        )
    sides = (width, height, width, height) if max(numbers) > 1 else (1, 1, 1, 1)
    x0, y0, x1, y1 = (n / side for n, side in zip(numbers, sides, strict=True))
    if min(x0, y0, x1, y1) < 0 or max(x0, y0, x1, y1) > 1:
        raise SfumatoError(f"{where}: {numbers} lies outside of the picture of {width}x{height} pixels")
    if x1 <= x0 or y1 <= y0:
        raise SfumatoError(f"{where}: {numbers} has no area: right must be beyond left, and bottom below top")
    return Box(x0, y0, x1, y1, text)
