"""A folder written by `save_to_disk` of Hugging Face datasets -> Records, mapped into memory and read in place."""

from __future__ import annotations

import json
from pathlib import Path

from sfumato.core import SfumatoError
from sfumato.data.readers.hugging import gather, names, picture_bytes, picture_column, pyarrow, small_columns
from sfumato.data.records import Columns, Records, shown


def fits(root: Path) -> bool:
    return (root / "dataset_dict.json").is_file() or ((root / "state.json").is_file() and any(root.glob("*.arrow")))


def load(root: Path) -> Records:
    """All rows of the folder's .arrow files; SfumatoError for a folder of splits, and for what cannot be read."""
    if (root / "dataset_dict.json").is_file():
        splits = sorted(p.parent.name for p in root.glob("*/state.json"))
        raise SfumatoError(
            f"{shown(root)} holds the splits {', '.join(map(shown, splits))}; give one of them, such as "
            f"{shown(root / (splits or ['train'])[0])}"
        )
    pa = pyarrow(root)
    try:
        state = json.loads((root / "state.json").read_bytes())
        files = [root / Path(f["filename"]).name for f in state["_data_files"]]
        chosen = state.get("_indices_files") or state.get("_indices_data_files")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise SfumatoError(f"{shown(root / 'state.json')} cannot be read ({error}); save the dataset anew") from error
    if chosen:
        raise SfumatoError(f"{shown(root)} holds a choice of rows only; call flatten_indices() before save_to_disk")
    tables = []
    for file in files:
        try:
            tables.append(pa.ipc.open_stream(pa.memory_map(str(file))).read_all())
        except (OSError, pa.ArrowException) as error:
            told = " ".join(str(error).split())[:120]
            raise SfumatoError(f"{shown(file)} is no whole Arrow file ({told}); save the dataset anew") from error
        if tables[-1].schema != tables[0].schema:
            raise SfumatoError(f"{shown(file)} has other columns than {shown(files[0])}; save the dataset anew")
    if not sum(t.num_rows for t in tables):
        raise SfumatoError(f"no pictures in {shown(root)}: the dataset has no rows")
    table = pa.concat_tables(tables)
    picture = picture_column(table.schema, root)
    columns, cells = Columns(), table.column(picture)
    gather(table.select(small_columns(table.schema, picture, root)), table.schema, columns, root)
    kind = table.schema.field(picture).type
    paths = []
    if pa.types.is_struct(kind) and kind.get_field_index("path") >= 0:
        paths = [p for chunk in cells.chunks for p in chunk.field("path").to_pylist()]
    return Records(
        name=root.resolve().name,
        where=shown(root),
        keys=names(columns, paths, [f"row-{row:08d}" for row in range(len(cells))], shown(root)),
        fetch=lambda row: picture_bytes(cells[row].as_py(), root),
        files=lambda: files,
        columns=columns.values,
        described=columns.described if columns.values else None,
    )
