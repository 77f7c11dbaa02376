"""metadata.jsonl and metadata.csv: one row per picture, `file_name` relative to the file, any other columns."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from sfumato.core import SfumatoError
from sfumato.data.records import shown

NAMES = ("metadata.jsonl", "metadata.csv")


@dataclass
class Table:
    """Rows by picture name relative to the source's root; values are None where missing, empty or NaN. `folders` are those of
    the metadata files that the rows stand in."""

    where: str = ""
    columns: tuple[str, ...] = ()
    rows: dict[str, dict[str, Any]] = field(default_factory=dict)
    duplicates: int = 0
    folders: dict[str, str] = field(default_factory=dict)


def read_tables(root: Path, names: list[str]) -> Table:
    """All metadata files below root in one table; raises SfumatoError naming the file and the line."""
    for name in names:
        if name.endswith(".csv") and name[: -len("csv")] + "jsonl" in names:
            raise SfumatoError(
                f"{shown((root / name).parent)} has both metadata.jsonl and metadata.csv; keep one of them"
            )
    table, columns, lines = Table(where=shown(", ".join(names))), {}, {}
    for name in names:
        path = root / name
        for line, row in _jsonl(path) if name.endswith(".jsonl") else _csv(path):
            at = f"{shown(path)} line {line}"
            file = row.pop("file_name", None)
            if not isinstance(file, str) or not file.strip():
                raise SfumatoError(f"{at}: no file_name; every row needs the picture's name relative to this file")
            key = (PurePosixPath(name).parent / file.strip().replace("\\", "/")).as_posix()
            row = {c: clean(v) for c, v in row.items()}
            if not isinstance(row.get("text"), str | None):
                raise SfumatoError(f"{at}: text is {row['text']!r}; a caption must be text in quotes")
            if key in table.rows:
                if table.rows[key] != row:
                    raise SfumatoError(
                        f"{at}: {file!r} again, with other values than in line {lines[key]}; keep one row"
                    )
                table.duplicates += 1
                continue
            columns.update(dict.fromkeys(row))
            table.rows[key], lines[key] = row, line
            table.folders[key] = PurePosixPath(name).parent.as_posix()
    table.columns = tuple(columns)
    return table


def clean(value: Any) -> Any:
    """A value of a table without surrounding blanks; None where it is empty or not a number."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, str) and (not value.strip() or value.strip() in ("NaN", "nan")):
        return None
    return value.strip() if isinstance(value, str) else value


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise SfumatoError(f"{shown(path)} line {line}: not UTF-8 text; save the file as UTF-8") from error
    except OSError as error:
        raise SfumatoError(f"{shown(path)} cannot be read ({error.strerror})") from error


def _jsonl(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    for line, content in enumerate(_text(path).split("\n"), 1):
        if not content.strip():
            continue
        try:
            row = json.loads(content)
        except (ValueError, RecursionError) as error:
            raise SfumatoError(f"{shown(path)} line {line}: not valid JSON ({error})") from error
        if not isinstance(row, dict):
            raise SfumatoError(
                f'{shown(path)} line {line}: not a JSON object such as {{"file_name": "a.png", "text": "a cat"}}'
            )
        yield line, row


def _csv(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    reader = csv.DictReader(io.StringIO(_text(path), newline=""))
    try:
        if "file_name" not in (reader.fieldnames or ()):
            have = ", ".join(reader.fieldnames or ()) or "nothing"
            raise SfumatoError(f"{shown(path)} line 1: no column file_name (the header has {have})")
        for row in reader:
            if None in row:
                raise SfumatoError(
                    f"{shown(path)} line {reader.line_num}: more cells than the header; put text that holds commas in quotes"
                )
            yield reader.line_num, row
    except csv.Error as error:
        raise SfumatoError(f"{shown(path)} line {reader.line_num}: not valid CSV ({error})") from error
