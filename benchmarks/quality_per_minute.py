"""Quality for a budget of CPU-seconds of training: Fashion-MNIST in 32x32, no classes, 4 to 5 M parameters each.

Every run is a process of its own and is appended to results/quality_per_minute.json when done: an interrupted benchmark
goes on where it stopped. Fréchet distance, KID, precision and recall of n samples against the 10,000 test pictures, in
the features of one classifier trained on the set; the floor is n training pictures against the same.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import time
from pathlib import Path
from typing import Any

from benchmarks import common

NAME = "quality_per_minute"
SAMPLE_SEED = 1_000_000
COST_PICTURES = 16


def key(run: dict[str, Any]) -> tuple[Any, ...]:
    return run["contender"], float(run["budget"]), run["seed"], run["n"]


def slug(run: dict[str, Any]) -> str:
    """A file name for this run's grid of samples."""
    spec = "".join(c if c.isalnum() or c in "-." else "_" for c in run["contender"])
    return f"{spec}_{run['budget']:g}s_seed{run['seed']}"


def quality(x, n: int) -> dict[str, float]:
    """Fréchet distance, KID, precision, recall of pictures x against the test set."""
    import torch

    from sfumato.data import open as open_source
    from sfumato.measure.features import features_for
    from sfumato.measure.metrics import frechet_distance, kid, precision_recall

    features = features_for(open_source("fashion-mnist", size=32), common.FEATURES)
    test = open_source("fashion-mnist/test", size=32)
    real = features(test.batch(torch.arange(len(test))).x0)
    fake = features(x[:n])
    precision, recall = precision_recall(real[:n], fake)
    return {
        "fd": frechet_distance(fake, real),
        "kid": float(kid(fake, real).value),
        "precision": precision,
        "recall": recall,
        "features": features.name,
        "features_accuracy": features.accuracy,
        "instrument": instrument(),
    }


def instrument() -> str:
    """Which training of the feature network measures here: rows of two of them are not to be compared."""
    found = sorted(common.FEATURES.glob("classifier-fashion-mnist-32-*.safetensors"))
    return hashlib.sha256(found[0].read_bytes()).hexdigest()[:12] if found else ""


def floor(n: int) -> dict[str, float]:
    """What n real training pictures get, and what noise gets: the two ends of the scale."""
    import torch

    from sfumato.data import open as open_source

    train = open_source("fashion-mnist", size=32)
    generator = torch.Generator().manual_seed(0)
    rows = torch.randperm(len(train), generator=generator)[:n]
    noise = torch.rand(n, 1, 32, 32, generator=generator) * 2 - 1
    return {"train": quality(train.batch(rows).x0, n), "noise": quality(noise, n)}


def save_grid(x, path: Path, columns: int = 10) -> None:
    """The first columns x columns pictures of x [N, 1, H, W] in [-1, 1] as one PNG."""
    from PIL import Image

    x = x[: columns * columns].add(1).mul(127.5).round().clamp(0, 255).byte()[:, 0]
    rows = x.reshape(columns, columns, *x.shape[1:]).permute(0, 2, 1, 3)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(rows.reshape(columns * x.shape[1], -1).numpy()).save(path, optimize=True)


def run_one(order: dict[str, Any]) -> dict[str, Any]:
    """In this process: train one contender for one budget and seed, sample, measure."""
    os.environ["TQDM_DISABLE"] = "1"
    import torch

    from benchmarks import contenders, peers

    torch.set_num_threads(order["threads"])
    contender = contenders.make(order["contender"])
    contender.prepare(order["seed"], order["budget"])
    done = {k: order[k] for k in ("contender", "budget", "seed", "n", "threads")}
    done |= {
        "parameters": peers.parameters(contender.net),
        "sampler": contender.sampler,
        "settings": contender.settings,
    }
    done |= contenders.train(contender, order["budget"])

    cpu, wall = time.process_time(), time.perf_counter()
    contender.sample(COST_PICTURES, SAMPLE_SEED, fast=False)
    done["sampling_cpu_ms_per_picture"] = (time.process_time() - cpu) * 1000 / COST_PICTURES
    done["sampling_wall_ms_per_picture"] = (time.perf_counter() - wall) * 1000 / COST_PICTURES

    x = contenders.draw(contender, order["n"], SAMPLE_SEED + order["seed"] * order["n"])
    finite = bool(torch.isfinite(x).all())
    done |= quality(x, order["n"]) if finite else {"fd": None}
    if order["grid"] and finite and len(x) >= 100:
        save_grid(x, Path(order["grid"]))
        done["grid"] = Path(order["grid"]).name
    return done


def main() -> None:
    from benchmarks import contenders

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--budgets", type=float, nargs="+", default=[480.0], help="CPU-seconds of training")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--contenders", nargs="+", default=list(contenders.NAMES), metavar="NAME[:key=value;...]")
    parser.add_argument("--ablation", action="store_true", help="add our recipe with one thing changed at a time")
    parser.add_argument("--n", type=int, default=1000, help="samples per run")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--results", type=Path, default=common.RESULTS, help="folder of the results file")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        print(json.dumps(run_one(json.loads(args.worker))))
        return
    if args.ablation:
        args.contenders += [spec for spec in contenders.ABLATION if spec not in args.contenders]
    for spec in args.contenders:
        contenders.make(spec)  # a mistake in a name should cost nobody an hour

    data = common.read(NAME, args.results) or common.envelope(runs=[], commands=[])
    data["commands"] = [*data["commands"], common.command()]
    ends = data.setdefault("floor", {})
    if str(args.n) not in ends or ends[str(args.n)]["train"].get("instrument") != instrument():
        ends[str(args.n)] = floor(args.n)  # also trains the feature network before any run, where none is kept
    measured_by = instrument()
    stale = [r for r in data["runs"] if not contenders.current(r) or r.get("instrument") != measured_by]
    for run in stale:
        common.log(f"{slug(run)} was made with other settings, or measured by another network: it leaves the results")
        data["runs"].remove(run)
    have = {key(run) for run in data["runs"]}
    # every contender at a budget and seed before the next seed: stopped early, the table is thinner but complete
    plan = [
        {"contender": c, "budget": b, "seed": s, "n": args.n, "threads": args.threads}
        for b in args.budgets
        for s in args.seeds
        for c in args.contenders
    ]
    plan = [order for order in plan if key(order) not in have]
    for i, order in enumerate(plan):
        order["grid"] = (
            str((args.results / "grids" / f"{slug(order)}.png").resolve()) if order["seed"] == args.seeds[0] else ""
        )
        common.log(
            f"{i + 1}/{len(plan)} {order['contender']} for {order['budget']:g} CPU-seconds, seed {order['seed']}"
        )
        done = common.child("benchmarks.quality_per_minute", ["--worker", json.dumps(order)])
        done["when"], done["versions"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), common.versions()
        data["runs"].append(done)
        common.write(NAME, data, args.results)
        common.log(
            f"  FD {done['fd']}, precision {done.get('precision')}, recall {done.get('recall')}, "
            f"{done['images_seen']} images, {done['sampling_cpu_ms_per_picture']:.0f} ms CPU per sample"
        )
    print(common.write(NAME, data, args.results))


if __name__ == "__main__":
    main()
