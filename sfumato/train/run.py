"""A run folder that describes itself: recipe, data, log, checkpoints, stored averages; and the training of it.

run.json      recipe, data summary, codec, classes, budget, versions: all that is needed to build the model again
log.jsonl     one row per report: step, seconds, images, loss, validation loss; meter.jsonl quality and copies, more rarely
checkpoints/  the newest two whole states; snapshots/ averages for choosing their width afterwards
best/         the average of the best reading before copies begin; chosen.json says that the run's model is that one
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import sfumato
from sfumato.core import Noise, SfumatoError
from sfumato.data import Source
from sfumato.data.files import write_text
from sfumato.denoiser import Denoiser
from sfumato.settings import from_dict, to_dict
from sfumato.train import checkpoint
from sfumato.train.ema import Snapshot, combine
from sfumato.train.loop import Budget, Progress, Trainer, load_weights
from sfumato.train.machine import Setting
from sfumato.train.recipe import Recipe

CHECKPOINT_SECONDS = 60.0
VALIDATION_PAIRS, LEAST_PAIRS = 256, 64
LEVELS = 4  # of noise, in the log
DESCRIBED = ("recipe", "data", "codec", "classes", "captions", "budget", "setting", "versions")


@dataclass(frozen=True)
class Run:
    """A run folder."""

    path: Path

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def snapshots(self) -> Path:
        return self.path / "snapshots"

    @property
    def previews(self) -> Path:
        return self.path / "previews"

    def begin(
        self, recipe: Recipe, source: Source, budget: Budget, setting: Setting, more: dict[str, Any] | None = None
    ) -> None:
        """Create the folder, `more` added to run.json; SfumatoError when it already holds a run."""
        if (self.path / "run.json").exists():
            raise SfumatoError(f"{self.path} already holds a run: go on with --resume, or choose another --run folder")
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            described = {
                "recipe": to_dict(recipe),
                "data": source.summary(),
                "codec": dict(zip(("channels", "height", "width"), source.codec.spec, strict=True))
                | {"shapes": [list(shape) for shape in source.shapes]},
                "classes": list(source.classes),
                "styles": list(source.styles),
                "captions": [source.captions[k] for k in _some_captioned(source)],
                "caption_styles": []
                if source.style_labels is None
                else source.style_labels[_some_captioned(source)].tolist(),
                "budget": {"steps": budget.steps, "seconds": budget.seconds},
                "setting": {"half": setting.precision is not None, "channels_last": setting.channels_last},
                "versions": {"sfumato": sfumato.__version__, "torch": torch.__version__},
            }
            write_text(self.path / "run.json", json.dumps(described | (more or {}), indent=1))
        except OSError as error:
            raise SfumatoError(f"cannot write the run folder {self.path}: {error}") from error

    @property
    def best(self) -> Path:
        return self.path / "best"

    def chosen(self) -> dict[str, Any] | None:
        """The step whose average is this run's model, and why; None: the last one's."""
        path = self.path / "chosen.json"
        try:
            return json.loads(path.read_text()) if path.exists() else None
        except (OSError, ValueError) as error:
            raise SfumatoError(f"{path} cannot be read ({error}): delete it to use the last step") from error

    def choose(self, step: int | None, why: str = "") -> None:
        """Say in chosen.json, the one place, that the model is the average kept at `step` (None: the last one's)."""
        if step is None:
            (self.path / "chosen.json").unlink(missing_ok=True)
        else:
            write_text(self.path / "chosen.json", json.dumps({"step": step, "why": why}))

    def describe(self) -> dict[str, Any]:
        """run.json; SfumatoError when this is no run folder."""
        path = self.path / "run.json"
        try:
            described = json.loads(path.read_text())
            missing = [key for key in DESCRIBED if key not in described]
        except FileNotFoundError as error:
            raise SfumatoError(
                f"{self.path} is no run folder (no run.json in it): train one with 'sfumato train SOURCE --run {self.path}'"
            ) from error
        except (OSError, ValueError, TypeError) as error:
            raise SfumatoError(f"{path} cannot be read ({error}): the run folder is damaged, train again") from error
        if missing:
            raise SfumatoError(f"{path} lacks {missing[0]!r}: the run folder is damaged, train again")
        return described

    def recipe(self) -> Recipe:
        return from_dict(Recipe, self.describe()["recipe"])

    def budget(self) -> Budget:
        told = self.describe()["budget"]
        try:
            return Budget(steps=told["steps"], seconds=told["seconds"])
        except (TypeError, KeyError) as error:
            raise SfumatoError(
                f"{self.path / 'run.json'} holds no budget but {told!r}: the run folder is damaged"
            ) from error

    def setting(self) -> Setting:
        """How the run began to be computed: going on in another way would make it another run."""
        told = self.describe()["setting"]
        return Setting(torch.bfloat16 if told["half"] else None, told["channels_last"])

    def rows(self, name: str = "log") -> list[dict[str, Any]]:
        """The log, or the readings of the meter ("meter"), without a last line that a crash cut short."""
        path = self.path / f"{name}.jsonl"
        found = []
        for line in path.read_text().splitlines() if path.exists() else []:
            try:
                found.append(json.loads(line))
            except ValueError:
                continue
        return found

    def newest(self) -> Path:
        """The newest whole checkpoint; SfumatoError when there is none."""
        found = checkpoint.newest(self.checkpoints)
        if found is None:
            raise SfumatoError(f"{self.path} holds no whole checkpoint: train again, or restore {self.checkpoints}")
        return found

    def stored(self) -> list[Snapshot]:
        """The averages stored along the run, the newest checkpoint's last."""
        widths, newest = self.recipe().ema.widths, self.newest()
        step = int(checkpoint.load_state(newest)["step"])
        kept = [f for f in checkpoint.whole(self.snapshots) if int(f.name) < step]
        found = [split_widths(checkpoint.load(f, "ema"), widths, int(f.name)) for f in kept]
        return [*found, split_widths(checkpoint.load(newest, "ema"), widths, step)]

    def early(self) -> dict[str, Tensor]:
        """The first stored average (after 1/8 of the training, with 8 of them): a weak model of the same data.

        SfumatoError when none was stored in the first half of what is trained."""
        kept = checkpoint.whole(self.snapshots)
        step, ema = int(checkpoint.load_state(self.newest())["step"]), self.recipe().ema
        if not kept or int(kept[0].name) > step / 2:
            raise SfumatoError(f"{self.path} stores no early average: train on, or with --set ema.snapshots=8")
        states = split_widths(checkpoint.load(kept[0], "ema"), ema.widths, int(kept[0].name)).states
        return states[min(states, key=lambda width: abs(width - ema.width))]

    def averaged(self, width: float | None = None) -> dict[str, Tensor]:
        """The averaged weights of any relative `width` at the newest checkpoint; without one the model of this run: the
        recipe's width there, or the average that was chosen."""
        chosen = self.chosen()
        if width is None and chosen is not None:
            kept = checkpoint.load(self.best / f"{chosen['step']:08d}", "ema")
            return {k: v.float() for k, v in kept.items()}
        width = self.recipe().ema.width if width is None else width
        stored = self.stored()
        latest = stored[-1]
        return latest.states[width] if width in latest.states else combine(stored, width, latest.step)


def _some_captioned(source: Source) -> list[int]:
    """Up to 1,000 captioned training rows, evenly spaced: what a model that is asked for nothing draws from."""
    rows = source.train_index.tolist() if source.captions else []
    return [k for k in rows[:: max(1, -(-len(rows) // 1000))] if source.captions[k]]


def split_widths(tensors: dict[str, Tensor], widths: tuple[float, ...], step: int) -> Snapshot:
    """Stored averages, by width."""
    states: dict[float, dict[str, Tensor]] = {w: {} for w in widths}
    names = {f"{w:g}": w for w in widths}
    for key, value in tensors.items():
        name, _, weight = key.partition("/")
        states[names[name]][weight] = value.float()
    return Snapshot(step, states)


@contextmanager
def averaged_weights(trainer: Trainer, width: float | None = None) -> Iterator[Denoiser]:
    """The trainer's denoiser with its weights replaced by their tracked average for a while.

    `width`: one that is tracked; None: the tracked one nearest to that which samples are drawn with in the end.
    """
    wanted = trainer.recipe.ema.width if width is None else width
    index = min(range(len(trainer.ema.widths)), key=lambda k: abs(trainer.ema.widths[k] - wanted))
    kept = {k: p.data.clone() for k, p in trainer.weights.items()}
    load_weights(trainer.denoiser, trainer.ema.averages[index])
    trainer.denoiser.eval()
    try:
        yield trainer.denoiser
    finally:
        load_weights(trainer.denoiser, kept)
        trainer.denoiser.train()


@torch.no_grad()
def pair_losses(trainer: Trainer, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Losses [n] on fixed (x0, eps, t) pairs of these pictures with the averaged weights, and their quantiles [n].

    The pairs never change within or between runs on the same data, so differences are the model's.
    """
    rows = rows.repeat(-(-LEAST_PAIRS // len(rows)))[: max(len(rows), LEAST_PAIRS)]
    n = len(rows)
    u = ((torch.arange(n) * 0.6180339887498949) % 1.0 * n).floor().add(0.5) / n
    noise = Noise.of(20260101, n)
    losses = torch.empty(n)
    with averaged_weights(trainer):
        for part in trainer.source.alike(rows, 64):
            own = Noise([noise.seeds[k] for k in part.tolist()])
            losses[part] = trainer.losses(trainer.look(rows[part]), u[part], own)
    return losses, u


def validation_losses(trainer: Trainer) -> tuple[Tensor, Tensor]:
    """`pair_losses` of the first held-out pictures."""
    return pair_losses(trainer, trainer.source.validation_index[:VALIDATION_PAIRS])


def _row(trainer: Trainer, progress: Progress) -> dict[str, Any]:
    """A row of the log; `validation_levels` are means over a quarter of the noise levels each, the least noise first.

    The loss on the same pairs of pictures that were trained on falls below that of held-out ones where pictures are
    learned by heart (cf. Bonnaire et al. 2025, arXiv 2505.17638).
    """
    index = trainer.source.train_index
    validation, u = validation_losses(trainer)
    trained, _ = pair_losses(
        trainer, index[torch.linspace(0, len(index) - 1, min(VALIDATION_PAIRS, len(index))).long()]
    )
    level = (u * LEVELS).long()
    return {
        "step": progress.step,
        "seconds": round(progress.seconds, 3),
        "images": progress.images,
        "loss": trainer.mean_loss(),
        "validation_loss": validation.mean().item(),
        "validation_levels": [validation[level == k].mean().item() for k in range(LEVELS)],
        "trained_loss": trained.mean().item(),
    }


@dataclass(frozen=True)
class Report:
    """What `fit` yields: the progress of a step, and, where due, a row of the log."""

    progress: Progress
    row: dict[str, Any] | None = None


def restore(run: Run, trainer: Trainer) -> None:
    """Load the newest whole checkpoint into the trainer; the run itself is only read, another process may be training it."""
    folder = run.newest()
    files = {name: checkpoint.load(folder, name) for name in ("weights", "ema", "optimiser")}
    trainer.load(files, checkpoint.load_state(folder))


def resume(run: Run, trainer: Trainer) -> None:
    """`restore`, and forget log rows, stored averages and previews beyond that checkpoint: training goes on from there."""
    restore(run, trainer)
    run.choose(None)
    for kind in (run.checkpoints, run.snapshots, run.best):
        checkpoint.forget_after(kind, trainer.step)
    for picture in run.previews.glob("*.png"):
        if picture.stem.isdigit() and int(picture.stem) > trainer.step:
            picture.unlink(missing_ok=True)
    for name in ("log", "meter"):
        rows = [row for row in run.rows(name) if row["step"] <= trainer.step]
        write_text(run.path / f"{name}.jsonl", "".join(json.dumps(row) + "\n" for row in rows))


def keep_average(run: Run, trainer: Trainer) -> None:
    """Keep the average that samples are drawn with, in half precision, as the best so far."""
    widths, wanted = trainer.ema.widths, trainer.recipe.ema.width
    index = min(range(len(widths)), key=lambda k: abs(widths[k] - wanted))
    kept = {k: v.half() for k, v in trainer.ema.averages[index].items()}
    checkpoint.save(run.best / f"{trainer.step:08d}", {"ema": kept}, {"step": trainer.step})
    checkpoint.prune(run.best, keep=1)


def fit(
    run: Run, trainer: Trainer, reports: int = 20, checkpoint_seconds: float = CHECKPOINT_SECONDS
) -> Iterator[Report]:
    """Train to the end of the budget, with checkpoints, stored averages and about `reports` rows of the log.

    Close the generator to stop early: the run is saved and can be resumed.
    """
    saved_at, saved_step = trainer.seconds, trainer.step
    stored = trainer.recipe.ema.snapshots
    try:
        before = trainer.share
        for progress in trainer.steps():
            row = None
            if int(progress.share * reports) > int(before * reports) or progress.share >= 1:
                row = _row(trainer, progress)
                with (run.path / "log.jsonl").open("a") as file:
                    file.write(json.dumps(row) + "\n")
            if int(progress.share * stored) > int(before * stored):
                half = {k: v.half() for k, v in trainer.ema.state().items()}
                checkpoint.save(run.snapshots / f"{progress.step:08d}", {"ema": half}, {"step": progress.step})
            if progress.seconds - saved_at > checkpoint_seconds:
                _save(run, trainer)
                saved_at, saved_step = progress.seconds, progress.step
            before = progress.share
            yield Report(progress, row)
    except GeneratorExit:  # closed between two steps
        raise
    except BaseException:
        # not finite, the disk is full, or interrupted within a step: the last good checkpoint stays the newest
        saved_step = trainer.step
        raise
    finally:
        if trainer.step > saved_step:
            _save(run, trainer)


def _save(run: Run, trainer: Trainer) -> None:
    files, state = trainer.state()
    checkpoint.save(run.checkpoints / f"{trainer.step:08d}", files, state)
    checkpoint.prune(run.checkpoints, keep=2)
