"""Curves as inline SVG that take the colours of the page around them."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from sfumato.core import SfumatoError

INK = "#010203"  # stands for the page's text colour until the SVG is written
COLOURS = ("#3b82c4", "#d9822b", INK, "#3d9970")  # legible on white and on near-black

LEVELS = ("least noise", "little", "much", "most noise")  # quarters of the noise levels, as the log has them

STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "sfumato",
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
}


def line_chart(
    lines: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    axis: tuple[str, str],
    marks: Mapping[str, float] | None = None,
    log: bool = False,
    limits: tuple[float, float] | None = None,
) -> str:
    """An SVG string: up to four named lines (x, y), the names of both axes, and horizontal marks with their names.

    Values that are not finite leave a gap. Raises SfumatoError when matplotlib is not installed.
    """
    try:
        import matplotlib
        from matplotlib.figure import Figure
        from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
    except ImportError as error:
        raise SfumatoError("curves need matplotlib: pip install 'sfumato[report]'") from error
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(4.3, 2.9), layout="constrained")
        axes = figure.add_subplot()
        for (name, (x, y)), colour in zip(lines.items(), COLOURS[: len(lines)], strict=True):
            axes.plot(
                x,
                [v if math.isfinite(v) else math.nan for v in y],
                color=colour,
                label=name,
                lw=1.8,
                marker="o",
                ms=2.5,
            )
        for name, value in (marks or {}).items():
            axes.axhline(value, color=INK, lw=0.8, ls=(0, (4, 3)), alpha=0.6)
            axes.annotate(
                name,
                (1, value),
                xycoords=("axes fraction", "data"),
                xytext=(0, 3),
                textcoords="offset points",
                ha="right",
            )
        if log:
            axes.set_yscale("log")
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
            axes.yaxis.set_minor_formatter(NullFormatter())
        if limits:
            axes.set_ylim(*limits)
        axes.set_xlim(left=0)
        axes.set_xlabel(axis[0])
        axes.set_ylabel(axis[1])
        axes.grid(alpha=0.15, color=INK, lw=0.6)
        if len(lines) > 1:
            axes.legend(frameon=False)
        out = io.StringIO()
        figure.savefig(out, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return _inline(out.getvalue(), " and ".join(lines))


def _inline(svg: str, label: str) -> str:
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.S).replace(INK, "currentColor")
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg, count=1, flags=re.S)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1, flags=re.S)
    return svg.replace("<svg", f'<svg role="img" aria-label="{label}"', 1)


def _minutes(rows: Sequence[Mapping[str, Any]]) -> list[float]:
    return [row["seconds"] / 60 for row in rows]


def curves(history: Sequence[Mapping[str, Any]], metrics: Mapping[str, Any] | None) -> list[tuple[str, str]]:
    """The charts that this history allows, as (title, SVG): losses, Fréchet or kernel distance, precision and recall."""

    def line(key: str) -> tuple[list[float], list[float]]:
        rows = [row for row in history if row.get(key) is not None]
        return _minutes(rows), [row[key] for row in rows]

    def lines(names: Mapping[str, str]) -> dict[str, tuple[list[float], list[float]]]:
        return {name: found for key, name in names.items() if len((found := line(key))[0]) > 1}

    out, ends = [], metrics or {}
    names = {
        "loss": "training",
        "validation_loss": "fixed held-out pairs",
        "trained_loss": "the same of trained pictures",
    }
    loss = lines(names)
    if loss:
        out.append(("Loss", line_chart(loss, ("minutes", "loss"), log=True)))
    levels = [row for row in history if row.get("validation_levels")]
    if len(levels) > 1:
        quarters = zip(LEVELS, zip(*(row["validation_levels"] for row in levels), strict=True), strict=True)
        told = {name: (_minutes(levels), found) for name, found in quarters}
        out.append(("Validation loss by noise level", line_chart(told, ("minutes", "loss"), log=True)))
    for key, name in (("fd", "Fréchet distance"), ("kid", "kernel distance")):
        quality = lines({key: name})
        if quality:
            marks = {
                what: ends[end][key]
                for end, what in (("floor", "real pictures"), ("noise", "pure noise"))
                if (ends.get(end, {}).get(key) or 0) > 0  # an unbiased estimate may lie below 0
            }
            log = min(quality[name][1]) > 0
            out.append(("Quality", line_chart(quality, ("minutes", name), marks if log else {}, log=log)))
            break
    overlap = lines({"precision": "precision", "recall": "recall"})
    if overlap:
        out.append(("Precision and recall", line_chart(overlap, ("minutes", "share"), limits=(0, 1))))
    return out
