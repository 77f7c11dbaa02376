"""One picture file -> uint8 pixels of one shape: the crop rule, orientation, colour modes and the reasons for refusal."""

from __future__ import annotations

import stat
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

CROP_RULE = (
    "the picture turned upright by its EXIF orientation, animations by their first frame, transparency laid on white, "
    "centre crop to the proportions of the target (a square unless buckets are asked for), Lanczos resize (after an "
    "integer box reduction to at least 3x the target; large JPEGs are decoded at a reduced scale of at least 4x the target)"
)
_MODES_16 = {"I;16", "I;16L", "I;16B", "I;16N"}
SIXTEEN = _MODES_16 | {"I"}  # modes of more than 8 bits


class Unusable(Exception):
    """Why one picture cannot be used; the source skips it and records the reason."""


def flatten(picture: Image.Image) -> Image.Image:
    """The picture in mode L or RGB: 16 bits scaled by 255 / 65535, transparency composited on white."""
    mode = picture.mode
    if mode in SIXTEEN:
        values = np.asarray(picture).astype(np.int64)
        if values.size and (values.min() < 0 or values.max() > 65535):
            raise Unusable("32-bit values beyond 0..65535; save it with 8 or 16 bits per channel")
        return Image.fromarray(((values * 255 + 32767) // 65535).astype(np.uint8))
    if mode == "F":
        raise Unusable("floating-point values without a stated range; save it with 8 or 16 bits per channel")
    if picture.has_transparency_data:
        rgba = picture.convert("RGBA")
        white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, rgba).convert("RGB")
    if mode in ("L", "RGB"):
        return picture
    return picture.convert("L" if mode == "1" else "RGB")


def upright(picture: Image.Image) -> Image.Image:
    """Turned by its EXIF orientation, 8 bits per channel: mode RGBA where it has transparency, else L or RGB; may raise what
    Pillow's decoders raise, and Unusable."""
    picture = ImageOps.exif_transpose(picture)
    return picture.convert("RGBA") if picture.has_transparency_data else flatten(picture)


def as_uint8(picture: Image.Image, channels: int) -> np.ndarray:
    """A picture of mode L or RGB -> uint8 [H, W, channels]; colour to grey by ITU-R 601 luma."""
    pixels = np.asarray(picture.convert("L" if channels == 1 else "RGB"))
    return pixels[:, :, None] if channels == 1 else pixels


def crop(picture: Image.Image, shape: tuple[int, int]) -> Image.Image:
    """Centre crop to the proportions of (height, width); the odd pixel is left over at the right or the bottom."""
    return picture.crop(inside((picture.height, picture.width), shape))


def inside(size: tuple[int, int], shape: tuple[int, int]) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of that crop of a picture of this size, both (height, width)."""
    (height, width), (h, w) = shape, size
    if w * height >= h * width:
        kept = max(1, (2 * h * width + height) // (2 * height)), h
    else:
        kept = w, max(1, (2 * w * height + width) // (2 * width))
    left, top = (w - kept[0]) // 2, (h - kept[1]) // 2
    return left, top, left + kept[0], top + kept[1]


def fit(picture: Image.Image, shape: tuple[int, int]) -> Image.Image:
    """A picture of mode L or RGB, Lanczos-resized to (height, width) pixels; unchanged if it has that size."""
    height, width = shape
    if picture.size == (width, height):
        return picture
    return picture.resize((width, height), Image.Resampling.LANCZOS, reducing_gap=3.0)


def read_shape(file: Path | bytes) -> tuple[int, int]:
    """Height and width in pixels, upright, from the header alone; raises Unusable."""
    with opened(file) as picture:
        width, height = picture.size
        # Pillow opens a TIFF upright; a PNG without these chunks before its pixels would be decoded whole in the search
        said = {"exif", "Raw profile type exif", "XML:com.adobe.xmp"} & picture.info.keys()
        if picture.format not in ("PNG", "TIFF") or (picture.format == "PNG" and said):
            try:
                turned = picture.getexif().get(ExifTags.Base.Orientation, 1) in (5, 6, 7, 8)
            except Exception as error:  # as in `read`
                raise Unusable(f"cannot be decoded ({brief(error)})") from error
            height, width = (width, height) if turned else (height, width)
        return height, width


def read(file: Path | bytes, shape: tuple[int, int]) -> np.ndarray:
    """A picture file or its bytes -> uint8 [height, width, 3] by CROP_RULE; raises Unusable with the reason."""
    return read_sized(file, shape)[0]


def read_sized(file: Path | bytes, shape: tuple[int, int]) -> tuple[np.ndarray, tuple[int, int]]:
    """`read`, and the upright picture's own (height, width)."""
    with opened(file) as picture:
        try:
            width, height = picture.size  # before a reduced scale is asked for
            long = max(shape)  # whichever way the picture is turned
            if min(picture.size) >= 8 * long:
                scale = min(picture.size) / (4 * long)
                picture.draft(None, (round(picture.width / scale), round(picture.height / scale)))
            upright = ImageOps.exif_transpose(picture)
            if upright.size != picture.size:
                width, height = height, width
            return as_uint8(fit(flatten(crop(upright, shape)), shape), 3), (height, width)
        except Unusable:
            raise
        except Exception as error:  # Pillow's decoders raise OSError, ValueError, SyntaxError, struct.error, ...
            raise Unusable(f"cannot be decoded ({brief(error)})") from error


def check_file(path: Path) -> int:
    """Size in bytes of a regular file; raises Unusable for anything else, and when it is not there."""
    if path.is_dir():
        raise Unusable("a folder, not a picture")
    if not path.exists():
        raise Unusable("a link to a file that is not there" if path.is_symlink() else "there is no such file")
    about = path.stat()
    if not stat.S_ISREG(about.st_mode):  # a pipe would wait for ever
        raise Unusable("not a regular file")
    return about.st_size


def opened(file: Path | bytes) -> Image.Image:
    """A picture file or its bytes with the header read and no pixels; raises Unusable with the reason."""
    try:
        if not (check_file(file) if isinstance(file, Path) else len(file)):
            raise Unusable("empty file (0 bytes)")
        return Image.open(file if isinstance(file, Path) else BytesIO(file))
    except Unusable:
        raise
    except UnidentifiedImageError as error:
        raise Unusable("not a picture that Pillow can read") from error
    except Image.DecompressionBombError as error:
        limit = 2 * (Image.MAX_IMAGE_PIXELS or 0) // 1_000_000
        raise Unusable(f"more than {limit} million pixels; make it smaller first") from error
    except PermissionError as error:
        raise Unusable("no permission to read it") from error
    except Exception as error:
        raise Unusable(f"cannot be opened ({brief(error)})") from error


def brief(error: Exception) -> str:
    """What a decoder says, as one short line."""
    return " ".join(str(error).split())[:120] or type(error).__name__
