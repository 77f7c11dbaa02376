"""A set of many modes built from the data, and how many of them a model makes (stacked MNIST: Metz et al. 2017, arXiv
1611.02163; Srivastava et al. 2017, arXiv 1705.07761).

Three grey pictures of the source stand in the three colour channels of one, so k classes make k^3 modes of equal right.
A classifier of the grey source reads each channel.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sfumato.core import SfumatoError
from sfumato.data import Source
from sfumato.measure.features import Features

MOST = 20_000  # stacked pictures
CLASSES = 10  # at most: a thousand modes
PER_MODE = 5  # pictures drawn for each mode: a perfect model covers 99.3 % of them
LUMINANCE = np.array([0.299, 0.587, 0.114])


def grey(source: Source) -> Source:
    """The labelled pictures' source in grey; SfumatoError without two classes."""
    if source.labels is None or len(source.labels[source.labels >= 0].unique()) < 2:
        raise SfumatoError(f"modes are counted by classes: {source.name} has none, leave --modes away")
    if source.codec.spec[0] == 1:
        return source
    parts = [
        (source.images(rows) @ LUMINANCE).round().astype(np.uint8)[..., None]
        for rows in torch.arange(len(source)).split(1024)
    ]
    return replace(source, name=f"{source.name} in grey", pixels=np.concatenate(parts))


def kinds_of(source: Source) -> Tensor:
    """The classes that modes are made of, int64 [k] ascending: the 10 with most training pictures."""
    labels = source.labels[source.train_index]
    counts = torch.bincount(labels[labels >= 0])
    order = counts.argsort(descending=True, stable=True)[:CLASSES]
    return order[counts[order] > 0].sort().values


def stack(source: Source, kinds: Tensor, seed: int = 0) -> Source:
    """Pictures of three of the grey source's training pictures each, every mode as often as any other to within one.

    uint8 [N, H, W, 3], at most 20,000, without classes; the source's held-out pictures are in none.
    """
    labels = source.labels[source.train_index]
    generator = torch.Generator().manual_seed(seed)
    n = min(MOST, max(len(labels), PER_MODE * len(kinds) ** 3))
    mode = (torch.arange(n) % len(kinds) ** 3)[torch.randperm(n, generator=generator)]
    channels = []
    for place in range(3):
        wanted = kinds[mode // len(kinds) ** place % len(kinds)]
        chosen = torch.empty(n, dtype=torch.int64)
        for kind in kinds.tolist():
            of, where = source.train_index[labels == kind], (wanted == kind).nonzero()[:, 0]
            chosen[where] = of[torch.randint(len(of), (len(where),), generator=generator)]
        channels.append(np.concatenate([source.images(part) for part in chosen.split(1024)]))
    keys = tuple(f"stacked-{k}" for k in range(n))
    return Source(f"{source.name}, stacked", np.concatenate(channels, axis=3), keys)


def classifier(features: Features, classes: int) -> Callable[[Tensor], Tensor]:
    """Pictures [B, 1, H, W] -> the class the extractor's own training head sees in each, int64 [B]."""

    @torch.no_grad()
    def classify(x: Tensor) -> Tensor:
        return torch.cat([features.net(part.float())[:, :classes].argmax(1) for part in x.split(500)])

    return classify


def count_modes(x: Tensor, classify: Callable[[Tensor], Tensor], kinds: Tensor) -> dict[str, Any]:
    """Modes among pictures x [N, 3, H, W], and KL(their frequencies || uniform) in nats.

    kinds: the classes that stacked pictures were made of; a channel of another class counts as none, and its picture as
    outside all modes. A KL of 0 is every mode alike, log(modes) all pictures in one; None when all are outside. Raises
    SfumatoError without pictures.
    """
    if not len(x):
        raise SfumatoError("there are no pictures to count modes in")
    place = torch.full((int(kinds.max()) + 1,), -1)
    place[kinds] = torch.arange(len(kinds))
    total = len(kinds) ** 3
    mode = torch.zeros(len(x), dtype=torch.int64)
    outside = torch.zeros(len(x), dtype=torch.bool)
    for channel in range(3):
        seen = classify(x[:, channel : channel + 1])
        seen = torch.where(seen < len(place), place[seen.clamp_max(len(place) - 1)], -1)
        outside |= seen < 0
        mode += seen.clamp_min(0) * len(kinds) ** channel
    counts = torch.bincount(mode[~outside], minlength=total).double()
    share = counts / counts.sum().clamp_min(1)
    kl = (share[share > 0] * (share[share > 0] * total).log()).sum()
    return {
        "modes": int((counts > 0).sum()),
        "of": total,
        "kl": float(kl) if counts.sum() else None,
        "outside": int(outside.sum()),
        "n": len(x),
    }
