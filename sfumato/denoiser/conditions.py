"""Condition encoders: what a slot becomes inside a network. Each declares its role; nothing is guessed from rank."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sfumato.core import TOKENS, Cond, Role, SfumatoError
from sfumato.denoiser.language import Language, Placed, Pool
from sfumato.denoiser.tokens import Tokens


@dataclass(frozen=True)
class SlotSpec:
    """One condition a network is built for.

    `size`: number of classes or of words' features (`ids` True), else dimension of the vector or of each token, or map
    channels; `frames`: how many frames a frames slot holds.
    """

    name: str
    role: Role
    size: int
    ids: bool = False
    frames: int = 1

    @property
    def channels(self) -> int:
        """Input channels a map or frames slot adds: its own, and one that says where it is present."""
        if self.role == "map":
            return self.size + 1
        return (self.size + 1) * self.frames if self.role == "frames" else 0


def _has_encoder(spec: SlotSpec) -> bool:
    return spec.role == "vector" or spec.role in TOKENS


def _encoder(spec: SlotSpec, width: int, read: bool) -> nn.Module:
    if spec.role == "placed":
        return Placed(None if read else spec.size, width)
    if spec.ids and spec.role == "tokens":
        return Language(spec.size, width)
    if spec.ids:
        encoder = nn.Embedding(spec.size + 1, width)
        nn.init.normal_(encoder.weight, std=0.5)
    else:
        encoder = nn.Linear(spec.size, width, bias=False)
        nn.init.normal_(encoder.weight, std=width**-0.5)
    return encoder


class Conditioner(nn.Module):
    """Cond -> (vector [B, width], `Tokens` of this width or None, maps [B, C, H, W] or None).

    Tokens of ids int64 [B, N, F] are words, read by a `Language` of their own; placed ones by that of the plain words,
    where there are any, so that what captions teach is known in its place too. A slot that is absent, wholly or for some
    samples, becomes a learned null (ids), zeros (vectors, maps) or masked tokens; one learned token is always present so
    that attention never reads nothing. Asked `even`, masked tokens are worked on too and not read: what is computed has one
    shape then, whatever is masked.
    """

    def __init__(self, specs: tuple[SlotSpec, ...], width: int) -> None:
        super().__init__()
        self.specs, self.width = specs, width
        plain = [spec.name for spec in specs if spec.role == "tokens" and spec.ids]
        self.language = plain[0] if plain else None
        self.encoders = nn.ModuleDict({s.name: _encoder(s, width, bool(plain)) for s in specs if _has_encoder(s)})
        self.has_tokens = any(spec.role in TOKENS for spec in specs)
        if self.has_tokens:
            self.null_token = nn.Parameter(torch.zeros(1, 1, width))
            self.pool = Pool(width)
        self.map_channels = sum(spec.channels for spec in specs)

    def forward(self, cond: Cond, x: Tensor, even: bool = False) -> tuple[Tensor, Tokens | None, Tensor | None]:
        unknown = set(cond) - {spec.name for spec in self.specs}
        if unknown:
            known = [spec.name for spec in self.specs]
            raise SfumatoError(f"this model has no condition {sorted(unknown)}; it was built for {known or 'none'}")
        vector = x.new_zeros(x.shape[0], self.width)
        rows, samples, there, maps = [], [], [], []
        for spec in self.specs:
            slot = cond.get(spec.name)
            if spec.role == "vector":
                vector = vector + self._vector(spec, slot, vector)
            elif spec.role in TOKENS and slot is not None:
                encoder, mask = self.encoders[spec.name], slot.present()
                read = torch.ones_like(mask) if even else mask
                if spec.role == "placed":
                    words = encoder.language if self.language is None else self.encoders[self.language]
                    rows.append(encoder(slot.value, mask, read, words))
                else:
                    rows.append(encoder(slot.value, mask, read) if spec.ids else encoder(slot.value[read]))
                samples.append(read.nonzero()[:, 0])
                there.append(mask[read])
            elif spec.role in ("map", "frames"):
                maps.append(self._map(spec, slot, x))
        tokens = None
        if self.has_tokens:
            rows.append(self.null_token[0].expand(len(x), -1))
            samples.append(torch.arange(len(x), device=x.device))
            there.append(torch.ones(len(x), dtype=torch.bool, device=x.device))
            tokens = Tokens(torch.cat(rows), torch.cat(samples), len(x), torch.cat(there) if even else None)
            vector = vector + self.pool(tokens)
        return vector, tokens, torch.cat(maps, 1) if maps else None

    def _vector(self, spec: SlotSpec, slot, like: Tensor) -> Tensor:
        encoder = self.encoders[spec.name]
        if not spec.ids:
            if slot is None:
                return torch.zeros_like(like)
            return encoder(slot.value * slot.present().unsqueeze(-1))
        null = torch.full((like.shape[0],), spec.size, dtype=torch.int64, device=like.device)
        return encoder(null if slot is None else torch.where(slot.present(), slot.value, null))

    def _map(self, spec: SlotSpec, slot, x: Tensor) -> Tensor:
        if slot is None:
            return x.new_zeros(x.shape[0], spec.channels, *x.shape[-2:])
        value = slot.value.flatten(1, 2) if spec.role == "frames" else slot.value
        present = slot.present().reshape(-1, 1, 1, 1).to(value.dtype)
        shown = present.expand(-1, spec.frames, *value.shape[-2:])
        return torch.cat([value * present, shown], 1)
