"""What one look through a large set found, kept so that a resumed run need not look again."""

from __future__ import annotations

import json
import os
import tempfile
from hashlib import blake2b
from pathlib import Path

from sfumato.data.files import cache_folder
from sfumato.data.picture import CROP_RULE
from sfumato.data.records import Records


def place(records: Records, how: str) -> Path:
    """The file of this look: named by a hash of every file's path, length and time, of how it looks and the crop rule."""
    stamp = blake2b(f"{how} {len(records)} {CROP_RULE}".encode(), digest_size=12)
    for path in records.files():
        try:
            about = path.stat()
            told = f"{about.st_size} {about.st_mtime_ns}"
        except (OSError, ValueError) as error:
            told = type(error).__name__
        stamp.update(f"\n{os.path.abspath(path)}\0{told}".encode("utf-8", "surrogateescape"))
    return cache_folder() / "looks" / f"{stamp.hexdigest()}.json"


def recall(path: Path, n: int) -> tuple[bool, dict[int, str]] | None:
    """Whether all pictures were grey, and why rows cannot be used; None when there is no such look or it is damaged."""
    try:
        told = json.loads(path.read_bytes())
        grey, reasons = told["grey"], {int(row): str(reason) for row, reason in told["reasons"]}
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if told.get("pictures") != n or not isinstance(grey, bool) or not all(0 <= row < n for row in reasons):
        return None
    return grey, reasons


def keep(path: Path, n: int, grey: bool, reasons: dict[int, str]) -> None:
    """Write whole or not at all; a look that cannot be kept only costs time at the next start."""
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".part")
        with os.fdopen(handle, "w") as file:
            json.dump({"pictures": n, "grey": grey, "reasons": sorted(reasons.items())}, file)
        os.replace(temporary, path)
    except OSError:
        if temporary:
            Path(temporary).unlink(missing_ok=True)
