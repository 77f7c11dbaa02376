"""Muon: momentum whose update of every hidden matrix is made orthogonal (Jordan et al. 2024), for few, large steps."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from sfumato.train.machine import bf16_pays

# Odd polynomials a x + b x^3 + c x^5 that drive singular values to 1, the best five in a row (Amsel et al. 2025,
# "The Polar Express"); three of them are enough here, where the update need only be roughly orthogonal.
POLYNOMIALS = (
    (8.28721201814563, -23.595886519098837, 17.300387312530933),
    (4.107059111542203, -2.9478499167379106, 0.5448431082926601),
    (3.9486908534822946, -2.908902115962949, 0.5518191394370137),
)


def orthogonalise(matrix: Tensor) -> Tensor:
    """Roughly U V^T of a matrix U S V^T [m, n], by bf16 products where they are fast, else float32; zero stays zero."""
    x = matrix.to(torch.bfloat16 if matrix.device.type != "cpu" or bf16_pays() else torch.float32)
    tall = x.shape[0] > x.shape[1]
    if tall:
        x = x.T
    x = x / (x.float().norm() * 1.01 + 1e-12).to(x.dtype)
    for a, b, c in POLYNOMIALS:
        square = x @ x.T
        x = a * x + (b * square + c * square @ square) @ x
    return (x.T if tall else x).float()


class Muon(torch.optim.Optimizer):
    """w <- (1 - rate decay) w - rate sqrt(max(1, rows / columns)) orth(Nesterov momentum of the gradient).

    For weights with 2 or more axes, seen as matrices [first axis, all others].
    """

    def __init__(self, params: Iterable[Tensor], lr: float, momentum: float = 0.95, weight_decay: float = 0.0) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                if not state:
                    state["momentum"] = torch.zeros_like(p)
                average = state["momentum"].lerp_(p.grad, 1 - group["momentum"])
                update = orthogonalise(p.grad.lerp(average, group["momentum"]).flatten(1))
                size = group["lr"] * max(1.0, update.shape[0] / update.shape[1]) ** 0.5
                p.mul_(1 - group["lr"] * group["weight_decay"]).add_(update.view(p.shape), alpha=-size)


EDGES = ("stem", "embed", "head", "level", "conditioner", "modulation")


def hidden(name: str, p: Tensor) -> bool:
    """Whether a named weight is a hidden matrix: two or more axes, and not at an edge of the network."""
    return p.ndim >= 2 and not any(part.startswith(EDGES) for part in name.split("."))
