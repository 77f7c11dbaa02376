"""Pictures in every shape that a model learned."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from sfumato.tasks.generate import Request, Result, generate

if TYPE_CHECKING:
    from sfumato.tasks.model import Model


def by_shape(
    model: Model, request: Request, progress: Callable[[int, int], None] = lambda done, n: None
) -> list[Result]:
    """One result per picture shape that the model learned, the n pictures dealt to them as the data have them, at least 1."""
    shapes = model.shapes[: request.n]
    counts = [n for *_, n in model.facts["data"].get("shapes", [[1]])][: len(shapes)]
    shares = [max(1, request.n * n // sum(counts)) for n in counts]
    shares[0] += request.n - sum(shares)
    results: list[Result] = []
    for n, shape in zip(shares, shapes, strict=True):
        before = sum(len(result.images) for result in results)
        part = replace(request, n=n, shape=shape)
        results.append(generate(model, part, lambda done, _, b=before: progress(b + done, request.n)))
    return results
