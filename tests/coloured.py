"""Drawn shapes with captions, in two styles: a source small enough to teach a judge in seconds, and generators that lie."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from sfumato.data import Source

SIZE = 16
COLOURS = {
    "red": (220, 30, 30),
    "green": (30, 160, 50),
    "blue": (40, 70, 220),
    "yellow": (245, 215, 40),
    "purple": (140, 50, 170),
    "orange": (245, 130, 20),
    "black": (20, 20, 20),
}
STYLES = ("filled", "outline")
GRID = np.stack(np.meshgrid(np.arange(SIZE) + 0.5, np.arange(SIZE) + 0.5, indexing="xy"))


def _inside(shape: str, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Whether points of the square -1 ... 1 lie in the shape."""
    ax, ay = np.abs(x), np.abs(y)
    return {
        "circle": x**2 + y**2 < 1,
        "square": np.maximum(ax, ay) < 0.9,
        "triangle": (ay < 0.9) & (ax < (y + 0.95) / 2),
        "diamond": ax + ay < 1,
        "cross": (np.minimum(ax, ay) < 0.33) & (np.maximum(ax, ay) < 1),
        "bar": (ay < 0.4) & (ax < 1),
        "pole": (ax < 0.4) & (ay < 1),
        "arch": (x**2 + y**2 < 1) & (y < 0.1),
    }[shape]


SHAPES = ("circle", "square", "triangle", "diamond", "cross", "bar", "pole", "arch")
NAMES = tuple(f"{colour} {shape}" for colour in COLOURS for shape in SHAPES)


def drawn(names: Sequence[str], styles: Sequence[str], seed: int) -> np.ndarray:
    """Pictures uint8 [N, SIZE, SIZE, 3] on white: place and size differ from picture to picture."""
    rng = np.random.default_rng(seed)
    out = np.full((len(names), SIZE, SIZE, 3), 255, np.uint8)
    for picture, name, style in zip(out, names, styles, strict=True):
        colour, shape = name.split()
        radius = SIZE * rng.uniform(0.34, 0.42)
        x, y = ((GRID[k] - SIZE / 2 - rng.uniform(-0.6, 0.6)) / radius for k in (0, 1))
        mask = _inside(shape, x, y)
        if style == "outline":
            inner = mask.copy()
            for axis in (0, 1):
                for step in (-1, 1):
                    inner &= np.roll(mask, step, axis)
            mask &= ~inner
        picture[mask] = COLOURS[colour]
    return out


def as_x0(pixels: np.ndarray) -> Tensor:
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1


def coloured(copies: int = 4, seed: int = 0) -> Source:
    """Every shape in every colour and style; some glyphs and one (glyph, style) pair in ten are held out."""
    rows = [(name, style, k) for name in NAMES for style in STYLES for k in range(copies)]
    names, styles = [r[0] for r in rows], [r[1] for r in rows]
    return Source(
        name="coloured",
        pixels=drawn(names, styles, seed),
        keys=tuple(f"{n.replace(' ', '-')}-{s}-{k}.png" for n, s, k in rows),
        captions=[f"a {n}, {s}" for n, s in zip(names, styles, strict=True)],
        columns={"name": names, "keywords": [n.split() for n in names]},
        styles=STYLES,
        style_labels=torch.tensor([STYLES.index(s) for s in styles]),
        groups=tuple(names),
    )
