"""Faults of the set as a whole: copies, classes, captions, what a crop cuts away."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import PurePosixPath

import numpy as np

from sfumato.data import text
from sfumato.data.audit.finding import Finding
from sfumato.data.load import default_size
from sfumato.data.shapes import Buckets, nearest

IMBALANCE = 4  # largest to smallest class
CLASS_LEAST = 10  # pictures of the largest class, under which counts say nothing
MANY_SHARE, MANY_LEAST = 0.02, 5  # of the pictures that have one caption in common
LONG = 60  # words of a caption: about the 77 tokens that CLIP reads
PHRASE_WORDS, PHRASE_SHARE, PHRASE_LEAST = 4, 0.3, 10
WASTE = 0.15  # share of all pixels that the square crop cuts away
_NAME_LIKE = re.compile(
    r"(?:img|dsc|dscn|dscf|pxl|image|photo|picture|pic|scan|screenshot|screen shot|untitled|unnamed|file|download)"
    r"[\W_]*[\d\W_]*(?:\.(?:jpe?g|png|webp|gif))?",
    re.I,
)
_JUNK = re.compile(
    r"^(?:alt ?text|caption|description|no caption|no description|n/?a|none|null|todo|lorem ipsum.*|click (?:here|to).*"
    r"|https?://\S+|[\d\W_]+)$",
    re.I | re.S,
)


def exact_duplicates(rows: np.ndarray) -> Iterator[tuple[list[int], str]]:
    """Groups of row numbers with the same pixels, and what is the same."""
    digests = np.ascontiguousarray(rows["pixels"]).view(">u8").reshape(-1, 2)
    order = np.lexsort(digests.T)
    starts = np.flatnonzero(np.r_[True, (np.diff(digests[order], axis=0) != 0).any(1)])
    sizes = np.diff(np.r_[starts, len(order)])
    groups = [order[start : start + n].tolist() for start, n in zip(starts, sizes, strict=True) if n > 1]
    for group in sorted(map(sorted, groups)):
        same = len({rows["file"][k].tobytes() for k in group}) == 1
        yield group, "the same file, byte for byte" if same else "the same pixels, saved differently"


def class_imbalance(counts: dict[str, int]) -> Iterator[Finding]:
    """Classes much rarer than the largest."""
    if len(counts) < 2:
        return
    most, fewest = max(counts, key=counts.__getitem__), min(counts, key=counts.__getitem__)
    ratio = counts[most] / counts[fewest]
    if ratio >= IMBALANCE and counts[most] >= CLASS_LEAST:
        told = f"class {most!r} has {counts[most]:,} pictures, {fewest!r} has {counts[fewest]:,}: {ratio:.0f} to 1"
        yield Finding("class_imbalance", (), told, "warning", "balance")


def caption_faults(
    keys: list[str], captions: list[str | None], described: list[bool], orphans: list[str]
) -> Iterator[Finding]:
    """What is wrong with the captions; each caption is called one thing only, besides being long."""
    missing = [k for k, c, d in zip(keys, captions, described, strict=True) if not d]
    if missing:
        yield Finding(
            "caption_missing",
            tuple(missing),
            f"{len(missing):,} of {len(keys):,} pictures have no row",
            "warning",
            "caption",
        )
    empty = [k for k, c, d in zip(keys, captions, described, strict=True) if d and not c]
    if empty:
        yield Finding("caption_empty", tuple(empty), f"{len(empty):,} rows have no text", "warning", "caption")
    if orphans:
        yield Finding(
            "caption_without_picture",
            tuple(orphans),
            f"{len(orphans):,} rows name files that are not there",
            "warning",
            "drop-rows",
        )
    given = {k: c for k, c in zip(keys, captions, strict=True) if c}
    seen: dict[str, list[str]] = defaultdict(list)
    junk: dict[str, list[str]] = defaultdict(list)
    for key, caption in given.items():
        said = says_nothing(caption, key)
        if said:
            junk[said].append(key)
        else:
            seen[" ".join(text.words(caption))].append(key)
    for said, files in junk.items():
        yield Finding("caption_boilerplate", tuple(files), said, "warning", "caption")
    many = max(MANY_LEAST, MANY_SHARE * len(given))
    for caption, files in seen.items():
        if len(files) >= many:
            yield Finding(
                "caption_duplicated",
                tuple(files),
                f"{len(files):,} pictures share {caption[:100]!r}",
                "warning",
                "caption",
            )
    yield from _phrases({c: f for c, f in seen.items() if len(f) < many})
    long = {k: len(text.words(c)) for k, c in given.items()}
    long = {k: n for k, n in long.items() if n > LONG}
    if long:
        told = f"up to {max(long.values()):,} words; our own encoder reads them all, CLIP's stops after about {LONG}"
        yield Finding("caption_long", tuple(long), told, "warning", "caption")


def says_nothing(caption: str, key: str) -> str:
    """Why a caption by itself says nothing of the picture; "" when it may say something."""
    bare = caption.strip()
    path = PurePosixPath(key)
    if bare.lower() in (path.name.lower(), key.lower()) or (
        any(map(str.isdigit, bare)) and bare.lower() == path.stem.lower()
    ):
        return "the caption is the file name"
    if _NAME_LIKE.fullmatch(bare):
        return "the caption is a name a camera or program gave"
    return "the caption is a placeholder" if _JUNK.match(bare) else ""


def _phrases(seen: dict[str, list[str]]) -> Iterator[Finding]:
    """Runs of words that a large share of otherwise different captions begin or end with."""
    for where in ("begin", "end"):
        runs: dict[str, list[str]] = defaultdict(list)
        for caption in seen:
            found = caption.split(" ")
            if len(found) >= PHRASE_WORDS:
                runs[" ".join(found[:PHRASE_WORDS] if where == "begin" else found[-PHRASE_WORDS:])].append(caption)
        for run, captions in runs.items():
            if len(captions) >= max(PHRASE_LEAST, PHRASE_SHARE * len(seen)):
                files = tuple(f for c in captions for f in seen[c])
                told = f"{len(files):,} captions {where} with {run!r}"
                yield Finding("caption_boilerplate", files, told, "warning", "caption")


def bucket_waste(rows: np.ndarray) -> Iterator[Finding]:
    """What the centre square crop cuts away, and what the shapes would that `train --buckets` lays the set into."""
    aspects = rows["width"] / np.maximum(rows["height"], 1)
    size = default_size(np.minimum(rows["width"], rows["height"]).tolist())
    square = nearest(aspects, [(size, size)])[1].mean()
    if square < WASTE:
        return
    shapes = Buckets().shapes(size, aspects)
    bucket, cut = nearest(aspects, shapes)
    counts = np.bincount(bucket, minlength=len(shapes))
    told = ", ".join(
        f"{w}x{h}: {n:,} pictures, {cut[bucket == k].mean():.0%} cut away"
        for k, ((h, w), n) in enumerate(zip(shapes, counts, strict=True))
    )
    told = f"a square crop cuts away {square:.0%} of the pixels, --buckets {len(shapes)} {cut.mean():.0%} ({told})"
    yield Finding("bucket_waste", (), told, "note", "review")
