"""Several pictures made into one that could have been among them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from sfumato.core import SfumatoError
from sfumato.data.picture import crop, fit
from sfumato.tasks.canvas import Picture, read_picture, whole
from sfumato.tasks.carry import Result, carry_out
from sfumato.tasks.editing import requested
from sfumato.tasks.recorded import recorded
from sfumato.tasks.vary import Vary

if TYPE_CHECKING:
    from PIL import Image

    from sfumato.tasks.model import Model

STRENGTH = 0.65  # far enough that two outlines become one, near enough that both are still seen
MOST = 16


@recorded
def blend(
    model: Model,
    images: Sequence[Picture],
    strength: float = STRENGTH,
    progress: Callable[[float], None] = lambda share: None,
    **options: Any,
) -> Result:
    """One picture of several: their mean, noised to the time that `strength` picks and drawn from there.

    The others are cropped and resized to the size of the first. `options` are the fields of `Request`. Raises SfumatoError
    for fewer than 2 pictures, more than 16, and a strength outside 0 < strength <= 1.
    """
    if not 2 <= len(images) <= MOST:
        raise SfumatoError(f"blend takes 2 to {MOST} pictures, not {len(images)}")
    if not 0 < strength <= 1:
        raise SfumatoError(f"strength lies above 0 and up to 1, not {strength:g}")
    found = [read_picture(image, model.codec.spec[0]) for image in images]
    size = found[0].size
    region = whole(model, size)
    alike = tuple(_as_large(picture, size) for picture in found)
    task = Vary(alike, region, strength, "blend", any(picture.mode == "RGBA" for picture in found))
    return carry_out(model, task, requested(model, region.shape, options), progress)


def _as_large(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    shape = size[1], size[0]
    return picture if picture.size == size else fit(crop(picture, shape), shape)
