"""Diffusion against a GAN with equal weights and equal wall-clock, as `sfumato compare` holds it, on two sets.

Each set is a process of its own, which trains both contenders in turns; what is trained lies in a folder and an interrupted
benchmark goes on with it, seed by seed and contender by contender. results/rival.json keeps what came out.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

from benchmarks import common

NAME = "rival"
SOURCES = {"fashion-mnist": "grey clothes", "emoji": "colour drawings"}
SIZE = 32
CHOOSING = 10  # the seed that the GAN is tuned with


def folder_of(order: dict[str, Any]) -> Path:
    return Path(order["work"]) / f"{order['source']}-{order['minutes']:g}min"


def run_one(order: dict[str, Any]) -> dict[str, Any]:
    """In this process: the whole comparison on one set, or what is left of it."""
    import torch

    from sfumato.data import open as open_source
    from sfumato.measure import arena
    from sfumato.measure.rival import VaeRecipe
    from sfumato.train import keep_large_blocks, pick_recipe

    torch.set_num_threads(order["threads"])
    keep_large_blocks()
    source = open_source(order["source"], SIZE)
    terms = arena.Terms(
        pick_recipe("default", SIZE),
        minutes=order["minutes"],
        seeds=order["seeds"],
        n=order["n"],
        modes=order["modes"],
        vae=VaeRecipe() if order["vae"] else None,
    )
    folder = folder_of(order)
    said = 0
    for share, text in arena.compare(folder, source, terms, resume=(folder / arena.FILE).exists()):
        if int(share * 200) > said:
            said = int(share * 200)
            with folder.with_suffix(".log").open("a") as log:
                log.write(f"{share:.1%} {text}\n")
    kept = ("source", "minutes", "seeds", "n", "modes", "vae", "threads")
    told = arena.read(folder)
    facts = {"features": told["features"], "n_reference": told["n_reference"], **{k: order[k] for k in kept}}
    for path in sorted(folder.glob("seed-0/*/sample.png")):
        sheet = Path(order["results"]) / "grids" / f"rival_{order['source']}_{path.parent.name}.png"
        sheet.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, sheet)
    shutil.copyfile(folder / "report.html", folder.with_suffix(".html"))
    return {**facts, **arena.outcome(folder), "modes_of_real": told.get("modes_of_real")}


def tune_one(order: dict[str, Any]) -> dict[str, Any]:
    """In this process: the GAN alone, with its recipe changed, on Fashion-MNIST by a seed that enters no comparison."""
    import time
    from dataclasses import replace

    import torch

    from benchmarks.contenders import pictures
    from benchmarks.quality_per_minute import quality, save_grid
    from sfumato.measure.rival import GanRecipe, GanTrainer, fastest
    from sfumato.settings import override
    from sfumato.train import Budget, Setting, keep_large_blocks, pick_recipe

    torch.set_num_threads(order["threads"])
    keep_large_blocks()
    source = pictures()
    weights = sum(p.numel() for p in pick_recipe("default", SIZE).fit_to(source).build().parameters())
    recipe = replace(override(GanRecipe(), [c for c in order["gan"].split(";") if c]), seed=order["seed"])

    def make(setting: Setting) -> GanTrainer:
        return GanTrainer(recipe, source, Budget(seconds=60 * order["minutes"]), setting, weights)

    trainer = make(fastest(make, recipe.every))
    curve, began = [], time.perf_counter()
    for progress in trainer.steps():
        if int(progress.share * 4) > len(curve):
            x = trainer.sample(order["n"], 0)
            curve.append({"images": progress.images, **quality(x, order["n"]), **trainer.figures()})
    name = "".join(c if c.isalnum() or c in "-." else "_" for c in order["gan"]) or "default"
    save_grid(x, Path(order["results"]) / "grids" / f"rival_tune_{name}.png")
    told = {"gan": order["gan"], "minutes": order["minutes"], "setting": str(trainer.setting), "steps": trainer.step}
    return {**told, "seconds": time.perf_counter() - began, "curve": curve}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sources", nargs="+", default=list(SOURCES), choices=list(SOURCES))
    parser.add_argument("--minutes", type=float, default=8.0, help="wall-clock of training per contender and seed")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--n", type=int, default=1000, help="pictures measured per run")
    parser.add_argument("--modes", action="store_true", help="a second round on the stacked set: twice the time")
    parser.add_argument("--vae", action="store_true", help="a third contender: half as much time again")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--results", type=Path, default=common.RESULTS)
    parser.add_argument("--work", type=Path, help="where training lies meanwhile (RESULTS/../work/rival)")
    parser.add_argument(
        "--tune",
        nargs="+",
        metavar="KEY=VALUE;...",
        help="train the GAN alone, once with each of these changes ('' for none)",
    )
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        order = json.loads(args.worker)
        print(json.dumps(tune_one(order) if "gan" in order else run_one(order)))
        return
    work = (args.work or args.results.parent / "work" / NAME).resolve()
    data = common.read(NAME, args.results) or common.envelope(comparisons=[], commands=[])
    data["commands"] = [*data["commands"], common.command()]
    for changes in args.tune or ():
        order = {"gan": changes, "minutes": args.minutes, "n": args.n, "threads": args.threads, "seed": CHOOSING}
        done = common.child(
            "benchmarks.rival", ["--worker", json.dumps(order | {"results": str(args.results.resolve())})]
        )
        data["tuning"] = [*data.get("tuning", []), done]
        common.write(NAME, data, args.results)
        common.log(
            f"{changes or 'default'}: FD {[round(row['fd'], 1) for row in done['curve']]}, {done['steps']} steps"
        )
    for source in () if args.tune else args.sources:
        order = {k: getattr(args, k) for k in ("minutes", "seeds", "n", "modes", "vae", "threads")}
        order |= {"source": source, "work": str(work), "results": str(args.results.resolve())}
        common.log(f"{source}: {args.seeds} seeds of {args.minutes:g} minutes each, in {folder_of(order)}")
        done = common.child("benchmarks.rival", ["--worker", json.dumps(order)])
        same = [c for c in data["comparisons"] if (c["source"], c["minutes"]) == (source, args.minutes)]
        data["comparisons"] = [c for c in data["comparisons"] if c not in same] + [done]
        common.write(NAME, data, args.results)
        for sentence in done["said"]:
            common.log(f"  {sentence}")
    print(common.write(NAME, data, args.results))


if __name__ == "__main__":
    main()
