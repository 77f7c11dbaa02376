"""The model card: one page of Markdown on what a model was made from, written beside it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
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


def write_card(run: Run, licence: str | None = None, watts: float | None = None) -> Path:
    """Write card.md into the run folder from what it describes and what `measure` found, and return its path.

    What no file can know is told once and kept in card.json: `licence` of the data, and the `watts` that the machine
    draws while it trains, from which the energy follows. Raises SfumatoError for watts that are not positive, and when
    the folder cannot be read or written to.
    """
    if watts is not None and not 0 < watts < 1e6:
        raise SfumatoError(f"--watts is what the machine draws while it trains, more than 0, not {watts:g}")
    path, kept = run.path / "card.md", run.path / "card.json"
    described, log, told = run.describe(), run.rows(), _read(kept)
    new = {k: v for k, v in (("licence", licence), ("watts", watts)) if v is not None}
    try:
        if new:
            write_text(kept, json.dumps({**told, **new}))
        write_text(path, card(run.path.name, described, log, _read(run.path / "measure.json"), {**told, **new}))
    except OSError as error:
        raise SfumatoError(f"the model card cannot be written to {run.path}: {error}") from error
    return path


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise SfumatoError(f"{path} cannot be read ({error}): delete it, and measure or tell it again") from error
    return found if isinstance(found, dict) else {}


def card(
    name: str,
    described: dict[str, Any],
    log: list[dict[str, Any]],
    measured: dict[str, Any] | None = None,
    told: dict[str, Any] | None = None,
) -> str:
    """The page: `described` is run.json, `log` the rows of log.jsonl, `measured` measure.json, `told` card.json."""
    measured, told = measured or {}, told or {}
    data, recipe = described["data"], described["recipe"]
    shapes = " / ".join(f"{w}x{h}" for h, w, *_ in data.get("shapes", [[data["height"], data["width"]]]))
    facts = {
        "data": f"{data['name']}: {data['pictures']:,} pictures of {shapes} pixels, "
        f"{data['train']:,} to learn from, {data['validation']:,} held out",
        "licence of the data": told.get(
            "licence", data.get("licence", "not stated: tell it with sfumato card --licence")
        ),
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
        facts["energy of training"] = _energy(last["seconds"], told.get("watts"))
    prepared = "".join(f"* {_text(line)}\n" for line in lines(data))
    return (
        f"# Model card: {_text(name)}\n\n{_table(('', ''), facts.items())}\n{prepared}\n## Quality\n\n"
        f"{_quality(measured)}\n"
        "AI-made pictures are counted where the file or its metadata declares it; a picture without a mark is not proof "
        "of the contrary. Everything else about this model is in run.json and report.html.\n"
    )


def _table(head: tuple[str, ...], rows: Iterable[tuple[Any, ...]]) -> str:
    lines = [head, ("---",) * len(head), *(tuple(_text(cell) for cell in row) for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _energy(seconds: float, watts: float | None) -> str:
    if watts is None:
        return "not known: tell what the machine draws with sfumato card --watts"
    return f"{seconds * watts / 3600:,.1f} Wh: {seconds / 3600:,.2f} hours at {watts:g} W"


def _quality(measured: dict[str, Any]) -> str:
    """Every measured number with its interval and what real pictures get, and the share of copies."""
    if not measured.get("metrics"):
        return "Not measured: run `sfumato measure RUN --against SOURCE`, then `sfumato card RUN`.\n"
    rows = [
        (m["name"], *(_number(m.get(key)) for key in ("value", "low", "high", "floor"))) for m in measured["metrics"]
    ]
    told = _table(("metric", "value", "95 %: from", "to", "real pictures get"), rows)
    copies = measured.get("memorisation")
    return told + (f"\nCopies of training pictures: {_text(copies['words'])}.\n" if copies else "")


def _number(value: Any) -> str:
    return "" if value is None else f"{value:.4g}" if isinstance(value, int | float) else str(value)


def _ai_made(told: dict[str, Any] | None) -> str:
    if told is None:
        return "not looked for"
    return (
        f"{told['pictures']:,} pictures ({told['share']:.1%}) are marked as AI-made; rule: {told['rule']}; "
        f"{told['drawn']:.1%} of what training saw"
    )


def _dump(value: Any, nothing: str) -> str:
    return nothing if value is None else json.dumps(value, ensure_ascii=False)
