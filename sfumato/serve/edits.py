"""Jobs that begin with pictures: stored files and the fields of a job -> the tasks that edit."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageOps

from sfumato.core import SfumatoError
from sfumato.data.layout import layout_of
from sfumato.serve.pictures import picture_of
from sfumato.serve.store import Store
from sfumato.tasks import Model, Result
from sfumato.tasks.asked import LARGEST
from sfumato.tasks.blend import blend
from sfumato.tasks.canvas import read_fill, read_picture
from sfumato.tasks.inpaint import inpaint
from sfumato.tasks.layout import layout
from sfumato.tasks.outpaint import outpaint
from sfumato.tasks.sketch import sketch
from sfumato.tasks.upscale import upscale
from sfumato.tasks.vary import vary

if TYPE_CHECKING:
    from sfumato.serve.jobs import Ask

EDITS = ("inpaint", "outpaint", "upscale", "vary", "sketch", "layout")
STRENGTH = 0.5
LEAST = 1e-3  # a strength below it is none

Progress = Callable[[float], None]


def edit(model: Model, ask: Ask, store: Store, progress: Progress, options: dict[str, Any]) -> Result:
    """The task of a job carried out; `options` are fields of its `Request`. Raises SfumatoError for what does not fit."""
    shape = None if ask.size is None else (ask.size[1], ask.size[0])
    if shape is not None and ask.task in ("sketch", "layout"):
        _check(model, ask.size)
    if ask.task == "layout":
        if ask.layout is None:
            raise SfumatoError("layout: say what stands where")
        return layout(model, layout_of(ask.layout), shape, progress, **options)
    if ask.task == "sketch":
        return sketch(
            model, _opened(store, ask.sketch or next(iter(ask.images), None), "sketch"), shape, progress, **options
        )
    if ask.task == "vary":
        return _varied(model, store, ask, progress, options)
    picture = _opened(store, next(iter(ask.images), None), "image")
    if ask.task == "inpaint":
        mask = picture if ask.mask is None else _opened(store, ask.mask, "mask")
        return _filled(model, picture, mask, progress, options)
    _check(model, picture.size)
    if ask.task == "outpaint":
        zoom = ask.zoom or 1.5
        _check(model, ask.size or tuple(round(side * zoom) for side in picture.size))
        return outpaint(model, picture, ask.size, None if ask.size else zoom, None, progress, **options)
    return upscale(model, picture, ask.scale or 2, progress, **options)


def _opened(store: Store, name: str | None, what: str) -> Image.Image:
    if name is None:
        raise SfumatoError(f"{what}: this needs a picture; upload it and give its hash")
    return ImageOps.exif_transpose(picture_of(store, name))


def _most(model: Model) -> int:
    return LARGEST * max(h * w for h, w in model.shapes)


def _check(model: Model, size: tuple[int, int]) -> None:
    if math.prod(size) > _most(model):
        side = math.isqrt(_most(model))
        raise SfumatoError(f"image: {size[0]}x{size[1]} is too large for this model: up to about {side}x{side}")


def _within(size: tuple[int, int], pixels: int) -> tuple[int, int]:
    """The size (width, height), or the largest one in its proportions of at most so many pixels."""
    scale = math.sqrt(pixels / math.prod(size))
    return size if scale >= 1 else (max(1, int(size[0] * scale)), max(1, int(size[1] * scale)))


def _varied(model: Model, store: Store, ask: Ask, progress: Progress, options: dict[str, Any]) -> Result:
    """Drawn at the size that the model learned: larger pictures are brought to it and back, one after the other."""
    first = _opened(store, next(iter(ask.images), None), "image")
    size = first.size
    inside = _within(size, max(h * w for h, w in model.shapes))

    def brought(picture: Image.Image) -> Image.Image:
        return picture if inside == size else picture.convert("RGB").resize(inside, Image.Resampling.LANCZOS)

    pictures = [brought(first), *(brought(_opened(store, name, "image")) for name in ask.images[1:])]
    strength = STRENGTH if ask.strength is None else ask.strength
    if len(pictures) > 1:
        told = {} if ask.strength is None else {"strength": max(LEAST, strength)}
        result = blend(model, pictures, progress=progress, **told, **options)
    else:
        result = vary(model, pictures[0], strength if strength >= LEAST else 0.0, progress, **options)
    if inside == size:
        return result
    images = [image.resize(size, Image.Resampling.LANCZOS) for image in result.images]
    note = f"drawn at {inside[0]}x{inside[1]} pixels and resized"
    return replace(result, images=images, notes=(*result.notes, note), call=None)


def _filled(
    model: Model, picture: Image.Image, mask: Image.Image, progress: Progress, options: dict[str, Any]
) -> Result:
    """A picture larger than the model can work on is filled at a smaller size; its kept pixels stay its own."""
    inside = _within(picture.size, _most(model))
    if inside == picture.size:
        return inpaint(model, picture, mask, progress, **options)
    picture = read_picture(picture, model.codec.spec[0])  # a palette's numbers are no colours
    fill, notes = read_fill(mask, picture.size)
    small = Image.fromarray(fill.astype(np.uint8) * 255).resize(inside, Image.Resampling.BOX)
    result = inpaint(
        model, picture.resize(inside, Image.Resampling.LANCZOS), np.asarray(small) > 0, progress, **options
    )
    whole, images = np.array(picture), []
    for image in result.images:
        large = image.convert(picture.mode).resize(picture.size, Image.Resampling.LANCZOS)
        images.append(Image.fromarray(np.where(fill if whole.ndim == 2 else fill[..., None], np.asarray(large), whole)))
    note = f"the hole was drawn at {inside[0] / picture.width:.2g} of the picture's size and enlarged"
    return replace(result, images=images, notes=(*notes, *result.notes, note), call=None)
