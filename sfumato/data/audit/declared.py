"""What a picture file itself declares about being made by AI; nothing is ever guessed from the pixels.

Read: C2PA manifests (JUMBF in PNG caBX, JPEG APP11, WebP "C2PA"), the IPTC digital source type in XMP, the parameters
that generators write into PNG text chunks and EXIF, and our own mark.
"""

from __future__ import annotations

import html
import json
import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

MARK = "sfumato"  # key of our own PNG text chunk, and the XMP property that says the same in other formats
MARK_XMP = b"sfumato:generated"
TEXT_LIMIT = 1 << 20  # bytes of one text chunk that are read; a compressed one is unpacked no further

_RECEIPT = re.compile(MARK_XMP + rb"=(\"[^\"]*\"|'[^']*')")
_AI_SOURCES = re.compile(rb"(?<![A-Za-z])(compositeWithTrainedAlgorithmicMedia|trainedAlgorithmicMedia)(?![A-Za-z])")
_ANY_SOURCE = re.compile(rb"digitalsourcetype/([A-Za-z]{4,60})")
_A1111 = re.compile(r"\bSteps: \d+, .{0,400}?\b(Sampler|CFG scale|Seed): ", re.S)  # bounded: no text can make it slow
_NODES = re.compile(r'"(class_type|last_node_id|last_link_id)"\s*:')
_JOB = re.compile(r"--v \d.{0,400}?Job ID: [0-9a-f-]{36}", re.S)
_SOFTWARE = re.compile(
    r"\b(NovelAI|Stable ?Diffusion|SDXL|Midjourney|DALL[-·. ]?E|Adobe Firefly|InvokeAI|ComfyUI|Fooocus|Draw Things"
    r"|Leonardo\.Ai|Ideogram AI|Imagen \d|Made with Google AI)\b",
    re.I,
)
_OWN_KEYS = {
    "invokeai_metadata": "InvokeAI",
    "invokeai_graph": "InvokeAI",
    "sd-metadata": "InvokeAI",
    "fooocus_scheme": "Fooocus",
}
_EXIF_FIELDS = {0x0131: "Software", 0x010E: "ImageDescription", 0x013B: "Artist", 0x010F: "Make", 0x0110: "Model"}


@dataclass
class Marks:
    """What a file carries beside its pixels: text chunks, XMP, the raw EXIF block, C2PA manifest bytes."""

    texts: dict[str, str] = field(default_factory=dict)
    xmp: bytes = b""
    exif: bytes = b""
    c2pa: bytes = b""


@dataclass(frozen=True)
class Claim:
    """`made`: the file declares AI (True), or only carries a manifest that says nothing either way (False)."""

    made: bool
    evidence: str


def claim(data: bytes) -> Claim | None:
    """What the bytes of a picture file declare; None when they declare nothing."""
    marks = read_marks(data)
    if marks.c2pa:
        found = _c2pa(data, marks.c2pa)
        if found is not None:
            return found
    named = _AI_SOURCES.search(marks.xmp)
    if named:
        return Claim(True, f"XMP: IPTC digital source type {named[1].decode()}")
    if MARK in marks.texts or MARK_XMP in marks.xmp:
        return Claim(True, "our own mark: made by sfumato")
    return _generator({**marks.texts, **_exif_texts(marks.exif), "XMP": marks.xmp.decode("utf-8", "replace")})


def receipt_of(data: bytes) -> dict[str, Any] | None:
    """What our own mark in the bytes of a picture file says of how it was made; None where there is none."""
    marks = read_marks(data)
    text = marks.texts.get(MARK)
    if text is None and (found := _RECEIPT.search(marks.xmp)):
        text = html.unescape(found[1][1:-1].decode("utf-8", "replace"))
    try:
        told = json.loads(text or "")
    except (ValueError, RecursionError):
        return None
    return told if isinstance(told, dict) else None


def _c2pa(data: bytes, manifest: bytes) -> Claim | None:
    """Source types are plain strings in the manifest, so they are found even without the reader of signatures."""
    signed = _signature(data)
    named = _AI_SOURCES.search(manifest)
    if named:
        return Claim(True, f"C2PA manifest: {named[1].decode()}{signed}")
    if _ANY_SOURCE.search(manifest):
        return None  # declares a camera, a scan, a drawing
    return Claim(False, f"C2PA manifest that names no digital source type{signed}; it may or may not be AI-made")


def _signature(data: bytes) -> str:
    """Who signed, where c2pa-python is installed and can read it; else nothing."""
    kinds = {b"\x89PNG": "image/png", b"\xff\xd8\xff": "image/jpeg", b"RIFF": "image/webp"}
    kind = next((k for magic, k in kinds.items() if data.startswith(magic)), "image/jpeg")
    try:
        told = manifests(data, kind)
        active = told["manifests"][told["active_manifest"]]
        return f", signed by {str(active['signature_info']['issuer'])[:80]}"
    except ImportError:
        return ""
    except Exception:  # a stub, a broken or an unsigned manifest: the strings in it still count
        return ", signature not readable"


def manifests(data: bytes, mime: str) -> dict[str, Any]:
    """What c2pa-python reads in a file's bytes, nothing fetched from anywhere. Raises ImportError where it is not installed,
    and errors of its own for no manifest or a broken one."""
    import c2pa

    nothing_fetched = c2pa.Settings.from_dict({"verify": {"remote_manifest_fetch": False, "ocsp_fetch": False}})
    with c2pa.Reader(mime, BytesIO(data), context=c2pa.Context(nothing_fetched)) as reader:
        return json.loads(reader.json())


def _generator(texts: dict[str, str]) -> Claim | None:
    for key, value in texts.items():
        if key in _OWN_KEYS:
            return Claim(True, f"{_OWN_KEYS[key]} wrote its {key}")
        if key in ("parameters", "UserComment", "XMP", "Comment") and _A1111.search(value):
            return Claim(True, f"{key}: generator parameters (Steps, Sampler, Seed)")
        if key.lower() in ("prompt", "workflow", "usercomment", "imagedescription", "make", "model"):
            if _NODES.search(value):
                return Claim(True, f"{key}: a ComfyUI graph")
        if key == "Description" and _JOB.search(value):
            return Claim(True, "Description: a Midjourney job")
        if key in ("Software", "Source", "Artist", "Make", "Model", "generator", "CreatorTool"):
            named = _SOFTWARE.search(value)
            if named:
                return Claim(True, f"{key}: {named[0]}")
        if key == "XMP":
            tool = re.search(r"(CreatorTool|photoshop:Credit|Software)(?:=\"|>)([^<\"]{1,200})", value)
            named = _SOFTWARE.search(tool[2]) if tool else None
            if named:
                return Claim(True, f"XMP: {named[0]}")
    return None


def read_marks(data: bytes) -> Marks:
    """Walk the container without decoding pixels; a broken one gives what was found before the break."""
    marks = Marks()
    try:
        if data.startswith(b"\x89PNG\r\n\x1a\n"):
            _png(data, marks)
        elif data.startswith(b"\xff\xd8"):
            _jpeg(data, marks)
        elif data.startswith(b"RIFF") and data[8:12] == b"WEBP":
            _webp(data, marks)
    except (struct.error, IndexError, zlib.error):
        pass
    return marks


def _png(data: bytes, marks: Marks) -> None:
    for kind, body in _chunks(data, 8, ">I4s", 4):
        if kind == b"caBX":
            marks.c2pa = body
        elif kind == b"eXIf":
            marks.exif = body
        elif kind in (b"tEXt", b"zTXt", b"iTXt"):
            key, _, rest = body[: TEXT_LIMIT + 200].partition(b"\0")
            name = key[:79].decode("latin-1")
            if kind == b"tEXt":
                value = rest
            elif kind == b"zTXt":
                value = _inflate(rest[1:])
            else:
                packed, rest = rest[:1] == b"\1", rest[2:].split(b"\0", 2)[-1]
                value = _inflate(rest) if packed else rest
            if name == "XML:com.adobe.xmp":
                marks.xmp = value
            elif len(marks.texts) < 64:
                marks.texts[name] = value[:TEXT_LIMIT].decode("utf-8" if kind == b"iTXt" else "latin-1", "replace")


def _chunks(data: bytes, at: int, head: str, tail: int) -> Iterator[tuple[bytes, bytes]]:
    """(type, body) of length-type chunks; `head` unpacks to (length, type), `tail` bytes follow each body."""
    while at + 8 <= len(data):
        length, kind = struct.unpack_from(head, data, at)
        yield kind, data[at + 8 : at + 8 + length]
        at += 8 + length + tail


def _inflate(data: bytes) -> bytes:
    return zlib.decompressobj().decompress(data, TEXT_LIMIT)


def _jpeg(data: bytes, marks: Marks) -> None:
    at, jumbf = 2, []
    while data[at] == 0xFF:
        marker = data[at + 1]
        if marker in (0xDA, 0xD9):
            break
        if marker == 0xFF or 0xD0 <= marker <= 0xD8 or marker == 0x01:
            at += 1 if marker == 0xFF else 2
            continue
        length = struct.unpack_from(">H", data, at + 2)[0]
        body = data[at + 4 : at + 2 + length]
        if marker == 0xE1 and body.startswith(b"Exif\0\0"):
            marks.exif = body[6:]
        elif marker == 0xE1 and body.startswith(b"http://ns.adobe.com/"):
            marks.xmp += body
        elif marker == 0xEB and body.startswith(b"JP"):
            jumbf.append(body[8:])
        elif marker == 0xFE:
            marks.texts.setdefault("Comment", body.decode("utf-8", "replace"))
        at += 2 + max(length, 2)
    whole = b"".join(jumbf)
    if b"c2pa" in whole:
        marks.c2pa = whole


def _webp(data: bytes, marks: Marks) -> None:
    at = 12
    while at + 8 <= len(data):
        kind, length = struct.unpack_from("<4sI", data, at)
        body = data[at + 8 : at + 8 + length]
        if kind == b"EXIF":
            marks.exif = body.removeprefix(b"Exif\0\0")
        elif kind == b"XMP ":
            marks.xmp = body
        elif kind == b"C2PA":
            marks.c2pa = body
        at += 8 + length + length % 2


def _exif_texts(block: bytes) -> dict[str, str]:
    """The text fields of an EXIF block that generators use."""
    if not block:
        return {}
    from PIL import Image

    try:
        exif = Image.Exif()
        exif.load(block)
        found: dict[str, Any] = {name: exif.get(tag) for tag, name in _EXIF_FIELDS.items()}
        found["UserComment"] = exif.get_ifd(0x8769).get(0x9286)
    except Exception:  # whatever is wrong with the block, it declares nothing
        return {}
    return {name: _as_text(value) for name, value in found.items() if isinstance(value, (str, bytes))}


def _as_text(value: str | bytes) -> str:
    if isinstance(value, str):
        return value[:TEXT_LIMIT]
    code, rest = value[:8], value[8:TEXT_LIMIT]
    if code == b"UNICODE\0":  # either byte order is met in the wild
        return max(
            (rest.decode(o, "replace") for o in ("utf-16-be", "utf-16-le")), key=lambda s: sum(map(str.isascii, s))
        )
    return (rest if code in (b"ASCII\0\0\0", bytes(8)) else value).decode("utf-8", "replace")
