"""sfumato models: what can be drawn with here."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from sfumato.cli.console import say
from sfumato.core import SfumatoError
from sfumato.data.records import shown
from sfumato.tasks.shipped import FOLDER, listed


def models(options: argparse.Namespace) -> dict[str, Any]:
    """The shipped models and the runs under a folder; returns what --json prints."""
    found = [{**model, "file": str(FOLDER / model["file"]), "shipped": True} for model in listed()]
    root = Path(options.folder)
    if not root.is_dir() and options.folder != "runs":
        raise SfumatoError(f"{options.folder!r} is no folder: give the one that holds your run folders")
    found += [told for path in sorted(root.glob("*/run.json")) if (told := _run(path))]
    for model in found:
        conditions = ", ".join(model["conditions"]) or "nothing"
        say(f"{shown(model['name'])}: {model['draws']}, told {conditions}; {shown(model['file'])}")
    if not found:
        say(f"no shipped model, and no run in {shown(options.folder)}: train one with 'sfumato train'")
    return {"models": found}


def _run(path: Path) -> dict[str, Any] | None:
    """What a run folder tells of itself; None for one that is damaged."""
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
        width, height = facts["codec"]["width"], facts["codec"]["height"]
        slots = [slot["name"] for slot in facts["recipe"]["net"]["slots"]]
        return {
            "name": path.parent.name,
            "file": str(path.parent),
            "shipped": False,
            "draws": f"{width}x{height} pictures like {facts['data']['name']}",
            "conditions": slots,
            "styles": facts.get("styles", []),
        }
    except (OSError, ValueError, LookupError, TypeError):
        return None
