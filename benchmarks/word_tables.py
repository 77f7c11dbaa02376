"""The tables of `words`, for docs/words.md: what readers read of drawn words, beside what they read of real ones."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.data_tables import markdown

Data = dict[str, Any]
NAME = "words"
SHOWN = {"real": "real renderings", "spelled": "letters by character and place", "words": "words as words"}
KINDS = {"seen": "trained on", "words": "held out", "pairs": "with a held-out pair of letters"}
AIM = 0.9


def _latest(data: Data) -> dict[tuple[str, str], Data]:
    """The row measured last of every variant and kind."""
    return {(row["variant"], row["kind"]): row for row in data["rows"]}


def _share(found: Data, name: str) -> str:
    low, high = found[f"{name}_interval"]
    return f"**{found[name]:.3f}** ({low:.3f} to {high:.3f})"


def words(data: Data) -> str:
    """Exact match and character error rate by variant, kind of word and reader."""
    rows = []
    for (variant, kind), row in _latest(data).items():
        ocr, own = row["ocr"], row["own"]
        cells = [_share(ocr, "exact"), f"{ocr['letters']:.3f}", f"{ocr['cer']:.3f}"]
        rows.append([SHOWN[variant], KINDS[kind], *cells, _share(own, "exact"), f"{own['cer']:.3f}", str(own["n"])])
    head = ["pictures", "words", "OCR: exact", "but for case", "character errors", "own reader: exact", "errors", "n"]
    return markdown(head, rows)


def trained(data: Data) -> str:
    """What the models behind the table cost, and whether the aim is met."""
    rows = []
    for (variant, kind), row in _latest(data).items():
        if variant == "real" or kind != "words":
            continue
        met = "yes" if max(row["ocr"]["exact"], row["own"]["exact"]) >= AIM else "**no**"
        cost = [f"{row['parameters'] / 1e6:.1f} M", f"{row['seconds'] / 60:.0f}", f"{row['images']:,}"]
        rows.append([SHOWN[variant], *cost, f"{row['guidance']:g}", str(row["sampling"]), met])
    head = [
        "model",
        "parameters",
        "minutes",
        "pictures seen",
        "guidance",
        "steps",
        f"{AIM:.0%} of held-out words exact",
    ]
    return markdown(head, rows) if rows else "_No model has been measured yet._"


def by_length(data: Data) -> str:
    """Exact match by the length of the word, held-out words and pairs together, by the OCR engine."""
    rows = []
    lengths = [str(k) for k in range(3, 9)]
    for variant in SHOWN:
        found = [row["ocr"]["by_length"] for (v, kind), row in _latest(data).items() if v == variant and kind != "seen"]
        cells = []
        for length in lengths:
            pairs = [part[length] for part in found if length in part]
            n = sum(count for _, count in pairs)
            cells.append(f"{sum(share * count for share, count in pairs) / n:.2f} ({n})" if n else "–")
        if found:
            rows.append([SHOWN[variant], *cells])
    return markdown(["pictures", *(f"{length} characters" for length in lengths)], rows)


TABLES: dict[str, tuple[str, Callable[[Data], str]]] = {
    "words": (NAME, words),
    "words_trained": (NAME, trained),
    "words_by_length": (NAME, by_length),
}


def pictures(results: Path, images: Path) -> list[Path]:
    """Copy the sheets of what was drawn to the folder of the document's images."""
    sheets = [results / "grids" / f"words-{variant}-{kind}.png" for variant in SHOWN for kind in KINDS]
    found = [sheet for sheet in sheets if sheet.exists()]
    if found:
        images.mkdir(parents=True, exist_ok=True)
    return [Path(shutil.copy(sheet, images)) for sheet in found]
