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
from sfumato.data import Source, open_as
from sfumato.data.ragged import square_x0
from sfumato.forward import GaussianProcess
from sfumato.guide import bind
from sfumato.measure import Neighbours, Report, Strip, write_report
from sfumato.measure.memory import FEWEST_TRAINING, Gallery
from sfumato.reverse import PRIOR, pick_grid, pick_solver, walk
from sfumato.settings import to_dict
from sfumato.tasks import Model, Request, Result, by_shape, load
from sfumato.tasks.generate import plan
from sfumato.tasks.sampling import settled
from sfumato.tasks.widen import NAMED, aligned
from sfumato.train import Run

SAMPLES = 48
STRIP_ROWS, STRIP_COLUMNS = 4, 9
NEIGHBOURS, SHOWN = 12, 3  # samples, and training pictures beside each
FEW, THIN = 200, 20  # pictures of a set and of a class that are warned of
SAID = 5  # names in a row


def training_source(run: Run) -> Source | None:
    """The data a run was trained on, its names numbered as the model does, if it can still be opened."""
    try:
        told = json.loads((run.path / "source.json").read_text())
        described = run.describe()
        slots = {spec.name for spec in run.recipe().net.slots}
        names = {slot: described[field] for slot, (field, _) in NAMED.items() if slot in slots}
        return aligned(open_as(told["source"], described["codec"]), names)
    except (OSError, ValueError, KeyError, SfumatoError):
        return None


def build_report(run: Run, source: Source) -> Path:
    """Draw what the report shows from the newest checkpoint, and write it."""
    model, described = load(run.path), run.describe()
    drawn = by_shape(model, Request(n=SAMPLES))
    images = [image for result in drawn for image in result.images]
    metrics = _read(run.path / "measure.json")
    neighbours, held_out = _neighbours(source, drawn)
    report = Report(
        title=f"{run.path.name}: {described['data']['name']}",
        source=described["data"],
        history=_history(run, metrics),
        samples=images,
        captions=[caption for result in drawn for caption in result.captions],
        metrics=metrics,
        forward=_forward(model, source),
        reverse=_reverse(model),
        previews=previews(run),
        neighbours=neighbours,
        held_out=held_out,
        recipe=to_dict(run.recipe()),
        machine={"cpu": platform.machine(), "threads": torch.get_num_threads(), **described["versions"]},
        parameters=sum(p.numel() for p in model.denoiser.parameters()),
        warnings=_warnings(run, described["data"]),
    )
    return write_report(run.path, report)


def _warnings(run: Run, data: dict[str, Any]) -> list[str]:
    """What is wrong with the data or the run as far as it is known, worst first."""
    chosen, skipped, ai_made = run.chosen(), data.get("skipped", []), data.get("ai_made", {})
    thin = [name for name, count in data.get("class_counts", {}).items() if count < THIN]
    found = [chosen["why"]] if chosen else []
    if ai_made.get("share", 0) > 0:
        found.append(
            f"{100 * ai_made['share']:.0f} % of the pictures declare that AI made them (rule: {ai_made['rule']})"
        )
    if skipped:
        first = f"{skipped[0]['file']}: {skipped[0]['reason']}"
        found.append(f"{len(skipped):,} files were left out; the first is {first}. See 'sfumato audit'")
    if data["train"] < FEW:
        found.append(f"only {data['train']:,} pictures to learn from: a long training copies them")
    if thin:
        found.append(
            f"classes of fewer than {THIN} pictures: {', '.join(thin[:SAID])}{' ...' if len(thin) > SAID else ''}"
        )
    return found


def previews(run: Run) -> list[tuple[int, Image.Image]]:
    """The preview sheets of a run with their steps; whatever else lies there is the user's."""
    found = sorted(p for p in (run.path / "previews").glob("*.png") if p.stem.isdecimal())
    return [(int(p.stem), Image.open(p)) for p in found]


def _read(path: Path) -> dict[str, Any] | None:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return None


def _history(run: Run, metrics: dict[str, Any] | None) -> list[dict[str, Any]]:
    """The log and the readings of the meter, with the scores of each stored average on the row nearest to its step."""
    rows = sorted((dict(row) for row in [*run.rows(), *run.rows("meter")]), key=lambda row: row["step"])
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


def _forward(model: Model, source: Source) -> Strip | None:
    """Training pictures on the way to noise, one eps per row, at times equally far apart in log-SNR."""
    process = model.denoiser.process
    rows = source.train_index
    rows = rows[source.bucket[rows] == 0][:STRIP_ROWS]
    if not len(rows):
        return None
    x0 = model.codec.encode(source.images(rows))
    times = [0.0] + pick_grid("log-snr")(14, process).flip(0)[3:11].tolist()
    noise = Noise.of(0, len(x0))
    columns = [_shown(model, process.corrupt(x0, t, noise.at(0)) if t > 0 else x0, t) for t in times]
    return Strip(times, list(zip(*columns, strict=True)))


def _reverse(model: Model) -> Strip:
    """The first samples on their way from noise to picture."""
    request = settled(model, Request(n=STRIP_ROWS))
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


def _neighbours(source: Source, drawn: list[Result]) -> tuple[list[Neighbours], float]:
    """Nearest training pictures of the first samples, as squares of one size, and what is usual for held-out pictures."""
    if len(source.train_index) < FEWEST_TRAINING:
        return [], 0.0
    gallery, few = Gallery(source), max(1, NEIGHBOURS // len(drawn))
    made = torch.cat([square_x0(r.x0[:few], gallery.source.codec.height) for r in drawn])
    rows, distances = gallery.nearest(made, SHOWN)
    held = gallery.source.batch(source.validation_index[:500]).x0
    found = [
        Neighbours(image, [_picture(source, row) for row in near], d.tolist())
        for image, near, d in zip((im for r in drawn for im in r.images[:few]), rows, distances, strict=True)
    ]
    return found, gallery.nearest(held).distances[:, 0].median().item()


def _picture(source: Source, row: Tensor) -> Image.Image:
    """One picture in its own shape."""
    pixels = source.images(row[None])[0]
    return Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
