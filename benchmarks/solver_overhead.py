"""Microseconds a solver adds to each step: the network is replaced by a constant, batch 1, 3x32x32.

Building grids and schedules is not timed.
One repetition is a whole sampling run of every library and solver in turn, all in one
process; the median over repetitions is reported. A step of Heun is two calls of the network for all.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

from benchmarks import common

SHAPE = (1, 3, 32, 32)
OURS = "sfumato"
# solver -> our process, diffusers' scheduler, k-diffusion's function ("" where the library has none)
SOLVERS = {
    "ddim": ("VPLinear", "DDIMScheduler", ""),
    "euler": ("EDM", "EulerDiscreteScheduler", "sample_euler"),
    "heun": ("EDM", "HeunDiscreteScheduler", "sample_heun"),
    "dpmpp2m": ("VPLinear", "DPMSolverMultistepScheduler", "sample_dpmpp_2m"),
    "unipc": ("VPLinear", "UniPCMultistepScheduler", ""),
    "ddpm": ("VPLinear", "DDPMScheduler", "sample_euler_ancestral"),
}
Ready = Callable[[], Callable[[], Any]]  # prepare one sampling run, untimed; the answer runs it


def ours(solver: str, process: str, steps: int) -> Ready:
    import torch

    from sfumato import forward
    from sfumato.core import Noise, Posterior
    from sfumato.reverse import GRIDS, sample
    from sfumato.reverse.catalogue import pick_solver

    chosen = getattr(forward, process)()
    x0 = torch.zeros(SHAPE)

    class Constant:
        process = chosen

        def __call__(self, x_t: torch.Tensor, t: float, cond: Any = None) -> Posterior:
            return chosen.posterior(x_t, t, x0)

    grid = GRIDS["karras"](steps, chosen)

    def ready() -> Callable[[], Any]:
        return lambda: sample(Constant(), SHAPE, Noise.of(0, 1), pick_solver(solver), grid)

    return ready


def diffusers(scheduler: str, steps: int) -> Ready:
    import diffusers
    import torch

    x, eps = torch.randn(SHAPE), torch.zeros(SHAPE)
    generator = torch.Generator().manual_seed(0)
    cls = getattr(diffusers, scheduler)
    takes = {"generator": generator} if scheduler == "DDPMScheduler" else {}

    def ready() -> Callable[[], Any]:
        solver = cls()
        solver.set_timesteps(steps)

        @torch.no_grad()
        def run() -> torch.Tensor:
            y = x * solver.init_noise_sigma
            for t in solver.timesteps:
                solver.scale_model_input(y, t)
                y = solver.step(eps, t, y, **takes).prev_sample
            return y

        return run

    return ready


def k_diffusion(function: str, steps: int) -> Ready:
    import torch

    from benchmarks import peers

    sampling = peers.k_diffusion()
    sigmas = sampling.get_sigmas_karras(steps, 0.002, 80.0)
    x, x0 = torch.randn(SHAPE) * 80, torch.zeros(SHAPE)
    draw = getattr(sampling, function)

    def ready() -> Callable[[], Any]:
        return lambda: draw(lambda y, sigma: x0, x, sigmas, disable=True)

    return ready


def measure(runs: dict[tuple[str, str], Ready], steps: int, repetitions: int) -> dict[tuple[str, str], list[float]]:
    """Microseconds per step of every run, repetition by repetition, after two unmeasured ones."""
    times: dict[tuple[str, str], list[float]] = {key: [] for key in runs}
    for i in range(repetitions + 2):
        for key in runs if i % 2 else list(reversed(runs)):
            run = runs[key]()
            start = time.perf_counter()
            run()
            if i >= 2:
                times[key].append((time.perf_counter() - start) / steps * 1e6)
    return times


def table(times: dict[tuple[str, str], list[float]]) -> dict[str, Any]:
    """Per solver: each library's spread, and ours against the best peer, repetition by repetition."""
    rows: dict[str, Any] = {}
    for solver, library in times:
        rows.setdefault(solver, {})[library] = common.spread(times[solver, library])
    for solver, row in rows.items():
        others = [name for name in row if name != OURS]
        if OURS in row and others:
            best = min(others, key=lambda name: row[name]["median"])
            row["ratio_to_best_peer"] = {"peer": best, **common.ratios(times[solver, OURS], times[solver, best])}
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--repetitions", type=int, default=40)
    args = parser.parse_args()
    head = common.envelope(steps=args.steps, repetitions=args.repetitions, shape=SHAPE)
    runs: dict[tuple[str, str], Ready] = {}
    for solver, (process, scheduler, function) in SOLVERS.items():
        runs[solver, OURS] = ours(solver, process, args.steps)
        runs[solver, "diffusers"] = diffusers(scheduler, args.steps)
        if function:
            runs[solver, "k-diffusion"] = k_diffusion(function, args.steps)
    rows = table(measure(runs, args.steps, args.repetitions))
    for solver, row in rows.items():
        common.log(f"{solver}: " + ", ".join(f"{k} {v['median']:.1f}" for k, v in row.items()))
    print(common.write("solver_overhead", {**head, "unit": "microseconds per step", "rows": rows}))


if __name__ == "__main__":
    main()
