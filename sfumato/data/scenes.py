"""Scenes composed of icons: several things on one canvas, with a caption of the whole and a box with words for each thing.

`scenes` (or `scenes:STYLE,STYLE`) are all icons of the set as they are, and PLANNED canvases with one to five of them, of one
style, composed anew whenever they are asked for: the same from (row) alone, and never all in memory.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sfumato.core import Noise
from sfumato.data import icons
from sfumato.data.colours import NAMES as COLOURS
from sfumato.data.lazy import luma
from sfumato.data.source import Source

PLANNED = 6_000
HELD = 0.05  # of the scenes: layouts that are not learned from
SEED = 20261123
MANY = (0.15, 0.4, 0.65, 0.84, 1.0)  # up to one, two, ... five things, as shares of all scenes
SIDES = ((0.45, 0.9), (0.36, 0.62), (0.28, 0.5), (0.24, 0.42), (0.22, 0.38))  # of a thing, by how many there are
TRIES = 40
LAPPED = 0.12  # of the smaller of two things: as much of it may be hidden
FAINT = 24  # of 255: a drawing that is no darker than this on the whole is lost on a pale ground, and not shown
WHITE = 250  # and more in all channels is ground, where it is joined to the border
# pale, so that the white that a drawing's rim was mixed with does not show
GROUNDS = {
    "white": ("#ffffff", "#ffffff"),
    "pale blue": ("#dcecfb", "#eef6ff"),
    "pale green": ("#def3da", "#eefaea"),
    "pale yellow": ("#fff6d2", "#fffbe8"),
    "pale pink": ("#fde3ea", "#fff1f4"),
    "pale grey": ("#e6e8ea", "#f2f3f4"),
}
NUMBERS = ("one", "two", "three", "four", "five")


@dataclass(frozen=True)
class Thing:
    """An icon (its row in the set) in its box: left, top, right, bottom in 0 ... 1."""

    row: int
    box: tuple[float, float, float, float]


@dataclass(frozen=True)
class Scene:
    """Things on a ground (top and bottom colour), the first at the back."""

    things: tuple[Thing, ...]
    ground: str


@dataclass(frozen=True)
class Canvases:
    """Reads like an array uint8 [N, S, S, channels]: the icons first, then the scenes, composed when they are asked for."""

    icons: np.ndarray
    cut: Cut
    scenes: tuple[Scene, ...]
    size: int
    rows: np.ndarray
    channels: int = 3

    dtype = np.dtype(np.uint8)
    ndim = 4
    in_memory = True

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return len(self.rows), self.size, self.size, self.channels

    @property
    def nbytes(self) -> int:
        return self.icons.nbytes + self.cut.rgba.nbytes

    def __getitem__(self, index: np.ndarray) -> np.ndarray:
        found = [self._one(int(row)) for row in self.rows[np.asarray(index)]]
        pixels = np.stack(found) if found else np.empty((0, *self.shape[1:3], 3), np.uint8)
        return pixels if self.channels == 3 else luma(pixels)

    def take(self, index: np.ndarray, axis: int = 0) -> Canvases:
        """Only these pictures."""
        return replace(self, rows=self.rows[index])

    def with_channels(self, channels: int) -> Canvases:
        return replace(self, channels=channels)

    def expect(self, index: np.ndarray) -> None:
        """Nothing is prepared: composing is quick."""

    def _one(self, row: int) -> np.ndarray:
        if row < len(self.icons):
            return self.icons[row]
        return compose(self.scenes[row - len(self.icons)], self.cut, self.size)


class Cut:
    """The icons without their ground: `rgba` uint8 [N, 4, M, M], colours multiplied by their opacity, and the box [N, 4]
    (left, top, right, bottom in pixels) that holds each."""

    def __init__(self, pixels: np.ndarray) -> None:
        ground = _outside(torch.from_numpy((pixels >= WHITE).all(-1)))
        shown = (~ground).to(torch.uint8)
        colours = torch.from_numpy(pixels).permute(0, 3, 1, 2)
        self.rgba = torch.cat([colours * shown.unsqueeze(1), 255 * shown.unsqueeze(1)], 1)
        side = pixels.shape[1]
        places = torch.arange(side)
        columns, rows = (~ground).any(1), (~ground).any(2)
        first = [torch.where(seen, places, side).amin(1) for seen in (columns, rows)]
        last = [torch.where(seen, places, -1).amax(1) + 1 for seen in (columns, rows)]
        self.box = torch.stack([*first, *last], 1)

    @cached_property
    def ratio(self) -> Tensor:
        """Width over height of what each icon shows, [N]; 0 where it shows nothing."""
        width, height = (self.box[:, 2 + k] - self.box[:, k] for k in (0, 1))
        return torch.where((width > 0) & (height > 0), width / height.clamp_min(1), 0.0)

    @cached_property
    def darkness(self) -> Tensor:
        """How far from white the darkest channel of each icon is on average where it shows anything, 0 ... 255, [N]."""
        shown = (self.rgba[:, 3] > 0).flatten(1).float()
        dark = 255 - self.rgba[:, :3].amin(1).flatten(1).float()
        return (dark * shown).sum(1) / shown.sum(1).clamp_min(1)


def _outside(white: Tensor) -> Tensor:
    """The white places [N, M, M] that are joined to the border by white places."""
    reached = torch.zeros_like(white)
    for edge in ((..., 0), (..., -1), (..., 0, slice(None)), (..., -1, slice(None))):
        reached[edge] = white[edge]
    active = torch.arange(len(white))
    while len(active):
        before = reached[active]
        grown, here = before, white[active]
        for axis in (1, 2):  # along whole rows and columns, so that few rounds are needed
            for flip in (False, True):
                grown = _swept(grown, here, axis, flip)
        reached[active] = grown
        active = active[(grown != before).flatten(1).any(1)]
    return reached


def _swept(reached: Tensor, white: Tensor, axis: int, flip: bool) -> Tensor:
    """What is reached, carried on along an axis as far as it is white."""
    a, b = (t.flip(axis) if flip else t for t in (reached, white))
    a = a.clone()
    for k in range(1, a.shape[axis]):
        a.select(axis, k).logical_or_(a.select(axis, k - 1) & b.select(axis, k))
    return a.flip(axis) if flip else a


def compose(scene: Scene, cut: Cut, size: int) -> np.ndarray:
    """The picture of a scene, uint8 [size, size, 3]."""
    top, bottom = (torch.tensor([*bytes.fromhex(c[1:])], dtype=torch.float32) for c in GROUNDS[scene.ground])
    share = torch.linspace(0, 1, size).reshape(1, -1, 1)
    picture = (top.reshape(3, 1, 1) * (1 - share) + bottom.reshape(3, 1, 1) * share).repeat(1, 1, size)
    for thing in scene.things:
        x0, y0, x1, y1 = (round(side * size) for side in thing.box)
        left, upper, right, lower = cut.box[thing.row].tolist()
        part = cut.rgba[thing.row, :, upper:lower, left:right].float().unsqueeze(0)
        shape = (max(1, y1 - y0), max(1, x1 - x0))
        part = F.interpolate(part, size=shape, mode="bilinear", antialias=True)[0]
        place = (slice(None), slice(y0, y0 + shape[0]), slice(x0, x0 + shape[1]))
        picture[place] = part[:3] + picture[place] * (1 - part[3:] / 255)
    return picture.round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).numpy()


def load(given: str, size: int | None) -> Source:
    """The source of this name; see the head of this file.

    Beside the columns of icons it has `boxes`: for every picture a list of [x0, y0, x1, y1, text] in 0 ... 1, and
    `things`: which icons a scene shows (their rows; None for an icon). Held out are the glyphs and pairs of the icons, of
    which no scene shows one, and HELD of the scenes ("layouts").
    """
    base = icons.load("icons" + given.removeprefix("scenes"), size)
    size, count = base.codec.height, len(base)
    cut = Cut(base.images(torch.arange(count)))
    usable = [k for k in base.train_index.tolist() if cut.ratio[k] > 0 and cut.darkness[k] > FAINT]
    by_style = [[k for k in usable if base.style_labels[k] == s] for s in range(len(base.styles))]
    by_style = [rows for rows in by_style if rows]
    noise = Noise.of(SEED, PLANNED)
    drawn = noise.uniform((PLANNED, 24 + 5 * 3 * TRIES)).tolist()
    scenes = tuple(_planned(u, by_style, cut) for u in drawn)
    words = [_words(scene, base, u) for scene, u in zip(scenes, drawn, strict=True)]
    columns = {name: [*values, *[None] * PLANNED] for name, values in base.columns.items()}
    alone = [[*_share(cut.box[k].tolist(), size), _name(base, k)] for k in range(count)]
    columns["boxes"] = [*([box] for box in alone), *(boxes for _, boxes in words)]
    columns["things"] = [*[None] * count, *([thing.row for thing in scene.things] for scene in scenes)]
    styles = torch.tensor([int(base.style_labels[scene.things[0].row]) for scene in scenes])
    held = [""] * count
    for name, rows in base.holdout.items():
        for row in rows.tolist():
            held[row] = name
    held += ["layouts" if u[0] < HELD else "" for u in drawn]
    return replace(
        base,
        name=given,
        pixels=Canvases(base.pixels, cut, scenes, size, np.arange(count + PLANNED)),
        keys=(*base.keys, *(f"scene/{k:05d}" for k in range(PLANNED))),
        captions=[*base.captions, *(caption for caption, _ in words)],
        columns=columns,
        notes={**base.notes, "rule": "icons, and canvases of up to five of them on pale grounds"},
        style_labels=torch.cat([base.style_labels, styles]),
        groups=(*base.groups, *(f"scene/{k:05d}" for k in range(PLANNED))),
        held=tuple(held),
    )


def _share(box: list[int], size: int) -> list[float]:
    return [round(side / size, 4) for side in box]


def _planned(u: list[float], by_style: list[list[int]], cut: Cut) -> Scene:
    """A scene from uniform numbers: 1 ... 9 for the whole, then 3 for each try to place each thing."""
    rows = by_style[int(u[1] * len(by_style))]
    many = 1 + sum(u[2] >= share for share in MANY[:-1])
    same, level = u[3] < 0.15, u[4] < 0.4
    ground = "white" if u[5] < 0.5 else [*GROUNDS][1 + int(u[6] * (len(GROUNDS) - 1))]
    low, high = SIDES[many - 1]
    things: list[Thing] = []
    for k in range(many):
        row = rows[int(u[8 + (0 if same else k)] * len(rows))]
        ratio = float(cut.ratio[row])
        for attempt in range(TRIES):
            a, b, c = u[24 + 3 * (k * TRIES + attempt) : 27 + 3 * (k * TRIES + attempt)]
            side = (low + (high - low) * a) * (1 - 0.4 * attempt / TRIES)  # smaller where there is little room
            width, height = (side, side / ratio) if ratio > 1 else (side * ratio, side)
            x0 = b * (1 - width)
            y0 = max(0.0, (0.78 + 0.18 * u[7]) - height) if level else c * (1 - height)
            box = (x0, y0, x0 + width, y0 + height)
            if all(_lapped(box, other.box) <= LAPPED for other in things):
                things.append(Thing(row, box))
                break
    return Scene(tuple(things), ground)


def _lapped(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    """The share of the smaller box that both cover."""
    width, height = (max(0.0, min(a[2 + k], b[2 + k]) - max(a[k], b[k])) for k in (0, 1))
    return width * height / min((box[2] - box[0]) * (box[3] - box[1]) for box in (a, b))


def _name(base: Source, row: int) -> str:
    return base.captions[row].partition(",")[0]


def _coloured(base: Source, row: int) -> str:
    """The name with the first colour of the picture before it, where it names none itself."""
    name, colours = _name(base, row), base.columns["colours"][row]
    return f"{colours[0]} {name}" if colours and not set(name.lower().split()) & set(COLOURS) else name


def _words(scene: Scene, base: Source, u: list[float]) -> tuple[str, list[list[Any]]]:
    """The caption of a scene, and a box with words for each thing."""
    rows = [thing.row for thing in scene.things]
    names = [_coloured(base, row) if u[13 + k] < 0.3 else _name(base, row) for k, row in enumerate(rows)]
    if len(rows) > 1 and len(set(rows)) == 1:
        told = f"{NUMBERS[len(rows) - 1]} times {names[0]}"
    elif len(rows) == 2 and u[18] < 0.75:
        told = _relation(scene.things, names, u[19])
    else:
        told = " and ".join(f"a {name}" for name in names)
    style = icons.STYLES[base.styles[int(base.style_labels[rows[0]])]].words[0]
    caption = ", ".join([told, f"on {scene.ground}", style])
    boxes = [[*(round(side, 4) for side in thing.box), name] for thing, name in zip(scene.things, names, strict=True)]
    return caption, boxes


def _relation(things: tuple[Thing, ...], names: list[str], u: float) -> str:
    """Two things and how they stand to each other, told of the one or of the other."""
    (x, y), (x2, y2) = (((t.box[0] + t.box[2]) / 2, (t.box[1] + t.box[3]) / 2) for t in things)
    first, second = names
    if u < 0.5:
        (x, y), (x2, y2), first, second = (x2, y2), (x, y), second, first
    if abs(x - x2) >= abs(y - y2):
        how = "left of" if x < x2 else "right of"
    else:
        how = "above" if y < y2 else "below"
    return f"a {first} {how} a {second}"
