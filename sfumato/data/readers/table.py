"""A CSV or JSONL file that names picture files -> Records."""

from __future__ import annotations

from pathlib import Path

from sfumato.core import SfumatoError
from sfumato.data.metadata import read_tables
from sfumato.data.readers.folder import of_table, with_own
from sfumato.data.records import Records, shown


def load(path: Path) -> Records:
    """Pictures of the column `file_name` (relative to the table, or absolute), sorted by name, other columns kept.

    Files that are not there are found out when they are read. Raises SfumatoError for a broken table or an empty one.
    """
    table = read_tables(path.parent, [path.name])
    if not table.rows:
        raise SfumatoError(f"{shown(path)} names no pictures; give one row per picture with its file_name")
    return with_own(of_table(path.parent, path.stem, sorted(table.rows), table, {}), path.parent, table, {})
