"""A prompt line -> the request that a model is asked: the same for the command line, Python and whoever serves."""

from __future__ import annotations

import dataclasses
import math
import secrets
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from sfumato.core import Noise, SfumatoError
from sfumato.data.shapes import Shape
from sfumato.tasks.chat import ask, check_address
from sfumato.tasks.generate import Request, Result, generate, plan
from sfumato.tasks.model import Model, load
from sfumato.tasks.prompt import Line, parse
from sfumato.tasks.revise import Reviser
from sfumato.tasks.sampling import settled
from sfumato.tasks.shipped import find

N, GUIDANCE = 4, 3.0  # where neither the user nor the model says
LARGEST = 16  # times the pixels of the pictures a model learned from

reviser_of = lru_cache(maxsize=4)(Reviser)  # its tables are made once for many prompts


@dataclass(frozen=True)
class Asked:
    """The line, what became of it, a reason for every change, and what the user should be warned of."""

    line: Line
    request: Request
    reasons: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def asked(
    model: Model,
    line: Line,
    *,
    shape: Shape | None = None,
    steps: int | None = None,
    guidance: float | None = None,
    revise: bool | str = True,
) -> Asked:
    """What this model is asked for a line; what stands in the arguments wins over the line.

    `shape` is (height, width); `revise` is True (by the model's own captions), False, or the address of a chat endpoint;
    a line without a seed gets one drawn anew. Raises SfumatoError for whatever the model cannot do.
    """
    if not model.conditioned_on("text"):
        raise SfumatoError(
            "this model was trained without captions: it cannot be told what to draw (see 'sfumato sample')"
        )
    if not line.text:
        raise SfumatoError("say what to draw; for pictures of the model's own choice there is 'sfumato sample'")
    seed = secrets.randbelow(2**31) if line.seed is None else line.seed
    line = dataclasses.replace(line, seed=seed, n=line.n or N)
    warnings: list[str] = []
    prompts, style, reasons = _told(model, line, revise, warnings)
    request = Request(
        n=line.n or N,
        seed=seed,
        steps=steps,
        guidance=_guidance(model, line, guidance),
        style=style,
        prompt=prompts[0] if len(set(prompts)) == 1 else prompts,
        negative=line.no,
        shape=_fitting(model, shape or proportioned(model, line.ar), warnings),
    )
    plan(model, settled(model, request))
    return Asked(line, request, reasons, tuple(warnings))


def draw(
    prompt: str, model: Model | str | Path | None = None, revise: bool | str = True, **options: int | str
) -> Result:
    """The pictures of one prompt, as `sfumato generate` draws them (options in the prompt too).

    `model`: a loaded one, a run folder, an exported file or the name of one that comes with the package (None: the default).
    `options`: n, seed, style, no, chaos, stylize; they win over the prompt's own. Raises SfumatoError for what does not fit.
    """
    lines = parse(prompt)
    if len(lines) > 1:
        raise SfumatoError(f"this prompt stands for {len(lines)} prompts: draw them one by one")
    ready = model if isinstance(model, Model) else load(find(model and str(model)))
    return generate(ready, asked(ready, dataclasses.replace(lines[0], **options), revise=revise).request)


def _told(
    model: Model, line: Line, revise: bool | str, warnings: list[str]
) -> tuple[tuple[str, ...], str | None, tuple[str, ...]]:
    """What each picture is told, in which style, and why it is not what was asked."""
    n, chaos = line.n or N, line.chaos or 0
    reviser = reviser_of(tuple(model.facts["captions"]))
    if isinstance(revise, str):
        check_address(revise)  # a wrong one is the user's mistake; one that does not answer is not
        try:
            revised = ask(revise, line.text, reviser.captions)
            return (revised.text,) * n, line.style, revised.reasons
        except SfumatoError as error:
            warnings.append(f"{error}: revised by the model's own captions instead")
    if not revise:
        if chaos:
            warnings.append("chaos varies what revision adds: without it the pictures differ by their noise alone")
        return (line.text,) * n, line.style, ()
    own = Noise.of(line.seed or 0, n).at(-7).uniform((n, 2)).tolist()  # which pictures go their own way, and where to
    every = [reviser.revise(line.text, way if u * 100 < chaos else 0.0) for u, way in own]
    reasons = [reason for revised in every for reason in revised.reasons]
    style = line.style
    if style is None and model.styles:
        style = reviser.style(line.text, model.styles, model.facts.get("caption_styles", []))
        reasons += [] if style is None else [f"style {style!r}, since captions of that style read so"]
    return tuple(revised.text for revised in every), style, tuple(dict.fromkeys(reasons))


def _guidance(model: Model, line: Line, told: float | None) -> float:
    if told is not None and not math.isfinite(told):
        raise SfumatoError(f"guidance is a number such as {GUIDANCE:g}, not {told}")
    if told is not None:
        return told
    if line.stylize is not None:
        return 1 + (GUIDANCE - 1) * math.sqrt(line.stylize / 100)  # 100 is the usual one
    made = model.facts.get("sampling")  # a model made by distilling has its guidance learned in
    return GUIDANCE if made is None else made.get("guidance", 1.0)


def proportioned(model: Model, ratio: tuple[int, int] | None) -> Shape | None:
    """About as many pixels as the model's own pictures, in these proportions (width, height)."""
    if ratio is None:
        return None
    (height, width), step = model.shapes[0], model.denoiser.net.config.multiple
    side = math.sqrt(height * width * ratio[0] / ratio[1])
    return max(step, round(side * ratio[1] / ratio[0] / step) * step), max(step, round(side / step) * step)


def _fitting(model: Model, shape: Shape | None, warnings: list[str]) -> Shape | None:
    """The same shape; SfumatoError for one that cannot be drawn, a warning for one that was never learned."""
    model.codec_of(shape)
    if shape is None or shape in model.shapes:
        return shape
    learned, most = ", ".join(f"{w}x{h}" for h, w in model.shapes), LARGEST * max(h * w for h, w in model.shapes)
    if math.prod(shape) > most:
        raise SfumatoError(
            f"this model learned from pictures of {learned} and draws up to {LARGEST} times their pixels, "
            f"not {shape[1]}x{shape[0]}"
        )
    warnings.append(f"this model learned from pictures of {learned}: {shape[1]}x{shape[0]} may look worse")
    return shape
