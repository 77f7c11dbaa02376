"""Text and watermarks planted in pictures, and pictures that only look as if: how often the audit finds the one, calls the other.

    python -m benchmarks.planted_text [--n 60] [--seed 0]

Needs the extra `ocr`; results go to benchmarks/results/planted_text.json.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from benchmarks import common
from sfumato.data.audit.words import SIDE, believed, make_reader

WORDS = (
    "SAMPLE",
    "Preview",
    "copyright 2024",
    "www.photos.example",
    "do not copy",
    "stock image",
    "PROOF",
    "John Smith",
)
KINDS = ("caption", "watermark", "tiled", "corner", "none", "stripes", "grid", "bricks", "leaves", "dots")
PLANTED = KINDS[:4]


def scene(rng: np.random.Generator, size: tuple[int, int]) -> Image.Image:
    """A soft picture of blobs with grain, as a photograph out of focus in the distance."""
    small = rng.integers(30, 226, (rng.integers(3, 9), rng.integers(3, 9), 3), dtype=np.uint8)
    soft = np.asarray(Image.fromarray(small).resize(size, Image.Resampling.BICUBIC)).astype(np.int16)
    return Image.fromarray((soft + rng.integers(-6, 7, soft.shape)).clip(0, 255).astype(np.uint8))


def plant(kind: str, rng: np.random.Generator, size: tuple[int, int] = (320, 240)) -> tuple[Image.Image, str]:
    """A picture of one of KINDS, and the words that it holds ("" for the look-alikes)."""
    picture = scene(rng, size)
    if kind in PLANTED:
        text = str(rng.choice(WORDS))
        return written(picture, text, kind, rng), text
    draw, dark = ImageDraw.Draw(picture), tuple(int(v) for v in rng.integers(0, 80, 3))
    step = int(rng.integers(9, 26))
    if kind in ("stripes", "grid"):
        for x in range(0, size[0], step):
            draw.line((x, 0, x + int(rng.integers(-4, 5)), size[1]), dark, int(rng.integers(1, 5)))
    if kind in ("grid", "bricks"):
        for row, y in enumerate(range(0, size[1], step)):
            draw.line((0, y, size[0], y), dark, 2)
            for x in range(step * (row % 2), size[0], 2 * step) if kind == "bricks" else ():
                draw.line((x, y, x, y + step), dark, 2)
    if kind in ("leaves", "dots"):
        for _ in range(int(rng.integers(30, 120))):
            x, y = rng.integers(0, size[0]), rng.integers(0, size[1])
            w, h = rng.integers(3, 14, 2) if kind == "leaves" else [int(rng.integers(2, 5))] * 2
            draw.ellipse((int(x), int(y), int(x + w), int(y + h)), tuple(int(v) for v in rng.integers(0, 120, 3)))
    return picture, ""


def written(picture: Image.Image, text: str, kind: str, rng: np.random.Generator) -> Image.Image:
    """The picture with the text: a caption over it, one see-through watermark aslant, many small ones, or a signature."""
    size = {"caption": 0.1, "watermark": 0.14, "tiled": 0.07, "corner": 0.06}[kind] * picture.height
    font = ImageFont.load_default(max(12, round(size * rng.uniform(0.9, 1.3))))
    left, top, right, bottom = font.getbbox(text)
    width, height = int(right - left) + 4, int(bottom - top) + 4
    stamp = Image.new("L", (width, height), 0)
    ImageDraw.Draw(stamp).text((2 - left, 2 - top), text, 255, font)
    strength = {"caption": 1.0, "watermark": 0.55, "tiled": 0.6, "corner": 0.9}[kind]
    if kind == "watermark":
        stamp = stamp.rotate(float(rng.uniform(-25, 25)), Image.Resampling.BICUBIC, expand=True)
    stamp = stamp.point(lambda v: int(v * strength))
    ink = (255, 255, 255) if np.asarray(picture).mean() < 140 else (10, 10, 10)
    free = (max(1, picture.width - stamp.width), max(1, picture.height - stamp.height))
    if kind == "tiled":
        places = [(x, y) for y in range(8, picture.height, 4 * height) for x in range(4, picture.width, width + 30)]
    elif kind == "corner":
        places = [(free[0] - 3 if rng.random() < 0.5 else 3, free[1] - 3)]
    else:
        places = [(int(rng.integers(free[0])), int(rng.integers(free[1])))]
    out = picture.copy()
    for place in places:
        out.paste(ink, place, stamp)
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n", type=int, default=60, help="pictures of each kind")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    read, found, seconds = make_reader(), dict.fromkeys(KINDS, 0), 0.0
    for k, kind in enumerate(KINDS):
        for number in range(options.n):
            rng = np.random.default_rng([options.seed, k, number])
            picture, _ = plant(kind, rng, ((320, 240), (240, 320), (640, 480))[number % 3])
            picture.thumbnail((SIDE, SIDE))
            started = time.perf_counter()
            found[kind] += bool(believed(read(picture)))
            seconds += time.perf_counter() - started
        print(f"{kind}: {found[kind]} of {options.n}", flush=True)
    planted, called = sum(found[k] for k in PLANTED), sum(found.values())
    result = {
        "n": options.n,
        "seed": options.seed,
        "called": found,
        "recall": planted / (options.n * len(PLANTED)),
        "precision": planted / max(1, called),
        "seconds_per_picture": seconds / (options.n * len(KINDS)),
    }
    common.write("planted_text", common.envelope(**result))
    print(result)


if __name__ == "__main__":
    main()
