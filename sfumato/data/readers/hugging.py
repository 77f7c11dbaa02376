"""What Parquet files and Hugging Face folders share: which column holds the pictures, what they are called, their rows."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sfumato.core import SfumatoError
from sfumato.data.metadata import clean
from sfumato.data.picture import Unusable
from sfumato.data.records import Columns, read_file, shown


def pyarrow(where: Path) -> Any:
    """The module; SfumatoError when it is not installed."""
    try:
        import pyarrow
        import pyarrow.parquet  # noqa: F401
    except ImportError as error:
        raise SfumatoError(f"{shown(where)} needs pyarrow to be read: pip install 'sfumato[parquet]'") from error
    return pyarrow


def features(schema: Any) -> dict[str, Any]:
    """What Hugging Face datasets wrote about the columns, if it did."""
    try:
        found = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))["info"]["features"]
    except (ValueError, KeyError, TypeError):
        return {}
    return found if isinstance(found, dict) else {}


def picture_column(schema: Any, where: Path) -> str:
    """The column declared as Image, or of {bytes, path}, or of bytes; of several, the one named "image"."""
    pa = pyarrow(where)

    def binary(kind: Any) -> bool:
        return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)

    def structured(kind: Any) -> bool:
        return pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0 and binary(kind.field("bytes").type)

    fit = [f.name for f in schema if structured(f.type)] or [f.name for f in schema if binary(f.type)]
    if not fit:
        columns = ", ".join(f"{shown(f.name)} ({f.type})" for f in schema)[:200] or "none"
        raise SfumatoError(
            f"{shown(where)} has no column of pictures, as bytes or as {{bytes, path}}; its columns: {columns}"
        )
    told = features(schema)
    declared = [n for n in fit if isinstance(told.get(n), dict) and told[n].get("_type") == "Image"] or fit
    if len(declared) > 1 and "image" not in declared:
        raise SfumatoError(
            f"{shown(where)} has several columns of pictures ({', '.join(map(shown, declared))}); name the one to use 'image'"
        )
    return "image" if "image" in declared else declared[0]


def small_columns(schema: Any, picture: str, where: Path) -> list[str]:
    """Columns that are kept in memory: all but those that hold bytes, alone or nested."""
    pyarrow(where)
    return [f.name for f in schema if f.name != picture and "binary" not in str(f.type)]


def gather(table: Any, schema: Any, columns: Columns, where: Path) -> None:
    """Append the rows of a table, class numbers turned into their names."""
    told = features(schema)
    values = {}
    for name in table.column_names:
        found = [clean(v) for v in table.column(name).to_pylist()]
        names = told[name].get("names") if isinstance(told.get(name), dict) else None
        if isinstance(names, list):
            found = [names[v] if isinstance(v, int) and 0 <= v < len(names) else None for v in found]
        values[name] = found
    for text in values.get("text", ()):
        if not isinstance(text, str | None):
            raise SfumatoError(f"{shown(where)}: text is {text!r}; a caption must be text")
    for row in range(table.num_rows):
        columns.add({name: found[row] for name, found in values.items()})


def names(columns: Columns, paths: Sequence[str | None], fallback: list[str], where: str) -> list[str]:
    """One unique name per picture: the column `file_name`, else the paths stored with the pictures, else the place."""
    given = columns.values.pop("file_name", None)
    if given is None:
        whole = all(paths) and len(set(paths)) == len(paths)
        return [str(p) for p in paths] if whole else fallback
    seen = set()
    for row, name in enumerate(given):
        if not isinstance(name, str) or name in seen:
            raise SfumatoError(
                f"{where} row {row}: file_name is {name!r}, which is no name of its own; mend the column"
            )
        seen.add(name)
    return given


def picture_bytes(value: Any, root: Path) -> bytes:
    """A cell -> the bytes of the picture, read from its path when only that is stored; raises Unusable."""
    found, path = (value.get("bytes"), value.get("path")) if isinstance(value, dict) else (value, None)
    if found is not None:
        return found
    if path:
        return read_file(root / path)
    raise Unusable("no picture in this row")
