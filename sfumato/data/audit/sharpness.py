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
    parts = _parts(picture, small)
    turned = parts.swapaxes(-1, -2)
    square = parts.shape[-1] == parts.shape[-2]
    found = [_edges(lines) for lines in ([np.concatenate([parts, turned])] if square else [parts, turned])]
    rises, shares = (np.concatenate(x) for x in zip(*found, strict=True))
    if not len(rises):
        return -1.0
    strong = np.sort(shares[rises >= 0.4 * rises.max()])
    return float(strong[int(0.9 * (len(strong) - 1))])


def _parts(picture: Image.Image, small: np.ndarray) -> np.ndarray:
    """The whole of a small picture, [1, H, W]; of a large one the tiles with the most edges, [TILES, TILE, TILE]."""
    width, height = picture.size
    columns, rows = width // TILE, height // TILE
    if columns * rows <= TILES:
        return (small if small.shape == (height, width) else np.asarray(picture.convert("L")))[None]
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
    return np.stack(tiles)


def _edges(lines: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """uint8 [..., W] -> rise within REACH and steepest step as a share of it, where a step is the steepest around."""
    width = lines.shape[-1]
    if width < 4:
        return np.empty(0), np.empty(0)
    # values and their negatives side by side, so that the greatest of both give the rise; 0 beyond the ends
    both = np.zeros((2, *lines.shape[:-1], width + 2 * REACH), np.uint8)
    both[0, ..., REACH:-REACH], both[1, ..., REACH:-REACH] = lines, ~lines
    pairs = np.maximum(both[..., 1:], both[..., :-1])
    fours = np.maximum(pairs[..., 2:], pairs[..., :-2])
    eights = np.maximum(fours[..., 4:], fours[..., :-4])
    around = np.maximum(eights[..., :-4], fours[..., 8:])  # 2 * REACH + 2 values
    pairs = pairs[..., REACH:-REACH]
    rise, step = around[0] - ~around[1], pairs[0] - ~pairs[1]
    peak = (rise >= RISE) & (step > 0)
    peak[..., 1:] &= step[..., 1:] >= step[..., :-1]
    peak[..., :-1] &= step[..., :-1] >= step[..., 1:]
    rise, step = rise[peak], step[peak]
    return rise, step / rise


@lru_cache(maxsize=1)
def _smooth_surfaces() -> np.ndarray:
    """An orthonormal basis [1024, 10] of the cubic surfaces over 32x32 points."""
    at = np.linspace(-1, 1, 32)
    x, y = np.meshgrid(at, at)
    powers = [(x**i * y**j).ravel() for i in range(4) for j in range(4 - i)]
    return np.linalg.qr(np.stack(powers, 1))[0].astype(np.float32)


def detail(thumbs: np.ndarray) -> np.ndarray:
    """Root mean square in levels of what is left of thumbnails, uint8 [..., 32, 32], without the best cubic surface."""
    values = thumbs.reshape(*thumbs.shape[:-2], 32 * 32).astype(np.float32)  # of no thumbnails too
    basis = _smooth_surfaces()
    rest = values - values @ basis @ basis.T
    return np.sqrt(np.square(rest).mean(-1))


def spread(thumbs: np.ndarray) -> np.ndarray:
    """Standard deviation in levels between the 64 parts of thumbnails, uint8 [N, 32, 32] -> [N]: noise is averaged out."""
    return thumbs.reshape(-1, 8, 4, 8, 4).mean((2, 4)).reshape(-1, 64).std(1)
