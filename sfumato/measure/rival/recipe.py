"""What makes a rival besides the data: frozen dataclasses, so tuning is `key=value` as it is for diffusion."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from sfumato.core import SfumatoError
from sfumato.data import Source
from sfumato.measure.rival.nets import Shape, stages


@dataclass(frozen=True)
class RivalRecipe:
    """What every rival has: `shares`, the relative widths from the smallest resolution up (the last is repeated where there
    are more), with `blocks` each; `z` numbers that a picture is made of; `group` channels per group of the 3x3 convolutions
    (0: dense); Adam's `rate`, rising over `warmup` steps and falling linearly over the last `decay` share of the run;
    `width`, the relative width of the generator's average.
    """

    shares: tuple[float, ...] = (1.0, 0.35, 0.15, 0.0625)
    blocks: int = 1
    z: int = 64
    group: int = 0
    batch: int = 16
    rate: float = 5e-4
    warmup: int = 50
    decay: float = 0.5
    width: float = 0.1
    seed: int = 0

    name: ClassVar[str]
    positive: ClassVar[tuple[str, ...]] = ("blocks", "z", "batch", "rate")

    def __post_init__(self) -> None:
        for name in self.positive:
            if not getattr(self, name) > 0:
                raise SfumatoError(f"{self.name}.{name} should lie above 0, not {getattr(self, name):g}")
        if not self.shares or min(self.shares) <= 0:
            raise SfumatoError(f"{self.name}.shares needs one number above 0 or more")
        if not 0 <= self.decay <= 1 or self.group not in (0, 4, 8, 16):
            raise SfumatoError(f"{self.name}.decay lies in 0 ... 1; {self.name}.group is 0 (dense), 4, 8 or 16")

    def shape(self, source: Source, patch: int) -> tuple[Shape, tuple[float, ...]]:
        """The networks' shape before its widths are known, and the share of each resolution."""
        channels, height, width = source.codec.spec
        n = stages(height, width, patch)
        shares = (self.shares + (self.shares[-1],) * n)[:n]
        return Shape((channels, height, width), (), self.blocks, self.z, patch, self.group), shares


@dataclass(frozen=True)
class GanRecipe(RivalRecipe):
    """R3GAN for minutes instead of days.

    `rate_d`: the discriminator's; beta1 of Adam is 0. `gamma` falls to `gamma_end` along a cosine over the run; with `every`
    above 1 the penalties are taken each `every` steps at `every` times their weight (Karras et al. 2020).
    """

    rate_d: float = 5e-4
    beta2: float = 0.99
    gamma: float = 1.0
    gamma_end: float = 0.1
    every: int = 16

    name = "gan"
    positive = (*RivalRecipe.positive, "rate_d", "gamma", "gamma_end", "every")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.beta2 < 1:
            raise SfumatoError("gan.beta2 lies in 0 ... 1")


@dataclass(frozen=True)
class VaeRecipe(RivalRecipe):
    """A variational autoencoder from the same blocks: squared error / (2 sigma^2), sigma as the best fit, plus KL times
    `beta`."""

    batch: int = 32
    rate: float = 1e-3
    beta: float = 1.0

    name = "vae"
    positive = (*RivalRecipe.positive, "beta")
