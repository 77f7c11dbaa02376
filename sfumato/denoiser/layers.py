"""Small layers that both networks share. None knows of diffusion."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def zeroed(module: nn.Module) -> nn.Module:
    """The same module with all parameters zero: a residual branch that starts as the identity."""
    for p in module.parameters():
        nn.init.zeros_(p)
    return module


class LevelEmbedding(nn.Module):
    """Noise level [B] in [-3, 3] -> features [B, width]: sines and cosines of geometric frequencies, then an MLP."""

    def __init__(self, width: int, features: int = 64, lowest: float = 0.5, highest: float = 64.0) -> None:
        super().__init__()
        frequencies = torch.logspace(math.log10(lowest), math.log10(highest), features // 2)
        self.register_buffer("frequencies", frequencies, persistent=False)
        self.mlp = nn.Sequential(nn.Linear(features, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, level: Tensor) -> Tensor:
        angle = level.unsqueeze(-1) * self.frequencies
        return self.mlp(torch.cat([angle.cos(), angle.sin()], -1))


def group_norm(x: Tensor, groups: int) -> Tensor:
    """GroupNorm without affine weights (the modulation that follows has them).

    Free of the crash of torch 2.13 on CPU, where GroupNorm's backward dies on a channels_last input that needs no grad
    while affine weights do.
    """
    return F.group_norm(x, groups)


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """softmax(q k^T / sqrt(d)) v over [B, heads, N, d]; `mask` bool [B, keys], True where a key may be read.

    Written out in half precision on CPU up to 256 keys: the fused kernel of torch 2.13 is the slower one there.
    """
    if q.device.type == "cpu" and q.dtype == torch.bfloat16 and k.shape[-2] <= 256:
        logits = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
        if mask is not None:
            logits = logits.masked_fill(~mask[:, None, None, :], -math.inf)
        return logits.softmax(-1) @ v
    allowed = None if mask is None else mask[:, None, None, :].expand(-1, -1, q.shape[-2], -1)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=allowed)
