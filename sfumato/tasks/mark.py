"""The mark in every picture file that we write: that a model made it, which one, and what was asked for."""

from __future__ import annotations

import dataclasses
import json
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL.PngImagePlugin import PngInfo

from sfumato.data.audit.declared import MARK, read_marks
from sfumato.tasks.generate import Request

if TYPE_CHECKING:
    from sfumato.tasks.model import Model


def fingerprint(model: Model) -> str:
    """SHA-256 of the weights and their names: the same for a run folder and for the file exported from it."""
    found = sha256()
    for name, weight in sorted(model.denoiser.named_parameters()):
        found.update(name.encode() + weight.detach().contiguous().numpy().tobytes())
    return found.hexdigest()


def mark(model: str, request: Request, weights: str, number: int | None = None, asked: str | None = None) -> PngInfo:
    """The text chunk of a PNG: the model's name (no path: files are shared), the `fingerprint` of its weights, the
    request, and the picture's number.

    Without a number the file is a sheet of all `request.n` pictures. `asked`: the prompt as the user wrote it, where it
    was revised.
    """
    said = {k: v for k, v in dataclasses.asdict(request).items() if v is not None}
    told = {"ai_made": True, "model": model, "weights": weights, "request": said}
    told |= ({} if number is None else {"picture": number}) | ({} if asked is None else {"asked": asked})
    info = PngInfo()
    info.add_text(MARK, json.dumps(told))
    return info


def read_mark(path: Path) -> dict[str, Any] | None:
    """What `mark` wrote into this file; None where there is nothing of the kind. Raises OSError for no such file."""
    try:
        told = json.loads(read_marks(path.read_bytes()).texts.get(MARK, ""))
    except ValueError:
        return None
    return told if isinstance(told, dict) else None
