"""The tables and pictures of `text_to_picture`, for docs/text-to-picture.md."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import common
from benchmarks.data_tables import markdown

Data = dict[str, Any]
NAME = "text_to_picture"
SHEETS = {
    "seen": "Captions that were trained on, in every style",
    "pairs": "Held-out (glyph, style) pairs: the real picture on the left, the drawn one on the right",
    "unseen": "Prompts that no caption of the source holds",
}
# What text to picture is to reach: words, the least (or most), how to read it from a row.
AIMS: tuple[tuple[str, float, bool, Callable[[Data], float | None]], ...] = (
    ("right caption first, seen captions, relative to real: at least", 0.95, True, lambda r: _relative(r, "seen")),
    ("right caption first, held-out pairs, relative to real: at least", 0.80, True, lambda r: _relative(r, "pairs")),
    ("style judged as asked, seen captions: at least", 0.95, True, lambda r: _get(r, "rows", "seen", "style", "value")),
    ("colour words obeyed: at least", 0.90, True, lambda r: _get(r, "colours", "obeyed", "value")),
    ("copies beyond the base rate, seen captions: at most", 0.01, False, lambda r: _copies(r, "seen")),
    ("copies beyond the base rate, held-out pairs: at most", 0.01, False, lambda r: _copies(r, "pairs")),
    ("seconds for a warm grid of four: at most", 1.5, False, lambda r: _get(r, "speed", "grid_of_four", "median")),
    ("seconds to the first picture, cold: at most", 6.0, False, lambda r: _get(r, "speed", "first_picture", "median")),
)


def _get(row: Data, *keys: str) -> Any:
    """A value deep in the parts of a model, None where it has not been measured."""
    found: Any = row["parts"]
    for key in keys:
        found = (found or {}).get(key)
    return found


def _relative(row: Data, kind: str) -> float | None:
    return _get(row, "rows", kind, "relative", "value")


def _copies(row: Data, kind: str) -> float | None:
    return _get(row, "rows", kind, "quality", "copies", "copies", "value")


def ranged(interval: Data | None, digits: int = 2) -> str:
    """A number with its interval, or a dash."""
    if interval is None:
        return "–"
    value, low, high = (f"{interval[k]:.{digits}f}" for k in ("value", "low", "high"))
    return f"**{value}** ({low} to {high})"


def judge(data: Data) -> str:
    """The judge's own accuracy on real pictures."""
    found = data["judge"]
    rows = [
        [kind, f"{one['n']:,}", ranged(one["first"]), ranged(one.get("style"))] for kind, one in found["real"].items()
    ]
    table = markdown(["real pictures", "number", "own text first among 50", "style"], rows)
    return (
        f"{table}\n\n`{found['name']}`, trained in {found['seconds']:.0f} CPU-seconds. Chance is {found['chance']:.2f}."
    )


def faithful(data: Data) -> str:
    """Own text first, relative to real pictures, and style."""
    rows = []
    for label, row in data["models"].items():
        for kind, one in (_get(row, "rows") or {}).items():
            shares = [ranged(one[key]) for key in ("first", "real", "relative", "style", "real_style")]
            rows.append([label, kind, f"{one['n']:,}", *shares])
    head = ["model", "captions", "number", "own text first", "real pictures", "relative", "style", "style of real"]
    return markdown(head, rows)


def quality(data: Data) -> str:
    """Kernel distance with its floor, and copies."""
    rows = []
    for label, row in data["models"].items():
        for kind, one in (_get(row, "rows") or {}).items():
            found = one["quality"]
            if found:
                told = found["copies"]
                cells = [ranged(found["intervals"][0], 3), f"{found['floor']:.3f}", ranged(told["copies"], 3)]
                rows.append([label, kind, f"{found['n']:,}", *cells, ranged(told["ratio"])])
    head = ["model", "captions", "number", "KID", "floor", "copies beyond the base rate", "distance to nearest / usual"]
    return markdown(head, rows)


def words(data: Data) -> str:
    """Colour words, and a fact at several places of a long prompt."""
    places = list(dict.fromkeys(p for row in data["models"].values() for p in _get(row, "long") or {}))
    rows = []
    for label, row in data["models"].items():
        told = [ranged(_get(row, "colours", key)) for key in ("obeyed", "first", "without")]
        rows.append([label, *told, *(ranged(_get(row, "long", place)) for place in places)])
    head = [
        "model",
        "colour word obeyed",
        "as the first colour",
        "obeyed by chance, without the word",
        *(f"name {place}" for place in places),
    ]
    return markdown(head, rows)


def cost(data: Data) -> str:
    """What training and drawing took."""
    rows = []
    for label, row in data["models"].items():
        trained = row["training"]
        minutes = f"{trained['seconds'] / 60:.0f}" if "seconds" in trained else "–"
        images = f"{trained['images']:,}" if "images" in trained else "–"
        grid, first = _get(row, "speed", "grid_of_four", "median"), _get(row, "speed", "first_picture", "median")
        seconds = ["–" if s is None else f"{s:.2f} s" for s in (grid, first)]
        asked = ", ".join(f"{name} {value}" for name, value in row["drawn"].items())
        rows.append([label, row["role"], f"{row['parameters'] / 1e6:.1f} M", minutes, images, asked, *seconds])
    head = [
        "model",
        "role",
        "weights",
        "minutes",
        "pictures seen",
        "drawn in",
        "grid of four, warm",
        "first picture, cold",
    ]
    return markdown(head, rows)


def aims(data: Data) -> str:
    """What was set as the aim, and whether the run reaches it."""
    rows = []
    for label, row in data["models"].items():
        if row["role"] == "run":
            for told, bound, least, read in AIMS:
                value = read(row)
                if value is not None:
                    met = value >= bound if least else value <= bound
                    rows.append([label, f"{told} {bound:g}", f"{value:.3f}", "yes" if met else "**no**"])
    return markdown(["model", "aim", "measured", "reached"], rows) if rows else "_No run has been measured._"


def sheets(data: Data) -> str:
    """Links to what `pictures` copies."""
    for row in data["models"].values():
        if row["role"] == "run" and _get(row, "sheets"):
            made = row["parts"]["sheets"]
            return "\n\n".join(f"{told}:\n\n![{told}](images/{made[key]})" for key, told in SHEETS.items())
    return "_No sheets have been drawn._"


def pictures(results: Path, images: Path) -> list[Path]:
    """Copy the sheets of the first run to the folder of the document's images."""
    data = common.read(NAME, results)
    for label, row in (data or {"models": {}})["models"].items():
        if row["role"] == "run" and _get(row, "sheets"):
            images.mkdir(parents=True, exist_ok=True)
            files = [results / "grids" / label / name for name in row["parts"]["sheets"].values()]
            return [Path(shutil.copy(file, images)) for file in files]
    return []


TABLES: dict[str, tuple[str, Callable[[Data], str]]] = {
    "text_faithful": (NAME, faithful),
    "text_judge": (NAME, judge),
    "text_quality": (NAME, quality),
    "text_words": (NAME, words),
    "text_cost": (NAME, cost),
    "text_aims": (NAME, aims),
    "text_sheets": (NAME, sheets),
}
