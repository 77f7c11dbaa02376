"""Models that draw from prompts, ours and the peer's, behind one method; and a store of what they have drawn."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from benchmarks.text_prompts import Asked
from sfumato.core import Cond, Noise, Slot
from sfumato.data.files import digest
from sfumato.guide import bind, with_guides
from sfumato.reverse import pick_solver, sample
from sfumato.tasks import Model, Request, load
from sfumato.tasks.conditions import conditions
from sfumato.tasks.generate import plan
from sfumato.tasks.sampling import settled
from sfumato.train import Run

CHUNK = 32  # pictures drawn at once, and kept in one file


class Drawer(Protocol):
    """Pictures for prompts: picture k depends on its prompt, its style and (seed, first + k) alone."""

    facts: dict[str, Any]
    identity: str

    def draw(self, prompts: Sequence[str], styles: Sequence[str | None], seed: int, first: int = 0) -> Tensor: ...


def joined(conds: Sequence[Cond]) -> Cond:
    """Conditions of single pictures as those of one batch: what some lack is masked, tokens are padded to the longest."""
    slots = {}
    for name in dict.fromkeys(name for cond in conds for name in cond):
        given = next(cond[name] for cond in conds if name in cond)
        parts = [cond[name] if name in cond else given.null() for cond in conds]
        masks, values = [part.present() for part in parts], [part.value for part in parts]
        if given.role == "tokens":
            most = max(value.shape[1] for value in values)
            masks = [torch.nn.functional.pad(mask, (0, most - mask.shape[1])) for mask in masks]
            values = [_longer(value, most) for value in values]
        slots[name] = Slot(torch.cat(values), given.role, torch.cat(masks))
    return Cond(slots)


def _longer(value: Tensor, length: int) -> Tensor:
    """Tokens [1, N, ...] with zeros up to `length`."""
    more = value.new_zeros(1, length - value.shape[1], *value.shape[2:])
    return torch.cat([value, more], 1)


class Ours:
    """A run folder or an exported file of ours; `options` are fields of `Request`, such as steps and guidance."""

    def __init__(self, path: Path, options: dict[str, Any]) -> None:
        self.model: Model = load(path)
        self.options = options
        log = Run(path).rows() if path.is_dir() else []
        self.facts: dict[str, Any] = {
            "kind": "sfumato",
            "parameters": sum(p.numel() for p in self.model.denoiser.parameters()),
            "training": {k: log[-1][k] for k in ("seconds", "images", "step")} if log else {},
            "drawn": options,
        }
        weights = [[k, blake2b(_bytes(p)).hexdigest()] for k, p in self.model.denoiser.named_parameters()]
        self.identity = hash_of([weights, options])

    def request(self, prompt: str, style: str | None, seed: int, place: int) -> Request:
        """The request for one prompt, as the command line would make it."""
        told = {"style": style} if style is not None and self.model.conditioned_on("style") else {}
        asked = Request(n=1, seed=seed, first=place, prompt=prompt, **told, **self.options)
        return settled(self.model, asked)

    def draw(self, prompts: Sequence[str], styles: Sequence[str | None], seed: int, first: int = 0) -> Tensor:
        asked = enumerate(zip(prompts, styles, strict=True), first)
        requests = [self.request(prompt, style, seed, k) for k, (prompt, style) in asked]
        planned = plan(self.model, requests[0])  # guides and times are the same for all
        cond = joined([conditions(self.model, request)[0] for request in requests])
        codec, noise = self.model.codec_of(None), Noise.of(seed, len(requests), first)
        denoise = bind(with_guides(self.model.denoiser, *planned.guides), cond)
        x0 = sample(denoise, (len(requests), *codec.spec), noise, pick_solver(requests[0].solver), planned.grid)
        return codec.scaled(x0)


def hash_of(value: Any) -> str:
    return blake2b(json.dumps(value, sort_keys=True).encode(), digest_size=8).hexdigest()


def _bytes(p: Tensor) -> bytes:
    return p.detach().reshape(-1).view(torch.uint8).numpy().tobytes()


def open_model(path: Path, options: dict[str, Any]) -> Drawer:
    """A run of ours or a peer's folder, by what lies there."""
    from benchmarks.text_peer import FILE, Peer

    return Peer(path, options["guidance"]) if (path / FILE).exists() else Ours(path, options)


@dataclass(frozen=True)
class Store:
    """What has been drawn, as uint8 in files of CHUNK pictures: an interrupted benchmark draws nothing twice."""

    folder: Path

    def pictures(self, model: Drawer, asked: Asked, seed: int) -> Tensor:
        """x0 [N, C, H, W] in [-1, 1] (to 8 bits) for these prompts, read or drawn now."""
        key = hash_of([model.identity, asked.prompts, asked.styles, seed, CHUNK])
        parts = []
        for first in range(0, len(asked), CHUNK):
            path = self.folder / f"{key}-{first:05d}.npy"
            if not path.exists():
                here = slice(first, first + CHUNK)
                x0 = model.draw(asked.prompts[here], asked.styles[here], seed, first)
                self._write(path, x0.add(1).mul(127.5).round().clamp(0, 255).to(torch.uint8).numpy())
            parts.append(torch.from_numpy(np.load(path, allow_pickle=False)))
        return torch.cat(parts).float() / 127.5 - 1

    def _write(self, path: Path, pixels: np.ndarray) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        scratch = path.with_suffix(f".{os.getpid()}.tmp")
        with scratch.open("wb") as file:
            np.save(file, pixels)
        os.replace(scratch, path)


def file_identity(path: Path) -> str:
    return digest(path, 8)
