"""A trained model goes on learning from other pictures: it learns them, keeps what it knew, and refuses what cannot be."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sfumato.cli import main
from sfumato.core import Cond, Noise, Slot
from sfumato.data import Source, encode
from sfumato.data import open as open_source
from sfumato.tasks import Model, load
from sfumato.train import SquaredError

SMALL = [
    "net.widths=[16,32]",
    "net.blocks=[1,1]",
    "net.patch=1",
    "net.embedding=32",
    "batch=32",
    "optimiser.rate=0.004",
]


def bars(folder: Path, n: int, dark: bool, seed: int, channels: int = 1) -> Path:
    """n pictures of 8x8 with a bar across or down: bright on dark ground, or the reverse; captions say which."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    lines = ["file_name,text"]
    for k in range(n):
        picture = rng.integers(0, 40, (8, 8), dtype=np.uint8)
        across, place = rng.integers(2), rng.integers(8)
        picture[(place,) if across else (slice(None), place)] = rng.integers(180, 256)
        picture = 255 - picture if dark else picture
        if channels == 3:
            picture = np.stack([picture, picture // 2, picture], 2)
        Image.fromarray(picture).save(folder / f"{seed}-{k}.png")
        lines.append(f"{seed}-{k}.png,{'dark' if dark else 'bright'} bar {'across' if across else 'down'}")
    (folder / "metadata.csv").write_text("\n".join(lines))
    return folder


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two sets of pictures and a model trained on the first."""
    root = tmp_path_factory.mktemp("adapt")
    bars(root / "bright", 300, False, 0)
    bars(root / "dark", 60, True, 1)
    sets = [a for s in SMALL for a in ("--set", s)]
    assert (
        main(["train", str(root / "bright"), "--run", str(root / "base"), "--steps", "400", "--size", "8", *sets]) == 0
    )
    return root


@pytest.fixture(scope="module")
def adapted(made: Path) -> Path:
    told = ["adapt", str(made / "base"), str(made / "dark"), "--run", str(made / "new"), "--steps", "200"]
    assert main(told) == 0
    return made / "new"


@torch.no_grad()
def loss(model: Model, source: Source, rows: torch.Tensor, captions: list[str] | None = None) -> float:
    """Mean loss at fixed noise and times, the pictures told by their captions (or by others)."""
    ids, mask = encode(captions or [source.captions[k] for k in rows.tolist()])
    x0, n = source.batch(rows).x0, len(rows)
    cond = Cond({"text": Slot(ids, "tokens", mask)})
    t = (torch.arange(n) + 0.5) / n
    return float(
        SquaredError()
        .losses(model.denoiser, dataclasses.replace(source.batch(rows), x0=x0, cond=cond), t, Noise.of(5, n), 1.0)
        .mean()
    )


def test_it_learns_the_new_pictures_and_keeps_the_old(made: Path, adapted: Path) -> None:
    base, new = load(made / "base"), load(adapted)
    dark, bright = open_source(made / "dark", 8), open_source(made / "bright", 8)
    held_out = torch.cat([dark.validation_index] * 20)
    before, after = loss(base, dark, held_out), loss(new, dark, held_out)
    kept_before = loss(base, bright, bright.validation_index)
    kept_after = loss(new, bright, bright.validation_index)
    unknown = float(bright.batch(bright.train_index).x0.var(0).mean())
    print("dark", before, after, "bright", kept_before, kept_after, unknown)
    assert after < 0.6 * before
    assert kept_after < 1.5 * kept_before
