"""A picture from boxes with words in them."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from PIL import Image
from torch import Tensor

from sfumato.core import Cond, SfumatoError
from sfumato.data.controls import boxes_slot
from sfumato.data.layout import Box, Layout
from sfumato.guide.regions import Part, regions
from sfumato.tasks.beside import beside, opened
from sfumato.tasks.canvas import read_picture, whole
from sfumato.tasks.carry import Plan, Request, Result, carry_out
from sfumato.tasks.conditions import encode_text
from sfumato.tasks.editing import check_memory, cut, edited, instead, nearest, requested
from sfumato.tasks.recorded import recorded

if TYPE_CHECKING:
    from sfumato.data.shapes import Shape
    from sfumato.tasks.model import Model


@dataclass(frozen=True)
class Layouts:
    """A layout, the size (width, height) of its picture, and what the user is told of both."""

    layout: Layout
    size: tuple[int, int]
    said: tuple[str, ...] = ()
    more: Cond = field(default_factory=Cond)
    name: str = "layout"

    def plan(self, model: Model, request: Request) -> Plan:
        """Boxes with their words as the condition "boxes"; without the slot every box is drawn as a picture of its own."""
        if not self.layout.boxes:
            return edited(model, request, self.more, said=self.said)
        if model.conditioned_on("boxes"):
            slots = self.more | {"boxes": boxes_slot([self._on(request.shape)])}
            return edited(model, request, slots, said=self.said)
        planned = edited(model, request, self.more | {"text": encode_text(model, ["-"]).null()}, said=self.said)
        parts = regions(
            [_part(model, box, request) for box in self._on(request.shape)], model.denoiser.net.config.multiple
        )
        return instead(replace(planned, guides=(*planned.guides, parts)), "boxes")

    def finish(self, model: Model, x0: Tensor, request: Request) -> list[Image.Image]:
        return cut(model.codec_of(request.shape).decode(x0), self.size)

    def _on(self, canvas: Shape) -> tuple[Box, ...]:
        """The boxes in fractions of the canvas, which may be a little larger than the picture."""
        x, y = self.size[0] / canvas[1], self.size[1] / canvas[0]
        return tuple(Box(b.x0 * x, b.y0 * y, b.x1 * x, b.y1 * y, b.text) for b in self.layout.boxes)


def _part(model: Model, box: Box, request: Request) -> Part:
    height, width = request.shape
    top, left = (min(n - 1, math.floor(v * n)) for v, n in ((box.y0, height), (box.x0, width)))
    bottom, right = (max(a + 1, round(v * n)) for a, v, n in ((top, box.y1, height), (left, box.x1, width)))
    return Part(top, left, bottom, right, Cond({"text": encode_text(model, [box.text])}))


@recorded
def layout(
    model: Model,
    layout: Layout | dict[str, Any] | str | os.PathLike | None = None,
    shape: Shape | None = None,
    progress: Callable[[float], None] = lambda share: None,
    **options: Any,
) -> Result:
    """A picture of what each box says where it stands (boxes that come later stand in front), or of what a map of colours does.

    `layout` is a Layout, its JSON object, the file of one, or None where `colours` say all. The picture has `shape` (height,
    width), or the layout's own size where the model draws pictures that large at once, or else that of the model's shapes
    which is nearest in proportions. `options` are the fields of `Request` (a prompt takes the place of the layout's
    background), and `sketch` and `colours`, told beside the boxes. Raises SfumatoError for a layout that does not fit, and
    for a model that knows neither boxes nor captions.
    """
    if layout is None and options.get("colours") is None:
        raise SfumatoError(
            "a layout is boxes with words (--layout FILE.json), areas of colour (--colours FILE), or both"
        )
    layout = Layout(*read_picture(options["colours"], 3).size, ()) if layout is None else opened(layout)
    if layout.boxes and not (model.conditioned_on("boxes") or model.conditioned_on("text")):
        raise SfumatoError(
            "this model was trained without boxes and without captions: it cannot be told what stands where"
        )
    size, said = _size(model, layout, shape)
    background = layout.background.strip()
    if background and not model.conditioned_on("text"):
        said = (*said, "this model was trained without captions: the background is left to it")
    elif background and options.get("prompt") is None:
        options = options | {"prompt": background}
    check_memory(model, size[::-1], options.get("n", 1))
    more, options = beside(model, whole(model, size), size, options)
    request = requested(model, whole(model, size).shape, options, words=bool(layout.boxes))
    return carry_out(model, Layouts(layout, size, said, more), request, progress)


def _size(model: Model, layout: Layout, shape: Shape | None) -> tuple[tuple[int, int], tuple[str, ...]]:
    """The picture's width and height, and what to tell of them."""
    if shape is not None:
        if min(shape) < 1:
            raise SfumatoError(f"--size {shape[1]}x{shape[0]}: a picture has at least one pixel a side")
        return (shape[1], shape[0]), ()
    if any(layout.height <= h and layout.width <= w for h, w in model.shapes):
        return (layout.width, layout.height), ()
    height, width = nearest(model, layout.width, layout.height)
    note = (
        f"drawn at {width}x{height}, which the model learned: --size {layout.width}x{layout.height} draws it in windows"
    )
    return (width, height), (note,)
