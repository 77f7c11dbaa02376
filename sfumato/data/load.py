"""Records -> Source: every picture decoded once, and kept where that fits into memory."""

from __future__ import annotations

import os
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import PurePosixPath
from statistics import median
from typing import Any

import numpy as np
import torch

from sfumato.core import SfumatoError
from sfumato.data import looks, source
from sfumato.data.lazy import Lazy
from sfumato.data.order import Window
from sfumato.data.own import Own
from sfumato.data.picture import CROP_RULE, Unusable, read_shape, read_sized
from sfumato.data.progress import progress
from sfumato.data.ragged import Ragged
from sfumato.data.records import LABEL_COLUMNS, Records, shown
from sfumato.data.shapes import Buckets, Shape, nearest
from sfumato.data.source import Source

CHUNK = 1024  # pictures handed to the readers at a time
MOST_SIDES = 4096  # headers read for the default size, spread over the set


def default_size(sides: list[int]) -> int:
    """The power of two nearest to the median shorter side (in log scale), from 8 to 64 pixels."""
    return int(min(max(2 ** round(np.log2(median(sides))), 8), 64))


def load(records: Records, size: int | None, buckets: Buckets | None = None) -> Source:
    """Every picture decoded by CROP_RULE, with classes from a column or the folders in the names, and captions.

    Squares of `size`, or the shapes of `buckets`. Classes: a `label` or `class` column, else the name of the folder each
    picture lies in when there are at least two. A set of more than `source.LIMIT_BYTES` decoded is looked through once
    (what was found is kept in the cache folder), and decoded again as batches ask for it.
    Raises SfumatoError when nothing is usable or the rows fit no picture.
    """
    reasons: dict[int, str] = {}
    n = len(records)
    with warnings.catch_warnings():  # Pillow warns of large or oddly tagged files; what matters becomes a reason
        warnings.simplefilter("ignore")
        if size is None:
            some = range(0, n, -(-n // MOST_SIDES))
            sides = [min(shape) for _, shape in _shapes(records, some)]
            size = default_size(sides) if sides else 8
        shapes, bucket, cut = _laid(records, size, buckets or Buckets(fixed=((size, size),)))
        frames = [shapes[k] for k in bucket]
        lazy = sum(h * w for h, w in frames) * 3 > source.LIMIT_BYTES
        seen = looks.place(records, " ".join(map(str, shapes))) if lazy else None
        found = looks.recall(seen, n) if seen else None
        parts = [
            np.empty((0 if lazy else int((bucket == k).sum()), *shape, 3), np.uint8) for k, shape in enumerate(shapes)
        ]
        sizes = np.zeros((n, 2), np.int64)
        place = np.empty(n, np.int64)
        for k in range(len(shapes)):
            place[bucket == k] = np.arange((bucket == k).sum())

        def decode(row: int) -> bool:
            picture, sizes[row] = read_sized(records.file(row), frames[row])
            if not lazy:
                parts[bucket[row]][place[row]] = picture
            return bool((picture[..., :1] == picture).all())

        if found is None:
            label = "looking through the pictures" if lazy else "decoding pictures"
            grey = True
            for _, one in _each(range(n), decode, reasons, label):
                grey = grey and one
            if seen:
                looks.keep(seen, n, grey, reasons)
        else:
            grey, reasons = found
    good = np.array([row for row in range(n) if row not in reasons], np.int64)
    skipped = records.skipped | {records.keys[row]: reasons[row] for row in sorted(reasons)}
    if not len(good):
        first = next(f"{shown(name)}: {reason}" for name, reason in skipped.items())
        raise SfumatoError(f"none of the {n} pictures in {records.where} can be read; the first: {first}")
    channels = 1 if grey else 3
    keys = tuple(records.keys[row] for row in good)
    columns = {name: [values[row] for row in good] for name, values in records.columns.items()}
    notes = _notes(records, good, reasons)
    classes, found = class_of(keys, columns)
    column = next((c for c in LABEL_COLUMNS if columns.pop(c, None) is not None), None)
    number = {name: k for k, name in enumerate(classes)}
    origin = f"column {column!r}" if column else "subfolders"
    styles, style = class_of((), {"label": columns["style"]}) if "style" in columns else ((), [])
    style_number = {name: k for k, name in enumerate(styles)}
    captions = columns.pop("text", None)
    if captions is not None:
        captions = [c or "" for c in captions]
    kept = [good[bucket[good] == k] for k in range(len(shapes))]
    if lazy:
        pixels = [Lazy(records, rows, shape, channels) for rows, shape in zip(kept, shapes, strict=True)]
    else:
        pixels = [_closed(part, place[rows], channels) for part, rows in zip(parts, kept, strict=True)]
    if buckets is not None:
        notes = notes | {"size": size, "crop": round(float(cut[good].mean()), 4)}
    return Source(
        name=records.name,
        pixels=Ragged(tuple(pixels), bucket[good]) if len(pixels) > 1 else pixels[0],
        keys=keys,
        classes=classes,
        labels=torch.tensor([number.get(f, -1) for f in found], dtype=torch.int64) if classes else None,
        captions=captions if captions and any(captions) else None,
        columns=columns,
        notes=notes
        | {
            "rule": CROP_RULE,
            "classes_from": origin if classes else "none",
            "skipped": [{"file": k, "reason": v} for k, v in skipped.items()],
        },
        sizes=None if lazy else torch.from_numpy(sizes[good]),
        window=Window(records.window, records.block) if lazy else None,
        styles=styles,
        own={control: Own(records, control, good, shapes, bucket[good], not lazy) for control in records.own},
        style_labels=torch.tensor([style_number.get(f, -1) for f in style], dtype=torch.int64) if styles else None,
    )


def _shapes(records: Records, rows: Sequence[int]) -> Iterator[tuple[int, Shape]]:
    """Height and width of these pictures, from their headers; those that cannot be read are left out."""
    return _each(rows, lambda row: read_shape(records.file(row)), {}, "reading headers")


def _laid(records: Records, size: int, buckets: Buckets) -> tuple[tuple[Shape, ...], np.ndarray, np.ndarray]:
    """The shapes, which of them each picture goes to (int64 [N]), and the share of its pixels that it loses."""
    bucket, cut = np.zeros(len(records), np.int64), np.zeros(len(records))
    if len(buckets.fixed) == 1 and buckets.fixed[0] == (size, size):
        return buckets.fixed, bucket, cut
    found = dict(_shapes(records, range(len(records))))
    if not found:  # decoding will say why
        return ((size, size),), bucket, cut
    rows = np.array(sorted(found), np.int64)
    aspects = np.array([found[row][1] / found[row][0] for row in rows.tolist()])
    shapes = buckets.shapes(size, aspects)
    bucket[rows], cut[rows] = nearest(aspects, shapes)
    return shapes, bucket, cut


def _closed(pixels: np.ndarray, good: np.ndarray, channels: int) -> np.ndarray:
    """The good rows only; the gaps are closed in place, for a copy would double the memory."""
    for place, row in enumerate(good):
        if place != row:
            pixels[place] = pixels[row]
    pixels = pixels[: len(good)]
    return pixels if channels == 3 else np.ascontiguousarray(pixels[..., :1])


def _each(
    rows: Sequence[int], work: Callable[[int], Any], reasons: dict[int, str], label: str
) -> Iterator[tuple[int, Any]]:
    """Do `work` on every row in a thread pool (decoders release the interpreter lock); failures go to `reasons`."""

    def attempt(row: int) -> tuple[int, Any, str | None]:
        try:
            return row, work(row), None
        except Unusable as reason:
            return row, None, str(reason)

    def all_attempts() -> Iterator[tuple[int, Any, str | None]]:
        left = iter(rows)
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
            while chunk := list(islice(left, CHUNK)):
                yield from pool.map(attempt, chunk)

    for row, value, reason in progress(all_attempts(), len(rows), label):
        if reason is None:
            yield row, value
        else:
            reasons[row] = reason


def _notes(records: Records, good: np.ndarray, reasons: dict[int, str]) -> dict[str, Any]:
    """What is known of the rows: those without a picture, pictures without one, missing values."""
    if records.described is None:
        return records.notes
    usable = [row for row in good if records.described[row]]
    lost = records.orphans + [records.keys[row] for row in sorted(reasons) if records.described[row]]
    if not usable:
        named = f"; the first row names {shown(lost[0])!r}" if lost else ""
        raise SfumatoError(f"{records.notes['metadata']}: no row names a usable picture of {records.where}{named}")
    missing = Counter(name for name, values in records.columns.items() for row in usable if values[row] is None)
    return records.notes | {
        "rows_without_picture": {"count": len(lost), "first": lost[:20]},
        "pictures_without_row": len(good) - len(usable),
        "missing_values": dict(missing),
    }


def class_of(names: Sequence[str], columns: dict[str, list[Any]]) -> tuple[tuple[str, ...], list[str | None]]:
    """The classes in order, and the one of each picture; () when there are fewer than two."""
    column = next((c for c in LABEL_COLUMNS if c in columns), None)
    if column is not None:
        found = [None if v is None else str(v) for v in columns[column]]
    else:
        found = [PurePosixPath(n).parent.name or None for n in names]
    kinds = sorted({f for f in found if f is not None}, key=_natural)
    return (tuple(kinds), found) if len(kinds) > 1 else ((), found)


def _natural(name: str) -> tuple[int, int, str]:
    """Numbers by value, before words by letter, so that class "10" follows "9"."""
    return (0, int(name), name) if name.isdecimal() else (1, 0, name)
