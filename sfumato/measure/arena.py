"""A whole comparison in a folder: its terms, the contenders trained in turns, the report; begun, gone on with, read.

compare.json  the terms, the ends of the scale; seed-K/NAME/  result.json, sample.png, the newest checkpoint
modes/        the same on the stacked set; report.html
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from sfumato.core import SfumatoError
from sfumato.data import Source
from sfumato.data.files import write_text
from sfumato.measure import modes
from sfumato.measure.compare import differences, mode_facts, sentences, summary
from sfumato.measure.compare_page import write_page
from sfumato.measure.duel import Corner, Judge, ModeJudge, fight, results
from sfumato.measure.features import features_for
from sfumato.measure.rival import GanRecipe, VaeRecipe
from sfumato.measure.score import FEWEST, measure
from sfumato.measure.words import duration
from sfumato.settings import to_dict
from sfumato.train import Budget, Recipe

MOST_REAL = 10_000
FILE = "compare.json"


@dataclass(frozen=True)
class Terms:
    """What a comparison is held by: `minutes` (or `steps`) of training for each contender and seed, `n` pictures measured
    at the end and `few` at `reports` places along the way, turns of 1 / `slices` of the budget; `vae` adds a third
    column, `modes` a second round on the stacked set. Both contenders are trained without classes and captions."""

    recipe: Recipe
    minutes: float | None = None
    steps: int | None = None
    seeds: int = 3
    n: int = 1000
    few: int = 256
    reports: int = 12
    slices: int = 16
    modes: bool = False
    gan: GanRecipe = field(default_factory=GanRecipe)
    vae: VaeRecipe | None = None

    def __post_init__(self) -> None:
        if self.seeds < 1:
            raise SfumatoError(f"--seeds {self.seeds}: a comparison needs at least 1 seed, 3 or more show a spread")
        if self.minutes is not None and not 0 < self.minutes < math.inf:
            raise SfumatoError(
                f"--minutes {self.minutes:g}: each needs some time to train, above 0 and not without end"
            )
        if min(self.n, self.few) < FEWEST:
            raise SfumatoError(f"--n {min(self.n, self.few)} pictures say nothing: {FEWEST} are the least")
        self.budget()

    def budget(self) -> Budget:
        return Budget(steps=self.steps, seconds=None if self.minutes is None else 60 * self.minutes)

    def length(self) -> str:
        """The budget in words."""
        return f"{self.steps:,} steps" if self.minutes is None else duration(60 * self.minutes)


def _told(source: Source, terms: Terms) -> dict[str, Any]:
    """What must be the same when a comparison goes on; JSON-able."""
    return json.loads(json.dumps({"terms": to_dict(terms), "source": source.name, "data": source.fingerprint}))


def _begin(folder: Path, source: Source, terms: Terms, resume: bool) -> None:
    """Make the folder, or check that it holds this very comparison."""
    told, written = _told(source, terms), folder / FILE
    if written.exists():
        if not resume:
            raise SfumatoError(
                f"{folder} already holds a comparison: go on with --resume, or choose another --out folder"
            )
        kept = read(folder)
        for key, value in told["terms"].items():
            if kept["terms"].get(key) != value:
                raise SfumatoError(
                    f"{folder} was begun with {key} {kept['terms'].get(key)!r}, not {value!r}: give the same, or choose "
                    "another --out folder"
                )
        if (kept["source"], kept["data"]) != (told["source"], told["data"]):
            raise SfumatoError(
                f"{folder} was begun with other pictures ({kept['source']}): choose another --out folder"
            )
        return
    if resume:
        raise SfumatoError(f"{folder} holds no comparison to go on with: leave --resume away")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise SfumatoError(f"{folder} exists and holds something else: choose another --out folder")
    folder.mkdir(parents=True, exist_ok=True)
    write_text(written, json.dumps(told, indent=1))


def read(folder: Path) -> dict[str, Any]:
    """compare.json of a folder; SfumatoError when it is damaged."""
    try:
        return json.loads((folder / FILE).read_text())
    except (OSError, ValueError) as error:
        raise SfumatoError(f"{folder / FILE} cannot be read ({error}): choose another --out folder") from error


def _plain(source: Source) -> Source:
    """The same pictures, without what could be conditioned on."""
    return replace(source, classes=(), labels=None, captions=None)


def compare(folder: Path, source: Source, terms: Terms, resume: bool = False) -> Iterator[tuple[float, str]]:
    """Hold the comparison: yields (share done, what is being done); the report is written at the end.

    source: as opened, of one size; its own extractor and held-out pictures judge. Raises SfumatoError for too few
    pictures, a folder that holds something else, and terms other than it was begun with.
    """
    held = source.validation_index[:MOST_REAL]
    if len(held) < FEWEST:
        raise SfumatoError(
            f"{source.name} has {len(held)} held-out pictures, too few to judge by: {FEWEST} are the least, which takes "
            f"about {20 * FEWEST} pictures in all"
        )
    stacked = modes.grey(source) if terms.modes else None  # a source without classes is told before anything is made
    recipe = terms.recipe.fit_to(_plain(source))
    _begin(folder, source, terms, resume)
    yield 0.0, "training the extractor"
    features = features_for(source)
    reference = source.batch(held).x0
    told = read(folder)
    if "floor" not in told:
        spread = torch.linspace(0, len(source.train_index) - 1, min(terms.n, len(source.train_index))).long()
        real = source.batch(source.train_index[spread]).x0
        ends = measure(real, reference, features, real)
        told |= {
            "floor": ends["floor"],
            "noise": ends["noise"],
            "n_reference": len(reference),
            "features": features.name,
        }
        write_text(folder / FILE, json.dumps(told, indent=1))
    seeds, rounds = range(terms.seeds), 1 + terms.modes
    judge = Judge(features, reference, terms.n, min(terms.n, terms.few), terms.reports)
    corner = Corner(_plain(source), terms.budget(), recipe, terms.gan, terms.vae)
    for share, text in fight(folder, corner, judge, seeds, terms.slices):
        yield share / rounds, text
    if stacked is not None:
        for share, text in _fight_modes(folder, stacked, terms, seeds):
            yield (1 + share) / rounds, f"many modes: {text}"
    report(folder)


def _fight_modes(folder: Path, source: Source, terms: Terms, seeds: range) -> Iterator[tuple[float, str]]:
    """The second round, on the stacked set of this grey source."""
    kinds = modes.kinds_of(source)
    laid = modes.stack(source, kinds)
    classify = modes.classifier(features_for(source), len(source.classes))
    n = modes.PER_MODE * len(kinds) ** 3
    told = read(folder)
    if "modes_of_real" not in told:
        told["modes_of_real"] = modes.count_modes(laid.batch(torch.arange(min(n, len(laid)))).x0, classify, kinds)
        write_text(folder / FILE, json.dumps(told, indent=1))
    judge = ModeJudge(lambda x: modes.count_modes(x, classify, kinds), n)
    corner = Corner(laid, terms.budget(), terms.recipe.fit_to(laid), terms.gan, terms.vae)
    yield from fight(folder / "modes", corner, judge, seeds, terms.slices)


def report(folder: Path) -> Path:
    """Write `report.html` of what is finished; returns its path."""
    told = read(folder)
    terms = told["terms"]
    length = f"{terms['steps']:,} steps" if terms["minutes"] is None else duration(60 * terms["minutes"])
    shown = {**{k: v for k, v in terms.items() if k != "is"}, **told, "budget": length}
    shown.pop("terms")
    return write_page(folder, shown, results(folder), results(folder / "modes"))


def outcome(folder: Path) -> dict[str, Any]:
    """What was found, JSON-able: a summary per contender, differences, modes, and the sentences of the report."""
    runs, many = results(folder), results(folder / "modes")
    found = {key: {"mean": gap.mean, "half": gap.half} for key, gap in differences(runs).items()}
    told = read(folder)
    return {
        "contenders": summary(runs),
        "diffusion_minus_gan": found,
        "modes": mode_facts(many),
        "floor": told.get("floor"),
        "noise": told.get("noise"),
        "said": sentences(runs, many),
    }
