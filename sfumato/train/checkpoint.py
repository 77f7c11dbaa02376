"""Checkpoints that are whole or not there: safetensors and JSON, a manifest with hashes last, then one rename."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from sfumato.core import SfumatoError
from sfumato.data.files import sync

MANIFEST = "manifest.json"


def save(folder: Path, tensors: dict[str, dict[str, Tensor]], state: dict[str, Any]) -> None:
    """Write `folder` with one .safetensors file per entry of `tensors`, `state.json`, and the manifest.

    Everything goes to a temporary sibling, is fsynced, and appears by a rename: a crash at any moment leaves either the
    whole checkpoint or none. Raises SfumatoError when the disk is full, leaving earlier checkpoints as they were.
    """
    temporary = folder.with_name(f".tmp-{folder.name}-{os.getpid()}")
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        for name, group in tensors.items():
            save_file({k: v.detach().contiguous() for k, v in group.items()}, temporary / f"{name}.safetensors")
        (temporary / "state.json").write_text(json.dumps(state))
        hashes = {}
        for path in sorted(temporary.iterdir()):
            hashes[path.name] = hashlib.sha256(path.read_bytes()).hexdigest()
            sync(path)
        (temporary / MANIFEST).write_text(json.dumps({"sha256": hashes}))
        sync(temporary / MANIFEST)
        sync(temporary)
        if folder.exists():
            shutil.rmtree(folder)
        temporary.rename(folder)
        sync(folder.parent)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise SfumatoError(f"could not save {folder}: {error}; free some space, then go on with --resume") from error


def verify(folder: Path) -> bool:
    """Whether every file that the manifest names is there with its hash."""
    try:
        hashes = json.loads((folder / MANIFEST).read_text())["sha256"]
        return bool(hashes) and all(
            hashlib.sha256((folder / n).read_bytes()).hexdigest() == h for n, h in hashes.items()
        )
    except (OSError, ValueError, KeyError, TypeError):
        return False


def whole(folder: Path) -> list[Path]:
    """Checkpoints below `folder` whose manifest verifies, oldest first."""
    found = sorted(p for p in folder.glob("[0-9]*") if p.is_dir()) if folder.is_dir() else []
    return [p for p in found if verify(p)]


def newest(folder: Path) -> Path | None:
    """The newest checkpoint below `folder` whose manifest verifies."""
    for path in sorted(folder.glob("[0-9]*"), reverse=True) if folder.is_dir() else []:
        if verify(path):
            return path
    return None


def prune(folder: Path, keep: int) -> None:
    """Remove all but the newest `keep` checkpoints, and what crashes left behind; never the newest whole one."""
    good = newest(folder)
    for path in sorted(folder.glob("[0-9]*"))[:-keep]:
        if path != good:
            shutil.rmtree(path, ignore_errors=True)
    for path in folder.glob(".tmp-*"):
        shutil.rmtree(path, ignore_errors=True)


def forget_after(folder: Path, step: int) -> None:
    """Remove what was saved after `step`, torn or of an abandoned future, and what crashes left behind."""
    for path in folder.glob("[0-9]*"):
        if path.name.isdigit() and int(path.name) > step:
            shutil.rmtree(path, ignore_errors=True)
    for path in folder.glob(".tmp-*"):
        shutil.rmtree(path, ignore_errors=True)


def load(folder: Path, name: str) -> dict[str, Tensor]:
    """The tensors of one file of a checkpoint."""
    try:
        return load_file(folder / f"{name}.safetensors")
    except (OSError, SafetensorError) as error:
        raise SfumatoError(f"{folder / name}.safetensors cannot be read: {error}") from error


def load_state(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "state.json").read_text())
