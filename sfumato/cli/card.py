"""sfumato card: the model card of a run, renewed."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from sfumato.cli.console import say
from sfumato.train import Run, write_card


def card(options: argparse.Namespace) -> dict[str, Any]:
    """Write card.md from the run, its measurements and what the user tells; returns what --json prints."""
    path = write_card(Run(Path(options.run)), options.licence, options.watts)
    say(path.read_text())
    return {"card": str(path)}
