"""What a model knows, kept while it learns something else: pictures it draws itself are learned beside the new ones."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from sfumato.core import Cond, Noise, SfumatoError, Slot
from sfumato.data import Source
from sfumato.data.hygiene import COLUMN, ai_marks
from sfumato.guide import bind
from sfumato.reverse import pick_solver, sample
from sfumato.tasks.conditions import encode_text
from sfumato.tasks.generate import CHUNK, Request
from sfumato.tasks.sampling import settled, times_of
from sfumato.tasks.widen import NAMED

if TYPE_CHECKING:
    from sfumato.tasks.model import Model

DRAWN = "drawn"  # the column by which new and rehearsed pictures come equally often
SEED = 20260102


def rehearse(model: Model, n: int, path: Path, progress: Callable[[int, int], None] = lambda done, n: None) -> None:
    """Draw n pictures of what the model was trained to draw, unguided, into one file (Ruiz et al. 2023, "DreamBooth",
    prior preservation): captions of its training with their styles where it reads captions, else its classes and styles."""
    noise, told = Noise.of(SEED, n), {}
    request = settled(model, Request(n=n))
    slots, tensors = {}, {}
    if model.conditioned_on("text"):
        known = model.facts["captions"] or [""]
        drawn = (noise.at(-3).uniform((n,)) * len(known)).long().clamp_max(len(known) - 1)
        told["captions"] = [known[k] for k in drawn.tolist()]
        slots["text"] = encode_text(model, told["captions"])
    for k, (slot, (field, labels)) in enumerate(NAMED.items()):
        names = model.facts.get(field, [])
        if not model.conditioned_on(slot) or not names:
            continue
        if "text" not in slots:
            tensors[labels] = (noise.at(-4 - k).uniform((n,)) * len(names)).long().clamp_max(len(names) - 1)
        elif slot == "style" and model.facts.get("caption_styles"):
            tensors[labels] = torch.tensor(model.facts["caption_styles"])[drawn]  # that of the picture so captioned
        if labels in tensors:
            slots[slot] = Slot(tensors[labels].clamp_min(0), "vector", tensors[labels] >= 0)
    cond, parts = Cond(slots), []
    for first in range(0, n, CHUNK):
        rows = slice(first, min(first + CHUNK, n))
        denoise = bind(model.denoiser, cond.take(rows))
        own = Noise(noise.seeds[rows])
        shape = (rows.stop - first, *model.codec.spec)
        x0 = sample(denoise, shape, own, pick_solver(request.solver), times_of(model, request))
        parts.append(torch.from_numpy(model.codec.pixels(x0)))
        progress(rows.stop, n)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({"pixels": torch.cat(parts), **tensors}, path, metadata={"sfumato": json.dumps(told)})


def joined(source: Source, path: Path) -> Source:
    """The source and the rehearsed pictures of `path`, drawn equally often by `Balance(column=DRAWN)`, none of the latter
    held out: what is measured while training is measured on the source's own pictures."""
    try:
        with safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}
            captions = json.loads(file.metadata()["sfumato"]).get("captions")
    except (OSError, SafetensorError, ValueError, TypeError, KeyError) as error:
        raise SfumatoError(f"{path} cannot be read ({error}): begin the run anew") from error
    rows = torch.arange(len(tensors["pixels"]))
    whole = _with(source, tensors, captions, rows)
    held = whole.validation_index
    rows = rows[~torch.isin(rows + len(source), held)]
    return _with(source, tensors, captions, rows)


def _with(source: Source, tensors: dict[str, Tensor], captions: list[str] | None, rows: Tensor) -> Source:
    count, chosen = len(rows), rows.tolist()
    marks = [*ai_marks(source).tolist(), *[True] * count]
    columns: dict[str, list[Any]] = {name: [*values, *[None] * count] for name, values in source.columns.items()}
    shares = [1 / len(source)] * len(source) + [1 / max(1, count)] * count
    changes: dict[str, Any] = {
        "pixels": np.concatenate([source.pixels, tensors["pixels"][rows].numpy()]),
        "keys": (*source.keys, *(f"rehearsed/{k}" for k in chosen)),
        "columns": {**columns, COLUMN: marks, DRAWN: shares},
        "notes": {**source.notes, "rehearsed": count},
        "own": {control: own.longer(count) for control, own in source.own.items()},
    }
    if getattr(source, "groups", None) is not None:
        changes["groups"] = (*source.groups, *changes["keys"][len(source) :])
    if source.sizes is not None:
        changes["sizes"] = torch.cat([source.sizes, torch.zeros(count, 2, dtype=source.sizes.dtype)])
    if source.captions is not None:
        changes["captions"] = [*source.captions, *([captions[k] for k in chosen] if captions else [""] * count)]
    for _, labels in NAMED.values():
        own, absent = getattr(source, labels, None), torch.full((count,), -1)
        if own is not None or labels in tensors:
            before = torch.full((len(source),), -1) if own is None else own
            changes[labels] = torch.cat([before, tensors[labels][rows] if labels in tensors else absent])
    return replace(source, **changes)
