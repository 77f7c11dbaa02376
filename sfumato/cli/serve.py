"""sfumato serve: models of your own behind the interfaces that clients know."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from sfumato.serve.run import Site
from sfumato.serve.run import serve as run
from sfumato.train import keep_large_blocks


def serve(options: argparse.Namespace) -> dict[str, Any]:
    """Serve until a signal comes; returns what --json prints."""
    keep_large_blocks()
    site = Site(
        options.host,
        options.port,
        options.token,
        Path(options.data),
        tuple(Path(folder) for folder in options.allow),
        None if options.policy is None else Path(options.policy),
        tuple(options.name),
    )
    return run(options.models, site)
