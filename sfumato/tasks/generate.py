"""Image synthesis: a request -> conditions, guides, grid -> pictures."""

from __future__ import annotations

import difflib
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image
from torch import Tensor

from sfumato.core import Cond, Denoise, Noise, SfumatoError, Slot, Time
from sfumato.data import encode
from sfumato.guide import Guide, bind, with_guides
from sfumato.reverse import pick_solver, sample
from sfumato.tasks.sampling import guides_of, settled, times_of

if TYPE_CHECKING:
    from sfumato.tasks.model import Model

CHUNK = 64  # pictures per network call: bounded memory, and the same pictures whatever it is


@dataclass(frozen=True)
class Request:
    """What a user asks for; picture k of a seed is the same whatever n. `guidance` and `autoguidance` 1 are none; `shape`
    is (height, width); steps, solver and grid of None are those the model was made for."""

    n: int = 16
    seed: int = 0
    steps: int | None = None
    solver: str | None = None
    grid: str | None = None
    guidance: float = 1.0
    autoguidance: float = 1.0
    class_name: str | None = None
    prompt: str | None = None
    first: int = 0
    shape: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if self.n < 1:
            raise SfumatoError(f"ask for at least 1 picture, not {self.n}")
        if self.steps is not None and self.steps < 1:
            raise SfumatoError(f"sampling takes at least 1 step, not {self.steps}")


@dataclass(frozen=True)
class Plan:
    """What the request became: conditions for all n pictures with the captions they came from, guides, grid."""

    cond: Cond
    captions: list[str]
    guides: tuple[Guide, ...]
    grid: Tensor


@dataclass(frozen=True)
class Result:
    """Pictures, x0 [n, C, H, W] in [-1, 1], seconds, network calls per picture, and what each was asked to show."""

    images: list[Image.Image]
    x0: Tensor
    seconds: float
    network_calls: int
    captions: list[str]
    request: Request = field(default_factory=Request)


class Counted:
    """A denoiser that counts its calls."""

    def __init__(self, denoise: Denoise) -> None:
        self.denoise, self.process, self.calls = denoise, denoise.process, 0

    def __call__(self, x_t: Tensor, t: Time, cond: Cond = Cond()) -> Any:  # noqa: B008 - Cond is immutable
        self.calls += 1
        return self.denoise(x_t, t, cond)


def plan(model: Model, request: Request) -> Plan:
    """Conditions, guides and times of a settled request; SfumatoError for what this model cannot do."""
    slots, captions = {}, []
    if model.classes and (request.class_name is not None or request.prompt is None):
        rows = _classes(model, request)
        slots["class"] = Slot(rows, "vector")
        captions = [model.classes[k] for k in rows.tolist()]
    elif request.class_name is not None:
        raise SfumatoError("this model was trained without classes: leave --class away")
    if model.conditioned_on("text"):
        captions = _captions(model, request)
        ids, mask = encode(captions)
        slots["text"] = Slot(ids, "tokens", mask)
    elif request.prompt is not None:
        raise SfumatoError("this model was trained without captions: leave --prompt away")
    cond = Cond(slots)
    if request.guidance != 1.0 and not cond:
        raise SfumatoError("guidance needs a condition: this model has none, or give --class or --prompt")
    return Plan(cond, captions, guides_of(model, request), times_of(model, request))


def _drawn(request: Request, stream: int) -> Tensor:
    """A uniform number [n] per picture, of its own stream."""
    return Noise.of(request.seed, request.n, request.first).at(stream).uniform((request.n,))


def _captions(model: Model, request: Request) -> list[str]:
    """The prompt for every picture, or training captions drawn per picture."""
    if request.prompt is not None:
        return [request.prompt] * request.n
    known = model.facts["captions"] or [""]
    return [known[int(u * len(known))] for u in _drawn(request, -3).tolist()]


def _classes(model: Model, request: Request) -> Tensor:
    """The asked class for every picture, or classes drawn per picture as often as the data has them."""
    names = model.classes
    if request.class_name is not None:
        if request.class_name not in names:
            near = difflib.get_close_matches(request.class_name, names, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise SfumatoError(f"no class {request.class_name!r}{hint}; known: {', '.join(names)}")
        return torch.full((request.n,), names.index(request.class_name))
    counts = torch.tensor([model.facts["data"]["class_counts"][name] for name in names], dtype=torch.float32)
    return torch.searchsorted(counts.cumsum(0) / counts.sum(), _drawn(request, -2)).clamp_max(len(names) - 1)


def generate(model: Model, request: Request, progress: Callable[[int, int], None] = lambda done, n: None) -> Result:
    """Draw the pictures of a request, in chunks; `progress(done, n)` is called after each."""
    request = settled(model, request)
    solver = pick_solver(request.solver)
    planned, codec = plan(model, request), model.codec_of(request.shape)
    counted = Counted(model.denoiser)
    start, parts = time.perf_counter(), []
    for first in range(0, request.n, CHUNK):
        rows = slice(first, min(first + CHUNK, request.n))
        noise = Noise.of(request.seed, rows.stop - first, request.first + first)
        denoise = bind(with_guides(counted, *planned.guides), planned.cond.take(rows))
        parts.append(sample(denoise, (rows.stop - first, *codec.spec), noise, solver, planned.grid))
        progress(rows.stop, request.n)
    x0 = torch.cat(parts)
    if not bool(x0.isfinite().all()):
        raise SfumatoError(
            "sampling gave non-finite pictures: take more steps, another solver, or see 'sfumato doctor'"
        )
    calls = counted.calls // len(parts) * (1 if request.autoguidance == 1.0 else 2)  # the weak self is asked as often
    return Result(codec.decode(x0), codec.scaled(x0), time.perf_counter() - start, calls, planned.captions, request)
