"""sfumato sample and sfumato export."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from sfumato.cli.console import Line, say
from sfumato.core import SfumatoError
from sfumato.measure import grid_image
from sfumato.tasks import Request, generate, load
from sfumato.tasks.receipt import Maker, encoded, receipt
from sfumato.train import keep_large_blocks


def sample(options: argparse.Namespace) -> dict[str, Any]:
    """Draw pictures into one grid or a folder; returns what --json prints."""
    keep_large_blocks()
    fields = ("n", "seed", "steps", "solver", "grid", "guidance", "autoguidance", "class_name", "style", "prompt")
    told = {name: getattr(options, name) for name in fields}
    request = Request(**told, shape=shape_of(options.shape), original=shape_of(options.original))
    out = Path(options.out)
    if out.suffix and out.suffix.lower() != ".png":
        raise SfumatoError(f"--out is a .png file for one grid, or a folder for single pictures, not {out.name!r}")
    model = load(options.run, options.ema)
    model.codec_of(request.shape)  # an impossible shape is an error, not a warning
    if request.shape not in (None, *model.shapes):
        learned = ", ".join(f"{w}x{h}" for h, w in model.shapes)
        say(f"this model learned from pictures of {learned} (width x height): others may look worse")
    maker, line = Maker.of(model, Path(options.run).resolve().name), Line("sampling")
    result = generate(model, request, lambda done, n: line.show(done / n, f"{done} of {n}"))
    line.end()
    try:
        if out.suffix:
            out.parent.mkdir(parents=True, exist_ok=True)
            out.write_bytes(encoded(grid_image(result.images), receipt(maker, result)))
        else:
            out.mkdir(parents=True, exist_ok=True)
            for k, image in enumerate(result.images):
                (out / f"{request.seed}-{k:05d}.png").write_bytes(encoded(image, receipt(maker, result, k)))
    except OSError as error:
        raise SfumatoError(f"cannot write {out}: {error}") from error
    say(f"{request.n} pictures in {result.seconds:.2f} s: {out}")
    return {
        "images": request.n,
        "seconds": round(result.seconds, 3),
        "network_calls": result.network_calls,
        "out": str(out),
    }


def shape_of(text: str | None) -> tuple[int, int] | None:
    """What --shape says, width x height as everything is told, as (height, width)."""
    if text is None:
        return None
    width, _, height = text.lower().partition("x")
    if not (height.isdecimal() and width.isdecimal()):
        raise SfumatoError(f"the shape {text!r}: write width x height in pixels, such as 64x48")
    return int(height), int(width)


def export(options: argparse.Namespace) -> dict[str, Any]:
    """Write the model as one file; returns what --json prints."""
    path = load(options.run, options.ema).export(options.to, options.with_weak, options.half)
    size = path.stat().st_size
    say(f"{path}: {size / 1e6:.1f} MB; use it with sfumato.load({str(path)!r})")
    return {"file": str(path), "bytes": size}
