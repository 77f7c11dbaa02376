"""How sharp the sharpest parts of a picture are, and whether it holds anything but a smooth slope."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from PIL import Image

TILE = 48  # pixels: side of the parts looked at
TILES = 12
REACH = 5  # pixels to each side of an edge in which its whole rise is looked for
RISE = 16  # levels: weaker edges say nothing


def sharpness(picture: Image.Image, small: np.ndarray) -> float:
    """The steepest step of an edge as a share of its whole rise, of the sharpest tenth of the strong edges; 0 ... 1.

    `small`: grey uint8 [h, w], the picture at a reduced scale, where the parts richest in edges are looked for.
    An edge blurred by a Gaussian of sigma pixels has 1 / (sigma sqrt(2 pi)): 0.4 for one pixel, 0.2 for two. Only edges
    count, so plain backgrounds do not lower it, and one sharp part before a soft background is enough.
    -1 where there is no edge to judge by.
    """
    found = [_edges(lines) for part in _parts(picture, small) for lines in (part, part.swapaxes(-1, -2))]
    rises, shares = (np.concatenate(x) for x in zip(*found, strict=True))
    if not len(rises):
        return -1.0
    strong = np.sort(shares[rises >= 0.4 * rises.max()])
    return float(strong[int(0.9 * (len(strong) - 1))])


def _parts(picture: Image.Image, small: np.ndarray) -> list[np.ndarray]:
    """The whole of a small picture, [1, H, W]; of a large one the tiles with the most edges, [TILES, TILE, TILE]."""
    width, height = picture.size
    columns, rows = width // TILE, height // TILE
    if columns * rows <= TILES:
        return [np.asarray(picture.convert("L"))[None]]
    across = np.linspace(0, small.shape[1], columns + 1).astype(int)[:-1]
    down = np.linspace(0, small.shape[0], rows + 1).astype(int)[:-1]
    values = small.astype(np.int16)
    change = np.abs(values[1:, 1:] - values[:-1, 1:]) + np.abs(values[1:, 1:] - values[1:, :-1])
    change = np.pad(change, ((0, 1), (0, 1)))
    sums = np.add.reduceat(np.add.reduceat(change, down, 0, np.int32), across, 1)
    best = np.argsort(sums, axis=None)[::-1][:TILES]
    tiles = []
    for row, column in zip(*np.unravel_index(best, sums.shape), strict=True):
        left, top = column * width // columns, row * height // rows
        tiles.append(np.asarray(picture.crop((left, top, left + TILE, top + TILE)).convert("L")))
    return [np.stack(tiles)]


def _edges(lines: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rise within REACH and steepest step as a share of it, where a step along the last axis is the steepest around."""
    if lines.shape[-1] < 4:
        return np.empty(0), np.empty(0)
    values = np.ascontiguousarray(lines, np.int16)
    step = np.abs(values[..., 1:] - values[..., :-1])
    high, low = np.maximum(values[..., 1:], values[..., :-1]), np.minimum(values[..., 1:], values[..., :-1])
    high, low = _spread(high, np.maximum), _spread(low, np.minimum)
    rise = high - low
    peak = (rise >= RISE) & (step > 0)
    peak[..., 1:] &= step[..., 1:] >= step[..., :-1]
    peak[..., :-1] &= step[..., :-1] >= step[..., 1:]
    rise, step = rise[peak], step[peak]
    return rise, step / rise


def _spread(values: np.ndarray, pick: np.ufunc) -> np.ndarray:
    """The largest (or smallest) value within REACH to both sides, along the last axis."""
    out = values
    for shift in (1, 2, REACH - 3):  # 1 + 2 + 2: each round widens what the last one saw
        wider = out.copy()
        pick(wider[..., shift:], out[..., :-shift], out=wider[..., shift:])
        pick(wider[..., :-shift], out[..., shift:], out=wider[..., :-shift])
        out = wider
    return out


@lru_cache(maxsize=1)
def _smooth_surfaces() -> np.ndarray:
    """An orthonormal basis [1024, 10] of the cubic surfaces over 32x32 points."""
    at = np.linspace(-1, 1, 32)
    x, y = np.meshgrid(at, at)
    powers = [(x**i * y**j).ravel() for i in range(4) for j in range(4 - i)]
    return np.linalg.qr(np.stack(powers, 1))[0].astype(np.float32)


def detail(thumb: np.ndarray) -> float:
    """Root mean square in levels of what is left of a thumbnail, uint8 [32, 32], when the best cubic surface is taken away."""
    values = thumb.astype(np.float32).ravel()
    basis = _smooth_surfaces()
    rest = values - basis @ (values @ basis)
    return float(np.sqrt(rest @ rest / len(rest)))
