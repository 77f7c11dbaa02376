"""sfumato pack: a set of pictures as WebDataset shards."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from sfumato.cli.console import say
from sfumato.core import SfumatoError
from sfumato.data.pack import pack as write
from sfumato.data.records import open_records, shown


def pack(options: argparse.Namespace) -> dict[str, Any]:
    """The command; returns what --json prints."""
    if not 0 < options.shard_size < 2**20:
        raise SfumatoError(f"--shard-size {options.shard_size:g}: give megabytes above 0, such as 256")
    out = Path(options.out).expanduser()
    manifest = write(open_records(options.source), out, int(options.shard_size * 1e6))
    size = sum(s["bytes"] for s in manifest["shards"])
    for left in manifest["skipped"][:20]:
        say(f"left out {shown(left['file'])}: {left['reason']}")
    if len(manifest["skipped"]) > 20:
        say(f"... and {len(manifest['skipped']) - 20} more, listed in {shown(out / 'manifest.json')}")
    say(
        f"packed {manifest['pictures']:,} pictures into {len(manifest['shards'])} shards of together {size / 1e6:,.1f} MB: "
        f"use {shown(out)} wherever a source is taken"
    )
    return {
        "out": str(out),
        "pictures": manifest["pictures"],
        "shards": len(manifest["shards"]),
        "bytes": size,
        "skipped": manifest["skipped"],
    }
