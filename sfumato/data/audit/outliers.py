"""Outliers: pictures unlike the rest of their set, by simple features of colour, texture and layout."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from sfumato.data.audit.pool import on_every_core
from sfumato.data.audit.table import Column

LEAST = 50  # pictures: in smaller sets nothing is unlike "the rest"
REFERENCE = 4096  # pictures, spread over the set, that distances are taken to
SHARE = 0.05  # of them that a picture is compared with: outliers fewer than this are no company for each other
BULK, LIMIT = 0.75, 4.6  # an outlier is LIMIT times as far away as this share of the set reaches
BLOCK = 512
NAMES = (
    "brightness", "contrast", "darkest parts", "lightest parts", "red to green", "yellow to blue", "spread of red to green",
    "spread of yellow to blue", "saturation", "share without edges", "strong edges", "edges across to edges down",
    "finest texture", "fine texture", "middling texture", "coarse texture", "border brightness", "border contrast",
    "share of one tone",
)  # fmt: skip


@dataclass(frozen=True)
class Outlier:
    """A row far from all others: its score, the threshold, and what is unusual."""

    row: int
    score: float
    threshold: float
    evidence: str


def outliers(thumbs: Column | np.ndarray, colours: Column | np.ndarray, rows: np.ndarray) -> list[Outlier]:
    """Pictures far from the rest of `rows` [N], of `thumbs` uint8 [-, 32, 32] grey and `colours` uint8 [-, 16, 16, 3].

    The distance of a picture is its mean distance to the nearest 5 % of the set in standardised features (NAMES:
    median 0, interquartile range 1.35). Its score is that distance divided by the third quartile of all distances, so
    a quarter of the set may be faulty without moving the scale; outliers are those with scores above LIMIT.
    """
    if len(rows) < LEAST:
        return []
    blocks = np.split(rows, range(BLOCK, len(rows), BLOCK))
    values = on_every_core(lambda b: features(torch.from_numpy(thumbs[b]), torch.from_numpy(colours[b])), blocks)
    standard = _standardise(torch.cat(values))
    distance = _distances(standard)
    score = distance / torch.quantile(distance, BULK).clamp_min(1e-6)
    found = (score > LIMIT).nonzero()[:, 0].tolist()
    return [Outlier(k, float(score[k]), LIMIT, _told(standard[k], float(score[k]))) for k in found]


def features(thumbs: Tensor, colours: Tensor) -> Tensor:
    """uint8 [B, 32, 32] and [B, 16, 16, 3] -> float [B, len(NAMES)]."""
    grey, rgb = thumbs.float(), colours.float()
    flat = grey.flatten(1)
    dark, light = _quantiles(thumbs.flatten(1), 0.05, 0.95)
    red, green, blue = (rgb[..., c].flatten(1) for c in range(3))
    first, second = red - green, (red + green) / 2 - blue
    saturation = (rgb.amax(-1) - rgb.amin(-1)).flatten(1)
    across, down = (grey[:, :, 1:] - grey[:, :, :-1]).abs(), (grey[:, 1:] - grey[:, :-1]).abs()
    edges = torch.cat([across.flatten(1), down.flatten(1)], 1)
    bands, image = [], grey[:, None]
    for _ in range(4):
        smaller = F.avg_pool2d(image, 2)
        bands.append((image - F.interpolate(smaller, scale_factor=2.0)).flatten(1).std(1))
        image = smaller
    (strong,) = _quantiles(edges.to(torch.uint8), 0.95)
    middle = flat.median(1, keepdim=True).values
    border = torch.cat([grey[:, 0], grey[:, -1], grey[:, :, 0], grey[:, :, -1]], 1)
    columns = [
        flat.mean(1), flat.std(1), dark, light, first.mean(1), second.mean(1), first.std(1), second.std(1),
        saturation.mean(1), (edges < 3).float().mean(1) * 100, strong,
        20 * ((across.flatten(1).mean(1) + 2) / (down.flatten(1).mean(1) + 2)).log(),
        *(20 * (band + 2).log() for band in bands), border.mean(1), border.std(1),
        ((flat - middle).abs() < 6).float().mean(1) * 100,
    ]  # fmt: skip
    return torch.stack(columns, 1)


def _quantiles(values: Tensor, *shares: float) -> list[Tensor]:
    """Of each row of uint8 [B, N], linear between two values as torch.quantile has it: a partition does, no sorting."""
    ranks = [share * (values.shape[1] - 1) for share in shares]
    ends = [(math.floor(rank), math.ceil(rank)) for rank in ranks]
    ordered = torch.from_numpy(np.partition(values.numpy(), sorted({e for pair in ends for e in pair}), 1)).float()
    return [torch.lerp(ordered[:, a], ordered[:, b], rank - a) for rank, (a, b) in zip(ranks, ends, strict=True)]


def _standardise(values: Tensor) -> Tensor:
    """Median 0 and interquartile range 1.35, which is 1 standard deviation of a normal distribution."""
    low, middle, high = torch.quantile(
        values[:: max(1, len(values) // 100_000)], torch.tensor([0.25, 0.5, 0.75]), dim=0
    )
    # where the bulk does not vary, no less than a few levels count as a difference
    return (values - middle) / ((high - low) / 1.35).clamp_min(4.0)


def _distances(standard: Tensor) -> Tensor:
    """Mean distance of every row to its nearest SHARE of the reference rows [N]."""
    reference = standard[:: max(1, -(-len(standard) // REFERENCE))]
    near = max(5, round(SHARE * len(reference))) + 1  # and one for itself

    def block(rows: Tensor) -> Tensor:
        return torch.cdist(rows, reference).topk(near, 1, largest=False).values[:, 1:].mean(1)

    return torch.cat(on_every_core(block, standard.split(BLOCK // 4)))


def _told(standard: Tensor, score: float) -> str:
    """The three features that are farthest out, and the score beside its threshold."""
    far = standard.abs().topk(3).indices.tolist()
    parts = ", ".join(f"{NAMES[k]} {standard[k]:+.1f}" for k in far)
    return (
        f"{score:.1f} times as far from its nearest {SHARE:.0%} of the set as {BULK:.0%} of all are (limit {LIMIT:g}); "
        f"most unusual, in robust standard deviations: {parts}"
    )
