"""Unmasking: how many entries to show is counted, which ones is chosen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from sfumato.core import Denoise, Noise, SfumatoError
from sfumato.forward import gumbel


@dataclass(frozen=True)
class Unmask:
    """Of the masked entries of each sample, show all but the share (1 - alpha_s) / (1 - alpha_t), each drawn from its
    belief.

    by = "confidence": the entries whose drawn class is likeliest first, log p + temperature (1 - alpha_s) Gumbel
    (MaskGIT, Chang et al. 2022, section 3.2). by = "random": in random order, which draws the exact joint when the
    grid has at least as many moves as a sample has entries and the belief is exact (any-order autoregression;
    Hoogeboom et al. 2022).

    Args: `temperature` at least 0, of the choice of entries, not of the classes.
    """

    by: Literal["confidence", "random"] = "confidence"
    temperature: float = 1.0
    needs = "masked"
    order = 0

    def __post_init__(self) -> None:
        if self.by not in ("confidence", "random"):
            raise SfumatoError(f'Unmask goes by "confidence" or "random", not "{self.by}"')

    def init(self) -> None:
        return None

    def step(self, denoise: Denoise, x: Tensor, t: float, s: float, state: None, noise: Noise) -> tuple[Tensor, None]:
        process, belief = denoise.process, denoise(x, t)
        drawn = belief.draw(noise.at(0))
        if self.by == "random":
            score = noise.at(1).uniform(x.shape, x.device)
        else:
            score = belief.lin.log_softmax(1).gather(1, drawn.unsqueeze(1)).squeeze(1)
            if self.temperature:
                fallen = 1 - process.alpha(s)
                score = score + self.temperature * fallen * gumbel(x.shape, noise.at(1), x.device)
        masked = (x == process.mask).flatten(1)
        score = score.flatten(1).masked_fill(~masked, -torch.inf)
        count = masked.sum(1)
        stays = torch.round(count * ((1 - process.alpha(s)) / (1 - process.alpha(t)))).long()
        rank = score.argsort(1, descending=True).argsort(1)
        show = (rank < (count - stays).unsqueeze(1)) & masked
        return torch.where(show.reshape(x.shape), drawn, x), None
