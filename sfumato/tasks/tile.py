"""Seamless textures: pictures whose opposite edges fit together."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from PIL import Image
from torch import Tensor

from sfumato.tasks.carry import Plan, Request, Result, carry_out
from sfumato.tasks.editing import edited, requested
from sfumato.tasks.recorded import recorded

if TYPE_CHECKING:
    from sfumato.data.shapes import Shape
    from sfumato.tasks.model import Model


class Tile:
    """Drawn in windows that go round the edges: the picture lies on a torus and has no border."""

    name = "tile"

    def plan(self, model: Model, request: Request) -> Plan:
        return edited(model, request, circular=True)

    def finish(self, model: Model, x0: Tensor, request: Request) -> list[Image.Image]:
        return model.codec_of(request.shape).decode(x0)


@recorded
def tile(
    model: Model,
    shape: Shape | None = None,
    progress: Callable[[float], None] = lambda share: None,
    **options: Any,
) -> Result:
    """Pictures that go on at every edge where the opposite one ends; `shape` (height, width) is the model's own when None.

    `options` are the fields of `Request`. Raises SfumatoError for sides that are no multiples of the network's.
    """
    shape = shape or model.shapes[0]
    model.codec_of(shape)
    return carry_out(model, Tile(), requested(model, shape, options), progress)
