"""What a job asks for, and how it is carried out: the same tasks that Python and the command line call."""

from __future__ import annotations

import dataclasses
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from PIL import Image

from sfumato.core import SfumatoError
from sfumato.measure.grids import brought
from sfumato.serve.edits import EDITS, edit
from sfumato.serve.shelf import Offered
from sfumato.serve.store import Store
from sfumato.tasks import Model, Request, Result, generate
from sfumato.tasks.asked import asked
from sfumato.tasks.prompt import Line
from sfumato.tasks.receipt import encoded, receipt
from sfumato.tasks.sampling import settled

MOST = 10  # pictures of one job
STEPS = 250
LONGEST = 4000  # letters of a prompt


@dataclass(frozen=True)
class Ask:
    """One request, complete: with it and the files it names the pictures can be made again.

    `size` (width, height) is what the model draws, `final` what the pictures are then brought to; image, mask and sketch
    are hashes of stored files; `partials` how many previews to keep while drawing.
    """

    model: str
    task: str = "generate"
    prompt: str = ""
    n: int = 1
    seed: int = dataclasses.field(default_factory=lambda: secrets.randbelow(2**31))
    steps: int | None = None
    guidance: float | None = None
    stylize: int | None = None
    chaos: int | None = None
    style: str | None = None
    negative: str | None = None
    solver: str | None = None
    revise: bool = True
    size: tuple[int, int] | None = None
    final: tuple[int, int] | None = None
    strength: float | None = None
    images: tuple[str, ...] = ()
    mask: str | None = None
    sketch: str | None = None
    layout: dict[str, Any] | None = None
    zoom: float | None = None
    scale: int | None = None
    partials: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.n <= MOST:
            raise SfumatoError(f"n: ask for 1 to {MOST} pictures, not {self.n}")
        if self.steps is not None and not 1 <= self.steps <= STEPS:
            raise SfumatoError(f"steps: 1 to {STEPS}, not {self.steps}")
        for name in ("prompt", "negative"):
            if len(getattr(self, name) or "") > LONGEST:
                raise SfumatoError(f"{name}: at most {LONGEST} characters")
        if self.final is not None and not all(1 <= side <= 4096 for side in self.final):
            raise SfumatoError("size: 1 to 4096 pixels a side")

    @classmethod
    def of(cls, told: dict[str, Any]) -> Ask:
        """What `asdict` made, and JSON kept."""
        pairs = {name: tuple(told[name]) for name in ("size", "final", "images") if told.get(name) is not None}
        return cls(**told | pairs)

    @property
    def texts(self) -> tuple[str, ...]:
        """All that is said of what is to be seen."""
        told = self.layout or {}
        boxes = told["boxes"] if isinstance(told.get("boxes"), list) else []
        said = [told.get("background"), *(box.get("text") for box in boxes if isinstance(box, dict))]
        return self.prompt, *(text for text in said if isinstance(text, str))

    @property
    def parents(self) -> tuple[str, ...]:
        """The files that the pictures are made from."""
        return tuple(dict.fromkeys(h for h in (*self.images, self.mask, self.sketch) if h))


@dataclass(frozen=True)
class Made:
    """The pictures of a job as PNG files, and what is said of them."""

    files: list[bytes]
    images: list[Image.Image]
    told: dict[str, Any]


def request_of(model: Model, ask: Ask) -> tuple[Request, tuple[str, ...], tuple[str, ...]]:
    """What the model is asked for, with a reason for each change of the prompt and what to warn of.

    Raises SfumatoError for whatever the model cannot do.
    """
    shape = None if ask.size is None or ask.task in EDITS else (ask.size[1], ask.size[0])
    if model.conditioned_on("text"):
        line = Line(ask.prompt, None, ask.seed, ask.negative or None, ask.chaos, ask.stylize, ask.style or None, ask.n)
        done = asked(model, line, shape=shape, steps=ask.steps, guidance=ask.guidance, revise=ask.revise)
        request, reasons, warnings = done.request, done.reasons, done.warnings
    else:
        named = ask.prompt.strip() or None if model.classes else None
        warnings = () if named or not ask.prompt else ("this model learned no words: it draws what it likes",)
        guidance = 1.0 if ask.guidance is None or not model.classes else ask.guidance
        request, reasons = Request(ask.n, ask.seed, ask.steps, guidance=guidance, class_name=named, shape=shape), ()
        model.codec_of(shape)
    return dataclasses.replace(request, solver=ask.solver), reasons, warnings


def carry_out(
    offered: Offered, model: Model, ask: Ask, store: Store, progress: Callable[[float], None] = lambda share: None
) -> Made:
    """The pictures of a job; `model` is the offered one, asked through whoever shares it."""
    options, reasons, warnings = options_of(model, ask)
    if ask.task in EDITS:
        result = edit(model, ask, store, progress, options)
    else:
        result = generate(model, Request(**options), lambda done, n: progress(done / n))
    return _made(offered, ask, result, reasons, (*warnings, *result.notes))


def options_of(model: Model, ask: Ask) -> tuple[dict[str, Any], tuple[str, ...], tuple[str, ...]]:
    """The fields of the job's `Request`, with a reason for each change of the prompt and what to warn of.

    An edit may go without words; where it has some they are taken as they are. Raises SfumatoError for whatever the model
    cannot do.
    """
    if ask.task in EDITS:
        plain = {"n": ask.n, "seed": ask.seed, "steps": ask.steps, "solver": ask.solver}
        if not ask.prompt.strip():
            return plain, (), ()
        told, _, warnings = request_of(model, dataclasses.replace(ask, revise=False))
        named = {name: getattr(told, name) for name in ("prompt", "class_name", "style", "negative", "guidance")}
        return plain | {name: value for name, value in named.items() if value is not None}, (), warnings
    told, reasons, warnings = request_of(model, ask)
    return {f.name: getattr(told, f.name) for f in dataclasses.fields(told)}, reasons, warnings


def _made(offered: Offered, ask: Ask, result: Result, reasons: tuple[str, ...], warnings: tuple[str, ...]) -> Made:
    request = result.request
    told = None if set(result.captions) <= {ask.prompt} else ask.prompt
    images, size = [brought(image, ask.final) for image in result.images], {"brought": ask.final} if ask.final else {}
    receipts = [receipt(offered.maker, result, k, told) | size for k in range(len(images))]
    files = [encoded(image, each) for image, each in zip(images, receipts, strict=True)]
    said = {
        "captions": result.captions or [ask.prompt] * len(images),
        "reasons": list(reasons),
        "warnings": list(warnings),
        "weights": offered.weights,
        "seed": request.seed,
        "steps": request.steps,
        "solver": request.solver,
        "guidance": request.guidance,
        "style": request.style,
        "by": result.by,
        "seconds": round(result.seconds, 3),
        "network_calls": result.network_calls,
    }
    return Made(files, images, said)


def steps_of(model: Model, ask: Ask) -> int:
    """How many steps a job of this model takes."""
    return settled(model, Request(steps=ask.steps, solver=ask.solver)).steps
