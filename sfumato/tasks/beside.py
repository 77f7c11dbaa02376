"""Lines, boxes and colours that any edit may be told beside what it works on, all at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from sfumato.core import Cond, SfumatoError, Slot
from sfumato.data import drawings
from sfumato.data.colours import NAMES as BASIC
from sfumato.data.controls import boxes_slot, classes_slot, sketch_slot
from sfumato.data.drawings import Area
from sfumato.data.layout import Box, Layout, layout_of, read_layout
from sfumato.tasks.canvas import Region, field_of, read_picture

if TYPE_CHECKING:
    from sfumato.data.shapes import Shape
    from sfumato.tasks.model import Model

NAMES = {"sketch": "sketch", "layout": "boxes", "colours": "classes"}  # option: the condition that it becomes


def beside(model: Model, region: Region, size: tuple[int, int], options: dict[str, Any]) -> tuple[Cond, dict[str, Any]]:
    """The conditions of the options `sketch`, `layout` and `colours` on the region's canvas, and the options without them.

    All are of the whole picture of `size` (width, height). Raises SfumatoError for what the model was not trained with.
    """
    palette = drawings.palette_of(model.facts)
    made: dict[str, Callable[[Any], Slot]] = {
        "sketch": lambda told: sketch_slot(field_of(region, lines_of(read_picture(told, 1), size[::-1])[0, 0].numpy())),
        "layout": lambda told: boxes_slot([_within(region, opened(told), size)]),
        "colours": lambda told: classes_slot(_areas(region, told, size, palette), len(palette or BASIC)),
    }
    slots, rest = {}, dict(options)
    for name, slot in NAMES.items():
        told = rest.pop(name, None)
        if told is None:
            continue
        if not model.conditioned_on(slot):
            raise SfumatoError(f"this model was trained without the condition {slot!r}: leave --{name} away")
        slots[slot] = made[name](told)
    return Cond(slots), rest


def opened(layout: Any) -> Layout:
    """A layout, its JSON object, or the file of one."""
    if isinstance(layout, Layout):
        return layout
    return layout_of(layout) if isinstance(layout, dict) else read_layout(layout)


def _within(region: Region, layout: Layout, size: tuple[int, int]) -> list[Box]:
    """The boxes of a picture of `size` in fractions of the region's canvas, those that reach into it."""
    (width, height), (h, w) = size, region.shape
    found = []
    for box in layout.boxes:
        sides = [(v * width - region.left) / w for v in (box.x0, box.x1)]
        sides += [(v * height - region.top) / h for v in (box.y0, box.y1)]
        x0, x1, y0, y1 = (min(1.0, max(0.0, side)) for side in sides)
        if x0 < x1 and y0 < y1:
            found.append(Box(x0, y0, x1, y1, box.text))
    return found


def _areas(region: Region, picture: Any, size: tuple[int, int], palette: tuple[Area, ...]) -> Tensor:
    """Which class of the palette each place of the canvas is to be of, int64 [1, H, W]; -1, none, where it is transparent."""
    told = read_picture(picture, 3)
    found = drawings.areas(told if palette else told.resize(size, Image.Resampling.NEAREST), palette)
    places = ((torch.arange(n) + 0.5) * own / n for n, own in zip(size[::-1], found.shape, strict=True))
    rows, columns = (place.long() for place in places)
    return torch.from_numpy(np.ascontiguousarray(region.cut(found[rows][:, columns]))).unsqueeze(0)


def lines_of(drawing: Image.Image, shape: Shape) -> Tensor:
    """Where a drawing has lines, bool [1, 1, H, W] of this shape, the drawing as large as it goes in its middle.

    A pixel is on a line if any part of it is, by the rule of `drawings.lines`. Raises SfumatoError when the paper is dark, or
    nothing is on it.
    """
    marked = torch.from_numpy(drawings.lines(drawing)).float()[None, None]
    part = min(shape[0] / drawing.height, shape[1] / drawing.width)
    height, width = max(1, round(drawing.height * part)), max(1, round(drawing.width * part))
    top, left = (shape[0] - height) // 2, (shape[1] - width) // 2
    lines = torch.zeros(1, 1, *shape, dtype=torch.bool)
    lines[..., top : top + height, left : left + width] = F.adaptive_max_pool2d(marked, (height, width)) > 0.5
    return lines
