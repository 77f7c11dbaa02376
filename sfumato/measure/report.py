"""The report of a run: one HTML file with everything inside that says what was learned and how good it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from sfumato.core import SfumatoError
from sfumato.data.files import write_text
from sfumato.measure import page
from sfumato.measure.memory import copied
from sfumato.measure.page import text
from sfumato.measure.plots import curves
from sfumato.measure.words import duration, number, verdict, way


@dataclass(frozen=True)
class Strip:
    """Pictures at several times: `times` of the columns, one row of pictures per example."""

    times: Sequence[float]
    rows: Sequence[Sequence[Image.Image]]


@dataclass(frozen=True)
class Neighbours:
    """A generated picture, the training pictures nearest to it, nearest first, and their distances."""

    sample: Image.Image
    nearest: Sequence[Image.Image]
    distances: Sequence[float]

    def copied(self, held_out: float) -> bool:
        """Whether the sample is a copy by the rule of `memory.copied`; `held_out`: the median distance from a picture that
        was not trained on to its nearest training picture."""
        first, second = (torch.tensor([d]) for d in self.distances[:2])
        return bool(copied(first, second, held_out))


@dataclass(frozen=True)
class Report:
    """All that a report shows; whatever is empty is left out.

    `source`, `recipe`, `machine`: facts as they should be read (JSON-able, nested). `history`: rows with step, seconds,
    images, loss, validation_loss and, where measured, fd, precision, recall. `metrics`: a result of `measure`.
    `captions` go under the samples. `held_out`: the median distance from a held-out picture to its nearest training
    picture, in the units of the neighbours' distances.
    """

    title: str
    source: Mapping[str, Any]
    history: Sequence[Mapping[str, Any]] = ()
    samples: Sequence[Image.Image] = ()
    captions: Sequence[str] = ()
    metrics: Mapping[str, Any] | None = None
    forward: Strip | None = None
    reverse: Strip | None = None
    previews: Sequence[tuple[int, Image.Image]] = ()
    neighbours: Sequence[Neighbours] = ()
    held_out: float = 0.0
    recipe: Mapping[str, Any] | None = None
    machine: Mapping[str, Any] | None = None
    parameters: int | None = None
    warnings: Sequence[str] = ()


def write_report(run_dir: str | Path, report: Report) -> Path:
    """Write `report.html` into the run folder and return its path; curves need matplotlib.

    Raises SfumatoError when the folder cannot be written to or matplotlib is absent.
    """
    folder = Path(run_dir)
    parts = (_verdict, _samples, _curves, _forward, _reverse, _neighbours, _data, _recipe)
    body = "".join(part(report) for part in parts) + _files(folder)
    target = folder / "report.html"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_text(target, page.document(report.title, body))
    except OSError as error:
        raise SfumatoError(f"the report cannot be written to {folder}: {error.strerror or error}") from error
    return target


def _verdict(report: Report) -> str:
    source, last = report.source, report.history[-1] if report.history else {}
    pictures = source.get("train", source.get("pictures"))
    shapes = source.get("shapes", [[source["height"], source["width"]]] if "width" in source else [])
    size = f", {' / '.join(f'{w}×{h}' for h, w, *_ in shapes)} pixels" if shapes else ""
    learned = f"Learned from {number(pictures)} pictures of {source.get('name', 'the source')}{size}"
    learned += f" in {duration(last['seconds'])}." if "seconds" in last else "."
    facts = [
        ("pictures seen", last.get("images")),
        ("steps", last.get("step")),
        ("parameters", report.parameters),
        ("validation loss", last.get("validation_loss")),
    ]
    shown = "".join(
        f"<div><b>{text(number(v))}</b><span class='soft'>{k}</span></div>" for k, v in facts if v is not None
    )
    told = verdict(report.history, report.metrics)
    sentences = "".join(f"<p{'' if k else ' class=lead'}>{text(s)}</p>" for k, s in enumerate(told))
    warnings = "".join(f"<li>{text(w)}</li>" for w in report.warnings)
    head = f'<h1>{text(report.title)}</h1><p class="soft">{text(learned)}</p>'
    card = page.section("How good is it?", _scale(report.metrics) + sentences + f'<div class="facts">{shown}</div>')
    return head + page.section("Warnings", f"<ul>{warnings}</ul>" if warnings else "", kind="warn") + card


def _scale(metrics: Mapping[str, Any] | None) -> str:
    """A bar from pure noise to real pictures with the model's place on it, by the logarithm of the Fréchet distance."""
    share = way(metrics) if metrics else None
    if share is None or metrics is None:
        return ""
    at, key = 100 * share, "fd" if metrics.get("fd") is not None else "kid"
    return (
        f'<div class="scale"><span>pure noise: {number(metrics["noise"].get(key))}</span>'
        f"<span>real pictures: {number(metrics['floor'].get(key))}</span>"
        f'<em style="left: {min(max(at, 9), 91):.1f}%">this model: {number(metrics.get(key))}</em>'
        f'<i style="left: {at:.1f}%"></i></div>'
    )


def _samples(report: Report) -> str:
    cells = []
    for k, image in enumerate(report.samples):
        caption = report.captions[k] if k < len(report.captions) else ""
        below = f"<figcaption>{text(caption)}</figcaption>" if caption else ""
        cells.append(f"<figure>{page.picture(image, caption or f'sample {k + 1}', None)}{below}</figure>")
    side = min(max((max(84, *image.size) for image in report.samples), default=0), 256)
    columns = _columns(len(cells), max(1, 1040 // (side + 4)))
    style = f"grid-template-columns: repeat({columns}, 1fr); max-width: {columns * 2 * side}px"
    sheet = f'<div class="sheet" style="{style}">{"".join(cells)}</div>' if cells else ""
    return page.section(
        "What it makes", sheet, f"{len(cells)} pictures made by the model, one after the other, none chosen."
    )


def _columns(n: int, most: int) -> int:
    """As many columns as fit, but fewer when that leaves no ragged last row."""
    return next((c for c in range(min(n, most), most // 2, -1) if n % c == 0), min(n, most))


def _curves(report: Report) -> str:
    charts = "".join(f"<div><h3>{text(t)}</h3>{svg}</div>" for t, svg in curves(report.history, report.metrics))
    body = f'<div class="charts">{charts}</div>' if charts else ""
    body += _metrics_table(report.metrics) + _previews(report.previews)
    lead = (
        "Loss says how well noise is removed, not how good samples look: read it beside the distance to real pictures."
    )
    return page.section("How it learned", body, lead)


def _metrics_table(metrics: Mapping[str, Any] | None) -> str:
    """Every number with its 95 % interval, beside what real pictures and pure noise get."""
    if not metrics:
        return ""
    names = {
        "fd": "Fréchet distance (less is better)",
        "fd_corrected": "the same, freed of its bias",
        "kid": "kernel distance (less is better)",
        "precision": "precision",
        "recall": "recall",
        "density": "density",
        "coverage": "coverage",
        "bits": "bits per dimension (less is better)",
    }
    rows = []
    for row in metrics.get("metrics", ()):
        key, noise = row["key"], metrics.get("noise", {})
        real = _between(row["floor"], row["floor_low"], row["floor_high"]) if "floor" in row else "–"
        rows.append(
            [names.get(key, key), _between(row["value"], row["low"], row["high"]), real, number(noise.get(key))]
        )
    against = f", against {metrics['n_reference']:,} pictures" if "n_reference" in metrics else ""
    told = f"Seen through {metrics.get('features', 'an unnamed extractor')}, {metrics.get('n', 0):,} pictures{against}."
    table = page.table(["", "this model (95 % interval)", "real pictures", "pure noise"], rows) if rows else ""
    return table + f'<p class="soft">{text(told)}</p>' + _classes_table(metrics.get("classes", ()))


def _between(value: float, low: float, high: float) -> str:
    return f"{number(value)} ({number(low)} to {number(high)})"


def _classes_table(classes: Sequence[Mapping[str, Any]]) -> str:
    """What every class scores alone; a note where there were too few of it."""
    rows = []
    for row in classes:
        found = {m["key"]: _between(m["value"], m["low"], m["high"]) for m in row["metrics"]}
        note = [row["note"], "", ""] if "note" in row else [found[key] for key in ("kid", "precision", "recall")]
        rows.append([row["class"], f"{row['n']:,}", *note])
    table = page.table(["class", "pictures", "kernel distance", "precision", "recall"], rows) if rows else ""
    return page.details("Every class alone", table) if rows else ""


def _previews(previews: Sequence[tuple[int, Image.Image]]) -> str:
    if not previews:
        return ""
    figures = "".join(
        f"<figure>{page.picture(image, f'step {step}', None)}<figcaption>step {step:,}</figcaption></figure>"
        for step, image in previews
    )
    wide = max(image.width for _, image in previews)
    side = min(max(wide // 2, 200), 320)
    sheet = f'<div class="sheet" style="--tile: {side}px">{figures}</div>'
    return f'<h3 class="over">The same noise, step by step</h3>{sheet}'


def _strip(strip: Strip | None) -> str:
    if strip is None or not strip.rows:
        return ""
    labels = "".join(f"<span>t = {t:.2f}</span>" for t in strip.times)
    cells = "".join(
        page.picture(image, f"t = {t:.2f}") for row in strip.rows for t, image in zip(strip.times, row, strict=True)
    )
    return f'<div class="scroll"><div class="strip" style="--n: {len(strip.times)}">{labels}{cells}</div></div>'


def _forward(report: Report) -> str:
    lead = "Real pictures on their way to noise: what the network is shown while it learns (t = 0 data, t = 1 noise)."
    return page.section("From picture to noise", _strip(report.forward), lead)


def _reverse(report: Report) -> str:
    lead = (
        "The way back: each row starts from noise of its own, and the network takes a little of it away at every step."
    )
    return page.section("From noise to picture", _strip(report.reverse), lead)


def _neighbours(report: Report) -> str:
    rows = []
    for found in report.neighbours:
        made = page.picture(found.sample, "made by the model")
        made = f'<figure class="made">{made}<figcaption>made</figcaption></figure>'
        near = "".join(
            f"<figure>{page.picture(image, 'training picture')}<figcaption>{number(d)}</figcaption></figure>"
            for image, d in zip(found.nearest, found.distances, strict=True)
        )
        kind = "twin copy" if found.copied(report.held_out) else "twin"
        rows.append(f'<div class="{kind}" style="--n: {len(found.nearest)}">{made}<span></span>{near}</div>')
    copies = sum(found.copied(report.held_out) for found in report.neighbours)
    lead = (
        "Left a picture of the model, right the training pictures nearest to it. Alike in kind is learning; the same "
        "picture again is copying. Numbers are mean differences of pixels (0 the same, 2 black against white); a real "
        f"picture not trained on has its nearest at {number(report.held_out)}."
    )
    rule = "nearest under a third of the second distance, or of what is usual"
    told = f"{copies} of {len(rows)} are copies" if copies else f"None of these {len(rows)} is a copy"
    counted = (report.metrics or {}).get("memorisation")
    measured = f" Of {counted['n']:,} pictures: {text(counted['words'])}." if counted else ""
    shown = f'<p><b>{told}</b> ({rule}).{measured}</p><div class="twins">{"".join(rows)}</div>'
    return page.section("Learned or copied?", shown if rows else "", lead)


def _data(report: Report) -> str:
    source = dict(report.source)
    licence = source.pop("licence", None) or source.pop("license", None)
    told = f"<p><b>Licence:</b> {text(licence or 'not stated: find out before you share what this model makes')}</p>"
    return page.section("The data", told + page.facts_table(source))


def _recipe(report: Report) -> str:
    machine = page.facts_table(report.machine or {})
    recipe = page.details("Recipe, whole", page.facts_table(report.recipe or {}))
    return page.section("Recipe and machine", machine + recipe)


def _files(folder: Path) -> str:
    if not folder.is_dir():
        return ""
    rows = []
    for entry in sorted(folder.iterdir(), key=lambda p: (p.is_dir(), p.name)):
        if entry.name.startswith("report.html"):
            continue
        inside = [f for f in entry.rglob("*") if f.is_file()] if entry.is_dir() else [entry]
        size = sum(f.stat().st_size for f in inside) / 1e6
        name = entry.name + (f"/ ({len(inside)} files)" if entry.is_dir() else "")
        rows.append([name, f"{size:,.2f} MB"])
    return page.section("Files in this folder", page.table(["", "size"], rows) if rows else "")
