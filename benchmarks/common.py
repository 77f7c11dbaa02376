"""What every benchmark needs: the machine described, results written, children run, the ceiling measured."""

from __future__ import annotations

import ctypes
import importlib.metadata
import json
import os
import platform
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
FEATURES = Path(__file__).parent / "features"  # extractors that are kept: a table is measured with one instrument
PACKAGES = (
    "torch",
    "numpy",
    "diffusers",
    "denoising-diffusion-pytorch",
    "k-diffusion",
    "accelerate",
    "ema-pytorch",
    "einops",
    "opencv-python-headless",
    "opencv-python",
)

# mallopt numbers of <malloc.h>
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4


def machine() -> dict[str, Any]:
    """The processor, its flags that matter, memory, load and thread count: a number means nothing without them."""
    facts: dict[str, Any] = {
        "platform": platform.platform(),
        "python": platform.python_version(),
        "cores": os.cpu_count(),
    }
    cpuinfo, meminfo = Path("/proc/cpuinfo"), Path("/proc/meminfo")
    if cpuinfo.exists():
        fields = dict(line.split(":", 1) for line in cpuinfo.read_text().split("\n\n")[0].splitlines() if ":" in line)
        fields = {key.strip(): value.strip() for key, value in fields.items()}
        facts["cpu"] = fields.get("model name", platform.processor())
        flags = fields.get("flags", "").split()
        facts["flags"] = [f for f in ("avx2", "avx512f", "avx512_bf16", "avx512_vnni", "amx_bf16") if f in flags]
    if meminfo.exists():
        facts["memory_gb"] = round(int(meminfo.read_text().split()[1]) / 2**20, 1)
    facts["load_at_start"] = round(os.getloadavg()[0], 2)
    return facts


def versions(packages: Sequence[str] = PACKAGES) -> dict[str, str]:
    """Installed versions of the libraries compared."""
    found = {}
    for name in packages:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def command() -> str:
    """The command that made these numbers, as one would type it."""
    module = Path(sys.argv[0]).stem
    return shlex.join(["python", "-m", f"benchmarks.{module}", *sys.argv[1:]])


def envelope(**more: Any) -> dict[str, Any]:
    """The head of a results file: when, where, what, how."""
    when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    return {"when": when, "machine": machine(), "versions": versions(), "command": command(), **more}


def write(name: str, data: dict[str, Any], folder: Path | None = None) -> Path:
    """Write results/NAME.json whole or not at all."""
    path = (folder or RESULTS) / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_suffix(".json.tmp")
    scratch.write_text(json.dumps(data, indent=1) + "\n")
    os.replace(scratch, path)
    return path


def read(name: str, folder: Path | None = None) -> dict[str, Any] | None:
    """results/NAME.json, or None when it has not been made."""
    path = (folder or RESULTS) / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else None


def keep_memory() -> bool:
    """Tell glibc to keep freed blocks, so that big tensors cost no page faults; False where there is no mallopt."""
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return False
    return all([mallopt(_M_MMAP_MAX, 0), mallopt(_M_TRIM_THRESHOLD, -1), mallopt(_M_TOP_PAD, 64 << 20)])


class ChildError(RuntimeError):
    """A child process failed; the message carries the end of its output."""


def child(module: str, arguments: Sequence[str], timeout: float | None = None) -> Any:
    """Run `python -m MODULE ARGUMENTS` in a fresh process; the last line it prints is its JSON answer."""
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=Path(__file__).parent.parent,
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        tail = "\n".join(done.stderr.strip().splitlines()[-15:])
        raise ChildError(f"{module} {' '.join(arguments)} ended with {done.returncode}:\n{tail}")
    return json.loads(lines[-1])


def watched(module: str, arguments: Sequence[str], every: float = 0.2) -> tuple[Any, float]:
    """`child`, and the greatest memory in MB of it and its own children together, looked at `every` seconds.

    Linux's proportional set sizes: a page that several of them share is counted once.
    """
    command = [sys.executable, "-m", module, *arguments]
    with tempfile.TemporaryFile("w+") as out:
        running = subprocess.Popen(command, cwd=Path(__file__).parent.parent, stdout=out)
        peak = 0.0
        while running.poll() is None:
            peak = max(peak, sum(_memory(pid) for pid in _family(running.pid)))
            time.sleep(every)
        out.seek(0)
        lines = out.read().strip().splitlines()
    if running.returncode or not lines:
        raise ChildError(f"{module} {' '.join(arguments)} ended with {running.returncode}")
    return json.loads(lines[-1]), peak


def _family(pid: int) -> list[int]:
    """A process and all that it started."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []
    return [pid, *(one for child in children for one in _family(int(child)))]


def _memory(pid: int) -> float:
    """Proportional set size in MB; 0 for a process that has just ended."""
    try:
        rows = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0
    return sum(int(row.split()[1]) for row in rows if row.startswith("Pss:")) / 1024


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, least and greatest of repeated measurements."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values), "n": len(values)}


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> dict[str, float]:
    """Spread of the pairwise ratios ours / theirs of alternating measurements."""
    return spread([a / b for a, b in zip(ours, theirs, strict=True)])


def alternate(
    rounds: int, runs: dict[str, Callable[[], Any]], say: Callable[[str], None] = print
) -> dict[str, list[Any]]:
    """Every run once a round, the order turned round each time, so that drift of the machine hits all alike."""
    answers: dict[str, list[Any]] = {name: [] for name in runs}
    for i in range(rounds):
        for name in list(runs) if i % 2 == 0 else list(reversed(runs)):
            answers[name].append(runs[name]())
            say(f"round {i + 1}/{rounds} {name}: {answers[name][-1]}")
    return answers


def matrix_peak(dtype: Any, sizes: Sequence[int] = (1024, 1536, 2048), seconds: float = 0.4) -> float:
    """Best measured GFLOP/s of a square matrix product of this dtype: what the processor can do at all."""
    import torch

    best = 0.0
    with torch.inference_mode():
        for n in sizes:
            a, b = torch.randn(n, n).to(dtype), torch.randn(n, n).to(dtype)
            out = a @ b
            end = time.perf_counter() + seconds
            while time.perf_counter() < end:
                start = time.perf_counter()
                torch.mm(a, b, out=out)
                best = max(best, 2 * n**3 / (time.perf_counter() - start) / 1e9)
    return best


def log(text: str) -> None:
    """Progress goes to stderr: stdout carries answers."""
    print(text, file=sys.stderr, flush=True)


def sheet_path(name: str, label: str, sheet: str, results: Path | None = None) -> Path:
    """Where a sheet of pictures beside the results of this name and label is kept."""
    return (results or RESULTS) / "grids" / label / f"{name}_{sheet}.png"


def copy_sheets(name: str, sheets: Iterable[str], results: Path, images: Path) -> None:
    """Copy the sheets of all models of these results beside the documents."""
    for label in (read(name, results) or {"models": {}})["models"]:
        for sheet in sheets:
            path = sheet_path(name, label, sheet, results)
            if path.exists():
                images.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, images / f"{name}_{label}_{sheet}.png")
