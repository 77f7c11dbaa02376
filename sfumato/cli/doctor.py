"""sfumato doctor: what this machine can do, and whether a run is healthy."""

from __future__ import annotations

import argparse
import dataclasses
import os
import platform
from pathlib import Path
from typing import Any

import torch

from sfumato.cli.console import say
from sfumato.cli.report import training_source
from sfumato.core import Cond, SfumatoError
from sfumato.data import Source
from sfumato.denoiser import Denoiser, Flow, UNet, UNetConfig
from sfumato.forward import RectifiedFlow
from sfumato.train import Budget, Consistency, Run, Trainer, keep_large_blocks, probe, restore, validation_losses
from sfumato.train.machine import available_memory, seconds_of, training_step

OVERFIT_PICTURES = 8
OVERFIT_STEPS = 60
LEVELS = 8


def doctor(options: argparse.Namespace) -> dict[str, Any]:
    """Print the findings, one a line; returns them for --json."""
    run = None if options.run is None else Run(Path(options.run))
    if run is not None:
        run.describe()  # what is no run is told before the machine is measured
        if isinstance(run.recipe().objective, Consistency):
            raise SfumatoError(f"{run.path} holds a few-step model, whose loss says nothing: doctor judges denoisers")
    found: dict[str, Any] = {"machine": _machine()}
    for key, value in found["machine"].items():
        say(f"{key}: {value}")
    if run is not None:
        found["run"] = _run(run)
        for row in found["run"]["levels"]:
            levels = f"log(sigma/alpha) {row['from']:+.1f} ... {row['to']:+.1f}"
            say(f"{levels}: loss {row['loss']:.4f}, knowing nothing {row['nothing']:.4f}")
        for text in found["run"]["findings"]:
            say(text)
    return found


def _machine() -> dict[str, Any]:
    """Threads, memory, and by measurement: precision and layout of a training step, and what the allocator setting gives."""
    denoiser = Denoiser(UNet(UNetConfig()), RectifiedFlow(), Flow())
    x = torch.zeros(16, 1, 32, 32)
    plain = seconds_of(lambda: training_step(denoiser, x, Cond()), 0.5)
    kept = keep_large_blocks()
    again = seconds_of(lambda: training_step(denoiser, x, Cond()), 0.5)
    setting, probed = probe(denoiser, x, Cond())
    return {
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "free_memory_gb": round(available_memory() / 1e9, 1),
        "torch": torch.__version__,
        "fastest_setting": str(setting),
        "images_per_second": {name: round(len(x) / seconds, 1) for name, seconds in probed.items()},
        "allocator": f"keeping large blocks: {plain / again:.2f}x" if kept else "no mallopt in this C library",
    }


def _run(run: Run) -> dict[str, Any]:
    described, recipe = run.describe(), run.recipe()
    source = training_source(run)
    if source is None:
        raise SfumatoError(
            f"the data of {run.path} cannot be opened: put them back, and call doctor from the folder that the run was"
            " trained from"
        )
    trainer = Trainer(recipe.build(), recipe, source, run.budget(), run.setting())
    restore(run, trainer)
    losses, u = validation_losses(trainer)
    t = recipe.times.quantile(u, recipe.process)
    nothing = _knowing_nothing(trainer, t)
    levels, noise = [], -0.5 * recipe.process.log_snr(t)
    for part in noise.argsort().chunk(LEVELS):
        levels.append(
            {
                "from": noise[part].min().item(),
                "to": noise[part].max().item(),
                "loss": losses[part].mean().item(),
                "nothing": nothing[part].mean().item(),
            }
        )
    findings = _findings(run, trainer, levels)
    before, after = _overfit(run, source)
    passed = after < 0.5 * before
    findings.append(
        f"overfit-{OVERFIT_PICTURES}: a fresh network brings the loss from {before:.3f} to {after:.3f} in {OVERFIT_STEPS} steps"
        + ("" if passed else ": it should at least halve; the recipe's rate or the data are at fault")
    )
    return {
        "step": trainer.step,
        "data": described["data"]["name"],
        "levels": levels,
        "overfit": {"before": before, "after": after, "passed": passed},
        "findings": findings,
    }


def _knowing_nothing(trainer: Trainer, t: torch.Tensor) -> torch.Tensor:
    """The expected loss [n] of the best denoiser that knows only mean and variance per pixel: the bar to pass.

    Its error in x0 is var sigma^2 / (alpha^2 var + sigma^2) per pixel (the Gaussian posterior's variance).
    """
    rows = trainer.source.train_index
    x0 = trainer.look(rows[next(iter(trainer.source.alike(rows, 2048)))]).x0
    variance = x0.var(0).flatten() if len(x0) > 1 else torch.zeros(x0[0].numel())
    alpha, sigma = trainer.recipe.process.alpha_sigma(t)
    error = (variance * sigma[:, None] ** 2 / (alpha[:, None] ** 2 * variance + sigma[:, None] ** 2)).mean(1)
    objective = trainer.recipe.objective
    weight = objective.space.x0_weight(alpha, sigma.clamp_min(objective.floor))
    if objective.weighting is not None:
        weight = weight * objective.weighting(alpha, sigma)
    return weight * error


def _findings(run: Run, trainer: Trainer, levels: list[dict[str, float]]) -> list[str]:
    found = []
    worse = [row for row in levels if row["loss"] > row["nothing"]]
    if trainer.step < 200 or len(worse) > len(levels) // 2:
        found.append("untrained: at most noise levels it is no better than knowing only the mean picture; train longer")
    elif worse:
        found.append(f"weak at {len(worse)} of {len(levels)} noise levels, where the mean picture would do as well")
    else:
        found.append("healthy: better than knowing only the mean picture at every noise level")
    rows = [row["validation_loss"] for row in run.rows()]
    if len(rows) > 4 and rows[-1] > 1.5 * min(rows):
        found.append(f"diverged: validation loss rose from {min(rows):.3f} to {rows[-1]:.3f}; lower optimiser.rate")
    return found


def _overfit(run: Run, source: Source) -> tuple[float, float]:
    """Loss at the start and the end of training a fresh network on eight pictures with the run's own recipe."""
    recipe = dataclasses.replace(
        run.recipe(), batch=OVERFIT_PICTURES, accumulate=1, condition_dropout=0.0, balance=None
    )
    few = source.take(source.train_index[:OVERFIT_PICTURES])
    trainer = Trainer(recipe.build(), recipe, few, Budget(steps=OVERFIT_STEPS), run.setting())
    losses = [progress.loss for progress in trainer.steps()]
    tenth = OVERFIT_STEPS // 10
    return sum(losses[:tenth]) / tenth, sum(losses[-tenth:]) / tenth
