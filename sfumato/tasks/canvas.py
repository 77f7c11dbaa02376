"""Users' pictures and masks -> the part that a model draws on, and back, with every kept pixel as it was."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from sfumato.core import SfumatoError
from sfumato.data.drawings import filled
from sfumato.data.picture import Unusable, brief, flatten, opened, upright
from sfumato.data.records import shown

if TYPE_CHECKING:
    from sfumato.tasks.model import Model

Picture = Image.Image | str | os.PathLike


def read_picture(picture: Picture, channels: int) -> Image.Image:
    """A picture or its file, upright, 8 bits per channel: mode RGBA where it has transparency, else RGB, or L where it is
    grey and the model's pictures have one channel; its colour profile goes with it.

    Raises SfumatoError for what is no picture.
    """
    name = "the picture" if isinstance(picture, Image.Image) else shown(picture)
    try:
        found = picture if isinstance(picture, Image.Image) else opened(Path(picture))
        found.load()
        profile, own = found.info.get("icc_profile"), found.mode
        found = upright(found)
    except Unusable as error:
        raise SfumatoError(f"{name}: {error}") from error
    except Exception as error:  # Pillow's decoders raise OSError, ValueError, SyntaxError, struct.error, ...
        raise SfumatoError(f"{name}: cannot be decoded ({brief(error)})") from error
    found = found.convert("RGB") if found.mode == "L" and channels == 3 else found.copy()
    coloured = found.mode != "L" and own in ("RGB", "RGBA", "P", "PA")  # a profile fits the colours it was made for
    found.info = {"icc_profile": profile} if profile and (coloured or found.mode == own) else {}
    return found


def read_fill(mask: Picture | np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, tuple[str, ...]]:
    """Where a mask says that a picture of this size (width, height) is to be filled, bool [H, W], and what to tell the user.

    The rule is that of `drawings.filled`; an array [H, W] is filled where it is true. Raises SfumatoError for another size, and
    where nothing is to be filled.
    """
    said = None
    if isinstance(mask, np.ndarray):
        fill = mask.astype(bool)
    else:
        fill, said = filled(read_picture(mask, 1))
    if fill.ndim != 2 or fill.shape[::-1] != tuple(size):
        told = "x".join(str(n) for n in fill.shape[::-1])
        raise SfumatoError(f"the mask is {told} pixels and the picture {size[0]}x{size[1]}: make it the same size")
    if not fill.any():
        raise SfumatoError(
            "the mask leaves nothing to fill: paint white (or make transparent) what should be drawn anew"
        )
    return fill, (said,) if said else ()


@dataclass(frozen=True)
class Region:
    """The part of a picture that is worked on, and the `shape` (height, width) of the canvas it stands on: at least as
    large, the rest at the right and the bottom being its reflection."""

    top: int
    left: int
    height: int
    width: int
    shape: tuple[int, int]

    def cut(self, pixels: np.ndarray) -> np.ndarray:
        """The canvas of a picture [H, W] or [H, W, C]."""
        part = pixels[self.top : self.top + self.height, self.left : self.left + self.width]
        rows, columns = (_reflected(n, to) for n, to in zip(part.shape, self.shape, strict=False))
        return part[rows][:, columns]

    def paste(self, picture: Image.Image, drawn: Image.Image, fill: np.ndarray) -> Image.Image:
        """The picture with the pixels of `fill` (bool [H, W]) from the canvas `drawn`, and all others as they are."""
        whole, new = np.array(picture), np.asarray(drawn.convert(picture.mode))[: self.height, : self.width]
        part = slice(self.top, self.top + self.height), slice(self.left, self.left + self.width)
        inside = fill[part]
        whole[part][inside] = new[inside]
        done = Image.fromarray(whole, picture.mode)
        done.info = dict(picture.info)
        return done


def _reflected(n: int, to: int) -> np.ndarray:
    return np.pad(np.arange(n), (0, to - n), mode="reflect" if n > 1 else "edge")


def whole(model: Model, size: tuple[int, int], multiple: int | None = None) -> Region:
    """All of a picture of this size (width, height), its sides raised to multiples of the network's."""
    step = multiple or model.denoiser.net.config.multiple
    width, height = size
    return Region(0, 0, height, width, (math.ceil(height / step) * step, math.ceil(width / step) * step))


def around(model: Model, fill: np.ndarray) -> Region:
    """The hole with a border: as large as the model's pictures where it goes into one, else as large as it must be; all of
    a picture that is no larger than the model's."""
    everything = whole(model, fill.shape[::-1])
    if everything.shape in model.shapes:
        return everything
    spans = []
    for axis, (size, own) in enumerate(zip(fill.shape, model.shapes[0], strict=True)):
        places = np.flatnonzero(fill.any(1 - axis))
        first, last = int(places[0]), int(places[-1]) + 1
        border = own // 8 if last - first + own // 4 <= own else own // 2
        length = min(size, max(own, last - first + 2 * border))
        spans.append((max(0, min(size - length, (first + last - length) // 2)), length))
    (top, height), (left, width) = spans
    shape = whole(model, (width, height)).shape
    return Region(top, left, height, width, shape)


def on_canvas(picture: Image.Image, region: Region) -> Image.Image:
    """What stands on the region's canvas, in mode L or RGB; transparency is laid on white."""
    return Image.fromarray(region.cut(np.asarray(flatten(picture))))


def encoded(model: Model, picture: Image.Image, region: Region) -> Tensor:
    """x0 [1, C, H, W] of the region's canvas."""
    return model.codec_of(region.shape).encode([on_canvas(picture, region)])


def field_of(region: Region, where: np.ndarray) -> Tensor:
    """Bool [H, W] of a picture -> bool [1, 1, H, W] of the region's canvas."""
    return torch.from_numpy(np.ascontiguousarray(region.cut(where)))[None, None]
