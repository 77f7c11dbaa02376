"""One word drawn on one ground: colours that keep it legible, grounds, geometry."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image, ImageDraw

from sfumato.data.fonts import EM, Face, ink_from

COLOURS: dict[str, tuple[int, int, int]] = {
    "black": (24, 24, 26),
    "white": (246, 246, 246),
    "grey": (150, 152, 156),
    "red": (200, 32, 38),
    "orange": (242, 140, 30),
    "yellow": (250, 214, 50),
    "green": (24, 120, 60),
    "blue": (34, 76, 200),
    "purple": (110, 44, 150),
    "pink": (246, 168, 200),
    "brown": (104, 62, 34),
}
Kind = Literal["plain", "fading", "striped", "dotted", "checked", "speckled", "sign", "label"]
APART = 4.5  # contrast of an ink with its ground as their names say it (WCAG 2.1's bound for small letters)
LEAST = 3.0  # contrast in the picture, with every pixel of the ground (WCAG 2.1's bound for large letters)
SMALLEST = 10.5 / 32  # size of the letters (em) over the height of the picture
LARGEST = 0.85
JITTER = 14  # of 255, that a colour may differ from its name
TURN = 6.0  # degrees
BLEND = np.linspace(0, 1, 9)[:, None]


@dataclass(frozen=True)
class Look:
    """What a word is drawn with: names of COLOURS; `second` is the end of a fading ground or what lies around a sign."""

    face: Face
    colour: str
    kind: Kind
    ground: str
    second: str

    def caption(self, word: str) -> str:
        """What the picture shows, the word in quotation marks."""
        style = "bold " * self.face.bold + "italic " * self.face.italic
        ground = {
            "plain": self.ground,
            "fading": f"{self.ground} fading to {self.second}",
            "sign": f"a {self.ground} sign on {self.second}",
            "label": f"a {self.ground} label on {self.second}",
        }.get(self.kind, f"{self.kind} {self.ground}")
        return f'the word "{word}" in {style}{self.colour} on {ground}'


def contrast(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """(L1 + 0.05) / (L2 + 0.05) of the lighter and the darker (WCAG 2.1), sRGB [..., 3] in 0 ... 255, from 1 to 21."""
    light = [_luminance(np.asarray(c, np.float64)) + 0.05 for c in (one, other)]
    return np.maximum(*light) / np.minimum(*light)


def _luminance(colour: np.ndarray) -> np.ndarray:
    c = colour / 255
    linear = np.where(c <= 0.03928, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)
    return linear @ np.array([0.2126, 0.7152, 0.0722])


def draw(word: str, look: Look, frame: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """The word as uint8 [H, W, 3]: size, place, turn and shades are drawn from `rng`."""
    letters, sign = coverage(place(word, look, frame, rng), look, frame)
    colour, ground, second = (_shade(name, rng) for name in (look.colour, look.ground, look.second))
    tone = second if look.kind == "fading" else _tone(ground, colour, rng)
    share = _pattern(look.kind, frame, rng)
    if share is None:
        tone = ground
    if contrast(colour, ground + (tone - ground) * BLEND).min() < LEAST:  # the shades came too near
        colour, ground = (np.array(COLOURS[name], np.float64) for name in (look.colour, look.ground))
        share = None
    pixels = np.broadcast_to(ground, (*frame, 3)) if share is None else ground + (tone - ground) * share[..., None]
    if sign is not None:
        pixels = second + (pixels - second) * sign[..., None]
    pixels = pixels + (colour - pixels) * letters[..., None]
    return np.clip(np.rint(pixels), 0, 255).astype(np.uint8)


def _shade(name: str, rng: np.random.Generator) -> np.ndarray:
    return np.clip(np.array(COLOURS[name]) + rng.uniform(-JITTER, JITTER, 3), 0, 255)


@dataclass(frozen=True)
class Place:
    """Where a word stands: its ink at EM pixels and how far that begins right of the pen's start; at twice the picture's
    pixels its size, its centre, the size of the sign around it (None: there is none); `turn` in degrees,
    counter-clockwise."""

    ink: np.ndarray
    start: float
    size: tuple[int, int]
    centre: tuple[float, float]
    sign: tuple[float, float] | None
    turn: float


def place(word: str, look: Look, frame: tuple[int, int], rng: np.random.Generator) -> Place:
    """A place at which the word lies within the frame (height, width): the first that is drawn from `rng`."""
    height, width = frame
    unit = height / 32
    on_sign = look.kind in ("sign", "label")
    edge, border = (1.0 * unit, 3.0 * unit) if on_sign else (2.0 * unit, 0.0)
    beside = border * (2.0 if look.kind == "label" else 1.0)  # the ends of a label are round
    drawn, start = ink_from(look.face.font, word)
    h, w = drawn.shape
    turn = float(rng.uniform(-TURN, TURN)) if rng.random() < 0.6 else 0.0
    c, s = math.cos(math.radians(turn)), abs(math.sin(math.radians(turn)))
    # a box of (k w + 2 beside) x (k h + 2 border), turned, must lie within the frame
    most = min(
        (width - 2 * edge - 2 * (beside * c + border * s)) / (w * c + h * s),
        (height - 2 * edge - 2 * (beside * s + border * c)) / (w * s + h * c),
        LARGEST * height / EM,
    )
    scale = max(most * rng.uniform(0.85, 1.0), min(most, SMALLEST * height / EM))
    size = max(1, round(2 * scale * w)), max(1, round(2 * scale * h))
    box = size[0] + 4 * beside, size[1] + 4 * border
    extent = box[0] * c + box[1] * s, box[0] * s + box[1] * c
    free = (max(0.0, 2 * (side - 2 * edge) - taken) for side, taken in zip((width, height), extent, strict=True))
    x, y = (side + room * rng.uniform(-0.4, 0.4) for side, room in zip((width, height), free, strict=True))
    return Place(drawn, start, size, (x, y), box if on_sign else None, turn)


def spans(word: str, look: Look, placed: Place) -> np.ndarray:
    """First and last column of each character's advance in the picture, float [len(word), 2]."""
    font = look.face.font
    pen = np.array([font.getlength(word[:k]) for k in range(len(word) + 1)]) - placed.start
    across = (pen / placed.ink.shape[1] - 0.5) * placed.size[0] * math.cos(math.radians(placed.turn))
    columns = (placed.centre[0] + across) / 2
    return np.stack([columns[:-1], columns[1:]], 1)


def coverage(placed: Place, look: Look, frame: tuple[int, int]) -> tuple[np.ndarray, np.ndarray | None]:
    """How much of each pixel [H, W] the letters cover, 0 ... 1, and the sign below them where there is one."""
    height, width = frame
    (w, h), (x, y) = placed.size, placed.centre
    letters = Image.new("L", (2 * width, 2 * height))
    letters.paste(
        Image.fromarray(placed.ink).resize((w, h), Image.Resampling.BOX), (round(x - w / 2), round(y - h / 2))
    )
    covered = _reduced(letters, placed.turn, (x, y))
    inked = np.sort(covered[covered > 0.1])
    if len(inked):  # thin strokes are brought to full colour
        covered = np.minimum(1.0, covered / max(0.4, float(inked[int(0.8 * len(inked))])))
    if placed.sign is None:
        return covered, None
    w, h = placed.sign
    sign = Image.new("L", letters.size)
    corner = height / 8 if look.kind == "sign" else h / 2
    ImageDraw.Draw(sign).rounded_rectangle((x - w / 2, y - h / 2, x + w / 2, y + h / 2), corner, fill=255)
    return covered, _reduced(sign, placed.turn, (x, y))


def _reduced(mask: Image.Image, turn: float, centre: tuple[float, float]) -> np.ndarray:
    """A mask of twice the size, turned, as coverage [H, W]."""
    if turn:
        mask = mask.rotate(turn, Image.Resampling.BILINEAR, center=centre)
    return np.asarray(mask.reduce(2), np.float64) / 255


def _tone(ground: np.ndarray, colour: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The other tone of a pattern: further from the colour of the letters, but for white, which has nothing lighter."""
    lighter = _luminance(ground) > _luminance(colour)
    if lighter and ground.min() > 225:
        return ground - 22
    return ground + ((255.0 if lighter else 0.0) - ground) * rng.uniform(0.25, 0.5)


def _pattern(kind: Kind, frame: tuple[int, int], rng: np.random.Generator) -> np.ndarray | None:
    """Share [H, W] of the other tone in the ground; None where there is but one."""
    height, width = frame
    if kind in ("plain", "sign", "label"):
        return None
    y, x = np.arange(height)[:, None] / height, np.arange(width)[None] / height
    angle, period = rng.uniform(0, 2 * math.pi), rng.uniform(0.2, 0.4)
    way = x * math.cos(angle) + y * math.sin(angle)
    if kind == "fading":
        return (way - way.min()) / (way.max() - way.min())
    if kind == "striped":
        wave = np.sin(2 * math.pi * way / period)
    elif kind == "speckled":
        wave = rng.normal(-1, 1, frame)
    else:
        a, b = (np.sin(2 * math.pi * (v / period + rng.random())) for v in (x, y))
        wave = a * b if kind == "checked" else a + b - 1.0
    return np.clip(0.5 + 2 * wave, 0, 1)
