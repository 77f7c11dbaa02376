"""What a run folder holds, put into its report."""

from __future__ import annotations

import json
import platform
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from sfumato.core import Noise, SfumatoError
from sfumato.data import Source
from sfumato.data import open as open_source
from sfumato.forward import GaussianProcess
from sfumato.guide import bind
from sfumato.measure import Features, Neighbours, Report, Strip, nearest, write_report
from sfumato.reverse import PRIOR, pick_grid, pick_solver, walk
from sfumato.settings import to_dict
from sfumato.tasks import Model, Request, generate, load
from sfumato.tasks.generate import plan
from sfumato.train import Run

SAMPLES = 48
STRIP_ROWS, STRIP_COLUMNS = 4, 9
NEIGHBOURS = 12
MOST_TRAINING = 20_000


def training_source(run: Run) -> Source | None:
    """The data a run was trained on, if it can still be opened."""
    try:
        told = json.loads((run.path / "source.json").read_text())
        return open_source(told["source"], told["size"], run.describe()["codec"]["channels"])
    except (OSError, ValueError, KeyError, SfumatoError):
        return None


def build_report(run: Run, source: Source, features: Features | None = None) -> Path:
    """Draw what the report shows from the newest checkpoint, and write it; neighbours are sought in `features`, else pixels."""
    model, described = load(run.path), run.describe()
    drawn = generate(model, Request(n=SAMPLES))
    metrics = _read(run.path / "measure.json")
    neighbours, held_out = _neighbours(source, drawn.x0[:NEIGHBOURS], drawn.images, features)
    report = Report(
        title=f"{run.path.name}: {described['data']['name']}",
        source=described["data"],
        history=_history(run, metrics),
        samples=drawn.images,
        captions=drawn.captions,
        metrics=metrics,
        forward=_forward(model, source),
        reverse=_reverse(model),
        previews=[(int(p.stem), Image.open(p)) for p in sorted((run.path / "previews").glob("*.png"))],
        neighbours=neighbours,
        distance="pixels" if features is None else features.name,
        held_out=held_out,
        recipe=to_dict(run.recipe()),
        machine={"cpu": platform.machine(), "threads": torch.get_num_threads(), **described["versions"]},
        parameters=sum(p.numel() for p in model.denoiser.parameters()),
    )
    return write_report(run.path, report)


def _read(path: Path) -> dict[str, Any] | None:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return None


def _history(run: Run, metrics: dict[str, Any] | None) -> list[dict[str, Any]]:
    """The log, with the scores of each stored average on the row nearest to its step."""
    rows = [dict(row) for row in run.rows()]
    for scores in (metrics or {}).get("curve", []):
        if rows:
            row = min(rows, key=lambda r: abs(r["step"] - scores["step"]))
            row.update({k: v for k, v in scores.items() if k != "step"})
    return rows


def _shown(model: Model, x: Tensor, t: float) -> list[Image.Image]:
    """x_t as pictures, scaled back to the spread of the data."""
    process = model.denoiser.process
    assert isinstance(process, GaussianProcess)
    alpha, sigma = process.alpha_sigma(t)
    return model.codec.decode(x / (alpha**2 + sigma**2) ** 0.5)


def _forward(model: Model, source: Source) -> Strip:
    """Training pictures on the way to noise, one eps per row, at times equally far apart in log-SNR."""
    process = model.denoiser.process
    x0 = model.codec.encode(source.images(source.train_index[:STRIP_ROWS]))
    times = [0.0] + pick_grid("log-snr")(14, process).flip(0)[3:11].tolist()
    noise = Noise.of(0, len(x0))
    columns = [_shown(model, process.corrupt(x0, t, noise.at(0)) if t > 0 else x0, t) for t in times]
    return Strip(times, list(zip(*columns, strict=True)))


def _reverse(model: Model) -> Strip:
    """The first samples on their way from noise to picture."""
    request = Request(n=STRIP_ROWS)
    planned, noise = plan(model, request), Noise.of(request.seed, STRIP_ROWS)
    process = model.denoiser.process
    x = process.prior((STRIP_ROWS, *model.codec.spec), noise.at(PRIOR))
    seen = [(float(planned.grid[0]), x)]
    solver = pick_solver(request.solver)
    for step in walk(bind(model.denoiser, planned.cond), solver, planned.grid, x, noise):
        seen.append((step.s, step.x))
    chosen = [seen[round(k * (len(seen) - 1) / (STRIP_COLUMNS - 1))] for k in range(STRIP_COLUMNS)]
    columns = [_shown(model, x, t) for t, x in chosen]
    return Strip([t for t, _ in chosen], list(zip(*columns, strict=True)))


def _neighbours(
    source: Source, x0: Tensor, images: list[Image.Image], features: Features | None
) -> tuple[list[Neighbours], float | None]:
    """Nearest training pictures of the first samples, and what is usual for held-out pictures."""
    rows = source.train_index[:: max(1, -(-len(source.train_index) // MOST_TRAINING))]
    if len(rows) < 3:
        return [], None
    look = (lambda x: x.flatten(1)) if features is None else features
    train = torch.cat([look(source.batch(part).x0) for part in rows.split(2000)])
    index, distance = nearest(look(x0), train, 3)
    held = source.validation_index[:500]
    usual = nearest(look(source.batch(held).x0), train, 1)[1].median().item()
    found = [
        Neighbours(image, source.codec.decode(source.batch(rows[i]).x0), d.tolist())
        for image, i, d in zip(images, index, distance, strict=False)
    ]
    return found, usual
