"""Controls: what a picture is told by besides words, derived from the picture itself for training, from the user's own at
use. Every slot has one door here, so that a model is asked in the form in which it was taught."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sfumato.core import EDGES, THOUSAND, Noise, Slot, expand
from sfumato.data import colours, text
from sfumato.data.layout import Box

FINE = 32  # steps of red, green and blue in which colours are named
GAP = 2  # masked places between two boxes: what reads a word's neighbours stays within its box
KINDS = ("box", "centre", "border", "half", "strokes", "blob", "sparse")  # of random masks
STROKES = 5
HARMONICS = 4
LINE = (
    0.12,
    0.35,
)  # of a picture's strongest edge: the least that is drawn as a line, for the finest and boldest sketch
USUAL_LINE = 0.2


def known_slot(x0: Tensor, keep: Tensor) -> Slot:
    """ "known": x0 [B, C, H, W] where `keep` (bool [B or 1, 1, H, W]) -> map [B, 1 + C, H, W], the mask first."""
    mask = keep.to(x0.dtype).expand(len(x0), 1, *x0.shape[2:])
    return Slot(torch.cat([mask, x0 * mask], 1), "map")


def lowres_slot(small: Tensor, shape: tuple[int, int], level: float | Tensor = 0.0, noise: Noise | None = None) -> Slot:
    """ "lowres": pictures [B, C, h, w] in [-1, 1] brought to `shape` (H, W), and noised to `level` -> map [B, C + 1, H, W].

    (1 - level) x + level eps, level in 0 ... 0.5 (one for all or [B]) told in the last channel: the noise conditioning
    augmentation of cascades (Ho et al. 2021; Saharia et al. 2022), which makes a model forgive what a small picture lacks.
    """
    x = F.interpolate(small, size=shape, mode="nearest")
    levels = torch.as_tensor(level, dtype=x.dtype).expand(len(x))
    if noise is not None:
        x = x * (1 - expand(levels, x)) + noise.normal(x.shape) * expand(levels, x)
    return Slot(torch.cat([x, expand(levels, x).expand(-1, 1, *shape)], 1), "map")


def sketch_slot(lines: Tensor) -> Slot:
    """ "sketch": lines [B, H, W] or [B, 1, H, W], 1 on a line and 0 elsewhere -> map [B, 1, H, W]."""
    return Slot((lines if lines.ndim == 4 else lines.unsqueeze(1)).float(), "map")


def classes_slot(indices: Tensor, k: int) -> Slot:
    """ "classes": which of k classes each pixel is of, int64 [B, H, W] -> map [B, k, H, W], one-hot; -1 is none."""
    return Slot(F.one_hot(indices + 1, k + 1)[..., 1:].permute(0, 3, 1, 2).float(), "map")


def boxes_slot(layouts: Iterable[Sequence[Box]]) -> Slot:
    """ "boxes": the boxes of B pictures -> placed words, ids int64 [B, N, F + 4]: the F features of each word, then the left,
    top, right and bottom edge of its box in thousandths; GAP masked places stand between two boxes."""
    rows = []
    for boxes in layouts:
        parts = []
        for box in boxes:
            ids, _ = text.encode([box[4]])
            place = torch.tensor([round(THOUSAND * side) for side in box[:EDGES]]).expand(ids.shape[1], EDGES)
            parts += [torch.cat([ids[0], place], 1), torch.zeros(GAP, text.FEATURES + EDGES, dtype=torch.int64)]
        rows.append(torch.cat(parts[:-1]) if parts else torch.zeros(0, text.FEATURES + EDGES, dtype=torch.int64))
    longest = max((len(row) for row in rows), default=0)
    ids = torch.stack([F.pad(row, (0, 0, 0, longest - len(row))) for row in rows])
    return Slot(ids, "placed", ids[..., 0] > 0)


def segments_of(x0: Tensor) -> Tensor:
    """Which of the basic colours (`colours.NAMES`) covers each place of x0 [B, 3, H, W], int64 [B, H, W]: smoothed over a
    twelfth of the side, so that it is painted by areas and not by pixels."""
    radius = max(1, min(x0.shape[2:]) // 24)
    size = 2 * radius + 1
    smooth = F.avg_pool2d(F.pad(x0.expand(-1, 3, -1, -1), (radius,) * 4, mode="replicate"), size, stride=1)
    r, g, b = smooth.add(1).mul(FINE / 2).long().clamp(0, FINE - 1).unbind(1)
    return _named()[(r * FINE + g) * FINE + b]


@lru_cache(maxsize=1)
def _named() -> Tensor:
    """The basic colour of every red, green and blue in FINE steps, int64 [FINE^3]."""
    steps = torch.arange(FINE).add(0.5).mul(256 / FINE).byte()
    every = torch.cartesian_prod(steps, steps, steps).numpy()
    return torch.from_numpy(colours.nearest(np.ascontiguousarray(every))).long()


def sketch_of(x0: Tensor, noise: Noise | None = None) -> Tensor:
    """The lines of pictures x0 [B, C, H, W] in [-1, 1], float [B, 1, H, W], 1 on a line.

    A line is where the gradient over all channels is largest across its own direction (Canny 1986, without the second
    threshold) and at least a share of the picture's strongest edge. With `noise` as a hand draws: the picture is bent by a
    pixel or two of 64, lines have gaps, and are fine or bold, few or many.
    """
    batch, side = len(x0), min(x0.shape[2:])
    least = torch.full((batch,), USUAL_LINE)
    if noise is not None:
        u = noise.at(0).uniform((batch, 2))
        least = LINE[0] + (LINE[1] - LINE[0]) * u[:, 0]
        x0 = _bent(x0, noise.at(1), side / 64)
    lines = _thin(*_gradient(x0), expand(least, x0))
    if noise is not None:
        bold = expand(u[:, 1] < 0.5, x0)
        lines = torch.where(bold, F.max_pool2d(lines, 2, stride=1, padding=1)[..., 1:, 1:], lines)
        gaps = F.interpolate(noise.at(2).normal((batch, 1, 8, 8)), size=x0.shape[2:], mode="bilinear")
        lines = lines * (gaps > -0.9)
    return lines


def _gradient(x0: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Length [B, 1, H, W] of the gradient by Sobel's filters, root of the sum over channels, and its two components."""
    channels = x0.shape[1]
    kernel = x0.new_tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]]) / 8
    both = torch.stack([kernel, kernel.T]).repeat(channels, 1, 1).unsqueeze(1)
    found = F.conv2d(F.pad(x0, (1,) * 4, mode="replicate"), both, groups=channels).unflatten(1, (channels, 2))
    length = found.square().sum((1, 2)).sqrt().unsqueeze(1)
    # the direction of the channel that changes most
    strongest = found.square().sum(2, keepdim=True).argmax(1, keepdim=True).expand(-1, 1, 2, -1, -1)
    x, y = found.gather(1, strongest)[:, 0].split(1, 1)
    return length, x, y


def _thin(length: Tensor, x: Tensor, y: Tensor, least: Tensor) -> Tensor:
    """1 where the length is at least `least` of the picture's largest, and no less than before and behind along (x, y)."""
    padded = F.pad(length, (1,) * 4)
    height, width = length.shape[2:]

    def beside(dy: int, dx: int) -> Tensor:
        return padded[..., 1 + dy : 1 + dy + height, 1 + dx : 1 + dx + width]

    # the direction in eighths of a turn, opposite ones alike: 0 along x, 2 along y
    eighth = (torch.atan2(y, x) / (math.pi / 4)).round().long() % 4
    steps = [(0, 1), (1, 1), (1, 0), (1, -1)]
    ahead = torch.cat([beside(*step) for step in steps], 1).gather(1, eighth)
    behind = torch.cat([beside(-dy, -dx) for dy, dx in steps], 1).gather(1, eighth)
    largest = length.flatten(1).amax(1).clamp_min(1e-3).reshape(-1, 1, 1, 1)
    return ((length >= least * largest) & (length >= ahead) & (length > behind)).float()


def _bent(x0: Tensor, noise: Noise, pixels: float) -> Tensor:
    """Every picture bent by a smooth random field of about this many pixels."""
    batch, _, height, width = x0.shape
    field = F.interpolate(noise.normal((batch, 2, 5, 5)), size=(height, width), mode="bicubic", align_corners=True)
    scale = x0.new_tensor([2 * pixels / width, 2 * pixels / height])
    plain = F.affine_grid(torch.eye(2, 3).expand(batch, -1, -1), (batch, 1, height, width), align_corners=False)
    return F.grid_sample(x0, plain + field.permute(0, 2, 3, 1) * scale, padding_mode="border", align_corners=False)


def random_keep(noise: Noise, shape: tuple[int, int]) -> Tensor:
    """What is kept of a picture while the rest is to be drawn, bool [B, 1, H, W]: one of KINDS for each, all as likely.

    A hole that is a box, the middle, strokes or a blob; all but a box within (as when a picture is continued outwards);
    half of the picture; or sparse pixels.
    """
    u = noise.uniform((len(noise.seeds), 8 + 5 * STROKES + 2 * HARMONICS))
    y, x = torch.meshgrid(*((torch.arange(n) + 0.5) / n for n in shape), indexing="ij")
    kind = (u[:, 0] * len(KINDS)).long().clamp_max(len(KINDS) - 1)
    a = u.reshape(*u.shape, 1, 1)
    size, at = 0.25 + 0.5 * a[:, 1:3], a[:, 3:5]
    low = at * (1 - size)
    box = (x >= low[:, 0]) & (x < low[:, 0] + size[:, 0]) & (y >= low[:, 1]) & (y < low[:, 1] + size[:, 1])
    middle = torch.maximum((x - 0.5).abs(), (y - 0.5).abs())
    turned = torch.where(a[:, 6] < 0.5, x, y)
    half = torch.where(a[:, 7] < 0.5, turned < 0.3 + 0.4 * a[:, 5], turned >= 0.3 + 0.4 * a[:, 5])
    ends = a[:, 8 : 8 + 4 * STROKES].unflatten(1, (STROKES, 4))
    thick = 0.03 + 0.07 * a[:, 8 + 4 * STROKES : 8 + 5 * STROKES]
    strokes = (_distance(x, y, ends) < thick).any(1)
    waves = a[:, 8 + 5 * STROKES :].unflatten(1, (HARMONICS, 2))
    centre = 0.3 + 0.4 * at
    blob = _blob(x - centre[:, 0], y - centre[:, 1], 0.15 + 0.2 * a[:, 5], waves)
    sparse = noise.at(1).uniform((len(u), *shape)) < 0.02 + 0.2 * a[:, 5].square()
    kept = torch.stack([~box, middle > size[:, 0] / 2, box, half, ~strokes, ~blob, sparse])
    return kept[kind, torch.arange(len(u))].unsqueeze(1)


def _distance(x: Tensor, y: Tensor, ends: Tensor) -> Tensor:
    """Distance of every place from the segments with `ends` [B, S, 4, 1, 1], [B, S, H, W]."""
    ax, ay, bx, by = ends.unbind(2)
    dx, dy = bx - ax, by - ay
    along = (((x - ax) * dx + (y - ay) * dy) / (dx.square() + dy.square()).clamp_min(1e-6)).clamp(0, 1)
    return ((x - ax - along * dx).square() + (y - ay - along * dy).square()).sqrt()


def _blob(x: Tensor, y: Tensor, radius: Tensor, waves: Tensor) -> Tensor:
    """Inside of a closed curve whose radius has HARMONICS waves of sizes and phases `waves` [B, HARMONICS, 2, 1, 1]."""
    angle = torch.atan2(y, x)
    swell = sum(
        0.5 / (k + 1) * waves[:, k, 0] * torch.cos((k + 1) * angle + 2 * math.pi * waves[:, k, 1])
        for k in range(HARMONICS)
    )
    return (x.square() + y.square()).sqrt() < radius * (1 + swell)
