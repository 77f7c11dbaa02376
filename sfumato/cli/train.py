"""sfumato train: open, plan, train with previews, report."""

from __future__ import annotations

import argparse
import dataclasses
import json
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from sfumato.cli.console import Line, say
from sfumato.cli.metering import metering
from sfumato.cli.report import build_report
from sfumato.core import SfumatoError
from sfumato.data import Buckets, Source, encoders, located, open_as
from sfumato.data import balance as balances
from sfumato.data import captions as caption_rules
from sfumato.data import open as open_source
from sfumato.data.canvas import NAMES as CONTROLS
from sfumato.data.hygiene import Policy, parse_policy, with_declared
from sfumato.data.micro import NAMES as MICRO
from sfumato.measure import grid_image
from sfumato.settings import from_dict, override
from sfumato.tasks import Model, Request, by_shape, load
from sfumato.tasks.widen import NAMED, aligned, names_of
from sfumato.train import (
    CONDITIONS,
    Budget,
    Objective,
    Recipe,
    Run,
    Trainer,
    averaged_weights,
    continued,
    fit,
    keep_large_blocks,
    load_weights,
    make_plan,
    pick_recipe,
    preparation,
    resume,
    take_over,
    write_card,
)

BASE = "base.safetensors"  # in a run folder: the model that it began with
KNOWN = (*CONDITIONS, *MICRO, *CONTROLS)  # slots
LACKED = {
    "class": "classes: put its pictures into subfolders, or name them in a column class",
    "style": "styles: name them in a column style",
    "text": "captions: add a metadata.csv with the columns file_name and text",
}
PREVIEWS = 8
PREVIEW = Request(n=16, steps=12)


def train(options: argparse.Namespace) -> dict[str, Any]:
    """The command; returns what --json prints."""
    keep_large_blocks()
    run = Run(Path(options.run))
    return carry_out(options, run, Work(*resumed(options, run)) if options.resume else _fresh(options, run))


@dataclasses.dataclass(frozen=True)
class Work:
    """What a run is made of: `base` is the model it begins with (None: nothing learned), kept in its folder; `objective`
    what is minimised, where the recipe cannot tell it whole; `told` is added to run.json; `start` a model whose weights the
    network begins with as far as it has them."""

    source: Source
    recipe: Recipe
    budget: Budget
    base: Model | None = None
    objective: Objective | None = None
    told: dict[str, Any] = dataclasses.field(default_factory=dict)
    start: Model | None = None


def carry_out(options: argparse.Namespace, run: Run, work: Work) -> dict[str, Any]:
    """Begin a run, or go on with it (`options.resume`), to its end and report; returns what --json prints."""
    source, recipe, budget = work.source, work.recipe, work.budget
    say(f"data: {len(source):,} pictures of {source.name}, {_shape(source)}")
    for line in preparation.lines(source.notes):
        say(line)
    denoiser = recipe.build()
    if work.base is not None:
        load_weights(denoiser, dict(work.base.denoiser.named_parameters()))
    if work.start is not None:
        before = work.start.denoiser.net.config
        take_over(denoiser, dict(work.start.denoiser.named_parameters()), before, recipe.net)
    preparation.read_ahead(source, recipe)
    plan, planned = make_plan(denoiser, recipe, source, budget)
    for line in plan.lines():
        say(line)
    if options.resume:
        trainer = Trainer(denoiser, recipe, source, budget, run.setting(), work.objective)
        resume(run, trainer)
        say(f"going on from step {trainer.step:,}, in {trainer.setting}")
    else:
        run.begin(planned, source, budget, plan.setting, work.told)
        if work.base is not None:
            work.base.export(run.path / BASE)
        (run.path / "source.json").write_text(json.dumps({"source": located(options.source)}))
        trainer = Trainer(denoiser, planned, source, budget, plan.setting, work.objective)
    write_card(run)
    done = _train(run, trainer, plan.seconds, getattr(options, "copies", "allow") != "allow")
    if not done:
        say(f"stopped at step {trainer.step:,} and saved: go on with --resume")
    report, card = build_report(run, source), write_card(run)
    say(f"report: {report}, model card: {card}")
    rows = run.rows()
    last = rows[-1] if rows else {"loss": None, "validation_loss": None}
    return {
        "run": str(run.path),
        "steps": trainer.step,
        "images_seen": trainer.step * recipe.batch,
        "images_per_second": round(trainer.step * recipe.batch / max(trainer.seconds, 1e-9), 2),
        "seconds": round(trainer.seconds, 2),
        "loss": last["loss"],
        "validation_loss": last["validation_loss"],
        "parameters": plan.parameters,
        "finished": done,
        "report": str(report),
        "card": str(card),
        "ai_made_share": source.notes["ai_made"]["share"],
    }


def _shape(source: Source) -> str:
    """Width x height of each shape, with the number of its pictures where there are several."""
    shapes = source.summary()["shapes"]
    told = [f"{width}x{height}" + (f" ({n:,})" if len(shapes) > 1 else "") for height, width, n in shapes]
    return f"{', '.join(told)}, {'colour' if source.codec.channels == 3 else 'grey'}"


def _fresh(options: argparse.Namespace, run: Run) -> Work:
    if (run.path / "run.json").exists():
        raise SfumatoError(f"{run.path} already holds a run: go on with --resume, or choose another --run folder")
    budget = (
        Budget(steps=options.steps)
        if options.steps is not None
        else Budget(seconds=60 * (5.0 if options.minutes is None else options.minutes))
    )
    policy = Policy() if options.ai_made is None else parse_policy(options.ai_made)
    start = None if options.start is None else load(options.start)
    encoder = None if options.encoder is None else encoders.find(options.encoder)

    def chosen(size: int) -> Recipe:
        if start is None:
            recipe = pick_recipe(options.recipe or "default", size)
        else:
            recipe = continued(
                from_dict(Recipe, start.facts["recipe"]), options.recipe and pick_recipe(options.recipe, size)
            )
        recipe = recipe if encoder is None else dataclasses.replace(recipe, encoder=encoder)
        return override(_told(recipe, options.slots), options.set)

    buckets = None if options.buckets is None else Buckets(options.buckets, lambda size: chosen(size).net.multiple)
    source = with_declared(open_source(options.source, options.size, buckets=buckets), options.source)
    policy.check(source)
    recipe = chosen(source.size)
    if options.slots is not None and "boxes" in recipe.controls.names and "boxes" not in source.columns:
        raise SfumatoError(
            "--slots boxes needs a column boxes: a list of [x0, y0, x1, y1, text] for each picture, in its metadata"
        )
    if start is not None:
        source = aligned(source, {slot: names_of(start, slot) for slot in NAMED if start.conditioned_on(slot)})
    if options.seed is not None:
        recipe = dataclasses.replace(recipe, seed=options.seed)
    if options.balance is not None:
        recipe = dataclasses.replace(recipe, balance=balances.parse(options.balance))
    if policy.cap < 1:
        balance = recipe.balance or balances.Balance()
        recipe = dataclasses.replace(recipe, balance=dataclasses.replace(balance, ai_made=policy.cap))
    if options.captions is not None:
        recipe = dataclasses.replace(recipe, captions=caption_rules.read(options.captions))
    recipe = recipe.fit_to(source)
    _all_there(options.slots, recipe)
    began = {} if start is None else {"began": {"how": "train", "from": Path(options.start).resolve().name}}
    return Work(preparation.noted(source, recipe, policy), recipe, budget, told=began, start=start)


def _told(recipe: Recipe, slots: str | None) -> Recipe:
    """The recipe of a network that is told these things, by commas (None: as it is); SfumatoError for an unknown name."""
    if slots is None:
        return recipe
    names = _names(slots)
    for name in names:
        if name not in KNOWN:
            raise SfumatoError(f"--slots: no slot is named {name!r}; known: {', '.join(KNOWN)}")
    controls = dataclasses.replace(recipe.controls, names=tuple(name for name in names if name in CONTROLS))
    return dataclasses.replace(recipe, conditions=tuple(n for n in names if n not in CONTROLS), controls=controls)


def _all_there(slots: str | None, recipe: Recipe) -> None:
    """SfumatoError for a slot that was asked for and that this data has nothing to say of."""
    have = {spec.name for spec in recipe.net.slots}
    for name in _names(slots):
        if name in LACKED and name not in have:
            raise SfumatoError(f"--slots {name}: this data has no {LACKED[name]}")


def _names(slots: str | None) -> tuple[str, ...]:
    return tuple(filter(None, (name.strip() for name in (slots or "").split(","))))


def resumed(
    options: argparse.Namespace, run: Run, align: Callable[[Source], Source] | None = None
) -> tuple[Source, Recipe, Budget]:
    """What a run was begun with, the data opened anew (and named as its model names them, by `align`) and held against it.

    Raises SfumatoError for other data, and for flags that a run keeps.
    """
    for name in ("recipe", "seed", "size", "buckets", "balance", "ai_made", "captions", "encoder", "slots", "start"):
        if getattr(options, name, None) is not None:
            flag = name.replace("_", "-")
            raise SfumatoError(f"a resumed run keeps its {flag}: leave --{flag} away, or start a new run folder")
    if options.set:
        raise SfumatoError("a resumed run keeps its recipe: leave --set away, or start a new run folder")
    described = run.describe()
    run.newest()
    budget = run.budget()
    if options.steps is not None:
        budget = Budget(steps=options.steps)
    elif options.minutes is not None:
        budget = Budget(seconds=60 * options.minutes)
    source = with_declared(open_as(options.source, described["codec"]), options.source)
    recipe = run.recipe()
    if align is not None:
        source = align(source)
    elif described.get("began", {}).get("how") == "train":
        slots = [spec.name for spec in recipe.net.slots]
        source = aligned(source, {slot: described[field] for slot, (field, _) in NAMED.items() if slot in slots})
    elif (run.path / BASE).exists():
        command = described.get("began", {}).get("how", "adapt")
        raise SfumatoError(f"{run.path} began with a trained model: go on with 'sfumato {command} ... --resume'")
    elif dataclasses.replace(recipe, sigma_data=None).fit_to(source).net != recipe.net:
        raise SfumatoError(f"{options.source} is not the data this run was trained on: its channels or classes differ")
    if source.fingerprint != described["data"]["fingerprint"]:
        raise SfumatoError(
            f"{options.source} holds {len(source)} pictures, and not the {described['data']['pictures']} that the run "
            "began with: restore them, or start a new run folder"
        )
    facts = source.summary()
    if any(described["data"].get(k, facts[k]) != facts[k] for k in ("window", "shapes")):
        raise SfumatoError(
            f"{options.source} is read in another order than the data that the run began with (another format, or other "
            "proportions): give it in the format it had, or start a new run folder"
        )
    told = described["data"].get("ai_made")
    source = preparation.noted(source, recipe, Policy() if told is None else parse_policy(told["rule"]))
    if any(described["data"].get(k, source.notes.get(k)) != source.notes.get(k) for k in ("ai_made", "balance")):
        raise SfumatoError(
            f"{options.source}: the AI-made marks, classes or weights that pictures are drawn by are not those that the "
            "run began with: restore them, or start a new run folder"
        )
    if described["data"].get("own") != source.notes.get("own"):
        raise SfumatoError(
            f"{options.source}: the masks, maps or sketches of the pictures are not those that the run began with: restore "
            "them, or start a new run folder"
        )
    return source, recipe, budget


@contextmanager
def _stop_asked() -> Iterator[list[int]]:
    """Collects SIGINT and SIGTERM instead of raising, so that a step is never torn; a second one raises."""
    asked: list[int] = []

    def note(number: int, frame: object) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(number)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _train(run: Run, trainer: Trainer, seconds: float, stop_copies: bool) -> bool:
    """Train with a progress line, previews and the meter; False when stopped early by the user."""
    model = Model(trainer.denoiser, trainer.recipe.codec(trainer.source.codec), {**run.describe()})
    meter, copying = metering(run, trainer, model, seconds, stop_copies), False
    line, shown, validation = Line("training"), trainer.share, None
    with _stop_asked() as asked:
        steps = fit(run, trainer)
        for report in steps:
            progress = report.progress
            if report.row is not None:
                validation = report.row["validation_loss"]
            rate = progress.images / max(progress.seconds, 1e-9)
            told = f"loss {progress.loss:.3f}" + (f", validation {validation:.3f}" if validation is not None else "")
            told += f", {meter.told}" if meter is not None and meter.told else ""
            line.show(progress.share, f"step {progress.step:,}, {rate:,.0f} images/s, {told}")
            copying = meter is not None and meter.look(progress)
            if int(progress.share * PREVIEWS) > int(shown * PREVIEWS) or progress.share >= 1:
                _preview(run, trainer, model, progress.step)
            shown = progress.share
            if asked or copying:
                steps.close()
                break
    line.end()
    if copying:
        say(meter.choose())
    return copying or not asked or trainer.share >= 1


def _preview(run: Run, trainer: Trainer, model: Model, step: int) -> None:
    with averaged_weights(trainer), torch.no_grad():
        request = Request(n=PREVIEW.n) if "sampling" in model.facts else PREVIEW
        images = [image for result in by_shape(model, request) for image in result.images]
    run.previews.mkdir(exist_ok=True)
    grid_image(images, columns=8).save(run.previews / f"{step:08d}.png")
