"""A picture from its lines."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image
from torch import Tensor

from sfumato.core import Cond
from sfumato.data.controls import sketch_slot
from sfumato.tasks.beside import beside, lines_of
from sfumato.tasks.canvas import Picture, read_picture, whole
from sfumato.tasks.carry import Plan, Request, Result, carry_out
from sfumato.tasks.editing import check_memory, edited, instead, nearest, requested
from sfumato.tasks.recorded import recorded
from sfumato.tasks.sampling import times_of

if TYPE_CHECKING:
    from sfumato.data.shapes import Shape
    from sfumato.tasks.model import Model

STRENGTH = 0.85  # where the drawing itself is what a model without the slot starts from


@dataclass(frozen=True)
class Sketch:
    """Where the lines are, bool [1, 1, H, W] of the canvas, and what else is told."""

    lines: Tensor
    more: Cond = field(default_factory=Cond)
    name: str = "sketch"

    def plan(self, model: Model, request: Request) -> Plan:
        """The lines as the condition "sketch"; without the slot a drawing of them to start from (SDEdit)."""
        if model.conditioned_on("sketch"):
            return edited(model, request, self.more | {"sketch": sketch_slot(self.lines)})
        drawing = np.where(self.lines[0, 0].numpy(), 0, 255).astype(np.uint8)
        x0 = model.codec_of(request.shape).encode([Image.fromarray(drawing)])
        planned = replace(edited(model, request, self.more), x_init=x0, grid=times_of(model, request, STRENGTH))
        return instead(planned, "sketch", note="it starts from the drawing, noised, and keeps its rough shapes")

    def finish(self, model: Model, x0: Tensor, request: Request) -> list[Image.Image]:
        return model.codec_of(request.shape).decode(x0)


@recorded
def sketch(
    model: Model,
    image: Picture,
    shape: Shape | None = None,
    progress: Callable[[float], None] = lambda share: None,
    **options: Any,
) -> Result:
    """A picture whose outlines are the dark lines of a drawing on light paper.

    The drawing is laid, undistorted, into the middle of a canvas of `shape` (height, width); None: that of the model's own
    shapes which is nearest in proportions. `options` are the fields of `Request`, and `layout` and `colours`, told beside
    the lines. Raises SfumatoError for a drawing without lines.
    """
    drawing = read_picture(image, model.codec.spec[0])
    shape = shape or nearest(model, *drawing.size)
    model.codec_of(shape)
    check_memory(model, shape, options.get("n", 1))
    more, options = beside(model, whole(model, shape[::-1]), shape[::-1], options)
    request = requested(model, shape, options, words="boxes" in more)
    return carry_out(model, Sketch(lines_of(drawing, shape), more), request, progress)
