"""Words, boxes, known pixels and lines of held-out pictures: each alone, and all at once.

Every combination comes from one real picture: its caption, its boxes with their words, its left part and its lines. An
obeyed rate of all at once stands beside that of the condition alone and that of real pictures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from benchmarks import common, layouts_seen
from benchmarks.canvas_draw import Ways, to_model
from benchmarks.canvas_peers import pixels, tensor
from sfumato.core import Cond
from sfumato.data.controls import boxes_slot, known_slot, sketch_of, sketch_slot
from sfumato.data.layout import Box
from sfumato.data.open import open as open_source
from sfumato.guide import observe
from sfumato.measure.editing import edge_f
from sfumato.measure.intervals import mean_interval, wilson
from sfumato.measure.judge import AMONG, judge_for, meanings

if TYPE_CHECKING:
    from benchmarks.canvas import Bench

NAMES = ("text", "boxes", "known", "sketch")
KNOWN = 0.3  # of the width, at the left
EDGES = 0.7  # F-score from which on a sketch counts as obeyed
Data = dict[str, Any]


class Asked:
    """The conditions of held-out pictures, and judges of whether they are obeyed."""

    def __init__(self, bench: Bench) -> None:
        source, seen = bench.source, bench.numbers.get("judge")
        self.real, _ = bench.real(bench.numbers["combined"], boxed=True)
        self.rows = bench.rows(bench.numbers["combined"], boxed=True).tolist()
        self.names = [name for name in NAMES if bench.model.conditioned_on(name)]
        width = self.real.shape[3]
        self.keep = (torch.arange(width) < round(KNOWN * width)).expand(len(self.real), 1, *self.real.shape[2:])
        self.x0 = to_model(bench.model, self.real)
        self.captions = [] if source.captions is None else [source.captions[k] for k in self.rows]
        if not self.captions:
            self.names = [name for name in self.names if name != "text"]
        else:
            whole = replace(source, columns={})  # so that captions are judged, not names
            self.judge, self.said = judge_for(whole, seen, common.log), meanings(whole)
        self.boxes: list[tuple[Box, ...]] = []
        if "boxes" in source.columns:
            column, things = source.columns["boxes"], source.columns.get("things")
            self.boxes = [tuple(Box(*map(float, b[:4]), str(b[4])) for b in column[k] or ()) for k in self.rows]
            objects = bench.objects if things is None else "icons" + source.name.removeprefix("scenes")
            single = open_source(objects, source.codec.height)
            self.object_judge = judge_for(single, seen, common.log)
            if things is None:
                self.own = [[box.text for box in row] for row in self.boxes]
                self.pool = [str(box[4]) for row in column for box in row or ()]
            else:
                self.pool = meanings(single)
                self.own = [[self.pool[thing] for thing in things[k]] for k in self.rows]
        else:
            self.names = [name for name in self.names if name != "boxes"]

    def slots(self, names: Sequence[str]) -> Cond:
        """Those of these conditions that are no words of the whole."""
        made = {
            "known": lambda: known_slot(tensor(pixels(self.real)), self.keep),
            "sketch": lambda: sketch_slot(sketch_of(self.real)),
        }
        made["boxes"] = lambda: boxes_slot(self.boxes)
        return Cond({name: made[name]() for name in names if name != "text"})

    def drawn(self, bench: Bench, ways: Ways, names: Sequence[str]) -> Tensor:
        """A picture for every held-out one, told of these conditions; known pixels are pasted back."""

        def draw(rows: slice) -> tuple[Tensor, int]:
            prompts = tuple(self.captions[rows]) if "text" in names else None
            guides = (observe(self.keep[rows], self.x0[rows]),) if "known" in names else ()
            cond = self.slots(names).take(rows)
            words = "text" in names or "boxes" in names
            return ways.together(cond, guides, self.real[rows].shape, rows.start, prompts, words)

        key = f"combined-{'-'.join(names)}-{len(self.real)}"
        x, _, _ = bench.kept.pictures(key, len(self.real), draw)
        return torch.where(self.keep, tensor(pixels(self.real)), x) if "known" in names else x

    def obeyed(self, x: Tensor, names: Sequence[str]) -> Data:
        """For each of these conditions the share of pictures (of boxes) that obey it, with its 95 % interval."""
        found: Data = {}
        if "text" in names:
            own, among = [self.said[k] for k in self.rows], min(AMONG, len(set(self.said)))
            found["text"] = _share(self.judge.first(x, own, self.said, among))
        if "boxes" in names:
            among = min(AMONG, len(set(self.pool)))
            found["boxes"] = _share(layouts_seen.found(self.object_judge, self.pool, x, self.boxes, self.own, among))
        if "known" in names:
            same = (pixels(x) == pixels(self.real)).all(-1) | ~self.keep[:, 0].numpy()
            found["known"] = _share(torch.from_numpy(same.all((1, 2))))
        if "sketch" in names:
            f = edge_f(sketch_of(x) > 0.5, sketch_of(self.real) > 0.5)
            found["sketch"], found["f"] = _share(f >= EDGES), list(mean_interval(f))
        return found


def _share(hits: Tensor) -> list[float]:
    return list(wilson(float(hits.double().mean()), len(hits)))


def combined(bench: Bench, ways: Ways) -> None:
    """Every condition of the model alone, all of them at once, and real pictures, as rows of the results."""
    asked = Asked(bench)
    if len(asked.names) < 2:
        raise SystemExit(f"this model and source have {asked.names or 'none'} of {', '.join(NAMES)}: two are needed")
    bench.measured("combined", "real", measure=lambda: asked.obeyed(tensor(pixels(asked.real)), asked.names))
    sheets = {"real": asked.real}
    for names in (*((name,) for name in asked.names), tuple(asked.names)):
        label = "all" if len(names) > 1 else names[0]
        x = sheets[label] = asked.drawn(bench, ways, names)
        bench.measured("combined", label, measure=lambda x=x, names=names: asked.obeyed(x, names))
    lines = sketch_of(asked.real).expand(-1, asked.real.shape[1], -1, -1) * -2 + 1
    bench.sheet("combined", {"real": asked.real, "lines": lines} | sheets)
