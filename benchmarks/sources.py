"""Pictures per second and memory when a set is not in memory: every format, one seeded set, two sizes of it.

Each row is a process of its own: it opens the set (one look at every picture), then trains nothing but asks for the
batches of one epoch in the order of training. "grown" is its peak memory above that of the same process on 64 pictures.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks import common

BATCH = 32


def make(root: Path, n: int, side: int) -> None:
    """n JPEGs of smooth noise in two classes."""
    rng = np.random.default_rng(0)
    for k in range(n):
        path = root / f"class-{k % 2}" / f"{k // 1000:03d}" / f"{k:07d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        small = Image.fromarray(rng.integers(0, 256, (12, 12, 3), dtype=np.uint8))
        small.resize((side, side), Image.Resampling.BICUBIC).save(path, quality=90)


def convert(folder: Path, kind: str, out: Path) -> Path:
    """The folder in another format."""
    from sfumato.data.pack import pack
    from sfumato.data.records import open_records

    if kind == "folder":
        return folder
    records = open_records(str(folder))
    if kind == "tar":
        pack(records, out / "tar", 64 * 10**6)
        return out / "tar"
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = out / "set.parquet"
    schema = pa.schema([("image", pa.binary()), ("file_name", pa.string())])
    with pq.ParquetWriter(path, schema) as writer:
        for first in range(0, len(records), 100):
            part = [records[k] for k in range(first, min(first + 100, len(records)))]
            rows = {"image": [r.read() for r in part], "file_name": [r.key for r in part]}
            writer.write_table(pa.table(rows, schema=schema))
    return path


def one(path: str, size: int) -> None:
    """The measured process: one JSON line."""
    import resource

    import sfumato.data as data
    from sfumato.data import source as source_module

    source_module.LIMIT_BYTES = 0  # never in memory
    began = time.perf_counter()
    source = data.open(path, size=size)
    opened = time.perf_counter()
    order = data.Order(len(source.train_index), BATCH, 0, source.window)
    steps = len(source.train_index) // BATCH
    for step in range(steps):
        source.batch(source.train_index[order.at(step)])
        source.expect(source.train_index[order.at(step + 1)])
    read = steps * BATCH / (time.perf_counter() - opened)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    decoded = len(source) * size * size * 3
    print(json.dumps({"opened": opened - began, "read": read, "peak": peak, "decoded": decoded}))


def measured(path: Path, size: int) -> dict[str, float]:
    """`one` in a fresh process with a cache of its own."""
    with tempfile.TemporaryDirectory() as cache:
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.sources", "--one", str(path), "--size", str(size)],
            capture_output=True,
            text=True,
            check=True,
            cwd=Path(__file__).parent.parent,
            env={**os.environ, "SFUMATO_CACHE": cache},
        )
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pictures", type=int, nargs="+", default=[1_000, 8_000])
    parser.add_argument("--side", type=int, default=256, help="of the JPEGs")
    parser.add_argument("--size", type=int, default=64, help="decoded to")
    parser.add_argument("--one", metavar="SOURCE", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        return one(options.one, options.size)
    rows = []
    for n in [64, *options.pictures]:
        with tempfile.TemporaryDirectory() as scratch:
            make(Path(scratch) / "set", n, options.side)
            for kind in ("folder", "tar", "parquet"):
                path = convert(Path(scratch) / "set", kind, Path(scratch))
                rows.append({"kind": kind, "pictures": n, **measured(path, options.size)})
    least = {row["kind"]: row["peak"] for row in rows[:3]}
    print(
        "| format | pictures | decoded, MB | look, pictures/s | batches, pictures/s | grown, MB |\n|---|---|---|---|---|---|"
    )
    for row in rows[3:]:
        row["grown"] = row["peak"] - least[row["kind"]]
        print(
            f"| {row['kind']} | {row['pictures']:,} | {row['decoded'] / 1e6:,.0f} | {row['pictures'] / row['opened']:,.0f} "
            f"| {row['read']:,.0f} | {row['grown'] / 1e6:,.0f} |"
        )
    print(common.write("sources", common.envelope(side=options.side, size=options.size, rows=rows)))


if __name__ == "__main__":
    main()
