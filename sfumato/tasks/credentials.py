"""Content credentials: a signed C2PA manifest in a picture file, which says that a model made it and seals what the file says.

Needs the extra `c2pa`. Signed with the chain and the key of the PEM files that SFUMATO_CERTIFICATE and SFUMATO_KEY name, else
with a chain of our own, made at first use and kept in the user's configuration, which seals but proves nobody's name.
SFUMATO_CREDENTIALS=off signs nothing.
"""

from __future__ import annotations

import importlib.util
import json
import os
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image

from sfumato.core import SfumatoError
from sfumato.data.audit.declared import manifests
from sfumato.tasks.certificate import own_pair

LABEL = "org.sfumato.receipt"
SOURCES = "http://cv.iptc.org/newscodes/digitalsourcetype/"


@dataclass(frozen=True)
class Credentials:
    """What a manifest says: whether its seal is whole (`valid`), whose name signed it, by which program, the receipt in it,
    and what the reader found wrong."""

    valid: bool
    signer: str
    program: str
    receipt: dict[str, Any] | None
    wrong: tuple[str, ...]


def wanted() -> bool:
    """Whether pictures are signed: the extra is there, and nobody said otherwise."""
    return os.environ.get("SFUMATO_CREDENTIALS", "").lower() != "off" and importlib.util.find_spec("c2pa") is not None


def check() -> None:
    """SfumatoError where pictures are wanted signed and cannot be, told before any is drawn."""
    if wanted():
        file = BytesIO()
        Image.new("L", (1, 1)).save(file, "PNG")
        signed(file.getvalue(), "image/png", {})


def signed(data: bytes, mime: str, told: dict[str, Any]) -> bytes:
    """The same PNG, JPEG or WebP file with a manifest: made (of a model alone) or edited (where the receipt `told` has
    parents), and the receipt. Raises SfumatoError for a certificate that does not serve."""
    import c2pa

    kind = "compositeWithTrainedAlgorithmicMedia" if told.get("parents") else "trainedAlgorithmicMedia"
    actions = {"actions": [{"action": "c2pa.created", "digitalSourceType": SOURCES + kind}]}
    machine = told.get("machine", {})
    manifest = {
        "claim_generator_info": [{"name": "sfumato", "version": str(machine.get("sfumato", ""))}],
        "assertions": [
            {"label": "c2pa.actions", "data": actions},
            {"label": LABEL, "data": {"json": json.dumps(told)}},  # as text: CBOR would take short lists for bytes
        ],
    }
    chain, key = _pair()
    out = BytesIO()
    context = c2pa.Context(c2pa.Settings.from_dict({"builder": {"thumbnail": {"enabled": False}}}))  # 20 times the file
    try:
        info = c2pa.C2paSignerInfo(alg="es256", sign_cert=chain.encode(), private_key=key.encode(), ta_url=None)
        with c2pa.Signer.from_info(info) as signer, c2pa.Builder(json.dumps(manifest), context) as builder:
            builder.sign(signer, mime, BytesIO(data), out)
    except c2pa.C2paError as error:
        raise SfumatoError(f"the picture cannot be signed ({str(error)[:120]}): see docs/origin.md") from error
    return out.getvalue()


def credentials_of(data: bytes, mime: str) -> Credentials | None:
    """The manifest in a file's bytes; None where there is none or the extra `c2pa` is missing."""
    if importlib.util.find_spec("c2pa") is None:
        return None
    try:
        told = manifests(data, mime)
    except Exception:  # no manifest, a broken one, or no picture
        return None
    active = told.get("manifests", {}).get(told.get("active_manifest"), {})
    failures = [str(s.get("code")) for s in told.get("validation_status", [])]
    wrong = tuple(code for code in failures if code != "signingCredential.untrusted")  # nobody vouches for our own root
    receipts = [_told(a.get("data")) for a in active.get("assertions", []) if a.get("label") == LABEL]
    program = next(iter(active.get("claim_generator_info") or [{}]))
    signer = str(active.get("signature_info", {}).get("issuer", ""))
    valid = not wrong and told.get("validation_state") != "Invalid"
    return Credentials(valid, signer[:80], str(program.get("name", ""))[:80], receipts[0] if receipts else None, wrong)


def _told(assertion: Any) -> dict[str, Any] | None:
    try:
        told = json.loads(assertion["json"])
    except (TypeError, KeyError, ValueError, RecursionError):
        return None
    return told if isinstance(told, dict) else None


def _pair() -> tuple[str, str]:
    """(certificate chain, private key) to sign with, PEM."""
    named = [os.environ.get(name) for name in ("SFUMATO_CERTIFICATE", "SFUMATO_KEY")]
    if not any(named):
        return own_pair(Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "sfumato")
    if not all(named):
        raise SfumatoError("to sign with your own certificate set both SFUMATO_CERTIFICATE and SFUMATO_KEY")
    try:
        return Path(named[0]).read_text(), Path(named[1]).read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise SfumatoError(f"the certificate or key to sign with cannot be read: {error}") from error
