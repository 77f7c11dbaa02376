"""A plain transformer on patches: bottleneck patch embedding, 2-D RoPE, qk-norm, conditions as tokens and modulation."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sfumato.core import Cond, SfumatoError
from sfumato.denoiser.conditions import Conditioner, SlotSpec
from sfumato.denoiser.layers import BANDS, LevelEmbedding, attend, places, zeroed


@dataclass(frozen=True)
class TransformerConfig:
    """`patch` side, `width` of a token, `depth`, width of a `head`, `bottleneck` of the patch embedding (Li & He 2025)."""

    channels: int = 1
    patch: int = 4
    width: int = 256
    depth: int = 8
    head: int = 64
    bottleneck: int = 64
    channels_out: int = 0
    slots: tuple[SlotSpec, ...] = ()

    @property
    def multiple(self) -> int:
        """Height and width must be divisible by this."""
        return self.patch

    def check(self) -> None:
        """Raise SfumatoError when no network has this shape."""
        if min(self.patch, self.depth, self.bottleneck) < 1:
            raise SfumatoError("net.patch, net.depth and net.bottleneck must be at least 1")
        if self.head < 4 or self.head % 4 or self.width < 1 or self.width % self.head:
            raise SfumatoError(
                f"net.width {self.width} must be a multiple of net.head {self.head}, and that a multiple of 4 for 2-D positions"
            )


def rotary(height: int, width: int, others: int, head: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """cos and sin [height * width + others, 1, head] of 2-D rotary positions, in the dtype of `like`.

    The first half of a head is turned with the second: half of the pairs by y, half by x; `others` (conditions) by 0.
    """
    frequencies = 100.0 ** -(torch.arange(head // 4, device=like.device) / (head // 4))
    y, x = torch.meshgrid(*(torch.arange(n, device=like.device) for n in (height, width)), indexing="ij")
    angle = torch.cat([y.reshape(-1, 1) * frequencies, x.reshape(-1, 1) * frequencies], 1)
    angle = F.pad(angle, (0, 0, 0, others)).unsqueeze(1)
    cos, sin = angle.cos(), angle.sin()
    return torch.cat([cos, cos], -1).to(like.dtype), torch.cat([-sin, sin], -1).to(like.dtype)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """(a, b) -> (a cos - b sin, b cos + a sin) for the halves a, b of x [B, N, heads, head], in three passes."""
    return torch.addcmul(x * cos, x.roll(x.shape[-1] // 2, -1), sin)


class Layer(nn.Module):
    """Attention and SwiGLU, each modulated by the embedding (adaLN-zero)."""

    def __init__(self, width: int, head: int, embedding: int) -> None:
        super().__init__()
        self.heads = width // head
        hidden = width * 8 // 3 // 8 * 8
        self.modulation = zeroed(nn.Linear(embedding, 6 * width))
        # no biases: the modulation shifts what enters and gates what leaves, and a bias costs a pass over all tokens
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.q_gain, self.k_gain = nn.Parameter(torch.ones(head)), nn.Parameter(torch.ones(head))
        self.out = nn.Linear(width, width, bias=False)
        self.gate, self.up = nn.Linear(width, hidden, bias=False), nn.Linear(width, hidden, bias=False)
        self.down = nn.Linear(hidden, width, bias=False)

    def forward(self, x: Tensor, emb: Tensor, cos: Tensor, sin: Tensor, mask: Tensor | None) -> Tensor:
        scale, shift, gate, scale2, shift2, gate2 = self.modulation(emb).unsqueeze(1).chunk(6, -1)
        h = torch.addcmul(shift, F.layer_norm(x, x.shape[-1:]), 1 + scale)
        q, k, v = (part.unflatten(-1, (self.heads, -1)) for part in self.qkv(h).chunk(3, -1))
        q, k = self._turned(q, self.q_gain, cos, sin), self._turned(k, self.k_gain, cos, sin)
        x = torch.addcmul(x, gate, self.out(attend(q, k, v.transpose(1, 2), mask).transpose(1, 2).flatten(2)))
        h = torch.addcmul(shift2, F.layer_norm(x, x.shape[-1:]), 1 + scale2)
        return torch.addcmul(x, gate2, self.down(F.silu(self.gate(h)) * self.up(h)))

    def _turned(self, x: Tensor, gain: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """[B, N, heads, head] -> [B, heads, N, head], normalised (qk-norm by layer norm, Dehghani et al. 2023) and turned."""
        return rotate(F.layer_norm(x, x.shape[-1:], gain.to(x.dtype)), cos, sin).transpose(1, 2)


class Transformer(nn.Module):
    """(x [B, C, H, W], level [B], cond) -> y [B, C_out, H, W]."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        config.check()
        self.config = c = config
        self.level = LevelEmbedding(c.width)
        self.conditioner = Conditioner(c.slots, c.width)
        pixels = (c.channels + self.conditioner.map_channels) * c.patch**2
        narrow = min(c.bottleneck, pixels)
        self.embed = nn.Sequential(nn.Linear(pixels, narrow, bias=False), nn.Linear(narrow, c.width))
        placed = any(spec.role == "placed" for spec in c.slots)
        self.place = zeroed(nn.Linear(4 * BANDS, c.width, bias=False)) if placed else None
        self.layers = nn.ModuleList(Layer(c.width, c.head, c.width) for _ in range(c.depth))
        self.head_modulation = zeroed(nn.Linear(c.width, 2 * c.width))
        self.head = zeroed(nn.Linear(c.width, (c.channels_out or c.channels) * c.patch**2))

    def forward(self, x: Tensor, level: Tensor, cond: Cond, even: bool = False) -> Tensor:
        vector, tokens, maps = self.conditioner(cond, x, even)
        emb = F.silu(self.level(level) + vector)
        h = F.pixel_unshuffle(x if maps is None else torch.cat([x, maps], 1), self.config.patch)
        height, width = h.shape[-2:]
        n = height * width
        h = self.embed(h.flatten(2).transpose(1, 2))
        if self.place is not None:
            h = h + self.place(places(height, width, x))
        mask = None
        if tokens is not None:
            h = torch.cat([h, tokens.whole.padded(tokens.rows).to(h.dtype)], 1)
            mask = torch.cat([tokens.whole.mask.new_ones(len(x), n), tokens.whole.mask], 1)
        cos, sin = rotary(height, width, h.shape[1] - n, self.config.head, h)
        for layer in self.layers:
            h = layer(h, emb, cos, sin, mask)
        h = h[:, :n]
        scale, shift = self.head_modulation(emb).unsqueeze(1).chunk(2, -1)
        h = self.head(torch.addcmul(shift, F.layer_norm(h, h.shape[-1:]), 1 + scale))
        return F.pixel_shuffle(h.transpose(1, 2).unflatten(-1, (height, width)), self.config.patch)
