"""sfumato compare: diffusion and a GAN, equal weights and equal time, on the user's own pictures."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any

from sfumato.cli.console import Line, say
from sfumato.data import open as open_source
from sfumato.measure import arena
from sfumato.measure.rival import GanRecipe, VaeRecipe
from sfumato.settings import override
from sfumato.train import keep_large_blocks, pick_recipe


def compare(options: argparse.Namespace) -> dict[str, Any]:
    """Train, measure and report, or go on with it; returns what --json prints."""
    keep_large_blocks()
    source = open_source(options.source, options.size)
    terms = arena.Terms(
        recipe=override(pick_recipe("default", source.size), options.set),
        minutes=options.minutes,
        seeds=options.seeds,
        n=options.n,
        modes=options.modes,
        gan=override(GanRecipe(), options.gan, "--gan"),
        vae=VaeRecipe() if options.vae else None,
    )
    slug = re.sub(r"[^a-z0-9]+", "-", source.name.lower()).strip("-")[-40:] or "source"
    folder = Path(options.out or f"compare-{slug}")
    trained = (3 if options.vae else 2) * terms.seeds * (2 if terms.modes else 1)
    say(f"data: {len(source):,} pictures of {source.name}; {trained} trainings of {terms.length()} each, into {folder}")
    line = Line("comparing")
    try:
        for share, text in arena.compare(folder, source, terms, options.resume):
            line.show(share, text)
    except KeyboardInterrupt:
        line.end()
        if (folder / arena.FILE).exists():
            say("stopped: the same command with --resume goes on from the last turn")
        raise
    line.end()
    found = arena.outcome(folder)
    for sentence in found["said"]:
        say(sentence)
    path = folder / "report.html"
    say(f"report: {path}")
    return {"out": str(folder), "report": str(path), **found}
