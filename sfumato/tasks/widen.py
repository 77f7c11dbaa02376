"""A trained model and new data made to speak of the same things: the same channels, the same classes and styles."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sfumato.core import SfumatoError
from sfumato.data import Source
from sfumato.settings import from_dict, to_dict
from sfumato.train import Recipe, load_weights

if TYPE_CHECKING:
    from sfumato.tasks.model import Model

# slot: where run.json and a source keep its names, and where a source keeps which name each picture has
NAMED = {"class": ("classes", "labels"), "style": ("styles", "style_labels")}


def names_of(model: Model, slot: str) -> tuple[str, ...]:
    """What the numbers of this slot mean to the model; () when it was not built for the slot."""
    return tuple(model.facts.get(NAMED[slot][0], ())) if model.conditioned_on(slot) else ()


def aligned(source: Source, names: dict[str, Sequence[str]]) -> Source:
    """The source with its classes and styles numbered as in `names` (by slot): known names first, new ones after.

    Pictures without a style are of one style, named in their column "style" or after the source; so are those without a
    class and a caption of one class.
    """
    changes: dict[str, object] = {}
    for slot, known in names.items():
        field, labels = NAMED[slot]
        own, numbers = tuple(getattr(source, field, ())), getattr(source, labels, None)
        if numbers is None and (slot == "style" or source.captions is None):
            own, numbers = (_only_name(source, slot),), torch.zeros(len(source), dtype=torch.int64)
        if numbers is None:
            continue
        every = (*known, *(name for name in own if name not in known))
        place = torch.tensor([*(every.index(name) for name in own), -1])  # the last answers for -1: not known
        changes |= {field: every, labels: place[numbers]}
    return dataclasses.replace(source, **changes)


def _only_name(source: Source, slot: str) -> str:
    told = {str(value) for value in source.columns.get(slot, ()) if value is not None}
    return told.pop() if len(told) == 1 else source.name


def check(model: Model, source: Source) -> None:
    """SfumatoError when these pictures cannot teach this model: colour for grey, or nothing that says what they show."""
    if model.codec.spec[0] == 1 and source.codec.channels == 3:
        raise SfumatoError(
            "this model draws grey pictures and these are in colour: make them grey, or train a new model"
        )
    if model.conditioned_on("text") and not source.captioned:
        raise SfumatoError(
            "this model is told what to draw by captions and these pictures have none: add a metadata.csv with the "
            "columns file_name and text"
        )


def widened(model: Model, source: Source) -> Model:
    """The same model with a place for every class and style of an `aligned` source.

    A new place begins as the absent condition, with which the model was trained too: nothing it draws changes.
    """
    recipe = from_dict(Recipe, model.facts["recipe"])
    weights, facts = dict(model.denoiser.named_parameters()), dict(model.facts)
    slots = []
    for spec in recipe.net.slots:
        names = getattr(source, NAMED[spec.name][0], ()) if spec.name in NAMED else ()
        if len(names) > spec.size:
            key = f"net.conditioner.encoders.{spec.name}.weight"
            weights[key] = _longer(weights[key], len(names))
            spec = dataclasses.replace(spec, size=len(names))
            facts[NAMED[spec.name][0]] = list(names)
        slots.append(spec)
    recipe = dataclasses.replace(recipe, net=dataclasses.replace(recipe.net, slots=tuple(slots)))
    denoiser = recipe.build()
    load_weights(denoiser, weights)
    denoiser.eval().requires_grad_(False)
    return dataclasses.replace(model, denoiser=denoiser, facts=facts | {"recipe": to_dict(recipe)})


def _longer(table: Tensor, size: int) -> Tensor:
    """Rows [n + 1, width] for n names and their absence (the last) -> [size + 1, width], new names like the absence."""
    absent = table[-1:].detach()
    return torch.cat([table[:-1].detach(), absent.expand(size + 2 - len(table), -1)])
