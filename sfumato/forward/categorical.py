"""Categorical forward processes for tiles and tokens: siblings of the Gaussian ones, the same four methods.

x0 holds class numbers 0 ... classes-1 (int64 [B, ...]); a belief's `lin` holds logits [B, classes, ...].
Each entry keeps its class with probability alpha(t) and otherwise falls to the prior: the mask state (absorbing) or a
uniform class (Austin et al. 2021, "Structured denoising diffusion models in discrete state-spaces").
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from sfumato.core import Noise, Posterior, Time, expand


@dataclass(frozen=True)
class CategoricalPosterior:
    """Belief about the class behind every entry: logits `lin` [B, classes, ...] given x_t [B, ...]."""

    x_t: Tensor
    t: Time
    lin: Tensor

    @property
    def probabilities(self) -> Tensor:
        """softmax of the logits, [B, classes, ...]."""
        return self.lin.softmax(1)

    @property
    def x0(self) -> Tensor:
        """The likeliest class of every entry."""
        return self.lin.argmax(1)

    def with_lin(self, lin: Tensor) -> CategoricalPosterior:
        return CategoricalPosterior(self.x_t, self.t, lin)

    def observe(self, known: Tensor, y: Tensor) -> CategoricalPosterior:
        """The belief, made certain of class `y` where `known`."""
        certain = torch.full_like(self.lin, -math.inf).scatter(1, y.unsqueeze(1), 0.0)
        return self.with_lin(torch.where(known.bool().unsqueeze(1), certain, self.lin))

    def draw(self, noise: Noise) -> Tensor:
        """A class per entry, drawn from the belief (Gumbel-max)."""
        return (self.lin.log_softmax(1) + gumbel(self.lin.shape, noise, self.lin.device)).argmax(1)


def gumbel(shape: Sequence[int], noise: Noise, device: torch.device | str) -> Tensor:
    """Standard Gumbel noise."""
    return -torch.log(-torch.log(noise.uniform(shape, device).clamp(1e-20, 1 - 1e-7)))


@dataclass(frozen=True)
class _Categorical:
    classes: int
    schedule: Literal["linear", "cosine"] = "linear"

    linear = False
    t_min = 0.0
    t_max = 1.0

    def alpha(self, t: Time) -> Time:
        """Probability that an entry still shows its class: 1 - t, or cos(pi t / 2)."""
        if self.schedule == "linear":
            return 1.0 - t
        return math.cos(0.5 * math.pi * t) if isinstance(t, float) else torch.cos(0.5 * math.pi * t)

    def _fallen(self, shape: Sequence[int], noise: Noise, device: torch.device | str) -> Tensor:
        raise NotImplementedError

    def prior(self, shape: Sequence[int], noise: Noise) -> Tensor:
        """Where sampling begins: every entry fallen."""
        return self._fallen(shape, noise, "cpu")

    def corrupt(self, x0: Tensor, t: Time, noise: Noise) -> Tensor:
        """A draw of q(x_t | x0)."""
        return self._mixed(x0, self.alpha(t), noise)

    def renoise(self, x: Tensor, s: Time, t: Time, noise: Noise) -> Tensor:
        """A draw of q(x_t | x_s), s <= t."""
        return self._mixed(x, self.alpha(t) / self.alpha(s), noise)

    def _mixed(self, x: Tensor, keep: Time, noise: Noise) -> Tensor:
        stays = noise.uniform(x.shape, x.device) < expand(keep, x)
        return torch.where(stays, x, self._fallen(x.shape, noise, x.device))

    def posterior(self, x_t: Tensor, t: Time, lin: Tensor) -> CategoricalPosterior:
        """The belief whose logits are `lin`."""
        return CategoricalPosterior(x_t, t, lin)


@dataclass(frozen=True)
class Absorbing(_Categorical):
    """Masked diffusion: a fallen entry shows the mask state, number `classes` (Sahoo et al. 2024; Shi et al. 2024)."""

    @property
    def mask(self) -> int:
        return self.classes

    @property
    def states(self) -> int:
        """How many values an entry of x_t can take."""
        return self.classes + 1

    def _fallen(self, shape: Sequence[int], noise: Noise, device: torch.device | str) -> Tensor:
        return torch.full(tuple(shape), self.mask, dtype=torch.int64, device=device)

    def bridge(self, x_t: Tensor, t: Time, s: Time, posterior: Posterior, noise: Noise) -> Tensor:
        """A draw of q(x_s | x_t, x0 ~ posterior): a masked entry appears with probability (alpha_s - alpha_t) / (1 - alpha_t)."""
        shown = (self.alpha(s) - self.alpha(t)) / (1 - self.alpha(t))
        reveal = (x_t == self.mask) & (noise.uniform(x_t.shape, x_t.device) < expand(shown, x_t))
        return torch.where(reveal, posterior.draw(noise), x_t)


@dataclass(frozen=True)
class Uniform(_Categorical):
    """Uniform diffusion: a fallen entry shows a class at random (Hoogeboom et al. 2021, "Multinomial diffusion")."""

    @property
    def states(self) -> int:
        return self.classes

    def _fallen(self, shape: Sequence[int], noise: Noise, device: torch.device | str) -> Tensor:
        return (noise.uniform(shape, device) * self.classes).long().clamp_max(self.classes - 1)

    def bridge(self, x_t: Tensor, t: Time, s: Time, posterior: Posterior, noise: Noise) -> Tensor:
        """A draw of q(x_s | x_t, x0 ~ posterior), x0 drawn first: q(x_s | x_t, x0) ~ q(x_t | x_s) q(x_s | x0)."""
        x0 = posterior.draw(noise)
        alpha_s, ratio = self.alpha(s), self.alpha(t) / self.alpha(s)
        alpha_s, ratio = expand(alpha_s, posterior.lin), expand(ratio, posterior.lin)
        one_hot = lambda x: torch.zeros_like(posterior.lin).scatter(1, x.unsqueeze(1), 1.0)  # noqa: E731
        likelihood = ratio * one_hot(x_t) + (1 - ratio) / self.classes
        belief = alpha_s * one_hot(x0) + (1 - alpha_s) / self.classes
        logits = (likelihood * belief).log()
        return (logits + gumbel(logits.shape, noise, logits.device)).argmax(1)
