"""sfumato measure: a model against real pictures."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sfumato.cli.console import Line, say
from sfumato.cli.report import build_report, training_source
from sfumato.core import SfumatoError
from sfumato.data import Source, open_as
from sfumato.data.files import write_text
from sfumato.data.ragged import square_side, square_x0
from sfumato.measure import Features, features_for
from sfumato.measure import measure as measured
from sfumato.tasks import Model, Request, Result, by_shape, load
from sfumato.train import Run, keep_large_blocks, load_weights

MOST_REAL = 10_000
CURVE_PICTURES = 256
CURVE_STEPS = 10


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Measure, keep the numbers in the run folder, renew its report; returns what --json prints."""
    keep_large_blocks()
    if options.n < 16:
        raise SfumatoError(f"--n {options.n} pictures say nothing: 16 are the least, 1000 or more give a steady number")
    model, run = load(options.run), Run(Path(options.run))
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
    reference = source.batch(rows[:MOST_REAL]).x0
    sure = (
        "that the model has not seen" if trained is not None else "(what it was trained on cannot be opened to compare)"
    )
    say(f"measuring against {len(reference):,} pictures of {source.name} {sure}")
    features = features_for(trained or source)
    line = Line("sampling")
    drawn = by_shape(model, Request(n=options.n), lambda done, n: line.show(done / n, f"{done} of {n}"))
    line.end()
    real = None
    if trained is not None:  # spread over the set: files are often in an order that means something
        spread = torch.linspace(0, len(trained.train_index) - 1, min(options.n, len(trained.train_index))).long()
        real = trained.batch(trained.train_index[spread]).x0
    result = measured(_squares(drawn), reference, features, real)
    result["seconds"] = round(sum(part.seconds for part in drawn), 2)
    if (run.path / "run.json").exists():
        if options.curve:
            result["curve"] = _curve(run, model, reference, features)
        write_text(run.path / "measure.json", json.dumps(result, indent=1))
        result["report"] = str(build_report(run, learned or opened, features))
        say(f"report: {result['report']}")
    elif options.curve:
        raise SfumatoError("--curve needs a run folder: an exported file holds no stored averages")
    floor = f" (real pictures: {result['floor']['kid']:.4f}, {result['floor']['fd']:.2f})" if real is not None else ""
    say(
        f"KID {result['kid']:.4f} +- {result['kid_se']:.4f}, Frechet distance {result['fd']:.2f}{floor}, "
        f"precision {result['precision']:.2f}, recall {result['recall']:.2f}, n = {result['n']}, {features.name}"
    )
    return result


def _squares(drawn: list[Result]) -> Tensor:
    """Pictures of every shape as squares of one size, as the real ones are."""
    side = square_side([result.x0.shape[2:] for result in drawn])
    return torch.cat([square_x0(result.x0, side) for result in drawn])


def _unseen(source: Source, rows: Tensor, trained: Source) -> Tensor:
    """Those of the rows whose pixels are those of no training picture, whatever its name: copies tell nothing."""

    def hashes(of: Source, index: Tensor) -> Iterator[bytes]:
        for part in index.split(1024):
            yield from (blake2b(picture.tobytes(), digest_size=16).digest() for picture in of.images(part))

    seen = set(hashes(trained, trained.train_index))
    new = [digest not in seen for digest in hashes(source, rows)]
    return rows[torch.tensor(new, dtype=torch.bool)]


def _curve(run: Run, model: Model, reference: Tensor, features: Features) -> list[dict[str, Any]]:
    """Scores of the averages stored along the run, with fewer pictures each."""
    rows, line, stored = [], Line("curve"), run.stored()
    request = Request(n=CURVE_PICTURES, steps=CURVE_STEPS)
    for k, snapshot in enumerate(stored):
        load_weights(model.denoiser, snapshot.states[min(snapshot.states)])
        scores = measured(_squares(by_shape(model, request)), reference, features)
        rows.append(
            {"step": snapshot.step, **{name: scores[name] for name in ("kid", "kid_se", "fd", "precision", "recall")}}
        )
        line.show((k + 1) / len(stored), f"step {snapshot.step:,}: KID {scores['kid']:.4f}")
    line.end()
    return rows
