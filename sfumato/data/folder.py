"""A folder of pictures -> Source."""

from __future__ import annotations

import os
import warnings
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from sfumato.core import SfumatoError
from sfumato.data.metadata import NAMES as METADATA_NAMES
from sfumato.data.metadata import Table, read_tables
from sfumato.data.picture import CROP_RULE, Unusable, read, read_size
from sfumato.data.progress import progress
from sfumato.data.source import Source, check_fits

SUFFIXES = frozenset(".png .jpg .jpeg .jfif .webp .gif .bmp .tif .tiff .ppm .pgm .pbm .pnm .tga .avif .jp2".split())
SPLITS = frozenset({"train", "test", "val", "valid", "validation"})
LABEL_COLUMNS = ("label", "class")


def default_size(sides: list[int]) -> int:
    """The power of two nearest to the median shorter side (in log scale), from 8 to 64 pixels."""
    return int(min(max(2 ** round(np.log2(median(sides))), 8), 64))


def load(root: Path, size: int | None) -> Source:
    """Every picture below `root`, decoded by CROP_RULE, with classes from subfolders and captions from metadata.

    Classes: a `label` or `class` column of the metadata, else the name of the folder each picture lies in when there
    are at least two. Raises SfumatoError when nothing is usable, the metadata is wrong, or the set does not fit.
    """
    names, tables, skipped = _scan(root)
    if not names:
        found = f"; {len(skipped)} had to be skipped, the first: {_first(skipped)}" if skipped else ""
        raise SfumatoError(
            f"no pictures in {root}{found}; put .png, .jpg, .webp, ... files there or into class subfolders"
        )
    table = read_tables(root, tables)
    _refuse_splits(root, names)
    with warnings.catch_warnings():  # Pillow warns of large or oddly tagged files; what matters becomes a reason
        warnings.simplefilter("ignore")
        sides = _each(names, lambda n: read_size(root / n), skipped, "reading headers")
        good = [n for n in names if n in sides]
        if good and size is None:
            size = default_size(list(sides.values()))
        if good:
            check_fits(len(good), size, 3)
        pixels = np.empty((len(good), size or 1, size or 1, 3), np.uint8)
        rows = {n: row for row, n in enumerate(good)}
        decoded = _each(good, lambda n: _place(pixels[rows[n]], read(root / n, size)), skipped, "decoding pictures")
    good = [n for n in good if n in decoded]
    if not good:
        raise SfumatoError(f"none of the {len(names)} pictures in {root} can be read; the first: {_first(skipped)}")
    for row, name in enumerate(good):  # close the gaps in place: a copy would double the memory
        pixels[row] = pixels[rows[name]]
    pixels = pixels[: len(good)]
    if all((p[..., :1] == p).all() for p in pixels):
        pixels = np.ascontiguousarray(pixels[..., :1])
    columns, notes = _columns(root, good, table)
    classes, labels, origin = _classes(good, columns)
    captions = columns.pop("text", None)
    if captions is not None:
        captions = [c or "" for c in captions]
    notes |= {
        "rule": CROP_RULE,
        "classes_from": origin,
        "skipped": [{"file": k, "reason": v} for k, v in skipped.items()],
    }
    return Source(
        name=root.resolve().name,
        pixels=pixels,
        keys=tuple(good),
        classes=classes,
        labels=labels,
        captions=captions if captions and any(captions) else None,
        columns=columns,
        notes=notes,
    )


def _scan(root: Path) -> tuple[list[str], list[str], dict[str, str]]:
    """Relative names of pictures and metadata files (sorted), and what was skipped; hidden names are ignored."""
    names: list[str] = []
    tables: list[str] = []
    skipped: dict[str, str] = {}
    seen = set()
    for here, folders, files in os.walk(root, followlinks=True, onerror=lambda e: _note_closed(root, e, skipped)):
        real = os.path.realpath(here)
        if real in seen:  # a link that leads back up
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(f for f in folders if not f.startswith("."))
        for folder in list(folders):
            if Path(folder).suffix.lower() in SUFFIXES:
                skipped[(Path(here) / folder).relative_to(root).as_posix()] = "a folder, not a picture"
                folders.remove(folder)
        for file in files:
            name = (Path(here) / file).relative_to(root).as_posix()
            if file in METADATA_NAMES:
                tables.append(name)
            elif not file.startswith(".") and Path(file).suffix.lower() in SUFFIXES:
                names.append(name)
    return sorted(names), sorted(tables), skipped


def _note_closed(root: Path, error: OSError, skipped: dict[str, str]) -> None:
    name = Path(error.filename).relative_to(root).as_posix()
    if name == ".":
        raise SfumatoError(f"cannot list {root}: {error.strerror}")
    skipped[name] = f"cannot be listed ({error.strerror})"


def _first(skipped: dict[str, str]) -> str:
    return next((f"{name}: {reason}" for name, reason in skipped.items()), "")


def _each(names: list[str], work: Callable[[str], Any], skipped: dict[str, str], label: str) -> dict[str, Any]:
    """Do `work` on every name in a thread pool (decoders release the interpreter lock); failures go to `skipped`."""

    def attempt(name: str) -> tuple[str, Any, str | None]:
        try:
            return name, work(name), None
        except Unusable as reason:
            return name, None, str(reason)

    done = {}
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        for name, value, reason in progress(pool.map(attempt, names), len(names), label):
            if reason is None:
                done[name] = value
            else:
                skipped[name] = reason
    return done


def _place(row: np.ndarray, picture: np.ndarray) -> None:
    row[:] = picture


def _refuse_splits(root: Path, names: list[str]) -> None:
    tops = {n.split("/")[0] for n in names if "/" in n}
    if len(tops) > 1 and {t.lower() for t in tops} <= SPLITS and all("/" in n for n in names):
        first = "train" if "train" in tops else min(tops)
        raise SfumatoError(
            f"{root} holds the splits {', '.join(sorted(tops))}; give one of them, such as {root / first}"
        )


def _columns(root: Path, names: list[str], table: Table) -> tuple[dict[str, list[Any]], dict[str, Any]]:
    """The table's columns in the order of `names`, and notes on rows and pictures that found no partner."""
    if not table.columns:
        return {}, {}
    rows = [table.rows.get(n, {}) for n in names]
    if not any(rows):
        first = next(iter(table.rows), None)
        named = f"; the first row names {first!r}" if first else ""
        raise SfumatoError(f"{table.where}: no row names a usable picture of {root}{named}")
    have = set(names)
    lost = [n for n in table.rows if n not in have]
    notes = {
        "metadata": table.where,
        "rows_without_picture": {"count": len(lost), "first": lost[:20]},
        "pictures_without_row": sum(not r for r in rows),
        "duplicate_rows": table.duplicates,
        "missing_values": dict(Counter(c for r in rows if r for c in table.columns if r.get(c) is None)),
    }
    return {c: [r.get(c) for r in rows] for c in table.columns}, notes


def _classes(names: list[str], columns: dict[str, list[Any]]) -> tuple[tuple[str, ...], torch.Tensor | None, str]:
    for column in LABEL_COLUMNS:
        if column in columns:
            origin, values = f"column {column!r}", columns.pop(column)
            found = [None if v is None else str(v) for v in values]
            break
    else:
        origin, found = "subfolders", [Path(n).parent.name or None for n in names]
    kinds = sorted({f for f in found if f is not None}, key=_natural)
    if len(kinds) < 2:
        return (), None, "none"
    place = {k: i for i, k in enumerate(kinds)}
    labels = torch.tensor([-1 if f is None else place[f] for f in found], dtype=torch.int64)
    return tuple(kinds), labels, origin


def _natural(name: str) -> tuple[int, int, str]:
    """Numbers by value, before words by letter, so that class "10" follows "9"."""
    return (0, int(name), name) if name.isdecimal() else (1, 0, name)
