"""Training pictures per second (forward + backward + optimiser) of networks with equal operations per picture, 32x32.

The cost is set by what denoising-diffusion-pytorch documents (its default multipliers at dim 32: 3.0 GF a picture);
every other network is the shape of its family whose counted cost is nearest, at most 3 % away. Every measurement is
a fresh process; contenders alternate, the order turned round each time; ratios are taken pair by pair.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

from benchmarks import common

PEERS = ("diffusers", "denoising-diffusion-pytorch")
OURS = ("sfumato U-Net", "sfumato transformer")
TOLERANCE = 0.03
CHANNELS = 3


def our_shapes(who: str) -> Iterator[dict[str, Any]]:
    """Shapes of our networks round their defaults: the U-Net's width, the transformer's depth and width."""
    from sfumato.denoiser.unet import UNetConfig

    if who == "sfumato U-Net":
        seen = []
        for sixteenths in range(16, 49):  # the default, and up to three times as wide
            widths = [round(w * sixteenths / 256) * 16 for w in UNetConfig().widths]
            if widths not in seen:
                seen.append(widths)
                yield {"widths": widths}
    else:
        yield from ({"width": w, "depth": d} for w in range(128, 449, 64) for d in range(4, 15))


def build(who: str, shape: dict[str, Any]) -> Any:
    """The contender's network as (x, t in 0..999) -> y."""
    from torch import nn

    from benchmarks import peers

    if who in PEERS:
        return peers.build(who, shape, CHANNELS)

    from sfumato.core import Cond

    class Adapter(nn.Module):
        def __init__(self, net: nn.Module) -> None:
            super().__init__()
            self.net = net

        def forward(self, x, t):
            return self.net(x, t / 500 - 1, Cond())

    if who == "sfumato U-Net":
        from sfumato.denoiser.unet import UNet, UNetConfig

        return Adapter(UNet(UNetConfig(channels=CHANNELS, widths=tuple(shape["widths"]))))
    from sfumato.denoiser.transformer import Transformer, TransformerConfig

    return Adapter(Transformer(TransformerConfig(channels=CHANNELS, width=shape["width"], depth=shape["depth"])))


def match(who: str, flops: float) -> dict[str, Any]:
    """The shape of `who` nearest to `flops` a picture, cost and size; an error when none is within the tolerance."""
    import torch

    from benchmarks import peers

    best: dict[str, Any] | None = None
    for shape in our_shapes(who) if who in OURS else peers.shapes(who):
        with torch.device("meta"):
            net = build(who, shape)
            cost = peers.training_flops(net, CHANNELS)
        if best is None or abs(cost - flops) < abs(best["flops"] - flops):
            best = {"shape": shape, "flops": cost, "parameters": peers.parameters(net)}
            if abs(cost / flops - 1) < 0.001:
                break
    if best is None or abs(best["flops"] / flops - 1) > TOLERANCE:
        raise RuntimeError(f"no shape of {who} within {TOLERANCE:.0%} of {flops / 1e9:.2f} GF: nearest {best}")
    return best


def measure(who: str, shape: dict[str, Any], tuned: bool, batch: int, seconds: float) -> dict[str, float]:
    """In this process: images/s, and the bf16 matrix peak measured right after.

    `tuned`: bf16 autocast, channels_last, fused AdamW, allocator told to keep memory; else the library as it comes.
    """
    if tuned:
        common.keep_memory()
    import torch
    import torch.nn.functional as F

    torch.manual_seed(0)
    net = build(who, shape).train()
    layout = torch.channels_last if tuned else torch.contiguous_format
    net = net.to(memory_format=layout)
    optimiser = torch.optim.AdamW(net.parameters(), lr=1e-4, fused=True if tuned else None)
    x, y = (torch.randn(batch, CHANNELS, 32, 32).to(memory_format=layout) for _ in range(2))
    t = torch.randint(0, 1000, (batch,))

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=tuned):
            out = net(x, t)
        F.mse_loss(out.float(), y).backward()
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)

    times = timed(step, seconds)
    return {"images_per_second": batch / statistics.median(times), "bf16_peak": common.matrix_peak(torch.bfloat16)}


def timed(step: Callable[[], None], seconds: float, warm: int = 3, least: int = 5) -> list[float]:
    """Wall seconds of each step, after `warm` untimed ones, for `seconds` and at least `least` steps."""
    for _ in range(warm):
        step()
    times: list[float] = []
    while len(times) < least or sum(times) < seconds:
        start = time.perf_counter()
        step()
        times.append(time.perf_counter() - start)
    return times


def summarise(table: dict[str, Any], answers: dict[str, list[dict[str, float]]]) -> dict[str, Any]:
    """Spreads, achieved share of the bf16 peak, and pairwise ratios of ours against every peer setting.

    Ratios are of counted operations per second: images/s, corrected for what is left of the difference in cost.
    """
    rows: dict[str, Any] = {}
    for key, runs in answers.items():
        who = key.split(" | ")[0]
        speeds = [r["images_per_second"] for r in runs]
        shares = [r["images_per_second"] * table[who]["flops"] / 1e9 / r["bf16_peak"] for r in runs]
        rows[key] = {
            **table[who],
            "images_per_second": common.spread(speeds),
            "share_of_bf16_peak": common.spread(shares),
            "runs": runs,
        }
    work = {
        key: [r["images_per_second"] * table[key.split(" | ")[0]]["flops"] for r in runs]
        for key, runs in answers.items()
    }
    versus = {
        f"{ours} / {theirs}": common.ratios(work[ours], work[theirs])
        for ours in answers
        for theirs in answers
        if ours.startswith("sfumato") and not theirs.startswith("sfumato")
    }
    return {"rows": rows, "ratios": versus}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="alternating rounds (at least five for a finding)")
    parser.add_argument("--seconds", type=float, default=4.0, help="timed seconds per measurement")
    parser.add_argument("--batches", type=int, nargs="+", default=[64, 32])
    parser.add_argument("--gigaflops", type=float, default=3.0, help="operations per picture, forward + backward, 1e9")
    parser.add_argument("--contenders", nargs="+", default=[*OURS, *PEERS], choices=[*OURS, *PEERS])
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        print(json.dumps(measure(**json.loads(args.worker))))
        return

    head = common.envelope(gigaflops=args.gigaflops, rounds=args.rounds, seconds=args.seconds)
    table = {}
    for who in args.contenders:
        table[who] = match(who, args.gigaflops * 1e9)
        common.log(f"{who}: {table[who]}")
    results = []
    for batch in args.batches:
        runs: dict[str, Callable[[], Any]] = {}
        for who in args.contenders:
            for tuned in (True,) if who in OURS else (False, True):
                order = {
                    "who": who,
                    "shape": table[who]["shape"],
                    "tuned": tuned,
                    "batch": batch,
                    "seconds": args.seconds,
                }
                runs[f"{who} | {'tuned' if tuned else 'default'}"] = lambda order=order: common.child(
                    "benchmarks.training_speed", ["--worker", json.dumps(order)]
                )
        answers = common.alternate(args.rounds, runs, common.log)
        results.append({"batch": batch, **summarise(table, answers)})
        print(common.write("training_speed", {**head, "results": results}))


if __name__ == "__main__":
    main()
