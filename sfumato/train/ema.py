"""Power-function averages of the weights, whose width can be chosen after training (Karras et al. 2024, section 3)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sfumato.core import SfumatoError


@dataclass(frozen=True)
class EMAConfig:
    """`widths`: relative widths sigma_rel of the averages kept while training; `width`: the one that samples are drawn
    with by default; `snapshots`: how many are stored over a run for choosing any other width afterwards."""

    widths: tuple[float, ...] = (0.05, 0.1)
    width: float = 0.1
    snapshots: int = 8

    def __post_init__(self) -> None:
        for width in (*self.widths, self.width):
            exponent(width)
        if not self.widths or self.snapshots < 1:
            raise SfumatoError("ema needs at least one of widths to track, and 1 snapshot or more")


def exponent(width: float) -> float:
    """gamma of the profile t^gamma whose standard deviation is `width` times its length (eq. 126)."""
    if not 0 < width < 0.28:
        raise SfumatoError(f"an average's relative width lies between 0 and 0.28, not {width}")
    roots = np.roots([1, 7, 16 - width**-2, 12 - width**-2])
    return float(max(roots.real))


class PowerEMA:
    """Averages of named float tensors: after step n, avg = beta avg + (1 - beta) w with beta = (1 - 1/n)^(gamma + 1)."""

    def __init__(self, weights: dict[str, Tensor], widths: tuple[float, ...]) -> None:
        self.widths = widths
        self.averages = [{k: v.detach().clone() for k, v in weights.items()} for _ in widths]

    @torch.no_grad()
    def update(self, weights: dict[str, Tensor], step: int, every: int = 1) -> None:
        """Take in the weights after `step` steps; `every` steps have passed since the last update."""
        for width, average in zip(self.widths, self.averages, strict=True):
            beta = max(0.0, 1 - every / step) ** (exponent(width) + 1)
            torch._foreach_lerp_(list(average.values()), [weights[k].detach() for k in average], 1 - beta)

    def state(self) -> dict[str, Tensor]:
        return {f"{width:g}/{k}": v for width, a in zip(self.widths, self.averages, strict=True) for k, v in a.items()}

    def load(self, state: dict[str, Tensor]) -> None:
        for width, average in zip(self.widths, self.averages, strict=True):
            for k, v in average.items():
                v.copy_(state[f"{width:g}/{k}"])


@dataclass(frozen=True)
class Snapshot:
    """Averages stored after `step` steps: `load(width)` gives the named tensors of one of its `widths`."""

    step: int
    states: dict[float, dict[str, Tensor]]


def combine(snapshots: list[Snapshot], width: float, step: int) -> dict[str, Tensor]:
    """The average of any `width` at `step`, as the least-squares combination of stored ones (algorithm 3 of the paper).

    The profiles are p(t) = (gamma + 1) t^gamma / T^(gamma + 1) on [0, T]; the weights w solve A w = b of their inner
    products, held to a sum of one, so that few snapshots blur the average but never scale the network's weights.
    """
    basis = [(s.step, exponent(w), tensors) for s in snapshots for w, tensors in s.states.items() if s.step <= step]
    if not basis:
        raise SfumatoError("this run holds no stored averages yet: train on until its first snapshot")
    t, g = np.array([b[0] for b in basis], float), np.array([b[1] for b in basis])
    gram = _inner(t[:, None], g[:, None], t[None], g[None])
    target = _inner(t, g, float(step), exponent(width))
    scale, n = gram.max(), len(basis)
    system = np.block([[gram / scale, np.ones((n, 1))], [np.ones((1, n)), np.zeros((1, 1))]])
    weights = np.linalg.lstsq(system, np.append(target / scale, 1.0), rcond=1e-10)[0][:n]
    total: dict[str, Tensor] = {}
    for w, (_, _, tensors) in zip(weights, basis, strict=True):
        for k, v in tensors.items():
            total[k] = total[k] + float(w) * v.double() if k in total else float(w) * v.double()
    return {k: v.float() for k, v in total.items()}


def _inner(t_a, gamma_a, t_b, gamma_b):
    """Integral of the product of two profiles."""
    shared = np.minimum(t_a, t_b)
    ratio = (shared / t_a) ** gamma_a * (shared / t_b) ** gamma_b / np.maximum(t_a, t_b)
    return (gamma_a + 1) * (gamma_b + 1) / (gamma_a + gamma_b + 1) * ratio
