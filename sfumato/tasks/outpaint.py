"""A picture carried on beyond its edges."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from sfumato.core import SfumatoError
from sfumato.tasks.canvas import Picture, read_picture
from sfumato.tasks.carry import Result
from sfumato.tasks.editing import check_memory
from sfumato.tasks.inpaint import fill_in
from sfumato.tasks.recorded import recorded

if TYPE_CHECKING:
    from sfumato.tasks.model import Model

MOST = 16_384  # pixels of a side


@dataclass(frozen=True)
class Margins:
    """Pixels to add at each side of a picture."""

    left: int = 0
    top: int = 0
    right: int = 0
    bottom: int = 0

    def __post_init__(self) -> None:
        sides = (self.left, self.top, self.right, self.bottom)
        if min(sides) < 0 or max(sides) > MOST:
            raise SfumatoError(f"give 0 to {MOST:,} pixels for each side, not {', '.join(str(n) for n in sides)}")
        if not any(sides):
            raise SfumatoError("there is nothing to add: give a larger size, a zoom above 1, or pixels for a side")

    @classmethod
    def to(cls, size: tuple[int, int], width: int, height: int) -> Margins:
        """Those that make a picture of `size` (width, height) this large, with the picture in the middle."""
        if width < size[0] or height < size[1]:
            raise SfumatoError(
                f"{width}x{height} is smaller than the picture, which has {size[0]}x{size[1]} pixels: give a larger size"
            )
        (across, down) = width - size[0], height - size[1]
        return cls(across // 2, down // 2, across - across // 2, down - down // 2)

    @classmethod
    def zoomed(cls, size: tuple[int, int], zoom: float) -> Margins:
        """Those that make a picture `zoom` times as wide and as high."""
        if not 1 < zoom <= 16:
            raise SfumatoError(f"a zoom lies above 1 and up to 16 (1.5: half as much again), not {zoom:g}")
        return cls.to(size, math.ceil(size[0] * zoom), math.ceil(size[1] * zoom))


def margins(
    size: tuple[int, int], to: tuple[int, int] | None = None, zoom: float | None = None, **sides: int
) -> Margins:
    """What a user says in one of three ways: the new (width, height), a zoom, or pixels for left, top, right, bottom."""
    if (to is not None) + (zoom is not None) + any(sides.values()) > 1:
        raise SfumatoError("say how far to go on in one way: a size, a zoom, or pixels for the sides")
    if to is not None:
        return Margins.to(size, *to)
    return Margins(**sides) if zoom is None else Margins.zoomed(size, zoom)


@recorded
def outpaint(
    model: Model,
    image: Picture,
    to: tuple[int, int] | None = None,
    zoom: float | None = None,
    sides: dict[str, int] | None = None,
    progress: Callable[[float], None] = lambda share: None,
    **options: Any,
) -> Result:
    """The picture with more around it, its own pixels bit for bit as they are.

    Say how far in one way: `to` (width, height) with the picture in the middle, `zoom` above 1, or `sides` (pixels for
    "left", "top", "right", "bottom"). `options` are as in `inpaint`, of the whole new picture. Raises SfumatoError for
    anything else.
    """
    picture = read_picture(image, model.codec.spec[0])
    added = margins(picture.size, to, zoom, **(sides or {}))
    (width, height), (left, top) = picture.size, (added.left, added.top)
    check_memory(model, (top + height + added.bottom, left + width + added.right), options.get("n", 1))
    large = Image.new(picture.mode, (left + width + added.right, top + height + added.bottom))
    large.paste(picture, (left, top))
    large.info = dict(picture.info)
    fill = np.ones(large.size[::-1], dtype=bool)
    fill[top : top + height, left : left + width] = False
    return fill_in(model, large, fill, options, progress, name="outpaint")
