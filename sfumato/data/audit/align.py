"""Whether two thumbnails show one picture: one registered on the other, then compared place by place."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

CLIPPED = (2.0, 253.0)  # levels beyond which a place says nothing of contrast
RIDGE = 25.0  # levels squared: contrasts below five levels are not stretched to fit
SHARP = (-1.5, 1.0)  # most that edges may be sharpened and softened
SOFTEN = 0.5  # pixels: blur of both before they are compared
MISPLACED = 0.1  # pixels: what registration may be off at a place, which shows at edges and is no changed detail
GREY = 4.0  # levels: a picture whose colours differ less from grey than this has none
FINE = ((1.0, 3), (0.6, 2))  # blur in pixels, Gauss-Newton steps
HOLD = 0.02  # of the contrast squared: what a step costs per unit of move


@dataclass(frozen=True)
class Match:
    """Per pair, tensors [P]; 0 in the first three is a perfect match. Levels are 0 ... 255."""

    shape: Tensor  # rms difference of the slightly blurred grey thumbnails, as a share of their contrast
    detail: Tensor  # greatest mean difference over 3x3 places of the grey thumbnails, beyond MISPLACED, levels
    mean: Tensor  # mean absolute difference over all places, levels: resampling leaves some everywhere
    colour: Tensor  # the same of the colours less their mean of red, green and blue; 0 where one picture has none
    overlap: Tensor  # share of the second picture that the first covers
    moved: Tensor  # farthest move of a corner, as a share of the side
    mirrored: Tensor  # bool
    gain: Tensor  # second = gain * first + offset
    offset: Tensor
    grey: Tensor  # bool [P, 2]: the picture has no colour


def blur(x: Tensor, sigma: float) -> Tensor:
    """Gaussian blur of float [P, C, H, W], edges repeated: a product from either side, for convolutions cost far more."""
    return _blurring(x.shape[2], sigma) @ (x @ _blurring(x.shape[3], sigma).T)


@lru_cache(maxsize=32)
def _blurring(side: int, sigma: float) -> Tensor:
    """The matrix [side, side] that blurs a column; what would come from beyond an end falls to its last value."""
    reach = max(1, round(2.5 * sigma))
    steps = torch.arange(-reach, reach + 1)
    kernel = torch.exp(-0.5 * (steps / sigma) ** 2)
    place = torch.arange(side)
    matrix = torch.zeros(side, side)
    for step, weight in zip(steps.tolist(), (kernel / kernel.sum()).tolist(), strict=True):
        matrix[place, (place + step).clamp(0, side - 1)] += weight
    return matrix


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


def _columns(second: Tensor) -> tuple[Tensor, Tensor]:
    """What a step is made of [P, 9, S * S]: six slopes, a place for what is seen, ones, the goal; and what holds it back
    [P, 8, 8]."""
    side = second.shape[-1]
    pad = F.pad(second, (1, 1, 1, 1), mode="replicate")
    across, down = pad[:, :, 1:-1, 2:] - pad[:, :, 1:-1, :-2], pad[:, :, 2:, 1:-1] - pad[:, :, :-2, 1:-1]
    grid = _grid(side) * (side / 4)  # per unit of -1 ... 1
    columns = torch.empty(len(second), 9, side * side)
    torch.mul(across.flatten(2), grid, out=columns[:, :3])
    torch.mul(down.flatten(2), grid, out=columns[:, 3:6])
    columns[:, 7] = 1.0
    columns[:, 8] = second.flatten(1)
    # held back where the picture is flat and says nothing of its place
    hold = torch.full((len(second), 8), 1e-2)
    hold[:, :6] = (second.flatten(1).var(1, keepdim=True) + 1.0) * side * side * HOLD
    return columns, torch.diag_embed(hold)


def _step(columns: Tensor, hold: Tensor, seen: Tensor, inside: Tensor, affine: Tensor) -> tuple[Tensor, Tensor]:
    """One Gauss-Newton step of affine so that goal = gain * first(affine(place)) + offset; and its answer [P, 8, 1].

    With the slope s of the second picture, gain * first(affine(place + d)) is gain * first(affine(place)) + s . d for a
    small affine move d(place): linear in (d, gain, offset), eight unknowns (Lucas and Kanade 1981; Baker and Matthews
    2004). `seen`: first(affine(place)) [P, 1, S, S]; `inside`: 1 at the places that count, else 0 [P, S * S].
    """
    columns[:, 6] = seen.flatten(1)
    sums = (columns[:, :8] * inside[:, None]) @ columns.transpose(1, 2)  # one product: those with a vector are slow
    answer = torch.linalg.solve(sums[:, :, :8] + hold, sums[:, :, 8:])
    move = torch.eye(3).repeat(len(affine), 1, 1)
    move[:, :2] += answer[:, :6, 0].reshape(-1, 2, 3).clamp(-0.12, 0.12)
    return affine @ move, answer


def register(
    seen: Tensor, first: Tensor, second: Tensor, affine: Tensor, limits: tuple[float, ...]
) -> tuple[Tensor, Tensor, Tensor]:
    """One step per limit from `seen`, first through affine; pairs that a step leaves too different go no further.

    What is left is foretold from the slopes: the greatest difference at a place beyond the mean one, in levels. Returns
    the numbers of the pairs that stay [K], their affine [K, 2, 3] and what the last step leaves [K].
    """
    kept, left, side = torch.arange(len(first)), torch.zeros(len(first)), first.shape[-1]
    for k, limit in enumerate(limits):
        if not len(kept):
            break
        if k:
            seen, _ = warp(first[kept], affine)
        else:
            columns, hold = _columns(second)
        inside = _inner(_within(affine, side, 1 - 1.5 / side), side)  # blurred from one side only at the rim of either
        affine, answer = _step(columns, hold, seen, inside, affine)
        told = (answer.transpose(1, 2) @ columns[:, :8])[:, 0]
        left = (columns[:, 8] - told).abs() * inside
        left = left.amax(1) - left.mean(1)
        good = left <= limit
        kept, affine, left = kept[good], affine[good], left[good]
        columns, hold = columns[good], hold[good]
    return kept, affine, left


def fine(first: Tensor, second: Tensor, affine: Tensor) -> Tensor:
    """A registration made exact at full size, from one that is near."""
    for sigma, n in FINE:
        a = blur(first, sigma)
        columns, hold = _columns(blur(second, sigma))
        for _ in range(n):
            seen, inside = warp(a, affine)
            affine, _ = _step(columns, hold, seen, inside.float(), affine)
    return affine


def _edge(x: Tensor) -> Tensor:
    """Blurred less itself: what a picture gains or loses when its sharpness changes."""
    return blur(x, 0.7) - x


def _slope(x: Tensor) -> Tensor:
    """Levels per pixel of float [P, 1, H, W], by central differences."""
    x = F.pad(x, (1, 1, 1, 1), mode="replicate")
    return torch.hypot(x[:, :, 1:-1, 2:] - x[:, :, 1:-1, :-2], x[:, :, 2:, 1:-1] - x[:, :, :-2, 1:-1]) / 2


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
    detail = (F.avg_pool2d(left, 3, 1).abs() - MISPLACED * F.avg_pool2d(_slope(expected), 3, 1)).flatten(1).amax(1)
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
