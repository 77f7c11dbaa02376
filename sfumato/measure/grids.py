"""Many pictures on one sheet."""

from __future__ import annotations

import math
from collections.abc import Sequence

from PIL import Image

from sfumato.core import SfumatoError

TILE = 64  # pixels: smaller pictures are enlarged by whole numbers, without smoothing, towards this side


def grid_image(images: Sequence[Image.Image], columns: int | None = None, pad: int = 2) -> Image.Image:
    """Pictures in rows of `columns` (None: as square as possible), `pad` pixels apart.

    Pictures smaller than 64 pixels are enlarged by a whole factor, each pixel staying a square; smaller ones stand in the
    middle of a field as large as the largest. Grey if all are grey, else RGB. Raises SfumatoError for no pictures.
    """
    if not images:
        raise SfumatoError("there are no pictures to put on a sheet")
    width, height = (max(image.size[k] for image in images) for k in (0, 1))
    columns = columns or math.ceil(math.sqrt(len(images)))
    rows = math.ceil(len(images) / columns)
    scale = max(1, TILE // max(width, height))
    width, height = width * scale, height * scale
    mode = "L" if all(image.mode == "L" for image in images) else "RGB"
    back = 128 if mode == "L" else (128, 128, 128)
    sheet = Image.new(mode, (columns * (width + pad) + pad, rows * (height + pad) + pad), back)
    for k, image in enumerate(images):
        tile = image.convert(mode).resize((image.width * scale, image.height * scale), Image.Resampling.NEAREST)
        left, top = (width - tile.width) // 2, (height - tile.height) // 2
        sheet.paste(tile, (pad + k % columns * (width + pad) + left, pad + k // columns * (height + pad) + top))
    return sheet


def brought(image: Image.Image, size: Sequence[int] | None) -> Image.Image:
    """The picture in another size (width, height), smoothly; as it is for None."""
    if size is None or image.size == tuple(size):
        return image
    return image.resize(tuple(size), Image.Resampling.LANCZOS)
