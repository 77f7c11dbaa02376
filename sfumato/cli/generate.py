"""sfumato generate: a sentence -> a grid of pictures and the single files."""

from __future__ import annotations

import argparse
import dataclasses
import re
import secrets
from pathlib import Path
from typing import Any

from sfumato.cli import console
from sfumato.cli.console import say
from sfumato.cli.sample import shape_of
from sfumato.cli.save import write
from sfumato.core import SfumatoError
from sfumato.data.records import shown
from sfumato.tasks import Result, load
from sfumato.tasks import generate as draw
from sfumato.tasks.asked import Asked, asked
from sfumato.tasks.prompt import Line, parse
from sfumato.tasks.receipt import Maker
from sfumato.tasks.shipped import find
from sfumato.train import keep_large_blocks

SAID = 200  # letters of a prompt that are shown


def generate(options: argparse.Namespace) -> dict[str, Any]:
    """Draw what the prompt says; returns what --json prints."""
    keep_large_blocks()
    lines, shape = _lines(options), shape_of(options.size)
    outs = [_out(options.out, line, str(k + 1) if len(lines) > 1 else "") for k, line in enumerate(lines)]
    path = find(options.model)
    model = load(path)
    revise = options.revise or not options.no_revise
    planned = [
        asked(model, line, shape=shape, steps=options.steps, guidance=options.guidance, revise=revise) for line in lines
    ]  # mistakes come before any drawing
    original = shape_of(options.original)
    planned = [dataclasses.replace(one, request=dataclasses.replace(one.request, original=original)) for one in planned]
    maker, told = Maker.of(model, path.resolve().name), []
    for one, out in zip(planned, outs, strict=True):
        for text in (*(f"note: {w}" for w in one.warnings), *one.reasons):
            say(shown(text))
        progress = console.Line("drawing")
        result = draw(model, one.request, lambda done, n, p=progress: p.show(done / n, f"{done} of {n}"))
        progress.end()
        for text in dict.fromkeys(result.captions):
            if text != one.line.text:
                say(f"drawn: {shown(text[:SAID])}{'...' if len(text) > SAID else ''}")
        revised = None if set(result.captions) == {one.line.text} else one.line.text
        files = write(result, out, maker, revised)
        say(f"{len(files)} pictures of seed {one.line.seed} in {result.seconds:.2f} s: {shown(out)}")
        told.append(_told(one, result, out, files))
    return {"model": maker.name, "weights": maker.weights, "pictures": told}


def _lines(options: argparse.Namespace) -> list[Line]:
    """The prompt lines with what the flags say (flags win), and one seed for all that have none of their own."""
    flags = {name: getattr(options, name) for name in ("n", "seed", "no", "style", "chaos", "stylize")}
    flags = {name: value for name, value in flags.items() if value is not None}
    lines = [dataclasses.replace(line, **flags) for line in parse(options.prompt)]
    drawn = secrets.randbelow(2**31)
    return [dataclasses.replace(line, seed=drawn) if line.seed is None else line for line in lines]


def _out(out: str | None, line: Line, number: str) -> Path:
    """Where the grid goes; the single pictures go beside it."""
    if out is None:
        slug = re.sub(r"[^\w]+", "-", line.text[:400].lower())[:40].strip("-_") or "picture"
        return Path(f"{slug}-{line.seed}{'-' if number else ''}{number}.png")
    path = Path(out)
    if not path.suffix:
        return path / f"grid{number}.png"
    if path.suffix.lower() != ".png":
        raise SfumatoError(f"--out is a .png file for the grid, or a folder, not {path.name!r}")
    return path.with_name(f"{path.stem}{'-' if number else ''}{number}.png")


def _told(one: Asked, result: Result, grid: Path, files: list[Path]) -> dict[str, Any]:
    """What --json says of one prompt; `revised_prompt` is a list where the pictures were told different things."""
    request, captions = result.request, result.captions
    return {
        "prompt": one.line.text,
        "revised_prompt": captions[0] if len(set(captions)) == 1 else captions,
        "reasons": list(one.reasons),
        "warnings": list(one.warnings),
        "style": request.style,
        "seed": request.seed,
        "steps": request.steps,
        "guidance": request.guidance,
        "seconds": round(result.seconds, 3),
        "network_calls": result.network_calls,
        "grid": str(grid),
        "files": [str(file) for file in files],
    }
