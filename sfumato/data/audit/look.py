"""One look at one picture file: its bytes -> a row of fixed size with hashes, thumbnails and statistics."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from hashlib import blake2b
from threading import Lock

import numpy as np
from PIL import Image, ImageOps

try:
    import fcntl
except ImportError:  # Windows: no processes of our own there
    fcntl = None

from sfumato.data.audit.declared import Claim, claim
from sfumato.data.audit.sharpness import sharpness
from sfumato.data.picture import Unusable, brief, flatten, opened

WORK_PIXELS = 4_000_000  # larger pictures are first reduced by a whole number
SMALL = 256  # pixels: the shorter side at which tones are counted is at least this, where the picture has it
FILE_LIMIT = 1 << 29  # bytes of one file that are read
SCAN_LIMIT = 2_000_000_000  # pixels x passes of one progressive JPEG
LEVELS = ("p001", "p01", "p05", "p50", "p95", "p99", "p999")
SHARES = np.array([0.001, 0.01, 0.05, 0.5, 0.95, 0.99, 0.999])
FLAT = 16  # levels: as near as this to the median counts as the same colour

ROW = np.dtype(
    [
        ("read", "?"),
        ("width", "u4"),
        ("height", "u4"),
        ("mode", "S8"),
        ("alpha", "?"),
        ("file", "V16"),
        ("pixels", "V16"),
        *((name, "u1") for name in LEVELS),
        ("flat", "f4"),
        ("clipped", "f4"),
        ("sharpness", "f4"),
        ("detail", "f4"),
        ("spread", "f4"),
    ]
)
PICTURE = np.dtype([("thumb", "u1", (32, 32)), ("colour", "u1", (16, 16, 3))])


class _OneAtATime:
    """Held by one thread of one process; a process that is ended lets go of it."""

    def __init__(self) -> None:
        self._threads, self._file = Lock(), os.memfd_create("sfumato-big") if hasattr(os, "memfd_create") else None

    def __enter__(self) -> None:
        self._threads.acquire()
        if self._file is not None:
            fcntl.lockf(self._file, fcntl.LOCK_EX)

    def __exit__(self, *error: object) -> None:
        if self._file is not None:
            fcntl.lockf(self._file, fcntl.LOCK_UN)
        self._threads.release()


_big = _OneAtATime()  # for pictures over WORK_PIXELS, so that their memory does not add up


@dataclass(frozen=True)
class Look:
    """`row`: one value of ROW, `detail` and `spread` still to be filled; `picture`: one of PICTURE.

    `claim`: what the file declares of AI; `reason`: why the picture cannot be read.
    """

    row: np.void | None = None
    picture: np.void | None = None
    claim: Claim | None = None
    reason: str = ""


def look(data: bytes) -> Look:
    """Everything an audit needs of one picture file; never raises for what is in the bytes."""
    try:
        return Look(*_row(data), claim(data))
    except Unusable as reason:
        return Look(reason=str(reason))


def _row(data: bytes) -> tuple[np.void, np.void]:
    with _opened(data) as picture:
        try:
            if picture.width * picture.height <= WORK_PIXELS:
                return _measure(picture, data)
            with _big:
                return _measure(picture, data)
        except Unusable:
            raise
        except Exception as error:  # Pillow's decoders raise OSError, ValueError, SyntaxError, struct.error, ...
            raise Unusable(f"cannot be decoded ({brief(error)})") from error


def _opened(data: bytes) -> Image.Image:
    picture = opened(data)
    if picture.format == "JPEG" and data.count(b"\xff\xda") * picture.width * picture.height > SCAN_LIMIT:
        raise Unusable(f"a JPEG of {data.count(bytes((255, 218)))} passes over its pixels; save it again")
    return picture


def _measure(picture: Image.Image, data: bytes) -> tuple[np.void, np.void]:
    row, seen = np.zeros((), ROW), np.zeros((), PICTURE)
    mode, size = picture.mode, picture.size
    work = _work(picture)
    row["alpha"] = work.has_transparency_data and work.convert("RGBA").getchannel("A").getextrema()[0] < 255
    upright = _upright(work, picture)
    row["width"], row["height"] = size if _same_way(upright.size, size) else size[::-1]
    rgb = flatten(upright)
    rgb = rgb if rgb.mode == "RGB" else rgb.convert("RGB")
    row["read"], row["mode"] = True, _family(mode).encode()
    row["file"] = np.void(blake2b(data, digest_size=16).digest())
    told = blake2b(rgb.tobytes(), digest_size=16, salt=f"{row['width']}x{row['height']}".encode()[:16])
    row["pixels"] = np.void(told.digest())
    factor = max(1, min(rgb.size) // SMALL)
    small = rgb.reduce(factor) if factor > 1 else rgb
    grey = small.convert("L")
    seen["thumb"] = np.asarray(grey.resize((32, 32), Image.Resampling.BILINEAR))  # a box would alias
    seen["colour"] = np.asarray(small.resize((16, 16), Image.Resampling.BILINEAR))
    histograms = np.asarray(small.histogram(), np.int64).reshape(3, 256)
    luma = np.asarray(grey.histogram(), np.int64)
    for name, level in zip(LEVELS, np.searchsorted(luma.cumsum(), SHARES * luma.sum()).tolist(), strict=True):
        row[name] = level
    row["flat"] = _near_median(histograms).min()
    row["clipped"] = luma[250:].sum() / luma.sum()
    row["sharpness"] = sharpness(rgb, np.asarray(grey))
    return row[()], seen[()]


def _work(picture: Image.Image) -> Image.Image:
    """The first frame, decoded, of at most about WORK_PIXELS."""
    factor = math.ceil(math.sqrt(picture.width * picture.height / WORK_PIXELS))
    if factor == 1:
        picture.load()
        return picture
    picture.draft(None, (picture.width // factor, picture.height // factor))
    factor = math.ceil(math.sqrt(picture.width * picture.height / WORK_PIXELS))
    picture.load()
    if factor == 1:
        return picture
    if picture.mode in ("L", "RGB", "RGBA", "LA", "CMYK", "YCbCr"):
        return picture.reduce(factor)
    small = picture.resize((picture.width // factor or 1, picture.height // factor or 1), Image.Resampling.NEAREST)
    small.info = picture.info
    return small


def _upright(work: Image.Image, picture: Image.Image) -> Image.Image:
    try:
        turn = picture.getexif().get(0x0112)
    except Exception:  # a broken EXIF block turns nothing
        return work
    if turn in (None, 1):
        return work
    if work is picture:
        return ImageOps.exif_transpose(picture)
    ways = Image.Transpose
    turns = (
        ways.FLIP_LEFT_RIGHT, ways.ROTATE_180, ways.FLIP_TOP_BOTTOM, ways.TRANSPOSE, ways.ROTATE_270,
        ways.TRANSVERSE, ways.ROTATE_90,
    )  # fmt: skip
    return work.transpose(turns[turn - 2]) if turn in range(2, 9) else work


def _same_way(a: tuple[int, int], b: tuple[int, int]) -> bool:
    return (a[0] >= a[1]) == (b[0] >= b[1])


def _family(mode: str) -> str:
    """Modes that hold the same kind of values, transparency aside."""
    if mode in ("1", "L", "LA", "La"):
        return "grey"
    if mode in ("RGB", "RGBA", "RGBa", "RGBX"):
        return "colour"
    if mode in ("P", "PA"):
        return "palette"
    return "16-bit" if mode.startswith("I") else mode


def _near_median(histograms: np.ndarray) -> np.ndarray:
    """Share of the values of each histogram [C, 256] within FLAT levels of their median, [C]."""
    below = np.zeros((len(histograms), 257), np.int64)
    histograms.cumsum(1, out=below[:, 1:])
    count = below[:, -1]
    middle = (below[:, 1:] < count[:, None] / 2).sum(1)
    channel = np.arange(len(histograms))
    return (below[channel, np.minimum(middle + FLAT + 1, 256)] - below[channel, np.maximum(middle - FLAT, 0)]) / count


def thumbnail(data: bytes, side: int) -> Image.Image:
    """The picture of a file, upright, transparency on white, no larger than `side` pixels; raises Unusable."""
    with _opened(data) as picture:
        try:
            small = flatten(_upright(_work(picture), picture))
            small.thumbnail((side, side))
        except Unusable:
            raise
        except Exception as error:
            raise Unusable(f"cannot be decoded ({brief(error)})") from error
    return small
