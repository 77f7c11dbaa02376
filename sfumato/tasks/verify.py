"""Was this picture made by a model, by which one, and is it still what was written? From what its file says of itself."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from sfumato.core import SfumatoError
from sfumato.data.audit.declared import claim, receipt_of
from sfumato.data.picture import Unusable, brief, opened
from sfumato.data.records import shown
from sfumato.tasks.credentials import Credentials, credentials_of
from sfumato.tasks.receipt import pixels_of

MODEL, NAME = 12, 80  # letters of a fingerprint and of a name that are shown


@dataclass(frozen=True)
class Verdict:
    """`receipt`: ours, None where there is none; `pixels`: whether they are those that were written (None: the file's format
    does not keep them, or nothing says); `declared`: what marks of any maker say; `seal`: its content credentials, None where
    it has none or the extra `c2pa` is missing; `contradictions`: what cannot be true."""

    receipt: dict[str, Any] | None
    pixels: bool | None
    declared: str | None
    seal: Credentials | None
    contradictions: tuple[str, ...]

    @property
    def found(self) -> str:
        """ "made here", "contradicting", "made by AI" (as marks of others say), or "nothing"."""
        if self.contradictions:
            return "contradicting"
        if self.receipt is not None:
            return "made here"
        return "nothing" if self.declared is None else "made by AI"

    @property
    def words(self) -> tuple[str, ...]:
        """The same for people, a sentence each."""
        if self.receipt is None:
            said = [f"declares: {self.declared}" if self.declared else "carries no mark: it may or may not be AI-made"]
            return (*said, *self.contradictions)
        told, request = self.receipt, self.receipt.get("request")
        request = request if isinstance(request, dict) else {}
        by = f"made by the model {str(told.get('model'))[:NAME]!r} ({str(told.get('weights'))[:MODEL]})"
        how = [
            f"{name} {str(request[name])[:NAME]}"
            for name in ("prompt", "class_name", "seed", "steps")
            if name in request
        ]
        task = f" by {told['task']}" if isinstance(told.get("task"), str) else ""
        state = {
            True: "the pixels are those that were written",
            False: None,
            None: "the format does not keep the pixels",
        }
        sheet = [] if "picture" in told else ["a sheet of pictures"]
        seal = f"sealed by {self.seal.signer!r}" if self.seal and self.seal.valid else None
        return tuple(filter(None, [by + task, ", ".join(how), *sheet, state[self.pixels], seal, *self.contradictions]))


def verify(file: str | Path | bytes) -> Verdict:
    """What a picture file tells of its origin, and whether that can be true.

    Anybody can take marks out of a file, or write some: none found does not mean that a picture was not made by a model.
    Raises SfumatoError for a file that cannot be read.
    """
    picture, data = decoded(file), file if isinstance(file, bytes) else Path(file).read_bytes()
    told, claimed, against = receipt_of(data), claim(data), []
    pixels = _pixels(picture, told)
    if pixels is False:
        against.append("the pixels are not those that the receipt tells of: one of both was changed")
    if told is not None and not (isinstance(told.get("weights"), str) and isinstance(told.get("request"), dict)):
        against.append("the receipt lacks what every receipt has: the weights, and what was asked for")
    seal = credentials_of(data, Image.MIME.get(picture.format or "", ""))
    if seal is not None and not seal.valid:
        against.append(f"the seal is broken: the file was changed after it was signed ({', '.join(seal.wrong)[:NAME]})")
    if seal is not None and seal.receipt is not None and seal.receipt != told:
        against.append("the receipt is not the one that was sealed")
    return Verdict(told, pixels, claimed.evidence if claimed and claimed.made else None, seal, tuple(against))


def decoded(file: str | Path | bytes) -> Image.Image:
    """The picture of a file or of its bytes, pixels and all, as they are. Raises SfumatoError for what is none."""
    name = "the file" if isinstance(file, bytes) else shown(file)
    try:
        picture = opened(file if isinstance(file, bytes) else Path(file))
        picture.load()
    except Unusable as error:
        raise SfumatoError(f"{name}: {error}") from error
    except Exception as error:  # Pillow's decoders raise OSError, ValueError, SyntaxError, struct.error, ...
        raise SfumatoError(f"{name} cannot be decoded ({brief(error)})") from error
    return picture


def _pixels(picture: Image.Image, told: dict[str, Any] | None) -> bool | None:
    """Whether the pixels are those of the receipt; None for formats that change them."""
    if told is None or "pixels" not in told:
        return None
    same = pixels_of(picture) == told["pixels"]
    return True if same else None if picture.format in ("JPEG", "WEBP") else False
