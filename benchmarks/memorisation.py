"""When does a model begin to copy, and does the meter stop it in time? Two experiments, one command each.

law   sets of 50, 100, 200, 400 and 800 pictures at a constant rate: the step at which the meter sees copies, the line
      through log(onset) over log(size), and the share copied at every reading
stop  three sets of 200 pictures trained far past the onset: the quality of the average that the stop would have chosen,
      by pictures held out, beside the best of the whole curve

Every run is a process of its own and a row of results/memorisation.json; an interrupted benchmark goes on where it was.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import time
from typing import Any

import torch

from benchmarks import common
from sfumato.data import Source
from sfumato.data import open as open_source
from sfumato.denoiser import UNetConfig
from sfumato.measure.features import features_for
from sfumato.measure.intervals import student
from sfumato.measure.meter import SEED, Meter, N, best, onset
from sfumato.measure.metrics import kid
from sfumato.tasks import Model, Request, generate
from sfumato.train import Budget, Recipe, Setting, Trainer, averaged_weights, bf16_pays, keep_large_blocks

NAME = "memorisation"
SIZE = 16
NET = UNetConfig(widths=(32, 64, 96), blocks=(1, 1, 1))
SETS = (50, 100, 200, 400, 800)
HELD = {"fashion-mnist": 200, "digits": 200, "emoji-people": 200}
GROWTH = 1.25  # from one reading's step to the next
MORE = 4  # readings after the onset, for the law
SAMPLES = 500  # pictures by which the stop is judged


def pick(name: str, n: int, seed: int) -> tuple[Source, torch.Tensor]:
    """n pictures of a set (a twentieth of them held back, as always), and up to 2,000 others [M, C, H, W]."""
    whole = open_source(name, size=SIZE)
    rows = torch.randperm(len(whole), generator=torch.Generator().manual_seed(seed))
    source = dataclasses.replace(whole.take(rows[:n]), classes=(), labels=None, captions=None)
    return source, whole.batch(rows[n : n + 2000].sort().values).x0


def steps_of(last: int) -> list[int]:
    """The steps of the readings: 100, and ever farther apart."""
    return [round(100 * GROWTH**k) for k in range(1 + int(math.log(last / 100, GROWTH)))]


def run_one(order: dict[str, Any]) -> dict[str, Any]:
    """In this process: train one model with the meter beside it."""
    keep_large_blocks()
    torch.set_num_threads(order["threads"])
    source, others = pick(order["set"], order["n"], order["seed"])
    recipe = dataclasses.replace(Recipe(net=NET, seed=order["seed"]), batch=32)
    recipe = dataclasses.replace(recipe, optimiser=dataclasses.replace(recipe.optimiser, decay=0.0)).fit_to(source)
    setting = Setting(torch.bfloat16 if bf16_pays() else None, channels_last=True)
    trainer = Trainer(recipe.build(), recipe, source, Budget(steps=order["steps"]), setting)
    features = features_for(open_source(order["set"], size=SIZE), common.FEATURES)
    meter = Meter(source, features)
    model = Model(trainer.denoiser, recipe.codec(source.codec), {"classes": [], "captions": [], "codec": {}})
    wanted, readings, judged = steps_of(order["steps"]), [], []
    began = time.perf_counter()

    def draw(n: int) -> torch.Tensor:
        with averaged_weights(trainer), torch.no_grad():
            return generate(model, Request(n=n, seed=SEED, steps=10)).x0

    for progress in trainer.steps():
        if progress.step not in wanted:
            continue
        readings.append(meter.read(lambda: draw(N), progress.step, progress.seconds, progress.images))
        common.log(f"step {progress.step}: copies {readings[-1].copies.value:.2f}, KID {readings[-1].kid.value:.3f}")
        if order["kind"] == "stop":
            judged.append(float(kid(features(draw(SAMPLES)), features(others)).value))
        begun = onset(readings)
        if begun is not None and order["kind"] == "law":
            if len(readings) >= [r.step for r in readings].index(begun) + MORE:
                break
    found: dict[str, Any] = {k: order[k] for k in ("kind", "set", "n", "seed", "steps")}
    found |= {"trained": len(source.train_index), "onset": onset(readings), "seconds": time.perf_counter() - began}
    found["readings"] = [r.to_json() for r in readings]
    if order["kind"] == "stop":
        chosen = stopped_at([r.step for r in readings], readings)
        found |= {"held_out_kid": judged, "chosen": chosen}
    return found


def stopped_at(steps: list[int], readings: list[Any]) -> int | None:
    """The step whose average the stop would have chosen; None when it would not have stopped."""
    for k in range(2, len(readings) + 1):
        if onset(readings[:k]) is not None:
            return best(readings[:k]).step
    return None


def line(points: list[tuple[int, int]]) -> dict[str, float]:
    """Slope of log(onset) over log(n), three points or more, with its 95 % interval, and the factor at slope 1."""
    x, y = (torch.tensor([math.log(p[k]) for p in points], dtype=torch.float64) for k in (0, 1))
    dx = x - x.mean()
    slope = float((dx * y).sum() / dx.square().sum())
    rest = y - y.mean() - slope * dx
    error = float((rest.square().sum() / (len(x) - 2) / dx.square().sum()).sqrt())
    half = student(len(x) - 2) * error
    return {"slope": slope, "low": slope - half, "high": slope + half, "per_picture": math.exp(float((y - x).mean()))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kind", nargs="?", choices=["law", "stop"])
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SETS))
    parser.add_argument("--sets", nargs="+", default=list(HELD))
    parser.add_argument("--steps", type=int, default=20_000, help="most steps of a run")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        print(json.dumps(run_one(json.loads(args.worker))))
        return
    if args.kind is None:
        parser.error("say which: law or stop")
    data = common.read(NAME) or common.envelope(runs=[], commands=[])
    data["commands"] = [*data["commands"], common.command()]
    orders = [
        {"kind": args.kind, "set": name, "n": n, "seed": seed, "steps": args.steps, "threads": args.threads}
        for seed in args.seeds
        for name, n in (
            [("fashion-mnist", n) for n in args.sizes] if args.kind == "law" else [(s, HELD[s]) for s in args.sets]
        )
    ]
    for order in orders:
        key = {k: order[k] for k in ("kind", "set", "n", "seed", "steps")}
        if any({k: run[k] for k in key} == key for run in data["runs"]):
            continue
        common.log(f"{order['kind']}: {order['n']} pictures of {order['set']}, seed {order['seed']}")
        data["runs"].append(common.child("benchmarks.memorisation", ["--worker", json.dumps(order)]))
        points = [(r["trained"], r["onset"]) for r in data["runs"] if r["kind"] == "law" and r["onset"]]
        if len(points) > 2:
            data["law"] = line(points)
        common.write(NAME, data)


if __name__ == "__main__":
    main()
