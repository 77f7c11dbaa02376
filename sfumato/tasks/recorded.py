"""How a task was asked for, kept with what came of it: its options, and which pictures it was given."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from sfumato.data.layout import Layout, read_layout
from sfumato.tasks.canvas import read_picture

if TYPE_CHECKING:
    from sfumato.tasks.carry import Result

PICTURES = ("image", "images", "mask", "sketch", "colours")  # arguments that are pictures, in whatever task
UNSAID = ("model", "progress")


@dataclass(frozen=True)
class Call:
    """How a task was called: options as JSON has them, and for every argument that is pictures, their `identity`."""

    options: dict[str, Any]
    parents: dict[str, list[str]]


def identity(picture: Any) -> str:
    """SHA-256 of a picture's size and pixels as they are seen: the same for every file and object that shows the same.

    A path, a picture of Pillow's, or an array bool [H, W] (true is white). Raises SfumatoError for what is no picture.
    """
    if isinstance(picture, np.ndarray):
        picture = Image.fromarray(picture.astype(bool)).convert("L")
    seen = read_picture(picture, 3).convert("RGBA")
    return sha256(f"{seen.width}x{seen.height}".encode() + seen.tobytes()).hexdigest()


def recorded(task: Callable[..., Result]) -> Callable[..., Result]:
    """The same task, whose results say how it was called (`Result.call`), so that they can be made again."""
    signature = inspect.signature(task)

    @functools.wraps(task)
    def told(*args: Any, **kwargs: Any) -> Result:
        result = task(*args, **kwargs)
        bound = signature.bind(*args, **kwargs).arguments
        said = {**bound, **bound.get("options", {})}
        options: dict[str, Any] = {}
        parents: dict[str, list[str]] = {}
        for name, value in said.items():
            if name in (*UNSAID, "options") or value is None:
                continue
            if name == "layout":
                options[name] = _plain(value)
            elif name in PICTURES:
                several = value if isinstance(value, Sequence) and not isinstance(value, str) else [value]
                parents[name] = [identity(one) for one in several]
            else:
                options[name] = value
        return dataclasses.replace(result, call=Call(options, parents))

    return told


def _plain(layout: Layout | dict[str, Any] | str | os.PathLike) -> dict[str, Any]:
    """A layout as its file would say it."""
    if isinstance(layout, dict):
        return layout
    found = layout if isinstance(layout, Layout) else read_layout(layout)
    boxes = [{"box": list(box[:4]), "text": box.text} for box in found.boxes]
    told = {"width": found.width, "height": found.height, "boxes": boxes}
    return told | ({"background": found.background} if found.background else {})
