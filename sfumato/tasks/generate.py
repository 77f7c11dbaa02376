"""Image synthesis: a request -> conditions, guides, grid -> pictures."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image
from torch import Tensor

from sfumato.core import Cond, Denoise, Noise, SfumatoError, Time
from sfumato.guide import Guide, bind, with_guides
from sfumato.reverse import pick_solver, sample
from sfumato.tasks.conditions import against, conditions
from sfumato.tasks.sampling import guides_of, settled, times_of

if TYPE_CHECKING:
    from sfumato.tasks.model import Model

CHUNK = 64  # pictures per network call: bounded memory, and the same pictures whatever it is


@dataclass(frozen=True)
class Request:
    """What a user asks for; picture k of a seed is the same whatever n. `guidance` and `autoguidance` 1 are none; `prompt`
    is one text for all pictures or one for each, `negative` what they should not show; `shape` is (height, width); steps,
    solver and grid of None are those the model was made for."""

    n: int = 16
    seed: int = 0
    steps: int | None = None
    solver: str | None = None
    grid: str | None = None
    guidance: float = 1.0
    autoguidance: float = 1.0
    class_name: str | None = None
    style: str | None = None
    prompt: str | tuple[str, ...] | None = None
    negative: str | None = None
    first: int = 0
    shape: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if self.n < 1:
            raise SfumatoError(f"ask for at least 1 picture, not {self.n}")
        if self.steps is not None and self.steps < 1:
            raise SfumatoError(f"sampling takes at least 1 step, not {self.steps}")
        if isinstance(self.prompt, tuple) and len(self.prompt) != self.n:
            raise SfumatoError(f"{len(self.prompt)} prompts for {self.n} pictures: give one for all, or one for each")


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
    cond, captions = conditions(model, request)
    if request.guidance != 1.0 and not cond:
        raise SfumatoError("guidance needs a condition: this model has none, or give --class or --prompt")
    return Plan(cond, captions, guides_of(model, request, against(model, request)), times_of(model, request))


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
