"""Condition encoders: what a slot becomes inside a network. Each declares its role; nothing is guessed from rank."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sfumato.core import Cond, Role, SfumatoError


@dataclass(frozen=True)
class SlotSpec:
    """One condition a network is built for.

    `size`: number of classes or vocabulary (`ids` True), else vector dimension or map channels; `frames`: how many
    frames a frames slot holds.
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


class Conditioner(nn.Module):
    """Cond -> (vector [B, width], tokens [B, N, width] with mask [B, N] or None, maps [B, C, H, W] or None).

    A slot that is absent, wholly or for some samples, becomes a learned null (ids), zeros (vectors, maps) or masked
    tokens; one learned token is always present so that attention never reads nothing.
    """

    def __init__(self, specs: tuple[SlotSpec, ...], width: int) -> None:
        super().__init__()
        self.specs, self.width = specs, width
        encoders = {}
        for spec in specs:
            if spec.role in ("vector", "tokens"):
                encoders[spec.name] = (
                    nn.Embedding(spec.size + 1, width) if spec.ids else nn.Linear(spec.size, width, bias=False)
                )
        self.encoders = nn.ModuleDict(encoders)
        for encoder in self.encoders.values():
            nn.init.normal_(encoder.weight, std=width**-0.5 if isinstance(encoder, nn.Linear) else 0.5)
        self.has_tokens = any(spec.role == "tokens" for spec in specs)
        if self.has_tokens:
            self.null_token = nn.Parameter(torch.zeros(1, 1, width))
            self.pool = nn.Linear(width, width)
        self.map_channels = sum(spec.channels for spec in specs)

    def forward(self, cond: Cond, x: Tensor) -> tuple[Tensor, Tensor | None, Tensor | None, Tensor | None]:
        unknown = set(cond) - {spec.name for spec in self.specs}
        if unknown:
            known = [spec.name for spec in self.specs]
            raise SfumatoError(f"this model has no condition {sorted(unknown)}; it was built for {known or 'none'}")
        batch = x.shape[0]
        vector = x.new_zeros(batch, self.width)
        tokens, masks, maps = [], [], []
        for spec in self.specs:
            slot = cond.get(spec.name)
            if spec.role == "vector":
                vector = vector + self._vector(spec, slot, vector)
            elif spec.role == "tokens" and slot is not None:
                tokens.append(self.encoders[spec.name](slot.value))
                masks.append(slot.present())
            elif spec.role in ("map", "frames"):
                maps.append(self._map(spec, slot, x))
        if not self.has_tokens:
            return vector, None, None, torch.cat(maps, 1) if maps else None
        tokens.append(self.null_token.expand(batch, 1, -1))
        masks.append(torch.ones(batch, 1, dtype=torch.bool, device=x.device))
        text, mask = torch.cat(tokens, 1), torch.cat(masks, 1)
        weight = mask.unsqueeze(-1).to(text.dtype)
        vector = vector + self.pool((text * weight).sum(1) / weight.sum(1))
        return vector, text, mask, torch.cat(maps, 1) if maps else None

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
