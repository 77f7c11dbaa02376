"""Outliers: strangers among real sets are found, and real sets have none."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from sfumato.data.audit.outliers import LEAST, _quantiles, outliers


def drawings(n: int, draw: np.random.Generator) -> np.ndarray:
    """Discs of one of six colours on white, uint8 [n, 64, 64, 3]: a set of one kind with variety in it."""
    y, x = np.mgrid[0:64, 0:64]
    palette = np.array([[240, 200, 40], [220, 60, 50], [70, 140, 220], [90, 180, 80], [160, 90, 200], [60, 60, 60]])
    out = np.full((n, 64, 64, 3), 255, np.uint8)
    for picture in out:
        for _ in range(draw.integers(1, 4)):
            centre, radius = draw.uniform(20, 44, 2), draw.uniform(8, 20)
            inside = (x - centre[0]) ** 2 + (y - centre[1]) ** 2 < radius**2
            picture[inside] = palette[draw.integers(6)]
    return out


def looked_at(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    pictures = [Image.fromarray(p).convert("RGB") for p in pixels]
    low_pass = Image.Resampling.BILINEAR
    thumbs = np.stack([np.asarray(p.convert("L").resize((32, 32), low_pass)) for p in pictures])
    return thumbs, np.stack([np.asarray(p.resize((16, 16), low_pass)) for p in pictures]), np.arange(len(pixels))


@pytest.mark.parametrize("seed", range(3))
def test_noise_among_drawings_is_found_and_nothing_else(seed):
    draw = np.random.default_rng(seed)
    pixels = drawings(300, draw)
    assert outliers(*looked_at(pixels)) == []
    strangers = np.repeat(np.repeat(draw.integers(0, 256, (6, 32, 32, 3)), 2, 1), 2, 2).astype(np.uint8)
    found = outliers(*looked_at(np.concatenate([pixels, strangers])))
    assert {o.row for o in found} == set(range(300, 306))
    assert all(o.score > o.threshold and "limit" in o.evidence for o in found)


def test_a_small_set_has_no_rest_to_be_unlike():
    draw = np.random.default_rng(0)
    pixels = np.concatenate([drawings(LEAST - 2, draw), draw.integers(0, 256, (1, 64, 64, 3)).astype(np.uint8)])
    assert outliers(*looked_at(pixels)) == []


def test_equal_pictures_have_no_outliers():
    assert outliers(*looked_at(np.full((80, 64, 64, 3), 128, np.uint8))) == []


@pytest.mark.parametrize("n", [2, 17, 1984])
def test_quantiles_are_those_of_torch(n):
    values = torch.from_numpy(np.random.default_rng(n).integers(0, 256, (9, n), dtype=np.uint8))
    for share, found in zip((0.05, 0.5, 0.95), _quantiles(values, 0.05, 0.5, 0.95), strict=True):
        assert torch.allclose(found, torch.quantile(values.float(), share, dim=1), atol=1e-3)
