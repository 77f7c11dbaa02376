"""A model's row in a results file: what stamps it, numbers that are measured once, and the sheets beside it."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from hashlib import blake2b
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor

from benchmarks import common, text_sheets
from benchmarks.canvas_peers import pixels
from sfumato.tasks import Model
from sfumato.tasks.receipt import fingerprint

Data = dict[str, Any]


def options_of(args: argparse.Namespace) -> Data:
    """How the command says that pictures are drawn."""
    return {k: v for k in ("steps", "solver", "grid") if (v := getattr(args, k)) is not None}


def stamp(args: argparse.Namespace, model: Model, options: Data, numbers: dict[str, int], *more: bytes) -> Data:
    """What a row is of; another one is measured anew. `identity` is that of the pictures; `more` goes into it."""
    told = blake2b(repr((args.source, options, fingerprint(model))).encode(), digest_size=8)
    for part in more:
        told.update(part)
    return {"identity": told.hexdigest(), "options": options, "numbers": numbers, "source": args.source}


def opened(name: str, args: argparse.Namespace, results: Path) -> tuple[Data, str]:
    """The results file with this command noted in it, and the row's label."""
    data = common.read(name, results) or common.envelope(models={}, commands=[])
    data["commands"] = list(dict.fromkeys([*data["commands"], common.command()]))
    return data, args.label or args.run.resolve().name


def measured(
    parts: Data,
    place: tuple[str, ...],
    measure: Callable[[], Data],
    save: Callable[[], Any],
    tell: Callable[[Data], Any],
) -> Data:
    """The numbers at this place of the parts, measured and saved now if they are not there."""
    for name in place[:-1]:
        parts = parts.setdefault(name, {})
    if place[-1] not in parts:
        parts[place[-1]] = measure()
        save()
        common.log(f"  {' / '.join(place)}: {tell(parts[place[-1]])}")
    return parts[place[-1]]


def image(x: Tensor) -> Image.Image:
    """One picture x0 [C, H, W]."""
    page = pixels(x[None])[0]
    return Image.fromarray(page.squeeze(-1) if len(x) == 1 else page)


def save_sheet(path: Path, groups: list[list[Image.Image]], captions: list[str]) -> None:
    """Groups of pictures with their captions, one group a row."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text_sheets.sheet(groups, captions, 1).save(path, optimize=True)
