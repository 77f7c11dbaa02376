"""A small source and a small recipe that the training tests share."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from sfumato.data import Source
from sfumato.denoiser import UNetConfig
from sfumato.tasks import Model
from sfumato.train import Budget, EMAConfig, Optimiser, Recipe, Run, Setting, Trainer

torch.set_num_threads(1)
FLOAT32 = Setting(precision=None, channels_last=False)
TINY = UNetConfig(patch=2, widths=(8, 16), blocks=(1, 1), embedding=32)


def small_source(n: int = 64, size: int = 8, seed: int = 0) -> Source:
    """Grey pictures of two classes: bright bars across or down, at a place and with a brightness of their own."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 40, (n, size, size, 1), dtype=np.uint8)
    labels = rng.integers(0, 2, n)
    for picture, label, place in zip(pixels, labels, rng.integers(0, size, n), strict=True):
        bright = rng.integers(160, 256, dtype=np.uint8)
        if label:
            picture[place] = bright
        else:
            picture[:, place] = bright
    keys = tuple(f"picture-{k}.png" for k in range(n))
    return Source("bars", pixels, keys, classes=("down", "across"), labels=torch.from_numpy(labels))


def tiny_recipe(source: Source, **changes) -> Recipe:
    """A network of a few thousand weights, fitted to the source."""
    made = {
        "net": TINY,
        "batch": 8,
        "optimiser": Optimiser(rate=2e-3, warmup=10),
        "ema": EMAConfig(snapshots=4),
    } | changes
    return Recipe(**made).fit_to(source)


def tiny_trainer(steps: int = 200, setting: Setting = FLOAT32, source: Source | None = None, **changes) -> Trainer:
    """A trainer as a new process would make it."""
    source = source or small_source()
    recipe = tiny_recipe(source, **changes)
    return Trainer(recipe.build(), recipe, source, Budget(steps=steps), setting)


def told_source(captions: tuple[str, ...]) -> Source:
    """Sixteen plain 16x16 pictures in two styles, their captions these in turn."""
    rows = torch.arange(16)
    pixels = (rows[:, None, None, None] * torch.tensor([16, 9, 3]) % 256).expand(16, 16, 16, 3)
    return Source(
        "things",
        pixels.to(torch.uint8).numpy(),
        tuple(f"{k}.png" for k in rows.tolist()),
        captions=[captions[k % len(captions)] for k in rows.tolist()],
        styles=("flat", "glossy"),
        style_labels=rows % 2,
    )


def shaken_model(source: Source, folder: Path, by: float, **changes) -> Model:
    """The model of a new run folder, untrained, its weights shaken so that everything it is told matters."""
    recipe, run = tiny_recipe(source, **changes), Run(folder)
    run.begin(recipe, source, Budget(steps=1), FLOAT32)
    denoiser, generator = recipe.build().eval().requires_grad_(False), torch.Generator().manual_seed(1)
    for p in denoiser.parameters():
        p.data += by * torch.randn(p.shape, generator=generator)
    return Model(denoiser, recipe.codec(source.codec), run.describe())
