"""Does a model write the words it is told? Exact match by two independent readers, on words and pairs it never saw.

train    the recipe `words` on the source `words`, captions spelled by character, and the same with words as words
measure  what an OCR engine and a reader trained on real renderings read, of drawn pictures and of real ones

Every command goes on where it stopped: a training from its checkpoint, a measurement from its finished rows.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks import common
from sfumato.core import Cond, Noise, SfumatoError, Slot
from sfumato.data import Source, encode, words
from sfumato.guide import bind, cfg, with_guides
from sfumato.measure import grid_image, reader
from sfumato.measure.intervals import wilson
from sfumato.reverse import pick_grid, pick_solver, sample
from sfumato.tasks import Model, load
from sfumato.train import Budget, Run, Setting, Trainer, bf16_pays, fit, keep_large_blocks, pick_recipe, resume

NAME = "words"
VARIANTS = ("spelled", "words")  # text in quotation marks by character, or read like every other word
KINDS = ("seen", "words", "pairs")  # words that were trained on, held-out words, words with a held-out pair of letters
LEAST = 3  # characters of a word that is measured
CHUNK = 50
READER_STEPS, READER_SEED = 3000, 1
SHOWN = 40  # pictures of each kind on the sheet
Row = dict[str, Any]


def source_of(variant: str, n: int) -> Source:
    """The source as a variant reads its captions: without the marks a word is one word among others."""
    source = words.load(n=n)
    if variant == "spelled":
        return source
    return dataclasses.replace(source, captions=[caption.replace('"', "") for caption in source.captions])


def folder_of(args: argparse.Namespace, variant: str) -> Path:
    return args.work / f"{variant}-{args.minutes:g}min-seed{args.seed}"


def train(args: argparse.Namespace) -> None:
    """Train the asked variants, one after the other."""
    for variant in args.variants:
        source, run = source_of(variant, args.rows), Run(folder_of(args, variant))
        recipe = dataclasses.replace(pick_recipe("words", words.SIZE), seed=args.seed).fit_to(source)
        setting = Setting(torch.bfloat16 if bf16_pays() else None, channels_last=True)
        budget = Budget(steps=args.steps) if args.steps else Budget(seconds=60 * args.minutes)
        trainer = Trainer(recipe.build(), recipe, source, budget, setting)
        if not (run.path / "run.json").exists():
            run.begin(recipe, source, budget, setting)
        try:
            resume(run, trainer)
        except SfumatoError:
            common.log(f"{variant}: from the beginning")
        for report in fit(run, trainer, reports=40):
            if report.row is not None:
                row = report.row
                rate = row["images"] / max(row["seconds"], 1e-9)
                common.log(
                    f"{variant}: step {row['step']:,}, {row['seconds'] / 60:.1f} min, {rate:.0f} images/s, "
                    f"loss {row['loss']:.4f}, validation {row['validation_loss']:.4f}"
                )


def rows_of(source: Source, kind: str, n: int) -> Tensor:
    """The first n rows of a kind that show n different words of LEAST characters or more."""
    rows = source.train_index if kind == "seen" else source.holdout[kind]
    found: dict[str, int] = {}
    for row in rows.tolist():
        if len(source.groups[row]) >= LEAST:
            found.setdefault(source.groups[row], row)
        if len(found) == n:
            break
    return torch.tensor(list(found.values()))


def drawn(model: Model, captions: list[str], args: argparse.Namespace) -> Tensor:
    """A picture for every caption, x0 [N, C, H, W] in [-1, 1] at 8 bits."""
    solver, process, parts = pick_solver("dpmpp2m"), model.denoiser.process, []
    for first in range(0, len(captions), CHUNK):
        some = captions[first : first + CHUNK]
        ids, mask = encode(some)
        denoise = bind(with_guides(model.denoiser, cfg(args.guidance)), Cond({"text": Slot(ids, "tokens", mask)}))
        noise = Noise.of(args.seed, len(some), first)
        shape, grid = (len(some), *model.codec.spec), pick_grid("flow")(args.sampling, process)
        parts.append(model.codec.encode(model.codec.pixels(sample(denoise, shape, noise, solver, grid))))
    return torch.cat(parts)


def own_reader(args: argparse.Namespace, spared: set[str]) -> reader.Reader:
    """The reader of this folder, trained now when there is none, on renderings of other rows without the `spared` words."""
    path = args.work / f"reader-{args.reader_steps}.safetensors"
    if path.exists():
        return reader.load(path)
    source = words.load(seed=READER_SEED, n=args.rows)
    rows = torch.tensor([k for k, word in enumerate(source.groups) if word not in spared])
    for lesson in reader.teach(source, rows, args.reader_steps):
        if lesson.step % 200 == 0 or lesson.step == args.reader_steps:
            common.log(f"reader: step {lesson.step} of {args.reader_steps}, loss {lesson.loss:.3f}")
    reader.keep(lesson.reader, path, {"steps": args.reader_steps})
    return lesson.reader.eval()


def judged(read: list[str], asked: list[str]) -> Row:
    """Agreement with 95 % intervals, by length, and some of what was read otherwise."""
    told = reader.agreement(read, asked)
    for name in ("exact", "letters"):
        told[f"{name}_interval"] = [wilson(told[name], len(asked)).low, wilson(told[name], len(asked)).high]
    by_length: dict[int, list[bool]] = {}
    for a, b in zip(read, asked, strict=True):
        by_length.setdefault(len(b), []).append(a == b)
    told["by_length"] = {str(k): [sum(hits) / len(hits), len(hits)] for k, hits in sorted(by_length.items())}
    told["otherwise"] = [[b, a] for a, b in zip(read, asked, strict=True) if a != b][:20]
    return told


def rows_to_do(args: argparse.Namespace) -> Iterator[tuple[Row, Path | None]]:
    """Variant, kind and all that decides the numbers, with the run folder of the model (None: real renderings)."""
    for variant in ("real", *args.variants):
        folder, facts = None if variant == "real" else folder_of(args, variant), {}
        if folder is not None:
            if not (folder / "run.json").exists():
                common.log(f"{variant} has not been trained for {args.minutes:g} minutes: left out")
                continue
            last = Run(folder).rows()[-1]
            facts = {"minutes": args.minutes, "images": last["images"], "seconds": last["seconds"]}
            facts |= {"guidance": args.guidance, "sampling": args.sampling, "seed": args.seed}
        for kind in KINDS:
            yield (
                {"variant": variant, "kind": kind, "asked": args.n, "reader_steps": args.reader_steps, **facts},
                folder,
            )


def measure(args: argparse.Namespace) -> Path:
    """Draw, read, and write the results file after every row."""
    source = words.load(n=args.rows)
    chosen = {kind: rows_of(source, kind, args.n) for kind in KINDS}
    args.work.mkdir(parents=True, exist_ok=True)
    own = own_reader(args, {source.groups[k] for rows in chosen.values() for k in rows.tolist()})
    ocr = reader.ocr()
    data = common.read(NAME, args.results) or common.envelope(rows=[], commands=[])
    data["commands"] = [*data["commands"], common.command()]
    for row, folder in rows_to_do(args):
        if any(all(old.get(k) == v for k, v in row.items()) for old in data["rows"]):
            continue
        rows = chosen[row["kind"]]
        asked = [reader.asked(source.captions[k]) for k in rows.tolist()]
        x0 = source.batch(rows).x0
        if folder is not None:
            model, shown = load(folder), source_of(row["variant"], args.rows).captions
            row["parameters"] = sum(p.numel() for p in model.denoiser.parameters())
            x0 = drawn(model, [shown[k] for k in rows.tolist()], args)
        sheet = args.results / "grids" / f"words-{row['variant']}-{row['kind']}.png"
        sheet.parent.mkdir(parents=True, exist_ok=True)
        grid_image(source.codec.decode(x0[:SHOWN]), columns=8).save(sheet)
        row |= {"ocr": judged(ocr(x0), asked), "own": judged(own.read(x0), asked)}
        data["rows"].append(row)
        common.write(NAME, data, args.results)
        told = ", ".join(f"{name} {row[name]['exact']:.3f} (cer {row[name]['cer']:.3f})" for name in ("ocr", "own"))
        common.log(f"{row['variant']}, {row['kind']}: {told}")
    return common.write(NAME, data, args.results)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("command", choices=("train", "measure"))
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--minutes", type=float, default=40, help="of training, each variant (40)")
    parser.add_argument("--steps", type=int, help="of training, instead of minutes")
    parser.add_argument("--rows", type=int, default=words.ROWS, help="of the source (200000)")
    parser.add_argument("--n", type=int, default=200, help="words of each kind that are read (200)")
    parser.add_argument("--guidance", type=float, default=2.0)
    parser.add_argument("--sampling", type=int, default=18, help="steps of sampling (18)")
    parser.add_argument("--reader-steps", type=int, default=READER_STEPS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path, default=Path("runs/words"), help="folder of runs and of the reader")
    parser.add_argument(
        "--results", type=Path, default=common.RESULTS, help="folder of the results file and the sheets"
    )
    args = parser.parse_args()
    keep_large_blocks()
    if args.command == "train":
        train(args)
    else:
        print(measure(args))


if __name__ == "__main__":
    main()
