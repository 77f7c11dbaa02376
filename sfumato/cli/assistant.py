"""sfumato mcp: tools for assistants."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from sfumato.serve.assistant import TOOLS, Tools, server_of
from sfumato.serve.policy import rules


def assistant(options: argparse.Namespace) -> dict[str, Any]:
    """Serve until stdin ends; returns nothing to print, as stdout belongs to the protocol."""
    own = None if options.policy is None else rules(options.policy)
    server_of(Tools(Path(options.folder), options.model, own)).run("stdio")
    return {"tools": [tool.__name__ for tool in TOOLS]}
