"""What all edits have in common: their request, and a plan for a canvas of any size."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from PIL import Image
from torch import Tensor

from sfumato.core import Cond, SfumatoError, Slot
from sfumato.guide import Guide, windows
from sfumato.guide.windows import MOST
from sfumato.tasks.asked import GUIDANCE
from sfumato.tasks.carry import Plan, Request
from sfumato.tasks.generate import plan
from sfumato.train.machine import available_memory

if TYPE_CHECKING:
    from sfumato.data.shapes import Shape
    from sfumato.tasks.model import Model

TENSORS = 14  # of the canvas's size that a walk holds at once, with four more for each picture of the request
FEW = 8
ON_WHITE = "transparency is laid on white"


def requested(model: Model, shape: Shape, options: dict[str, Any], words: bool = False, held: int = 0) -> Request:
    """The request of an edit on a canvas of this shape: one picture where nothing is said, and guidance where there are
    `words` or a prompt; `held` are pixels of pictures that the canvas is only a part of.

    Raises SfumatoError when the pictures do not fit into memory, with the size that does.
    """
    made = model.facts.get("sampling")  # a model made by distilling has its guidance learned in
    usual = GUIDANCE if made is None else made.get("guidance", 1.0)
    words = words or (model.conditioned_on("text") and options.get("prompt") is not None)
    request = Request(**{"n": 1, "guidance": usual if words else 1.0} | options, shape=shape)
    check_memory(model, shape, request.n, held)
    return request


def check_memory(model: Model, shape: Shape, n: int, held: int = 0) -> None:
    """SfumatoError when n pictures on a canvas of this shape do not fit into memory, with the size that does."""
    need = math.prod(shape) * model.codec.spec[0] * 4 * (TENSORS + 4 * n) + 4 * n * held
    free = 0.8 * available_memory()
    if need > free:
        step = model.denoiser.net.config.multiple
        height, width = (int(side * math.sqrt(free / need)) // step * step for side in shape)
        raise SfumatoError(
            f"{n} picture(s) of {shape[1]}x{shape[0]} need about {need / 1e9:.1f} GB of memory and {free / 1e9:.1f} "
            f"GB are free: up to about {width}x{height} fits"
        )


def edited(
    model: Model,
    request: Request,
    slots: Cond = Cond(),  # noqa: B008
    *,
    needed: Tensor | None = None,
    overlap: int | None = None,
    align: int = 1,
    circular: bool = False,
    said: tuple[str, ...] = (),
    inner: tuple[Guide, ...] = (),
) -> Plan:
    """The plan of a request on its canvas, with the task's own trained `slots` (one row, for all pictures).

    Nothing is told that the request does not say. A canvas larger than the pictures that the model learned from is drawn
    in windows of their size (`needed`, `overlap`, `align`, `circular` as there), each with the `inner` guides. `said`:
    notes of before.
    """
    slots = Cond({name: _for_all(slot, request.n) for name, slot in slots.items()})
    planned = plan(replace(model, watch=None), request, False, slots)
    watch = () if model.watch is None else (model.watch,)  # sees the whole canvas, not its windows
    guides = (*planned.guides, *inner)
    planned = replace(planned, guides=guides, observed=watch, by="slot" if slots else None, notes=said)
    if not windowed(model, request.shape) and not circular:
        return planned
    h, w = model.shapes[0]
    most = FEW if inner else MOST  # inner guides keep what the network remembers of every window of a call
    window = windows((h, w), overlap, needed=needed, align=align, circular=circular, most=most)
    note = () if circular else (f"drawn in overlapping windows of {w}x{h} pixels, the size that the model learned",)
    return replace(planned, guides=(*guides, window), notes=(*said, *note))


def windowed(model: Model, shape: Shape) -> bool:
    """Whether a canvas is larger than all pictures that the model learned from."""
    return not any(shape[0] <= height and shape[1] <= width for height, width in model.shapes)


def _for_all(slot: Slot, n: int) -> Slot:
    """One row for n pictures, without copying."""
    mask = None if slot.mask is None else slot.mask.expand(n, *slot.mask.shape[1:])
    return Slot(slot.value.expand(n, *slot.value.shape[1:]), slot.role, mask)


def instead(planned: Plan, slot: str, *guides: Guide, note: str = "a training-free guide does what it can") -> Plan:
    """The plan with guides in place of a slot that the model was not trained with, and the user told so."""
    notes = (*planned.notes, f"this model was trained without the condition {slot!r}: {note}")
    return replace(planned, observed=(*guides, *planned.observed), by="guide", notes=notes)


def cut(images: list[Image.Image], size: tuple[int, int]) -> list[Image.Image]:
    """The pictures without what was added to their right and bottom."""
    return [image if image.size == size else image.crop((0, 0, *size)) for image in images]


def nearest(model: Model, width: int, height: int) -> Shape:
    """That of the model's shapes (height, width) whose proportions are nearest."""
    return min(model.shapes, key=lambda own: abs(math.log(own[0] * width / own[1] / height)))
