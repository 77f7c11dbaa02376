"""Image synthesis: a request -> conditions, guides, grid -> pictures."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from PIL import Image
from torch import Tensor

from sfumato.core import Cond, SfumatoError
from sfumato.tasks.carry import CHUNK, Plan, Request, Result, carry_out
from sfumato.tasks.conditions import against, conditions
from sfumato.tasks.sampling import GIVEN, guides_of, times_of

if TYPE_CHECKING:
    from sfumato.tasks.model import Model

__all__ = ["CHUNK", "Generate", "Plan", "Request", "Result", "generate", "plan"]


def plan(model: Model, request: Request, drawn: bool = True, more: Cond = Cond()) -> Plan:  # noqa: B008
    """Conditions, guides and times of a settled request; SfumatoError for what this model cannot do.

    Where the request names no class and no prompt they are `drawn` as the training pictures have them, or left open;
    `more` are conditions that it does not name.
    """
    cond, captions = conditions(model, request, drawn)
    cond = more | cond
    if request.guidance != 1.0 and not set(cond) - set(GIVEN):
        raise SfumatoError("guidance needs a condition: this model has none, or give --class or --prompt")
    return Plan(cond, captions, guides_of(model, request, against(model, request)), times_of(model, request))


class Generate:
    """Pictures of the model's own making."""

    name = "generate"
    plan = staticmethod(plan)

    def finish(self, model: Model, x0: Tensor, request: Request) -> list[Image.Image]:
        return model.codec_of(request.shape).decode(x0)


def generate(model: Model, request: Request, progress: Callable[[int, int], None] = lambda done, n: None) -> Result:
    """Draw the pictures of a request, in chunks; `progress(done, n)` is called after every move with the pictures done."""
    return carry_out(model, Generate(), request, lambda share: progress(int(share * request.n), request.n))
