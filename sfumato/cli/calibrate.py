"""sfumato calibrate: times chosen for one model, kept with it."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch

from sfumato.cli.console import say
from sfumato.core import Noise, SfumatoError
from sfumato.data.files import write_text
from sfumato.guide import bind, with_guides
from sfumato.reverse import PRIOR, flow, pick_solver, sample
from sfumato.reverse import calibrate as best_times
from sfumato.tasks import Model, Request, load
from sfumato.tasks.generate import plan
from sfumato.tasks.sampling import CALIBRATED, DEFAULTS, settled
from sfumato.train import keep_large_blocks

PATHS, CHECKED = 24, 24  # pictures that the times are chosen on, and others that they are compared on
REFERENCE = 100  # steps of the path that answers are held against


def calibrate(options: argparse.Namespace) -> dict[str, Any]:
    """Choose times, compare them with the even ones, and keep those that are better; returns what --json prints."""
    keep_large_blocks()
    model, began = load(options.model), time.perf_counter()
    if "sampling" in model.facts:
        raise SfumatoError("a few-step model has its own way of sampling: calibrate the model that it was made from")
    name = options.solver or DEFAULTS["solver"]
    solver = pick_solver(name)
    process = model.denoiser.process
    for steps in options.steps:
        flow(steps, process)
    noise, other = Noise.of(0, PATHS), Noise.of(0, CHECKED, PATHS)
    x = process.prior((PATHS, *model.codec.spec), noise.at(PRIOR))
    with torch.no_grad():
        found = best_times(_asked(model, options.guidance, 0, PATHS), solver, x, sorted(set(options.steps)))
    checked = _asked(model, options.guidance, PATHS, CHECKED)
    shape = (CHECKED, *model.codec.spec)
    truth = sample(checked, shape, other, solver, flow(REFERENCE, process))
    told, kept = {}, {}
    for steps, times in found.items():
        away = [
            (sample(checked, shape, other, solver, grid) - truth).square().mean().sqrt().item()
            for grid in (flow(steps, process), times)
        ]
        told[str(steps)] = {"error_flow": away[0], "error_calibrated": away[1], "kept": away[1] < away[0]}
        say(f"{steps} steps of {name}: error {away[0]:.4f} with even times, {away[1]:.4f} with its own")
        if away[1] < away[0]:
            kept[str(steps)] = times.tolist()
    _keep(Path(options.model), model, name, kept)
    say("kept with the model: use --grid calibrated" if kept else "even times are better here: nothing was kept")
    return {"model": options.model, "solver": name, "steps": told, "seconds": round(time.perf_counter() - began, 2)}


def _asked(model: Model, guidance: float, first: int, n: int) -> Any:
    """The model with the conditions and guides of n pictures that nothing was said of."""
    request = settled(model, Request(n=n, first=first, guidance=guidance))
    planned = plan(model, request)
    return bind(with_guides(model.denoiser, *planned.guides), planned.cond)


def _keep(path: Path, model: Model, solver: str, times: dict[str, list[float]]) -> None:
    stored = model.facts.get(CALIBRATED, {})
    facts = {**stored, solver: {**stored.get(solver, {}), **times}}
    if not times:
        return
    if path.is_dir():
        described = json.loads((path / "run.json").read_text())
        write_text(path / "run.json", json.dumps({**described, CALIBRATED: facts}, indent=1))
    else:
        model.facts[CALIBRATED] = facts
        model.export(path, with_weak=model.weak is not None, half=model.facts.get("half", False))
