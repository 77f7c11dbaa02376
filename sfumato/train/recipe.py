"""A recipe: everything that makes a model besides the data, as frozen dataclasses that are printed whole into the run."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from sfumato.core import Batch, Cond, Noise, SfumatoError
from sfumato.data import VOCABULARY, Augment, Captions, Colour, PixelCodec, Source, Standard, StandardCodec
from sfumato.data.balance import Balance, order_of
from sfumato.data.canvas import Controls, boxes_of
from sfumato.data.encoders import Encoder, text_slot
from sfumato.data.micro import NAMES as MICRO
from sfumato.data.micro import slots as micro_slots
from sfumato.data.order import Dealt
from sfumato.denoiser import (
    X0,
    Denoiser,
    EDMTarget,
    Eps,
    Flow,
    SlotSpec,
    Transformer,
    TransformerConfig,
    UNet,
    UNetConfig,
    V,
)
from sfumato.forward import EDM, VE, RectifiedFlow, SubVP, VPCosine, VPLinear
from sfumato.train.ema import EMAConfig
from sfumato.train.muon import Muon, hidden
from sfumato.train.objective import Consistency, SquaredError
from sfumato.train.times import LogNormalTimes, UniformTimes


@dataclass(frozen=True)
class Optimiser:
    """AdamW at peak `rate` for the edges of the network and all vectors, Muon at peak `muon` for its hidden matrices
    (0: AdamW for all). Rates rise for `warmup` steps, stay, and fall linearly to zero over the last `decay` share of the
    run; gradients are clipped to norm `clip`."""

    rate: float = 1.5e-3
    muon: float = 0.01
    beta1: float = 0.9
    beta2: float = 0.99
    weight_decay: float = 0.01
    warmup: int = 50
    decay: float = 0.5
    clip: float = 1.0

    def __post_init__(self) -> None:
        checks = {
            "rate": (self.rate > 0, "above 0"),
            "muon": (self.muon >= 0, "0 or more"),
            "beta1": (0 <= self.beta1 < 1, "in 0 ... 1"),
            "beta2": (0 <= self.beta2 < 1, "in 0 ... 1"),
            "weight_decay": (self.weight_decay >= 0, "0 or more"),
            "decay": (0 <= self.decay <= 1, "in 0 ... 1"),
            "clip": (self.clip > 0, "above 0"),
        }
        for name, (fine, should) in checks.items():
            if not fine:
                raise SfumatoError(f"optimiser.{name} should lie {should}, not {getattr(self, name):g}")

    def build(self, weights: dict[str, Tensor]) -> list[torch.optim.Optimizer]:
        """The optimisers of these named weights, each group's peak rate kept under "peak"."""
        matrices = {k: p for k, p in weights.items() if self.muon > 0 and hidden(k, p)}
        rest = [p for k, p in weights.items() if k not in matrices]
        betas = (self.beta1, self.beta2)
        made: list[torch.optim.Optimizer] = [
            torch.optim.AdamW(rest, lr=self.rate, betas=betas, weight_decay=self.weight_decay, fused=True)
        ]
        if matrices:
            made.append(Muon(matrices.values(), lr=self.muon, weight_decay=self.weight_decay))
        for optimiser in made:
            for group in optimiser.param_groups:
                group["peak"] = group["lr"]
        return made

    def moment_bytes(self, weights: dict[str, Tensor]) -> int:
        """Float32 bytes that the optimisers keep of these named weights: one moment for Muon, two for AdamW."""
        return sum(4 * p.numel() * (1 if self.muon > 0 and hidden(k, p) else 2) for k, p in weights.items())

    def factor(self, step: int, progress: float) -> float:
        """What the rate is multiplied by at this step (from 0) and share of the run done (0 ... 1)."""
        down = (1 - progress) / self.decay if self.decay > 0 else 1.0
        return min(1.0, (step + 1) / max(1, self.warmup)) * max(0.0, min(1.0, down))


CONDITIONS = ("class", "style", "text")  # what a source may tell of a picture


@dataclass(frozen=True)
class Recipe:
    """Network, process, prediction, loss, times, optimiser, averages.

    `sigma_data` None means: measured on the data. `conditions`: which of the source's conditions the network sees, where
    the source has them ("size" and "crop", what its pictures were before, are to be asked for); `condition_dropout` is the
    share of samples that see none, `each_dropout` the share that each condition is hidden from by itself, whatever becomes
    of the others; `controls` what else of the picture it is told;
    `balance` how often each picture is drawn (None: all alike); `captions` how captions are changed; `augment` and
    `colour` the non-leaky augmentations; `standard` standardises what the network sees, fitted to the training rows;
    `encoder` is the frozen encoder that captions are read by (None: a language of the network's own); as it is slow, each
    caption has `encoder.variants` versions by the rules of `captions`, read once each, not one for every time it is seen:
    phrases read one by one would be fewer, yet an encoder tells what a word means beside the others. `compile` trains
    through torch.compile (needs a C++ compiler, and a minute).
    """

    net: UNetConfig | TransformerConfig = UNetConfig()
    process: RectifiedFlow | VPLinear | VPCosine | SubVP | VE | EDM = RectifiedFlow()
    parameterisation: Flow | X0 | Eps | V | EDMTarget = Flow()
    objective: SquaredError | Consistency = SquaredError()
    times: LogNormalTimes | UniformTimes = LogNormalTimes()
    optimiser: Optimiser = Optimiser()
    ema: EMAConfig = EMAConfig()
    batch: int = 32
    accumulate: int = 1
    conditions: tuple[str, ...] = CONDITIONS
    condition_dropout: float = 0.1
    each_dropout: float = 0.0
    controls: Controls = Controls()
    balance: Balance | None = None
    captions: Captions | None = None
    encoder: Encoder | None = None
    augment: Augment | None = None
    colour: Colour | None = None
    standard: Standard | None = None
    sigma_data: float | None = None
    compile: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if self.batch < 1 or self.accumulate < 1 or self.batch % self.accumulate:
            raise SfumatoError(f"batch {self.batch} must be a positive multiple of accumulate {self.accumulate}")
        for name in ("condition_dropout", "each_dropout"):
            if not 0 <= getattr(self, name) <= 1:
                raise SfumatoError(f"{name} should lie in 0 ... 1, not {getattr(self, name):g}")
        if not -(2**63) <= self.seed < 2**63:
            raise SfumatoError(f"seed should be a whole number of up to 18 digits, not {self.seed}")
        if self.sigma_data is not None and self.sigma_data <= 0:
            raise SfumatoError(f"sigma_data should lie above 0 (or be null: measured), not {self.sigma_data:g}")

    def fit_to(self, source: Source) -> Recipe:
        """The recipe with what only the data can tell: channels, conditions, standard deviation."""
        self.net.check()
        for height, width in source.shapes:
            if height % self.net.multiple or width % self.net.multiple:
                raise SfumatoError(
                    f"pictures of {width}x{height} do not fit this network: sides must be multiples of {self.net.multiple}; "
                    f"use --size {math.ceil(max(height, width) / self.net.multiple) * self.net.multiple}"
                )
        controls = self.controls.fit_to(source)
        net = dataclasses.replace(self.net, channels=source.codec.spec[0], slots=self._slots(source, controls))
        standard, rows = self.standard, source.train_index
        if standard is not None and not standard.fitted:
            standard = standard.fit(source.batch(rows[part]).x0 for part in source.alike(rows, 1024))
        some = rows[:: max(1, len(rows) // 1024)]
        sample = [source.batch(some[part]).x0 for part in source.alike(some, len(some))]
        if standard is not None:
            sample = [standard(x0) for x0 in sample]
        sigma = self.sigma_data or max(0.05, round(float(torch.cat([x0.flatten() for x0 in sample]).std()), 3))
        target = self.parameterisation
        if isinstance(target, EDMTarget):
            target = EDMTarget(sigma)
        objective = self.objective
        if isinstance(objective.space, EDMTarget):
            objective = dataclasses.replace(objective, space=EDMTarget(sigma))
        return dataclasses.replace(
            self,
            net=net,
            standard=standard,
            sigma_data=sigma,
            parameterisation=target,
            objective=objective,
            controls=controls,
        )

    def _slots(self, source: Source, shown: Controls) -> tuple[SlotSpec, ...]:
        cond = source.batch(source.train_index[:1]).cond
        sizes = {"class": len(source.classes), "style": len(source.styles), "text": VOCABULARY}
        chosen = {name: slot for name, slot in cond.items() if name in self.conditions}
        slots = [SlotSpec(name, slot.role, sizes[name], ids=True) for name, slot in chosen.items()]
        if self.encoder is not None:
            if "text" not in chosen:
                raise SfumatoError(
                    "a text encoder needs captions: this data has none, or `conditions` leaves them away"
                )
            slots = [SlotSpec("text", "tokens", self.encoder.size) if spec.name == "text" else spec for spec in slots]
        slots += [SlotSpec(name, "vector", 2) for name in MICRO if name in self.conditions and micro_slots(source, [0])]
        if self.captions is not None and "text" not in chosen:
            raise SfumatoError("caption rules need captions: this data has none, or `conditions` leaves them away")
        for name, kind in (("augment", self.augment), ("colour", self.colour)):
            if kind is not None:
                slots.append(SlotSpec(name, "vector", kind.nothing(1).value.shape[1]))
        if "boxes" in shown.names and self.augment is not None:
            raise SfumatoError(
                "boxes do not move with augmented pictures: leave the control boxes or the augmentation away"
            )
        for name, size in shown.sizes(source.codec.spec[0]).items():
            boxes = name == "boxes"
            slots.append(SlotSpec(name, "placed" if boxes else "map", size, ids=boxes))
        return tuple(slots)

    def codec(self, pixels: PixelCodec) -> PixelCodec | StandardCodec:
        """The codec between pictures and what the network sees."""
        return pixels if self.standard is None else StandardCodec(pixels, self.standard)

    def look(self, source: Source, rows: Tensor, noise: Noise | None = None) -> Batch:
        """Rows int64 [B] of the source as the network sees them: with the conditions it was built for, standardised.

        With `noise` (one stream per row) as training sees them: captions changed, conditions dropped, augmented.
        """
        batch = source.batch(rows)
        names = {spec.name for spec in self.net.slots}
        x0, cond = batch.x0, Cond({k: v for k, v in batch.cond.items() if k in names})
        if names & {*MICRO}:
            cond = cond | {k: v for k, v in micro_slots(source, rows.tolist()).items() if k in names}
        if self.encoder is not None and (noise is None or self.captions is None):
            cond = cond | {"text": text_slot(self.encoder, [source.captions[k] for k in rows.tolist()], keep=True)}
        if noise is not None:
            x0, cond = self._varied(x0, cond, source, rows, noise)
        return Batch(x0 if self.standard is None else self.standard(x0), cond, batch.index)

    def _varied(self, x0: Tensor, cond: Cond, source: Source, rows: Tensor, noise: Noise) -> tuple[Tensor, Cond]:
        if self.captions is not None:
            versions = None
            if self.encoder is not None:
                versions = (noise.at(5).uniform((len(x0),)) * self.encoder.variants).long().tolist()
            changed = self.worded(source, rows.tolist(), noise.at(5), versions)
            cond = cond | {"text": text_slot(self.encoder, changed, keep=True)}
        if cond and self.condition_dropout > 0:
            cond = cond.null(where=noise.at(3).uniform((len(x0),)) < self.condition_dropout)
        if self.each_dropout > 0:
            for name, u in zip(sorted(cond), noise.at(7).uniform((len(x0), len(cond))).unbind(1), strict=True):
                cond = cond.null(name, where=u < self.each_dropout)
        own = {name: source.own[name].at(rows, self.controls.palette) for name in self.controls.drawn(source)}
        if self.augment is not None:
            x0, done = self.augment(x0, noise.at(4))
            cond = cond | {"augment": done}
            own = {name: (self.augment.apply(value, done.value, True), here) for name, (value, here) in own.items()}
        if self.colour is not None:
            x0, done = self.colour(x0, noise.at(6))
            cond = cond | {"colour": done}
        if self.controls.names:
            cond = cond | self.controls(x0, boxes_of(source, rows.tolist()), noise.at(8), own)
        return x0, cond

    def worded(self, source: Source, rows: list[int], noise: Noise | None, versions: list[int] | None) -> list[str]:
        """The captions of these rows as the rules change them, by `noise`, or (for an encoder) in these `versions`."""
        if versions is not None:
            noise = Noise(
                [Noise.of(self.seed, 1, row).at(5, v).seeds[0] for row, v in zip(rows, versions, strict=True)]
            )
        others = source.columns.get("alternatives")
        return self.captions.changed([source.captions[k] for k in rows], noise, others and [others[k] for k in rows])

    def order(self, source: Source) -> Dealt:
        """Which training rows come at which step."""
        return order_of(source, self.batch, self.seed, self.balance)

    def build(self) -> Denoiser:
        """The untrained denoiser, its weights drawn from `seed` without touching the global generator."""
        if self.sigma_data is None:
            raise ValueError("fit the recipe to a source before building")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            net = UNet(self.net) if isinstance(self.net, UNetConfig) else Transformer(self.net)
        return Denoiser(net, self.process, self.parameterisation, self.sigma_data)
