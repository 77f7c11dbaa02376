"""Parquet files with a column of pictures -> Records, read by row groups."""

from __future__ import annotations

from bisect import bisect_right
from collections import OrderedDict
from pathlib import Path
from threading import Lock
from typing import Any

from sfumato.core import SfumatoError
from sfumato.data.picture import Unusable, brief
from sfumato.data.readers.hugging import gather, names, picture_bytes, picture_column, pyarrow, small_columns
from sfumato.data.records import Columns, Records, shown

CACHE_BYTES = 256 * 2**20  # of row groups kept, so that each is read once while a window of rows is shuffled
MOST_GROUP = 2**30


class Groups:
    """Row groups of the picture column, the last used kept in at most CACHE_BYTES (and always one)."""

    def __init__(self, column: str) -> None:
        self.column = column
        self.files: list[tuple[Path, Any]] = []
        self.places: list[tuple[int, int]] = []  # file and group
        self.starts: list[int] = [0]  # rows before each group
        self.bytes: list[int] = []
        self.kept: OrderedDict[int, Any] = OrderedDict()
        self.lock = Lock()

    def add(self, path: Path, metadata: Any) -> None:
        """The groups of one more file; SfumatoError when one is too large to be read whole."""
        self.files.append((path, metadata))
        for g in range(metadata.num_row_groups):
            group = metadata.row_group(g)
            parts = (group.column(c) for c in range(group.num_columns))
            size = sum(p.total_uncompressed_size for p in parts if p.path_in_schema.split(".")[0] == self.column)
            if size > MOST_GROUP:
                raise SfumatoError(
                    f"{shown(path)}: row group {g} holds {size / 2**30:.1f} GiB of pictures, and a group must be read whole;"
                    " write the file anew with a row_group_size of 100"
                )
            self.places.append((len(self.files) - 1, g))
            self.bytes.append(size)
            self.starts.append(self.starts[-1] + group.num_rows)

    def cell(self, row: int) -> Any:
        """The picture cell of a row; raises Unusable when the file has changed."""
        group = bisect_right(self.starts, row) - 1
        with self.lock:
            if group not in self.kept:
                while self.kept and sum(self.bytes[g] for g in self.kept) + self.bytes[group] > CACHE_BYTES:
                    self.kept.popitem(last=False)
                self.kept[group] = self._read(group)
            self.kept.move_to_end(group)
            column = self.kept[group]
        return column[row - self.starts[group]].as_py()

    def _read(self, group: int) -> Any:
        file, number = self.places[group]
        path, metadata = self.files[file]
        pa = pyarrow(path)
        try:
            with pa.parquet.ParquetFile(path, metadata=metadata) as opened:
                return opened.read_row_group(number, columns=[self.column], use_threads=False).column(0)
        except (OSError, pa.ArrowException) as error:
            raise Unusable(f"row group {number} of {shown(path)} cannot be read ({brief(error)})") from error


def load(name: str, shards: list[Path]) -> Records:
    """Pictures of all files in their order; SfumatoError naming the file that cannot be read or has no pictures."""
    pa = pyarrow(shards[0])
    columns, paths, fallback = Columns(), [], []
    groups = None
    for shard in shards:
        try:
            with pa.parquet.ParquetFile(shard) as opened:
                schema, metadata = opened.schema_arrow, opened.metadata
                picture = picture_column(schema, shard)
                if groups is None:
                    groups = Groups(picture)
                elif picture != groups.column:
                    raise SfumatoError(
                        f"{shown(shard)} keeps its pictures in column {picture!r}, {shown(shards[0])} in"
                        f" {groups.column!r}; read them apart"
                    )
                groups.add(shard, metadata)
                gather(opened.read(columns=small_columns(schema, picture, shard)), schema, columns, shard)
                if pa.types.is_struct(schema.field(picture).type):
                    stored = opened.read(columns=[f"{picture}.path"])
                    cells = stored.column(0).to_pylist() if stored.num_columns else []
                    paths += [(c or {}).get("path") for c in cells]
        except (OSError, pa.ArrowException) as error:
            raise SfumatoError(f"{shown(shard)} is no whole Parquet file ({brief(error)}); fetch it again") from error
        fallback += [f"{shard.stem}-{row:08d}" for row in range(metadata.num_rows)]
    if not fallback:
        raise SfumatoError(f"no pictures in {shown(shards[0])}: the table has no rows")
    assert groups is not None
    where = shown(shards[0].parent if shards[1:] else shards[0])
    paths = paths if len(paths) == len(fallback) else [None] * len(fallback)
    block = max(1, len(fallback) // len(groups.places))
    return Records(
        name=name,
        where=where,
        keys=names(columns, paths, fallback, where),
        fetch=lambda row: picture_bytes(groups.cell(row), shards[0].parent),
        files=lambda: shards,
        columns=columns.values,
        described=columns.described if columns.values else None,
        notes={"shards": len(shards)},
        block=block,
        window=block * max(1, CACHE_BYTES // (2 * max(1, *groups.bytes))),
    )
