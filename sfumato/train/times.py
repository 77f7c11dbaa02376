"""Which noise levels training visits: quantile functions, so that a batch can be spread evenly over them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sfumato.core import Process


@dataclass(frozen=True)
class UniformTimes:
    """t uniform in [t_min, t_max]."""

    def quantile(self, u: Tensor, process: Process) -> Tensor:
        """Times [B] for u uniform in (0, 1)."""
        return process.t_min + u * (process.t_max - process.t_min)


@dataclass(frozen=True)
class LogNormalTimes:
    """log(sigma / alpha) ~ N(mean, std^2), for a Gaussian process.

    On rectified flow this is the logit-normal t of Esser et al. 2024; on EDM the log-normal sigma of Karras et al. 2022
    (mean -1.2, std 1.2).
    """

    mean: float = 0.0
    std: float = 1.0

    def quantile(self, u: Tensor, process: Process) -> Tensor:
        """Times [B] for u uniform in (0, 1)."""
        z = torch.special.ndtri(u.double().clamp(1e-6, 1 - 1e-6))
        t = process.t_of_log_snr(-2 * (self.mean + self.std * z))
        return t.clamp(max(process.t_min, 1e-5), process.t_max).float()


def stratified(u: Tensor) -> Tensor:
    """Uniform draws [B] moved into B equal strata, one each: the batch covers all levels, with less variance."""
    return (torch.arange(len(u)) + u) / len(u)
