"""What a request says of the picture -> the conditions of each of its n pictures."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sfumato.core import Cond, Noise, SfumatoError, Slot
from sfumato.data import micro
from sfumato.data.encoders import Encoder, text_slot
from sfumato.settings import from_dict

if TYPE_CHECKING:
    from sfumato.tasks.carry import Request
    from sfumato.tasks.model import Model


def conditions(model: Model, request: Request, drawn: bool = True) -> tuple[Cond, list[str]]:
    """The slots of all n pictures, and what each was asked to show; SfumatoError for what this model cannot do.

    A class or caption that the request leaves open is `drawn` for each picture, or stays open.
    """
    slots: dict[str, Slot] = {}
    captions: list[str] = []
    if model.classes and (request.class_name is not None or (drawn and request.prompt is None)):
        rows = _classes(model, request)
        slots["class"] = Slot(rows, "vector")
        captions = [model.classes[k] for k in rows.tolist()]
    elif request.class_name is not None:
        raise SfumatoError("this model was trained without classes: leave --class away")
    rows = None
    if model.conditioned_on("text") and (drawn or request.prompt is not None):
        captions, rows = _captions(model, request)
        slots["text"] = encode_text(model, captions)
    elif request.prompt is not None:
        raise SfumatoError("this model was trained without captions: leave --prompt away")
    if request.style is not None:
        slots["style"] = Slot(_named(request.style, model.styles, "style", request.n), "vector")
    elif model.styles and rows is not None and model.facts.get("caption_styles"):
        slots["style"] = Slot(torch.tensor(model.facts["caption_styles"])[rows], "vector")
    return Cond(slots | _micro(model, request)), captions


def _micro(model: Model, request: Request) -> dict[str, Slot]:
    """As if every picture had come large and whole, where nothing else is asked."""
    slots = {}
    if model.conditioned_on("size"):
        size = request.original or model.facts["data"]["largest"]
        slots["size"] = micro.size_slot([None if size is None else (size[0], size[1])] * request.n)
    elif request.original is not None:
        raise SfumatoError("this model was trained without the condition size: leave the original size away")
    if model.conditioned_on("crop"):
        slots["crop"] = micro.crop_slot([(0.0, 0.0)] * request.n)
    return slots


def against(model: Model, request: Request) -> Cond:
    """What the pictures should not show, one row; empty where nothing is said."""
    if request.negative is None:
        return Cond()
    if not model.conditioned_on("text") or request.guidance == 1.0:
        raise SfumatoError("what should not be seen needs a model trained with captions, and --guidance above 1")
    return Cond({"text": encode_text(model, [request.negative])})


def encode_text(model: Model, captions: list[str]) -> Slot:
    """Captions as this model reads them: in words of its own, or by the frozen encoder that it learned with.

    Raises SfumatoError when that encoder is not where it was, or is another one.
    """
    told = model.facts.get("recipe", {}).get("encoder")
    return text_slot(None if told is None else from_dict(Encoder, told), captions)


def _drawn(request: Request, stream: int) -> Tensor:
    """A uniform number [n] per picture, of its own stream."""
    return Noise.of(request.seed, request.n, request.first).at(stream).uniform((request.n,))


def _captions(model: Model, request: Request) -> tuple[list[str], Tensor | None]:
    """The prompt of every picture, or training captions drawn per picture and their rows."""
    if isinstance(request.prompt, str):
        return [request.prompt] * request.n, None
    if request.prompt is not None:
        return list(request.prompt), None
    known = model.facts["captions"] or [""]
    rows = (_drawn(request, -3) * len(known)).long()
    return [known[k] for k in rows.tolist()], rows if model.facts["captions"] else None


def _classes(model: Model, request: Request) -> Tensor:
    """The asked class for every picture, or classes drawn per picture as often as the data has them."""
    names = model.classes
    if request.class_name is not None:
        return _named(request.class_name, names, "class", request.n)
    counts = torch.tensor([model.facts["data"]["class_counts"][name] for name in names], dtype=torch.float32)
    return torch.searchsorted(counts.cumsum(0) / counts.sum(), _drawn(request, -2)).clamp_max(len(names) - 1)


def _named(name: str, names: tuple[str, ...], kind: str, n: int) -> Tensor:
    """The number of a name n times; SfumatoError lists the known ones, the nearest first."""
    if not names:
        raise SfumatoError(f"this model was trained without any {kind}: leave --{kind} away")
    if name not in names:
        near = difflib.get_close_matches(name, names, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise SfumatoError(f"no {kind} {name[:40]!r}{hint}; known: {', '.join(names)}")
    return torch.full((n,), names.index(name))
