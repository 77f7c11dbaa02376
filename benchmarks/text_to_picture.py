"""How well text becomes a picture: faithfulness by an independent judge, quality, copies, cost, and sheets to look at.

    python -m benchmarks.text_to_picture --run RUN [--ablation RUN ...] [--peer FOLDER ...] [--quick]

Every model is measured in a process of its own, on the same prompts, seeds and real pictures. What is drawn is kept in
--work, and results/text_to_picture.json is written after every part: an interrupted benchmark goes on where it stopped.
`--quick` asks for few pictures, in two minutes once the judge is trained, and writes its numbers beside the drawn pictures.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks import common, text_prompts, text_sheets
from benchmarks.text_models import Drawer, Ours, Store, open_model
from benchmarks.text_prompts import SEED, Asked
from sfumato.data import Source
from sfumato.data.open import open as open_source
from sfumato.data.open import open_as
from sfumato.measure import features_for, judge_for, measure
from sfumato.measure.faithful import colours_obeyed, faithfulness, named
from sfumato.measure.judge import Judge
from sfumato.measure.memory import Gallery, memorisation

NAME = "text_to_picture"
WORK = Path("runs/text-to-picture")
PARTS = ("rows", "colours", "long", "speed", "sheets")
WARM = 5  # grids of four that are timed
ENOUGH = (
    100  # pictures from which on KID and copies are told: fewer say nothing, and the extractor takes a while to train
)
NUMBERS = {"rows": 500, "colours": 256, "long": 64}
QUICK = {"rows": 24, "colours": 18, "long": 4}
Data = dict[str, Any]


@dataclass(frozen=True)
class Bench:
    """What every part needs: the model and what it is held against."""

    model: Drawer
    source: Source
    judge: Judge
    store: Store
    numbers: dict[str, int]
    sheets: Path

    def draw(self, asked: Asked) -> Tensor:
        return self.store.pictures(self.model, asked, SEED)


def quality(bench: Bench, x0: Tensor, rows: Tensor) -> Data:
    """KID of the drawn pictures to the real ones of the same captions, the floor beside it (training pictures in the same
    styles against the same), and copies above the base rate of these real pictures."""
    source = bench.source
    if len(rows) < ENOUGH:
        return {}
    reference = source.batch(rows).x0
    scores = measure(x0, reference, features_for(source), source.batch(_alike(source, rows)).x0)
    found: Data = {k: scores[k] for k in ("kid", "kid_se", "features", "n")}
    found["floor"] = scores["floor"]["kid"]
    found["intervals"] = [row for row in scores["metrics"] if row["key"] == "kid"]
    return found | {"copies": memorisation(x0, Gallery(source), reference).to_json()}


def _alike(source: Source, rows: Tensor) -> Tensor:
    """As many training rows, other ones, of each style as `rows` have."""
    left = source.train_index[~torch.isin(source.train_index, rows)]
    if not source.styles:
        return text_prompts.drawn(left, len(rows))
    parts = []
    for style in source.style_labels[rows].unique().tolist():
        wanted = int((source.style_labels[rows] == style).sum())
        parts.append(text_prompts.drawn(left[source.style_labels[left] == style], wanted))
    return torch.cat(parts)


def part_rows(bench: Bench) -> Data:
    """Captions trained on and every kind held out: faithfulness, quality, copies."""
    found = {}
    for kind, asked in text_prompts.kinds(bench.source, bench.numbers["rows"]).items():
        assert asked.rows is not None
        x0 = bench.draw(asked)
        found[kind] = faithfulness(bench.judge, x0, bench.source, asked.rows, SEED)
        found[kind] |= {"quality": quality(bench, x0, asked.rows)}
        common.log(f"  {kind}: first {found[kind]['first']['value']:.3f}, real {found[kind]['real']['value']:.3f}")
    return found


def part_colours(bench: Bench) -> Data:
    """COLOUR object, and the same objects without the word."""
    asked = text_prompts.colours(bench.source, bench.numbers["colours"])
    assert asked.about is not None
    if not len(asked):
        return {}
    wanted, things = asked.about["colour"], asked.about["object"]
    x0 = bench.draw(asked)
    obeyed, first = colours_obeyed(x0, wanted, things)
    alone, _ = colours_obeyed(bench.draw(text_prompts.plain(asked)), wanted, things)
    by_colour = {}
    for colour in sorted(set(wanted)):
        here = [k for k, name in enumerate(wanted) if name == colour]
        by_colour[colour] = colours_obeyed(x0[here], [colour] * len(here), [things[k] for k in here])[0].value
    common.log(f"  colours obeyed {obeyed.value:.3f}, without the word {alone.value:.3f}")
    told = {"obeyed": obeyed._asdict(), "first": first._asdict(), "without": alone._asdict()}
    return told | {"by_colour": by_colour, "n": len(asked)}


def part_long(bench: Bench) -> Data:
    """A name alone, and at several places of a prompt of a thousand words."""
    found: Data = {}
    for place, asked in text_prompts.long(bench.source, bench.numbers["long"]).items():
        assert asked.about is not None
        found[place] = named(bench.judge, bench.draw(asked), asked.about["said"], bench.source, SEED)._asdict()
        common.log(f"  long prompts, {place}: {found[place]['value']:.3f}")
    return found


def part_speed(bench: Bench) -> Data:
    """Seconds for a warm grid of four."""
    prompts, styles = ["a red apple"] * 4, [next(iter(bench.source.styles), None)] * 4
    bench.model.draw(prompts, styles, SEED)
    seconds = []
    for _ in range(WARM):
        began = time.perf_counter()
        bench.model.draw(prompts, styles, SEED)
        seconds.append(time.perf_counter() - began)
    return {"grid_of_four": common.spread(seconds), "threads": torch.get_num_threads()}


def part_sheets(bench: Bench) -> Data:
    """8 captions in every style; held-out pairs beside the real picture; prompts that no caption holds."""
    source, codec, names = bench.source, bench.source.codec, {}
    across = len(source.styles) or 8
    for what, asked, columns in (
        ("seen", text_prompts.shown_seen(source), across),
        ("pairs", text_prompts.shown_pairs(source), 4),
        ("unseen", text_prompts.shown_unseen(source), 6),
    ):
        groups = [[image] for image in codec.decode(bench.draw(asked))]
        if asked.rows is not None:
            real = codec.decode(source.batch(asked.rows).x0)
            groups = [[one, *drawn] for one, drawn in zip(real, groups, strict=True)]
        told = asked.about["name"] if asked.about else asked.prompts
        captions = [p if s is None else f"{p} [{s}]" for p, s in zip(told, asked.styles, strict=True)]
        path = bench.sheets / f"{NAME}_{what}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        text_sheets.sheet(groups, captions, columns).save(path, optimize=True)
        names[what] = path.name
    return names


RUN_PART: dict[str, Callable[[Bench], Data]] = {
    "rows": part_rows,
    "colours": part_colours,
    "long": part_long,
    "speed": part_speed,
    "sheets": part_sheets,
}


def source_of(given: str, model: Drawer) -> Source:
    return (
        open_as(given, model.model.facts["codec"])
        if isinstance(model, Ours)
        else open_source(given, model.told["size"])
    )


def measure_model(order: Data) -> Data:
    """In this process: every part of one model, stored as soon as it is done."""
    results, work = Path(order["results"]), Path(order["work"])
    model = open_model(Path(order["path"]), order["options"])
    source = source_of(order["source"], model)
    judge = judge_for(source, progress=common.log)
    sheets = results / "grids" / order["label"]
    bench = Bench(model, source, judge, Store(work / "drawn"), order["numbers"], sheets)
    data = common.read(NAME, results) or common.envelope(models={}, commands=[])
    data["judge"] = {"name": judge.name, "seconds": judge.seconds, "real": judge.real, "chance": 1 / 50}
    kept = data["models"].get(order["label"], {})
    stamp = {"identity": model.identity, "numbers": order["numbers"], "judge": judge.fingerprint, "path": order["path"]}
    if any(kept.get(key) != value for key, value in stamp.items()):
        kept = {}
    row = stamp | {"role": order["role"], **model.facts, "parts": kept.get("parts", {})}
    for part in order["parts"]:
        if part not in row["parts"]:
            common.log(f"{order['label']}: {part}")
            row["parts"][part] = RUN_PART[part](bench)
            data["models"][order["label"]] = row
            common.write(NAME, data, results)
    data["models"][order["label"]] = row
    common.write(NAME, data, results)
    return row


def cold(order: Data) -> Data:
    """In a fresh process: load, draw one picture, write it."""
    model = open_model(Path(order["path"]), order["options"])
    x0 = model.draw(["a red apple"], [None], SEED)
    from PIL import Image

    pixels = x0[0].add(1).mul(127.5).round().clamp(0, 255).byte().permute(1, 2, 0).numpy()
    path = Path(order["work"]) / "cold.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.squeeze()).save(path)
    return {}


def first_picture(order: Data, times: int = 3) -> Data:
    """Seconds from starting a process to its first picture on disk."""
    seconds = []
    for _ in range(times):
        began = time.perf_counter()
        common.child("benchmarks.text_to_picture", ["--cold", json.dumps(order)])
        seconds.append(time.perf_counter() - began)
    return common.spread(seconds)


def worker(order: Data) -> None:
    """Run one model's process, its progress shown as it comes."""
    told = [sys.executable, "-m", "benchmarks.text_to_picture", "--worker", json.dumps(order)]
    done = subprocess.run(told, cwd=Path(__file__).parent.parent, stdout=subprocess.DEVNULL)
    if done.returncode:
        raise SystemExit(f"{order['label']}: the measuring process ended with {done.returncode}; what is done is kept")


def summary(data: Data) -> str:
    """The numbers that matter, a line each."""
    lines = []
    for label, row in data["models"].items():
        for kind, part in row["parts"].get("rows", {}).items():
            share = part["relative"] or part["first"]
            style = "" if part["style"] is None else f", style {part['style']['value']:.2f}"
            lines.append(
                f"{label}: {kind}: {share['value']:.2f} of real ({share['low']:.2f} to {share['high']:.2f}){style}"
            )
        for name, part in row["parts"].get("long", {}).items():
            lines.append(f"{label}: {name}: {part['value']:.2f}")
        if row["parts"].get("colours"):
            lines.append(f"{label}: colours {row['parts']['colours']['obeyed']['value']:.2f}")
        if "speed" in row["parts"]:
            lines.append(f"{label}: grid of four {row['parts']['speed']['grid_of_four']['median']:.2f} s")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", type=Path, help="run folder or exported file of ours")
    parser.add_argument("--label", help="its name in the tables (the folder's name): one for each way of drawing")
    parser.add_argument("--ablation", type=Path, nargs="*", default=[], help="runs of ours with one thing changed")
    parser.add_argument("--peer", type=Path, nargs="*", default=[], help="folders of benchmarks.text_peer")
    parser.add_argument("--source", default="icons")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--guidance", type=float, default=3.0)
    parser.add_argument("--autoguidance", type=float, help="of ours")
    parser.add_argument("--grid", help="of ours: the times visited")
    parser.add_argument("--solver", help="of ours")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument(
        "--quick", action="store_true", help="few pictures; the numbers go to --work, not to the results"
    )
    parser.add_argument("--work", type=Path, default=WORK, help="folder of what is drawn")
    parser.add_argument("--results", type=Path, default=common.RESULTS)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--cold", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker or args.cold:
        print(json.dumps(measure_model(json.loads(args.worker)) if args.worker else cold(json.loads(args.cold))))
        return
    if args.run is None and not args.ablation and not args.peer:
        parser.error("give --run, --ablation or --peer")
    results = (args.work / "quick" if args.quick else args.results).resolve()
    models = [("run", path) for path in ([args.run] if args.run else [])]
    models += [("ablation", path) for path in args.ablation] + [("peer", path) for path in args.peer]
    fields = ("steps", "guidance", "autoguidance", "grid", "solver")
    options = {name: getattr(args, name) for name in fields if getattr(args, name) is not None}
    labels = [args.label if role == "run" and args.label else path.resolve().name for role, path in models]
    if len(set(labels)) < len(labels):
        parser.error("two of the models have the same name: give --label, or rename a folder")
    for label, (role, path) in zip(labels, models, strict=True):
        order = {"label": label, "role": role, "path": str(path.resolve()), "source": args.source, "parts": args.parts}
        order |= {"options": options, "numbers": QUICK if args.quick else NUMBERS}
        order |= {"results": str(results), "work": str(args.work.resolve())}
        worker(order)
        data = common.read(NAME, results)
        assert data is not None
        data["commands"] = [*data["commands"], common.command()]
        speed = data["models"][label]["parts"].get("speed")
        if speed is not None and "first_picture" not in speed:
            speed["first_picture"] = first_picture(order, 1 if args.quick else 3)
        common.write(NAME, data, results)
    data = common.read(NAME, results)
    assert data is not None
    print(summary(data))
    print(results / f"{NAME}.json")


if __name__ == "__main__":
    main()
