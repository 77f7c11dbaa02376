"""What makes a rival besides the data: frozen dataclasses, so tuning is `key=value` as it is for diffusion."""

from __future__ import annotations

from dataclasses import dataclass

from sfumato.core import SfumatoError
from sfumato.data import Source
from sfumato.measure.rival.nets import Shape, stages


def _above_zero(where: str, values: dict[str, float]) -> None:
    for name, value in values.items():
        if not value > 0:
            raise SfumatoError(f"{where}.{name} should lie above 0, not {value:g}")


@dataclass(frozen=True)
class GanRecipe:
    """R3GAN for minutes instead of days.

    `shares`: relative widths from the smallest resolution up (the last is repeated where there are more); `gamma` falls to
    `gamma_end` along a cosine over the run; with `every` above 1 the penalties are taken each `every` steps at `every`
    times their weight (Karras et al. 2020); `rate` is that of Adam with beta1 = 0, rising over `warmup` steps and falling
    linearly over the last `decay` share of the run; `group` is the channels per group of the 3x3 convolutions (0: dense);
    `width` is the relative width of the generator's average.
    """

    shares: tuple[float, ...] = (1.0, 0.35, 0.15, 0.0625)
    blocks: int = 1
    z: int = 64
    group: int = 0
    batch: int = 16
    rate: float = 5e-4
    rate_d: float = 5e-4
    beta2: float = 0.99
    warmup: int = 50
    decay: float = 0.5
    gamma: float = 1.0
    gamma_end: float = 0.1
    every: int = 16
    width: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        numbers = ("blocks", "z", "batch", "rate", "rate_d", "gamma", "gamma_end", "every")
        _above_zero("gan", {name: getattr(self, name) for name in numbers})
        if not self.shares or min(self.shares) <= 0:
            raise SfumatoError("gan.shares needs one number above 0 or more")
        if not 0 <= self.decay <= 1 or not 0 <= self.beta2 < 1 or self.group not in (0, 4, 8, 16):
            raise SfumatoError("gan.decay and gan.beta2 lie in 0 ... 1; gan.group is 0 (dense), 4, 8 or 16")

    def shape(self, source: Source, patch: int) -> tuple[Shape, tuple[float, ...]]:
        """The networks' shape before its widths are known, and the share of each resolution."""
        channels, height, width = source.codec.spec
        n = stages(height, width, patch)
        shares = (self.shares + (self.shares[-1],) * n)[:n]
        return Shape((channels, height, width), (), self.blocks, self.z, patch, self.group), shares


@dataclass(frozen=True)
class VaeRecipe:
    """A variational autoencoder from the same blocks: squared error / (2 sigma^2), sigma as the best fit, plus KL times
    `beta`; AdamW's `rate` as in `GanRecipe`."""

    shares: tuple[float, ...] = (1.0, 0.35, 0.15, 0.0625)
    blocks: int = 1
    z: int = 64
    group: int = 0
    batch: int = 32
    rate: float = 1e-3
    beta: float = 1.0
    warmup: int = 50
    decay: float = 0.5
    width: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        _above_zero("vae", {name: getattr(self, name) for name in ("blocks", "z", "batch", "rate", "beta")})

    shape = GanRecipe.shape
