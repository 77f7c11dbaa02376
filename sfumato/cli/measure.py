"""sfumato measure: a model, or any set of pictures, against real pictures."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterator
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sfumato.cli.console import Line, say
from sfumato.cli.report import build_report, training_source
from sfumato.core import Cond, Noise, SfumatoError, Slot
from sfumato.data import PixelCodec, Source, open_as
from sfumato.data import open as open_source
from sfumato.data.files import write_text
from sfumato.data.open import NAMES
from sfumato.data.ragged import square_side, square_x0
from sfumato.data.records import readable, shown
from sfumato.guide import bind
from sfumato.measure import Classes, Extractor, features_for, inception, mean_interval, metric_name
from sfumato.measure import measure as measured
from sfumato.measure.memory import Gallery, memorisation
from sfumato.measure.words import number
from sfumato.reverse import bits_per_dimension
from sfumato.tasks import Model, Request, Result, by_shape, load
from sfumato.tasks.conditions import encode_text
from sfumato.train import Run, keep_large_blocks, load_weights, write_card

MOST_REAL = 10_000
MOST_BYTES = 2**29  # of the pictures of one set, as float32: bigger ones are thinned evenly
DEFAULT_N = 1000
CURVE_PICTURES = 256
CURVE_STEPS = 10
CHUNK = 64


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Measure, keep the numbers in the run folder, renew its report; returns what --json prints."""
    keep_large_blocks()
    if options.n is not None and options.n < 16:
        raise SfumatoError(f"--n {options.n} pictures say nothing: 16 are the least, 1000 or more give a steady number")
    if options.bits is not None and options.bits < 16:
        raise SfumatoError(f"--bits {options.bits} pictures say nothing: 16 are the least, 64 give a steady number")
    result = _sets(options) if _is_source(options.run) else _model(options)
    _print(result)
    return result


def _is_source(given: str) -> bool:
    """Whether this names pictures; a folder with a run in it, whole or not, is a model."""
    path = Path(given).expanduser()
    if (path / "run.json").exists() or (path / "checkpoints").exists():
        return False
    return given in NAMES or given.partition(":")[0] in NAMES or readable(path)


def _model(options: argparse.Namespace) -> dict[str, Any]:
    if options.size is not None:
        raise SfumatoError("--size is for two sets of pictures: a model measures at the size it was trained at")
    model, run = load(options.run), Run(Path(options.run))
    kept = (run.path / "run.json").exists()
    if options.curve and not kept:
        raise SfumatoError("--curve needs a run folder: an exported file holds no stored averages")
    opened = open_as(options.against, model.facts["codec"])
    source = opened.squares()
    same = model.facts["data"]["fingerprint"] == source.fingerprint
    learned = opened if same else training_source(run)
    trained = None if learned is None else learned.squares()
    rows = source.validation_index if same else torch.arange(len(source))
    if trained is not None:
        rows = _unseen(source, rows, trained)
    if len(rows) < 16:
        raise SfumatoError(
            f"{source.name} has only {len(rows)} pictures that the model has not seen, too few to measure: "
            "measure against another folder of its kind"
        )
    rows = _spread(rows, _most(source))
    reference = source.batch(rows).x0
    sure = (
        "that the model has not seen" if trained is not None else "(what it was trained on cannot be opened to compare)"
    )
    say(f"measuring against {len(reference):,} pictures of {shown(source.name)} {sure}")
    features = _features(options, trained or source)
    line, n = Line("sampling"), options.n or DEFAULT_N
    drawn = by_shape(model, Request(n=n), lambda done, n: line.show(done / n, f"{done} of {n}"))
    line.end()
    known = None if trained is None else _spread(trained.train_index, n)
    real = None if trained is None else trained.batch(known).x0
    split = shown(source.name) + ("/validation" if same else "")
    captions = [caption for part in drawn for caption in part.captions]
    classes = _classes(model.classes, captions, source, rows)
    if classes is not None and trained is not None and trained.classes == model.classes:
        classes = replace(classes, real=trained.labels[known])
    result = measured(_squares(drawn), reference, features, real, split=split, classes=classes)
    result["seconds"] = round(sum(part.seconds for part in drawn), 2)
    if trained is not None:
        _copies(result, _squares(drawn), trained)
    if options.bits is not None:
        result["metrics"].append(_bits(model, opened, rows, options.bits, split))
    if kept:
        if options.curve:
            result["curve"] = _curve(run, model, reference, features)
        write_text(run.path / "measure.json", json.dumps(result, indent=1))
        write_card(run)
        result["report"] = str(build_report(run, learned or opened))
        say(f"report: {result['report']}")
    return result


def _sets(options: argparse.Namespace) -> dict[str, Any]:
    """Pictures against pictures; the floor is one half of the reference against the other."""
    for given, flag in ((options.curve, "--curve"), (options.bits, "--bits")):
        if given:
            raise SfumatoError(f"{flag} is of a model: {shown(options.run)} is a set of pictures")
    made, source = (open_source(given, options.size).squares() for given in (options.run, options.against))
    names = [shown(s.name) for s in (made, source)]
    (c, h, w), (d, i, j) = made.codec.spec, source.codec.spec
    if c != d:
        kinds = ["grey" if channels == 1 else "colour" for channels in (c, d)]
        raise SfumatoError(
            f"{names[0]} is {kinds[0]} and {names[1]} is {kinds[1]}: bring both to one colour mode before measuring"
        )
    if (h, w) != (i, j):
        raise SfumatoError(f"{names[0]} is {h}x{w} and {names[1]} {i}x{j}: say at what --size both are to be compared")
    mine = _spread(torch.arange(len(made)), min(options.n or MOST_REAL, _most(made)))
    rows = _spread(torch.arange(len(source)), _most(source))
    for index, name in ((mine, names[0]), (rows, names[1])):
        if len(index) < 16:
            raise SfumatoError(f"{name} has only {len(index)} pictures: 16 are the least, 1000 give a steady number")
    say(f"measuring {len(mine):,} pictures of {names[0]} against {len(rows):,} of {names[1]}")
    features = _features(options, source)
    reference = source.batch(rows).x0
    classes = None
    if made.labels is not None and source.labels is not None:
        captions = [made.classes[k] if k >= 0 else "" for k in made.labels[mine].tolist()]
        classes = _classes(source.classes, captions, source, rows)
    result = measured(made.batch(mine).x0, reference, features, split=names[1], classes=classes, halves=True)
    shared = len(mine) - len(_unseen(made, mine, source, rows))
    if shared:
        result["notes"].append(f"{shared:,} pictures of {names[0]} are in {names[1]} too, pixel for pixel")
    return result


def _features(options: argparse.Namespace, source: Source) -> Extractor:
    return features_for(source) if options.weights is None else inception(options.weights)


def _spread(rows: Tensor, most: int) -> Tensor:
    """At most so many rows, evenly over all: files are often in an order that means something."""
    return rows if len(rows) <= most else rows[torch.linspace(0, len(rows) - 1, most).long()]


def _most(source: Source) -> int:
    """How many pictures of this size are looked at, at most."""
    return max(16, min(MOST_REAL, MOST_BYTES // (4 * math.prod(source.codec.spec))))


def _classes(names: tuple[str, ...], captions: list[str], source: Source, rows: Tensor) -> Classes | None:
    """The classes of both sets by their names; None where one has none."""
    if not names or source.labels is None:
        return None
    known = {name: k for k, name in enumerate(names)}
    ours = torch.tensor([known.get(name, -1) for name in source.classes] + [-1])
    return Classes(names, torch.tensor([known.get(caption, -1) for caption in captions]), ours[source.labels[rows]])


def _squares(drawn: list[Result]) -> Tensor:
    """Pictures of every shape as squares of one size, as the real ones are."""
    side = square_side([result.x0.shape[2:] for result in drawn])
    return torch.cat([square_x0(result.x0, side) for result in drawn])


def _unseen(source: Source, rows: Tensor, trained: Source, learned: Tensor | None = None) -> Tensor:
    """Those of the rows whose pixels are those of no training picture, whatever its name: copies tell nothing."""

    def hashes(of: Source, index: Tensor) -> Iterator[bytes]:
        for part in index.split(1024):
            yield from (blake2b(picture.tobytes(), digest_size=16).digest() for picture in of.images(part))

    seen = set(hashes(trained, trained.train_index if learned is None else learned))
    new = [digest not in seen for digest in hashes(source, rows)]
    return rows[torch.tensor(new, dtype=torch.bool)]


def _bits(model: Model, source: Source, rows: Tensor, most: int, split: str) -> dict[str, Any]:
    """Bits per dimension of held-out pictures of the first shape, under their own classes where the model knows them."""
    if not isinstance(model.codec, PixelCodec):
        raise SfumatoError("--bits needs a model of plain pixels: this one learned standardised values")
    rows = _spread(rows[source.bucket[rows] == 0], most)
    line, found = Line("bits"), []
    for part in rows.split(CHUNK):
        batch, slots = source.batch(part), {}
        if source.labels is not None and source.classes == model.classes:
            slots["class"] = Slot(source.labels[part].clamp_min(0), "vector", source.labels[part] >= 0)
        if model.conditioned_on("text") and "text" in batch.cond:
            slots["text"] = encode_text(model, [source.captions[k] for k in part.tolist()])
        noise = Noise.of(0, len(part), sum(map(len, found)))
        found.append(bits_per_dimension(bind(model.denoiser, Cond(slots)), batch.x0, noise))
        line.show(sum(map(len, found)) / len(rows), f"{sum(map(len, found))} of {len(rows)}")
    line.end()
    name = metric_name("bits", "uniformly-dequantised", len(rows), split)
    return {"name": name, "key": "bits", **mean_interval(torch.cat(found))._asdict()}


def _copies(result: dict[str, Any], made: Tensor, trained: Source) -> None:
    """How much of what was made is copied from the training pictures, beside held-out ones."""
    held = trained.batch(_spread(trained.validation_index, 1000)).x0
    try:
        result["memorisation"] = memorisation(made, Gallery(trained), held).to_json()
    except SfumatoError as error:  # too few held-out pictures: the scores stand without it
        result["notes"].append(f"copies are not counted: {error}")


def _curve(run: Run, model: Model, reference: Tensor, features: Extractor) -> list[dict[str, Any]]:
    """Scores of the averages stored along the run, with fewer pictures each."""
    rows, line, stored, delivered = [], Line("curve"), run.stored(), run.recipe().ema.width
    request = Request(n=CURVE_PICTURES, steps=CURVE_STEPS)
    for k, snapshot in enumerate(stored):
        tracked = min(snapshot.states, key=lambda width: abs(width - delivered))
        load_weights(model.denoiser, snapshot.states[tracked])
        scores = measured(_squares(by_shape(model, request)), reference, features)
        told = {name: scores[name] for name in ("kid", "kid_se", "fd", "precision", "recall")}
        rows.append({"step": snapshot.step, **{name: v for name, v in told.items() if v is not None}})
        line.show((k + 1) / len(stored), f"step {snapshot.step:,}: KID {scores['kid']:.4f}")
    line.end()
    return rows


def _print(result: dict[str, Any]) -> None:
    """The numbers as a table, the notes below."""
    head = ("", "value", "95 % interval", "real pictures get")
    rows = [head, *(_cells(row) for row in result["metrics"])]
    for row in result.get("classes", ()):
        rows += [_cells(m) for m in row["metrics"]]
    widths = [max(len(row[k]) for row in rows) for k in range(len(head))]
    for row in rows:
        say("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    if "memorisation" in result:
        say(f"copies: {result['memorisation']['words']}")
    for note in result["notes"]:
        say(f"note: {note}")
    for row in result.get("classes", ()):
        if "note" in row:
            say(f"note: class {shown(row['class'])} {row['note']}")


def _cells(row: dict[str, Any]) -> tuple[str, str, str, str]:
    real = (
        f"{number(row['floor'])} ({number(row['floor_low'])} to {number(row['floor_high'])})" if "floor" in row else ""
    )
    return shown(row["name"]), number(row["value"]), f"{number(row['low'])} to {number(row['high'])}", real
