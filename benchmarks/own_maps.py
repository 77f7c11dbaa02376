"""A set with class maps of its own, trained by one command: do pictures of maps that were never seen follow them?

    python -m benchmarks.own_maps --minutes 2.5

The set is rendered: land seen from above, four classes with textures and a light of their own in every picture. A pixel
counts as the class whose mean colour in the training pictures is nearest to the mean of its 3x3 neighbourhood. The same judge
reads the real pictures of the maps (what it can reach), and the drawn ones against the map of another picture (chance).
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks import common
from sfumato.cli import main as sfumato
from sfumato.tasks import layout, load

NAME, SIDE, PICTURES, HELD = "own_maps", 32, 600, 64
CLASSES = {"water": "#0000ff", "field": "#00ff00", "sand": "#ffff00", "town": "#ff0000"}
SHOWN = np.array([[40, 90, 140], [80, 130, 60], [205, 185, 130], [140, 110, 110]], np.float64)
DRAWN = np.array([[*bytes.fromhex(c[1:])] for c in CLASSES.values()], np.uint8)
OWN = ["controls.none=0.1", "controls.each=1", "net.widths=[32,64]", "net.blocks=[1,2]"]


def land(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Classes [H, W], each place that of the nearest of seven points, and the picture uint8 [H, W, 3]."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:SIDE, :SIDE]
    points, kinds = rng.uniform(0, SIDE, (7, 2)), rng.integers(0, len(CLASSES), 7)
    classes = kinds[((y[..., None] - points[:, 0]) ** 2 + (x[..., None] - points[:, 1]) ** 2).argmin(-1)]
    phase = rng.uniform(0, 2 * np.pi, 3)
    texture = [
        12 * np.sin(0.9 * y + 0.3 * x + phase[0]),  # waves
        14 * np.sign(np.sin(1.2 * x + phase[1])),  # furrows
        rng.normal(0, 6, (SIDE, SIDE)),  # grains
        30 * (np.sin(1.5 * x + phase[2]) * np.sin(1.5 * y) > 0) - 15,  # roofs
    ]
    light = rng.uniform(0.85, 1.15)
    picture = light * (SHOWN[classes] + np.choose(classes, texture)[..., None])
    return classes, picture.clip(0, 255).astype(np.uint8)


def make(folder: Path) -> None:
    """The training set: pictures, maps/ and maps/palette.json."""
    (folder / "maps").mkdir(parents=True, exist_ok=True)
    for k in range(PICTURES):
        classes, picture = land(k)
        Image.fromarray(picture).save(folder / f"{k}.png")
        Image.fromarray(DRAWN[classes]).save(folder / "maps" / f"{k}.png")
    (folder / "maps" / "palette.json").write_text(json.dumps({colour: name for name, colour in CLASSES.items()}))


def smooth(picture: np.ndarray) -> np.ndarray:
    """Means of the 3x3 neighbourhoods of [H, W, 3]."""
    padded = np.pad(picture.astype(np.float64), ((1, 1), (1, 1), (0, 0)), mode="edge")
    return sum(padded[a : a + SIDE, b : b + SIDE] for a in range(3) for b in range(3)) / 9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=2.5)
    parser.add_argument("--work", type=Path, default=Path("runs/own_maps"))
    parser.add_argument("--results", type=Path, default=common.RESULTS)
    args = parser.parse_args()
    folder, run = args.work / "set", args.work / "run"
    make(folder)
    if not (run / "run.json").exists():
        told = ["--slots", "classes", "--size", str(SIDE), "--minutes", str(args.minutes)]
        told += [part for own in OWN for part in ("--set", own)]
        if sfumato(["train", str(folder), "--run", str(run), *told]):
            raise SystemExit(1)
    seen = [land(k) for k in range(PICTURES)]
    every = np.concatenate([classes.ravel() for classes, _ in seen])
    colours = np.concatenate([smooth(picture).reshape(-1, 3) for _, picture in seen])
    means = np.stack([colours[every == k].mean(0) for k in range(len(CLASSES))])

    def agreement(picture: np.ndarray, classes: np.ndarray) -> float:
        return float((((smooth(picture)[..., None, :] - means) ** 2).sum(-1).argmin(-1) == classes).mean())

    model, rows = load(run), []
    for k in range(HELD):
        classes, real = land(PICTURES + k)
        image = layout(model, None, colours=Image.fromarray(DRAWN[classes]), seed=k).images[0]
        other = land(PICTURES + (k + 1) % HELD)[0]
        drawn = np.asarray(image)
        rows.append((agreement(drawn, classes), agreement(real, classes), agreement(drawn, other)))
    means_of = dict(zip(("drawn", "real", "another_map"), np.mean(rows, 0).round(4).tolist(), strict=True))
    told = {"machine": common.machine(), "minutes": args.minutes, "maps": HELD, "agreement": means_of}
    common.write(NAME, told, args.results)
    print(json.dumps(means_of))


if __name__ == "__main__":
    main()
