"""A folder of picture files, with metadata.csv or metadata.jsonl -> Records."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from sfumato.core import SfumatoError
from sfumato.data.metadata import NAMES as METADATA_NAMES
from sfumato.data.metadata import Table, read_tables
from sfumato.data.records import SPLITS, SUFFIXES, Columns, Records, read_file, shown


@dataclass
class Scan:
    """Relative names of pictures and metadata files (sorted), and what was skipped."""

    names: list[str] = field(default_factory=list)
    tables: list[str] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)


def scan(root: Path) -> Scan:
    """Every name below root; hidden names are ignored, a link that leads back up is not followed twice."""
    found, seen = Scan(), set()
    for here, folders, files in os.walk(root, followlinks=True, onerror=lambda e: _note_closed(root, e, found.skipped)):
        real = os.path.realpath(here)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(f for f in folders if not f.startswith("."))
        for folder in list(folders):
            if Path(folder).suffix.lower() in SUFFIXES:
                found.skipped[(Path(here) / folder).relative_to(root).as_posix()] = "a folder, not a picture"
                folders.remove(folder)
        for file in files:
            name = (Path(here) / file).relative_to(root).as_posix()
            if file in METADATA_NAMES:
                found.tables.append(name)
            elif not file.startswith(".") and Path(file).suffix.lower() in SUFFIXES:
                found.names.append(name)
    found.names.sort()
    found.tables.sort()
    return found


def load(root: Path, found: Scan) -> Records:
    """Pictures by name; raises SfumatoError when there are none, for a folder of splits, and for broken metadata."""
    if not found.names:
        first = next((f"{shown(name)}: {reason}" for name, reason in found.skipped.items()), "")
        told = f"; {len(found.skipped)} had to be skipped, the first: {first}" if first else ""
        raise SfumatoError(
            f"no pictures in {shown(root)}{told}; put .png, .jpg, .webp, ... files there or into class subfolders"
        )
    table = read_tables(root, found.tables)
    _refuse_splits(root, found.names)
    return of_table(root, root.resolve().name, found.names, table, found.skipped)


def of_table(root: Path, name: str, names: list[str], table: Table, skipped: dict[str, str]) -> Records:
    """Picture files below root with the rows of a table."""
    columns, have = Columns(), set(names)
    for key in names if table.columns else ():
        columns.add(table.rows.get(key))
    return Records(
        name=name,
        where=shown(root),
        keys=names,
        fetch=lambda row: read_file(root / names[row]),
        locate=lambda row: root / names[row],
        files=lambda: [root / n for n in names],
        columns={c: columns.values.get(c, [None] * len(names)) for c in table.columns},
        described=columns.described if table.columns else None,
        orphans=[n for n in table.rows if n not in have],
        skipped=skipped,
        notes={"metadata": table.where, "duplicate_rows": table.duplicates} if table.columns else {},
    )


def _note_closed(root: Path, error: OSError, skipped: dict[str, str]) -> None:
    name = Path(error.filename).relative_to(root).as_posix()
    if name == ".":
        raise SfumatoError(f"cannot list {shown(root)}: {error.strerror}")
    skipped[name] = f"cannot be listed ({error.strerror})"


def _refuse_splits(root: Path, names: list[str]) -> None:
    tops = {n.split("/")[0] for n in names if "/" in n}
    if len(tops) > 1 and {t.lower() for t in tops} <= SPLITS and all("/" in n for n in names):
        first = "train" if "train" in tops else min(tops)
        raise SfumatoError(
            f"{shown(root)} holds the splits {', '.join(sorted(tops))}; give one of them, such as {shown(root / first)}"
        )
