"""Small layers that both networks share. None knows of diffusion."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


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


BANDS = 6  # octaves that a place is told in


def waves(x: Tensor) -> Tensor:
    """Places in 0 ... 1 [...] -> sines and cosines of pi 2^k x, [..., 2 BANDS] (Mildenhall et al. 2020)."""
    angle = x.unsqueeze(-1) * (math.pi * 2.0 ** torch.arange(BANDS, device=x.device))
    return torch.cat([angle.sin(), angle.cos()], -1)


def places(height: int, width: int, like: Tensor) -> Tensor:
    """Where the H * W places of a picture are, row by row: waves of y and x, [H * W, 4 BANDS], in the dtype of `like`."""
    y, x = (waves((torch.arange(n, device=like.device) + 0.5) / n) for n in (height, width))
    every = torch.cat([y[:, None].expand(-1, width, -1), x[None].expand(height, -1, -1)], -1)
    return every.flatten(0, 1).to(like.dtype)


class _ModulatedNorm(torch.autograd.Function):
    """See `modulated_norm`. With y the normalised x, r = 1 / std of its group, and d the gradient that comes back:
    dx = r (d s - mean(d s) - y mean(d s y)), means over the group. torch 2.13's own backward takes ten times as long in
    channels_last where groups are thin, and dies of GroupNorm's affine weights there when the input needs no gradient.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, shift: Tensor, groups: int) -> Tensor:
        y, _, rstd = torch.native_group_norm(
            x, None, None, x.shape[0], x.shape[1], x.shape[2] * x.shape[3], groups, 1e-5
        )
        ctx.save_for_backward(y, scale, rstd)
        return torch.addcmul(shift, y, scale)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        y, scale, rstd = ctx.saved_tensors
        groups, size = rstd.shape[1], (y.shape[1] // rstd.shape[1]) * y.shape[2] * y.shape[3]
        d_shift, d_scale = d.sum((2, 3), keepdim=True), (d * y).sum((2, 3), keepdim=True)

        def mean(each: Tensor) -> Tensor:
            whole = (each * scale).unflatten(1, (groups, -1)).sum(2, keepdim=True) / size
            return whole.expand(-1, -1, y.shape[1] // groups, -1, -1).flatten(1, 2)

        r = rstd.repeat_interleave(y.shape[1] // groups, 1)[:, :, None, None].to(scale.dtype)
        dx = torch.addcmul(torch.addcmul(-r * mean(d_shift), y, -r * mean(d_scale)), d, r * scale)
        return dx, d_scale, d_shift, None


def modulated_norm(x: Tensor, scale: Tensor, shift: Tensor, groups: int) -> Tensor:
    """norm(x) (1 + scale) + shift, norm the GroupNorm without weights; x [B, C, H, W], scale and shift [B, C, 1, 1].

    Differentiable once.
    """
    return _ModulatedNorm.apply(x, 1 + scale, shift, groups)


FEW_KEYS, MANY_KEYS = 256, 2048  # up to which attention is written out: without a mask, with one
VECTOR = 32  # half precision numbers that the processor works on at once
UNREAD = -1e4  # a logit whose share is exactly 0 beside any other


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, bias: Tensor | None = None) -> Tensor:
    """softmax(q k^T / sqrt(d) + bias) v over [B, heads, N, d]; `mask` bool [B, keys], True where a key may be read; `bias`
    [B, heads, keys], which asks for a mask.

    Written out in half precision on CPU for few keys: the fused kernel of torch 2.13 is the slower one there, and has no
    gradient of a bias.
    """
    few = MANY_KEYS if mask is not None else FEW_KEYS
    if q.device.type == "cpu" and q.dtype == torch.bfloat16 and k.shape[-2] <= few:
        return _written(q, k, v, mask, bias)
    allowed = None if mask is None else mask[:, None, None, :]
    if bias is not None:
        allowed = bias.unsqueeze(2).to(q.dtype).masked_fill(~allowed, -math.inf)
    allowed = None if allowed is None else allowed.expand(-1, -1, q.shape[-2], -1)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=allowed)


def _written(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, bias: Tensor | None) -> Tensor:
    """`attend` by two products, q scaled in the first one; keys are filled up to whole vectors of the processor."""
    scale = q.shape[-1] ** -0.5
    if mask is None:
        return ((q * scale) @ k.transpose(-1, -2)).softmax(-1) @ v
    more = -k.shape[-2] % VECTOR
    k, v, mask = F.pad(k, (0, 0, 0, more)), F.pad(v, (0, 0, 0, more)), F.pad(mask, (0, more))
    added = q.new_zeros(*q.shape[:2], k.shape[-2]) if bias is None else F.pad(bias, (0, more))
    added = added.masked_fill(~mask[:, None, :], UNREAD).to(q.dtype).flatten(0, 1).unsqueeze(1)
    logits = torch.baddbmm(
        added.expand(-1, q.shape[-2], -1), q.flatten(0, 1), k.flatten(0, 1).transpose(-1, -2), alpha=scale
    )
    return (logits.softmax(-1) @ v.flatten(0, 1)).unflatten(0, q.shape[:2])
