"""Things in their places without training: every box is believed in as a picture of its own, with its own words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sfumato.core import Cond, Denoise, Posterior, SfumatoError, Slot, Time
from sfumato.guide.windows import ramp
from sfumato.guide.wrap import Guide, Guided

SOFT = 2  # pixels over which a box passes into what is behind it


@dataclass(frozen=True)
class Part:
    """Pixels `top` ... `bottom`, `left` ... `right` (the ends not included), and what is said of them alone: conditions of
    one row, for all pictures."""

    top: int
    left: int
    bottom: int
    right: int
    cond: Cond


def regions(parts: Sequence[Part], multiple: int = 1) -> Guide:
    """lin = (1 - w) lin_behind + w lin_part within each part in turn, the first at the back; w is 1 but for soft edges.

    A part's belief is asked of its own pixels of x_t alone (its sides raised to multiples of `multiple`, within the
    picture), which are to the network a smaller picture, so that a whole thing stands in each (regions by mask, as in
    MultiDiffusion, Bar-Tal et al. 2023, would show the part of a larger one). What a part does not say holds as it does for
    the whole, maps cut to it; words in places are of the whole alone. Cost: one call more for each part. Raises SfumatoError
    for parts outside of the picture.
    """

    def guide(denoise: Denoise) -> Denoise:
        def believe(x_t: Tensor, t: Time, cond: Cond) -> Posterior:
            belief = denoise(x_t, t, cond)
            lin = belief.lin.clone()
            height, width = x_t.shape[-2:]
            for part in parts:
                if not (0 <= part.top < part.bottom <= height and 0 <= part.left < part.right <= width):
                    raise SfumatoError(
                        f"a part of rows {part.top} to {part.bottom} and columns {part.left} to {part.right} does not lie in "
                        f"a picture of {width}x{height}"
                    )
                top, bottom = _raised(part.top, part.bottom, height, multiple)
                left, right = _raised(part.left, part.right, width, multiple)
                told = {n: _cut(s, top, bottom, left, right) for n, s in cond.items() if s.role != "placed"}
                own = part.cond.take(torch.zeros(len(x_t), dtype=torch.int64))
                inner = denoise(x_t[..., top:bottom, left:right], t, Cond(told) | own).lin
                rows, columns = slice(part.top, part.bottom), slice(part.left, part.right)
                inner = inner[..., part.top - top : part.bottom - top, part.left - left : part.right - left]
                w = ramp(part.bottom - part.top, SOFT).unsqueeze(1) * ramp(part.right - part.left, SOFT)
                lin[..., rows, columns] = torch.lerp(lin[..., rows, columns], inner, w.to(lin))
            return belief.with_lin(lin)

        return Guided(denoise.process, believe)

    return guide


def _cut(slot: Slot, top: int, bottom: int, left: int, right: int) -> Slot:
    """A condition as a part of the picture sees it."""
    if slot.role not in ("map", "frames"):
        return slot
    return Slot(slot.value[..., top:bottom, left:right], slot.role, slot.mask)


def _raised(first: int, last: int, size: int, multiple: int) -> tuple[int, int]:
    """The range widened to a multiple, around its middle but within 0 ... size (itself a multiple)."""
    length = -(-(last - first) // multiple) * multiple
    start = min(max(0, (first + last - length) // 2), size - length)
    return start, start + length
