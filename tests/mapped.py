"""Pictures with maps, masks and sketches planted at known places, which the tests of users' own controls share."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from sfumato.data import Source
from sfumato.data.canvas import Controls
from sfumato.data.drawings import Area

SHOWN = np.array([[235, 235, 235], [200, 30, 30], [30, 60, 200]], np.uint8)  # what a picture shows of each class
DRAWN = np.array([[0, 0, 0], [0, 255, 0], [255, 0, 255]], np.uint8)  # and what its map does
PALETTE = {"#000000": "ground", "#00ff00": "road", "#ff00ff": "roof"}
AREAS = tuple(Area(*item) for item in PALETTE.items())
RULES = Controls(("known", "sketch", "classes"), none=0.0, each=1.0, masks=1.0)
SMALL = ["--set", "net.widths=[8,16]", "--set", "net.blocks=[1,1]", "--set", "net.embedding=32", "--set", "batch=8"]


def planted(k: int, width: int = 16, height: int = 16) -> np.ndarray:
    """Classes [H, W] of picture k, other ones in every corner: turned, mirrored or moved they are not what they were."""
    rng = np.random.default_rng(k)
    found = np.zeros((height, width), np.int64)
    top, left = rng.integers(0, height // 3), rng.integers(0, width // 3)
    found[top : top + height // 3, left : left + width // 2] = 1
    found[-height // 4 :, -width // 5 :] = 2
    return found


def save(folder: Path, name: str, values: np.ndarray, **how) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values.astype(np.uint8)).save(path, **how)


def make(folder: Path, n: int = 12, sizes=((16, 16),), names: str = "{}.png", own: str = "{}.png") -> Path:
    """A folder of n pictures, each with its map, a mask of class 1 and a sketch of class 2."""
    for k in range(n):
        classes = planted(k, *sizes[k % len(sizes)])
        save(folder, names.format(k), SHOWN[classes])
        save(folder / "maps", own.format(k), DRAWN[classes])
        save(folder / "masks", own.format(k), 255 * (classes == 1))
        save(folder / "sketches", own.format(k), 255 * (classes != 2))
    return folder


def classes_of(source: Source, index: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """What its own maps say of these pictures, int64 [B, H, W], -1 none, and which have one."""
    values, here = source.own["classes"].at(torch.arange(len(source)) if index is None else index, AREAS)
    return values[:, 0].long() - 1, here


def follows(x0: Tensor, classes: Tensor) -> float:
    """The share of places, away from edges, where the picture shows what the map says."""
    shown = torch.from_numpy(SHOWN.astype(np.float32)) / 127.5 - 1
    seen = (x0.unsqueeze(1) - shown[None, :, :, None, None]).square().sum(2).argmin(1)
    around = torch.stack([torch.roll(classes, (a, b), (1, 2)) for a in (-1, 0, 1) for b in (-1, 0, 1)])
    flat = (around == classes).all(0)[:, 1:-1, 1:-1]
    return float((seen == classes)[:, 1:-1, 1:-1][flat].float().mean())
