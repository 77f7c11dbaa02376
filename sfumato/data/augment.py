"""Non-leaky augmentation: the network is told what was done to each picture, so samples are drawn with "nothing"."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from sfumato.core import Noise, SfumatoError, Slot

WIDTH = 6  # of the vector: flip, shift down, shift right, log2 scale, cos(angle) - 1, sin(angle)
COLOURS = 5  # of the vector of colour: added, log2 contrast, cos(angle) - 1, sin(angle), log2 saturation


@dataclass(frozen=True)
class Augment:
    """Random flips, shifts, scalings and rotations with their vector [B, 6]; zeros mean an untouched picture.

    Mirror left-right with probability `flip`; each of the others with probability `p`, alone of the rest: shift by
    whole pixels up to `shift` of the side (reflected border), scale by 2^(scale * normal), rotate by an angle uniform
    in +-`rotate` * pi. Karras et al. 2022 (EDM), appendix F.2, with p = 0.12. Sample with `nothing(B)`.
    """

    flip: float = 0.5
    p: float = 0.12
    shift: float = 0.125
    scale: float = 0.2
    rotate: float = 1.0

    def __post_init__(self) -> None:
        for name in ("flip", "p", "shift", "rotate"):
            if not 0 <= getattr(self, name) <= 1:
                raise SfumatoError(f"augmentation {name} must lie in 0..1, not {getattr(self, name)}")
        if self.shift >= 1:
            raise SfumatoError("augmentation shift must be below 1: the whole side would leave the picture")
        if self.scale < 0:
            raise SfumatoError(f"augmentation scale must be 0 or more, not {self.scale}")

    @staticmethod
    def nothing(n: int) -> Slot:
        """The slot "augment" of n untouched pictures, for sampling and validation."""
        return Slot(torch.zeros(n, WIDTH), "vector")

    def __call__(self, x0: Tensor, noise: Noise) -> tuple[Tensor, Slot]:
        """x0 float32 [B, C, H, W] in [-1, 1] -> (changed pictures in [-1, 1], slot "augment"); pure in `noise`."""
        vector = self.draw(x0, noise)
        return self.apply(x0, vector), Slot(vector, "vector")

    def draw(self, x0: Tensor, noise: Noise) -> Tensor:
        """What to do with each picture, float32 [B, 6]: shifts in units of the largest one, so within [-1, 1]."""
        u = noise.at(0).uniform((len(x0), 7))
        down, right = (self._whole(u[:, k], side) for k, side in ((1, x0.shape[2]), (2, x0.shape[3])))
        angle = (2 * u[:, 3] - 1) * self.rotate * math.pi
        moved, scaled, turned = (u[:, k] < self.p for k in (4, 5, 6))
        vector = torch.zeros(len(x0), WIDTH)
        vector[:, 0] = u[:, 0] < self.flip
        vector[:, 1] = down * moved
        vector[:, 2] = right * moved
        vector[:, 3] = noise.at(1).normal((len(x0), 1))[:, 0] * self.scale * scaled
        vector[:, 4] = (angle.cos() - 1) * turned
        vector[:, 5] = angle.sin() * turned
        return vector.to(x0.device)

    def _most(self, side: int) -> int:
        """Largest shift in pixels; the reflected border must exist."""
        return min(round(self.shift * side), side - 1)

    def _whole(self, u: Tensor, side: int) -> Tensor:
        most = self._most(side)
        return ((u * (2 * most + 1)).floor() - most) / max(most, 1)

    def apply(self, x0: Tensor, vector: Tensor, nearest: bool = False) -> Tensor:
        """Do what the vectors say: mirror, shift, then scale and rotate about the centre (bicubic; `nearest`: every place
        takes one value of before, for maps of whole numbers)."""
        x0 = torch.where(vector[:, 0].bool().reshape(-1, 1, 1, 1), x0.flip(3), x0)
        for column, axis in ((1, 2), (2, 3)):
            x0 = _where(vector[:, column] != 0, x0, vector[:, column], lambda x, v, axis=axis: self._shift(x, v, axis))
        return _where(vector[:, 3:].any(1), x0, vector, lambda x, v: _warp(x, v, nearest))

    def _shift(self, x0: Tensor, part: Tensor, axis: int) -> Tensor:
        """Shift along an axis by `part` [B] of the largest shift, borders reflected."""
        side = x0.shape[axis]
        pixels = (part * self._most(side)).round().long()
        place = (torch.arange(side, device=x0.device) - pixels[:, None]).abs()  # reflect at 0, then at side - 1
        place = (side - 1) - ((side - 1) - place).abs()
        shape = [len(x0), 1, 1, 1]
        shape[axis] = side
        return x0.gather(axis, place.reshape(shape).expand(x0.shape))


@dataclass(frozen=True)
class Colour:
    """Random brightness, contrast, hue and saturation with their vector [B, 5]; zeros mean an untouched picture.

    Each with probability `p`, alone of the rest, in this order: add brightness * normal; multiply by 2^(contrast *
    normal); turn the colours about the grey axis by an angle uniform in +-`hue` * pi; multiply their distance from that
    axis by 2^(saturation * normal); values are clamped to [-1, 1] at the end. Grey pictures take part in the first two.
    Karras et al. 2020 (ADA, arXiv 2006.06676), appendix B. Sample without the slot, or with `nothing(B)`.
    """

    p: float = 0.12
    brightness: float = 0.2
    contrast: float = 0.5
    hue: float = 1.0
    saturation: float = 1.0

    def __post_init__(self) -> None:
        for name, most in (("p", 1.0), ("brightness", 2.0), ("contrast", 4.0), ("hue", 1.0), ("saturation", 4.0)):
            if not 0 <= getattr(self, name) <= most:
                raise SfumatoError(f"colour {name} must lie in 0..{most:g}, not {getattr(self, name)}")

    @staticmethod
    def nothing(n: int) -> Slot:
        """The slot "colour" of n untouched pictures."""
        return Slot(torch.zeros(n, COLOURS), "vector")

    def __call__(self, x0: Tensor, noise: Noise) -> tuple[Tensor, Slot]:
        """x0 float32 [B, C, H, W] in [-1, 1] -> (changed pictures in [-1, 1], slot "colour"); pure in `noise`."""
        vector = self.draw(x0, noise)
        return _where(vector.any(1), x0, vector, _tint), Slot(vector, "vector")

    def draw(self, x0: Tensor, noise: Noise) -> Tensor:
        """What to do with each picture, float32 [B, 5]: added, log2 contrast, cos(angle) - 1, sin, log2 saturation."""
        u, normal = noise.at(0).uniform((len(x0), 5)), noise.at(1).normal((len(x0), 3))
        angle = (2 * u[:, 4] - 1) * self.hue * math.pi
        scaled = [self.brightness * normal[:, 0], self.contrast * normal[:, 1], angle.cos() - 1, angle.sin()]
        chosen = (u[:, :4] < self.p)[:, [0, 1, 2, 2, 3]]
        vector = torch.stack([*scaled, self.saturation * normal[:, 2]], 1) * chosen
        if x0.shape[1] == 1:
            vector[:, 2:] = 0
        return vector.to(x0.device)


def _tint(x0: Tensor, vector: Tensor) -> Tensor:
    """Do what the colour vectors say."""
    added, contrast = (vector[:, :1], torch.exp2(vector[:, 1:2]))
    x0 = (x0 + added[..., None, None]) * contrast[..., None, None]
    if x0.shape[1] == 3:
        grey = torch.full((3, 3), 1 / 3, device=x0.device)
        across = torch.eye(3, device=x0.device) - grey
        turn = torch.tensor([[0.0, -1, 1], [1, 0, -1], [-1, 1, 0]], device=x0.device) / 3**0.5  # (1, 1, 1) / sqrt(3) x
        cos, sin, saturation = (
            vector[:, 2, None, None] + 1,
            vector[:, 3, None, None],
            torch.exp2(vector[:, 4, None, None]),
        )
        x0 = torch.einsum("bij,bjhw->bihw", grey + saturation * (cos * across + sin * turn), x0)
    return x0.clamp(-1, 1)


def _where(chosen: Tensor, x0: Tensor, given: Tensor, change: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """`change` the chosen rows only."""
    rows = chosen.nonzero()[:, 0]
    return x0.index_copy(0, rows, change(x0[rows], given[rows])) if len(rows) else x0


def _warp(x0: Tensor, vector: Tensor, nearest: bool) -> Tensor:
    """Scale by 2^v3 and rotate counter-clockwise by atan2(v5, v4 + 1) about the centre, borders reflected."""
    factor = torch.exp2(-vector[:, 3])  # of the place in the picture that a place in the result looks at
    cos, sin = (vector[:, 4] + 1) * factor, vector[:, 5] * factor
    aspect = x0.shape[2] / x0.shape[3]
    zero = torch.zeros_like(cos)
    across = torch.stack([cos, -sin * aspect, zero], 1)
    down = torch.stack([sin / aspect, cos, zero], 1)
    grid = functional.affine_grid(torch.stack([across, down], 1), list(x0.shape), align_corners=False)
    mode = "nearest" if nearest else "bicubic"
    warped = functional.grid_sample(x0, grid, mode=mode, padding_mode="reflection", align_corners=False)
    return warped if nearest else warped.clamp(-1, 1)
