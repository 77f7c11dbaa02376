"""The model that draws from words and on one canvas, from nothing, in a night on two cores; stopped, it goes on.

    sfumato data get emoji            (once: the pictures, by npm)
    python recipes/drawing.py --run runs/drawing --hours 8

First half: words alone at 32 pixels, where a picture costs a third. Second half: the same network at 64 pixels, beside words
with boxes, sketches, low resolutions and known pixels, each a slot of its own. Then times of its own for 8 and 10 calls, and one
file in half precision.

What it reaches has not been measured yet: the first half was stopped after a quarter (docs/text-to-picture.md).
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from sfumato.cli import main as sfumato
from sfumato.train import Run

# one level more of attention than a plain model: what stands where is said in words
NET = ["--set", "net.patch=2", "--set", "net.widths=[64,128,192,256]", "--set", "batch=64", "--set", "times.mean=0.0"]
SLOTS = "style,text,known,lowres,sketch,boxes"
GUIDANCE = "3"


def stage(source: str, run: Path, hours: float, told: list[str]) -> int:
    """Train this run to its end: from the beginning, or from where it was stopped. Returns 0, or an exit code."""
    begun = (run / "run.json").exists()
    if begun and _whole(run, hours):
        return 0
    code = sfumato(
        ["train", source, "--run", str(run), "--minutes", f"{60 * hours:g}", *(["--resume"] if begun else told)]
    )
    return code or (0 if _whole(run, hours) else 3)


def _whole(run: Path, hours: float) -> bool:
    """Whether its log says that the time is spent (a stopped run ends with exit code 0 as well)."""
    rows = Run(run).rows()
    return bool(rows) and rows[-1]["seconds"] >= 3600 * hours


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, default=Path("runs/drawing"), help="folder of both runs and of the file")
    parser.add_argument("--hours", type=float, default=8.0, help="of training in all, half of it for each size")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change the recipe of both")
    parser.add_argument("--sizes", type=int, nargs=2, default=[32, 64], help="of the pictures, first and last")
    options = parser.parse_args()
    small, large, half = options.run / "words", options.run / "canvas", options.hours / 2
    changed = [part for assignment in options.set for part in ("--set", assignment)]
    first = ["--recipe", "icons", "--size", str(options.sizes[0]), *NET, *changed]
    last = ["--start", str(small), "--slots", SLOTS, "--size", str(options.sizes[1]), *changed]
    code = stage("icons", small, half, first) or stage("scenes", large, half, last)
    code = code or sfumato(["calibrate", str(large), "--steps", "8", "10", "--guidance", GUIDANCE])
    file = options.run / "drawing.safetensors"
    code = code or sfumato(["export", str(large), "--to", str(file), "--half"])
    if code == 0:
        print(file)
    return code


if __name__ == "__main__":
    sys.exit(main())
