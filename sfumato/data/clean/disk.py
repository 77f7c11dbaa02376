"""Files of a cleaned set: copied or linked, hashed, moved into quarantine and back; each step a rename."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sfumato.core import SfumatoError
from sfumato.data.clean.rewrite import converted_name
from sfumato.data.files import digest
from sfumato.data.progress import progress
from sfumato.data.records import shown

MANIFEST = "manifest.json"
QUARANTINE = ".quarantine"
PART = ".part"  # what is being written
FORMAT = "sfumato clean 1"
_FICLONE = 0x40049409  # share the blocks of another file until one of them is changed (Btrfs, XFS, ...)


def duplicate(source: Path, target: Path) -> bool:
    """A copy of its own; True when it takes no space until one of the two is changed."""
    with source.open("rb") as given, target.open("wb") as made:
        try:
            fcntl.ioctl(made, _FICLONE, given.fileno())
            return True
        except OSError:  # another file system, or one that cannot
            pass
    shutil.copyfile(source, target)
    return False


def write(path: Path, raw: bytes, part: Path) -> None:
    """The whole file or, after a crash, the one before; it is written as `part` first."""
    with part.open("wb") as file:
        file.write(raw)
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, path)


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """manifest.json of a cleaned set; None when the folder is none. Raises SfumatoError for a damaged one."""
    try:
        raw = (folder / MANIFEST).read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        told = json.loads(raw)
        whole = told["format"] == FORMAT and {"source", "fingerprint", "state", "files", "quarantine"} <= set(told)
    except (ValueError, KeyError, TypeError):
        whole = False
    if not whole:
        raise SfumatoError(
            f"{shown(folder / MANIFEST)} was not written by 'sfumato clean' or is damaged; choose another --out"
        )
    return told


def originals(manifest: dict[str, Any]) -> dict[str, str]:
    """Every file as the source had it -> its hash."""
    return {n: h for n, h in manifest["files"].items() if n not in manifest["made"]} | manifest["quarantine"]


def verify(folder: Path, manifest: dict[str, Any]) -> None:
    """Raise SfumatoError when a file is not what the manifest says, or something new stands in the way of undoing."""
    want = [(n, folder / n, h) for n, h in manifest["files"].items()]
    want += [(n, folder / QUARANTINE / n, h) for n, h in manifest["quarantine"].items()]
    changed = []
    for name, path, wanted in progress(want, len(want), "comparing hashes"):
        try:
            if digest(path) != wanted:
                changed.append(f"{name} was changed")
        except OSError as error:
            changed.append(f"{name} cannot be read ({error.strerror})")
    for name in manifest["quarantine"]:
        given = {name, converted_name(name)} - manifest["files"].keys()
        changed += [f"{n} is new" for n in sorted(given) if os.path.lexists(folder / n)]
    if changed:
        raise SfumatoError(
            f"{shown(folder)} is no longer as it was cleaned: {shown(changed[0])}"
            + (f" ({len(changed)} such files)" if changed[1:] else "")
            + "; nothing was done: put that right, or clean into another --out"
        )


def restore(folder: Path, names: set[str]) -> None:
    """Everything out of quarantine and back in its place; converted pictures and rewritten tables give way.

    names: the files as the source has them. May be stopped and begun again at any moment.
    """
    quarantine = folder / QUARANTINE
    for here, _, files in os.walk(quarantine):
        for file in files:
            name = (Path(here) / file).relative_to(quarantine).as_posix()
            made = converted_name(name)
            if made not in names:
                (folder / made).unlink(missing_ok=True)
            move(quarantine / name, folder / name)
    (folder / PART).unlink(missing_ok=True)
    prune(quarantine)


def move(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    os.replace(source, target)


def prune(folder: Path) -> None:
    """Remove the empty folders below, and the folder itself when nothing is left."""
    for here, _, _ in os.walk(folder, topdown=False):
        if not os.listdir(here):
            os.rmdir(here)


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Only one process at a time may work in the folder; the lock goes when the process ends, however it ends."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as error:
        raise SfumatoError(f"another 'sfumato clean' works in {shown(folder)}; wait until it is done") from error
    finally:
        os.close(handle)
