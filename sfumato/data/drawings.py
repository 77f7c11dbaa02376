"""What a user draws to say where: masks, lines and class maps, each read by one rule, for training and at use alike."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from sfumato.core import SfumatoError
from sfumato.data import colours
from sfumato.data.picture import flatten
from sfumato.settings import from_dict

CONTRAST = 40  # of 255, between paper and ink: less is paper alone
MOST = 64  # colours of a class map
NEAR = 2  # pixels: as far from both of its sides may a smoothed edge reach
MIXED = 12.0  # of 255: as far from the line between two colours may a mixture of them lie
LISTED = 12  # colours told in one line


@dataclass(frozen=True)
class Area:
    """A class of a map: its `colour` as "#rrggbb" and its `name`."""

    colour: str
    name: str


def palette_of(facts: dict[str, Any]) -> tuple[Area, ...]:
    """The classes that a model's condition "classes" tells apart, from what run.json or an exported file says of it; () where
    they are the basic colours."""
    told = facts.get("recipe", {}).get("controls", {}).get("palette", ())
    return tuple(from_dict(Area, area) for area in told)


def filled(picture: Image.Image) -> tuple[np.ndarray, str | None]:
    """Where a mask (mode L, RGB or RGBA) says that a picture is to be filled, bool [H, W], and what to tell of it.

    The rule: a mask with transparent pixels is filled where it is transparent, and its colours say nothing; any other is
    filled where it is white. Half way (128 of 255) and more counts as white, less than half as transparent.
    """
    alpha = np.asarray(picture.getchannel("A")) if picture.mode == "RGBA" else None
    clear = alpha is not None and bool((alpha < 128).any())
    values = 255 - alpha if clear else np.asarray(picture.convert("L"))
    fill, between = (values >= 128 if not clear else alpha < 128), int(((values > 0) & (values < 255)).sum())
    kind = "transparent" if clear else "grey"
    return fill, f"{between:,} pixels of the mask are half {kind}: half and more is filled" if between else None


def lines(drawing: Image.Image) -> np.ndarray:
    """Where a drawing has lines, bool [H, W]: what is darker than half way between the paper (the median) and the ink (the
    darkest). Raises SfumatoError when the paper is dark, or nothing is on it."""
    light = torch.from_numpy(np.array(flatten(drawing).convert("L"))).float()
    paper, ink = float(light.median()), float(light.min())
    if paper < 128:
        raise SfumatoError("a sketch has dark lines on light paper: invert this drawing first")
    if paper - ink < CONTRAST:
        raise SfumatoError("there are no lines in this drawing: draw them dark on white")
    return (light < (paper + ink) / 2).numpy()


def areas(picture: Image.Image, palette: tuple[Area, ...]) -> np.ndarray:
    """Which of the palette's classes each pixel of a map (mode L, RGB or RGBA) is of, int64 [H, W]; -1, none, where it is
    transparent. Without a palette: which of the basic colours (`colours.NAMES`) is nearest.

    A colour that the palette does not name is a smoothed edge, and takes the nearer side, where it lies between the two
    colours of the palette that stand within NEAR pixels of it (or three of them do). Raises SfumatoError for any other.
    """
    rgb = np.asarray(picture.convert("RGB"))
    clear = np.asarray(picture.getchannel("A")) < 128 if picture.mode == "RGBA" else np.zeros(rgb.shape[:2], bool)
    if not palette:
        return np.where(clear, -1, colours.nearest(rgb)).astype(np.int64)
    own, codes = np.array([int(area.colour[1:], 16) for area in palette]), _codes(rgb)
    order = own.argsort()
    place = order[np.searchsorted(own[order], codes).clip(max=len(own) - 1)]
    found = np.where((own[place] == codes) & ~clear, place, -1)
    strange = (found < 0) & ~clear
    if strange.any():
        if strange.mean() > 0.5:
            _refuse(codes, strange, palette)
        found[strange] = _sides(rgb, found, strange, palette, codes)
    return found


def _codes(rgb: np.ndarray) -> np.ndarray:
    """uint8 [..., 3] -> red 65536 + green 256 + blue."""
    return rgb.astype(np.int64) @ np.array([65536, 256, 1])


def _sides(
    rgb: np.ndarray, found: np.ndarray, strange: np.ndarray, palette: tuple[Area, ...], codes: np.ndarray
) -> np.ndarray:
    """The class of every strange pixel, int64, as a smoothed edge; SfumatoError where it is none."""
    rows, columns = strange.nonzero()
    padded = np.pad(found, NEAR, constant_values=-1)
    beside = np.zeros((len(rows), len(palette) + 1), bool)  # the last place is for no class
    for down in range(2 * NEAR + 1):
        for right in range(2 * NEAR + 1):
            beside[np.arange(len(rows)), padded[rows + down, columns + right]] = True
    beside = beside[:, :-1]
    own = np.array([[*bytes.fromhex(area.colour[1:])] for area in palette], np.float64)
    here = rgb[strange].astype(np.float64)
    away = np.where(beside, ((here[:, None] - own) ** 2).sum(-1), np.inf)
    first, count = away.argmin(1), beside.sum(1)
    others = away.copy()
    others[np.arange(len(rows)), first] = np.inf
    a, b = own[first], own[others.argmin(1)]
    length = np.maximum(((b - a) ** 2).sum(-1), 1.0)
    along = (((here - a) * (b - a)).sum(-1) / length).clip(0, 1)
    off = np.sqrt(((here - a - along[:, None] * (b - a)) ** 2).sum(-1))
    wrong = (count < 2) | ((count == 2) & (off > MIXED))
    if wrong.any():
        where = np.zeros_like(strange)
        where[rows[wrong], columns[wrong]] = True
        _refuse(codes, where, palette)
    return first


def _refuse(codes: np.ndarray, strange: np.ndarray, palette: tuple[Area, ...]) -> None:
    y, x = (int(n[0]) for n in strange.nonzero())
    told = f"{strange.sum():,} pixels of this map are of no colour of the palette, the first #{codes[y, x]:06x} at x {x}, y {y}"
    if len(np.unique(codes)) > MOST:
        told += " (a map has one flat colour for each class, saved as PNG: is it a photograph, or a JPEG?)"
    raise SfumatoError(f"{told}; the palette has {listed(palette)}")


def listed(palette: Iterable[Area]) -> str:
    """The colours with their names, for one line."""
    told = [area.colour if area.name == area.colour else f"{area.colour} {area.name}" for area in palette]
    more = len(told) - LISTED
    return ", ".join(told[:LISTED]) + (f" and {more} more" if more > 0 else "")


def colours_of(picture: Image.Image) -> dict[str, int]:
    """The colours of a class map that are not transparent, "#rrggbb", and the pixels of each; SfumatoError for over MOST."""
    codes = _codes(np.asarray(picture.convert("RGB")))
    if picture.mode == "RGBA":
        codes = codes[np.asarray(picture.getchannel("A")) >= 128]
    found, counts = np.unique(codes, return_counts=True)
    if len(found) > MOST:
        raise SfumatoError(
            f"this map holds {len(found):,} colours: a map has one flat colour for each class, up to {MOST}, saved as PNG "
            "(is it a photograph, or a JPEG?); if its edges are smoothed, name the classes in palette.json"
        )
    return {f"#{code:06x}": int(n) for code, n in zip(found, counts, strict=True)}


def gathered(found: Iterable[dict[str, int]]) -> tuple[Area, ...]:
    """The palette of maps without palette.json: all their colours in order, each named by itself; SfumatoError for over
    MOST."""
    names = sorted({colour for one in found for colour in one})
    if len(names) > MOST:
        raise SfumatoError(
            f"the maps hold {len(names):,} colours together, more than {MOST} classes: name those that count in palette.json, "
            'as {"#rrggbb": "name"}'
        )
    return tuple(Area(name, name) for name in names)


def read_palette(path: Path, where: str) -> tuple[Area, ...]:
    """The classes of a palette.json, {"#rrggbb": "name"}, in its order; SfumatoError for what is none."""
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise SfumatoError(f"{where} cannot be read as JSON ({error})") from error
    if not isinstance(told, dict) or not 0 < len(told) <= MOST:
        raise SfumatoError(f'{where} should be an object of 1 to {MOST} colours, such as {{"#ff0000": "road"}}')
    palette = []
    for colour, name in told.items():
        if not re.fullmatch(r"#[0-9a-fA-F]{6}", colour):
            raise SfumatoError(f'{where}: {colour!r:.40} is no colour; write it as "#rrggbb"')
        if not isinstance(name, str) or not name.strip():
            raise SfumatoError(f"{where}: {colour} has the name {name!r:.40}; give it a name in quotes")
        palette.append(Area(colour.lower(), name.strip()))
    for what in ("colour", "name"):
        kinds = [getattr(area, what) for area in palette]
        if len(set(kinds)) < len(kinds):
            twice = next(kind for kind in kinds if kinds.count(kind) > 1)
            raise SfumatoError(f"{where}: the {what} {twice!r:.40} stands there twice; one colour is one class")
    return tuple(palette)
