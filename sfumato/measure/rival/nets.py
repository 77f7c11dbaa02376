"""Generator and discriminator of R3GAN (Huang et al. 2024, arXiv 2501.05441): mirrored residual networks without
normalisation, whose residual branches start at zero (fix-up, Zhang et al. 2019, arXiv 1901.09321)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SLOPE = 0.2  # of the leaky rectifier
GAIN = math.sqrt(2 / (1 + SLOPE**2))
SMALLEST = 4  # pixels: no side is halved below this
ROUND = 8  # widths are multiples of this


@dataclass(frozen=True)
class Shape:
    """What both networks are built from: the picture (channels, height, width), the width of every resolution from the
    smallest to the largest, blocks per resolution, length of z, the space-to-depth `patch`, and `group`, the channels per
    group of the 3x3 convolutions (0: dense)."""

    picture: tuple[int, int, int]
    widths: tuple[int, ...]
    blocks: int = 1
    z: int = 64
    patch: int = 1
    group: int = 16

    @property
    def floor(self) -> tuple[int, int]:
        """Height and width of the smallest resolution."""
        scale = self.patch * 2 ** (len(self.widths) - 1)
        return self.picture[1] // scale, self.picture[2] // scale


def stages(height: int, width: int, patch: int) -> int:
    """How many resolutions: halved while both sides stay whole and at least `SMALLEST`."""
    height, width, n = height // patch, width // patch, 1
    while height % 2 == 0 and width % 2 == 0 and min(height, width) >= 2 * SMALLEST:
        height, width, n = height // 2, width // 2, n + 1
    return n


def _normal(module: nn.Conv2d | nn.Linear, gain: float) -> nn.Conv2d | nn.Linear:
    """Weights of standard deviation gain / sqrt(fan in), bias zero."""
    nn.init.normal_(module.weight, 0, gain / math.sqrt(module.weight[0].numel()))
    nn.init.zeros_(module.bias)
    return module


def act(x: Tensor) -> Tensor:
    return F.leaky_relu(x, SLOPE)


class Block(nn.Module):
    """x + 1x1(act(3x3 in groups(act(1x1(x))))), twice as wide inside, the last convolution starting at zero."""

    def __init__(self, width: int, group: int, depth: int) -> None:
        super().__init__()
        inside = 2 * width
        gain = GAIN * depth**-0.25  # fix-up: depth^(-1 / (2 m - 2)) for branches of m = 3 layers
        groups = inside // group if group else 1
        self.widen = _normal(nn.Conv2d(width, inside, 1), gain)
        self.mix = _normal(nn.Conv2d(inside, inside, 3, padding=1, groups=groups), gain)
        self.narrow = _normal(nn.Conv2d(inside, width, 1), 0.0)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.narrow(act(self.mix(act(self.widen(x)))))


def _body(shape: Shape, widths: Sequence[int]) -> tuple[nn.ModuleList, nn.ModuleList]:
    """Blocks per resolution, and the 1x1 convolutions between resolutions."""
    depth = shape.blocks * len(widths)
    blocks = [nn.Sequential(*(Block(w, shape.group, depth) for _ in range(shape.blocks))) for w in widths]
    between = [_normal(nn.Conv2d(a, b, 1), 1.0) for a, b in zip(widths, widths[1:], strict=False)]
    return nn.ModuleList(blocks), nn.ModuleList(between)


class Generator(nn.Module):
    """z [B, z] -> pictures [B, C, H, W] without bounds."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        height, width = shape.floor
        self.basis = _normal(nn.Linear(shape.z, shape.widths[0] * height * width), 1.0)
        self.stages, self.between = _body(shape, shape.widths)
        self.out = _normal(nn.Conv2d(shape.widths[-1], shape.picture[0] * shape.patch**2, 3, padding=1), 1.0)

    def forward(self, z: Tensor) -> Tensor:
        h = self.basis(z).unflatten(1, (self.shape.widths[0], *self.shape.floor))
        h = self.stages[0](h.contiguous(memory_format=_layout(self)))
        for between, stage in zip(self.between, list(self.stages)[1:], strict=True):
            h = stage(F.interpolate(between(h), scale_factor=2, mode="bilinear", align_corners=False))
        return F.pixel_shuffle(self.out(h), self.shape.patch)


class Discriminator(nn.Module):
    """Pictures [B, C, H, W] -> logits [B], higher is more real; `answers` gives all of its [B, outputs]."""

    def __init__(self, shape: Shape, outputs: int = 1) -> None:
        super().__init__()
        self.shape = shape
        height, width = shape.floor
        widths = shape.widths[::-1]
        self.stem = _normal(nn.Conv2d(shape.picture[0] * shape.patch**2, widths[0], 3, padding=1), 1.0)
        self.stages, self.between = _body(shape, widths)
        self.hidden = _normal(nn.Linear(widths[-1] * height * width, shape.z), GAIN)
        self.last = _normal(nn.Linear(shape.z, outputs), 1.0)

    def answers(self, x: Tensor) -> Tensor:
        h = self.stages[0](self.stem(F.pixel_unshuffle(x, self.shape.patch)))
        for between, stage in zip(self.between, list(self.stages)[1:], strict=True):
            h = stage(between(F.avg_pool2d(h, 2)))
        return self.last(act(self.hidden(h.flatten(1))))

    def forward(self, x: Tensor) -> Tensor:
        return self.answers(x)[:, 0]


def _layout(net: nn.Module) -> torch.memory_format:
    weight = net.out.weight
    return torch.channels_last if weight.is_contiguous(memory_format=torch.channels_last) else torch.contiguous_format


def fitted(shape: Shape, shares: Sequence[float], parameters: int, build: Callable[[Shape], nn.Module]) -> Shape:
    """The shape whose network has the nearest to `parameters` weights: widths in proportion to `shares`.

    Widths are rounded to multiples of 8, so the count is met within a few per cent for networks of a million weights.
    """

    def at(base: float) -> Shape:
        widths = tuple(max(ROUND, round(base * share / ROUND) * ROUND) for share in shares)
        return Shape(shape.picture, widths, shape.blocks, shape.z, shape.patch, shape.group)

    def count(base: float) -> int:
        with torch.device("meta"):
            return sum(p.numel() for p in build(at(base)).parameters())

    low, high = float(ROUND), 2.0 * ROUND
    while count(high) < parameters and high < 2**14:
        low, high = high, 2 * high
    while high - low > 0.5:
        middle = (low + high) / 2
        low, high = (middle, high) if count(middle) < parameters else (low, middle)
    return at(min((low, high), key=lambda base: abs(count(base) - parameters)))
