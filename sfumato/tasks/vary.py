"""Image to image: a picture drawn again, near to it or far from it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image
from torch import Tensor

from sfumato.core import SfumatoError
from sfumato.tasks.canvas import Picture, Region, encoded, read_picture, whole
from sfumato.tasks.carry import Plan, Request, Result, carry_out
from sfumato.tasks.editing import ON_WHITE, cut, edited, requested
from sfumato.tasks.recorded import recorded
from sfumato.tasks.sampling import settled, times_of

if TYPE_CHECKING:
    from sfumato.tasks.model import Model


@dataclass(frozen=True)
class Vary:
    """Pictures of one size, equally mixed, and how far to go from them: the walk starts from the mixture, noised to the
    time t_min + strength (t_max - t_min) (SDEdit, Meng et al. 2022; of several pictures Ho et al. 2020, section 4.3)."""

    pictures: tuple[Image.Image, ...]
    region: Region
    strength: float
    name: str = "vary"
    clear: bool = False

    def plan(self, model: Model, request: Request) -> Plan:
        """All steps of the request below the time that the strength picks."""
        planned = edited(model, request, said=(ON_WHITE,) if self.clear else ())
        x0 = torch.cat([encoded(model, picture, self.region) for picture in self.pictures]).mean(0, keepdim=True)
        return replace(planned, x_init=x0, grid=times_of(model, request, self.strength))

    def finish(self, model: Model, x0: Tensor, request: Request) -> list[Image.Image]:
        """The canvas without what was added to its sides."""
        return cut(model.codec_of(request.shape).decode(x0), self.pictures[0].size)


@recorded
def vary(
    model: Model,
    image: Picture,
    strength: float = 0.5,
    progress: Callable[[float], None] = lambda share: None,
    **options: Any,
) -> Result:
    """The picture drawn again: `strength` 0 is the picture itself, 1 a new one that remembers at most its colours.

    Strength picks a time, it never eats steps: all of them are made. `options` are the fields of `Request`. Raises
    SfumatoError for a strength outside 0 ... 1.
    """
    if not 0 <= strength <= 1:
        raise SfumatoError(f"strength lies in 0 ... 1, not {strength:g}")
    picture = read_picture(image, model.codec.spec[0])
    region = whole(model, picture.size)
    request = requested(model, region.shape, options)
    task = Vary((picture,), region, strength, clear=picture.mode == "RGBA")
    if strength == 0:
        x0 = model.codec_of(region.shape).scaled(encoded(model, picture, region))
        images = [picture.copy() for _ in range(request.n)]
        return Result(images, x0.expand(request.n, -1, -1, -1), 0.0, 0, [], settled(model, request), task.name)
    return carry_out(model, task, request, progress)
