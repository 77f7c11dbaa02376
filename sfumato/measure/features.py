"""A feature extractor of the source's own: a small network trained on its pictures, cached, and named in every result.

With two or more classes it learns to tell them apart; without, to tell how a picture was turned; both also learn to
tell spoilt pictures from real ones (see `pretext`). Its last hidden layer is what metrics see.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from sfumato.core import SfumatoError
from sfumato.data import files
from sfumato.measure import pretext
from sfumato.train import bf16_pays

VERSION = "v1"
WIDTH = 128  # dimensions of a feature
SEED = 20_190_117
MAX_PICTURES_BYTES = 400_000_000  # of training pictures held as bytes; bigger sources are thinned evenly
LEAST = 64  # training pictures


def _conv(i: int, o: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(i, o, 3, padding=1, bias=False), nn.BatchNorm2d(o), nn.ReLU())


class _Net(nn.Module):
    """Space-to-depth, three convolutions on 16x16, 8x8 and 4x4, a hidden layer; the head is used in training only."""

    def __init__(self, channels: int, fold: int, outputs: int) -> None:
        super().__init__()
        self.fold = fold
        # Pooling, not strides: the backward pass of a strided convolution costs twice as much on a processor.
        self.body = nn.Sequential(
            _conv(channels * fold**2, 32),
            nn.MaxPool2d(2, ceil_mode=True),
            _conv(32, 64),
            nn.MaxPool2d(2, ceil_mode=True),
            _conv(64, 128),
        )
        self.hidden = nn.Linear(128 * 16, WIDTH)
        self.head = nn.Linear(WIDTH, outputs)
        self.register_buffer("scale", torch.ones(()))

    def features(self, x: Tensor) -> Tensor:
        right, down = -x.shape[3] % self.fold, -x.shape[2] % self.fold
        if right or down:
            x = nn.functional.pad(x, (0, right, 0, down), mode="replicate")
        x = self.body(nn.functional.pixel_unshuffle(x, self.fold))
        if x.shape[2:] != (4, 4):
            x = nn.functional.adaptive_avg_pool2d(x, 4)
        return self.hidden(x.flatten(1)).relu()

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x))


def _build(channels: int, height: int, width: int, outputs: int) -> _Net:
    """A net with weights from its own generator: nothing here touches the global one."""
    fold = max(1, round(min(height, width) / 16))
    with torch.device("meta"):
        net = _Net(channels, fold, outputs)
    net.to_empty(device="cpu")
    start_weights(net, SEED)
    nn.init.ones_(net.scale)
    return net.to(memory_format=torch.channels_last)


def start_weights(net: nn.Module, seed: int) -> None:
    """First weights of convolutions, linear layers, tables of words and norms, from a generator of their own."""
    generator = torch.Generator().manual_seed(seed)
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu", generator=generator)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.EmbeddingBag):
            nn.init.normal_(module.weight, generator=generator)
        elif isinstance(module, nn.BatchNorm2d):
            module.reset_parameters()


@dataclass(frozen=True)
class Features:
    """Pictures x0 [B, C, H, W] in [-1, 1] -> features [B, 128] float32, scaled to mean variance 1 on the training set.

    `name` enters every result; `accuracy` is that of the training task on held-out pictures.
    """

    name: str
    fingerprint: str
    spec: tuple[int, int, int]
    accuracy: float
    seconds: float
    net: nn.Module

    @torch.no_grad()
    def __call__(self, x0: Tensor) -> Tensor:
        if x0.ndim != 4 or tuple(x0.shape[1:]) != self.spec:
            raise SfumatoError(
                f"{self.name} measures pictures of {self.spec} (C, H, W); these are {tuple(x0.shape[1:])}"
            )
        if not torch.isfinite(x0).all():
            raise SfumatoError("some of the pictures hold NaN or infinite values and cannot be measured")
        parts = [self.net.features(part) for part in x0.float().split(500)]
        return torch.cat(parts) * self.net.scale


def slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[-40:] or "source"


def fingerprint(source: Any) -> str:
    """A hash of size, classes, labels and up to 512 evenly spaced pictures."""
    index = torch.linspace(0, len(source) - 1, min(len(source), 512)).long().unique()
    digest = hashlib.sha256(repr((len(source), tuple(source.codec.spec), tuple(source.classes))).encode())
    digest.update(as_bytes(source, index).numpy().tobytes())
    if source.labels is not None:
        digest.update(source.labels.numpy().tobytes())
    return digest.hexdigest()[:16]


def as_bytes(source: Any, index: Tensor) -> Tensor:
    """Pictures of these rows as uint8 [B, C, H, W]."""
    parts = [
        source.batch(part).x0.add(1).mul(127.5).round().clamp(0, 255).to(torch.uint8) for part in index.split(1000)
    ]
    return torch.cat(parts)


def thinned(index: Tensor, most: int) -> Tensor:
    return index if len(index) <= most else index[torch.linspace(0, len(index) - 1, most).long()]


def as_floats(pictures: Tensor) -> Tensor:
    return (pictures.float() / 127.5 - 1).contiguous(memory_format=torch.channels_last)


@torch.enable_grad()
def _train(net: _Net, pictures: Tensor, labels: Tensor | None, outputs: int) -> None:
    """AdamW with one cycle of learning rate in batches of 128; every batch holds some spoilt pictures."""
    generator = torch.Generator().manual_seed(SEED)
    batch = min(128, len(pictures))
    steps = min(300_000, max(20_000, 30 * len(pictures))) // batch
    decayed = [p for p in net.parameters() if p.ndim > 1]
    plain = [p for p in net.parameters() if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": 0.05}, {"params": plain, "weight_decay": 0.0}]
    optimiser = torch.optim.AdamW(groups, lr=4e-3, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 4e-3, total_steps=steps, pct_start=0.2)
    net.train()
    order = torch.empty(0, dtype=torch.int64)
    for _ in range(steps):
        if len(order) < batch:
            order = torch.randperm(len(pictures), generator=generator)
        rows, order = order[:batch], order[batch:]
        x, target = _task(as_floats(pictures[rows]), None if labels is None else labels[rows])
        share = 1 / 8 if labels is not None else 1 / 2
        pretext.spoil_first(x, target, outputs, share, generator)
        optimiser.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16_pays()):
            loss = nn.functional.cross_entropy(net(x), target, label_smoothing=0.05, ignore_index=-1)
        loss.backward()
        optimiser.step()
        schedule.step()
    net.eval()


def _task(x: Tensor, labels: Tensor | None) -> tuple[Tensor, Tensor]:
    """Pictures and what is to be told of them: their classes, or (without classes) how they were turned."""
    return pretext.turn(x) if labels is None else (x, labels.clone())


def _labels(source: Any) -> Tensor | None:
    """Classes to learn, -1 where unknown; None when there are not two classes to tell apart, or too few labels."""
    if source.labels is None:
        return None
    known = source.labels[source.train_index]
    known = known[known >= 0]
    return source.labels if len(known.unique()) >= 2 and len(known) >= len(source.train_index) / 2 else None


@torch.no_grad()
def _accuracy(net: _Net, pictures: Tensor, labels: Tensor | None) -> float:
    right = asked = 0
    for rows in torch.arange(len(pictures)).split(500):
        x, target = _task(as_floats(pictures[rows]), None if labels is None else labels[rows])
        right += int((net(x).argmax(1) == target).sum())
        asked += int((target >= 0).sum())
    return right / max(asked, 1)


def _fit(source: Any) -> tuple[_Net, float]:
    channels, height, width = source.codec.spec
    train = thinned(source.train_index, max(64, MAX_PICTURES_BYTES // (channels * height * width)))
    held_out = thinned(source.validation_index, 2000)
    pictures, held = as_bytes(source, train), as_bytes(source, held_out)
    labels = _labels(source)
    outputs = pretext.TURNS if labels is None else len(source.classes)
    net = _build(channels, height, width, outputs + len(pretext.KINDS))
    _train(net, pictures, None if labels is None else labels[train], outputs)
    accuracy = _accuracy(net, held, None if labels is None else labels[held_out])
    with torch.no_grad():
        sample = pictures[thinned(torch.arange(len(pictures)), 5000)]
        variance = torch.cat([net.features(as_floats(part)) for part in sample.split(500)]).var(0).mean()
        net.scale.copy_(variance.clamp_min(1e-12).rsqrt())
    return net, accuracy


def cache_folder() -> Path:
    """Where trained extractors are kept, below the cache of the data."""
    return files.cache_folder() / "features"


def recall(path: Path, build: Callable[[dict[str, Any]], nn.Module]) -> tuple[nn.Module, dict[str, Any]] | None:
    """A net that `keep` wrote, built from its facts, and the facts; None when there is none that can be read."""
    try:
        facts = json.loads(path.with_suffix(".json").read_text())
        weights = load_file(path)
        net = build(facts)
        net.load_state_dict(weights)
        return net.eval(), facts
    except Exception:  # absent, torn or of another layout: whatever is wrong with a cache, the cure is to train again
        return None


def keep(path: Path, net: nn.Module, facts: dict[str, Any]) -> None:
    """Write a net and what is known of it (JSON) beside each other, each whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:  # renamed whole, so a reader never sees half a file
        save_file({k: v.contiguous() for k, v in net.state_dict().items()}, Path(folder) / "weights")
        (Path(folder) / "facts").write_text(json.dumps({**facts, "torch": torch.__version__}, indent=1))
        os.replace(Path(folder) / "weights", path)
        os.replace(Path(folder) / "facts", path.with_suffix(".json"))


def features_for(source: Any, folder: Path | None = None) -> Features:
    """The extractor of this source: as it was kept, or trained now (about a CPU-minute for 60,000 pictures at 32x32).

    source: what `sfumato.data.open` returns; folder: where extractors are kept, the cache when None. The name tells kind,
    source, size and version. Two trainings, on two machines say, are two instruments: numbers that are to be compared come
    from one that was kept. Raises SfumatoError when the source has fewer than `LEAST` training pictures.
    """
    if len(source.train_index) < LEAST:
        raise SfumatoError(
            f"{len(source.train_index)} training pictures are too few to train features: {LEAST} are needed"
        )
    spec, seen = tuple(source.codec.spec), fingerprint(source)
    kind = "turns" if _labels(source) is None else "classifier"
    size = str(spec[1]) if spec[1] == spec[2] else f"{spec[1]}x{spec[2]}"
    name = f"{kind}-{slug(source.name)}-{size}-{VERSION}"
    path = (folder or cache_folder()) / f"{name}-{seen}.safetensors"
    kept = recall(path, lambda facts: _build(*spec, outputs=facts["outputs"]))
    if kept is None:
        started = time.process_time()
        net, accuracy = _fit(source)
        facts = {"name": name, "fingerprint": seen, "spec": spec, "outputs": net.head.out_features, "seed": SEED}
        facts |= {"accuracy": accuracy, "seconds": time.process_time() - started}
        keep(path, net, facts)
    else:
        net, facts = kept
    return Features(name, seen, spec, facts["accuracy"], facts["seconds"], net)
