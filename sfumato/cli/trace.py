"""sfumato trace: the training pictures nearest to a picture, and whether it is a copy."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor

from sfumato.cli.console import say
from sfumato.cli.report import training_source
from sfumato.core import SfumatoError
from sfumato.data.lazy import luma
from sfumato.data.picture import Unusable, read
from sfumato.data.records import shown
from sfumato.measure import grid_image
from sfumato.measure.memory import Gallery, copied
from sfumato.tasks.receipt import receipt_in
from sfumato.tasks.shipped import beside
from sfumato.train import Run

NEIGHBOURS = 3
MOST_HELD_OUT = 500


def trace(options: argparse.Namespace) -> dict[str, Any]:
    """Seek the picture among the training pictures of its run; returns what --json prints."""
    file = Path(options.file)
    run = _run(file, options.run)
    run.describe()  # an error of its own where this is no run folder
    source = training_source(run)
    if source is None:
        raise SfumatoError(
            f"the pictures that {run.path} was trained on cannot be opened: put them back where they were"
        )
    gallery = Gallery(source)
    x0 = _read(file, gallery)
    rows, distances = (found[0] for found in gallery.nearest(x0, NEIGHBOURS))
    held = gallery.nearest(gallery.source.batch(gallery.source.validation_index[:MOST_HELD_OUT]).x0).distances[:, 0]
    usual = float(held.median())
    result: dict[str, Any] = {
        "file": str(file),
        "run": str(run.path),
        "neighbours": [
            {"file": source.keys[row], "distance": round(d, 6)}
            for row, d in zip(rows.tolist(), distances.tolist(), strict=True)
        ],
        "usual_distance": round(usual, 6),
        "copied": bool(copied(distances[:1], distances[1:2], usual)),
    }
    result["words"] = _words(result, float((held < distances[0]).float().mean()))
    if options.out:
        result["out"] = str(_draw(Path(options.out), gallery, x0, rows))
    for near in result["neighbours"]:
        say(f"  {near['distance']:.4f}  {shown(near['file'])}")
    say(f"{shown(file)}: {result['words']}")
    return result


def _run(file: Path, given: str | None) -> Run:
    """The run that made a file: as given, or by the name in the file's receipt, here or in runs/."""
    told = receipt_in(file)
    if told is not None and "picture" not in told:
        raise SfumatoError(f"{shown(file)} is a sheet of pictures: draw single ones, with sfumato sample --out DIR")
    if given is not None:
        return Run(Path(given))
    name = (told or {}).get("model")
    if not isinstance(name, str):
        raise SfumatoError(f"{shown(file)} does not say which model made it: name its run folder with --run")
    found = [place for place in beside(name) if (place / "run.json").exists()]
    if not found:
        raise SfumatoError(
            f"{shown(file)} was made by {shown(name)}, which is not here: name its run folder with --run"
        )
    return Run(found[0])


def _read(file: Path, gallery: Gallery) -> Tensor:
    """The picture as one of the gallery's, cropped and resized by the same rule: x0 [1, C, H, W]."""
    channels, height, width = gallery.source.codec.spec
    try:
        pixels = read(file, (height, width))
    except Unusable as error:
        raise SfumatoError(f"{shown(file)} cannot be used: {error}") from error
    return gallery.source.codec.encode((luma(pixels) if channels == 1 else pixels)[None].copy())


def _words(found: dict[str, Any], below: float) -> str:
    """The verdict; `below` is the share of pictures never seen that lie nearer to the training pictures than this one."""
    first = found["neighbours"][0]
    if found["copied"]:
        return f"a copy of the training picture {shown(first['file'])}"
    scale = f"{below:.0%} of the pictures that the model has not seen lie nearer to a training picture"
    if below < 0.01:
        return f"no copy by the rule, but unusually near to {shown(first['file'])}: {scale}"
    return f"no copy: {scale} than this one"


def _draw(out: Path, gallery: Gallery, x0: Tensor, rows: Tensor) -> Path:
    """The picture and its nearest training pictures, side by side."""
    decode = gallery.source.codec.decode
    pictures: list[Image.Image] = [*decode(x0), *decode(gallery.source.batch(rows).x0)]
    try:
        grid_image(pictures, columns=len(pictures)).save(out)
    except (OSError, ValueError) as error:  # ValueError: a name without a known ending
        raise SfumatoError(f"cannot write {shown(out)}: {error}") from error
    return out
