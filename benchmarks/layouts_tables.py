"""The tables and pictures of `layouts`, for docs/layouts.md."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from benchmarks import common
from benchmarks.canvas_tables import ranged
from benchmarks.data_tables import markdown

Data = dict[str, Any]
NAME, REAL, BOXES, BOTH = "layouts", "real scenes", "boxes", "boxes and caption"
SHEETS = {"held": "held-out layouts", "examples": "layouts made by hand"}
AIM = 0.85  # of boxes with the right thing, and of pictures with the right count


def _models(data: Data, part: str, make: Callable[[Data], str]) -> str:
    found = [
        f"`{label}`, {row['stamp']['source']}:\n\n{make(row['parts'][part])}"
        for label, row in data["models"].items()
        if row["parts"].get(part)
    ]
    return "\n\n".join(found) or "_Not measured yet._"


def held(data: Data) -> str:
    """Right things in their boxes and right counts, by every way of telling."""

    def table(part: Data) -> str:
        many = list(dict.fromkeys(k for row in part.values() for k in row["by"]))
        head = ["told by", "right thing in its box", "of real scenes", *(f"of {k} boxes" for k in many), "count right"]
        real = part[REAL]["boxes"][0]
        rows = [
            [
                way,
                ranged(row["boxes"]),
                f"{row['boxes'][0] / real:.2f}" if real else "–",
                *(f"{row['by'][k][0]:.2f}" if k in row["by"] else "–" for k in many),
                ranged(row["count"]),
                str(row["n"]),
                str(row["calls"] or "–"),
                f"{row['seconds']:.1f} s" if row["seconds"] else "–",
            ]
            for way, row in part.items()
        ]
        among = part[REAL]["among"]
        return f"Among {among} words:\n\n" + markdown([*head, "layouts", "network calls", "time"], rows)

    return _models(data, "layouts", table)


def positions(data: Data) -> str:
    """Words of place obeyed."""

    def table(part: Data) -> str:
        rows = [[way, ranged(row["stands"]), str(row["n"])] for way, row in part.items()]
        return markdown(["told by", "stand as the caption says", "pictures"], rows)

    return _models(data, "positions", table)


def examples(data: Data) -> str:
    """Layouts made by hand."""

    def table(part: Data) -> str:
        rows = [[f"`{name}.json`", ranged(row["boxes"]), str(row["n"])] for name, row in part.items()]
        return markdown(["layout", "right thing in its box", "pictures"], rows)

    return _models(data, "examples", table)


def claims(data: Data) -> str:
    """What layouts are to reach, and whether they do, for every model that learned boxes."""
    rows = []
    for label, model in data["models"].items():
        for way in (BOXES, BOTH):
            row = model["parts"].get("layouts", {}).get(way)
            for name, key in (("right thing in its box", "boxes"), ("count right", "count")):
                if row:
                    value = row[key][0]
                    told = [label, f"{name} in at least {AIM:.0%}, told by {way}", f"{value:.3f}"]
                    rows.append([*told, "yes" if value >= AIM else "**no**"])
    return markdown(["model", "aim", "measured", "reached"], rows) if rows else "_Not measured yet._"


def sheets(data: Data) -> str:
    """The pictures as they came."""
    found = []
    for label, row in data["models"].items():
        columns = {
            "held": ", ".join(["the layout", *row["parts"].get("layouts", ())]),
            "examples": "the layout, pictures 1, 2, ... of seed 0",
        }
        for name, about in SHEETS.items():
            if common.sheet_path(NAME, label, name).exists():
                found.append(
                    f"`{label}`, {about}; from left to right {columns[name]}:\n\n![{about}](images/{NAME}_{label}_{name}.png)"
                )
    return "\n\n".join(found) or "_Not drawn yet._"


TABLES: dict[str, tuple[str, Callable[[Data], str]]] = {
    "layouts_claims": (NAME, claims),
    "layouts_held": (NAME, held),
    "layouts_positions": (NAME, positions),
    "layouts_examples": (NAME, examples),
    "layouts_sheets": (NAME, sheets),
}
