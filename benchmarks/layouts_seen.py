"""What is seen in a picture asked for by boxes: the right thing in each box, nothing elsewhere, and where things stand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from sfumato.data.layout import Box
from sfumato.measure.judge import Judge

ROOM = 0.06  # of the judged picture's side, left free round a thing, as icons have it
EDGE = 2 / 64  # of a side: so near to a box belongs to it
UNLIKE = 24 / 127.5  # a place that differs from the ground by more, in any channel, shows something
ELSEWHERE = 0.01  # of the picture: less than that beside the boxes is no thing
EXTENT = 0.5  # of its box, at least, is spanned by what stands there
WINDOWS = (0.3, 0.42, 0.55)  # sides of the parts of a picture in which a thing is looked for
STEP = 1 / 12
APART = 0.1  # of a side: less than that is not beside, nor above


class Edges(NamedTuple):
    """Rows top to bottom and columns left to right, in pixels."""

    top: int
    left: int
    bottom: int
    right: int


def edges(box: Box, shape: tuple[int, int], more: float = 0.0) -> Edges:
    """A box on a picture of (height, width), wider by `more` of its sides; at least one pixel."""
    height, width = shape
    top, left = (max(0, min(n - 1, round((v - more) * n))) for v, n in ((box.y0, height), (box.x0, width)))
    bottom, right = (
        min(n, max(a + 1, round((v + more) * n))) for a, v, n in ((top, box.y1, height), (left, box.x1, width))
    )
    return Edges(top, left, bottom, right)


def ground(x: Tensor, boxes: Sequence[Box]) -> Tensor:
    """The ground of a picture x [C, H, W], [C, H, 1]: a run from above to below through the medians of the upper and of the
    lower half of what no box holds (of everything where boxes hold nearly all)."""
    height, width = x.shape[1:]
    free = torch.ones(height, width, dtype=torch.bool)
    for box in boxes:
        top, left, bottom, right = edges(box, (height, width), EDGE)
        free[top:bottom, left:right] = False
    ends = []
    for rows in (slice(0, height // 2), slice(height // 2, height)):
        here = free[rows] if free[rows].float().mean() > 0.02 else torch.ones_like(free[rows])
        y = torch.arange(height)[rows].reshape(-1, 1).expand(-1, width)[here].median()
        ends.append((float(y), x[:, rows][:, here].median(1).values))
    (y0, above), (y1, below) = ends
    share = ((torch.arange(height) - y0) / (y1 - y0)).clamp(-0.5, 1.5)
    return (above[:, None] + (below - above)[:, None] * share)[..., None]


def shown(x: Tensor, boxes: Sequence[Box]) -> Tensor:
    """Where x [C, H, W] shows something other than its ground, bool [H, W]."""
    return (x - ground(x, boxes)).abs().amax(0) > UNLIKE


def crops(x: Tensor, boxes: Sequence[Box], shape: tuple[int, int]) -> Tensor:
    """What stands in each box of x [C, H, W], [boxes, C, *shape]: proportions kept, in the middle of the picture's own ground."""
    height, width = shape
    middle, parts = ground(x, boxes).mean(1)[..., None], []
    for box in boxes:
        top, left, bottom, right = edges(box, (x.shape[1], x.shape[2]))
        scale = (1 - 2 * ROOM) * min(height / (bottom - top), width / (right - left))
        size = [max(1, round(scale * n)) for n in (bottom - top, right - left)]
        part = functional.interpolate(x[None, :, top:bottom, left:right], size, mode="bilinear", antialias=True)[0]
        page = middle.expand(-1, height, width).clone()
        down, across = (height - size[0]) // 2, (width - size[1]) // 2
        page[:, down : down + size[0], across : across + size[1]] = part
        parts.append(page)
    return torch.stack(parts)


def found(
    judge: Judge,
    pool: Sequence[str],
    x: Tensor,
    boxes: Sequence[Sequence[Box]],
    own: Sequence[Sequence[str]],
    among: int,
) -> Tensor:
    """Whether the judge finds what each box asks for: its `own` words first among `among` of `pool`, bool [boxes in all]."""
    parts = torch.cat([crops(one, row, judge.spec[1:]) for one, row in zip(x, boxes, strict=True)])
    return judge.first(parts, [word for row in own for word in row], pool, among)


def counted(x: Tensor, boxes: Sequence[Box]) -> bool:
    """Whether x [C, H, W] shows something in every box, as large as the box asks, and nothing elsewhere."""
    seen = shown(x, boxes)
    beside = seen.clone()
    for box in boxes:
        top, left, bottom, right = edges(box, (x.shape[1], x.shape[2]), EDGE)
        beside[top:bottom, left:right] = False
    return float(beside.float().mean()) <= ELSEWHERE and all(_extent(seen, box) >= EXTENT for box in boxes)


def _extent(seen: Tensor, box: Box) -> float:
    """The share of a box that is spanned by what is seen in it."""
    top, left, bottom, right = edges(box, (seen.shape[0], seen.shape[1]))
    part = seen[top:bottom, left:right]
    rows, columns = part.any(1).nonzero(), part.any(0).nonzero()
    if not len(rows):
        return 0.0
    return float((rows[-1] - rows[0] + 1) * (columns[-1] - columns[0] + 1)) / part.numel()


def located(judge: Judge, x: Tensor, pairs: Sequence[tuple[str, str]]) -> Tensor:
    """Where the two things of each picture stand, centres (x, y) in 0 ... 1, [N, 2, 2]: of all square parts of the picture
    the one that shows the one thing rather than the other."""
    side = min(x.shape[2:])
    places = []
    for one, (first, second) in zip(x, pairs, strict=True):
        parts, centres = [], []
        for share in WINDOWS:
            window, step = round(share * side), max(1, round(STEP * side))
            cut = one.unfold(1, window, step).unfold(2, window, step)
            rows, columns = cut.shape[1:3]
            cut = cut.permute(1, 2, 0, 3, 4).flatten(0, 1)
            parts.append(functional.interpolate(cut, judge.spec[1:], mode="bilinear", antialias=True))
            y, across = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
            middle = torch.stack([across.flatten(), y.flatten()], 1) * step + window / 2
            centres.append(middle / torch.tensor([one.shape[2], one.shape[1]]))
        likeness = judge.pictures(torch.cat(parts)) @ judge.texts([first, second]).T
        more = likeness[:, 0] - likeness[:, 1]
        places.append(torch.cat(centres)[torch.stack([more.argmax(), more.argmin()])])
    return torch.stack(places)


def stands(boxes: Sequence[Box]) -> tuple[int, int]:
    """How the first of two boxes stands to the second: the axis along which they differ more (0 across, 1 down), and the
    sign of the difference."""
    (x, y), (x2, y2) = (((b.x0 + b.x1) / 2, (b.y0 + b.y1) / 2) for b in boxes)
    return (0, 1 if x > x2 else -1) if abs(x - x2) >= abs(y - y2) else (1, 1 if y > y2 else -1)


def standing(places: Tensor, asked: Sequence[tuple[int, int]]) -> Tensor:
    """Whether things at `places` [N, 2, 2] stand as asked (see `stands`), bool [N]; nearer than APART counts as no."""
    axis, sign = (torch.tensor(values) for values in zip(*asked, strict=True))
    apart = (places[:, 0] - places[:, 1]).gather(1, axis[:, None])[:, 0]
    return apart * sign >= APART
