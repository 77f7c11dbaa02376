"""sfumato inpaint, outpaint, upscale, layout, sketch, vary, blend and tile."""

from __future__ import annotations

import argparse
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sfumato.cli.console import Line, say
from sfumato.cli.editing import BESIDE
from sfumato.cli.sample import shape_of
from sfumato.cli.save import write
from sfumato.core import SfumatoError
from sfumato.data.records import shown
from sfumato.tasks import (
    Model,
    Result,
    blend,
    inpaint,
    layout,
    load,
    outpaint,
    sketch,
    tile,
    upscale,
    vary,
)
from sfumato.tasks.receipt import Maker
from sfumato.tasks.shipped import find
from sfumato.train import keep_large_blocks

SIDES = ("left", "top", "right", "bottom")
EDITS: dict[str, Callable[[Model, argparse.Namespace, dict[str, Any]], Result]] = {
    "inpaint": lambda model, o, told: inpaint(model, o.image, o.mask, **told),
    "outpaint": lambda model, o, told: outpaint(
        model, o.image, _size(o.to), o.zoom, {side: getattr(o, side) for side in SIDES}, **told
    ),
    "upscale": lambda model, o, told: upscale(model, o.image, o.scale, **told),
    "layout": lambda model, o, told: layout(model, o.layout, shape_of(o.size), **told),
    "sketch": lambda model, o, told: sketch(model, o.image, shape_of(o.size), **told),
    "vary": lambda model, o, told: vary(model, o.image, o.strength, **told),
    "blend": lambda model, o, told: blend(model, o.images, o.strength, **told),
    "tile": lambda model, o, told: tile(model, shape_of(o.size), **told),
}


def edit(options: argparse.Namespace) -> dict[str, Any]:
    """Carry out one edit and write what came of it; returns what --json prints."""
    keep_large_blocks()
    out = Path(options.out)
    if out.suffix.lower() != ".png":
        raise SfumatoError(f"--out is a .png file, which keeps every pixel as it is, not {shown(out.name)!r}")
    path = find(options.model)
    model, line = load(path), Line(options.command)
    seed = secrets.randbelow(2**31) if options.seed is None else options.seed
    asked = {name: getattr(options, name) for name in ("prompt", "n", "steps", "guidance")}
    beside = [name for name, (commands, _) in BESIDE.items() if options.command in commands]
    asked |= {name: getattr(options, name) for name in beside}
    maker = Maker.of(model, path.resolve().name)
    told = {"seed": seed} | {name: value for name, value in asked.items() if value is not None}
    result = EDITS[options.command](model, options, told | {"progress": lambda share: line.show(share, "")})
    line.end()
    for note in result.notes:
        say(f"note: {shown(note)}")
    files, request = write(result, out, maker), result.request
    width, height = result.images[0].size
    say(f"{len(files)} of seed {seed}, {width}x{height} pixels, in {result.seconds:.2f} s: {shown(out)}")
    return {
        "model": maker.name,
        "weights": maker.weights,
        "task": result.task,
        "by": result.by,
        "notes": list(result.notes),
        "prompt": request.prompt,
        "seed": seed,
        "steps": request.steps,
        "guidance": request.guidance,
        "width": width,
        "height": height,
        "seconds": round(result.seconds, 3),
        "network_calls": result.network_calls,
        "out": str(out),
        "files": [str(file) for file in files],
    }


def _size(text: str | None) -> tuple[int, int] | None:
    """What --to says, as (width, height)."""
    shape = shape_of(text)
    return None if shape is None else (shape[1], shape[0])
