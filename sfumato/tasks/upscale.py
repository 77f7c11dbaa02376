"""Super-resolution: a picture two or four times as large, which brought back to its old size is the picture again."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image
from torch import Tensor

from sfumato.core import Cond, SfumatoError
from sfumato.data import PixelCodec
from sfumato.data.controls import lowres_slot
from sfumato.guide import Downsample, observe_linear, observe_through
from sfumato.tasks.canvas import Picture, Region, on_canvas, read_picture, whole
from sfumato.tasks.carry import Plan, Request, Result, carry_out
from sfumato.tasks.editing import ON_WHITE, cut, edited, instead, requested, windowed
from sfumato.tasks.recorded import recorded

if TYPE_CHECKING:
    from sfumato.tasks.model import Model

SCALES = (2, 4)
OVERLAP = 8  # a part of the window: the small picture already says most of what neighbours must agree on


@dataclass(frozen=True)
class Upscale:
    """A small picture, its canvas (`region`), and how many times as large it becomes."""

    picture: Image.Image
    region: Region
    scale: int
    clear: bool = False
    name: str = "upscale"

    def plan(self, model: Model, request: Request) -> Plan:
        """The small picture as the condition "lowres", without added noise, or as the observed means of blocks."""
        small = model.codec.sized(*self.region.shape).encode([on_canvas(self.picture, self.region)])
        down = Downsample(self.scale)
        said, overlap = (ON_WHITE,) if self.clear else (), min(model.shapes[0]) // OVERLAP
        if model.conditioned_on("lowres"):
            given = model.codec.sized(*self.region.shape).scaled(small)
            slots = Cond({"lowres": lowres_slot(given, request.shape)})
            return edited(model, request, slots, align=self.scale, overlap=overlap, said=said)
        planned = edited(model, request, align=self.scale, said=said)
        if windowed(model, request.shape):
            return instead(planned, "lowres", observe_linear(down, down.pinv, small))
        return instead(planned, "lowres", observe_through(down, small))

    def finish(self, model: Model, x0: Tensor, request: Request) -> list[Image.Image]:
        """Consistent with the small picture, without what was added to its sides."""
        channels = model.codec.spec[0]
        small = PixelCodec(*self.region.shape, channels).encode([on_canvas(self.picture, self.region)])
        large = consistent(model.codec_of(request.shape).scaled(x0), small, self.scale)
        size = self.picture.width * self.scale, self.picture.height * self.scale
        return cut(PixelCodec(*request.shape, channels).decode(large), size)


def consistent(x: Tensor, small: Tensor, scale: int) -> Tensor:
    """x [B, C, H, W] moved within [-1, 1] so that the means of its blocks are `small` [1, C, H / scale, W / scale].

    Back-projection x + A+ (small - A x) (Irani & Peleg 1991); what is clipped at an end of the range is made up for by the
    other pixels of the block, which takes scale^2 rounds at most.
    """
    down = Downsample(scale)
    x = x.clamp(-1, 1)
    for _ in range(scale**2):
        missing = down.pinv(small - down(x))
        free = torch.where(missing > 0, x < 1, x > -1).to(x)
        x = (x + free * missing / down.pinv(down(free)).clamp_min(scale**-2)).clamp(-1, 1)
    return x


@recorded
def upscale(
    model: Model,
    image: Picture,
    scale: int = 2,
    progress: Callable[[float], None] = lambda share: None,
    **options: Any,
) -> Result:
    """The picture `scale` (2 or 4) times as wide and as high, of any size; the means of its blocks are its old pixels.

    `options` are the fields of `Request`. Raises SfumatoError for another scale.
    """
    if scale not in SCALES:
        raise SfumatoError(f"pictures are made 2 or 4 times as large, not {scale}")
    picture = read_picture(image, model.codec.spec[0])
    step = model.denoiser.net.config.multiple
    region = whole(model, picture.size, step // math.gcd(step, scale))
    shape = region.shape[0] * scale, region.shape[1] * scale
    task = Upscale(picture, region, scale, picture.mode == "RGBA")
    return carry_out(model, task, requested(model, shape, options), progress)
