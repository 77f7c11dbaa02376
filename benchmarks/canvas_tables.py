"""The tables and pictures of `canvas`, for docs/editing.md."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from benchmarks import common
from benchmarks.data_tables import markdown

Data = dict[str, Any]
NAME, SLOT = "canvas", "trained slot"
SHEETS = ("inpaint_box", "inpaint_half", "inpaint_strokes", "inpaint_border", "upscale_x2", "upscale_x4", "combined")
SEAM, LEVELS, CALLS, SECONDS, POINTS = 0.05, 1.0, 10, 20.0, 0.05  # what editing is to reach


def ranged(interval: Sequence[float] | None, form: str = "{:.2f}") -> str:
    """A number with its interval, or a dash."""
    if interval is None:
        return "–"
    value, low, high = (form.format(v) for v in interval)
    return f"**{value}** ({low} to {high})"


def _parts(data: Data, part: str, make: Callable[[Data], str]) -> str:
    """`make` of this part of every model that has it."""
    found = [
        f"`{label}`, {row['stamps'][part]['source']}:\n\n{make(row['parts'][part])}"
        for label, row in data["models"].items()
        if row["parts"].get(part)
    ]
    return "\n\n".join(found) or f"_Not measured yet: `python -m benchmarks.canvas {part}`._"


def _cost(row: Data) -> list[str]:
    return [str(row["calls"] or "–"), f"{row['seconds'] * 1000:,.0f} ms" if row["seconds"] else "–"]


def inpaint(data: Data) -> str:
    """A table for every kind of hole."""
    head = [
        "filled by",
        "KID of the picture",
        "KID of the hole",
        "PSNR in the hole, dB",
        "seam",
        "network calls",
        "time",
    ]

    def tables(part: Data) -> str:
        made = []
        for hole, ways in part.items():
            rows = [
                [way, ranged(r["kid"]), ranged(r["hole_kid"]), ranged(r.get("psnr")), ranged(r["seam"]), *_cost(r)]
                for way, r in ways.items()
            ]
            made.append(f"{hole}, {next(iter(ways.values()))['n']} pictures:\n\n{markdown(head, rows)}")
        return "\n\n".join(made)

    return _parts(data, "inpaint", tables)


def upscale(data: Data) -> str:
    """A table for every scale, and the time of a large picture."""
    head = ["enlarged by", "PSNR, dB", "SSIM", "feature distance", "KID", "levels off", "network calls", "time"]

    def tables(part: Data) -> str:
        made = []
        for scale, ways in part.items():
            if scale == "speed":
                continue
            rows = [
                [
                    way,
                    ranged(r.get("psnr")),
                    ranged(r.get("ssim"), "{:.3f}"),
                    ranged(r.get("distance"), "{:.3f}"),
                    ranged(r["kid"]),
                    f"{r['inconsistency'][0]:.2f}",
                    *_cost(r),
                ]
                for way, r in ways.items()
            ]
            made.append(f"{scale}, {next(iter(ways.values()))['n']} pictures:\n\n{markdown(head, rows)}")
        if "speed" in part:
            told = part["speed"]
            made.append(
                f"A picture of {told['side']}x{told['side']} from a quarter of its side: {told['seconds']:.1f} s, "
                f"{told['calls']} network calls (by {told['by']})."
            )
        return "\n\n".join(made)

    return _parts(data, "upscale", tables)


def seams(data: Data) -> str:
    """Steps at the borders of windows."""

    def table(part: Data) -> str:
        row = part["windows"]
        rows = [["ours, in windows", ranged(row["seam"])], ["bicubic, without windows", ranged(row["bicubic"])]]
        return markdown(["enlarged twice", "steps at window borders, of real ones"], rows)

    return _parts(data, "seams", table)


def combined(data: Data) -> str:
    """Every condition alone and at once, beside real pictures."""

    def table(part: Data) -> str:
        names = [name for name in part["all"] if name != "f"]
        rows = []
        for name in names:
            cells = [ranged(part[which][name]) for which in ("real", name, "all")]
            rows.append([name, *cells, _answer(part["all"][name][0] >= part[name][name][0] - POINTS)])
        return markdown(["obeyed", "real pictures", "alone", "all at once", "within 5 points"], rows)

    return _parts(data, "combined", table)


def _answer(met: bool) -> str:
    return "yes" if met else "**no**"


def _seam(found: Sequence[float] | None) -> list[str]:
    if found is None:
        return ["–", "–"]
    return [f"{found[0]:.3f}", _answer(abs(found[0] - 1) <= SEAM)]


def claims(data: Data) -> str:
    """What editing is to reach, and whether it does, for every model with trained slots."""
    rows = []
    for label, model in data["models"].items():
        parts = model["parts"]
        for hole, ways in parts.get("inpaint", {}).items():
            if SLOT in ways:
                own = ways[SLOT]
                best = min((w for w in ways if w != "truth"), key=lambda w: ways[w]["hole_kid"][0])
                rows.append(
                    [label, f"{hole}: trained slot best in KID of the hole", f"best: {best}", _answer(best == SLOT)]
                )
                rows.append([label, f"{hole}: seam within 5 % of real", *_seam(own["seam"])])
        for scale, ways in parts.get("upscale", {}).items():
            if SLOT in ways:
                off, calls = ways[SLOT]["inconsistency"][0], ways[SLOT]["calls"]
                rows.append([label, f"{scale}: means within 1/255", f"{off:.2f}", _answer(off <= LEVELS)])
                rows.append([label, f"{scale}: at most {CALLS} network calls", str(calls), _answer(calls <= CALLS)])
        speed = parts.get("upscale", {}).get("speed")
        if speed:
            met = _answer(speed["seconds"] < SECONDS)
            rows.append([label, f"{speed['side']}x{speed['side']} in under 20 s", f"{speed['seconds']:.1f} s", met])
        if parts.get("seams"):
            rows.append([label, "windows: seam within 5 % of real", *_seam(parts["seams"]["windows"]["seam"])])
    return markdown(["model", "aim", "measured", "reached"], rows) if rows else "_Not measured yet._"


def sheets(data: Data) -> str:
    """The first pictures of every part, as they came."""
    found = []
    for label in data["models"]:
        for name in SHEETS:
            if common.sheet_path(NAME, label, name).exists():
                found.append(f"`{label}`, {name.replace('_', ' ')}:\n\n![{name}](images/{NAME}_{label}_{name}.png)")
    return "\n\n".join(found) or "_Not drawn yet._"


TABLES: dict[str, tuple[str, Callable[[Data], str]]] = {
    "canvas_claims": (NAME, claims),
    "canvas_inpaint": (NAME, inpaint),
    "canvas_upscale": (NAME, upscale),
    "canvas_seams": (NAME, seams),
    "canvas_combined": (NAME, combined),
    "canvas_sheets": (NAME, sheets),
}
