"""What the audit finds of planted faults, and how fast: precision and recall per kind, beside cleanvision.

python -m benchmarks.planted_faults                 # found faults, seeds 0 to 2
python -m benchmarks.planted_faults --speed         # pictures per second and memory, added to the same results
"""

from __future__ import annotations

import argparse
import io
import json
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks import common
from benchmarks.planter import SETS, Truth, plant

COPIES = {"exact_duplicate", "near_duplicate"}
# what cleanvision calls the same
RIVAL = {
    "dark": "dark", "blown_out": "light", "blurred": "blurry", "low_information": "low_information",
    "odd_aspect": "odd_aspect_ratio", "tiny": "odd_size",
}  # fmt: skip
SMALL, LARGE = 64, (1152, 896)  # pixels of the speed part: squares, and 1.03 megapixels


class Score:
    """Counts of one kind: planted and found, planted, called rightly, called wrongly."""

    def __init__(self) -> None:
        self.found = self.planted = self.right = self.wrong = 0

    def add(self, called: set[str], planted: set[str], neutral: set[str]) -> None:
        """Files called; `neutral` ones carry another planted fault and count neither way."""
        self.found += len(called & planted)
        self.planted += len(planted)
        self.right += len(called & planted)
        self.wrong += len(called - planted - neutral)

    def to_json(self) -> dict[str, Any]:
        recall = self.found / self.planted if self.planted else None
        called = self.right + self.wrong
        precision = self.right / called if called else None
        counts = {"planted": self.planted, "found": self.found, "called_wrongly": self.wrong}
        return {"precision": precision, "recall": recall, **counts}


def judge(
    groups: dict[str, list[set[str]]], files: dict[str, set[str]], truth: Truth, scores: dict[str, Score]
) -> None:
    """Add one folder's answer: `groups` of copies by kind, and `files` called by kind."""
    source = {copy: original for _, original, copy in truth.copies}
    for kind in COPIES & groups.keys():
        where = {name: k for k, group in enumerate(groups[kind]) for name in group}
        wanted = [c for c in truth.copies if (c[0] == "exact") == (kind == "exact_duplicate")]
        for transformation, original, copy in wanted:
            hit = original in where and where.get(copy) == where[original]
            for score in (scores[kind], scores[f"{kind}:{transformation}"]):
                score.planted += 1
                score.found += hit
        for group in groups[kind]:
            shown = {source.get(name, name) for name in group}
            scores[kind].right += len(group) - len(shown)
            scores[kind].wrong += len(shown) - 1
    for kind, called in files.items():
        planted = truth.files.get(kind, set())
        scores[kind].add(called, planted, truth.touched - planted)


def ours(folder: Path) -> tuple[dict[str, list[set[str]]], dict[str, set[str]], set[str]]:
    """The audit's answer: groups of copies, files by kind, kinds said of the whole set."""
    from sfumato.data.audit import audit

    groups: dict[str, list[set[str]]] = {kind: [] for kind in COPIES}
    files: dict[str, set[str]] = defaultdict(set)
    whole = set()
    for finding in audit(str(folder)).findings:
        if finding.kind in COPIES:
            groups[finding.kind].append(set(finding.files))
        elif finding.files:
            files[finding.kind] |= set(finding.files)
        else:
            whole.add(finding.kind)
    return groups, files, whole


def theirs(folder: Path, broken: Iterable[str]) -> tuple[dict[str, list[set[str]]], dict[str, set[str]]]:
    """cleanvision's answer as it comes; files that cannot be read are kept from it."""
    import contextlib

    from cleanvision import Imagelab

    spoilt = set(broken)
    paths = [str(p) for p in sorted(folder.rglob("*.[pj][np]g")) if p.relative_to(folder).as_posix() not in spoilt]
    with contextlib.redirect_stdout(io.StringIO()):
        lab = Imagelab(filepaths=paths)
        lab.find_issues(n_jobs=2, verbose=False)

    def name(path: str) -> str:
        return Path(path).relative_to(folder).as_posix()

    files = {k: {name(p) for p in lab.issues.index[lab.issues[f"is_{v}_issue"]]} for k, v in RIVAL.items()}
    groups = {
        "exact_duplicate": [set(map(name, g)) for g in lab.info["exact_duplicates"].get("sets", [])],
        "near_duplicate": [set(map(name, g)) for g in lab.info["near_duplicates"].get("sets", [])],
    }
    return groups, files


def faults(seeds: list[int], clean: int, each: int, near: int, rival: bool) -> dict[str, Any]:
    """Plant, ask, judge; every set and seed."""
    scores: dict[str, dict[str, Score]] = {"sfumato": defaultdict(Score), "cleanvision": defaultdict(Score)}
    seconds: dict[str, float] = defaultdict(float)
    pictures = 0
    told: dict[str, list[str]] = defaultdict(list)
    for seed in seeds:
        for what in SETS:
            with tempfile.TemporaryDirectory() as scratch:
                folder = Path(scratch)
                truth = plant(folder, what, seed, clean, each, near)
                pictures += sum(1 for p in folder.rglob("*.*g"))
                start = time.perf_counter()
                groups, files, whole = ours(folder)
                seconds["sfumato"] += time.perf_counter() - start
                files = {**{kind: set() for kind in truth.files}, **files}
                judge(groups, files, truth, scores["sfumato"])
                # what is said of the set has no files: one planted or not per set
                wrong = (whole - truth.whole) & {"class_imbalance"}
                scores["sfumato"]["class_imbalance"].add(wrong | (whole & truth.whole), truth.whole, set())
                for kind, called in files.items():
                    false = called - truth.files.get(kind, set()) - truth.touched
                    told[kind] += [f"{what}/{seed}/{n}" for n in sorted(false)[:3]]
                if rival:
                    start = time.perf_counter()
                    groups, files = theirs(folder, truth.files["corrupt"])
                    seconds["cleanvision"] += time.perf_counter() - start
                    judge(groups, files, truth, scores["cleanvision"])
                common.log(f"{what}, seed {seed}: " + ", ".join(f"{k} {v:.1f} s" for k, v in seconds.items()))
    return {
        "scores": {who: {k: s.to_json() for k, s in sorted(kinds.items())} for who, kinds in scores.items() if kinds},
        "seconds": dict(seconds),
        "pictures": pictures,
        "called_wrongly": {k: v for k, v in told.items() if v},
        "setting": {"seeds": seeds, "clean": clean, "each": each, "near": near},
    }


def fill(folder: Path, n: int, large: bool) -> None:
    """n different pictures: garments at SMALL pixels as PNG, or photographs enlarged to LARGE as JPEG of quality 90."""
    from benchmarks.planter import _photographs
    from sfumato import data

    folder.mkdir(parents=True, exist_ok=True)
    if large:
        draw = np.random.default_rng(0)
        tiles = [p for p, _, _ in _photographs(draw)]
        for k in range(n):
            sheet = Image.new("RGB", LARGE)
            for x in range(0, LARGE[0], 128):
                for y in range(0, LARGE[1], 128):
                    sheet.paste(tiles[draw.integers(len(tiles))].resize((128, 128)), (x, y))
            sheet.save(folder / f"{k:06d}.jpg", quality=90)
        return
    source = data.open("fashion-mnist", 28)
    for k in range(n):
        picture = Image.fromarray(source.pixels[k % len(source), :, :, 0]).resize(
            (SMALL, SMALL), Image.Resampling.BICUBIC
        )
        if k >= len(source):  # beyond 60,000: turned, which makes them others
            picture = picture.rotate(90 * (k // len(source)))
        picture.save(folder / f"{k:06d}.png", compress_level=1)


def measure(folder: str) -> None:
    """In a process of its own: audit one folder and print seconds."""
    from sfumato.data.audit import audit

    start = time.perf_counter()
    images = audit(folder).images
    spent = time.perf_counter() - start
    print(json.dumps({"pictures": images, "seconds": spent, "per_second": images / spent}))


def speed(sizes: list[int], large: int) -> dict[str, Any]:
    """Pictures per second at 64 pixels and at a megapixel, and the greatest memory by number of pictures."""
    found: dict[str, Any] = {"small": [], "large": []}
    for n, big in [*((n, False) for n in sizes), (large, True)]:
        with tempfile.TemporaryDirectory() as scratch:
            fill(Path(scratch), n, big)
            answer, peak = common.watched("benchmarks.planted_faults", ["--measure", scratch])
            found["large" if big else "small"].append({**answer, "peak_mb": peak})
            common.log(f"{n} {'large' if big else 'small'}: {found['large' if big else 'small'][-1]}")
    return found


def show(result: dict[str, Any]) -> str:
    """One line per kind and library."""
    lines = []
    for who, kinds in result["scores"].items():
        for kind, s in kinds.items():
            p, r = ("  -  " if s[k] is None else f"{s[k]:.3f}" for k in ("precision", "recall"))
            lines.append(
                f"{who:12} {kind:30} precision {p} recall {r} ({s['found']} of {s['planted']}, {s['called_wrongly']} wrong)"
            )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--seeds", type=int, nargs="+", default=[0, 1, 2], help="10 and above are for choosing thresholds"
    )
    parser.add_argument("--clean", type=int, default=400, help="clean pictures per set")
    parser.add_argument("--each", type=int, default=8, help="pictures per fault and set")
    parser.add_argument("--near", type=int, default=12, help="near-duplicates per transformation and set")
    parser.add_argument("--no-rival", action="store_true", help="without cleanvision")
    parser.add_argument("--speed", action="store_true")
    parser.add_argument("--sizes", type=int, nargs="+", default=[1000, 10_000], help="add 200000 for the long one")
    parser.add_argument("--large", type=int, default=300)
    parser.add_argument("--measure", metavar="FOLDER", help=argparse.SUPPRESS)
    parser.add_argument("--results", type=Path, default=common.RESULTS)
    args = parser.parse_args()
    if args.measure:
        return measure(args.measure)
    old = common.read("planted_faults", args.results) or {}
    packages = (*common.PACKAGES[:2], "pillow", "cleanvision", "scikit-image")
    about = {**common.envelope(), "versions": common.versions(packages)}
    about["commands"] = [*dict.fromkeys([*old.get("commands", []), about["command"]])]
    if args.speed:
        result = {**old, **about, "speed": speed(args.sizes, args.large)}
    else:
        found = faults(args.seeds, args.clean, args.each, args.near, not args.no_rival)
        print(show(found))
        result = {**old, **about, "faults": found}
    print(common.write("planted_faults", result, args.results), file=sys.stderr)


if __name__ == "__main__":
    main()
