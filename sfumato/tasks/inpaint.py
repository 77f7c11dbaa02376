"""Part of a picture drawn anew: what the mask does not mark stays as it is, bit for bit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from sfumato.core import Cond
from sfumato.data.controls import known_slot
from sfumato.guide import observe, observe_told
from sfumato.tasks.beside import beside
from sfumato.tasks.canvas import Picture, Region, around, encoded, field_of, read_fill, read_picture, whole
from sfumato.tasks.carry import Plan, Request, Result, carry_out
from sfumato.tasks.coarse import STRENGTH, Small
from sfumato.tasks.editing import edited, instead, requested, windowed
from sfumato.tasks.recorded import recorded
from sfumato.tasks.sampling import times_of

if TYPE_CHECKING:
    from sfumato.tasks.model import Model

SOLVES = 2  # moves of the guide: one alone overshoots where pixels are strongly correlated


@dataclass(frozen=True)
class Inpaint:
    """A picture, where it is filled (bool [H, W]), and the region around that which the model draws on."""

    picture: Image.Image
    fill: np.ndarray
    region: Region
    said: tuple[str, ...] = ()
    more: Cond = field(default_factory=Cond)
    name: str = "inpaint"
    start: tuple[Image.Image, ...] = ()  # pictures to go on from, one for each that is drawn

    def plan(self, model: Model, request: Request) -> Plan:
        """The known pixels as the condition "known", or observed through the network; neither where all is filled."""
        x0, keep = encoded(model, self.picture, self.region), ~field_of(self.region, self.fill)
        slots, inner = Cond(), ()
        trained = model.conditioned_on("known")
        if keep.any():  # the network is told of pictures, a guide of its own numbers
            given = model.codec_of(request.shape).scaled(x0) if trained else x0
            slots = Cond({"known": known_slot(given, keep)})
            inner = () if trained else (observe_told("known", SOLVES),)
        planned = edited(model, request, self.more | slots, needed=~keep[0, 0], said=self.said, inner=inner)
        if not keep.any():
            return planned
        if self.start:
            x_init = torch.cat([encoded(model, picture, self.region) for picture in self.start])
            planned = replace(planned, x_init=x_init, grid=times_of(model, request, STRENGTH))
        # windows without a hole are left out, and the belief there is what is known
        seen = observe(keep, x0)
        return replace(planned, observed=(seen, *planned.observed)) if trained else instead(planned, "known", seen)

    def finish(self, model: Model, x0: Tensor, request: Request) -> list[Image.Image]:
        """The picture itself, with the drawn pixels in the hole."""
        drawn = model.codec_of(request.shape).decode(x0)
        return [self.region.paste(self.picture, one, self.fill) for one in drawn]


@recorded
def inpaint(
    model: Model,
    image: Picture,
    mask: Picture | np.ndarray,
    progress: Callable[[float], None] = lambda share: None,
    **options: Any,
) -> Result:
    """The picture with the masked part drawn anew; every other pixel of `Result.images` is the picture's own.

    A mask is filled where it is transparent, or, if nothing of it is, where it is white; an array [H, W] where it is true.
    `options` are the fields of `Request` (n, seed, steps, prompt, guidance, ...), and `sketch`, `layout` and `colours` of
    the whole picture, told beside its known pixels. Raises SfumatoError for a mask of another size, or one that leaves
    nothing to fill.
    """
    picture = read_picture(image, model.codec.spec[0])
    fill, said = read_fill(mask, picture.size)
    return fill_in(model, picture, fill, options, progress, said)


def fill_in(
    model: Model,
    picture: Image.Image,
    fill: np.ndarray,
    options: dict[str, Any],
    progress: Callable[[float], None],
    said: tuple[str, ...] = (),
    name: str = "inpaint",
) -> Result:
    """What inpainting and outpainting share: `fill` (bool [H, W]) of a picture drawn, with the options of both."""
    region = around(model, fill)
    more, rest = beside(model, region, picture.size, options)
    request = requested(model, region.shape, rest, words="boxes" in more, held=fill.size)
    task = Inpaint(picture, fill, region, said, more, name)
    if not windowed(model, region.shape) or fill.all():
        return carry_out(model, task, request, progress)
    first, started = _first_small(model, task, options, request, lambda share: progress(share / 5))
    result = carry_out(model, replace(task, start=started), request, lambda share: progress(0.2 + 0.8 * share))
    seconds, calls = first.seconds + result.seconds, first.network_calls + result.network_calls
    return replace(result, seconds=seconds, network_calls=calls)


def _first_small(
    model: Model, task: Inpaint, options: dict[str, Any], request: Request, progress: Callable[[float], None]
) -> tuple[Result, tuple[Image.Image, ...]]:
    """The hole and its surroundings drawn at the size that the model learned, and the pictures to go on from."""
    small = Small.of(task.fill, model.shapes[0])
    region = whole(model, small.size)
    more = small.cond(beside(model, small.part, task.picture.size, options)[0], region)
    drawing = Inpaint(small.picture(task.picture), small.fill(task.fill), region, more=more)
    first = carry_out(model, drawing, replace(request, shape=region.shape), progress)
    return first, tuple(small.start(task.picture, image, task.fill) for image in first.images)
