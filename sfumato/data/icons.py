"""Captioned colour icons in many styles: what `sfumato data get emoji` has put into the cache folder, as a source."""

from __future__ import annotations

import json
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sfumato.core import SfumatoError
from sfumato.data.builtin import resize_all
from sfumato.data.captions import Captions, Synonyms
from sfumato.data.files import cache_folder
from sfumato.data.source import Source, check_fits

MASTER = 64  # pixels
FORMAT = 1  # of the cached files
GET = "sfumato data get emoji"
FIELDS = ("glyph", "name", "keywords", "group", "subgroup", "colours", "names")


@dataclass(frozen=True)
class Style:
    """One set of drawings: its npm package, pinned; its licence; and how captions call it, the first way first."""

    package: str
    version: str
    integrity: str  # npm's sha512 of the archive
    licence: str
    words: tuple[str, ...]


STYLES = {
    "noto": Style(
        "@iconify-json/noto",
        "1.2.9",
        "sha512-DQiuXENbun41ch+XPSV55H9FaWKpHTyz46YIKtSaKYD4fIDDzL1tR6H4np/T38jfrTAeI3rcKF0mqHYeZVAuaw==",
        "Apache-2.0",
        ("noto style", "in noto style", "noto", "in cartoon style"),
    ),
    "noto-v1": Style(
        "@iconify-json/noto-v1",
        "1.2.5",
        "sha512-/DsVMius69Q0fRS53z7QK1TROSuar606jiIx+laXtdsYGMXpf6LtHBx6CGfoo3UHHb/XpBsw+1L1x3eyPqMuVA==",
        "Apache-2.0",
        ("blob style", "in blob style", "blob", "in old noto style"),
    ),
    "fluent": Style(
        "@iconify-json/fluent-emoji",
        "1.2.7",
        "sha512-D8G6bKAyIsyxP1rzZtIWr/gg/fO4Rg1+DyCWlfqKK4h8W+4Em/Y0P6QYgJUQTlUcagzJvSyg+9OBv4hz4Hc/QA==",
        "MIT",
        ("glossy style", "in glossy style", "glossy", "in shaded style"),
    ),
    "fluent-flat": Style(
        "@iconify-json/fluent-emoji-flat",
        "1.2.6",
        "sha512-RY47RgPb47fYUiyrA64sIOL0+UU02s29sXpNBbIQRBUlPlfNFTKUmZDERGuxDs/7yNGWqQYvuaSYM1M4fRXlUw==",
        "MIT",
        ("flat style", "in flat style", "flat", "drawn flat"),
    ),
    "fxemoji": Style(
        "@iconify-json/fxemoji",
        "1.2.2",
        "sha512-UAasRaxzFUKfIGSmLwnoarsssA4LX0VLLuEmplIqM6ZNQqIQRtav8tZ4H1neTlBreXuMQyAifr5jP4kn78DpiQ==",
        "Apache-2.0",
        ("firefox style", "in firefox style", "firefox", "in fx style"),
    ),
    "twemoji": Style(
        "@iconify-json/twemoji",
        "1.2.5",
        "sha512-uKpuIEV0v6K5BW3Mjdyl+XKFVAbbcPxAgifKvEMtZoUZB5+YiY5zaMm2uNNCxyXzAWU9yNLlj41WU6/mvgALsw==",
        "CC-BY-4.0",
        ("twemoji style", "in twemoji style", "twemoji", "in twitter style"),
    ),
    "emojione": Style(
        "@iconify-json/emojione",
        "1.2.3",
        "sha512-T9+T3HIbJNLKKsmxYKlaYhvnHYkz/HNYTV7SHCXVZPfeUi4FqskY70YeN8yYAZT8cCv7w5vJxS4Q1m8zb9CMMg==",
        "CC-BY-4.0",
        ("emojione style", "in emojione style", "emojione"),
    ),
    "openmoji": Style(
        "@iconify-json/openmoji",
        "1.2.29",
        "sha512-vXdhkqcXVSO6suy+m9LbcUM3OdVyuNOtpV8/als/WqfkQIRxevL5Geb/g+6GH/Qwnq1OqksEmaDGTCmZ5nFKJQ==",
        "CC-BY-SA-4.0",
        ("outline style", "in outline style", "outlined", "in openmoji style"),
    ),
}
DEFAULT = ("noto", "noto-v1", "fluent", "fluent-flat", "fxemoji")  # Apache and MIT

CAPTIONS = Captions(
    alternative=0.15,
    colour_first=0.25,
    alone=0.3,
    leave=0.6,
    shuffle=0.5,
    joined=0.3,
    swap=0.6,
    synonyms=(*(Synonyms(style.words[0], style.words[1:]) for style in STYLES.values()), Synonyms("grey", ("gray",))),
    template=0.3,
    templates=(
        "a {}",
        "an emoji of {}",
        "a picture of {}",
        "a drawing of {}",
        "an icon that shows {}",
        "please draw {}",
        "{} on white",
        "{} icon",
        "I want a small picture of {}.",
    ),
    filler=0.1,
    filler_words=600,
)
"""What training does to the captions of icons, each time anew."""


def check_styles(names: list[str]) -> list[str]:
    """The names, each once; SfumatoError for one that is no style, with the nearest."""
    for name in names:
        if name not in STYLES:
            near = get_close_matches(name.lower(), STYLES, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise SfumatoError(f"no style {name!r}; {hint}the styles are: {', '.join(STYLES)}")
    return list(dict.fromkeys(names))


def folder() -> Path:
    """Where the pictures of every style are kept."""
    return cache_folder() / "icons"


def cached(style: str, size: int) -> Path | None:
    """The smallest kept file of a style of at least `size` pixels; None when there is none."""
    sides = {int(p.stem.rpartition("-")[2]): p for p in folder().glob(f"{style}-*.npz") if _is_of(p, style)}
    fitting = [side for side in sides if side >= size]
    return sides[min(fitting)] if fitting else None


def _is_of(path: Path, style: str) -> bool:
    name, _, side = path.stem.rpartition("-")
    return name == style and side.isdecimal()


def read(path: Path) -> tuple[np.ndarray, dict[str, Any]] | None:
    """Pictures uint8 [N, H, H, 3] and what is told of them; None when the file is damaged or of another version."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            pixels, about = stored["pixels"], json.loads(stored["about"].tobytes())
        fine = about["format"] == FORMAT and len(about["icons"]) == len(pixels) and pixels.dtype == np.uint8
        fine = fine and pixels.ndim == 4 and all(set(FIELDS) <= set(icon) for icon in about["icons"])
    except Exception:  # zipfile, zlib, KeyError, ValueError, OSError: whatever is wrong, getting it again mends it
        return None
    return (pixels, about) if fine else None


def load(given: str, size: int | None) -> Source:
    """`icons`: all styles that were got; `icons:STYLE,STYLE`: those; 64x64 unless `size` says otherwise.

    A caption is phrases parted by commas: name, keywords, groups, colours, style. The same fields are `columns`: name,
    keywords, group, subgroup, colours, glyph (its code points), style, names (in other languages, by language), and
    `alternatives` (those names alone). Raises SfumatoError when a style was not got.
    """
    size = size or MASTER
    wanted = check_styles([s.strip() for s in given.partition(":")[2].split(",") if s.strip()])
    found = {style: cached(style, size) for style in wanted or STYLES}
    paths = {style: path for style, path in found.items() if path is not None}
    missing = [style for style in wanted if style not in paths]
    if missing or not paths:
        styles = f" --styles {' '.join(missing)}" if missing else ""
        larger = f" --size {size}" if size > MASTER else ""
        raise SfumatoError(f"{given!r} is not on this machine yet; get it once with: {GET}{styles}{larger}")
    parts = {style: read(path) for style, path in paths.items()}
    broken = [str(paths[style]) for style, part in parts.items() if part is None]
    if broken:
        raise SfumatoError(f"{broken[0]} is damaged or of another version; get it again with: {GET}")
    icons = [(style, icon) for style, (_, about) in parts.items() for icon in about["icons"]]
    check_fits(len(icons), size, 3)
    columns: dict[str, list[Any]] = {name: [icon[name] for _, icon in icons] for name in FIELDS}
    columns["style"] = [style for style, _ in icons]
    columns["alternatives"] = [list(dict.fromkeys(icon["names"].values())) for _, icon in icons]
    number = {style: k for k, style in enumerate(parts)}
    return Source(
        name=given,
        pixels=np.concatenate([resize_all(pixels, size) for pixels, _ in parts.values()]),
        keys=tuple(f"{style}/{icon['glyph']}" for style, icon in icons),
        captions=[caption(style, icon) for style, icon in icons],
        columns=columns,
        notes={
            "licence": "; ".join(
                f"{style}: {about['licence']['spdx']}, {about['licence']['author']}, {about['licence']['url']}"
                for style, (_, about) in parts.items()
            ),
            "packages": {style: about["packages"] for style, (_, about) in parts.items()},
            "rule": "rendered on white, then Lanczos where another size is asked for",
        },
        styles=tuple(parts),
        style_labels=torch.tensor([number[style] for style, _ in icons], dtype=torch.int64),
        groups=_drawings(columns["glyph"], [pixels for pixels, _ in parts.values()]),
    )


def caption(style: str, icon: dict[str, Any]) -> str:
    """Name, keywords, groups, colours, style: phrases parted by commas."""
    phrases = [icon["name"], *icon["keywords"], icon["subgroup"], icon["group"]]
    phrases += [" and ".join(icon["colours"]), STYLES[style].words[0]]
    return ", ".join(dict.fromkeys(p for p in phrases if p))


ALIKE = {
    **dict.fromkeys(("1F468", "1F469"), "1F9D1"),  # man, woman: person
    **dict.fromkeys(("1F466", "1F467"), "1F9D2"),  # boy, girl: child
    **dict.fromkeys(("1F474", "1F475"), "1F9D3"),  # old man, old woman: older person
    **{f"{point:X}": "1F550" for point in range(0x1F550, 0x1F568)},  # clock faces
}
SIGNS = {"200D", "FE0F", "2640", "2642", "27A1"}  # joiner, variation, woman, man, facing right


def base(glyph: str) -> str:
    """Code points such as 1F468-200D-1F692 -> those of the drawing: all genders and directions of one have it in common."""
    points = [ALIKE.get(p, p) for p in glyph.split("-") if p not in SIGNS]
    return "-".join(points) or glyph


def _drawings(glyphs: list[str], pixels: list[np.ndarray]) -> tuple[str, ...]:
    """The drawing of each picture: that of its code points; those with equal pixels in any style are one."""
    parent: dict[str, str] = {}

    def root(name: str) -> str:
        while parent.setdefault(name, name) != name:
            name = parent[name]
        return name

    row = 0
    for part in pixels:
        seen: dict[bytes, str] = {}
        for picture in part:
            one, other = root(base(glyphs[row])), root(seen.setdefault(picture.tobytes(), base(glyphs[row])))
            parent[max(one, other)] = min(one, other)
            row += 1
    return tuple(root(base(glyph)) for glyph in glyphs)
