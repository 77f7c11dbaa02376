"""Seconds of a whole process that imports a library and ends; libraries alternate, so that drift hits all alike.

The bound: `import sfumato`, and all that training and sampling need of it, take at most 1.5 times `import torch`
(`import sfumato` alone loads next to nothing until it is used). denoising-diffusion-pytorch and k-diffusion are
imported with stand-ins for torchvision and other heavy packages, so their times are lower than a user's.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks import common

BOUND = 1.5
STATEMENTS = {
    "python": "pass",
    "torch": "import torch",
    "sfumato": "import sfumato",
    "sfumato, to train and sample": "import sfumato.train, sfumato.guide, sfumato.reverse",
    "diffusers": "import diffusers",
    "diffusers UNet2DModel": "from diffusers import UNet2DModel",
    "denoising-diffusion-pytorch": "from benchmarks import peers; peers.denoising_diffusion_pytorch()",
    "k-diffusion": "from benchmarks import peers; peers.k_diffusion()",
}


def seconds(statement: str) -> float:
    """Wall seconds of a fresh interpreter running this statement."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", statement], check=True, cwd=Path(__file__).parent.parent)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--libraries", nargs="+", default=list(STATEMENTS), choices=list(STATEMENTS))
    args = parser.parse_args()
    head = common.envelope(rounds=args.rounds, bound=BOUND)
    runs: dict[str, Callable[[], float]] = {name: lambda s=STATEMENTS[name]: seconds(s) for name in args.libraries}
    for run in runs.values():
        run()  # files into the page cache, byte code onto disk
    times = common.alternate(args.rounds, runs, common.log)
    rows = {name: common.spread(values) for name, values in times.items()}
    result = {**head, "unit": "seconds", "rows": rows}
    if "torch" in times:
        result["ratio_to_torch"] = {name: common.ratios(values, times["torch"]) for name, values in times.items()}
        ours = [ratio["median"] for name, ratio in result["ratio_to_torch"].items() if name.startswith("sfumato")]
        result["within_bound"] = bool(ours) and max(ours) <= BOUND
    print(common.write("import_time", result))


if __name__ == "__main__":
    main()
