"""The model card: one page of Markdown on what a model was made from, written beside it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from sfumato.core import SfumatoError
from sfumato.data.files import write_text
from sfumato.train.preparation import lines
from sfumato.train.run import Run


def _text(value: Any) -> str:
    """A value for one table cell: no line breaks, no Markdown, no HTML."""
    printable = "".join(
        c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in str(value)
    )
    return re.sub(r"([\\`*_\[\]<>|#&])", r"\\\1", printable)


def write_card(run: Run) -> Path:
    """Write card.md into the run folder from what it describes, and return its path.

    Raises SfumatoError when the folder cannot be written to.
    """
    path = run.path / "card.md"
    try:
        write_text(path, card(run.path.name, run.describe(), run.rows()))
    except OSError as error:
        raise SfumatoError(f"the model card cannot be written to {run.path}: {error}") from error
    return path


def card(name: str, described: dict[str, Any], log: list[dict[str, Any]]) -> str:
    """The page: `described` is run.json, `log` the rows of log.jsonl."""
    data, recipe = described["data"], described["recipe"]
    facts = {
        "data": f"{data['name']}: {data['pictures']:,} pictures of {data['width']}x{data['height']} pixels, "
        f"{data['train']:,} to learn from, {data['validation']:,} held out",
        "licence of the data": data.get("licence", "not stated by the source: yours to know"),
        "left out as unusable": len(data.get("skipped", [])),
        "AI-made": _ai_made(data.get("ai_made")),
        "classes": ", ".join(data["classes"][:40]) + (", ..." if len(data["classes"]) > 40 else "") or "none",
        "balance": _dump(recipe.get("balance"), "none: every picture as often as any other"),
        "captions": _dump(recipe.get("captions"), "as they are" if data["captioned"] else "none"),
        "augmentation": _dump([recipe[k] for k in ("augment", "colour") if recipe.get(k)] or None, "none"),
        "standardised": f"per {data['standard']['per']}" if "standard" in data else "no",
        "process": recipe["process"]["is"],
        "network": recipe["net"]["is"],
        "seed": recipe["seed"],
        "versions": ", ".join(f"{k} {v}" for k, v in described["versions"].items()),
    }
    if log:
        last = log[-1]
        facts["training"] = f"{last['step']:,} steps, {last['images']:,} pictures seen, {last['seconds']:,.0f} s"
        facts["validation loss"] = f"{last['validation_loss']:.4f}"
    rows = "\n".join(f"| {key} | {_text(value)} |" for key, value in facts.items())
    prepared = "".join(f"* {_text(line)}\n" for line in lines(data))
    return (
        f"# Model card: {_text(name)}\n\n| | |\n|---|---|\n{rows}\n\n{prepared}\n"
        "AI-made pictures are counted where the file or its metadata declares it; a picture without a mark is not proof "
        "of the contrary. Everything else about this model is in run.json and report.html.\n"
    )


def _ai_made(told: dict[str, Any] | None) -> str:
    if told is None:
        return "not looked for"
    return (
        f"{told['pictures']:,} pictures ({told['share']:.1%}) are marked as AI-made; rule: {told['rule']}; "
        f"{told['drawn']:.1%} of what training saw"
    )


def _dump(value: Any, nothing: str) -> str:
    return nothing if value is None else json.dumps(value, ensure_ascii=False)
