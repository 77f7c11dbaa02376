"""sfumato audit: what is wrong with a set, in lines and as a page."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from sfumato.cli.console import Line, say
from sfumato.core import SfumatoError
from sfumato.data.audit import FIXES, KINDS, Audit, audit
from sfumato.data.records import shown

LINES = 5  # of each kind


def run_audit(options: argparse.Namespace) -> dict[str, Any]:
    """Audit, tell, write the page; returns what --json prints, with `exit_code` 0 (clean) or 1 (faults found)."""
    line = Line("auditing")
    if options.text is not None and options.text < 0:
        raise SfumatoError(f"--text {options.text}: read so many pictures, 1 or more, or all when no number is given")
    result = audit(
        options.source,
        lambda done, total, what: line.show(done / total, f"{what}, {done:,} of {total:,}"),
        options.text,
    )
    line.end()
    for text in told(result):
        say(text)
    if options.report:
        from sfumato.cli.audit_report import write_page

        say(f"report: {write_page(Path(options.report), options.source, result)}")
    return {**result.to_json(), "exit_code": 0 if result.clean else 1}


def told(result: Audit) -> list[str]:
    """The audit in lines of text: per kind a heading with count and fix, and the first few files."""
    lines = []
    for kind, name in KINDS.items():
        found = [f for f in result.findings if f.kind == kind]
        if not found:
            continue
        files = sum(len(f.files) for f in found)
        lines.append(f"{name} ({kind}){f', {files:,} files' if files else ''}: {FIXES[found[0].fix]}")
        for finding in found[:LINES]:
            names = ", ".join(shown(n) for n in finding.files[:3]) + (", ..." if len(finding.files) > 3 else "")
            lines.append("  " + ": ".join(part for part in (names, shown(finding.evidence)) if part))
        if len(found) > LINES:
            lines.append(f"  ... and {len(found) - LINES:,} more; all of them with --json or --report")
    return [*lines, f"verdict: {result.verdict}"]
