"""Models trained against each other for the same time on the same machine, in turns, and measured by the same judge.

Whatever drifts (heat, neighbours on the machine) hits all alike: whoever has spent the smallest share of its budget goes
next, for one slice. A folder holds the state of every one after each slice, so a killed comparison goes on.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from sfumato.core import SfumatoError
from sfumato.data import Source
from sfumato.data.files import write_text
from sfumato.measure.features import Features
from sfumato.measure.grids import grid_image
from sfumato.measure.metrics import kid, manifold
from sfumato.measure.rival import GanRecipe, GanTrainer, RivalTrainer, VaeRecipe, VaeTrainer, fastest
from sfumato.measure.score import measure
from sfumato.tasks import Model
from sfumato.train import (
    Budget,
    Diverged,
    Recipe,
    Setting,
    Trainer,
    averaged_weights,
    checkpoint,
    pick_recipe,
    probe,
    validation_losses,
)

CURVE_SEED, FINAL_SEED = 10_001, 20_001
SHOWN = 64  # pictures on the sheet of each run


class Contender(Protocol):
    """A trainer (`steps`, `state`, `load`, `share`, `seconds`, `step`), what it draws, and its loss."""

    trainer: Trainer | RivalTrainer
    parameters: int  # of what is shipped
    trained: int  # of all that was trained

    def sample(self, n: int, seed: int) -> Tensor: ...
    def losses(self) -> dict[str, float]: ...


class Diffusion:
    """Our recipe, with the average that users sample with, and the sampler they get by default."""

    def __init__(self, recipe: Recipe, source: Source, budget: Budget, setting: Setting | None) -> None:
        denoiser = recipe.build()
        if setting is None:
            batch = recipe.look(source, source.train_index[: recipe.batch])
            setting, _ = probe(denoiser, batch.x0, batch.cond)
        self.trainer = Trainer(denoiser, recipe, source, budget, setting)
        self.model = Model(denoiser, recipe.codec(source.codec), {"classes": (), "captions": [], "codec": {}})
        self.parameters = self.trained = sum(p.numel() for p in denoiser.parameters())

    def sample(self, n: int, seed: int) -> Tensor:
        with averaged_weights(self.trainer, self.trainer.recipe.ema.width), torch.no_grad():
            try:
                return self.model.generate(n, seed).x0
            except SfumatoError as error:
                raise Diverged(str(error)) from error

    def losses(self) -> dict[str, float]:
        validation, _ = validation_losses(self.trainer)
        return {"validation_loss": validation.mean().item(), "training_loss": self.trainer.mean_loss()}


class Rival:
    """A GAN or a VAE with a generator of as many weights as the denoiser."""

    def __init__(self, make: Callable[[Setting], RivalTrainer], every: int, setting: Setting | None) -> None:
        self.trainer = make(setting or fastest(make, every))
        self.parameters = sum(p.numel() for p in self.trainer.generator.parameters())
        self.trained = sum(p.numel() for p in self.trainer.weights.values())

    def sample(self, n: int, seed: int) -> Tensor:
        drawn = self.trainer.sample(n, seed)
        if not bool(drawn.isfinite().all()):
            raise Diverged("the generator's pictures are not finite")
        return drawn

    def losses(self) -> dict[str, float]:
        return self.trainer.figures()


LOSSES = {"diffusion": ("validation_loss", "training_loss"), "gan": GanTrainer.losses, "vae": VaeTrainer.losses}
Make = Callable[[Setting | None], Contender]


@dataclass(frozen=True)
class Corner:
    """All that the contenders are made from; the source is without classes and captions, for all alike."""

    source: Source
    budget: Budget
    recipe: Recipe
    gan: GanRecipe = field(default_factory=GanRecipe)
    vae: VaeRecipe | None = None

    def makers(self, seed: int) -> dict[str, Make]:
        """How each contender of this seed is made."""
        source, budget = self.source, self.budget
        recipe = replace(self.recipe, seed=seed)
        patch = pick_recipe("default", source.size).net.patch
        with torch.device("meta"):
            weights = sum(p.numel() for p in recipe.build().parameters())

        def gan(setting: Setting) -> RivalTrainer:
            return GanTrainer(replace(self.gan, seed=seed), source, budget, setting, weights, patch)

        def vae(setting: Setting) -> RivalTrainer:
            return VaeTrainer(replace(self.vae, seed=seed), source, budget, setting, weights, patch)

        found: dict[str, Make] = {
            "diffusion": lambda setting: Diffusion(recipe, source, budget, setting),
            "gan": lambda setting: Rival(gan, self.gan.every, setting),
        }
        if self.vae is not None:
            found["vae"] = lambda setting: Rival(vae, 1, setting)
        return found


@dataclass(frozen=True)
class Judge:
    """Scores pictures against real ones that no contender was trained on: `n` at the end, `few` along training, at
    `reports` places of it."""

    features: Features
    reference: Tensor
    n: int = 1000
    few: int = 256
    reports: int = 12

    def curve(self, x: Tensor) -> dict[str, float]:
        """KID with its standard error, precision and recall."""
        seen, made = self.features(self.reference), self.features(x)
        distance, overlap = kid(made, seen), manifold(seen, made)
        return {"kid": distance.value, "kid_se": distance.se, "precision": overlap.precision, "recall": overlap.recall}

    def final(self, x: Tensor) -> dict[str, Any]:
        return measure(x, self.reference, self.features)


class ModeJudge:
    """Counts modes at the end; nothing along training."""

    reports = few = 0

    def __init__(self, count: Callable[[Tensor], dict[str, Any]], n: int) -> None:
        self.final, self.n = count, n


class Entry:
    """One contender of one seed: its folder, its position, and at last its result."""

    def __init__(self, name: str, seed: int, folder: Path, make: Make, judge: Judge | ModeJudge) -> None:
        self.name, self.seed, self.folder, self.judge = name, seed, folder, judge
        self.rows: list[dict[str, Any]] = []
        self.result: dict[str, Any] | None = None
        written = folder / "result.json"
        if written.exists():
            self.result = json.loads(written.read_text())
            return
        kept = checkpoint.newest(folder / "checkpoints")
        state = None if kept is None else checkpoint.load_state(kept)
        setting = None
        if state is not None:
            setting = Setting(torch.bfloat16 if state["half"] else None, state["channels_last"])
        self.contender = make(setting)
        if state is not None:
            files = {name: checkpoint.load(kept, name) for name in ("weights", "ema", "optimiser")}
            self.contender.trainer.load(files, state["trainer"])
            self.rows = state["rows"]
        self.steps = self.contender.trainer.steps()

    @property
    def share(self) -> float:
        return 1.0 if self.result is not None else self.contender.trainer.share

    def advance(self, until: float) -> Iterator[str]:
        """Train to this share of the budget, then save; a run that leaves the finite numbers is over and counted."""
        trainer, who = self.contender.trainer, f"{self.name}, seed {self.seed}"
        try:
            before = trainer.share
            for progress in self.steps:
                if int(progress.share * self.judge.reports) > int(before * self.judge.reports):
                    self.rows.append(self._row(progress.step, progress.images))
                before = progress.share
                yield f"{who}: step {progress.step:,}, loss {progress.loss:.3f}"
                if progress.share >= until:
                    break
            self._save()
            if trainer.share >= 1:
                yield f"{who}: drawing {self.judge.n:,} pictures"
                self._end(self._judged())
        except Diverged as error:
            self._end({"diverged": str(error), "final": None})

    def _row(self, step: int, images: int) -> dict[str, Any]:
        trainer = self.contender.trainer
        row = {"share": trainer.share, "step": step, "seconds": trainer.seconds, "images": images}
        row |= self.contender.losses()
        return row | self.judge.curve(self.contender.sample(self.judge.few, CURVE_SEED))

    def _save(self) -> None:
        trainer = self.contender.trainer
        files, state = trainer.state()
        setting = trainer.setting
        position = {"trainer": state, "rows": self.rows, "half": setting.precision is not None}
        position["channels_last"] = setting.channels_last
        checkpoint.save(self.folder / "checkpoints" / f"{trainer.step:08d}", files, position)
        checkpoint.prune(self.folder / "checkpoints", keep=1)

    def _judged(self) -> dict[str, Any]:
        began = time.perf_counter()
        drawn = self.contender.sample(self.judge.n, FINAL_SEED + self.seed)
        took = time.perf_counter() - began
        sheet = grid_image(self.contender.trainer.source.codec.decode(drawn[:SHOWN]), columns=8)
        sheet.save(self.folder / "sample.png")
        return {"diverged": None, "final": self.judge.final(drawn), "pictures_per_second": len(drawn) / took}

    def _end(self, verdict: dict[str, Any]) -> None:
        trainer = self.contender.trainer
        facts = {
            "contender": self.name,
            "seed": self.seed,
            "parameters": self.contender.parameters,
            "trained_parameters": self.contender.trained,
            "steps": trainer.step,
            "seconds": trainer.seconds,
            "images": trainer.step * trainer.recipe.batch,
            "setting": str(trainer.setting),
        }
        self.result = {**facts, **verdict, "rows": self.rows}
        self.folder.mkdir(parents=True, exist_ok=True)
        write_text(self.folder / "result.json", json.dumps(self.result))


def fight(
    folder: Path, corner: Corner, judge: Judge | ModeJudge, seeds: Sequence[int], slices: int = 16
) -> Iterator[tuple[float, str]]:
    """Train and judge every contender of every seed, in turns of 1 / `slices` of the budget; yields (share done, what).

    Results lie in `folder`/seed-K/NAME/result.json; `results` reads them. May be abandoned and begun again.
    """
    for k, seed in enumerate(seeds):
        makers = corner.makers(seed)
        names = list(makers) if seed % 2 == 0 else list(reversed(makers))
        entries = [Entry(name, seed, folder / f"seed-{seed}" / name, makers[name], judge) for name in names]
        while unfinished := [entry for entry in entries if entry.result is None]:
            entry = min(unfinished, key=lambda e: e.share)
            for told in entry.advance(entry.share + 1 / slices):
                yield (k + sum(e.share for e in entries) / len(entries)) / len(seeds), told


def results(folder: Path) -> list[dict[str, Any]]:
    """What has been finished in this folder, by seed and name."""
    return [json.loads(path.read_text()) for path in sorted(folder.glob("seed-*/*/result.json"))]
