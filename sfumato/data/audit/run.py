"""The one pass over a source, and everything that is said of it."""

from __future__ import annotations

import os
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from sfumato.data.audit import pictures, whole, words
from sfumato.data.audit.declared import Claim
from sfumato.data.audit.finding import Audit, Finding
from sfumato.data.audit.listing import Listing, open_listing
from sfumato.data.audit.look import PICTURE, ROW, Look, look
from sfumato.data.audit.near import near_duplicates
from sfumato.data.audit.outliers import outliers
from sfumato.data.audit.pool import each_apart
from sfumato.data.audit.sharpness import detail, spread
from sfumato.data.audit.table import Column, Table
from sfumato.data.order import split
from sfumato.data.picture import Unusable

SECONDS = 30.0  # one file may take
BLOCK = 256  # thumbnails worked on at a time
Progress = Callable[[int, int, str], None]


def audit(source: str, progress: Progress | None = None, text: int | None = None) -> Audit:
    """Look at every picture of `source` once and say what harms training.

    Thumbnails, about 2 kB per picture, lie in a file without a name that goes when the audit ends. `progress(done,
    total, what)` is called as the work goes on. `text`: look for text and watermarks too, in so many pictures spread
    over the set (0: in all), about a second each. Raises SfumatoError when the source cannot be read at all, when there
    is no place for the thumbnails, or text cannot be read for want of the extra `ocr`.
    """
    read = None if text is None else words.make_reader()
    listing = open_listing(source)
    progress = progress or (lambda done, total, what: None)
    rows, table, claims, reasons = scan(listing, progress)
    found = _judge(listing, rows, table, claims, reasons)
    if read is None:
        return found
    some = words.spread(np.flatnonzero(rows["read"]).tolist(), text)
    return replace(found, findings=(*found.findings, *_text(listing, some, read, progress)))


def _text(listing: Listing, rows: list[int], read: words.Reader, progress: Progress) -> Iterator[Finding]:
    for done, (row, seen) in enumerate(words.read_words(listing.fetch, rows, read), 1):
        progress(done, len(rows), "reading text")
        if seen:
            yield Finding("text_or_watermark", (listing.keys[row],), words.told(seen), "warning", "review")


def scan(listing: Listing, progress: Progress) -> tuple[np.ndarray, Table, dict[int, Claim], dict[int, str]]:
    """One look at every picture, on every core -> (ROW [N], table of PICTURE, claims by row, reasons by unread row)."""
    total = len(listing.keys)
    rows, table = np.zeros(total, ROW), Table(PICTURE)
    claims: dict[int, Claim] = {}
    reasons: dict[int, str] = {}

    def work(row: int) -> Look:
        try:
            return look(listing.fetch(row))
        except Unusable as reason:
            return Look(reason=str(reason))
        except Exception as error:  # one bad file must not end the pass
            return Look(reason=f"cannot be read ({type(error).__name__})")

    late = Look(reason=f"not decoded within {SECONDS:.0f} seconds")
    crashed = Look(reason="its decoder crashed, or took all memory")
    with warnings.catch_warnings():  # Pillow warns of large or oddly tagged files; what matters becomes a reason
        warnings.simplefilter("ignore")
        for done, (row, seen) in enumerate(each_apart(total, work, os.cpu_count() or 1, SECONDS, late, crashed), 1):
            if seen.row is None:
                reasons[row] = seen.reason
            else:
                rows[row], table[row] = seen.row, seen.picture
            if seen.claim is not None:
                claims[row] = seen.claim
            progress(done, total, "looking at pictures")
    good = np.flatnonzero(rows["read"])
    for at in np.split(good, range(BLOCK, len(good), BLOCK)):  # ten times faster than one by one
        thumbs = table[at]["thumb"]
        rows["detail"][at], rows["spread"][at] = detail(thumbs), spread(thumbs)
    for row in listing.declared:
        claims.setdefault(row, Claim(True, "the metadata say so"))
    return rows, table, claims, reasons


def _judge(
    listing: Listing, rows: np.ndarray, table: Table, claims: dict[int, Claim], reasons: dict[int, str]
) -> Audit:
    good = np.flatnonzero(rows["read"])
    keys = [listing.keys[k] for k in good]
    seen = rows if len(good) == len(rows) else rows[good]
    thumbs, colours = table.column("thumb"), table.column("colour")
    findings = [Finding("corrupt", (name,), why, "error", "quarantine") for name, why in listing.skipped.items()]
    findings += [
        Finding("corrupt", (listing.keys[k],), why, "error", "quarantine") for k, why in sorted(reasons.items())
    ]
    if len(good):
        findings += _copies(keys, seen, good, (thumbs, colours), _held_out(listing, keys, good))
        findings += [
            Finding("outlier", (keys[found.row],), found.evidence, "warning", "review")
            for found in outliers(thumbs, colours, good)
        ]
        findings += pictures.faults(keys, seen)
        findings += pictures.modes(keys, seen)
        findings += whole.bucket_waste(seen)
    made = [k for k in good if k in claims and claims[k].made]
    findings += _claims(listing, {k: claims[k] for k in good if k in claims})
    classes = Counter(listing.labels[k] for k in good if listing.labels and listing.labels[k] is not None)
    counted = dict(sorted(classes.items())) if len(classes) > 1 else {}
    findings += whole.class_imbalance(counted)
    told: dict[str, int] = {}
    if listing.captions is not None:
        captions = [listing.captions[k] for k in good]
        described = [listing.described is None or listing.described[k] for k in good]
        findings += whole.caption_faults(keys, captions, described, listing.orphans)
        told = {
            "pictures": len(keys),
            "captioned": sum(bool(c) for c in captions),
            "different": len({c for c in captions if c}),
        }
    return Audit(listing.name, len(good), tuple(findings), counted, told, len(made) / len(good) if len(good) else 0.0)


def _copies(
    keys: list[str], rows: np.ndarray, good: np.ndarray, shown: tuple[Column, Column], held_out: set[int]
) -> Iterator[Finding]:
    """`good`: the number of each row in the columns `shown`, thumbnails and colours; `held_out`: which rows are."""
    area = rows["width"].astype(np.int64) * rows["height"]

    def found(kind: str, group: list[int], evidence: str, severity: Any) -> Finding:
        sides = {row in held_out for row in group}
        across = "; on both sides of the training and validation split" if len(sides) == 2 else ""
        return Finding(kind, tuple(keys[k] for k in group), evidence + across, severity, "quarantine-others")

    same = np.arange(len(keys))
    for group, evidence in whole.exact_duplicates(rows):
        same[group] = group[0]
        yield found("exact_duplicate", group, evidence, "error")
    first = np.flatnonzero(same == np.arange(len(keys)))  # one of each: exact copies are told of already
    aspect = (rows["width"] / np.maximum(rows["height"], 1))[first]
    for near in near_duplicates(*shown, aspect, good[first]):
        group = sorted((int(first[k]) for k in near.rows), key=lambda k: (-area[k], keys[k]))
        yield found("near_duplicate", group, near.evidence, "warning")


def _held_out(listing: Listing, keys: list[str], good: np.ndarray) -> set[int]:
    """Which of the `good` rows training does not learn from: a named set says so itself (whole drawings, for one)."""
    if listing.held is None:
        return set(split(keys)[1].tolist())
    return {k for k, row in enumerate(good.tolist()) if row in listing.held}


def _claims(listing: Listing, claims: dict[int, Claim]) -> Iterator[Finding]:
    alike = defaultdict(list)
    for row, claim in claims.items():
        alike[claim].append(listing.keys[row])
    for claim, files in alike.items():
        yield Finding("ai_made", tuple(files), claim.evidence, "warning" if claim.made else "note", "review")
