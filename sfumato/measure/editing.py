"""Measures of edits: nearness to the true pixels, seams, lines obeyed, consistency with the small picture.

Pictures are x0 float [N, C, H, W] in [-1, 1]; every measure but `seam_ratio` gives one number per picture.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from sfumato.core import SfumatoError
from sfumato.guide import Downsample
from sfumato.measure.intervals import Interval, student
from sfumato.measure.score import Extractor

WINDOW, SIGMA = 11, 1.5  # of SSIM


def psnr(made: Tensor, real: Tensor, where: Tensor | None = None) -> Tensor:
    """10 log10(2^2 / mean squared error) in dB, float64 [N], infinite where nothing differs; `where` bool [N or 1, 1, H, W]
    counts only these pixels. Raises SfumatoError for sets that do not match and where no pixel counts."""
    _check(made, real)
    square = (made.double() - real.double()).square().mean(1, keepdim=True)
    counted = torch.ones_like(square) if where is None else where.expand_as(square).double()
    if not bool(counted.flatten(1).any(1).all()):
        raise SfumatoError("there is a picture without any pixel to compare")
    error = (square * counted).flatten(1).sum(1) / counted.flatten(1).sum(1)
    return 10 * torch.log10(4 / error)


def ssim(made: Tensor, real: Tensor) -> Tensor:
    """Structural similarity, float64 [N], 1 for equal pictures: the mean over places and channels of
    (2 m_a m_b + c1) (2 s_ab + c2) / ((m_a^2 + m_b^2 + c1) (s_a^2 + s_b^2 + c2)) under a Gaussian window of 11 pixels and
    sigma 1.5, c1 = (0.01 * 2)^2, c2 = (0.03 * 2)^2 (Wang et al. 2004).

    Only places whose window lies inside count. Raises SfumatoError for pictures smaller than the window.
    """
    _check(made, real)
    if min(made.shape[-2:]) < WINDOW:
        raise SfumatoError(f"SSIM needs pictures of at least {WINDOW}x{WINDOW} pixels, not {tuple(made.shape[-2:])}")
    a, b = (x.double().flatten(0, 1).unsqueeze(1) for x in (made, real))
    away = torch.arange(WINDOW, dtype=torch.float64) - WINDOW // 2
    kernel = torch.exp(-0.5 * (away / SIGMA).square())
    kernel = (kernel / kernel.sum()).reshape(1, 1, 1, WINDOW)

    def smooth(x: Tensor) -> Tensor:
        return functional.conv2d(functional.conv2d(x, kernel), kernel.transpose(-1, -2))

    mean_a, mean_b = smooth(a), smooth(b)
    spread_a, spread_b = smooth(a * a) - mean_a**2, smooth(b * b) - mean_b**2
    joint, c1, c2 = smooth(a * b) - mean_a * mean_b, 0.02**2, 0.06**2
    alike = (2 * mean_a * mean_b + c1) * (2 * joint + c2)
    alike = alike / ((mean_a**2 + mean_b**2 + c1) * (spread_a + spread_b + c2))
    return alike.reshape(*made.shape[:2], -1).mean((1, 2))


def feature_distance(features: Extractor, made: Tensor, real: Tensor) -> Tensor:
    """Half the mean squared difference of features whose variance is 1 on average, [N]: 0 for equal pictures, about 1 for
    unrelated ones."""
    _check(made, real)
    return (features(made) - features(real)).square().mean(1) / 2


def inconsistency(large: Tensor, small: Tensor) -> Tensor:
    """Mean |block means of `large` - `small`| in levels of 255, float64 [N]; `small` [N, C, H / f, W / f].

    Raises SfumatoError where the sides are no whole multiples.
    """
    factor = large.shape[-1] // max(1, small.shape[-1])
    if tuple(large.shape[-2:]) != tuple(side * factor for side in small.shape[-2:]):
        raise SfumatoError(f"{tuple(large.shape[-2:])} pixels are no multiple of {tuple(small.shape[-2:])}")
    below = Downsample(factor)(large.double())
    _check(below, small)
    return (below - small).abs().flatten(1).mean(1) * 127.5


def seam_ratio(made: Tensor, real: Tensor, region: Tensor) -> Interval:
    """Steps across the border of `region` (bool [N or 1, 1, H, W]) over those of the real pictures at the same places, with
    the 95 % interval of the delete-one jackknife over pictures.

    A step is |x(p) - x(q)| of neighbours p inside and q outside, along rows and columns, mean over channels; the ratio is
    of their sums. 1: no seam that can be measured; above 1: a visible edge; below 1: a smear. Windows are a region of
    stripes. Raises SfumatoError for fewer than 3 pictures, without a border, or when the real pictures are flat there.
    """
    _check(made, real)
    if len(made) < 3:
        raise SfumatoError(f"a seam is measured on at least 3 pictures, not {len(made)}")
    ours, theirs = _steps(made, region), _steps(real, region)
    if float(theirs.sum()) == 0:
        raise SfumatoError("the region has no border inside the pictures, or the real ones are flat there")
    ratio, n = float(ours.sum() / theirs.sum()), len(made)
    without = (ours.sum() - ours) / (theirs.sum() - theirs)
    half = student(n - 1) * float((without.var(correction=0) * (n - 1)).sqrt())
    return Interval(ratio, ratio - half, ratio + half)


def _steps(x: Tensor, region: Tensor) -> Tensor:
    """The sum of the steps across the region's border, float64 [N]."""
    region = region.bool()
    total = torch.zeros(len(x), dtype=torch.float64)
    for axis in (-1, -2):
        across = region.diff(dim=axis)  # of bools: where neighbours differ
        step = x.double().diff(dim=axis).abs().mean(1, keepdim=True)
        total += (step * across).flatten(1).sum(1)
    return total


def edge_f(found: Tensor, wanted: Tensor, tolerance: int = 1) -> Tensor:
    """F = 2 P R / (P + R) of line maps (bool [N, H, W] or [N, 1, H, W]), float64 [N]: P the share of found line pixels that
    have a wanted one within `tolerance` pixels (in rows and in columns), R the reverse.

    1 where both are empty, 0 where one is or nothing is near. Raises SfumatoError for maps that do not match.
    """
    if found.shape != wanted.shape:
        raise SfumatoError(f"line maps of {tuple(found.shape)} and {tuple(wanted.shape)} cannot be compared")
    a, b = (x.bool().reshape(len(x), 1, *x.shape[-2:]) for x in (found, wanted))

    def near(x: Tensor) -> Tensor:
        return functional.max_pool2d(x.float(), 2 * tolerance + 1, 1, tolerance) > 0

    def count(x: Tensor) -> Tensor:
        return x.flatten(1).sum(1).double()

    precision, recall = count(a & near(b)) / count(a), count(b & near(a)) / count(b)
    f = (2 * precision * recall / (precision + recall)).nan_to_num(0.0)
    return torch.where((count(a) == 0) & (count(b) == 0), 1.0, f)


def _check(made: Tensor, real: Tensor) -> None:
    if made.shape != real.shape or made.ndim != 4:
        raise SfumatoError(f"pictures of {tuple(made.shape)} and {tuple(real.shape)} cannot be compared one by one")
