"""What this machine does best, found out by measuring: precision, memory layout, allocator, memory."""

from __future__ import annotations

import ctypes
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from sfumato.core import Cond
from sfumato.denoiser import Denoiser


@dataclass(frozen=True)
class Setting:
    """How a network is run: autocast precision (None = float32) and memory layout."""

    precision: torch.dtype | None
    channels_last: bool

    def __str__(self) -> str:
        layout = "channels_last" if self.channels_last else "contiguous"
        return f"{'float32' if self.precision is None else 'bf16 autocast'}, {layout}"

    def apply(self, denoiser: Denoiser) -> None:
        layout = torch.channels_last if self.channels_last else torch.contiguous_format
        denoiser.precision, denoiser.channels_last = self.precision, self.channels_last
        for p in denoiser.parameters():
            if p.ndim == 4:
                p.data = p.data.to(memory_format=layout)  # contiguous() leaves the strides of one channel

    def lay(self, x: Tensor) -> Tensor:
        return x.to(memory_format=torch.channels_last) if self.channels_last and x.ndim == 4 else x


@cache
def bf16_pays() -> bool:
    """Whether torch reports processor instructions for bfloat16 products (a fact, not a timing: it never varies).

    Without them a product of matrices takes ten times as long in bfloat16 as in float32.
    """
    return any(getattr(torch.cpu, f"_is_{what}_supported", bool)() for what in ("avx512_bf16", "amx_tile"))


def keep_large_blocks() -> bool:
    """Let glibc keep freed blocks up to 1 GB instead of giving them back, so that big tensors cost no page faults.

    mallopt(M_MMAP_THRESHOLD, M_TRIM_THRESHOLD, M_TOP_PAD); False where the C library has none.
    """
    try:
        libc = ctypes.CDLL(None)
        return bool(libc.mallopt(-3, 1 << 30) and libc.mallopt(-1, (1 << 31) - 1) and libc.mallopt(-2, 1 << 26))
    except (OSError, AttributeError):
        return False


def available_memory() -> int:
    """Bytes that can still be had (Linux MemAvailable; physical memory elsewhere)."""
    try:
        with open("/proc/meminfo") as file:
            fields = dict(line.split(":", 1) for line in file)
        return int(fields["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def training_step(denoiser: Denoiser, x: Tensor, cond: Cond) -> None:
    """One forward and backward pass, gradients thrown away."""
    t = torch.linspace(0.1, 0.9, len(x))
    denoiser(x, t, cond).lin.square().mean().backward()
    denoiser.zero_grad(set_to_none=True)


def seconds_of(work: Callable[[], None], budget: float, least: int = 2) -> float:
    """Median seconds of `work` over as many runs as fit the budget, after one warm-up."""
    work()
    times: list[float] = []
    start = time.perf_counter()
    while len(times) < least or time.perf_counter() - start < budget:
        begin = time.perf_counter()
        work()
        times.append(time.perf_counter() - begin)
    return statistics.median(times)


def probe(denoiser: Denoiser, x: Tensor, cond: Cond, budget: float = 1.0) -> tuple[Setting, dict[str, float]]:
    """The fastest setting for training this network here, and the seconds per step of each one tried.

    `x` is a batch as the network will see it; about `budget` seconds in all beyond the slowest steps.
    """
    settings = [Setting(p, c) for p in (None, torch.bfloat16) for c in (False, True) if x.ndim == 4 or not c]
    seconds = {}
    for setting in settings:
        setting.apply(denoiser)
        seconds[setting] = seconds_of(lambda: training_step(denoiser, x, cond), budget / len(settings))
    best = min(seconds, key=seconds.__getitem__)
    best.apply(denoiser)
    return best, {str(s): v for s, v in seconds.items()}


def saved_bytes(denoiser: Denoiser, x: Tensor, cond: Cond) -> int:
    """Bytes of activations that one forward pass of this batch keeps for the backward pass, weights not counted."""
    seen: dict[int, int] = {}
    weights = {p.untyped_storage().data_ptr() for p in denoiser.parameters()}

    def pack(tensor: Tensor) -> Tensor:
        if tensor.untyped_storage().data_ptr() not in weights:
            seen[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        denoiser(x, torch.linspace(0.1, 0.9, len(x)), cond).lin.square().mean()
    return sum(seen.values())
