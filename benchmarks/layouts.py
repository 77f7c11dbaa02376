"""How well a model puts things where they are asked for: boxes with words, held-out layouts of composed scenes.

    python -m benchmarks.layouts --run RUN [--source scenes] [--quick]

Real scenes of the same layouts are measured beside the drawn ones, by the same judge: every rate is read against theirs. What
is drawn is kept in --work, and results/layouts.json is written after every row: an interrupted benchmark goes on where it
stopped. `--quick` takes few layouts and writes its numbers beside them.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from benchmarks import common, layouts_seen, record
from benchmarks.canvas_draw import Kept, Ways
from benchmarks.canvas_peers import pixels, tensor
from benchmarks.text_prompts import drawn
from sfumato.core import Cond
from sfumato.data import Source
from sfumato.data.controls import boxes_slot
from sfumato.data.layout import Box, Layout, read_layout
from sfumato.data.open import open as open_source
from sfumato.data.open import open_as
from sfumato.measure.intervals import wilson
from sfumato.measure.judge import AMONG, Judge, judge_for, meanings
from sfumato.tasks import Model, load
from sfumato.tasks.layout import layout

NAME = "layouts"
WORK = Path("runs/layouts")
EXAMPLES = Path(__file__).parent.parent / "docs" / "layouts"
REAL, BOXES, BOTH, WORDS, REGIONS = "real scenes", "boxes", "boxes and caption", "caption alone", "regions"
MANY = range(2, 6)  # boxes of a layout
NUMBERS = {"layouts": 200, "positions": 120, "regions": 40, "examples": 4}
QUICK = {"layouts": 8, "positions": 4, "regions": 2, "examples": 2}
SHOWN = 8  # layouts of a sheet
RELATIONS = (" left of ", " right of ", " above ", " below ")
PAGE = 128  # pixels of a drawn layout's side
INKS = ("#c62828", "#1565c0", "#2e7d32", "#6a1b9a", "#ef6c00")
Data = dict[str, Any]


class Unboxed(Model):
    """A model as if it had not learned boxes: what the task does without them."""

    def conditioned_on(self, name: str) -> bool:
        return name != "boxes" and super().conditioned_on(name)


@dataclass
class Bench:
    """A model, held-out layouts, the judge, and where numbers and pictures go."""

    model: Model
    source: Source
    row: Data
    save: Callable[[], Any]
    numbers: dict[str, int]
    options: Data
    work: Path
    results: Path
    label: str
    kept: Kept = field(init=False)

    def __post_init__(self) -> None:
        missing = {"boxes", "things"} - self.source.columns.keys()
        if missing or "layouts" not in self.source.holdout or self.source.captions is None:
            raise SystemExit(f"{self.source.name} has no held-out layouts: give --source scenes, or scenes:STYLE,STYLE")
        if not self.ways:
            raise SystemExit("this model learned neither boxes nor captions: it cannot be told what stands where")
        self.kept = Kept(self.work / self.row["identity"])

    @property
    def ways(self) -> tuple[str, ...]:
        """How the model can be told a layout."""
        boxes, text = (self.model.conditioned_on(name) for name in ("boxes", "text"))
        return (*((BOXES,) if boxes else ()), *((BOTH,) if boxes and text else ()), *((WORDS, REGIONS) if text else ()))

    @cached_property
    def things(self) -> Source:
        """The single things that scenes are made of, of the same styles."""
        return open_source("icons" + self.source.name.removeprefix("scenes"), self.source.codec.height)

    @cached_property
    def judge(self) -> Judge:
        return judge_for(self.things, progress=common.log)

    @cached_property
    def pool(self) -> list[str]:
        return meanings(self.things)

    def boxes(self, rows: Tensor) -> list[tuple[Box, ...]]:
        told = (self.source.columns["boxes"][k] for k in rows.tolist())
        return [tuple(Box(*map(float, b[:4]), str(b[4])) for b in row) for row in told]

    def own(self, rows: Tensor) -> list[list[str]]:
        """What stands in each box, in the words that the judge learned."""
        return [[self.pool[k] for k in self.source.columns["things"][row]] for row in rows.tolist()]

    def captions(self, rows: Tensor) -> list[str]:
        assert self.source.captions is not None
        return [self.source.captions[k] for k in rows.tolist()]

    def rows(self, part: str) -> Tensor:
        """Held-out layouts of two to five boxes ("layouts"), or of two whose caption says how they stand ("positions")."""
        held = self.source.holdout["layouts"]
        many = torch.tensor([len(self.source.columns["boxes"][k]) for k in held.tolist()])
        chosen = (many >= MANY.start) & (many < MANY.stop)
        if part == "positions":
            said = [any(r in caption for r in RELATIONS) for caption in self.captions(held)]
            chosen = (many == 2) & torch.tensor(said)
        return drawn(held[chosen], self.numbers[part])

    def pictures(self, way: str, part: str, rows: Tensor) -> tuple[Tensor, int, float]:
        """Pictures of these layouts told in this way, network calls and seconds for each; real ones have none."""
        if way == REAL:
            return tensor(pixels(self.source.batch(rows).x0)), 0, 0.0
        key = f"{part}-{way.replace(' ', '-')}-{len(rows)}"
        return self.kept.pictures(key, len(rows), lambda some: self._draw(way, rows[some], some.start))

    def _draw(self, way: str, rows: Tensor, first: int) -> tuple[Tensor, int]:
        boxes, shape = self.boxes(rows), self.source.shapes[0]
        if way == REGIONS:
            model = Unboxed(**{f.name: getattr(self.model, f.name) for f in fields(self.model)})
            made = [
                layout(model, Layout(shape[1], shape[0], one, ""), shape, **{"first": first + k} | self.options)
                for k, one in enumerate(boxes)
            ]
            return tensor(pixels(torch.cat([m.x0 for m in made]))), sum(m.network_calls for m in made) // len(made)
        slots = Cond({"boxes": boxes_slot(boxes)}) if way != WORDS else Cond()
        prompts = tuple(self.captions(rows)) if way != BOXES else None
        spec = (len(rows), self.source.codec.spec[0], *shape)
        return Ways(self.model, self.options).together(slots, (), spec, first, prompts, True)

    def measured(self, *place: str, measure: Callable[[], Data]) -> Data:
        """The numbers at this place of the results, measured now if they are not there."""
        return record.measured(self.row["parts"], place, measure, self.save, str)


def share(hits: Tensor) -> list[float]:
    """The share of hits with its 95 % interval."""
    return list(wilson(float(hits.double().mean()), len(hits)))


def part_layouts(bench: Bench) -> None:
    """Things in their boxes and nothing elsewhere, by every way, beside real scenes."""
    rows, sheets = bench.rows("layouts"), {}
    for way in (REAL, *bench.ways):
        here = rows[: bench.numbers["regions"]] if way == REGIONS else rows
        x, calls, seconds = bench.pictures(way, "layouts", here)
        measure = partial(in_boxes, bench, x, here)
        bench.measured("layouts", way, measure=lambda m=measure, c=calls, s=seconds: m() | {"calls": c, "seconds": s})
        sheets[way] = x
    groups = [
        [picture_of(boxes), *(record.image(x[k]) for x in sheets.values() if k < len(x))]
        for k, boxes in enumerate(bench.boxes(rows[:SHOWN]))
    ]
    record.save_sheet(common.sheet_path(NAME, bench.label, "held", bench.results), groups, bench.captions(rows[:SHOWN]))


def in_boxes(bench: Bench, x: Tensor, rows: Tensor) -> Data:
    """The share of boxes that hold the right thing, in all and by the number of boxes, and of pictures with the right count."""
    boxes = bench.boxes(rows)
    among = min(AMONG, len(set(bench.pool)))
    hits = layouts_seen.found(bench.judge, bench.pool, x, boxes, bench.own(rows), among)
    many = torch.tensor([len(row) for row in boxes for _ in row])
    counts = torch.tensor([layouts_seen.counted(one, row) for one, row in zip(x, boxes, strict=True)])
    by = {str(k): share(hits[many == k]) for k in MANY if bool((many == k).any())}
    return {"boxes": share(hits), "by": by, "count": share(counts), "among": among, "n": len(rows), "of": len(hits)}


def part_positions(bench: Bench) -> None:
    """Two things told by "left of", "right of", "above", "below": do they stand so, by the caption alone and with boxes."""
    rows = bench.rows("positions")
    if not len(rows):
        raise SystemExit(f"{bench.source.name} has no held-out caption that tells where two things stand")
    asked = [layouts_seen.stands(boxes) for boxes in bench.boxes(rows)]
    pairs = [(first, second) for first, second in bench.own(rows)]
    for way in (REAL, *(way for way in bench.ways if way != REGIONS)):

        def measure(way: str = way) -> Data:
            x, _, _ = bench.pictures(way, "positions", rows)
            return {
                "stands": share(layouts_seen.standing(layouts_seen.located(bench.judge, x, pairs), asked)),
                "n": len(x),
            }

        bench.measured("positions", way, measure=measure)


def part_examples(bench: Bench) -> None:
    """Layouts made by hand, drawn by the task itself: a sheet, and the things that the judge finds in their boxes."""
    groups, captions = [], []
    for path in sorted(EXAMPLES.glob("*.json")):
        told, n = read_layout(path), bench.numbers["examples"]

        def draw(rows: slice, told: Layout = told) -> tuple[Tensor, int]:
            size, options = bench.source.shapes[0], {"n": rows.stop - rows.start, "first": rows.start} | bench.options
            made = layout(bench.model, told, size, **options)
            return tensor(pixels(made.x0)), made.network_calls

        x, _, _ = bench.kept.pictures(f"example-{path.stem}-{n}", n, draw)

        def measure(x: Tensor = x, told: Layout = told) -> Data:
            boxes, pool = [told.boxes] * len(x), [*bench.pool, *(box.text for box in told.boxes)]
            own = [[box.text for box in row] for row in boxes]
            hits = layouts_seen.found(bench.judge, pool, x, boxes, own, min(AMONG, len(set(pool))))
            return {"boxes": share(hits), "n": len(x), "of": len(hits)}

        bench.measured("examples", path.stem, measure=measure)
        groups.append([picture_of(told.boxes), *(record.image(one) for one in x)])
        captions.append(
            f"{path.name}: {', '.join(box.text for box in told.boxes)}; {told.background or 'no background'}"
        )
    record.save_sheet(common.sheet_path(NAME, bench.label, "examples", bench.results), groups, captions)


def picture_of(boxes: tuple[Box, ...]) -> Image.Image:
    """A layout as outlines with their words."""
    page = Image.new("RGB", (PAGE, PAGE), "white")
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(10)
    for k, box in enumerate(boxes):
        ink = INKS[k % len(INKS)]
        left, top = (round(v * (PAGE - 1)) for v in box[:2])
        draw.rectangle([left, top, *(round(v * (PAGE - 1)) for v in box[2:4])], outline=ink)
        draw.text((left + 2, top + 1), box.text[:18], fill=ink, font=font)
    return page


def opened(args: argparse.Namespace, results: Path) -> Bench:
    """The model of a run, and its row of the results; a row of other weights or numbers is begun anew."""
    model = load(args.run)
    options = record.options_of(args)
    numbers = QUICK if args.quick else NUMBERS
    asked = (path.read_bytes() for path in sorted(EXAMPLES.glob("*.json")))
    stamp, (data, label) = record.stamp(args, model, options, numbers, *asked), record.opened(NAME, args, results)
    row = data["models"].get(label, {})
    if row.get("stamp") != stamp:
        row = {"stamp": stamp, "parts": {}}
    data["models"][label] = row
    source, save = open_as(args.source, model.facts["codec"]), partial(common.write, NAME, data, results)
    kept = {"identity": stamp["identity"], "parts": row["parts"]}
    bench = Bench(model, source, kept, save, numbers, options, args.work, results, label)
    row["judge"] = bench.judge.real
    return bench


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", type=Path, required=True, help="run folder or exported file")
    parser.add_argument("--source", default="scenes", help="scenes, or scenes:STYLE,STYLE")
    parser.add_argument("--label", help="its name in the tables (the folder's name)")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--solver")
    parser.add_argument("--grid")
    parser.add_argument("--quick", action="store_true", help="few layouts; the numbers go to --work")
    parser.add_argument("--work", type=Path, default=WORK, help="folder of what is drawn")
    parser.add_argument("--results", type=Path, default=common.RESULTS)
    args = parser.parse_args()
    results = (args.work / "quick" if args.quick else args.results).resolve()
    bench = opened(args, results)
    part_layouts(bench)
    if bench.model.conditioned_on("text"):
        part_positions(bench)
    part_examples(bench)
    bench.save()
    print(results / f"{NAME}.json")


if __name__ == "__main__":
    main()
