"""Network + process + parameterisation -> Posterior: the only place where a network meets diffusion."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from sfumato.core import Cond, Posterior, Time, expand
from sfumato.denoiser.parameterisation import Parameterisation
from sfumato.denoiser.steady import steadily
from sfumato.forward import GaussianProcess

EMPTY = Cond()


def noise_level(process: GaussianProcess, t: Tensor) -> Tensor:
    """What a network is told of t: log(sigma / alpha) / 4, clamped to [-3, 3] (Karras et al. 2022's c_noise for any process)."""
    return (process.log_snr(t) / -8).clamp(-3.0, 3.0)


class Denoiser(nn.Module):
    """(x_t, t, cond) -> Gaussian belief about x0.

    The network gets the input scaled to unit variance, c_in = 1 / sqrt(alpha^2 sigma_data^2 + sigma^2), and the noise
    level; it may run in half precision (`precision`), all else is float32; `channels_last` lays pictures out in memory;
    `steady` asks the network in calls of one form, so that row k is the same to the last bit in any batch.

    Args: `net(x, level, cond) -> y` with y shaped like x; `sigma_data` the standard deviation of the encoded data.
    """

    def __init__(
        self, net: nn.Module, process: GaussianProcess, parameterisation: Parameterisation, sigma_data: float = 0.5
    ) -> None:
        super().__init__()
        self.net, self.process, self.parameterisation, self.sigma_data = net, process, parameterisation, sigma_data
        self.precision: torch.dtype | None = None
        self.channels_last = False
        self.steady = False

    def plain(self) -> Denoiser:
        """The same network in calls of any form: faster for many pictures, and the same but for rounding."""
        other = copy.copy(self)
        other.steady = False
        return other

    def forward(self, x_t: Tensor, t: Time, cond: Cond = EMPTY) -> Posterior:
        """Belief at time t: a float for all samples, or [B] per sample."""
        if self.channels_last and x_t.ndim == 4:
            x_t = x_t.to(memory_format=torch.channels_last)
        alpha, sigma = self.process.alpha_sigma(t)
        c_in = (alpha**2 * self.sigma_data**2 + sigma**2) ** -0.5
        times = torch.full(x_t.shape[:1], t, device=x_t.device, dtype=torch.float64) if isinstance(t, float) else t
        level = noise_level(self.process, times).float()
        with torch.autocast(x_t.device.type, self.precision or torch.bfloat16, enabled=self.precision is not None):
            x_in = expand(c_in, x_t) * x_t
            y = steadily(self.net, x_in, level, cond) if self.steady else self.net(x_in, level, cond)
        x0 = self.parameterisation.x0(x_t, y.float(), alpha, sigma)
        return self.process.posterior(x_t, t, x0)


class CategoricalDenoiser(nn.Module):
    """(x_t, t, cond) -> categorical belief: the network reads one-hot states and answers with logits per class.

    Args: `net(x, level, cond) -> logits`, x [B, states, ...], logits [B, classes, ...]; level = log-odds of being fallen / 4.
    """

    def __init__(self, net: nn.Module, process) -> None:  # Absorbing | Uniform
        super().__init__()
        self.net, self.process = net, process
        self.precision: torch.dtype | None = None

    def forward(self, x_t: Tensor, t: Time, cond: Cond = EMPTY) -> Posterior:
        """Belief at time t (float or [B]); x_t int64 [B, ...] in 0 ... states-1."""
        times = torch.full(x_t.shape[:1], t, device=x_t.device) if isinstance(t, float) else t
        kept = torch.as_tensor(self.process.alpha(times))
        level = (
            (torch.log((1 - kept).clamp_min(1e-6)) - torch.log(kept.clamp_min(1e-6))).div(4).clamp(-3.0, 3.0).float()
        )
        states = nn.functional.one_hot(x_t, self.process.states).movedim(-1, 1).float()
        with torch.autocast(x_t.device.type, self.precision or torch.bfloat16, enabled=self.precision is not None):
            logits = self.net(states, level, cond)
        return self.process.posterior(x_t, t, logits.float())
