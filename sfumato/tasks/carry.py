"""The one way in which every task is carried out: request -> plan -> the one loop -> finished pictures."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import torch
from PIL import Image
from torch import Tensor

from sfumato.core import Cond, Denoise, Noise, SfumatoError, Time
from sfumato.guide import Guide, bind, with_guides
from sfumato.reverse import pick_solver
from sfumato.reverse.loop import begin, walk
from sfumato.tasks.sampling import asked_for, settled

if TYPE_CHECKING:
    from sfumato.tasks.model import Model
    from sfumato.tasks.recorded import Call

CHUNK = 64  # pictures per network call: bounded memory, and the same pictures whatever it is


@dataclass(frozen=True)
class Request:
    """What a user asks for; picture k of a seed is the same whatever n. `guidance` and `autoguidance` 1 are none; `prompt`
    is one text for all pictures or one for each, `negative` what they should not show; `shape` is (height, width),
    `original` those that the picture is to look as if it came in (None: the largest the model learned from); steps, solver
    and grid of None are those the model was made for."""

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
    original: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if self.n < 1:
            raise SfumatoError(f"ask for at least 1 picture, not {self.n}")
        if self.steps is not None and self.steps < 1:
            raise SfumatoError(f"sampling takes at least 1 step, not {self.steps}")
        if isinstance(self.prompt, tuple) and len(self.prompt) != self.n:
            raise SfumatoError(f"{len(self.prompt)} prompts for {self.n} pictures: give one for all, or one for each")


@dataclass(frozen=True)
class Plan:
    """What the request became: conditions for all n pictures with the captions they came from, guides, grid.

    One pass through `guides` counts as one network call (windows are the last of them); `observed` are the guides after
    them. `x_init` (x0 [1 or n, C, H, W]) is where the walk starts instead of the prior, noised to the grid's first time.
    `by` says what carries a task's conditions, a trained "slot" or a training-free "guide"; `notes` is for the user.
    """

    cond: Cond
    captions: list[str]
    guides: tuple[Guide, ...]
    grid: Tensor
    x_init: Tensor | None = None
    observed: tuple[Guide, ...] = ()
    by: str | None = None
    notes: tuple[str, ...] = ()


class Task(Protocol):
    """What a user asks for: `plan` says how, `finish` makes the pictures of the raw answer x0 [n, C, H, W]."""

    name: str

    def plan(self, model: Model, request: Request) -> Plan: ...
    def finish(self, model: Model, x0: Tensor, request: Request) -> list[Image.Image]: ...


@dataclass(frozen=True)
class Result:
    """Pictures, x0 [n, C, H, W] in [-1, 1] as drawn, seconds, network calls per picture, what each was asked to show; `task`,
    `by` and `notes` as in its plan; `call` says how an edit can be made again, where it can."""

    images: list[Image.Image]
    x0: Tensor
    seconds: float
    network_calls: int
    captions: list[str]
    request: Request = field(default_factory=Request)
    task: str = "generate"
    by: str | None = None
    notes: tuple[str, ...] = ()
    call: Call | None = None


class Counted:
    """A denoiser that counts its calls."""

    def __init__(self, denoise: Denoise) -> None:
        self.denoise, self.process, self.calls = denoise, denoise.process, 0

    def __call__(self, x_t: Tensor, t: Time, cond: Cond = Cond()) -> Any:  # noqa: B008 - Cond is immutable
        self.calls += 1
        return self.denoise(x_t, t, cond)


def carry_out(
    model: Model, task: Task, request: Request, progress: Callable[[float], None] = lambda share: None
) -> Result:
    """Any task: its plan, the one loop over chunks of pictures, its finish; `progress(share)` is called after every move.

    `request.shape` is that of the canvas that the model draws on. Raises SfumatoError for what this model cannot do, and
    for non-finite pictures.
    """
    request = settled(model, request)
    solver = pick_solver(request.solver)
    planned, codec = task.plan(model, request), model.codec_of(request.shape)
    counted = Counted(with_guides(asked_for(model.denoiser, request), *planned.guides))
    guided = with_guides(counted, *planned.observed)
    start, parts, chunk = time.perf_counter(), [], _chunk(model, codec.spec)
    for first in range(0, request.n, chunk):
        rows = slice(first, min(first + chunk, request.n))
        noise = Noise.of(request.seed, rows.stop - first, request.first + first)
        x_init = planned.x_init if planned.x_init is None or len(planned.x_init) == 1 else planned.x_init[rows]
        denoise = bind(guided, planned.cond.take(rows))
        x = begin(denoise, (rows.stop - first, *codec.spec), noise, solver, planned.grid, x_init)
        for step in walk(denoise, solver, planned.grid, x, noise):
            x = step.x
            progress((first + (rows.stop - first) * (step.i + 1) / (len(planned.grid) - 1)) / request.n)
        parts.append(x)
    x0, seconds = torch.cat(parts), time.perf_counter() - start
    if not bool(x0.isfinite().all()):
        raise SfumatoError(
            "sampling gave non-finite pictures: take more steps, another solver, or see 'sfumato doctor'"
        )
    calls = counted.calls // len(parts) * (1 if request.autoguidance == 1.0 else 2)  # the weak self is asked as often
    images, told = task.finish(model, x0, request), (planned.captions, request, task.name, planned.by, planned.notes)
    return Result(images, codec.scaled(x0), seconds, calls, *told)


def _chunk(model: Model, spec: tuple[int, int, int]) -> int:
    """Pictures drawn at a time: as many pixels as CHUNK of the model's own."""
    return max(1, CHUNK * model.codec.spec[1] * model.codec.spec[2] // max(1, spec[1] * spec[2]))
