"""Fonts to draw words with: those of installed packages and of this machine whose Latin letters can be read."""

from __future__ import annotations

import math
import os
import string
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from sfumato.core import SfumatoError

CHARACTERS = string.ascii_lowercase + string.ascii_uppercase + string.digits
EM = 48  # pixels that letters are drawn at before they are brought to their size
PACKAGES = ("font_caladea", "font_fredoka_one", "font_hanken_grotesk", "font_intuitive", "font_lato")
MATPLOTLIB = (
    *("DejaVuSans*", "DejaVuSerif*", "STIXGeneral*"),
    *("cmb10*", "cmr10*", "cmss10*", "cmti10*", "cmtt10*"),
)  # the rest of what it brings are symbols
LARGEST = 4 * 2**20  # bytes of a font file: larger ones hold other scripts
SIDE = 16  # pixels of a glyph when letters are told apart
READABLE = 0.4  # share of the characters that must look most like themselves
LEAST_STEM = 0.04  # em: thinner strokes vanish in small pictures
LOWEST = 0.9  # height of a small x over that of a large one: above, small letters are drawn as capitals


@dataclass(frozen=True)
class Face:
    """One font: family and style as it names itself, `widths` the advance of each of CHARACTERS in em."""

    family: str
    style: str
    widths: tuple[float, ...]
    font: ImageFont.FreeTypeFont = field(repr=False, compare=False)

    @property
    def bold(self) -> bool:
        return any(word in self.style.lower() for word in ("bold", "black", "heavy"))

    @property
    def italic(self) -> bool:
        return any(word in self.style.lower() for word in ("italic", "oblique"))


def folders() -> list[Path]:
    """Where this system keeps its fonts."""
    home = Path.home()
    if sys.platform == "darwin":
        return [Path("/System/Library/Fonts"), Path("/Library/Fonts"), home / "Library/Fonts"]
    if sys.platform == "win32":
        return [Path(os.environ.get("WINDIR", r"C:\Windows")) / "Fonts"]
    return [Path("/usr/share/fonts"), Path("/usr/local/share/fonts"), home / ".fonts", home / ".local/share/fonts"]


def _files() -> Iterator[Path]:
    """Font files: of the packages first, then of the system, each folder in the order of names."""
    for package in PACKAGES:
        spec = find_spec(package)
        for root in (spec.submodule_search_locations or ()) if spec else ():
            yield from sorted(p for p in Path(root).rglob("*") if p.suffix.lower() in (".ttf", ".otf"))
    spec = find_spec("matplotlib")
    for root in (spec.submodule_search_locations or ()) if spec else ():
        yield from sorted(p for pattern in MATPLOTLIB for p in (Path(root) / "mpl-data/fonts/ttf").glob(pattern))
    for folder in folders():
        if folder.is_dir():
            yield from sorted(p for p in folder.rglob("*") if p.suffix.lower() in (".ttf", ".otf"))


@lru_cache(maxsize=1)
def faces() -> tuple[Face, ...]:
    """All fonts that can be read, each once by family and style; Pillow's own is always among them.

    Raises SfumatoError when Pillow cannot draw letters.
    """
    try:
        own = ImageFont.load_default(EM)
    except TypeError:
        own = None
    if not isinstance(own, ImageFont.FreeTypeFont):
        raise SfumatoError("drawing words needs Pillow 10.1 or newer with FreeType: pip install -U pillow")
    usual = _glyphs(own)
    found = {own.getname(): _face(own)}
    for path in _files():
        font = _opened(path)
        if font is not None and font.getname() not in found and readable(font, usual):
            found[font.getname()] = _face(font)
    return tuple(found.values())


def _opened(path: Path) -> ImageFont.FreeTypeFont | None:
    """The font of a file; None when it is none, is too large, or cannot be read."""
    try:
        if path.stat().st_size > LARGEST:
            return None
        # from memory: an open file for each of some hundred fonts would be too many
        return ImageFont.truetype(BytesIO(path.read_bytes()), EM, layout_engine=ImageFont.Layout.BASIC)
    except (OSError, ValueError):
        return None


def _face(font: ImageFont.FreeTypeFont) -> Face:
    family, style = (name or "" for name in font.getname())
    return Face(family, style, tuple(font.getlength(c) / EM for c in CHARACTERS), font)


def ink(font: ImageFont.FreeTypeFont, text: str) -> np.ndarray:
    """Coverage of the text drawn at EM pixels, uint8 [h, w], cut to where there is ink ([0, 0] for none)."""
    return ink_from(font, text)[0]


def ink_from(font: ImageFont.FreeTypeFont, text: str) -> tuple[np.ndarray, float]:
    """`ink`, and how far right of the pen's start its first column lies, in pixels."""
    left, top, right, bottom = font.getbbox(text)
    image = Image.new("L", (max(0, math.ceil(right - left)), max(0, math.ceil(bottom - top))))
    if all(image.size):
        ImageDraw.Draw(image).text((-left, -top), text, fill=255, font=font)
    drawn = np.asarray(image)
    rows, columns = drawn.any(1).nonzero()[0], drawn.any(0).nonzero()[0]
    if not len(rows):
        return drawn[:0, :0], left
    return drawn[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1], left + float(columns[0])


def _glyphs(font: ImageFont.FreeTypeFont) -> np.ndarray:
    """Each of CHARACTERS as a unit vector [62, SIDE * SIDE], brought to the height SIDE in the middle of a square."""
    out = np.zeros((len(CHARACTERS), SIDE, SIDE), np.float32)
    for row, character in zip(out, CHARACTERS, strict=True):
        drawn = ink(font, character)
        if not drawn.size:
            continue
        width = min(SIDE, max(1, round(SIDE * drawn.shape[1] / drawn.shape[0])))
        left = (SIDE - width) // 2
        row[:, left : left + width] = np.asarray(Image.fromarray(drawn).resize((width, SIDE), Image.Resampling.BOX))
    flat = out.reshape(len(out), -1)
    return flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-6)


def readable(font: ImageFont.FreeTypeFont, usual: np.ndarray) -> bool:
    """Whether letters look like themselves (by their nearest glyph of `usual`, large and small alike), with strokes that
    show, and small letters that are not drawn as capitals."""
    try:
        stem, small, large = ink(font, "l"), ink(font, "x"), ink(font, "X")
        if not (stem.size and small.size and large.size) or small.shape[0] > LOWEST * large.shape[0]:
            return False
        if np.median(stem.sum(1) / 255) < LEAST_STEM * EM:
            return False
        nearest = (_glyphs(font) @ usual.T).argmax(1)
    except (OSError, ValueError):  # a broken glyph
        return False
    alike = [CHARACTERS[k].lower() == c.lower() for k, c in zip(nearest.tolist(), CHARACTERS, strict=True)]
    return float(np.mean(alike)) >= READABLE
