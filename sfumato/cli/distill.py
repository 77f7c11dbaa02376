"""sfumato distill: a trained model becomes one that draws in a few calls."""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path
from typing import Any

from sfumato.cli.adapt import again, begin, budget_of, changed, gentler, told_by
from sfumato.cli.train import Work, carry_out
from sfumato.core import SfumatoError
from sfumato.data.hygiene import Policy
from sfumato.denoiser import X0, Eps
from sfumato.guide import cfg
from sfumato.tasks import Model
from sfumato.tasks.sampling import GIVEN
from sfumato.train import (
    Consistency,
    LogNormalTimes,
    Objective,
    Recipe,
    Run,
    Taught,
    keep_large_blocks,
    preparation,
)

# as far into the noise as the first call reaches, and denser where pictures take shape
TIMES = LogNormalTimes(0.5, 2.0)


def distill(options: argparse.Namespace) -> dict[str, Any]:
    """Consistency tuning from a model's weights; returns what --json prints."""
    keep_large_blocks()
    if options.calls < 1:
        raise SfumatoError(f"--calls must be at least 1, not {options.calls}")
    run = Run(Path(options.run))
    if options.resume:
        options.source = options.source or source_of(run.path)
        work = again(options, run)
        return carry_out(options, run, dataclasses.replace(work, objective=_objective(work.recipe, work.base)))
    options.source = options.source or source_of(Path(options.model))
    base, source = begin(options.model, options.source, run)
    recipe = changed(told_by(_recipe(base, options.guidance, options.seed), source), base, options.set)
    told = {
        "began": {"how": "distill", "from": Path(options.model).resolve().name},
        "sampling": {"steps": options.calls, "solver": "consistency", "grid": "flow"},
    }
    source = preparation.noted(source, recipe, Policy())
    return carry_out(options, run, Work(source, recipe, budget_of(options), base, _objective(recipe, base), told))


def _recipe(base: Model, guidance: float, seed: int | None) -> Recipe:
    old = gentler(base, seed)
    if isinstance(old.objective, Consistency):
        raise SfumatoError("this is a few-step model already: distill the model that it was made from")
    if isinstance(old.parameterisation, X0 | Eps):
        raise SfumatoError(
            f"this model predicts {'x0' if isinstance(old.parameterisation, X0) else 'the noise'}: the end of a path needs "
            "a prediction that is exact without noise and bounded in pure noise: train with parameterisation Flow, V or EDMTarget"
        )
    objective = Consistency(old.objective.space, guidance, floor=old.objective.floor)
    return dataclasses.replace(old, objective=objective, times=TIMES)


def _objective(recipe: Recipe, base: Model) -> Objective:
    """What is minimised: the recipe's own, or, where guidance is distilled, the same on the guided model's paths."""
    objective = recipe.objective
    if not isinstance(objective, Consistency):
        raise SfumatoError("--set objective: distill tunes for consistency; to train on otherwise use 'sfumato adapt'")
    if objective.guidance == 1.0:
        return objective
    if not base.denoiser.net.config.slots:
        raise SfumatoError("--guidance needs a condition to guide towards, and this model has none: leave it away")
    return Taught(objective, cfg(objective.guidance, keep=GIVEN)(base.denoiser))


def source_of(folder: Path) -> str:
    """The data that a run folder was trained on."""
    try:
        return json.loads((folder / "source.json").read_text())["source"]
    except (OSError, ValueError, KeyError) as error:
        raise SfumatoError(f"{folder} does not say what it was trained on: give the pictures with --source") from error
