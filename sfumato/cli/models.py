"""sfumato models: what can be drawn with here."""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from sfumato.cli.console import say
from sfumato.core import SfumatoError
from sfumato.data.drawings import Area, palette_of
from sfumato.data.drawings import listed as listed_areas
from sfumato.data.records import shown
from sfumato.tasks.model import WEAK
from sfumato.tasks.shipped import FOLDER, listed
from sfumato.train import Run


def models(options: argparse.Namespace) -> dict[str, Any]:
    """The shipped models and the runs under a folder; returns what --json prints."""
    root = Path(options.folder)
    if not root.is_dir() and options.folder != "runs":
        raise SfumatoError(f"{options.folder!r} is no folder: give the one that holds your run folders")
    found = [_shipped(entry) for entry in listed()]
    found += [told for path in sorted(root.glob("*/run.json")) if (told := _run(path.parent))]
    for model in found:
        say(_line(model))
    if not found:
        say(f"no shipped model, and no run in {shown(options.folder)}: train one with 'sfumato train'")
    return {"models": found}


def _shipped(entry: dict[str, Any], folder: Path = FOLDER) -> dict[str, Any]:
    """What the file tells, and over it what the index says."""
    file = folder / entry["file"]
    card = file.with_suffix(".md")
    told = {
        "file": str(file),
        "shipped": True,
        "card": str(card) if card.exists() else None,
        "date": None,
        "steps": None,
    }
    try:
        with safe_open(file, "pt") as opened:
            told |= _facts(json.loads(opened.metadata()["sfumato"]))
        told |= {"parameters": _parameters(file), "bytes": file.stat().st_size}
    except (OSError, SafetensorError, ValueError, LookupError, TypeError) as error:
        raise SfumatoError(f"the model {entry['name']!r} that comes with the package is damaged: {error}") from error
    return told | entry | {"file": str(file)}


def _run(path: Path) -> dict[str, Any] | None:
    """What a run folder tells of itself; None for one that is damaged."""
    try:
        told = {"name": path.name, "file": str(path), "shipped": False, **_facts(Run(path).describe())}
        rows, kept = Run(path).rows(), sorted(path.glob("checkpoints/[0-9]*/weights.safetensors"))
        newest = kept[-1] if kept else None
        changed = (newest or path / "run.json").stat().st_mtime
        return told | {
            "parameters": _parameters(newest) if newest else None,
            "bytes": newest.stat().st_size if newest else None,
            "steps": rows[-1]["step"] if rows else 0,
            "date": datetime.fromtimestamp(changed, timezone.utc).isoformat(timespec="seconds"),
            "card": str(path / "card.md") if (path / "card.md").exists() else None,
        }
    except (OSError, SafetensorError, SfumatoError, LookupError, TypeError, ValueError):
        return None


def _facts(facts: dict[str, Any]) -> dict[str, Any]:
    """From run.json, or from the header of an exported file."""
    codec, slots = facts["codec"], facts["recipe"]["net"]["slots"]
    return {
        "draws": f"{codec['width']}x{codec['height']} pictures like {facts['data']['name']}",
        "conditions": [slot["name"] for slot in slots],
        "classes": facts.get("classes", []),
        "styles": facts.get("styles", []),
        "palette": [dataclasses.asdict(area) for area in palette_of(facts)],
    }


def _parameters(file: Path) -> int:
    with safe_open(file, "pt") as opened:
        names = [name for name in opened.keys() if not name.startswith(WEAK)]
        return sum(math.prod(opened.get_slice(name).get_shape()) for name in names)


def _line(model: dict[str, Any]) -> str:
    told = [model["draws"], f"told {', '.join(model['conditions']) or 'nothing'}"]
    told += [f"styles {', '.join(model['styles'])}"] if model["styles"] else []
    told += [f"maps of {listed_areas(Area(**area) for area in model['palette'])}"] if model["palette"] else []
    told += [f"{model['parameters'] / 1e6:.2f} M parameters"] if model["parameters"] else ["not yet trained"]
    told += [f"{model['steps']:,} steps"] if model["steps"] else []
    told += [model["date"][:10]] if model["date"] else []
    told += [shown(model["file"])] + ([f"card {shown(model['card'])}"] if model["card"] else [])
    return f"{shown(model['name'])}: {shown('; '.join(told))}"
