"""sfumato clean: a cleaned set beside the source, by a plan that can be read, edited and undone."""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path
from typing import Any

from sfumato.cli.console import Line, say
from sfumato.data.audit import audit
from sfumato.data.clean import clean as cleaned
from sfumato.data.clean import plan_path, read_plan, undo
from sfumato.data.records import shown

SAID = {
    "quarantine": "into quarantine",
    "convert": "rewritten",
    "drop-row": "rows dropped",
    "keep": "kept, for you to look at",
}


def clean(options: argparse.Namespace) -> dict[str, Any]:
    """Clean or undo; returns what --json prints."""
    out = Path(options.out)
    if options.undo:
        told = undo(options.source, out)
        say(f"undone: {shown(out)} holds the {told['pictures']:,} pictures of {shown(told['source'])} again")
        return _summary(out, told)
    line = Line("audit")

    def look() -> Any:
        found = audit(options.source, lambda done, total, what: line.show(done / max(total, 1), what)).findings
        line.end()
        return found

    told = cleaned(options.source, out, options.only or (), look)
    plan = read_plan(plan_path(out.expanduser().absolute()))
    chosen = plan.chosen(told["only"])
    for action, text in SAID.items():
        files = chosen.files(action)
        kinds = Counter(a.kind for a in chosen.actions if a.action == action and a.file in files)
        if kinds:
            say(f"{text}: " + ", ".join(f"{kind} {n:,}" for kind, n in kinds.items()))
    for advice in plan.advice:
        say(f"not done: {shown(advice)}")
    for name, reason in (told["left_out"] | told["not_converted"]).items():
        say(f"{shown(name)}: {reason}")
    for what in told.get("not_taken", ()):
        say(f"{what}: drawn to the pictures, and not in the cleaned set; copy what you need to {shown(out)}")
    if told["linked"]:
        say("the files are hard links: an edit in the cleaned set changes the source too")
    say(f"{told['pictures']:,} pictures in {shown(out)}; the plan, to read or edit: {shown(plan_path(out))}")
    return _summary(out, told)


def _summary(out: Path, told: dict[str, Any]) -> dict[str, Any]:
    return {
        "out": str(out),
        "plan": str(plan_path(out)),
        "source": told["source"],
        "undone": told["state"] == "undone",
        "pictures": told["pictures"],
        "quarantined": told["taken_out"],
        "converted": [n for n in told["made"] if not n.rpartition("/")[2].startswith("metadata.")],
        "rows_dropped": told["rows_dropped"],
        "left_out": told["left_out"],
        "not_converted": told["not_converted"],
        "not_taken": list(told.get("not_taken", ())),
        "linked": told["linked"],
    }
