"""How a model is sampled where the request leaves it open, and what only this model has: its own times, its weak self."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from sfumato.core import Cond, Denoise, SfumatoError
from sfumato.denoiser import Denoiser
from sfumato.guide import Guide, autoguide, cfg
from sfumato.reverse import FromData, pick_grid

if TYPE_CHECKING:
    from sfumato.tasks.generate import Request
    from sfumato.tasks.model import Model

DEFAULTS: dict[str, Any] = {"steps": 18, "solver": "dpmpp2m", "grid": "flow"}
FEW = 16  # pictures
CALIBRATED = "calibrated"  # the grid that 'sfumato calibrate' stores with a model
GIVEN = ("known", "lowres")  # what is known of a picture: guidance does not lead away from it


def settled(model: Model, request: Request) -> Request:
    """The request with everything it leaves open as the model was made for (a few-step model says so), else `DEFAULTS`.

    Raises SfumatoError for guidance that is no number.
    """
    for name in ("guidance", "autoguidance"):
        if not math.isfinite(getattr(request, name)):
            raise SfumatoError(f"{name} is a number such as 2 (1: none), not {getattr(request, name)}")
    told = {**DEFAULTS, **model.facts.get("sampling", {})}
    return dataclasses.replace(request, **{k: told[k] for k in DEFAULTS if getattr(request, k) is None})


def asked_for(denoiser: Denoise, request: Request) -> Denoise:
    """How a network is asked for the pictures of a request: up to FEW are each the same to the last bit in any company, more
    are drawn faster, and the same but for rounding."""
    return denoiser.plain() if isinstance(denoiser, Denoiser) and request.n > FEW else denoiser


def times_of(model: Model, request: Request, strength: float = 1.0) -> Tensor:
    """The times of a settled request, float64 [steps + 1], all its steps below t_min + strength (t_max - t_min).

    Raises SfumatoError when the model stores no such schedule, and for a strength outside 0 < strength <= 1.
    """
    process = model.denoiser.process
    if request.grid != CALIBRATED:
        grid = pick_grid(request.grid)
        return (grid if strength == 1 else FromData(strength, grid))(request.steps, process)
    stored = model.facts.get(CALIBRATED, {})
    times = stored.get(request.solver, {}).get(str(request.steps))
    if times is None:
        known = [f"{steps} steps of {solver}" for solver, by_steps in stored.items() for steps in by_steps]
        raise SfumatoError(
            f"this model has no calibrated times for {request.steps} steps of {request.solver} "
            f"(it has: {', '.join(known) or 'none'}): run 'sfumato calibrate MODEL --steps {request.steps}' first"
        )
    return process.t_min + strength * (torch.tensor(times, dtype=torch.float64) - process.t_min)


def guides_of(model: Model, request: Request, against: Cond) -> tuple[Guide, ...]:
    """The guides of a request: away from the model's weak self (`autoguidance`), then towards the condition (`guidance`)
    and away from `against`; who watches sees what comes of them."""
    towards, watch = cfg(request.guidance, against=against, keep=GIVEN), () if model.watch is None else (model.watch,)
    if request.autoguidance == 1.0:
        return towards, *watch
    if model.weak is None:
        raise SfumatoError(
            "autoguidance needs the early average that a run folder stores: this file was exported without it "
            "(sfumato export RUN --with-weak)"
        )
    return autoguide(asked_for(model.weak(), request), request.autoguidance), towards, *watch
