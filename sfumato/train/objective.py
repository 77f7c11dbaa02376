"""What training minimises: a function of belief and truth, whatever the network predicts."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from sfumato.core import Batch, Denoise, Noise, Posterior, SfumatoError, expand
from sfumato.denoiser import X0, EDMTarget, Eps, Flow, V
from sfumato.forward import Absorbing, CategoricalPosterior, GaussianPosterior, GaussianProcess, Uniform


class Objective(Protocol):
    """A loss per sample [B] of clean data at times t [B], its noise, and the share of training done (0 ... 1).

    `passes`: the work of a step, in passes forward and back."""

    @property
    def passes(self) -> float: ...
    def losses(self, denoise: Denoise, batch: Batch, t: Tensor, noise: Noise, share: float) -> Tensor: ...


class _OfBelief:
    """A loss that asks the denoiser once, and compares its belief with the truth."""

    passes = 1.0

    def __call__(self, posterior: Posterior, x0: Tensor) -> Tensor:
        raise NotImplementedError

    def losses(self, denoise: Denoise, batch: Batch, t: Tensor, noise: Noise, share: float) -> Tensor:
        """The loss of the belief at data corrupted to t; the same all through training."""
        x_t = denoise.process.corrupt(batch.x0, t, noise)
        return self(denoise(x_t, t, batch.cond), batch.x0)


@dataclass(frozen=True)
class MinSNR:
    """min(gamma / SNR, 1): Hang et al. 2023's weight when the loss space is eps."""

    gamma: float = 5.0

    def __call__(self, alpha: Tensor, sigma: Tensor) -> Tensor:
        return (self.gamma * (sigma / alpha) ** 2).clamp_max(1.0)


@dataclass(frozen=True)
class SquaredError(_OfBelief):
    """Mean squared error in the space of `space`: w(t) |x0_hat - x0|^2 with w = ((alpha b - sigma a) / sigma)^2.

    sigma is held above `floor` in the weight, so that x0-predictions are not asked for infinite precision
    (Li & He 2025, "Back to basics", use 0.05). `weighting` multiplies on top.
    """

    space: X0 | Eps | V | Flow | EDMTarget = Flow()
    weighting: MinSNR | None = None
    floor: float = 0.05

    def __call__(self, posterior: Posterior, x0: Tensor) -> Tensor:
        """Loss per sample [B]."""
        assert isinstance(posterior, GaussianPosterior)
        alpha, sigma = posterior.process.alpha_sigma(posterior.t)
        weight = self.space.x0_weight(alpha, sigma.clamp_min(self.floor))
        if self.weighting is not None:
            weight = weight * self.weighting(alpha, sigma)
        return weight * (posterior.lin - x0).square().flatten(1).mean(1)


@dataclass(frozen=True)
class CrossEntropy(_OfBelief):
    """Mean -log p(x0 | x_t) over the entries that hide their class: the masked ones (Sahoo et al. 2024), or all of them
    where a fallen entry cannot be told from a true one (uniform; Austin et al. 2021, eq. 5's auxiliary term)."""

    process: Absorbing | Uniform

    def __call__(self, posterior: Posterior, x0: Tensor) -> Tensor:
        """Loss per sample [B]."""
        assert isinstance(posterior, CategoricalPosterior)
        loss = F.cross_entropy(posterior.lin, x0, reduction="none").flatten(1)
        if isinstance(self.process, Uniform):
            return loss.mean(1)
        hidden = (posterior.x_t == self.process.mask).flatten(1).to(loss.dtype)
        return (loss * hidden).sum(1) / hidden.sum(1).clamp_min(1)


@dataclass(frozen=True)
class Consistency:
    """The belief becomes the end of the path: f(x_t, t) should equal f(x_r, r), r a little nearer to the data on the same
    path, f the network's x0 (consistency models, Song et al. 2023), tuned as in "easy consistency tuning" (Geng et al.
    2024): no second network, no derivative of it.

    In u = sigma / alpha: u_r = u_t max(0, 1 - n(u_t) / 2^k), n(u) = 1 + 8 sigmoid(-u), and k rises from 1 to `stages` as
    training goes on; where u_r = 0 the target is the data. x_r has the noise of x_t, or lies where the belief of a teacher
    moves x_t (`Taught`). The parameterisation must make f(x, t_min) = x of itself and stay bounded in pure noise: Flow, V and
    EDMTarget do, X0 lacks the first and Eps the second. Loss: sqrt(w d^2 + c^2) - c, d^2 the mean squared difference, w the
    weight of `space` as in SquaredError, c = `huber`: nearly a norm, which far-off samples do not rule.

    `guidance`: the teacher's (1: no teacher but the data). Its validation loss is that of the last stage: it says whether
    the network agrees with itself, not whether pictures are good.
    """

    space: X0 | Eps | V | Flow | EDMTarget = Flow()
    guidance: float = 1.0
    stages: int = 6
    huber: float = 0.01
    floor: float = 0.05

    def __post_init__(self) -> None:
        if self.stages < 1 or not self.huber > 0 or not math.isfinite(self.guidance):
            raise SfumatoError("consistency tuning needs at least 1 of stages, huber above 0 and a finite guidance")

    @property
    def passes(self) -> float:
        """A pass back costs two forward; the target is one more, a guided teacher two."""
        return (4 if self.guidance == 1.0 else 6) / 3

    def earlier(self, process: GaussianProcess, t: Tensor, share: float) -> Tensor:
        """r [B] for t [B], t_min where the target is the data."""
        u = torch.exp(-0.5 * process.log_snr(t.double()))
        stage = 1 + min(int(share * self.stages), self.stages - 1)
        u_r = u * (1 - (1 + 8 * torch.sigmoid(-u)) / 2**stage)
        r = process.t_of_log_snr(-2 * u_r.clamp_min(1e-12).log())
        return torch.where(u_r > 0, r, process.t_min).clamp_min(process.t_min).to(t.dtype)

    def losses(
        self, denoise: Denoise, batch: Batch, t: Tensor, noise: Noise, share: float, teacher: Denoise | None = None
    ) -> Tensor:
        """Loss per sample [B]."""
        process, x0 = denoise.process, batch.x0
        x_t = process.corrupt(x0, t, noise)
        r = self.earlier(process, t, share)
        alpha_t, sigma_t = (expand(v, x0) for v in process.alpha_sigma(t))
        alpha_r, sigma_r = (expand(v, x0) for v in process.alpha_sigma(r))
        with torch.no_grad():
            towards = x0 if teacher is None else teacher(x_t, t, batch.cond).x0
            x_r = alpha_r * towards + sigma_r * (x_t - alpha_t * towards) / sigma_t
            at_data = expand(r <= process.t_min, x0)
            # where the target is the data the network is asked at t all the same: sigma(t_min) may be 0
            asked = torch.where(r <= process.t_min, t, r)
            target = torch.where(at_data, towards, denoise(torch.where(at_data, x_t, x_r), asked, batch.cond).x0)
        weight = self.space.x0_weight(*process.alpha_sigma(t)[:1], process.alpha_sigma(t)[1].clamp_min(self.floor))
        away = weight * (denoise(x_t, t, batch.cond).x0 - target).square().flatten(1).mean(1)
        return (away + self.huber**2).sqrt() - self.huber


@dataclass(frozen=True)
class Taught:
    """Consistency on the paths of a teacher, a frozen denoiser with any guide round it: what it guides is distilled."""

    objective: Consistency
    teacher: Denoise

    @property
    def passes(self) -> float:
        return self.objective.passes

    def losses(self, denoise: Denoise, batch: Batch, t: Tensor, noise: Noise, share: float) -> Tensor:
        """Loss per sample [B]."""
        return self.objective.losses(denoise, batch, t, noise, share, self.teacher)
