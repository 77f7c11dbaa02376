"""Whether two thumbnails show one picture: one registered on the other, then compared place by place."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

CLIPPED = (2.0, 253.0)  # levels beyond which a place says nothing of contrast
RIDGE = 25.0  # levels squared: contrasts below five levels are not stretched to fit
SHARP = (-1.5, 1.0)  # most that edges may be sharpened and softened
SOFTEN = 0.5  # pixels: blur of both before they are compared
GREY = 4.0  # levels: a picture whose colours differ less from grey than this has none
COARSE, FINE = (1.0, 4), ((1.0, 3), (0.6, 2))  # (blur in pixels, Gauss-Newton steps) at half and at full size


@dataclass(frozen=True)
class Match:
    """Per pair, tensors [P]; 0 in the first three is a perfect match. Levels are 0 ... 255."""

    shape: Tensor  # rms difference of the slightly blurred grey thumbnails, as a share of their contrast
    detail: Tensor  # greatest mean difference over 3x3 places of the grey thumbnails, levels
    mean: Tensor  # mean absolute difference over all places, levels: resampling leaves some everywhere
    colour: Tensor  # the same of the colours less their mean of red, green and blue; 0 where one picture has none
    overlap: Tensor  # share of the second picture that the first covers
    moved: Tensor  # farthest move of a corner, as a share of the side
    mirrored: Tensor  # bool
    gain: Tensor  # second = gain * first + offset
    offset: Tensor
    grey: Tensor  # bool [P, 2]: the picture has no colour


def blur(x: Tensor, sigma: float) -> Tensor:
    """Gaussian blur of float [P, C, H, W], edges repeated."""
    reach = max(1, round(2.5 * sigma))
    steps = torch.arange(-reach, reach + 1, dtype=x.dtype)
    kernel = torch.exp(-0.5 * (steps / sigma) ** 2)
    kernel = (kernel / kernel.sum()).expand(x.shape[1], 1, -1)
    x = F.pad(x, (reach,) * 4, mode="replicate")
    x = F.conv2d(x, kernel[:, :, None, :], groups=x.shape[1])
    return F.conv2d(x, kernel[:, :, :, None], groups=x.shape[1])


def _grid(side: int) -> Tensor:
    """Pixel centres (x, y, 1), x and y in -1 ... 1, float [3, side * side]."""
    axis = (2 * torch.arange(side) + 1) / side - 1
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    return torch.stack([x, y, torch.ones_like(x)]).reshape(3, -1)


def warp(x: Tensor, affine: Tensor) -> tuple[Tensor, Tensor]:
    """x [P, C, H, H] seen through affine [P, 2, 3], and where that lies inside x, bool [P, H * H]."""
    side = x.shape[-1]
    places = affine @ _grid(side)
    grid = places.transpose(1, 2).reshape(-1, side, side, 2)
    return F.grid_sample(x, grid, padding_mode="border", align_corners=False), (places.abs() <= 1).all(1)


def _steps(first: Tensor, second: Tensor, affine: Tensor, n: int) -> Tensor:
    """n Gauss-Newton steps of affine so that second = gain * first(affine(place)) + offset, in least squares.

    With second's slope s, gain * first(affine(place + d)) is gain * first(affine(place)) + s . d for a small affine
    move d(place): linear in (gain, offset, d), eight unknowns (Lucas and Kanade 1981; Baker and Matthews 2004).
    """
    side = second.shape[-1]
    pad = F.pad(second, (1, 1, 1, 1), mode="replicate")
    across, down = pad[:, :, 1:-1, 2:] - pad[:, :, 1:-1, :-2], pad[:, :, 2:, 1:-1] - pad[:, :, :-2, 1:-1]
    grid = _grid(side)
    slopes = torch.cat([across.flatten(2) * grid, down.flatten(2) * grid], 1) * (side / 4)  # per unit of -1 ... 1
    goal = second.flatten(1)
    # held back where the picture is flat and says nothing of its place
    hold = torch.zeros(len(goal), 8) + 1e-2
    hold[:, :6] = (goal.var(1, keepdim=True) + 1.0) * side * side * 0.02
    for _ in range(n):
        seen, inside = warp(first, affine)
        seen = seen.flatten(2)
        columns = torch.cat([slopes, seen, torch.ones_like(seen)], 1)
        weighed = columns * inside[:, None]
        normal = weighed @ columns.transpose(1, 2) + torch.diag_embed(hold)
        answer = torch.linalg.solve(normal, weighed @ goal[:, :, None])[:, :6, 0].reshape(-1, 2, 3)
        move = torch.eye(3).repeat(len(goal), 1, 1)
        move[:, :2] += answer.clamp(-0.12, 0.12)
        affine = affine @ move
    return affine


def coarse(first: Tensor, second: Tensor, affine: Tensor) -> tuple[Tensor, Tensor]:
    """A first registration at half size, and the difference it leaves, as a share of the contrast [P]."""
    a, b = (blur(F.avg_pool2d(x, 2), COARSE[0]) for x in (first, second))
    affine = _steps(a, b, affine, COARSE[1])
    seen, inside = warp(a, affine)
    expected, _, _ = _like(seen, b, inside)
    return affine, _rms((expected - b).flatten(1), b.flatten(1), inside.float())


def fine(first: Tensor, second: Tensor, affine: Tensor) -> Tensor:
    """A registration made exact at full size, from one that is near."""
    for sigma, n in FINE:
        affine = _steps(blur(first, sigma), blur(second, sigma), affine, n)
    return affine


def _edge(x: Tensor) -> Tensor:
    """Blurred less itself: what a picture gains or loses when its sharpness changes."""
    return blur(x, 0.7) - x


def _like(seen: Tensor, second: Tensor, inside: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """`seen` in the light and the sharpness of `second`: gain * seen + sharp * _edge(seen) + offset; gain; offset.

    A picture that was made smaller or larger comes back softer or sharper: without the second term that counts as a
    difference at every edge. Least squares over places that are not clipped.
    """
    a, b, e = seen.flatten(1), second.flatten(1), _edge(seen).flatten(1)
    low, high = CLIPPED
    used = (inside & (b > low) & (b < high) & (a > low) & (a < high)).float()
    n = used.sum(1, keepdim=True).clamp_min(1)
    means = [(x * used).sum(1, keepdim=True) / n for x in (a, e, b)]
    a0, e0, b0 = ((x - m) * used for x, m in zip((a, e, b), means, strict=True))
    ridge = RIDGE * n[:, 0]
    aa, ee, ae = (a0 * a0).sum(1) + ridge, (e0 * e0).sum(1) + ridge / 4, (a0 * e0).sum(1)
    ab, eb = (a0 * b0).sum(1) + ridge, (e0 * b0).sum(1)  # drawn towards gain 1, sharp 0
    det = aa * ee - ae * ae
    gain, sharp = (ab * ee - eb * ae) / det, ((eb * aa - ab * ae) / det).clamp(*SHARP)
    gain = (ab - sharp * ae) / aa
    offset = means[2][:, 0] - gain * means[0][:, 0] - sharp * means[1][:, 0]
    told = gain[:, None] * a + sharp[:, None] * e + offset[:, None]
    return told.clamp(0, 255).reshape(seen.shape), gain, offset


def _rms(left: Tensor, second: Tensor, mask: Tensor) -> Tensor:
    """Root mean square of what is left [P, S * S], as a share of the contrast (at least 8 levels)."""
    count = mask.sum(1).clamp_min(1)
    mean = (second * mask).sum(1, keepdim=True) / count[:, None]
    contrast = (((second - mean) ** 2 * mask).sum(1) / count).sqrt().clamp_min(8.0)
    return ((left**2 * mask).sum(1) / count).sqrt() / contrast


def _within(affine: Tensor, side: int, reach: float) -> Tensor:
    """Where affine leads no farther from the middle than `reach`, bool [P, side * side]."""
    return ((affine @ _grid(side)).abs() <= reach).all(1)


def _inner(mask: Tensor, side: int) -> Tensor:
    """The mask without the outermost ring, whose pixels were resampled from one side only; float."""
    rim = F.pad(torch.ones(side - 2, side - 2), (1, 1, 1, 1)).flatten()
    return mask.float() * rim


def compare(first: Tensor, second: Tensor, colours: tuple[Tensor, Tensor], affine: Tensor) -> Match:
    """Lay `first` on `second` (float [P, 1, S, S], colours [P, 3, s, s], levels) and measure what is left.

    A changed detail leaves a patch of one sign, resampling leaves signs that alternate along edges: places of 3x3 are
    averaged before the greatest is taken.
    """
    first, second = blur(first, SOFTEN), blur(second, SOFTEN)
    seen, inside = warp(first, affine)
    side = first.shape[-1]
    expected, gain, offset = _like(seen, second, inside)
    mask = _inner(inside & _within(affine, side, 1 - 1.5 / side), side)
    left = (expected - second) * mask.reshape(-1, 1, side, side)
    shape = _rms(left.flatten(1), second.flatten(1), mask)
    detail = F.avg_pool2d(left, 3, 1).abs().flatten(1).amax(1)
    mean = left.abs().flatten(1).sum(1) / mask.sum(1).clamp_min(1)
    chroma = [c - c.mean(1, keepdim=True) for c in colours]
    grey = torch.stack([c.abs().flatten(1).amax(1) < GREY for c in chroma], 1)
    tint, covered = warp(chroma[0], affine)
    small = tint.shape[-1]
    covered = _inner(covered & _within(affine, small, 1 - 1.5 / small), small).reshape(-1, 1, small, small)
    edge = _edge(tint) * covered
    off = (gain[:, None, None, None] * tint - chroma[1]) * covered
    sharp = -(off * edge).flatten(1).sum(1) / (edge.square().flatten(1).sum(1) + RIDGE)
    off = off + sharp.clamp(*SHARP)[:, None, None, None] * edge
    colour = F.avg_pool2d(off, 3, 1).abs().flatten(1).amax(1) * ~grey.any(1)
    mirrored = affine[:, 0, 0] < 0
    upright = torch.cat([torch.where(mirrored, -1.0, 1.0)[:, None, None] * affine[:, :1], affine[:, 1:]], 1)
    corners = torch.tensor([[-1.0, 1.0, -1.0, 1.0], [-1.0, -1.0, 1.0, 1.0], [1.0, 1.0, 1.0, 1.0]])
    moved = (upright @ corners - corners[:2]).abs().amax((1, 2)) / 2
    return Match(shape, detail, mean, colour, inside.float().mean(1), moved, mirrored, gain, offset, grey)
