"""Ways to know a part, on a Gaussian whose answer is known: two entries of correlation 0.9, the first is 1.

The second is then 0.90 +- 0.436. Every guide is given the exact denoiser of the pair; the trained condition is a small
network taught here, from nothing, with random parts known. Results: results/canvas_oracle.json, the table in docs/guide.md.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks import common
from benchmarks.data_tables import markdown
from sfumato.core import Cond, Denoise, Noise, Slot
from sfumato.denoiser import Denoiser, EDMTarget
from sfumato.forward import RectifiedFlow
from sfumato.guide import Mask, bind, observe, observe_through, with_guides
from sfumato.measure.oracles import Gaussian
from sfumato.reverse import UpAndDown, pick_solver, sample, uniform

NAME = "canvas_oracle"
CORRELATION, KNOWN, MOVES, SEED = 0.9, 1.0, 40, 0
TRUE_MEAN, TRUE_SPREAD = CORRELATION * KNOWN, (1 - CORRELATION**2) ** 0.5
PAIRS, PICTURES = 200, 50  # pairs of one sample, samples: 10,000 pairs, so a mean is told to 0.004
STEPS, BATCH, WIDTH = 6000, 512, 96  # of the small network
PROCESS = RectifiedFlow()
Data = dict[str, Any]


class Net(nn.Module):
    """(x [B, 2], level [B], "known" [B, 4]: mask and known values) -> [B, 2]."""

    def __init__(self, generator: torch.Generator) -> None:
        super().__init__()
        sizes = [(8, WIDTH), (WIDTH, WIDTH), (WIDTH, WIDTH), (WIDTH, 2)]
        self.layers = nn.ModuleList(nn.Linear(*size) for size in sizes)
        for layer in self.layers:
            layer.weight.data = torch.randn(layer.weight.shape, generator=generator) * layer.in_features**-0.5
            layer.bias.data.zero_()
        self.layers[-1].weight.data.zero_()

    def forward(self, x: Tensor, level: Tensor, cond: Cond) -> Tensor:
        slot = cond["known"]
        known = slot.value * slot.present().unsqueeze(1)
        h = torch.cat([x, level.unsqueeze(1), torch.tanh(level).unsqueeze(1), known], 1)
        for layer in self.layers[:-1]:
            h = nn.functional.silu(layer(h))
        return self.layers[-1](h)


def slot(mask: Tensor, x0: Tensor) -> Cond:
    """ "known" of pairs [B, 2]."""
    return Cond({"known": Slot(torch.cat([mask.float(), x0 * mask], 1), "vector")})


def trained(steps: int) -> Denoiser:
    """The small network after so many steps, with any part known: none, one or both entries."""
    generator = torch.Generator().manual_seed(SEED)
    denoiser = Denoiser(Net(generator), PROCESS, EDMTarget(1.0), 1.0)
    optimiser = torch.optim.AdamW(denoiser.parameters(), 3e-3, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 3e-3, total_steps=steps, pct_start=0.05)
    for _ in range(steps):
        z, eps = (torch.randn(BATCH, 2, generator=generator) for _ in range(2))
        x0 = torch.stack([z[:, 0], CORRELATION * z[:, 0] + TRUE_SPREAD * z[:, 1]], 1)
        t = torch.rand(BATCH, generator=generator) * PROCESS.t_max
        mask = torch.rand(BATCH, 2, generator=generator) < 0.5
        alpha, sigma = (v.unsqueeze(1) for v in PROCESS.alpha_sigma(t))
        x_t = alpha * x0 + sigma * eps
        wanted = denoiser.parameterisation.target(x0, eps, alpha[:, 0], sigma[:, 0])
        x0_said = denoiser(x_t, t, slot(mask, x0)).x0
        said = denoiser.parameterisation.target(x0_said, (x_t - alpha * x0_said) / sigma, alpha[:, 0], sigma[:, 0])
        loss = (said - wanted).square().mean()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        schedule.step()
    return denoiser.eval().requires_grad_(False)


def drawn(denoise: Denoise, wide: int, solver: str, times: int = 1) -> Data:
    """Mean and spread of the unknown entries, moves and seconds; `wide` entries to a sample."""
    grid = UpAndDown(times)(MOVES, PROCESS) if times > 1 else uniform(MOVES, PROCESS)
    count, began = 2 * PAIRS * PICTURES // wide, time.perf_counter()
    x = sample(denoise, (count, wide), Noise.of(SEED, count), pick_solver(solver), grid).reshape(-1, 2)
    assert (x[:, 0] - KNOWN).abs().max() < 1e-4
    told = {"mean": float(x[:, 1].mean()), "spread": float(x[:, 1].std())}
    common.log(f"{solver}, {len(grid) - 1} moves: {told['mean']:.3f} +- {told['spread']:.3f}")
    return told | {"moves": len(grid) - 1, "seconds": time.perf_counter() - began}


def measure(steps: int) -> Data:
    """Every way: its mean and its spread."""
    wide = 2 * PAIRS
    pair = torch.tensor([[1.0, CORRELATION], [CORRELATION, 1.0]])
    exact = Gaussian(PROCESS, torch.zeros(wide), torch.kron(torch.eye(PAIRS), pair))
    known, y = torch.tensor([True, False]).repeat(PAIRS), torch.full((1, wide), KNOWN)
    replaced = observe(known, y)(exact)
    rows = {
        "`observe`, Heun": drawn(replaced, wide, "heun"),
        "`observe`, ancestral": drawn(replaced, wide, "ddpm"),
        "`observe`, `UpAndDown(5)` (RePaint)": drawn(replaced, wide, "ddpm", 5),
        "`observe`, `UpAndDown(10)` (RePaint)": drawn(replaced, wide, "ddpm", 10),
        "`observe_through`, Heun": drawn(observe_through(Mask(known), y)(exact), wide, "heun"),
        "`observe_through`, DPM-Solver++": drawn(observe_through(Mask(known), y)(exact), wide, "dpmpp2m"),
    }
    began = time.perf_counter()
    network = trained(steps)
    common.log(f"trained in {time.perf_counter() - began:.0f} s")
    mask, value = torch.tensor([[True, False]]).expand(PAIRS * PICTURES, 2), torch.full((PAIRS * PICTURES, 2), KNOWN)
    told = bind(with_guides(network, observe(mask[:1], value[:1])), slot(mask, value))
    for name in ("heun", "dpmpp2m"):
        label = {"heun": "Heun", "dpmpp2m": "DPM-Solver++"}[name]
        rows[f"trained condition, {label}"] = drawn(told, 2, name)
    return rows


def table(data: Data) -> str:
    """Every way beside the truth."""
    rows = [["the truth", f"{TRUE_MEAN:.3f}", f"{TRUE_SPREAD:.3f}", ""]]
    rows += [[name, f"{r['mean']:.3f}", f"{r['spread']:.3f}", str(r["moves"])] for name, r in data["rows"].items()]
    return markdown(["the unknown entry", "mean", "spread", "moves"], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=STEPS, help="training steps of the small network")
    parser.add_argument("--results", type=Path, default=common.RESULTS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    rows = measure(args.steps)
    print(common.write(NAME, common.envelope(rows=rows), args.results))


if __name__ == "__main__":
    main()
