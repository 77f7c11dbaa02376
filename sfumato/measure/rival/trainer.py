"""The loop that every rival shares: shaped like `sfumato.train.Trainer`, and checkpointed and resumed as that is."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.func import functional_call

from sfumato.core import Noise
from sfumato.data import Source
from sfumato.data.balance import order_of
from sfumato.measure.rival.recipe import RivalRecipe
from sfumato.train import Budget, Diverged, PowerEMA, Progress, Setting, load_weights
from sfumato.train.loop import EMA_EVERY, load_moments, moments
from sfumato.train.machine import seconds_of

CHUNK = 64  # pictures per network call when drawing, as for diffusion


class RivalTrainer:
    """Networks, optimisers, the average of the network that is shipped, and the position of one run.

    `nets` maps names to networks; "generator" is the one that is shipped. A subclass makes one update of them per step
    and returns its losses and other figures, whose means since last asked for are `figures()`.
    """

    losses: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self,
        recipe: RivalRecipe,
        source: Source,
        budget: Budget,
        setting: Setting,
        nets: dict[str, nn.Module],
    ) -> None:
        self.recipe, self.source, self.budget, self.setting, self.nets = recipe, source, budget, setting, nets
        for net in nets.values():
            setting.apply(net)
        self.generator = nets["generator"]
        self.weights = {f"{who}.{k}": p for who, net in nets.items() for k, p in net.named_parameters()}
        self.optimisers = self._optimisers()
        for optimiser in self.optimisers:
            for group in optimiser.param_groups:
                group["peak"] = group["lr"]
        self.ema = PowerEMA(dict(self.generator.named_parameters()), (recipe.width,))
        self.order = order_of(source, recipe.batch, recipe.seed)
        self.step, self.seconds = 0, 0.0
        self.sums: dict[str, list[float]] = {}  # total and number of each figure

    def _optimisers(self) -> list[torch.optim.Optimizer]:
        raise NotImplementedError

    def _update(self, x: Tensor, noise: Noise) -> dict[str, float]:
        """One update by the real pictures x [B, C, H, W] in [-1, 1]; its figures."""
        raise NotImplementedError

    @property
    def share(self) -> float:
        """How much of the budget is spent, 0 ... 1."""
        done = self.step / self.budget.steps if self.budget.steps else self.seconds / self.budget.seconds
        return min(1.0, done)

    def autocast(self) -> torch.autocast:
        half = self.setting.precision
        return torch.autocast("cpu", half or torch.bfloat16, enabled=half is not None)

    def latent(self, noise: Noise) -> Tensor:
        """z [B, z], standard normal."""
        return noise.normal((len(noise.seeds), self.recipe.z))

    def steps(self) -> Iterator[Progress]:
        """Train until the budget is spent, yielding after every step; safe to abandon after any yield."""
        batch = self.recipe.batch
        while self.share < 1.0:
            began = self.budget.clock()
            rows = self.source.train_index[self.order.at(self.step)]
            self.source.expect(self.source.train_index[self.order.at(self.step + 1)])
            down = (1 - self.share) / self.recipe.decay if self.recipe.decay > 0 else 1.0
            factor = min(1.0, (self.step + 1) / max(1, self.recipe.warmup)) * min(1.0, down)
            for optimiser in self.optimisers:
                for group in optimiser.param_groups:
                    group["lr"] = group["peak"] * factor
            x = self.setting.lay(self.source.batch(rows).x0)
            figures = self._update(x, Noise.of(self.recipe.seed, batch).at(self.step))
            bad = next((name for name, value in figures.items() if not math.isfinite(value)), None)
            if bad is not None:
                raise Diverged(f"training stopped at step {self.step + 1}: {bad} is not finite")
            self.step += 1
            if self.step % EMA_EVERY == 0 or self.step < EMA_EVERY:
                own = dict(self.generator.named_parameters())
                self.ema.update(own, self.step, EMA_EVERY if self.step >= EMA_EVERY else 1)
            for name, value in figures.items():
                total, counted = self.sums.get(name, (0.0, 0))
                self.sums[name] = [total + value, counted + 1]
            self.seconds += self.budget.clock() - began
            yield Progress(self.step, self.share, self.seconds, self.step * batch, figures[self.losses[0]])

    def figures(self) -> dict[str, float]:
        """Means since they were last asked for."""
        means = {name: total / counted for name, (total, counted) in self.sums.items()}
        self.sums = {}
        return means

    @torch.no_grad()
    def sample(self, n: int, seed: int) -> Tensor:
        """n pictures [n, C, H, W] in [-1, 1] from the averaged weights; picture k of a seed is the same whatever n."""
        parts = []
        for first in range(0, n, CHUNK):
            z = self.latent(Noise.of(seed, min(CHUNK, n - first), first))
            with self.autocast():
                drawn = functional_call(self.generator, self.ema.averages[0], (z,))
            parts.append(self.picture(drawn.float()))
        return torch.cat(parts)

    def picture(self, drawn: Tensor) -> Tensor:
        """What the generator says as pictures in [-1, 1]."""
        return drawn.clamp(-1, 1).contiguous()

    def state(self) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
        """Everything a resumed run needs: tensors by file, and the position."""
        optimiser = moments(self.weights, self.optimisers)
        files = {"weights": self.weights, "ema": self.ema.state(), "optimiser": optimiser}
        return files, {"step": self.step, "seconds": self.seconds, "sums": self.sums}

    def load(self, files: dict[str, dict[str, Tensor]], state: dict[str, Any]) -> None:
        """Go on where `state()` was taken; raises SfumatoError when the weights are another model's."""
        load_weights(nn.ModuleDict(self.nets), files["weights"])
        self.ema.load(files["ema"])
        load_moments(self.weights, self.optimisers, files["optimiser"])
        self.step, self.seconds = int(state["step"]), float(state["seconds"])
        self.sums = dict(state["sums"])


def fastest(make: Callable[[Setting], RivalTrainer], steps: int, seconds: float = 0.5) -> Setting:
    """The setting in which `steps` steps of a rival are fastest here, as diffusion's is chosen by its own steps."""
    took = {}
    for setting in (Setting(p, c) for p in (None, torch.bfloat16) for c in (False, True)):
        trained = make(setting).steps()
        took[setting] = seconds_of(lambda t=trained: deque(islice(t, steps), maxlen=0) and None, seconds / 4, 1)
    return min(took, key=took.__getitem__)
