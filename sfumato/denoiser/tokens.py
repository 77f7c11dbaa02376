"""Condition tokens as networks read them: without the padding, which at captions of all lengths is most of a batch."""

from __future__ import annotations

from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

WORTH = 0.8  # samples are read in two groups where that leaves at most this share of the work
BESIDE = 64  # keys that are read beside the tokens, about: the places of the picture


class Group(NamedTuple):
    """Samples of a batch that are read together, int64 [b]; which rows of `Tokens` are theirs, int64 [T_b]; where these
    stand in the flattened [b, n]; and the mask, bool [b, n], n the most tokens that one of them has."""

    samples: Tensor
    rows: Tensor
    where: Tensor
    mask: Tensor

    def padded(self, values: Tensor) -> Tensor:
        """One value for each row of all tokens, [T, D] -> [b, n, D], zero where there is no token."""
        flat = values.new_zeros(self.mask.numel(), values.shape[-1])
        return flat.index_copy(0, self.where, values[self.rows]).unflatten(0, self.mask.shape)


class Tokens:
    """The tokens of a batch: `rows` [T, width], every one that is there; `sample` int64 [T], whose it is; of `batch` many.

    What is done to each token alone is done to `rows`, and only the result is padded. With `there` (bool [T]) the rows are
    padded already, so that the work does not depend on how many are there, and are read as one group.
    """

    def __init__(self, rows: Tensor, sample: Tensor, batch: int, there: Tensor | None = None) -> None:
        self.rows, self.sample, self.batch, self.there = rows, sample, batch, there

    @cached_property
    def count(self) -> Tensor:
        """Tokens of each sample, int64 [B]."""
        return torch.bincount(self.sample, minlength=self.batch)

    @cached_property
    def whole(self) -> Group:
        """All samples as one group, in their order."""
        return self._group(torch.arange(self.batch, device=self.sample.device))

    @cached_property
    def groups(self) -> list[Group]:
        """All samples as one group, or those of few tokens and those of many where one long caption pads the rest."""
        counts, order = self.count.sort(stable=True)
        first = torch.arange(1, self.batch + 1, device=order.device)
        work = first * (BESIDE + counts) + (self.batch - first) * (BESIDE + counts[-1])
        cut = int(work.argmin()) + 1
        if self.there is not None or cut == self.batch or work[cut - 1] > WORTH * work[-1]:
            return [self.whole]
        return [self._group(order[:cut]), self._group(order[cut:])]

    def _group(self, samples: Tensor) -> Group:
        number = torch.full((self.batch,), -1, device=samples.device).index_copy(
            0, samples, torch.arange(len(samples), device=samples.device)
        )
        owner, by_sample = number[self.sample].sort(stable=True)
        rows, owner = by_sample[owner >= 0], owner[owner >= 0]
        counts = self.count[samples]
        starts = counts.cumsum(0) - counts
        place = torch.arange(len(rows), device=rows.device) - starts[owner]
        longest = int(counts.max())
        mask, where = torch.arange(longest, device=rows.device) < counts.unsqueeze(1), owner * longest + place
        if self.there is not None:
            mask = mask.flatten().index_copy(0, where, self.there[rows]).unflatten(0, mask.shape)
        return Group(samples, rows, where, mask)
