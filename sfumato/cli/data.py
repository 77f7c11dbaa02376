"""sfumato data get: picture sets that are made on this machine from packages."""

from __future__ import annotations

import argparse
from typing import Any

from sfumato.cli.console import say
from sfumato.data.icons_get import get


def data(options: argparse.Namespace) -> dict[str, Any]:
    """`get emoji`; returns what --json prints."""
    told = get(options.styles or [], options.size, say)
    n = sum(style["pictures"] for style in told["styles"].values())
    say(f"{n:,} pictures of {len(told['styles'])} styles in {told['folder']}: give 'icons' wherever a source is taken")
    return told
