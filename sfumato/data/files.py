"""Files that are whole or not there, and the folder of what can be made again."""

from __future__ import annotations

import os
from hashlib import blake2b
from pathlib import Path


def cache_folder() -> Path:
    """$SFUMATO_CACHE, else ~/.cache/sfumato."""
    given = os.environ.get("SFUMATO_CACHE")
    return Path(given).expanduser() if given else Path.home() / ".cache" / "sfumato"


def sync(path: Path) -> None:
    """Have what was written to a file or a folder reach the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_text(path: Path, text: str) -> None:
    """Write a file (UTF-8) whole or not at all."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def digest(path: Path, size: int = 32) -> str:
    """blake2b (`size` bytes) of a file, as hex."""
    found = blake2b(digest_size=size)
    with path.open("rb") as file:
        while part := file.read(2**20):
            found.update(part)
    return found.hexdigest()
