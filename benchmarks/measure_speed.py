"""How long `sfumato measure A --against B` takes for 2,000 against 2,000 pictures at 64 pixels, and the memory it needs.

Whole processes: opening two folders of PNG files, training the extractor (its cache is empty the first time), every
metric with its interval, and the floor.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from benchmarks import common
from sfumato.data import PixelCodec
from sfumato.data.audit.align import blur


def folder(path: Path, n: int, size: int, seed: int, sigma: float) -> Path:
    """Smooth random colour pictures as PNG files; the two sets differ in smoothness."""
    path.mkdir(parents=True)
    generator = torch.Generator().manual_seed(seed)
    codec = PixelCodec(size, size, 3)
    for first in range(0, n, 200):
        x = blur(torch.randn(min(200, n - first), 3, size, size, generator=generator), sigma)
        for k, picture in enumerate(codec.pixels(x / x.abs().amax((1, 2, 3), keepdim=True))):
            Image.fromarray(picture).save(path / f"{first + k:06}.png", compress_level=1)
    return path


def timed(command: list[str], cache: Path) -> dict[str, Any]:
    """One process: its wall-clock and CPU seconds and the most memory it held."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(command, env={**os.environ, "SFUMATO_CACHE": str(cache)}, capture_output=True, text=True)
    wall, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise common.ChildError(done.stderr[-2000:])
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"seconds": wall, "cpu_seconds": spent, "peak_mb": after.ru_maxrss / 1024}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n", type=int, default=2000)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--results", type=Path, default=common.RESULTS)
    args = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as work:
        a, b = (folder(Path(work) / name, args.n, args.size, k, 1.0 + k) for k, name in enumerate("ab"))
        command = [sys.executable, "-m", "sfumato", "measure", str(a), "--against", str(b), "--json"]
        for extractor in ("trained now", "from the cache"):
            row = {"extractor": extractor, "n": args.n, "size": args.size, **timed(command, Path(work) / "cache")}
            rows.append(row)
            print(
                f"{args.n:,} against {args.n:,} at {args.size} px, extractor {extractor}: {row['seconds']:.1f} s "
                f"({row['cpu_seconds']:.1f} CPU-seconds), {row['peak_mb']:.0f} MB",
                flush=True,
            )
    print(common.write("measure_speed", common.envelope(rows=rows), args.results))


if __name__ == "__main__":
    main()
