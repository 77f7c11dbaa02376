"""A U-Net for few operations per picture: thin at full resolution, one norm per block, attention only where it is cheap."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sfumato.core import Cond, SfumatoError
from sfumato.denoiser.conditions import Conditioner, SlotSpec
from sfumato.denoiser.layers import BANDS, LevelEmbedding, attend, modulated_norm, places, zeroed
from sfumato.denoiser.tokens import Tokens

GROUPS = 8  # of every normalisation


@dataclass(frozen=True)
class UNetConfig:
    """`channels` in and `channels_out` out (equal when 0); `patch` of the space-to-depth stem; `widths` per level, each
    half the resolution of the one before; `blocks` per level and side; `attention` the levels that have it."""

    channels: int = 1
    patch: int = 1
    widths: tuple[int, ...] = (32, 64, 128, 192)
    blocks: tuple[int, ...] = (1, 1, 1, 1)
    attention: tuple[int, ...] = ()
    embedding: int = 256
    head: int = 32
    channels_out: int = 0
    slots: tuple[SlotSpec, ...] = ()

    @property
    def multiple(self) -> int:
        """Height and width must be divisible by this."""
        return self.patch * 2 ** (len(self.widths) - 1)

    def check(self) -> None:
        """Raise SfumatoError when no network has this shape."""
        if min(self.patch, self.embedding, *self.blocks) < 1:
            raise SfumatoError("net.patch, net.embedding and every one of net.blocks must be at least 1")
        if not len(self.widths) == len(self.blocks) > 0:
            raise SfumatoError(
                f"net.blocks needs one number per level: {len(self.widths)} widths, {len(self.blocks)} blocks"
            )
        if any(width % GROUPS or width < 1 for width in self.widths):
            raise SfumatoError(f"net.widths must be multiples of {GROUPS}, not {list(self.widths)}")
        for level in self.attention:
            if not 0 <= level < len(self.widths):
                raise SfumatoError(f"net.attention names level {level}; there are levels 0 to {len(self.widths) - 1}")
            if self.head < 1 or self.widths[level] % max(1, self.widths[level] // self.head):
                raise SfumatoError(
                    f"net.widths {self.widths[level]} does not divide into heads of {self.head}: set net.head"
                )


class Block(nn.Module):
    """x + gate * conv(silu(conv(silu(norm(x) (1 + scale) + shift)))), modulated by the embedding (adaLN-zero)."""

    def __init__(self, inside: int, out: int, embedding: int) -> None:
        super().__init__()
        self.modulation = zeroed(nn.Linear(embedding, 2 * inside + out))
        self.first = nn.Conv2d(inside, out, 3, padding=1)
        self.second = nn.Conv2d(out, out, 3, padding=1)
        self.skip = nn.Conv2d(inside, out, 1, bias=False) if inside != out else nn.Identity()
        self.sizes = (inside, inside, out)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        scale, shift, gate = self.modulation(emb)[:, :, None, None].split(self.sizes, 1)
        h = modulated_norm(x, scale, shift, GROUPS)
        h = self.second(F.silu(self.first(F.silu(h))))
        return torch.addcmul(self.skip(x), h, gate)


class Attention(nn.Module):
    """x + gate * attention over all places of the picture and the condition tokens; `placed`: queries and keys are told
    where in the picture they stand, for tokens that say where.

    Queries and keys have fixed lengths, so a query prefers one word to another e^4 times at most, and a thousand words that
    mean nothing would drown it: each token also says by itself how much it is to be heard.
    """

    def __init__(self, width: int, embedding: int, head: int, tokens: bool, placed: bool) -> None:
        super().__init__()
        self.heads = max(1, width // head)
        self.modulation = zeroed(nn.Linear(embedding, 3 * width))
        self.qkv = nn.Linear(width, 3 * width)
        self.token_kv = nn.Linear(embedding, 2 * width) if tokens else None
        self.heard = zeroed(nn.Linear(embedding, self.heads)) if tokens else None
        self.place = zeroed(nn.Linear(4 * BANDS, 2 * width, bias=False)) if placed else None
        self.out = nn.Linear(width, width)

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def _key(self, x: Tensor) -> Tensor:
        """Keys [..., width], every head's of length 2."""
        return F.normalize(x.unflatten(-1, (self.heads, -1)), dim=-1).flatten(-2) * 2

    def forward(self, x: Tensor, emb: Tensor, tokens: Tokens | None) -> Tensor:
        height, width = x.shape[2:]
        scale, shift, gate = self.modulation(emb)[:, :, None, None].chunk(3, 1)
        h = modulated_norm(x, scale, shift, GROUPS).flatten(2).transpose(1, 2)
        q, k, v = self.qkv(h).chunk(3, -1)
        if self.place is not None:
            to_q, to_k = self.place(places(height, width, x)).chunk(2, -1)
            q, k = q + to_q, k + to_k
        q = self._split(q)
        q, kv = F.normalize(q, dim=-1) * q.shape[-1] ** 0.5, torch.cat([self._key(k), v], -1)
        if tokens is None:
            k, v = kv.chunk(2, -1)
            h = attend(q, self._split(k), self._split(v))
        else:
            h = self._with_tokens(q, kv, tokens)
        h = self.out(h.transpose(1, 2).flatten(2)).transpose(1, 2).unflatten(-1, (height, -1))
        return torch.addcmul(x, h, gate)

    def _with_tokens(self, q: Tensor, kv: Tensor, tokens: Tokens) -> Tensor:
        token_k, token_v = self.token_kv(tokens.rows).chunk(2, -1)
        token_kv, heard = torch.cat([self._key(token_k), token_v], -1).to(kv.dtype), self.heard(tokens.rows)
        read = []
        for group in tokens.groups:
            mine = kv if group is tokens.whole else kv[group.samples]
            k, v = torch.cat([mine, group.padded(token_kv)], 1).chunk(2, -1)
            mask = torch.cat([group.mask.new_ones(mine.shape[:2]), group.mask], 1)
            queries = q if group is tokens.whole else q[group.samples]
            bias = F.pad(group.padded(heard), (0, 0, mine.shape[1], 0))  # the picture's own places have none
            read.append(attend(queries, self._split(k), self._split(v), mask, bias.transpose(1, 2)))
        if len(read) == 1:
            return read[0]
        order = torch.cat([group.samples for group in tokens.groups])
        return torch.cat(read)[order.argsort()]


class UNet(nn.Module):
    """(x [B, C, H, W], level [B], cond) -> y [B, C_out, H, W]."""

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        config.check()
        self.config = config
        c, emb = config, config.embedding
        self.level = LevelEmbedding(emb)
        self.conditioner = Conditioner(c.slots, emb)
        tokens, placed = self.conditioner.has_tokens, any(spec.role == "placed" for spec in c.slots)
        self.stem = nn.Conv2d((c.channels + self.conditioner.map_channels) * c.patch**2, c.widths[0], 3, padding=1)

        def stage(inside: list[int], out: int, level: int) -> nn.ModuleList:
            rows = []
            for width in inside:
                block = Block(width, out, emb)
                attention = Attention(out, emb, c.head, tokens, placed) if level in c.attention else None
                rows.append(nn.ModuleList([block, attention] if attention else [block]))
            return nn.ModuleList(rows)

        self.down, self.shrink, self.up, self.grow = (nn.ModuleList() for _ in range(4))
        for i, (width, blocks) in enumerate(zip(c.widths, c.blocks, strict=True)):
            if i:
                self.shrink.append(nn.Conv2d(c.widths[i - 1], width, 2, stride=2))
                self.grow.append(nn.Conv2d(width, c.widths[i - 1], 1))
            self.down.append(stage([width] * blocks, width, i))
            self.up.append(stage([2 * width] + [width] * (blocks - 1), width, i))
        self.head_modulation = zeroed(nn.Linear(emb, 2 * c.widths[0]))
        self.head = zeroed(nn.Conv2d(c.widths[0], (c.channels_out or c.channels) * c.patch**2, 3, padding=1))

    def forward(self, x: Tensor, level: Tensor, cond: Cond, even: bool = False) -> Tensor:
        vector, tokens, maps = self.conditioner(cond, x, even)
        emb = F.silu(self.level(level) + vector)
        h = x if maps is None else torch.cat([x, maps], 1)
        h = self.stem(F.pixel_unshuffle(h, self.config.patch))

        def run(stage: nn.ModuleList, h: Tensor) -> Tensor:
            for row in stage:
                h = row[0](h, emb)
                if len(row) > 1:
                    h = row[1](h, emb, tokens)
            return h

        skips = []
        for i, stage in enumerate(self.down):
            h = run(stage, self.shrink[i - 1](h) if i else h)
            skips.append(h)
        for i in reversed(range(len(self.up))):
            h = run(self.up[i], torch.cat([h, skips[i]], 1))
            if i:
                h = F.interpolate(self.grow[i - 1](h), scale_factor=2, mode="nearest")
        scale, shift = self.head_modulation(emb)[:, :, None, None].chunk(2, 1)
        h = F.silu(modulated_norm(h, scale, shift, GROUPS))
        return F.pixel_shuffle(self.head(h), self.config.patch)
