"""What a run will cost, said before its first step."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

from torch import Tensor

from sfumato.core import SfumatoError
from sfumato.data import Source
from sfumato.denoiser import Denoiser
from sfumato.train.loop import Budget
from sfumato.train.machine import Setting, available_memory, probe, saved_bytes
from sfumato.train.recipe import Recipe


@dataclass(frozen=True)
class Plan:
    """Parameters, bytes by kind, seconds per step as probed, and what that means for the budget."""

    parameters: int
    state_bytes: int
    activation_bytes: int
    data_bytes: int
    available_bytes: int
    seconds_per_step: float
    steps: int
    epochs: float
    setting: Setting
    probed: dict[str, float]
    accumulate: int

    @property
    def seconds(self) -> float:
        """Of the whole training, as planned."""
        return self.steps * self.seconds_per_step

    def lines(self) -> list[str]:
        """The plan in words."""
        mb = 1e6
        need = (self.state_bytes + self.activation_bytes + self.data_bytes) / mb
        split = f" in {self.accumulate} micro-batches" if self.accumulate > 1 else ""
        return [
            f"model: {self.parameters / 1e6:.2f} M parameters, run in {self.setting}",
            f"memory: about {need:,.0f} MB (weights, gradients, moments and averages {self.state_bytes / mb:,.0f}, "
            f"activations {self.activation_bytes / mb:,.0f}, pictures {self.data_bytes / mb:,.0f}) "
            f"of {self.available_bytes / mb:,.0f} MB free{split}",
            f"time: about {1 / self.seconds_per_step:.1f} steps/s, so {self.steps:,} steps "
            f"({self.epochs:.1f} passes over the pictures) in {self.seconds / 60:.1f} min",
        ]


def make_plan(denoiser: Denoiser, recipe: Recipe, source: Source, budget: Budget) -> tuple[Plan, Recipe]:
    """Probe the machine with the recipe's own batch; when memory would not do, the batch is cut into micro-batches.

    Of several picture shapes the largest is probed. Returns the plan and the recipe with its `accumulate` settled;
    SfumatoError when not even one picture at a time fits.
    """
    rows = _largest(source)[: recipe.batch]
    batch = recipe.look(source, rows.repeat(-(-recipe.batch // len(rows)))[: recipe.batch])
    parameters = sum(p.numel() for p in denoiser.parameters())
    state = parameters * 4 * (2 + len(recipe.ema.widths)) + recipe.optimiser.moment_bytes(
        dict(denoiser.named_parameters())
    )
    free = available_memory()
    one = saved_bytes(denoiser, batch.x0[:1], batch.cond.take(slice(0, 1)))
    accumulate = recipe.accumulate
    while one * recipe.batch // accumulate + state > 0.8 * free and accumulate < recipe.batch:
        accumulate = next(k for k in range(accumulate + 1, recipe.batch + 1) if recipe.batch % k == 0)
    if one + state > 0.9 * free:
        raise SfumatoError(
            f"one picture at a time needs {(one + state) / 1e9:.1f} GB and {free / 1e9:.1f} GB are free: "
            "use a smaller network or --size"
        )
    micro = recipe.batch // accumulate
    setting, probed = probe(denoiser, batch.x0[:micro], batch.cond.take(slice(0, micro)))
    # 1.1: optimiser, averages and data beside the passes
    per_step = probed[str(setting)] * accumulate * recipe.objective.passes * 1.1
    steps = budget.steps or max(1, int(budget.seconds / per_step))
    plan = Plan(
        parameters=parameters,
        state_bytes=state,
        activation_bytes=one * micro,
        data_bytes=source.pixels.nbytes,
        available_bytes=free,
        seconds_per_step=per_step,
        steps=steps,
        epochs=steps * recipe.batch / len(source.train_index),
        setting=setting,
        probed=probed,
        accumulate=accumulate,
    )
    return plan, dataclasses.replace(recipe, accumulate=accumulate)


def _largest(source: Source) -> Tensor:
    """The training rows of the shape with the most pixels."""
    rows = source.train_index
    alike = [rows[part] for part in source.alike(rows, len(rows))]
    return max(alike, key=lambda part: math.prod(source.shapes[int(source.bucket[part[0]])]))
