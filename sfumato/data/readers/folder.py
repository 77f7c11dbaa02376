"""A folder of picture files, with metadata.csv or metadata.jsonl -> Records."""

from __future__ import annotations

import os
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from sfumato.core import SfumatoError
from sfumato.data.metadata import NAMES as METADATA_NAMES
from sfumato.data.metadata import Table, read_tables
from sfumato.data.records import OWN, PALETTE, SPLITS, SUFFIXES, Beside, Columns, Records, read_file, shown


@dataclass
class Scan:
    """Relative names of pictures and metadata files (sorted), and what was skipped; `own`, by control, the names of what was
    drawn to the pictures, by the pictures' names without their endings."""

    names: list[str] = field(default_factory=list)
    tables: list[str] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    own: dict[str, dict[str, str]] = field(default_factory=dict)


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
    _set_apart(root, found)
    return found


def _set_apart(root: Path, found: Scan) -> None:
    """Take masks/, maps/ and sketches/ for what was drawn to the pictures, where any file in them has the name of a picture
    (below the root, or below the folder that holds all pictures); else they are classes like any other folder."""
    folders = {folder: control for control, (_, folder) in OWN.items()}
    drawn = defaultdict(list)
    rest = []
    for name in found.names:
        top, _, inner = name.partition("/")
        (drawn[top] if top in folders and inner else rest).append(name)
    stems = set(map(_stem, rest))
    base = os.path.commonpath([os.path.dirname(name) for name in rest]) if rest else ""
    below = {os.path.relpath(stem, base): stem for stem in stems} if base else {}
    for top, names in drawn.items():
        own: dict[str, str] = {}
        for name in names:
            stem = _stem(name[len(top) + 1 :])
            stem = below.get(stem, stem) if stem not in stems else stem
            if stem in stems and stem in own:
                raise SfumatoError(
                    f"{shown(root / own[stem])} and {shown(root / name)} belong to one picture; keep one of them"
                )
            own.setdefault(stem, name)
        if own.keys() & stems:
            found.own[folders[top]] = own
            found.tables = [name for name in found.tables if not name.startswith(f"{top}/")]
            found.names = [name for name in found.names if not name.startswith(f"{top}/")]


def _stem(name: str) -> str:
    return PurePosixPath(name).with_suffix("").as_posix()


def load(root: Path, found: Scan) -> Records:
    """Pictures by name; raises SfumatoError when there are none, for a folder of splits, and for broken metadata."""
    if not found.names:
        first = next((f"{shown(name)}: {reason}" for name, reason in found.skipped.items()), "")
        told = f"; {len(found.skipped)} had to be skipped, the first: {first}" if first else ""
        raise SfumatoError(
            f"no pictures in {shown(root)}{told}; put .png, .jpg, .webp, ... files there or into class subfolders"
        )
    table = read_tables(root, found.tables)
    told = {path for column in _columns(table).values() for path in column.values()}
    names = [name for name in found.names if name not in told]
    _refuse_splits(root, names)
    return with_own(of_table(root, root.resolve().name, names, table, found.skipped), root, table, found.own)


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


def _columns(table: Table) -> dict[str, dict[str, str]]:
    """By control, what its column says of each picture, relative to the root."""
    found: dict[str, dict[str, str]] = {}
    for control, (word, _) in OWN.items():
        told = {key: row[word] for key, row in table.rows.items() if isinstance(row.get(word), str)}
        found[control] = {key: os.path.normpath(os.path.join(table.folders[key], path)) for key, path in told.items()}
    return found


def with_own(records: Records, root: Path, table: Table, own: dict[str, dict[str, str]]) -> Records:
    """The records with what was drawn to their pictures: as a column says, or else a folder (`own` of `Scan`)."""
    lost: dict[str, list[str]] = {}
    for control, column in _columns(table).items():
        folder = own.get(control, {})
        names = [column.get(key) or folder.get(_stem(key)) for key in records.keys]
        if any(names):
            records.own[control] = [None if n is None else Beside(str(root / n), lambda n=n: root / n) for n in names]
        if spare := sorted(set(folder.values()).difference(names)):
            lost[OWN[control][1]] = spare
    palette = root / OWN["classes"][1] / PALETTE
    if records.own.get("classes") and palette.exists():
        records.palette = palette
    if lost:
        records.notes["without_picture"] = {k: {"count": len(v), "first": v[:20]} for k, v in lost.items()}
    return records


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
