"""Network calls of one form, so that a picture is the same to the last bit alone and among any others.

Matrix products of torch differ in their last bit with the number of rows and of words (other kernels are chosen), and a
few steps of sampling turn that into other pixels. Here every call has ROWS rows and words padded to a length that depends
on the row itself alone; which rows share a call then changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from sfumato.core import TOKENS, Cond, Slot

ROWS = 4  # of one call: about as fast per row as longer calls are, and the four pictures that people ask for
SHORTEST = 8  # words; longer rows are padded to the next power of two


class Net(Protocol):
    """A network; asked `even`, the work on a row is the same whatever of its conditions is masked."""

    def __call__(self, x: Tensor, level: Tensor, cond: Cond, even: bool = False) -> Tensor: ...


@dataclass(frozen=True)
class Call:
    """What a network is asked at once: x [B, ...], level [B], conditions of B rows."""

    x: Tensor
    level: Tensor
    cond: Cond


def answers(net: Net, calls: Sequence[Call]) -> list[Tensor]:
    """net(x, level, cond) of every call, their rows dealt to even calls of ROWS rows; no row depends on another one's company.

    The shape of a row decides with which others it may be: its picture, its conditions, its number of words. A call that
    is not full is filled up with its last row again.
    """
    found: list[list[Tensor | None]] = [[None] * len(call.x) for call in calls]
    alike: dict[tuple, list[tuple[int, int]]] = {}
    lengths = [{name: _lengths(slot) for name, slot in call.cond.items()} for call in calls]
    for c, call in enumerate(calls):
        for row in range(len(call.x)):
            slots = ((n, s.role, s.value.shape[2:], s.value.dtype, lengths[c][n][row]) for n, s in call.cond.items())
            alike.setdefault((call.x.shape[1:], *sorted(slots, key=lambda told: told[0])), []).append((c, row))
    for places in alike.values():
        for first in range(0, len(places), ROWS):
            some = places[first : first + ROWS]
            y = net(*_together(calls, [*some, *some[-1:] * (ROWS - len(some))], lengths), even=True)
            for (c, row), one in zip(some, y, strict=False):
                found[c][row] = one
    return [torch.stack(rows) if rows else call.x for rows, call in zip(found, calls, strict=True)]


def steadily(net: Net, x: Tensor, level: Tensor, cond: Cond) -> Tensor:
    """net(x, level, cond), bit for bit the same whatever else is asked."""
    return answers(net, [Call(x, level, cond)])[0]


def _lengths(slot: Slot) -> list[int]:
    """How many words each row of a slot of tokens is padded to; 0 for other slots.

    Masked words count as well (their values are still there): a row and its absent twin, as guidance asks for them, may
    then share a call.
    """
    if slot.role not in TOKENS:
        return [0] * len(slot.value)
    said = slot.present() | (slot.value != 0).flatten(2).any(-1)
    place = torch.arange(1, said.shape[1] + 1, device=said.device)
    last = (said * place).amax(1) if said.shape[1] else torch.zeros(len(said))
    return [max(SHORTEST, 1 << (int(n) - 1).bit_length()) if n > 1 else SHORTEST for n in last.tolist()]


def _together(
    calls: Sequence[Call], places: Sequence[tuple[int, int]], lengths: Sequence[dict[str, list[int]]]
) -> tuple[Tensor, Tensor, Cond]:
    x = torch.stack([calls[c].x[row] for c, row in places])
    level = torch.stack([calls[c].level[row] for c, row in places])
    first = places[0][0]
    cond = {}
    for name, slot in calls[first].cond.items():
        n = lengths[first][name][places[0][1]]
        values = [calls[c].cond[name].value[row] for c, row in places]
        masks = [calls[c].cond[name].present()[row] for c, row in places]
        if slot.role in TOKENS:
            values, masks = [_fitted(v, n) for v in values], [_fitted(m, n) for m in masks]
        cond[name] = Slot(torch.stack(values), slot.role, torch.stack(masks))
    return x, level, Cond(cond)


def _fitted(tokens: Tensor, n: int) -> Tensor:
    if len(tokens) >= n:
        return tokens[:n]
    return torch.cat([tokens, tokens.new_zeros(n - len(tokens), *tokens.shape[1:])])
