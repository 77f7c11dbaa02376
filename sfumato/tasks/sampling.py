"""How a model is sampled where the request leaves it open, and what only this model has: its own times, its weak self."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from sfumato.core import Cond, SfumatoError
from sfumato.guide import Guide, autoguide, cfg
from sfumato.reverse import pick_grid

if TYPE_CHECKING:
    from sfumato.tasks.generate import Request
    from sfumato.tasks.model import Model

DEFAULTS: dict[str, Any] = {"steps": 18, "solver": "dpmpp2m", "grid": "flow"}
CALIBRATED = "calibrated"  # the grid that 'sfumato calibrate' stores with a model


def settled(model: Model, request: Request) -> Request:
    """The request with everything it leaves open as the model was made for (a few-step model says so), else `DEFAULTS`."""
    told = {**DEFAULTS, **model.facts.get("sampling", {})}
    return dataclasses.replace(request, **{k: told[k] for k in DEFAULTS if getattr(request, k) is None})


def times_of(model: Model, request: Request) -> Tensor:
    """The times of a settled request, float64 [steps + 1]; SfumatoError when the model stores no such schedule."""
    if request.grid != CALIBRATED:
        return pick_grid(request.grid)(request.steps, model.denoiser.process)
    stored = model.facts.get(CALIBRATED, {})
    times = stored.get(request.solver, {}).get(str(request.steps))
    if times is None:
        known = [f"{steps} steps of {solver}" for solver, by_steps in stored.items() for steps in by_steps]
        raise SfumatoError(
            f"this model has no calibrated times for {request.steps} steps of {request.solver} "
            f"(it has: {', '.join(known) or 'none'}): run 'sfumato calibrate MODEL --steps {request.steps}' first"
        )
    return torch.tensor(times, dtype=torch.float64)


def guides_of(model: Model, request: Request, against: Cond) -> tuple[Guide, ...]:
    """The guides of a request: away from the model's weak self (`autoguidance`), then towards the condition (`guidance`)
    and away from `against`."""
    towards = cfg(request.guidance, against=against)
    if request.autoguidance == 1.0:
        return (towards,)
    if model.weak is None:
        raise SfumatoError(
            "autoguidance needs the early average that a run folder stores: this file was exported without it "
            "(sfumato export RUN --with-weak)"
        )
    return autoguide(model.weak(), request.autoguidance), towards
