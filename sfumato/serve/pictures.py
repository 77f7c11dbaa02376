"""Pictures that come in and go out: limits before anything is decoded, and the formats that clients ask for."""

from __future__ import annotations

import base64
import binascii
import threading
import warnings
from io import BytesIO

import numpy as np
from PIL import Image, ImageOps

from sfumato.core import SfumatoError
from sfumato.data.audit.declared import receipt_of
from sfumato.data.picture import Unusable, brief, opened
from sfumato.serve.store import Store, Stored
from sfumato.tasks.receipt import encoded

ONE = threading.Lock()  # one upload is decoded at a time: memory is bounded by one picture's pixels
BYTES = 50_000_000  # of one file
PIXELS = 32_000_000  # of one picture
ORIENTATION = 0x0112  # the EXIF tag that says how a picture is turned upright
MIMES = {"PNG": "image/png", "JPEG": "image/jpeg", "WEBP": "image/webp"}
FORMATS = {"png": "PNG", "jpeg": "JPEG", "webp": "WEBP"}


def taken(store: Store, data: bytes, name: str = "image", most: int = BYTES) -> Stored:
    """An uploaded picture, kept as it is; SfumatoError for what is too large, no picture, or torn.

    The limits of bytes and pixels are held against the header; only then is it decoded once, to see that it is whole.
    """
    if len(data) > most:
        raise SfumatoError(f"{name}: {len(data):,} bytes; at most {most:,} are taken")
    try:
        with opened(data) as picture:
            if picture.format not in MIMES:
                raise SfumatoError(f"{name}: a PNG, JPEG or WebP picture is taken, not {picture.format}")
            width, height = picture.size
            if width * height > PIXELS:
                raise SfumatoError(f"{name}: {width}x{height} pixels; at most {PIXELS:,} are taken")
            mime = MIMES[picture.format]
            with ONE, warnings.catch_warnings():
                warnings.simplefilter("ignore")
                picture.load()
                turned = picture.getexif().get(ORIENTATION) in (5, 6, 7, 8)  # torn ones raise here already
    except Unusable as error:
        raise SfumatoError(f"{name}: {error}") from error
    except SfumatoError:
        raise
    except Exception as error:  # Pillow's decoders raise OSError, ValueError, SyntaxError, struct.error, ...
        raise SfumatoError(f"{name}: cannot be decoded ({brief(error)})") from error
    return store.keep(data, mime, (height, width) if turned else (width, height))


def from_base64(text: str, name: str = "image", most: int = BYTES) -> bytes:
    """The bytes of a base64 text or data URL; SfumatoError for anything else (addresses are never fetched)."""
    if text[:5].lower() == "data:":
        text = text.partition(",")[2]
    elif "://" in text[:40]:
        raise SfumatoError(f"{name}: this server fetches no addresses; send the picture itself")
    if len(text) > most * 4 // 3 + 4:
        raise SfumatoError(f"{name}: at most {most:,} bytes are taken")
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise SfumatoError(f"{name}: no base64") from error


def picture_of(store: Store, name: str) -> Image.Image:
    """The picture of a stored file, decoded."""
    stored = store.file(name)
    if stored is None:
        raise SfumatoError(f"no file {name[:80]!r} was uploaded or made here")
    picture = Image.open(BytesIO(store.read(stored)))
    picture.load()
    return picture


def mask_for(store: Store, mask: Stored, image: Stored, turned: bool) -> Stored:
    """A mask as white on black, of the picture's size; black and white exchanged where it is `turned`."""
    given = picture_of(store, mask.hash).convert("RGBA")
    made = Image.alpha_composite(Image.new("RGBA", given.size, (0, 0, 0, 255)), given).convert("L")
    made = made.resize(ImageOps.exif_transpose(picture_of(store, image.hash)).size, Image.Resampling.NEAREST)
    file = BytesIO()
    (ImageOps.invert(made) if turned else made).save(file, "PNG")
    return store.keep(file.getvalue(), "image/png", made.size)


def as_format(data: bytes, output: str, quality: int = 100) -> bytes:
    """One of our PNG files as "png" (the same bytes), "jpeg" or "webp" of this quality (0 ... 100), with its receipt."""
    if output == "png":
        return data
    with Image.open(BytesIO(data)) as picture:
        options = {"lossless": True} if output == "webp" and quality == 100 else {"quality": quality}
        flat = picture if picture.mode in ("L", "RGB") else picture.convert("RGB")
        return encoded(
            flat, receipt_of(data) or {}, FORMATS[output], icc_profile=picture.info.get("icc_profile"), **options
        )


def preview(pixels: np.ndarray, output: str = "png", size: tuple[int, int] | None = None) -> str:
    """uint8 [H, W, C] -> a file in base64, brought to (width, height) where given."""
    picture = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
    if size is not None and picture.size != size:
        picture = picture.resize(size, Image.Resampling.BILINEAR)
    file = BytesIO()
    picture.save(file, FORMATS[output])
    return base64.b64encode(file.getvalue()).decode()
