"""The training loop: one for every model. A generator, so progress, previews and stopping cost nothing.

All randomness is a function of (seed, step): data order, times, noise, dropout. A resumed run is the same run.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from sfumato.core import Batch, Noise, SfumatoError
from sfumato.data import Source
from sfumato.denoiser import Denoiser
from sfumato.train.ema import PowerEMA
from sfumato.train.finite import Diverged, first_non_finite
from sfumato.train.machine import Setting
from sfumato.train.objective import Objective
from sfumato.train.recipe import Recipe
from sfumato.train.times import stratified

EMA_EVERY = 4  # steps between updates of the averages: they are 1,000 steps wide, and each update reads all weights


@dataclass(frozen=True)
class Budget:
    """When training ends: after `steps`, or after `seconds` of `clock` spent in training steps."""

    steps: int | None = None
    seconds: float | None = None
    clock: Callable[[], float] = time.perf_counter

    def __post_init__(self) -> None:
        if (self.steps is None) == (self.seconds is None):
            raise SfumatoError("give either a number of steps or a time to train for")
        if (self.steps is not None and self.steps < 1) or (self.seconds is not None and not self.seconds > 0):
            raise SfumatoError(
                f"nothing to train: the budget is {self.steps or 0} steps, {self.seconds or 0} s; raise it"
            )
        if self.seconds == math.inf:
            raise SfumatoError("a budget without end: the rate falls towards it, so give a number of minutes or steps")


@dataclass(frozen=True)
class Progress:
    """After one step: `step` done, `share` of the budget spent (0 ... 1), training `seconds`, `images` seen, `loss`."""

    step: int
    share: float
    seconds: float
    images: int
    loss: float


class Trainer:
    """Denoiser, optimiser, averages and position of one run; `steps()` trains, `state()` and `load()` carry it over.

    `objective`: what is minimised, where it holds more than the recipe can tell (a teacher).
    """

    def __init__(
        self,
        denoiser: Denoiser,
        recipe: Recipe,
        source: Source,
        budget: Budget,
        setting: Setting,
        objective: Objective | None = None,
    ) -> None:
        self.denoiser, self.recipe, self.source, self.budget, self.setting = denoiser, recipe, source, budget, setting
        self.objective = recipe.objective if objective is None else objective
        setting.apply(denoiser)
        self.weights = dict(denoiser.named_parameters())
        if recipe.compile:
            denoiser.net.compile()
        self.optimisers = recipe.optimiser.build(self.weights)
        self.ema = PowerEMA(self.weights, recipe.ema.widths)
        self.order = recipe.order(source)
        self.step, self.seconds, self.averaged = 0, 0.0, 0
        self.loss_sum, self.loss_steps = 0.0, 0

    @property
    def share(self) -> float:
        """How much of the budget is spent, 0 ... 1."""
        done = self.step / self.budget.steps if self.budget.steps else self.seconds / self.budget.seconds
        return min(1.0, done)

    def look(self, rows: Tensor) -> Batch:
        """Rows of the source as this network sees them."""
        return self.recipe.look(self.source, rows)

    def batch(self, step: int) -> tuple[Batch, Noise]:
        """The batch of a step (from 0), augmented and with conditions dropped, and its noise."""
        noise = Noise.of(self.recipe.seed, self.recipe.batch).at(step)
        return self.recipe.look(self.source, self.source.train_index[self.order.at(step)], noise), noise

    def losses(self, batch: Batch, u: Tensor, noise: Noise, share: float = 1.0) -> Tensor:
        """Loss per sample [B] at the quantiles u [B] of the recipe's times, as it is when `share` of the budget is spent."""
        t = self.recipe.times.quantile(u, self.recipe.process)
        return self.objective.losses(self.denoiser, batch, t, noise, share)

    def steps(self) -> Iterator[Progress]:
        """Train until the budget is spent, yielding after every step; safe to abandon after any yield."""
        recipe = self.recipe
        micro = recipe.batch // recipe.accumulate
        self.denoiser.train()
        while self.share < 1.0:
            began = self.budget.clock()
            batch, noise = self.batch(self.step)
            following = self.order.at(self.step + 1)
            self.source.expect(self.source.train_index[following])  # read while this step is computed
            u = stratified(noise.at(1).uniform((recipe.batch,)))
            eps_noise = noise.at(2)
            total = 0.0
            for first in range(0, recipe.batch, micro):
                rows = slice(first, first + micro)
                part = Noise(eps_noise.seeds[rows])
                loss = self.losses(batch.take(rows), u[rows], part, self.share).mean() / recipe.accumulate
                loss.backward()
                total += loss.item()
            norm = get_total_norm([p.grad for p in self.weights.values() if p.grad is not None])
            if not (total == total and abs(total) != float("inf") and norm.isfinite()):
                raise Diverged(
                    f"training stopped at step {self.step + 1}: {first_non_finite(self, batch, u, eps_noise)}; "
                    "the last checkpoint is good; if it happens again after --resume, train anew at a lower rate "
                    "(--set optimiser.rate=...)"
                )
            clip_grads_with_norm_(self.weights.values(), recipe.optimiser.clip, norm)
            factor = recipe.optimiser.factor(self.step, self.share)
            for optimiser in self.optimisers:
                for group in optimiser.param_groups:
                    group["lr"] = group["peak"] * factor
                optimiser.step()
                optimiser.zero_grad(set_to_none=True)
            self.step += 1
            if self.step % EMA_EVERY == 0 or self.step < EMA_EVERY:
                self._average()
            self.loss_sum, self.loss_steps = self.loss_sum + total, self.loss_steps + 1
            self.seconds += self.budget.clock() - began
            if self.share >= 1.0 and self.step > self.averaged:
                self._average()  # the last steps of a run are its best
            yield Progress(self.step, self.share, self.seconds, self.step * recipe.batch, total)

    def _average(self) -> None:
        self.ema.update(self.weights, self.step, self.step - self.averaged)
        self.averaged = self.step

    def mean_loss(self) -> float:
        """Mean loss over the steps since it was last asked for."""
        mean = self.loss_sum / max(1, self.loss_steps)
        self.loss_sum, self.loss_steps = 0.0, 0
        return mean

    def state(self) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
        """Everything a resumed run needs: tensors by file, and the position."""
        files = {"weights": self.weights, "ema": self.ema.state(), "optimiser": moments(self.weights, self.optimisers)}
        position = {
            "step": self.step,
            "averaged": self.averaged,
            "seconds": self.seconds,
            "loss_sum": self.loss_sum,
            "loss_steps": self.loss_steps,
        }
        return files, position

    def load(self, files: dict[str, dict[str, Tensor]], state: dict[str, Any]) -> None:
        """Go on where `state()` was taken; raises SfumatoError when the weights are another model's."""
        load_weights(self.denoiser, files["weights"])
        self.ema.load(files["ema"])
        load_moments(self.weights, self.optimisers, files["optimiser"])
        self.step, self.seconds = int(state["step"]), float(state["seconds"])
        self.averaged = int(state.get("averaged", self.step - self.step % EMA_EVERY))  # of a run of an earlier version
        self.loss_sum, self.loss_steps = float(state["loss_sum"]), int(state["loss_steps"])


def moments(weights: dict[str, Tensor], optimisers: list[torch.optim.Optimizer]) -> dict[str, Tensor]:
    """What the optimisers of these named weights remember, by "weight/moment"."""
    names = {p: name for name, p in weights.items()}
    return {
        f"{names[p]}/{key}": value
        for optimiser in optimisers
        for p, state in optimiser.state.items()
        for key, value in state.items()
    }


def load_moments(weights: dict[str, Tensor], optimisers: list[torch.optim.Optimizer], kept: dict[str, Tensor]) -> None:
    """Give the optimisers what `moments` took from them."""
    for optimiser in optimisers:
        optimiser.state.clear()
    owners = {p: optimiser for optimiser in optimisers for g in optimiser.param_groups for p in g["params"]}
    for key, value in kept.items():
        name, _, moment = key.rpartition("/")
        p = weights[name]
        # moments lie in memory as their weights do, or the fused update would be another one
        laid = torch.empty_like(p).copy_(value) if value.shape == p.shape else value.clone()
        owners[p].state.setdefault(p, {})[moment] = laid


def load_weights(denoiser: nn.Module, weights: dict[str, Tensor]) -> None:
    """Copy named weights into the denoiser; SfumatoError names the first that does not fit, and nothing is copied."""
    own = dict(denoiser.named_parameters())
    for name in sorted(own.keys() ^ weights.keys()):
        side = "lack" if name in own else "have an unknown"
        raise SfumatoError(f"these weights are another model's: they {side} {name!r}")
    for name, p in own.items():
        if p.shape != weights[name].shape:
            raise SfumatoError(
                f"these weights are another model's: {name} is {tuple(weights[name].shape)}, expected {tuple(p.shape)}"
            )
    for name, p in own.items():
        p.data.copy_(weights[name])
