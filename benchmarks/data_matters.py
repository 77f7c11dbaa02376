"""Does the state of the data matter? Three controlled experiments on Fashion-MNIST in 16x16, one command each.

imbalance  every second class cut to a tenth: recall per class of samples, with and without balancing
clean      30 % of a folder duplicated or corrupted: KID and copies, before and after `sfumato clean`
collapse   training data replaced by the model's own samples for five generations, and what a cap does to it

All variants of an experiment train for the same number of steps. Every finished run is a row of its results file, and an
interrupted one goes on from its checkpoint: a stopped benchmark goes on where it was.
"""

from __future__ import annotations

import argparse
import dataclasses
import io
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageFilter
from torch import Tensor

from benchmarks import common
from sfumato.core import SfumatoError
from sfumato.data import Source
from sfumato.data import open as open_source
from sfumato.data.balance import Balance, parse
from sfumato.denoiser import UNetConfig
from sfumato.measure import Features, features_for, kid, nearest, precision_recall
from sfumato.tasks import Model, Request, generate, load
from sfumato.train import Budget, Run, Setting, Trainer, bf16_pays, fit, keep_large_blocks, pick_recipe, resume

SIZE = 16
NET = UNetConfig(widths=(32, 64, 128), blocks=(1, 1, 1))
SAMPLING = {"steps": 10, "solver": "dpmpp2m"}
Job = dict[str, Any]
Row = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Lab:
    """Where runs are kept, how long they train, how many samples are measured, and the pictures they are measured by."""

    work: Path
    steps: int
    n: int
    full: Source
    test: Source
    features: Features

    def folder(self, *names: object) -> Path:
        return self.work / "-".join(str(name) for name in (*names, f"{self.steps}steps"))

    def real(self) -> Tensor:
        """Features of every test picture."""
        return self.features(self.test.batch(torch.arange(len(self.test))).x0)


def train(lab: Lab, folder: Path, source: Source, seed: int, **changes: Any) -> tuple[Model, float]:
    """The model of this folder: trained, trained further, or loaded when it is done; and its seconds of training."""
    run = Run(folder)
    recipe = dataclasses.replace(pick_recipe("default", SIZE), net=NET, seed=seed, **changes).fit_to(source)
    setting = Setting(torch.bfloat16 if bf16_pays() else None, channels_last=True)
    trainer = Trainer(recipe.build(), recipe, source, Budget(steps=lab.steps), setting)
    if not (folder / "run.json").exists():
        run.begin(recipe, source, trainer.budget, setting)
    try:
        resume(run, trainer)
    except SfumatoError:
        common.log(f"  {folder.name}: from the beginning")
    for report in fit(run, trainer, reports=4):
        if report.row is not None:
            common.log(f"  step {report.row['step']}, {report.row['seconds']:.0f} s, loss {report.row['loss']:.3f}")
    return load(folder), trainer.seconds


def sample(model: Model, n: int, seed: int, class_name: str | None = None) -> Tensor:
    """n pictures [n, C, H, W] in [-1, 1]."""
    return generate(model, Request(n=n, seed=seed, class_name=class_name, **SAMPLING)).x0


# imbalance

RULES = ("full", "none", "temperature=2", "effective=0.999", "equal")
FREQUENT, RARE = 3000, 300


def unbalanced(full: Source, seed: int, cut: bool) -> Source:
    """FREQUENT pictures of every class; with `cut` RARE of every second one: the odd classes for even seeds, else the even."""
    labels = full.labels[full.train_index]
    rows = []
    for k in range(len(full.classes)):
        rare = cut and k % 2 != seed % 2
        rows.append(full.train_index[(labels == k).nonzero()[: RARE if rare else FREQUENT, 0]])
    return full.take(torch.cat(rows))


def imbalance(lab: Lab, job: Job) -> Row:
    """Recall and precision of each class: samples asked for by class, against that class's test pictures."""
    source = unbalanced(lab.full, job["seed"], job["variant"] != "full")
    rule = None if job["variant"] in ("full", "none") else parse(job["variant"])
    model, seconds = train(lab, lab.folder("imbalance", job["variant"], job["seed"]), source, job["seed"], balance=rule)
    classes: dict[str, Row] = {}
    each = max(8, lab.n // len(source.classes))
    real = lab.real()
    for k, name in enumerate(source.classes):
        fake = lab.features(sample(model, each, job["seed"], name))
        precision, recall = precision_recall(real[lab.test.labels == k], fake)
        classes[name] = {"recall": recall, "precision": precision, "pictures": int((source.labels == k).sum())}
    rare = [name for k, name in enumerate(source.classes) if k % 2 != job["seed"] % 2]
    return {"classes": classes, "rare": rare, "pictures": len(source), "seconds": seconds}


# clean

ORIGINALS, COPIED, COPIES, CORRUPTED = 2800, 20, 30, 600  # 30 % of 4,000 are copies or corrupted
FIXED = ("corrupt", "exact_duplicate", "near_duplicate", "blank", "dark", "blown_out", "blurred", "low_information")


def png(picture: Image.Image) -> bytes:
    out = io.BytesIO()
    picture.save(out, "png")
    return out.getvalue()


def copy_of(picture: Image.Image, k: int) -> tuple[str, bytes]:
    """The k-th way to hold a picture twice: the same bytes, recompressed, larger, smaller."""
    if k % 4 == 0:
        return "png", png(picture)
    if k % 4 == 1:
        out = io.BytesIO()
        picture.save(out, "jpeg", quality=70 + k % 25)
        return "jpg", out.getvalue()
    side = picture.width * (3 if k % 4 == 2 else 5) // (2 if k % 4 == 2 else 6)
    return "png", png(picture.resize((side, side), Image.Resampling.LANCZOS))


def spoilt(picture: Image.Image, k: int, rng: np.random.Generator) -> bytes:
    """The k-th way to spoil a picture: cut short, blank, noise over it, blurred beyond recognition."""
    if k % 4 == 0:
        return png(picture)[:-60]
    if k % 4 == 1:
        return png(Image.new("L", picture.size, int(rng.integers(0, 256))))
    if k % 4 == 2:
        noise = rng.integers(0, 256, picture.size[::-1])
        return png(Image.fromarray((0.3 * np.asarray(picture) + 0.7 * noise).astype(np.uint8)))
    return png(picture.filter(ImageFilter.GaussianBlur(picture.width / 4)))


def spoilt_folder(lab: Lab, root: Path, seed: int) -> dict[str, list[str]]:
    """Write the folder of this seed (whole or not at all), and say which files are what: original, copied, copy, corrupted."""
    told = root / ".." / f"{root.name}.json"
    if told.exists():
        return json.loads(told.read_text())
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    kept = max(40, min(ORIGINALS, lab.n * ORIGINALS // 2000))  # a smoke test needs no more
    pictures = open_source("fashion-mnist", 32)
    rows = rng.permutation(pictures.train_index.numpy())[: kept + CORRUPTED]
    images = pictures.codec.decode(pictures.batch(torch.from_numpy(rows)).x0)
    named: dict[str, list[str]] = {"original": [], "copied": [], "copy": [], "corrupted": []}

    def write(kind: str, suffix: str, content: bytes) -> str:
        name = f"{rng.integers(2**40):010x}.{suffix}"  # names tell nothing
        (root / name).write_bytes(content)
        named[kind].append(name)
        return name

    scale = kept / ORIGINALS
    for picture in images[:kept]:
        write("original", "png", png(picture))
    for k in range(round(COPIED * scale)):
        named["copied"].append(named["original"][k])
        for copy in range(COPIES):
            write("copy", *copy_of(images[k], copy))
    for k in range(round(CORRUPTED * scale)):
        write("corrupted", "png", spoilt(images[kept + k], k, rng))
    told.write_text(json.dumps(named))
    return named


def cleaned_folder(root: Path) -> Path:
    """What `sfumato clean` leaves of a folder."""
    out = root.with_name(f"{root.name}-cleaned")
    if not out.exists():
        scratch = root.with_name(f"{root.name}-cleaning")
        shutil.rmtree(scratch, ignore_errors=True)
        command = [sys.executable, "-m", "sfumato", "clean", str(root), "--out", str(scratch), "--only", *FIXED]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"{' '.join(command)} ended with {done.returncode}: {done.stderr.strip()[-500:]}")
        scratch.rename(out)
    return out


def clean(lab: Lab, job: Job) -> Row:
    """KID against the test set, copies of training pictures, and samples nearest to one that was duplicated."""
    root = lab.work / f"clean-{job['seed']}-{lab.n}"
    named = spoilt_folder(lab, root, job["seed"])
    folder = cleaned_folder(root) if job["variant"] == "cleaned" else root
    source = open_source(folder, SIZE, channels=1)
    place = {Path(key).name: row for row, key in enumerate(source.keys)}
    if job["variant"] == "never spoilt":
        source = source.take(torch.tensor(sorted(place[name] for name in named["original"])))
    model, seconds = train(lab, lab.folder("clean", job["variant"].replace(" ", "-"), job["seed"]), source, job["seed"])
    x0 = sample(model, lab.n, job["seed"])
    distance = kid(lab.features(x0), lab.real())
    whole = open_source(root, SIZE, channels=1)
    place = {key: row for row, key in enumerate(whole.keys)}
    originals = whole.batch(torch.tensor([place[name] for name in named["original"]])).x0.flatten(1)
    index, near = nearest(x0.flatten(1), originals, 2)
    kept = {Path(key).name for key in source.keys}
    return {
        "kid": distance.value,
        "kid_se": distance.se,
        "copies": float((near[:, 0] < near[:, 1] / 3).double().mean()),
        "near_copied": float((index[:, 0] < len(named["copied"])).double().mean()),
        "share_copied": len(named["copied"]) / len(named["original"]),
        "pictures": len(source),
        "left": {kind: len(kept & set(names)) for kind, names in named.items()},
        "planted": {kind: len(names) for kind, names in named.items()},
        "seconds": seconds,
    }


# collapse

REAL, GENERATIONS = 2000, 5
SHARES: dict[str, tuple[float, Balance | None]] = {
    "0 %": (0.0, None),
    "25 %": (0.25, None),
    "50 %": (0.5, None),
    "100 %": (1.0, None),
    "50 %, --ai-made cap=0.2": (0.5, Balance(ai_made=0.2)),
}


def replaced(base: Source, drawn: np.ndarray, share: float, seed: int, generation: int) -> Source:
    """The base with this share of the rows to learn from showing drawn pictures, marked as AI-made."""
    rows = base.train_index.numpy()
    chosen = np.random.default_rng((seed, generation)).permutation(rows)[: round(share * len(rows))]
    pixels, marks = base.pixels.copy(), np.zeros(len(base), bool)
    pixels[chosen], marks[chosen] = drawn[: len(chosen)], True
    return dataclasses.replace(base.with_pixels(pixels), columns={"ai_made": marks.tolist()})


def drawn_by(lab: Lab, folder: Path, source: Source, seed: int, balance: Balance | None) -> tuple[Path, float]:
    """The samples of a generation, uint8 [N, H, W, C] in a file: made, or there already."""
    path = folder / "samples.npy"
    if path.exists():
        return path, float("nan")
    model, seconds = train(lab, folder, source, seed, conditions=(), balance=balance)
    x0 = sample(model, max(lab.n, len(source)), seed)
    with path.with_suffix(".part").open("wb") as file:
        np.save(file, model.codec.pixels(x0))
    path.with_suffix(".part").rename(path)
    return path, seconds


def collapse(lab: Lab, job: Job) -> Row:
    """Every generation's model is trained from its beginning on data that hold samples of the one before."""
    share, balance = SHARES[job["variant"]]
    seed, chain = job["seed"], "".join(c if c.isalnum() else "_" for c in job["variant"])
    spread = torch.linspace(0, len(lab.full.train_index) - 1, min(REAL, lab.n)).long()
    base = lab.full.take(lab.full.train_index[spread])
    real = lab.real()[: lab.n]
    generations = []
    path, seconds = drawn_by(lab, lab.folder("collapse", "real", seed), base, seed, None)
    for generation in range(GENERATIONS + 1):
        if generation:
            source = replaced(base, np.load(path), share, seed, generation)
            folder = lab.folder("collapse", chain, seed, f"generation{generation}")
            path, seconds = drawn_by(lab, folder, source, seed + 1000 * generation, balance)
        seen = lab.features(base.codec.encode(np.load(path)[: lab.n]))
        precision, recall = precision_recall(real, seen)
        row = {"generation": generation, "precision": precision, "recall": recall, "kid": kid(seen, real).value}
        generations.append({**row, "seconds": None if seconds != seconds else seconds})
        common.log(f"  {job['variant']}, generation {generation}: precision {precision:.3f}, recall {recall:.3f}")
    return {"generations": generations, "pictures": len(base)}


EXPERIMENTS: dict[str, tuple[Callable[[Lab, Job], Row], tuple[str, ...], tuple[int, ...]]] = {
    "imbalance": (imbalance, RULES, (0, 1)),
    "clean": (clean, ("never spoilt", "spoilt", "cleaned"), (0,)),
    "collapse": (collapse, tuple(SHARES), (0,)),
}


def jobs(variants: tuple[str, ...], seeds: list[int]) -> Iterator[Job]:
    for seed in seeds:
        for variant in variants:
            yield {"variant": variant, "seed": seed}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("experiment", choices=list(EXPERIMENTS))
    parser.add_argument("--steps", type=int, default=2000, help="training steps of every run (2000)")
    parser.add_argument("--n", type=int, default=2000, help="samples that are measured (2000; 5000 say more by class)")
    parser.add_argument("--seeds", type=int, nargs="+", help="default: 0 1 for imbalance, 0 for the others")
    parser.add_argument("--work", type=Path, default=Path("runs/data-matters"), help="folder of runs and pictures")
    parser.add_argument("--results", type=Path, default=common.RESULTS, help="folder of the results file")
    args = parser.parse_args()
    keep_large_blocks()
    make, variants, seeds = EXPERIMENTS[args.experiment]
    full, test = open_source("fashion-mnist", SIZE), open_source("fashion-mnist/test", SIZE)
    lab = Lab(args.work, args.steps, args.n, full, test, features_for(full, common.FEATURES))
    name = f"data_{args.experiment}"
    data = common.read(name, args.results) or common.envelope(runs=[], commands=[])
    data["commands"] = [*data["commands"], common.command()]
    have = [{k: run[k] for k in ("variant", "seed", "steps", "n")} for run in data["runs"]]
    asked = [{**job, "steps": args.steps, "n": args.n} for job in jobs(variants, args.seeds or list(seeds))]
    todo = [sized for sized in asked if sized not in have]
    start = time.monotonic()
    for done, sized in enumerate(todo):
        left = (
            f"about {(time.monotonic() - start) / done * (len(todo) - done) / 60:.0f} min left" if done else "the first"
        )
        common.log(f"{args.experiment}: {sized['variant']}, seed {sized['seed']}; {done + 1} of {len(todo)}, {left}")
        data["runs"].append({**sized, **make(lab, {k: sized[k] for k in ("variant", "seed")})})
        common.write(name, data, args.results)
    print(common.write(name, data, args.results))


if __name__ == "__main__":
    main()
