"""Are pictures made again bit for bit from their files? Random requests and edits of one model, written, verified, repeated.

    python -m benchmarks.origin MODEL [--n 100]

Every output is a row of results/origin.json; an interrupted benchmark goes on where it stopped.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks import common
from sfumato.core import Noise
from sfumato.measure.reproduce import TASKS, reproduce
from sfumato.serve.pictures import as_format
from sfumato.tasks import Model, Request, Result, generate, load
from sfumato.tasks.credentials import credentials_of, signed, wanted
from sfumato.tasks.receipt import Maker, encoded, receipt
from sfumato.tasks.verify import verify

NAME = "origin"
KINDS = ("generate", "inpaint", "outpaint", "upscale", "vary", "tile")
FORMATS = ("png", "jpeg", "webp")


def drawn(model: Model, k: int) -> tuple[Result, int, list[Any]]:
    """Request number k: what came of it, which of its pictures is looked at, and its parents."""
    draw = Noise.of(k, 1).uniform((1, 8))[0].tolist()
    kind = KINDS[k % len(KINDS)]
    n = 1 + int(3 * draw[0])
    told: dict[str, Any] = {"n": n, "seed": int(1e6 * draw[1]), "steps": 2 + int(8 * draw[2])}
    prompts = model.facts.get("captions") or []
    if model.conditioned_on("text") and prompts and draw[3] < 0.7:
        told |= {"prompt": prompts[int(draw[4] * len(prompts))], "guidance": 1 + 3 * draw[5]}
    if kind == "generate":
        return generate(model, Request(**told)), int(n * draw[6]), []
    if kind == "tile":
        return TASKS[kind](model, **told), int(n * draw[6]), []
    parent = generate(model, Request(1, seed=k, steps=4)).images[0]
    if kind == "inpaint":
        height, width = parent.height, parent.width
        fill = np.zeros((height, width), dtype=bool)
        fill[height // 4 : int(height * (0.5 + draw[7] / 2)), width // 5 :] = True
        mask = Image.fromarray(fill.astype(np.uint8) * 255)
        return TASKS[kind](model, parent, mask, **told), int(n * draw[6]), [parent, mask]
    own = {"outpaint": {"zoom": 1.5}, "upscale": {"scale": 2}, "vary": {"strength": draw[7]}}[kind]
    return TASKS[kind](model, parent, **own, **told), int(n * draw[6]), [parent]


def tried(model: Model, maker: Maker, k: int, work: Path) -> dict[str, Any]:
    """One output written, found in every format, changed by one pixel, and made again."""
    result, number, parents = drawn(model, k)
    path = work / "picture.png"
    data = encoded(result.images[number], receipt(maker, result, number))
    path.write_bytes(data)
    row: dict[str, Any] = {"k": k, "task": result.task}
    row["found"] = {form: verify(as_format(data, form, 75)).found == "made here" for form in FORMATS}
    touched = result.images[number].copy()
    pixel = np.array(touched)
    pixel[k % pixel.shape[0], k % pixel.shape[1]] ^= 1
    (work / "touched.png").write_bytes(encoded(Image.fromarray(pixel), verify(path).receipt or {}))
    row["change_found"] = verify(work / "touched.png").found == "contradicting"
    if wanted():
        start, sealed = time.perf_counter(), signed(data, "image/png", verify(path).receipt or {})
        row |= {"seal_ms": 1e3 * (time.perf_counter() - start), "seal_valid": credentials_of(sealed, "image/png").valid}
    again = reproduce(path, model, parents)
    return row | {"identical": again.identical, "differs": list(again.differs)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="run folder or exported file")
    parser.add_argument("--n", type=int, default=100, help="outputs (100)")
    parser.add_argument("--work", type=Path, default=Path("runs/origin"), help="where pictures lie meanwhile")
    parser.add_argument("--results", type=Path, default=common.RESULTS, help="folder of the results file")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    model = load(args.model)
    maker = Maker.of(model, args.model.resolve().name)
    data = common.read(NAME, args.results) or {}
    if data.get("weights") != maker.weights:
        data = common.envelope(weights=maker.weights, outputs=[])
    have = {row["k"] for row in data["outputs"]}
    for k in range(args.n):
        if k not in have:
            data["outputs"].append(tried(model, maker, k, args.work))
            common.write(NAME, data, args.results)
    rows = [row for row in data["outputs"] if row["k"] < args.n]
    common.log(f"{len(rows)} outputs: {sum(row['identical'] for row in rows)} made again bit for bit")
    common.log(f"one changed pixel found: {sum(row['change_found'] for row in rows)}")
    if seals := [row for row in rows if "seal_ms" in row]:
        median = statistics.median(row["seal_ms"] for row in seals)
        common.log(
            f"seals that are valid: {sum(row['seal_valid'] for row in seals)} of {len(seals)}, {median:.1f} ms each"
        )
    for form in FORMATS:
        common.log(f"receipts found in {form}: {sum(row['found'][form] for row in rows)}")


if __name__ == "__main__":
    main()
