"""Many edits at once: the same plans as those of sfumato.tasks, for a batch of different pictures.

A task edits one picture; here 32 share every network call. Row k is what the task draws for picture k with `first=k`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from benchmarks.canvas_peers import pixels, tensor
from sfumato.core import Cond, Noise
from sfumato.data.controls import known_slot, lowres_slot
from sfumato.guide import Downsample, Guide, Mask, observe, observe_linear, observe_through
from sfumato.reverse import UpAndDown, pick_grid
from sfumato.tasks import Model, Request
from sfumato.tasks.asked import GUIDANCE
from sfumato.tasks.carry import Plan, carry_out
from sfumato.tasks.editing import edited
from sfumato.tasks.inpaint import SOLVES
from sfumato.tasks.upscale import consistent

SEED, CHUNK, TIMES = 0, 32, 5
SLOT, THROUGH, REPLACED, REPAINT, DDNM = (
    "trained slot",
    "through the network",
    "replacement",
    f"RePaint x{TIMES}",
    "DDNM",
)


@dataclass(frozen=True)
class Many:
    """Conditions and guides of n pictures; `times` walks every move up and down so often (RePaint)."""

    slots: Cond
    guides: tuple[Guide, ...] = ()
    times: int = 1
    name: str = "many"

    def plan(self, model: Model, request: Request) -> Plan:
        planned = edited(model, request, self.slots)
        grid = planned.grid
        if self.times > 1:
            assert request.steps is not None and request.grid is not None
            grid = UpAndDown(self.times, 1, pick_grid(request.grid))(request.steps, model.denoiser.process)
        return replace(planned, observed=(*self.guides, *planned.observed), grid=grid)

    def finish(self, model: Model, x0: Tensor, request: Request) -> list[Image.Image]:
        return []


def to_model(model: Model, x0: Tensor) -> Tensor:
    """Pictures in [-1, 1] as the model's own x0 of this size."""
    images = [Image.fromarray(p.squeeze(-1) if p.shape[-1] == 1 else p) for p in pixels(x0)]
    return model.codec.sized(*x0.shape[2:]).encode(images)


@dataclass(frozen=True)
class Ways:
    """The ways in which a model edits; `options` are fields of `Request`."""

    model: Model
    options: dict[str, object]

    def inpainting(self) -> tuple[str, ...]:
        """Those for holes: the trained slot where the model has one, and the guides."""
        return (*((SLOT,) if self.model.conditioned_on("known") else ()), THROUGH, REPAINT, REPLACED)

    def enlarging(self) -> tuple[str, ...]:
        return (*((SLOT,) if self.model.conditioned_on("lowres") else ()), THROUGH, DDNM)

    def inpaint(self, way: str, real: Tensor, fill: Tensor, first: int) -> tuple[Tensor, int]:
        """Pictures with `fill` (bool [N, 1, H, W]) drawn anew, in 8 bits, and network calls."""
        x0, keep, seen = to_model(self.model, real), ~fill, tensor(pixels(real))
        slots = Cond({"known": known_slot(seen, keep)}) if way == SLOT else Cond()
        guide = observe_through(Mask(keep), x0, solves=SOLVES) if way == THROUGH else observe(keep, x0)
        more: dict[str, object] = {"solver": "ddpm"} if way == REPAINT else {}
        made, calls = self._drawn(Many(slots, (guide,), TIMES if way == REPAINT else 1), real.shape, first, more)
        return tensor(pixels(torch.where(fill, made, seen))), calls

    def enlarge(self, way: str, small: Tensor, scale: int, first: int) -> tuple[Tensor, int]:
        """Small pictures of 8 bits `scale` times as large, in 8 bits, and network calls."""
        x0, down = to_model(self.model, small), Downsample(scale)
        shape = (*small.shape[:2], *(side * scale for side in small.shape[2:]))
        slots = Cond({"lowres": lowres_slot(small, shape[2:])}) if way == SLOT else Cond()
        guides = {SLOT: (), THROUGH: (observe_through(down, x0),), DDNM: (observe_linear(down, down.pinv, x0),)}[way]
        made, calls = self._drawn(Many(slots, guides), shape, first, {})
        return tensor(pixels(consistent(made, small, scale))), calls

    def together(
        self,
        slots: Cond,
        guides: tuple[Guide, ...],
        shape: torch.Size,
        first: int,
        prompts: tuple[str, ...] | None,
        words: bool,
    ) -> tuple[Tensor, int]:
        """Pictures with all these conditions at once, and network calls; guided where there are `words`."""
        made = self.model.facts.get("sampling", {})
        guidance = made.get("guidance", 1.0) if made else GUIDANCE
        more = {"prompt": prompts, "guidance": guidance if words else 1.0}
        return self._drawn(Many(slots, guides), shape, first, more)

    def _drawn(self, many: Many, shape: tuple[int, ...], first: int, more: dict[str, object]) -> tuple[Tensor, int]:
        options = {**self.options, **more}
        request = Request(n=shape[0], seed=SEED, first=first, shape=(shape[2], shape[3]), **options)
        result = carry_out(self.model, many, request)
        return result.x0, result.network_calls


@dataclass(frozen=True)
class Kept:
    """What has been drawn, as uint8 in files of CHUNK pictures: an interrupted benchmark draws nothing twice."""

    folder: Path

    def pictures(self, key: str, n: int, draw: Callable[[slice], tuple[Tensor, int]]) -> tuple[Tensor, int, float]:
        """x0 [n, C, H, W], network calls and seconds per picture, read or drawn now."""
        parts, seconds, calls = [], 0.0, 0
        for first in range(0, n, CHUNK):
            path = self.folder / f"{key}-{first:05d}.npz"
            if not path.exists():
                began = time.perf_counter()
                made, called = draw(slice(first, min(first + CHUNK, n)))
                self._write(path, pixels(made), called, time.perf_counter() - began)
            with np.load(path, allow_pickle=False) as file:
                parts.append(tensor(file["pixels"]))
                seconds, calls = seconds + float(file["seconds"]), int(file["calls"])
        return torch.cat(parts), calls, seconds / n

    def _write(self, path: Path, drawn: np.ndarray, calls: int, seconds: float) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch = path.with_suffix(f".{os.getpid()}.tmp")
        with scratch.open("wb") as file:
            np.savez(file, pixels=drawn, calls=calls, seconds=seconds)
        os.replace(scratch, path)


def masks(n: int, shape: tuple[int, int]) -> dict[str, Tensor]:
    """What is filled of each of n pictures, bool [n, 1, H, W]: the middle half of both sides, the right half, three
    strokes of its own for every picture, and all but the middle half of both sides."""
    height, width = shape
    box = torch.zeros(1, 1, *shape, dtype=torch.bool)
    box[..., height // 4 : height - height // 4, width // 4 : width - width // 4] = True
    half = (torch.arange(width) >= width // 2).expand(1, 1, *shape)
    strokes = []
    for ends in Noise.of(SEED, n).at(11).uniform((n, 12)).reshape(n, 3, 4).tolist():
        page = Image.new("1", (width, height))
        for x0, y0, x1, y1 in ends:
            line = (x0 * width, y0 * height, x1 * width, y1 * height)
            ImageDraw.Draw(page).line(line, 1, max(2, width // 10))
        strokes.append(torch.from_numpy(np.array(page)))
    found = {"box": box, "half": half, "strokes": torch.stack(strokes).unsqueeze(1), "border": ~box}
    return {name: fill.expand(n, 1, *shape) for name, fill in found.items()}


def hole(x: Tensor, fill: Tensor) -> Tensor:
    """The smallest box round the hole of every picture, brought to the size of the pictures."""
    parts = []
    for one, where in zip(x, fill, strict=True):
        rows, columns = (where[0].any(axis).nonzero().flatten() for axis in (1, 0))
        part = one[:, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        parts.append(torch.nn.functional.interpolate(part[None], x.shape[2:], mode="bilinear", antialias=True))
    return torch.cat(parts)


def mosaics(x: Tensor, n: int) -> Tensor:
    """n pictures twice as wide and high: 3 x 3 pictures each, cut so that no joint lies in the middle."""
    height, width = x.shape[2:]
    done = []
    for k in range(n):
        some = x[torch.arange(9 * k, 9 * k + 9) % len(x)].reshape(3, 3, *x.shape[1:])
        large = torch.cat([torch.cat(list(row), 2) for row in some], 1)
        done.append(large[:, height // 2 : height // 2 + 2 * height, width // 2 : width // 2 + 2 * width])
    return torch.stack(done)
