"""Where the first NaN or infinity came from: looked for once, when a loss stopped being finite."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from sfumato.core import Batch, Noise, SfumatoError

if TYPE_CHECKING:
    from sfumato.train.loop import Trainer


class Diverged(SfumatoError):
    """Training left the finite numbers."""


def _bad(value: object) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point() and not bool(value.isfinite().all())


def first_non_finite(trainer: Trainer, batch: Batch, u: Tensor, noise: Noise) -> str:
    """Name of the first stage, in the order the data travels, whose output is not finite."""
    if _bad(batch.x0):
        rows = (~batch.x0.flatten(1).isfinite().all(1)).nonzero().flatten().tolist()
        return f"the data holds non-finite numbers in rows {rows[:5]} of the batch"
    for name, p in trainer.weights.items():
        if _bad(p.data):
            return f"the weights {name} are not finite"
    found: list[str] = []

    def watch(name: str):
        def hook(module: nn.Module, inputs: object, output: object) -> None:
            if not found and _bad(output):
                found.append(f"{name} ({type(module).__name__})")

        return hook

    hooks = [m.register_forward_hook(watch(n)) for n, m in trainer.denoiser.named_modules() if not list(m.children())]
    try:
        with torch.no_grad():
            losses = trainer.losses(batch, u, noise)
    finally:
        for hook in hooks:
            hook.remove()
    if found:
        return f"the first non-finite numbers came out of {found[0]}"
    if _bad(losses):
        return "the network's output is finite, the loss is not"
    for name, p in trainer.weights.items():
        if p.grad is not None and _bad(p.grad):
            return f"the loss is finite, the gradient of {name} is not"
    return "the loss or its gradient overflowed and was finite when computed again"
