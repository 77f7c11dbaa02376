"""sfumato neon: a model learns from its own pictures for a while, and is then moved the other way."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import Any

import torch

from sfumato.cli.adapt import KNOWN, again, begin, budget_of, changed, check_in_memory, gentler, told_by
from sfumato.cli.console import Line, say
from sfumato.cli.distill import source_of
from sfumato.cli.train import BASE, Work, carry_out
from sfumato.core import SfumatoError
from sfumato.data import Source
from sfumato.data.hygiene import Policy
from sfumato.measure import Kid, features_for, kid
from sfumato.tasks import Model, Request, generate, load
from sfumato.tasks.rehearse import joined, rehearse
from sfumato.train import Run, keep_large_blocks, load_weights, preparation

FILE = "neon.safetensors"  # in the run folder: the model that came of it
REACHES = (0.25, 0.5, 1.0, 1.5, 2.0)
LEAST = 64  # real pictures to judge by


def neon(options: argparse.Namespace) -> dict[str, Any]:
    """Self-training, then w = (1 + k) base - k tuned, k by KID against real pictures (Alemohammad et al. 2025, "Neon").

    Learning from its own pictures moves the weights towards what the model overdoes; the opposite way corrects it. k is
    chosen on one set of drawn pictures and kept only if it is better on another. Returns what --json prints."""
    keep_large_blocks()
    if options.n < 2 * LEAST:
        raise SfumatoError(f"--n must be at least {2 * LEAST} pictures to learn from and to judge by, not {options.n}")
    run = Run(Path(options.run))
    options.source = options.source or source_of(run.path if options.resume else Path(options.model))
    if options.resume:
        real: list[Source] = []
        work = again(options, run, lambda source: _own(source, run.path, real))
    else:
        budget = budget_of(options)  # a wrong one is told before anything is drawn
        base, source = begin(options.model, options.source, run)
        check_in_memory(source)
        _judges(base, source)
        recipe = told_by(dataclasses.replace(gentler(base, options.seed), balance=None), source)
        recipe = changed(recipe, base, options.set)
        line = Line("drawing")
        rehearse(base, options.n, run.path / KNOWN, lambda done, n: line.show(done / n, f"{done} of {n}"))
        line.end()
        real = []
        own = preparation.noted(_own(source, run.path, real), recipe, Policy())
        told = {"began": {"how": "neon", "from": Path(options.model).resolve().name}}
        work = Work(own, recipe, budget, base, told=told)
    told = carry_out(options, run, work)
    return told | (_extrapolated(run, real[0], options.n) if told["finished"] else {})


def _own(source: Source, folder: Path, real: list[Source]) -> Source:
    """The model's own pictures alone; `real` keeps the source."""
    real.append(source)
    both = joined(source, folder / KNOWN)
    return dataclasses.replace(both.take(torch.arange(len(source), len(both))), name="its own pictures")


def _judges(model: Model, source: Source) -> torch.Tensor:
    """Real pictures that the model has not learned from, as x0 in [-1, 1]."""
    same = model.facts["data"]["fingerprint"] == source.fingerprint
    rows = source.validation_index if same else torch.arange(len(source))
    if len(rows) < LEAST:
        raise SfumatoError(
            f"{len(rows)} pictures that the model has not seen are too few to judge by: {LEAST} are needed"
        )
    return source.batch(rows[:2000]).x0


def _extrapolated(run: Run, source: Source, n: int) -> dict[str, Any]:
    base, tuned = load(run.path / BASE), dict(load(run.path).denoiser.named_parameters())
    real, features = _judges(base, source), features_for(source)
    start = {name: p.detach().clone() for name, p in base.denoiser.named_parameters()}
    seen = features(real)

    def judged(k: float, seed: int) -> Kid:
        load_weights(base.denoiser, {name: p + k * (p - tuned[name]) for name, p in start.items()})
        return kid(features(generate(base, Request(n=n, seed=seed)).x0), seen)

    found = {k: judged(k, 0).value for k in (0.0, *REACHES)}
    for k, value in found.items():
        say(f"k = {k:g}: KID {value:.4f}")
    best = min(found, key=found.__getitem__)
    before, after = judged(0.0, 1), judged(best, 1)
    kept = best > 0 and after.value < before.value
    say(f"on other pictures: KID {before.value:.4f} before, {after.value:.4f} with k = {best:g}")
    if kept:
        base.facts["began"] = {"how": "neon", "k": best}
        say(f"written: {base.export(run.path / FILE)}")
    else:
        say("no gain: nothing was written")
    told = {"kid_of": found, "k": best, "kid_before": before.value, "kid_after": after.value, "kept": kept}
    return told | ({"file": str(run.path / FILE)} if kept else {})
