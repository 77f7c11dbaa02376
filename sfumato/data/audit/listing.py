"""What there is to audit: a source of picture files, or one of the named sets, seen in one way."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path

from PIL import Image

from sfumato.core import SfumatoError
from sfumato.data.audit.look import FILE_LIMIT
from sfumato.data.hygiene import COLUMN, YES
from sfumato.data.metadata import read_tables
from sfumato.data.picture import Unusable
from sfumato.data.readers import folder
from sfumato.data.records import LABEL_COLUMNS, SPLITS, Records, open_records, readable


@dataclass(frozen=True)
class Listing:
    """Pictures to look at: names, bytes on demand (raises Unusable), and what is told of each (None where missing).

    `captions` is None for a set without any; `described`: whether a picture has a row of metadata; `declared`: rows
    whose metadata says that they are AI-made; `held`: rows that a named set holds out (None: by their names).
    """

    name: str
    keys: list[str]
    fetch: Callable[[int], bytes]
    skipped: dict[str, str] = field(default_factory=dict)
    labels: list[str | None] = field(default_factory=list)
    captions: list[str | None] | None = None
    described: list[bool] | None = None
    orphans: list[str] = field(default_factory=list)
    declared: frozenset[int] = frozenset()
    held: frozenset[int] | None = None


def open_listing(source: str) -> Listing:
    """The listing of a folder, shards, tables, or a name; raises SfumatoError when there is nothing to look at."""
    path = Path(source).expanduser()
    if _splits(path):
        found = folder.scan(path)
        return _of_records(
            folder.of_table(path, path.resolve().name, found.names, read_tables(path, found.tables), found.skipped)
        )
    if readable(path):
        return _of_records(open_records(source))
    return _of_name(source)


def _splits(path: Path) -> bool:
    """A folder of train/ and test/: training takes one of them, an audit looks at all, for copies between them."""
    try:
        inside = [e for e in os.scandir(path) if not e.name.startswith(".")] if path.is_dir() else []
        return len(inside) > 1 and all(e.is_dir() and e.name.lower() in SPLITS for e in inside)
    except OSError:
        return False


def _of_records(records: Records) -> Listing:
    columns = records.columns
    label = next((columns[c] for c in LABEL_COLUMNS if c in columns), None)
    if label is None:
        label = [Path(k).parent.name or None for k in records.keys]
    told = columns.get(COLUMN, ())
    return Listing(
        name=records.name,
        keys=records.keys,
        fetch=lambda row: _fetch(records, row),
        skipped=records.skipped,
        labels=[None if v is None else str(v) for v in label],
        captions=columns.get("text"),
        described=records.described,
        orphans=records.orphans,
        declared=frozenset(row for row, value in enumerate(told) if str(value).strip().lower() in YES),
    )


def _fetch(records: Records, row: int) -> bytes:
    path = records.locate(row)
    before = _stamp(path)
    if before and before[0] > FILE_LIMIT:
        raise Unusable(f"a file of {before[0] / 1e9:.1f} GB; pictures of up to {FILE_LIMIT / 1e9:.1f} GB are read")
    data = records.fetch(row)
    if before and _stamp(path) != before:
        raise Unusable("changed while it was read; audit again when nothing writes to it")
    return data


def _stamp(path: Path | None) -> tuple[int, int] | None:
    try:
        about = path.stat() if path else None
    except (OSError, ValueError):  # reading will say what is wrong
        return None
    return (about.st_size, about.st_mtime_ns) if about else None


def _of_name(source: str) -> Listing:
    from sfumato.data.open import open as open_source

    loaded = open_source(
        source, 28 if source.startswith("fashion-mnist") else 64 if source.startswith("emoji") else None
    )

    def fetch(row: int) -> bytes:
        pixels = loaded.pixels[row]
        buffer = BytesIO()
        Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels).save(buffer, "PPM")
        return buffer.getvalue()

    labels = [] if loaded.labels is None else loaded.labels.tolist()
    if not len(loaded):
        raise SfumatoError(f"{source} holds no pictures")
    return Listing(
        name=loaded.name,
        keys=list(loaded.keys),
        fetch=fetch,
        labels=[loaded.classes[k] if k >= 0 else None for k in labels],
        captions=loaded.captions,
        held=frozenset(loaded.validation_index.tolist()),
    )
