"""The receipt in every picture file that we write: that a model made it, which one, from what, and how to make it again."""

from __future__ import annotations

import dataclasses
import json
import platform
from dataclasses import dataclass
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.sax.saxutils import quoteattr

import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from sfumato.core import SfumatoError
from sfumato.data.audit.declared import MARK, MARK_XMP, receipt_of
from sfumato.data.records import shown
from sfumato.tasks.carry import Result
from sfumato.tasks.credentials import check, signed, wanted

if TYPE_CHECKING:
    from sfumato.tasks.model import Model

PACKET = 60_000  # bytes of XMP that one segment of a JPEG takes, and somewhat less
SOURCES = "http://cv.iptc.org/newscodes/digitalsourcetype/"  # IPTC's vocabulary of where pictures come from


def fingerprint(model: Model) -> str:
    """SHA-256 of the weights and their names: the same for a run folder and for the file exported from it."""
    found = sha256()
    for name, weight in sorted(model.denoiser.named_parameters()):
        found.update(name.encode() + weight.detach().contiguous().numpy().tobytes())
    return found.hexdigest()


@dataclass(frozen=True)
class Maker:
    """The model that made pictures: its name (no path: files are shared), the `fingerprint` of its weights, and those of
    what it learned from and of its recipe."""

    name: str
    weights: str
    data: str | None = None
    recipe: str | None = None

    @classmethod
    def of(cls, model: Model, name: str) -> Maker:
        """Raises SfumatoError where pictures are to be signed and cannot be: before any is drawn."""
        check()
        recipe = json.dumps(model.facts.get("recipe"), sort_keys=True)
        data = model.facts.get("data", {}).get("fingerprint")
        return cls(name, fingerprint(model), data, sha256(recipe.encode()).hexdigest()[:16])


def machine() -> dict[str, str]:
    """What bits depend on beside the weights: two machines that agree in it draw the same picture, bit for bit."""
    import sfumato

    kind = f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}"
    return {"sfumato": sfumato.__version__, "torch": torch.__version__, "processor": kind}


def receipt(maker: Maker, result: Result, number: int | None = None, asked: str | None = None) -> dict[str, Any]:
    """What is told of picture `number` of a result; without a number, of a sheet of all its pictures.

    `asked`: the prompt as the user wrote it, where it was revised.
    """
    told: dict[str, Any] = {"ai_made": True, "model": maker.name, "weights": maker.weights}
    told |= {name: value for name in ("data", "recipe") if (value := getattr(maker, name)) is not None}
    told["request"] = {k: v for k, v in dataclasses.asdict(result.request).items() if v is not None}
    told |= {"machine": machine()}
    told |= ({} if number is None else {"picture": number}) | ({} if asked is None else {"asked": asked})
    told |= {} if result.task == "generate" else {"task": result.task}
    if result.call is not None:
        told |= {"options": result.call.options, "parents": result.call.parents}
    return told


def pixels_of(image: Image.Image) -> str:
    """SHA-256 of a picture's mode, size and pixels."""
    return sha256(f"{image.mode} {image.width}x{image.height} ".encode() + image.tobytes()).hexdigest()


def encoded(image: Image.Image, told: dict[str, Any], output: str = "PNG", **options: Any) -> bytes:
    """A picture as a file of the format PNG, JPEG or WEBP that carries its receipt `told`, the hash of its pixels, the IPTC
    digital source type, and content credentials where they are `wanted`; `options` are the encoder's.

    A receipt that tells of pixels already keeps what it tells: that of a picture which is brought to another format.
    """
    told = {"pixels": pixels_of(image)} | told
    file = BytesIO()
    if output == "PNG":
        info = PngInfo()
        info.add_text(MARK, json.dumps(told))
        info.add_itxt("XML:com.adobe.xmp", _packet(told, receipt=False).decode())
        image.save(file, output, pnginfo=info, **options)
    else:
        image.save(file, output, xmp=_packet(told), **options)
    return signed(file.getvalue(), f"image/{output.lower()}", told) if wanted() else file.getvalue()


def _packet(told: dict[str, Any], receipt: bool = True) -> bytes:
    """XMP: the digital source type, and the receipt where no text chunk of its own has it."""
    kind = "compositeWithTrainedAlgorithmicMedia" if told.get("parents") else "trainedAlgorithmicMedia"
    said = f" {MARK_XMP.decode()}={quoteattr(_short(told))}" if receipt else ""
    return (
        '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">'
        '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about="" '
        'xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" xmlns:sfumato="urn:sfumato:receipt" '
        f'Iptc4xmpExt:DigitalSourceType="{SOURCES}{kind}"{said}/></rdf:RDF></x:xmpmeta><?xpacket end="w"?>'
    ).encode()


def _short(told: dict[str, Any]) -> str:
    """The receipt as JSON; without its words where they are more than a file takes."""
    text = json.dumps(told)
    if len(quoteattr(text)) <= PACKET:
        return text
    words = ("prompt", "negative", "layout")
    kept = {k: v for k, v in told.items() if k != "asked"}
    for part in ("request", "options"):
        if part in kept:
            kept[part] = {k: v for k, v in kept[part].items() if k not in words}
    return json.dumps(kept | {"cut": True})


def receipt_in(file: str | Path) -> dict[str, Any] | None:
    """The receipt in this file; None where there is none. Raises SfumatoError for a file that cannot be read."""
    try:
        return receipt_of(Path(file).read_bytes())
    except OSError as error:
        raise SfumatoError(f"{shown(file)} cannot be read: {error.strerror or error}") from error
