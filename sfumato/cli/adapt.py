"""sfumato adapt: a trained model goes on learning, from a few pictures of your own."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from sfumato.cli.console import Line, say
from sfumato.cli.train import BASE, Work, carry_out, resumed
from sfumato.core import SfumatoError
from sfumato.data import Source, open_as
from sfumato.data import captions as caption_rules
from sfumato.data import open as open_source
from sfumato.data.balance import Balance
from sfumato.data.hygiene import Policy, with_declared
from sfumato.data.records import shown
from sfumato.settings import from_dict, override
from sfumato.tasks import Model, load
from sfumato.tasks.rehearse import DRAWN, joined, rehearse
from sfumato.tasks.widen import NAMED, aligned, check, names_of, widened
from sfumato.train import Budget, Consistency, Recipe, Run, keep_large_blocks, preparation

GENTLER = 0.2  # of the rates that the model was trained with
REHEARSED = 256  # pictures of its own that a model goes on learning beside the new ones
KNOWN = "rehearsal.safetensors"  # in the run folder: those pictures


def adapt(options: argparse.Namespace) -> dict[str, Any]:
    """Fine-tune all weights of a model on the pictures of a source; returns what --json prints."""
    keep_large_blocks()
    run = Run(Path(options.run))
    if options.resume:
        return carry_out(options, run, again(options, run, lambda source: joined(source, run.path / KNOWN)))
    budget = budget_of(options)  # a wrong one is told before anything is drawn
    base, source = begin(options.model, options.source, run)
    check_in_memory(source)
    recipe = dataclasses.replace(told_by(gentler(base, options.seed), source), balance=Balance(column=DRAWN))
    if isinstance(recipe.objective, Consistency):
        raise SfumatoError("this is a few-step model: adapt the model that it was made from, then distill that")
    if options.captions is not None:
        recipe = dataclasses.replace(recipe, captions=caption_rules.read(options.captions))
    recipe = changed(recipe, base, options.set)
    line = Line("drawing what it knows")
    rehearse(base, REHEARSED, run.path / KNOWN, lambda done, n: line.show(done / n, f"{done} of {n}"))
    line.end()
    source = joined(source, run.path / KNOWN)
    told = {"began": {"how": "adapt", "from": Path(options.model).resolve().name}}
    source = preparation.noted(source, recipe, Policy())
    return carry_out(options, run, Work(source, recipe, budget, base, told=told))


def begin(path: str, where: str, run: Run) -> tuple[Model, Source]:
    """The model with a place for all that the source names, and the source as the model sees it."""
    if (run.path / "run.json").exists():
        raise SfumatoError(f"{run.path} already holds a run: go on with --resume, or choose another --run folder")
    model = load(path)
    source = _opened(where, model)
    for slot, known in _known(model).items():
        new = [name for name in getattr(source, NAMED[slot][0], ()) if name not in known]
        if new:
            say(f"new {slot}: {', '.join(map(shown, new))}")
    return widened(model, source), source


def check_in_memory(source: Source) -> None:
    """SfumatoError when drawn pictures cannot be joined to these."""
    if not isinstance(source.pixels, np.ndarray):
        raise SfumatoError("this takes pictures of one shape that fit into memory: give fewer, or squares")


def _opened(where: str, model: Model) -> Source:
    if model.codec.spec[0] == 1:
        check(model, open_source(where))  # as it is: opened for a grey model it would lose its colours unasked
    source = with_declared(open_as(where, model.facts["codec"]), where)
    check(model, source)
    return aligned(source, _known(model))


def _known(model: Model) -> dict[str, tuple[str, ...]]:
    return {slot: names_of(model, slot) for slot in NAMED if model.conditioned_on(slot)}


def again(options: argparse.Namespace, run: Run, with_more: Callable[[Source], Source] = lambda source: source) -> Work:
    """A run that began with a model, and goes on; SfumatoError when it holds none."""
    run.describe()
    base = load(run.path / BASE)
    source, recipe, budget = resumed(options, run, lambda source: with_more(aligned(source, _known(base))))
    return Work(source, recipe, budget, base)


def gentler(base: Model, seed: int | None) -> Recipe:
    """The recipe of a model with a fifth of its rates."""
    recipe = from_dict(Recipe, base.facts["recipe"])
    old = recipe.optimiser
    rates = dataclasses.replace(old, rate=GENTLER * old.rate, muon=GENTLER * old.muon)
    return dataclasses.replace(recipe, optimiser=rates, seed=recipe.seed if seed is None else seed)


def told_by(recipe: Recipe, source: Source) -> Recipe:
    """The recipe without the control of boxes where the source has none to tell: the network keeps its slot, absent."""
    names = tuple(name for name in recipe.controls.names if name != "boxes" or "boxes" in source.columns)
    return dataclasses.replace(recipe, controls=dataclasses.replace(recipe.controls, names=names))


def changed(recipe: Recipe, base: Model, assignments: list[str]) -> Recipe:
    """The recipe with what --set says; SfumatoError when it is no longer one of this model's weights."""
    fixed = ("net", "process", "parameterisation", "standard", "sigma_data")
    before, recipe = from_dict(Recipe, base.facts["recipe"]), override(recipe, assignments)
    for name in fixed:
        if getattr(recipe, name) != getattr(before, name):
            raise SfumatoError(f"--set {name}: a trained model keeps its {name}; train a new one to change it")
    return recipe


def budget_of(options: argparse.Namespace) -> Budget:
    """What --steps or --minutes says; 5 minutes where neither does."""
    if options.steps is not None:
        return Budget(steps=options.steps)
    return Budget(seconds=60 * (5.0 if options.minutes is None else options.minutes))
