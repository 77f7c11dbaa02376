"""sfumato generate: a sentence -> a grid of pictures and the single files."""

from __future__ import annotations

import argparse
import dataclasses
import math
import re
import secrets
from pathlib import Path
from typing import Any

from sfumato.cli import console
from sfumato.cli.console import say
from sfumato.cli.sample import shape_of
from sfumato.core import Noise, SfumatoError
from sfumato.data.shapes import Shape
from sfumato.measure import grid_image
from sfumato.tasks import Model, Request, Result, load
from sfumato.tasks import generate as draw
from sfumato.tasks.chat import ask
from sfumato.tasks.generate import plan
from sfumato.tasks.mark import mark
from sfumato.tasks.prompt import Line, parse
from sfumato.tasks.revise import Reviser
from sfumato.tasks.sampling import settled
from sfumato.tasks.shipped import find
from sfumato.train import keep_large_blocks

N = 4
GUIDANCE = 3.0  # where neither the user nor the model says


def generate(options: argparse.Namespace) -> dict[str, Any]:
    """Draw what the prompt says; returns what --json prints."""
    keep_large_blocks()
    asked = _asked(options)
    path = find(options.model)
    model = load(path)
    if not model.conditioned_on("text"):
        raise SfumatoError(
            f"{path.name} was trained without captions: it cannot be told what to draw (see 'sfumato sample')"
        )
    seed = next((line.seed for line in asked if line.seed is not None), secrets.randbelow(2**31))
    reviser = Reviser(tuple(model.facts["captions"]))
    planned = [_request(model, line, options, seed, reviser) for line in asked]  # mistakes come before any drawing
    told = []
    for k, (line, request, reasons) in enumerate(planned):
        for reason in reasons:
            say(reason)
        progress = console.Line("drawing")
        result = draw(model, request, lambda done, n, p=progress: p.show(done / n, f"{done} of {n}"))
        progress.end()
        name = f"{k + 1}" if len(planned) > 1 else ""
        grid, files = _write(result, line.text, path.resolve().stem, _out(options.out, line.text, request.seed, name))
        say(f"{request.n} pictures of seed {request.seed} in {result.seconds:.2f} s: {grid}")
        revised = list(dict.fromkeys(result.captions))
        told.append(
            {
                "prompt": line.text,
                "revised_prompt": revised[0] if len(revised) == 1 else revised,
                "reasons": list(reasons),
                "seed": request.seed,
                "seconds": round(result.seconds, 3),
                "network_calls": result.network_calls,
                "grid": str(grid),
                "files": [str(file) for file in files],
            }
        )
    return {"model": path.name, "pictures": told}


def _asked(options: argparse.Namespace) -> list[Line]:
    """The prompt lines with what the flags say; flags win."""
    flags = {name: getattr(options, name) for name in ("n", "seed", "no", "style", "chaos", "stylize")}
    flags = {name: value for name, value in flags.items() if value is not None}
    lines = [dataclasses.replace(line, **flags) for line in parse(options.prompt)]
    if not all(line.text for line in lines):
        raise SfumatoError("say what to draw; for pictures of the model's own choice there is 'sfumato sample'")
    for line in lines:
        for name, low, high in (("n", 1, 1000), ("seed", 0, 2**63 - 1), ("chaos", 0, 100), ("stylize", 0, 1000)):
            value = getattr(line, name)
            if value is not None and not low <= value <= high:
                raise SfumatoError(f"--{name} lies in {low} ... {high}, not {value}")
    return lines


def _request(
    model: Model, line: Line, options: argparse.Namespace, seed: int, reviser: Reviser
) -> tuple[Line, Request, tuple[str, ...]]:
    n = line.n or N
    prompts, reasons = _prompts(line, n, seed, options, reviser)
    shape = shape_of(options.size) or _proportioned(model, line.ar)
    model.codec_of(shape)
    if shape not in (None, *model.shapes):
        say(
            f"this model learned from pictures of {model.shapes[0][1]}x{model.shapes[0][0]}: {shape[1]}x{shape[0]} may look worse"
        )
    guidance = options.guidance
    if guidance is None and line.stylize is not None:
        guidance = 1 + 2 * math.sqrt(line.stylize / 100)  # 100 is the usual 3
    if guidance is None:  # a model made by distilling has its guidance learned in
        guidance = model.facts["sampling"].get("guidance", 1.0) if "sampling" in model.facts else GUIDANCE
    request = Request(
        n=n,
        seed=seed,
        steps=options.steps,
        guidance=guidance,
        style=line.style,
        prompt=prompts[0] if len(set(prompts)) == 1 else tuple(prompts),
        negative=line.no,
        shape=shape,
    )
    plan(model, settled(model, request))  # its mistakes come out here, before anything is drawn
    return line, request, reasons


def _prompts(
    line: Line, n: int, seed: int, options: argparse.Namespace, reviser: Reviser
) -> tuple[list[str], tuple[str, ...]]:
    """What each of n pictures is told, and why it is not what was asked."""
    if options.no_revise:
        return [line.text] * n, ()
    if options.revise:
        try:
            revised = ask(options.revise, line.text, reviser.captions)
            return [revised.text] * n, (f"prompt: {revised.text} ({'; '.join(revised.reasons)})",)
        except SfumatoError as error:
            say(f"{error}: revised offline instead")
    own = Noise.of(seed, n).at(-7).uniform((n, 2)).tolist()  # chaos: how many pictures go their own way, and which
    chances = [other if u * 100 < (line.chaos or 0) else 0.0 for u, other in own]
    revised = [reviser.revise(line.text, chance) for chance in chances]
    reasons = dict.fromkeys(f"prompt: {r.text} ({'; '.join(r.reasons)})" for r in revised if r.reasons)
    return [r.text for r in revised], tuple(reasons)


def _proportioned(model: Model, ratio: tuple[int, int] | None) -> Shape | None:
    """About as many pixels as the model's own pictures, in these proportions (width, height)."""
    if ratio is None:
        return None
    (height, width), step = model.shapes[0], model.denoiser.net.config.multiple
    side = math.sqrt(height * width * ratio[0] / ratio[1])
    return max(step, round(side * ratio[1] / ratio[0] / step) * step), max(step, round(side / step) * step)


def _out(out: str | None, prompt: str, seed: int, name: str) -> Path:
    """Where the grid goes; the single pictures go beside it."""
    slug = re.sub(r"[^\w]+", "-", prompt.lower())[:40].strip("-_") or "picture"
    if out is None:
        return Path(f"{slug}-{seed}{'-' if name else ''}{name}.png")
    path = Path(out)
    if not path.suffix:
        return path / f"grid{name}.png"
    if path.suffix.lower() != ".png":
        raise SfumatoError(f"--out is a .png file for the grid, or a folder, not {path.name!r}")
    return path.with_name(f"{path.stem}{'-' if name else ''}{name}.png")


def _write(result: Result, asked: str, model: str, grid: Path) -> tuple[Path, list[Path]]:
    files = [grid.with_name(f"{grid.stem}-{k + 1}.png") for k in range(len(result.images))]
    told = None if result.captions == [asked] * len(result.captions) else asked
    try:
        grid.parent.mkdir(parents=True, exist_ok=True)
        grid_image(result.images).save(grid, pnginfo=mark(model, result.request, asked=told))
        for k, (image, file) in enumerate(zip(result.images, files, strict=True)):
            image.save(file, pnginfo=mark(model, result.request, k, told))
    except OSError as error:
        raise SfumatoError(f"cannot write {grid}: {error}") from error
    return grid, files
