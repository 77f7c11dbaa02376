"""A picture made again from its receipt: the same bits, or what differs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from sfumato.core import SfumatoError
from sfumato.data.records import shown
from sfumato.measure.grids import brought, grid_image
from sfumato.tasks.blend import blend
from sfumato.tasks.carry import Request, Result
from sfumato.tasks.generate import generate
from sfumato.tasks.inpaint import inpaint
from sfumato.tasks.layout import layout
from sfumato.tasks.model import Model
from sfumato.tasks.outpaint import outpaint
from sfumato.tasks.receipt import fingerprint, machine, pixels_of, receipt_in
from sfumato.tasks.recorded import identity
from sfumato.tasks.sampling import FEW
from sfumato.tasks.sketch import sketch
from sfumato.tasks.tile import tile
from sfumato.tasks.upscale import upscale
from sfumato.tasks.vary import vary
from sfumato.tasks.verify import decoded

TASKS: dict[str, Callable[..., Result]] = {
    task.__name__: task for task in (inpaint, outpaint, upscale, layout, sketch, vary, blend, tile)
}
MOST = 1024  # pictures of one request


@dataclass(frozen=True)
class Again:
    """The picture as it is drawn now; whether it is `identical` to what was written, bit for bit; what `differs` that bits
    depend on; and the largest difference of a pixel to the file's own (of 255; None where they cannot be compared)."""

    image: Image.Image
    identical: bool
    differs: tuple[str, ...]
    apart: int | None


def followed(file: str | Path) -> dict[str, Any]:
    """The receipt of a file. Raises SfumatoError for a file that cannot be read or has none that could be followed."""
    told = receipt_in(file)
    if told is None:
        raise SfumatoError(f"{shown(file)} carries no receipt of ours, so nothing says how to make it again")
    if told.get("cut") or not isinstance(told.get("request"), dict) or not isinstance(told.get("model"), str):
        raise SfumatoError(f"the receipt of {shown(file)} is not whole: it does not say all that was asked for")
    return told


def reproduce(file: str | Path, model: Model, parents: Sequence[str | Path | Image.Image] = ()) -> Again:
    """The picture of a file made again by this model, as its receipt says; an edit needs the pictures it was made from.

    Raises SfumatoError for a file without a receipt, a parent that is missing, and what this model cannot do.
    """
    told = followed(file)
    found = decoded(file)
    try:
        image = _drawn(model, told, parents)
    except (TypeError, ValueError, LookupError, AttributeError) as error:  # whoever wrote it, it is no receipt of ours
        raise SfumatoError(f"the receipt of {shown(file)} cannot be followed ({str(error)[:80]})") from error
    same = found.size == image.size and found.mode == image.mode
    apart = int(np.abs(np.asarray(found, dtype=int) - np.asarray(image, dtype=int)).max()) if same else None
    identical = told.get("pixels") == pixels_of(image)
    return Again(image, identical, tuple(_differs(model, told)), apart)


def _differs(model: Model, told: dict[str, Any]) -> list[str]:
    found = [] if fingerprint(model) == told.get("weights") else ["the weights are those of another model"]
    was = told.get("machine")
    was = was if isinstance(was, dict) else {}
    for name, now in machine().items():
        if was.get(name) != now:
            found.append(f"{name}: {str(was.get(name))[:40]} then, {now} now")
    return found


def _drawn(model: Model, told: dict[str, Any], parents: Sequence[str | Path | Image.Image]) -> Image.Image:
    number, name = told.get("picture"), told.get("task", "generate")
    if name == "generate":
        request, number = _request(told["request"], number)
        result = generate(model, request)
    elif name in TASKS and isinstance(told.get("options"), dict):
        result = TASKS[name](model, **_plain(told["options"]), **_parents(told.get("parents", {}), parents))
    else:
        raise SfumatoError(
            "the receipt does not tell how this picture can be made again: it was changed after its drawing"
        )
    images = [brought(image, told.get("brought")) for image in result.images]
    return grid_image(images) if number is None else images[number]


def _request(told: dict[str, Any], number: int | None) -> tuple[Request, int | None]:
    """What is drawn again, and which of its pictures is looked at (None: a sheet of all). One of a few is drawn alone, which
    makes the same bits; one of many is drawn among all of them, as it was."""
    request = Request(**_plain(told))
    if request.n > MOST:
        raise SfumatoError(f"the receipt tells of {request.n:,} pictures and {MOST:,} are the most that are made again")
    if number is None:
        return request, None
    if not 0 <= number < request.n:
        raise SfumatoError(f"the receipt is of picture {number} of {request.n}")
    if request.n > FEW:
        return request, number
    prompt = request.prompt[number] if isinstance(request.prompt, tuple) else request.prompt
    return dataclasses.replace(request, n=1, first=request.first + number, prompt=prompt), 0


def _plain(told: dict[str, Any]) -> dict[str, Any]:
    """JSON knows no tuples, and no option is a list."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in told.items()}


def _parents(told: dict[str, list[str]], given: Sequence[str | Path | Image.Image]) -> dict[str, Any]:
    """The arguments of a task that are pictures, found among the given ones by what they show."""
    known = {identity(picture): picture for picture in given}
    found: dict[str, Any] = {}
    for name, wanted in told.items():
        for each in wanted:
            if each not in known:
                raise SfumatoError(
                    f"this was made from another picture ({name}): give it with --parent, unchanged ({len(given)} given)"
                )
        pictures = [known[each] for each in wanted]
        found[name] = pictures if name == "images" else pictures[0]
    return found
