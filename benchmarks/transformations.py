"""The eight transformations whose results count as near-duplicates, each drawn anew from a generator."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageOps

Transformation = Callable[[Image.Image, np.random.Generator], Image.Image]


def _ground(picture: Image.Image) -> int | tuple[int, ...]:
    """The corner pixel: what a person would fill the edges with after turning a picture."""
    return picture.getpixel((0, 0))


def resized(picture: Image.Image, draw: np.random.Generator) -> Image.Image:
    """50 to 90 % or 110 to 200 % of the side; the ratio of the sides stays."""
    scale = draw.uniform(0.5, 0.9) if draw.random() < 0.5 else draw.uniform(1.1, 2.0)
    method = [Image.Resampling.BILINEAR, Image.Resampling.BICUBIC, Image.Resampling.LANCZOS][draw.integers(3)]
    return picture.resize([max(round(side * scale), 8) for side in picture.size], method)


def recompressed(picture: Image.Image, draw: np.random.Generator) -> Image.Image:
    """JPEG of quality 30 to 85, colour at half resolution as Pillow does by itself."""
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=int(draw.integers(30, 86)))
    return Image.open(file).copy()


def cropped(picture: Image.Image, draw: np.random.Generator) -> Image.Image:
    """0 to 8 % off each of the four sides, drawn one by one, and at least one pixel off one of them."""
    width, height = picture.size
    left, right = (round(width * share) for share in draw.uniform(0, 0.08, 2))
    top, bottom = (round(height * share) for share in draw.uniform(0, 0.08, 2))
    return picture.crop((max(left, 1), top, width - right, height - bottom))


def mirrored(picture: Image.Image, draw: np.random.Generator) -> Image.Image:
    """Left and right exchanged."""
    return ImageOps.mirror(picture)


def relit(picture: Image.Image, draw: np.random.Generator) -> Image.Image:
    """Contrast about mid-grey times 0.85 to 1.15, brightness -20 to 20 of 255, and at least one of them felt."""
    gain, offset = draw.uniform(0.85, 1.15), draw.choice([-1, 1]) * draw.uniform(5, 20)
    values = (np.asarray(picture, np.float32) - 127.5) * gain + 127.5 + offset
    return Image.fromarray(values.round().clip(0, 255).astype(np.uint8))


def noisy(picture: Image.Image, draw: np.random.Generator) -> Image.Image:
    """Gaussian noise of 3 to 8 levels of 255 in every value."""
    values = np.asarray(picture, np.float32)
    return Image.fromarray(
        (values + draw.normal(0, draw.uniform(3, 8), values.shape)).round().clip(0, 255).astype("u1")
    )


def turned(picture: Image.Image, draw: np.random.Generator) -> Image.Image:
    """1 to 2 degrees either way, corners filled with the colour of the upper left pixel."""
    angle = draw.choice([-1, 1]) * draw.uniform(1, 2)
    return picture.rotate(angle, Image.Resampling.BICUBIC, fillcolor=_ground(picture))


def grey(picture: Image.Image, draw: np.random.Generator) -> Image.Image:
    """The grey version (ITU-R 601 luma)."""
    return picture.convert("L")


TRANSFORMATIONS: dict[str, Transformation] = {
    f.__name__: f for f in (resized, recompressed, cropped, mirrored, relit, noisy, turned, grey)
}
