"""Pictures as files: one row per picture with its name, its bytes on demand and what is told of it; nothing is decoded."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from sfumato.core import SfumatoError
from sfumato.data.picture import Unusable, check_file, opened

SUFFIXES = frozenset(".png .jpg .jpeg .jfif .webp .gif .bmp .tif .tiff .ppm .pgm .pbm .pnm .tga .avif .jp2".split())
SPLITS = frozenset({"train", "test", "val", "valid", "validation"})
LABEL_COLUMNS = ("label", "class")
MOST_SHARDS = 100_000
# what users may draw to a picture, by control: a column (or key.WORD.png in shards), and a folder
OWN = {"known": ("mask", "masks"), "classes": ("map", "maps"), "sketch": ("sketch", "sketches")}
PALETTE = "palette.json"


@dataclass(frozen=True)
class Record:
    """One picture file: its unique name, its bytes on demand, the columns told of it, its own file if it has one.

    `read()` raises Unusable with the reason when the bytes cannot be had.
    """

    key: str
    read: Callable[[], bytes]
    columns: dict[str, Any]
    path: Path | None


@dataclass(frozen=True)
class Beside:
    """A file that belongs to a picture: its name, to be told, and itself or its bytes; `file()` raises Unusable."""

    name: str
    file: Callable[[], Path | bytes]


@dataclass
class Records(Sequence[Record]):
    """All picture files of a source in a fixed order; `[i]` reads nothing yet and any number of threads may ask.

    `columns` holds one value per picture, None where missing ("text" is the caption, "label" or "class" the class);
    `described` which pictures had a row at all; `orphans` names with a row but no picture; `skipped` files that were
    left out, with the reason; `files` lists the files on the disk that hold the pictures. Pictures of one stretch of
    `block` rows lie together on the disk, and stretches that add up to `window` rows may be read in any order at little
    cost. `own` holds by control (of OWN) what the user drew to each picture, and `palette` is the file that names the colours
    of the maps.
    """

    name: str
    where: str
    keys: list[str]
    fetch: Callable[[int], bytes]
    locate: Callable[[int], Path | None] = lambda row: None
    files: Callable[[], Sequence[Path]] = lambda: ()
    columns: dict[str, list[Any]] = field(default_factory=dict)
    described: list[bool] | None = None
    orphans: list[str] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    notes: dict[str, Any] = field(default_factory=dict)
    block: int = 64
    window: int = 8192
    own: dict[str, list[Beside | None]] = field(default_factory=dict)
    palette: Path | None = None

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, row: int) -> Record:  # type: ignore[override]
        if not -len(self) <= row < len(self):
            raise IndexError(row)
        row %= len(self)
        told = {name: values[row] for name, values in self.columns.items()}
        return Record(self.keys[row], lambda: self.fetch(row), told, self.locate(row))

    def file(self, row: int) -> Path | bytes:
        """What to decode: the picture's own file, or its bytes; raises Unusable when they cannot be had."""
        return self.locate(row) or self.fetch(row)

    def __iter__(self) -> Iterator[Record]:
        return (self[row] for row in range(len(self)))


class Columns:
    """Rows of any columns, gathered as columns: None where a row lacks one."""

    def __init__(self) -> None:
        self.rows = 0
        self.values: dict[str, list[Any]] = {}
        self.described: list[bool] = []

    def add(self, row: dict[str, Any] | None) -> None:
        for name, value in (row or {}).items():
            if name not in self.values:
                self.values[name] = [None] * self.rows
            self.values[name].append(value)
        self.rows += 1
        self.described.append(bool(row))
        for values in self.values.values():
            if len(values) < self.rows:
                values.append(None)


def shown(name: object) -> str:
    """A file name for one line of text: control characters, line breaks and undecodable bytes escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in str(name))


def read_file(path: Path) -> bytes:
    """The bytes of a regular file; raises Unusable with the reason."""
    try:
        check_file(path)
        return path.read_bytes()
    except PermissionError as error:
        raise Unusable("no permission to read it") from error
    except (OSError, ValueError) as error:
        raise Unusable(f"cannot be read ({error.strerror if isinstance(error, OSError) else error})") from error


def ending_of(key: str, raw: bytes) -> str:
    """The ending that tells readers the format: the name's own, else by the first bytes; raises Unusable."""
    ending = PurePosixPath(key).suffix.lower()
    if ending in SUFFIXES:
        return ending
    with opened(raw) as picture:
        return "." + (picture.format or "png").lower()


def open_records(source: str | os.PathLike[str]) -> Records:
    """The picture files of a source, found by one look at names, indexes and metadata.

    A folder of pictures; a file.csv or file.jsonl with a column `file_name`; WebDataset shards (file.tar, a folder of
    them, or a pattern such as set-{000..012}.tar); Parquet (a file, a folder of them, a pattern); a folder written by
    `save_to_disk` of Hugging Face datasets. Raises SfumatoError with one line that says what to do.
    """
    from sfumato.data.readers import arrow, folder, parquet, table, tar

    given = os.fspath(source)
    path = Path(given).expanduser()
    if path.is_dir():
        if arrow.fits(path):
            return arrow.load(path)
        found = folder.scan(path)
        if not found.names:
            for suffix, reader in ((".tar", tar), (".parquet", parquet)):
                shards = sorted(p for p in path.rglob(f"*{suffix}") if not p.name.startswith("."))
                if shards:
                    if reader is tar:
                        tar.check_manifest(path)
                    return reader.load(path.resolve().name, _one_split(path, shards))
        return folder.load(path, found)
    if not path.exists() and (shards := expand(given)):
        missing = [p for p in shards if not p.is_file()]
        if missing:
            raise SfumatoError(
                f"{len(missing)} of the {len(shards)} shards of {shown(given)} are not there, the first: "
                f"{shown(missing[0])}; fetch them, or correct the pattern"
            )
    else:
        shards = [path]
    if path.suffix == ".tar":
        return tar.load(re.sub(r"[-_.]?\{.*\}", "", path.stem), shards)
    if path.suffix == ".parquet":
        return parquet.load(re.sub(r"[-_.]?\{.*\}", "", path.stem), shards)
    if path.suffix in (".csv", ".jsonl"):
        return table.load(path)
    raise SfumatoError(
        f"{shown(given)} is no set of pictures: give a folder, .tar or .parquet shards, or a .csv or .jsonl with a column"
        " file_name"
    )


def readable(path: Path) -> bool:
    """Whether `open_records` should be asked: a folder, a known kind of file, or a pattern of shards."""
    return path.is_dir() or path.suffix in (".tar", ".parquet") or (path.suffix in (".csv", ".jsonl") and path.exists())


def expand(pattern: str) -> list[Path]:
    """The files of a pattern with ranges such as {000..012}, in order; [] when it holds none."""
    found = [str(Path(pattern).expanduser())]
    if not re.search(r"\{\d+\.\.\d+\}", found[0]):
        return []
    while match := re.search(r"\{(\d+)\.\.(\d+)\}", found[0]):
        first, last = match.groups()
        count = int(last) - int(first) + 1
        if not 1 <= count * len(found) <= MOST_SHARDS:
            raise SfumatoError(
                f"{shown(match.group())} should count up, to at most {MOST_SHARDS:,} shards; correct the pattern"
            )
        width = len(first) if first.startswith("0") or len(first) == len(last) else 0
        numbers = [f"{n:0{width}d}" for n in range(int(first), int(last) + 1)]
        found = [p.replace(match.group(), n, 1) for p in found for n in numbers]
    return [Path(p) for p in found]


def _one_split(root: Path, shards: list[Path]) -> list[Path]:
    """The shards, unless they are those of several splits (train-..., test-...)."""
    tops = {re.split(r"[-_./]", p.relative_to(root).as_posix())[0].lower() for p in shards}
    if len(tops) > 1 and tops & SPLITS == tops:
        raise SfumatoError(
            f"{shown(root)} holds the splits {', '.join(sorted(tops))}; give the shards of one, as a folder of their own or"
            " as a pattern such as train-{000..012}.tar"
        )
    return shards
