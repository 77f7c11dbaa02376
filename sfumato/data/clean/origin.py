"""What a source holds, as a cleaned set needs it: names in the new folder, bytes, metadata files, a fingerprint."""

from __future__ import annotations

import json
import os
from collections import Counter
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path, PurePosixPath

from sfumato.core import SfumatoError
from sfumato.data.metadata import read_tables
from sfumato.data.picture import Unusable
from sfumato.data.readers import folder
from sfumato.data.records import OWN, SUFFIXES, Records, ending_of, expand, open_records, shown

Stamp = tuple[int, int]  # size in bytes, time of the last change in ns


@dataclass(frozen=True)
class Origin:
    """A source: `targets` maps a picture's row to its name in the cleaned set, `tables` metadata files to their bytes.

    `stamps` holds size and time of every file that was seen; the `fingerprint` is a hash of them. `beside`: folders of what
    was drawn to the pictures, which a cleaned set does not hold.
    """

    where: str
    records: Records
    targets: list[str]
    tables: dict[str, bytes]
    stamps: dict[str, Stamp] = field(default_factory=dict)
    beside: tuple[str, ...] = ()

    @property
    def fingerprint(self) -> str:
        told = json.dumps(sorted(self.stamps.items())).encode()
        return blake2b(told, digest_size=16).hexdigest()

    @property
    def rows(self) -> set[str]:
        """Names that have a row of metadata, with or without a picture."""
        described = self.records.described or [False] * len(self.records)
        return {k for k, has in zip(self.records.keys, described, strict=True) if has} | set(self.records.orphans)


def stamp(path: Path) -> Stamp:
    """Size and time of the last change; (-1, 0) for what is not there or may not be looked at."""
    try:
        about = path.stat()
        return about.st_size, about.st_mtime_ns
    except (OSError, ValueError):
        return -1, 0


def look(source: str | os.PathLike[str]) -> Origin:
    """What is there now; raises SfumatoError as `open_records` does, and for names that cannot be kept apart."""
    path = Path(source).expanduser()
    where = str(path.resolve())
    found = folder.scan(path) if path.is_dir() else None
    if found is not None and found.names:
        records = folder.of_table(
            path, path.resolve().name, found.names, read_tables(path, found.tables), found.skipped
        )
        stamps = {name: stamp(path / name) for name in found.names + found.tables}
        beside = tuple(sorted(OWN[control][1] for control in found.own))
        return Origin(where, records, found.names, {t: (path / t).read_bytes() for t in found.tables}, stamps, beside)
    records = open_records(source)
    shards = [p for p in path.rglob("*") if p.is_file()] if path.is_dir() else expand(os.fspath(source)) or [path]
    stamps = {os.path.relpath(p, path.parent): stamp(p) for p in shards}
    stamps |= {k: stamp(p) for row, k in enumerate(records.keys) if (p := records.locate(row)) is not None}
    targets = [_target(records, row) for row in range(len(records))]
    twice, times = Counter(targets).most_common(1)[0]
    if times > 1:
        raise SfumatoError(f"two pictures of {shown(where)} would both be called {shown(twice)}; name them apart")
    beside = tuple(sorted(f"KEY.{OWN[control][0]}" for control in records.own))
    return Origin(where, records, targets, _told(records, targets), stamps, beside)


def _target(records: Records, row: int) -> str:
    """The picture's name below the cleaned set: no way out, nothing hidden, an ending that says picture."""
    parts = [p for p in PurePosixPath(records.keys[row].replace("\\", "/")).parts if p not in ("/", "..")]
    name = "/".join(p.lstrip(".") or "_" for p in parts) or "_"
    if PurePosixPath(name).suffix.lower() in SUFFIXES:
        return name
    try:
        found = ending_of(name, records[row].read())
    except Unusable:
        found = ""  # cannot be read, so nothing will be made of it
    return name + (found if found in SUFFIXES else ".png")


def _told(records: Records, targets: list[str]) -> dict[str, bytes]:
    """The columns of shards and tables as one metadata.jsonl."""
    if not records.columns:
        return {}
    lines = []
    for record, target in zip(records, targets, strict=True):
        row = {"file_name": target} | {k: v for k, v in record.columns.items() if v is not None}
        try:
            lines.append(json.dumps(row, ensure_ascii=False, allow_nan=False).encode())
        except (TypeError, ValueError) as error:
            raise SfumatoError(
                f"{shown(record.key)}: its row cannot be written as JSON ({error}); leave that column out"
            ) from error
    return {"metadata.jsonl": b"\n".join(lines) + b"\n"}
