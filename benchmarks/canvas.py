"""How well pictures are edited: holes filled, pictures enlarged, seams, and several conditions at once.

    python -m benchmarks.canvas PART --run RUN --source SOURCE [--quick]

PART is inpaint, upscale, seams or combined. What is drawn is kept in --work, and results/canvas.json is written after every
row: an interrupted benchmark goes on where it stopped. `--quick` takes few pictures and writes its numbers beside them.
Every edit is measured on held-out pictures; KID is against other held-out pictures, so that the row "truth" tells its floor.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from benchmarks import canvas_peers as peers
from benchmarks import common, record
from benchmarks.canvas_combined import combined
from benchmarks.canvas_draw import Kept, Ways, hole, masks, mosaics
from benchmarks.canvas_peers import pixels, tensor
from benchmarks.text_prompts import drawn
from sfumato.core import SfumatoError
from sfumato.data import Source
from sfumato.data.open import open_as
from sfumato.guide.windows import starts
from sfumato.measure import Features, features_for, kid_interval, mean_interval
from sfumato.measure.editing import feature_distance, inconsistency, psnr, seam_ratio, ssim
from sfumato.tasks import Model, load
from sfumato.tasks.upscale import OVERLAP, upscale

NAME = "canvas"
WORK = Path("runs/canvas")
PARTS = ("inpaint", "upscale", "seams", "combined")
SCALES, STEPS = (2, 4), 10  # enlarging: at most ten network calls
SPEED = 512  # pixels of the side of the picture that is timed
# pictures of each part, of the reference, and that a judge learns from (as many as it likes, where nothing is said)
NUMBERS = {"inpaint": 200, "upscale": 200, "seams": 24, "combined": 50, "reference": 1000}
QUICK = {"inpaint": 8, "upscale": 8, "seams": 3, "combined": 4, "reference": 24, "judge": 4000}
SHOWN = 6  # pictures of a sheet
Data = dict[str, Any]
Drawn = tuple[Tensor, int, float]  # pictures, network calls, seconds for each


@dataclass
class Bench:
    """A model, held-out pictures, and where numbers and pictures go."""

    model: Model
    source: Source
    row: Data
    save: Callable[[], Any]
    numbers: dict[str, int]
    work: Path
    results: Path
    label: str
    objects: str  # the set that boxes' words are judged by
    kept: Kept = field(init=False)

    def __post_init__(self) -> None:
        self.kept = Kept(self.work / self.row["identity"])
        if len(self.source.shapes) > 1:
            raise SystemExit("this benchmark takes pictures of one shape: give --source another size or set")

    @cached_property
    def features(self) -> Features:
        common.log("features of the source (trained once, then kept)")
        return features_for(self.source)

    def rows(self, n: int, boxed: bool = False) -> Tensor:
        """At most n held-out rows (with boxes), and at most half of what there is."""
        held = self.source.validation_index
        if boxed and "boxes" in self.source.columns:
            held = self.source.holdout.get("layouts", held)
            held = held[torch.tensor([bool(self.source.columns["boxes"][k]) for k in held.tolist()])]
        return drawn(held, min(n, len(held) // 2))

    def real(self, n: int, boxed: bool = False) -> tuple[Tensor, Tensor]:
        """The pictures of these rows, and other held-out ones to measure against."""
        mine, held = self.rows(n, boxed), self.source.validation_index
        others = drawn(held[~torch.isin(held, mine)], self.numbers["reference"])
        return self.source.batch(mine).x0, self.source.batch(others).x0

    def measured(self, *place: str, measure: Callable[[], Data]) -> Data:
        """The numbers at this place of the results, measured now if they are not there."""
        return record.measured(self.row["parts"], place, measure, self.save, short)

    def sheet(self, name: str, ways: dict[str, Tensor]) -> None:
        """The first pictures, the ways side by side."""
        groups = [
            [record.image(x[k]) for x in ways.values()] for k in range(min(SHOWN, *(len(x) for x in ways.values())))
        ]
        captions = [" | ".join(ways)] + [""] * (len(groups) - 1)
        record.save_sheet(common.sheet_path(NAME, self.label, name, self.results), groups, captions)


def short(row: Data) -> str:
    told = {k: v[0] if isinstance(v, list) else v for k, v in row.items()}
    return ", ".join(f"{k} {v:.4g}" if isinstance(v, int | float) else f"{k} {v}" for k, v in told.items())


def part_inpaint(bench: Bench, ways: Ways) -> None:
    """Holes of every kind, filled by OpenCV, by every way of the model, and by the truth."""
    real, others = bench.real(bench.numbers["inpaint"])
    seen = bench.features(others)
    for name, fill in masks(len(real), real.shape[2:]).items():
        crops = bench.features(hole(others, fill[torch.arange(len(others)) % len(fill)]))
        made: dict[str, Drawn] = {"truth": (real, 0, 0.0)}
        for method in ("Telea", "Navier-Stokes"):
            made[method] = timed(lambda method=method, fill=fill: peers.opencv(real, fill, method))
        for way in ways.inpainting():
            made[way] = bench.kept.pictures(
                f"inpaint-{name}-{way.replace(' ', '-')}-{len(real)}",
                len(real),
                lambda rows, way=way, fill=fill: ways.inpaint(way, real[rows], fill[rows], rows.start),
            )
        for way, found in made.items():
            bench.measured("inpaint", name, way, measure=partial(filled, bench, found, real, fill, seen, crops))
        emptied = torch.where(fill, 0.0, real)
        bench.sheet(f"inpaint_{name}", {"given": emptied} | {way: x for way, (x, *_) in made.items()})


def filled(bench: Bench, found: Drawn, real: Tensor, fill: Tensor, seen: Tensor, crops: Tensor) -> Data:
    """The numbers of filled holes: `seen` and `crops` are features of other pictures and of the same parts of them."""
    x, calls, seconds = found
    row: Data = {"kid": list(kid_interval(bench.features(x), seen))}
    row["hole_kid"] = list(kid_interval(bench.features(hole(x, fill)), crops))
    if x is not real:
        row["psnr"] = list(mean_interval(psnr(x, real, fill)))
    row["seam"] = seam(x, real, fill)
    row["touched"] = int(((pixels(x) != pixels(real)).any(-1) & ~fill[:, 0].numpy()).sum())  # of the kept pixels
    return row | {"calls": calls, "seconds": seconds, "n": len(x)}


def seam(x: Tensor, real: Tensor, where: Tensor) -> list[float] | None:
    """The seam ratio with its interval; None where the real pictures are flat."""
    try:
        return list(seam_ratio(x, real, where))
    except SfumatoError:
        return None


def part_upscale(bench: Bench, ways: Ways) -> None:
    """Block means of held-out pictures, enlarged by Pillow, by a packaged ESRGAN and by every way of the model."""
    real, others = bench.real(bench.numbers["upscale"])
    seen = bench.features(others)
    for scale in SCALES:
        small = tensor(pixels(functional.avg_pool2d(real, scale)))
        made: dict[str, Drawn] = {"truth": (real, 0, 0.0)}
        for method in peers.RESAMPLING:
            made[method] = timed(lambda method=method, small=small, scale=scale: peers.resized(small, scale, method))
        if real.shape[1] == 3:
            network = peers.esrgan(bench.work / "peers", scale)
            made["ESRGAN"] = timed(lambda network=network, small=small: peers.enlarged(network, small))
        for way in ways.enlarging():
            made[way] = bench.kept.pictures(
                f"upscale-{scale}-{way.replace(' ', '-')}-{len(real)}",
                len(real),
                lambda rows, way=way, small=small, scale=scale: ways.enlarge(way, small[rows], scale, rows.start),
            )
        for way, found in made.items():
            bench.measured("upscale", f"x{scale}", way, measure=partial(larger, bench, found, real, small, seen))
        nearest = functional.interpolate(small, scale_factor=scale, mode="nearest")
        bench.sheet(f"upscale_x{scale}", {"given": nearest} | {way: x for way, (x, *_) in made.items()})
    bench.measured("upscale", "speed", measure=lambda: _speed(bench, real, ways.options))


def larger(bench: Bench, found: Drawn, real: Tensor, small: Tensor, seen: Tensor) -> Data:
    """The numbers of enlarged pictures: `seen` are features of other pictures."""
    x, calls, seconds = found
    row: Data = {"kid": list(kid_interval(bench.features(x), seen))}
    if x is not real:
        row |= {"psnr": list(mean_interval(psnr(x, real))), "ssim": list(mean_interval(ssim(x, real)))}
        row["distance"] = list(mean_interval(feature_distance(bench.features, x, real)))
    row["inconsistency"] = list(mean_interval(inconsistency(x, small)))
    return row | {"calls": calls, "seconds": seconds, "n": len(x)}


def timed(make: Callable[[], Tensor]) -> Drawn:
    """Pictures made now, with no call of our network, and seconds for each."""
    began = time.perf_counter()
    x = make()
    return x, 0, (time.perf_counter() - began) / len(x)


def _speed(bench: Bench, real: Tensor, options: Data) -> Data:
    """Seconds of the task itself, for a large picture four times its size."""
    side = SPEED // 4
    across = -(-side // min(real.shape[2:]))
    some = real[torch.arange(across**2) % len(real)].reshape(across, across, *real.shape[1:])
    picture = torch.cat([torch.cat(list(row), 2) for row in some], 1)[:, :side, :side]
    result = upscale(bench.model, record.image(picture), 4, **options)
    return {"seconds": result.seconds, "calls": result.network_calls, "side": result.images[0].width, "by": result.by}


def part_seams(bench: Bench, ways: Ways) -> None:
    """The task itself on pictures of twice the model's size, drawn in windows: steps at the borders of windows."""
    real, _ = bench.real(9 * bench.numbers["seams"])
    large = mosaics(real, bench.numbers["seams"])
    small = tensor(pixels(functional.avg_pool2d(large, 2)))

    def draw(rows: slice) -> tuple[Tensor, int]:
        results = [upscale(bench.model, record.image(x), 2, **ways.options) for x in small[rows]]
        images = [bench.source.codec.sized(*large.shape[2:]).encode([r.images[0]]) for r in results]
        return torch.cat(images), results[0].network_calls

    def measure() -> Data:
        x, calls, seconds = bench.kept.pictures(f"seams-{len(large)}", len(large), draw)
        where, bicubic = borders(large.shape[2:], real.shape[2:]), peers.resized(small, 2, "bicubic")
        bench.sheet("seams", {"given": functional.interpolate(small, scale_factor=2), "ours": x, "truth": large})
        row: Data = {"seam": seam(x, large, where), "bicubic": seam(bicubic, large, where)}
        return row | {"calls": calls, "seconds": seconds, "n": len(x)}

    bench.measured("seams", "windows", measure=measure)


def borders(size: tuple[int, int], window: tuple[int, int]) -> Tensor:
    """A region whose borders are those of the windows that a picture of this size is drawn in, bool [1, 1, H, W]."""
    axes = []
    for n, w in zip(size, window, strict=True):
        odd = torch.zeros(n, dtype=torch.bool)
        firsts = starts(n, w, min(window) // OVERLAP, False, 2)
        for edge in {first + k for first in firsts for k in (0, w)}:
            odd[edge:] ^= True
        axes.append(odd)
    return (axes[0][:, None] ^ axes[1])[None, None]


RUN_PART = {"inpaint": part_inpaint, "upscale": part_upscale, "seams": part_seams, "combined": combined}


def opened(args: argparse.Namespace, results: Path) -> tuple[Bench, Ways]:
    """The model of a run, and its row of the results; a row of other weights or numbers is begun anew."""
    model = load(args.run)
    options = record.options_of(args)
    if args.part in ("upscale", "seams"):
        options = {"steps": STEPS} | options
    numbers = QUICK if args.quick else NUMBERS
    numbers = numbers if args.n is None else {**numbers, args.part: args.n}
    stamp, (data, label) = record.stamp(args, model, options, numbers), record.opened(NAME, args, results)
    model_row = data["models"].setdefault(label, {"parts": {}, "stamps": {}})
    if model_row["stamps"].get(args.part) != stamp:
        model_row["stamps"][args.part] = stamp
        model_row["parts"].pop(args.part, None)
    row = {"identity": stamp["identity"], "parts": model_row["parts"]}
    source = open_as(args.source, model.facts["codec"])
    save = partial(common.write, NAME, data, results)
    bench = Bench(model, source, row, save, numbers, args.work, results, label, args.objects)
    return bench, Ways(model, options)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--run", type=Path, required=True, help="run folder or exported file")
    parser.add_argument("--source", required=True, help="the set whose held-out pictures are edited")
    parser.add_argument(
        "--objects", default="icons", help="captioned set of single things, to judge what stands in boxes"
    )
    parser.add_argument("--label", help="its name in the tables (the folder's name)")
    parser.add_argument("--n", type=int, help="pictures that are edited")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--solver")
    parser.add_argument("--grid")
    parser.add_argument("--quick", action="store_true", help="few pictures; the numbers go to --work")
    parser.add_argument("--work", type=Path, default=WORK, help="folder of what is drawn")
    parser.add_argument("--results", type=Path, default=common.RESULTS)
    args = parser.parse_args()
    results = (args.work / "quick" if args.quick else args.results).resolve()
    bench, ways = opened(args, results)
    RUN_PART[args.part](bench, ways)
    bench.save()
    print(results / f"{NAME}.json")


if __name__ == "__main__":
    main()
