"""The one door to data: a name, a folder, a file or a pattern of shards -> Source."""

from __future__ import annotations

import os
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from sfumato.core import SfumatoError
from sfumato.data import builtin, emoji, icons, scenes, words
from sfumato.data.load import load
from sfumato.data.ragged import with_channels
from sfumato.data.records import open_records, readable, shown
from sfumato.data.shapes import Buckets
from sfumato.data.source import Source

NAMES = ("digits", "emoji", "emoji-people", "fashion-mnist", "fashion-mnist/test", "icons", "scenes", "words")


def open(
    source: str | os.PathLike[str],
    size: int | None = None,
    channels: int | None = None,
    buckets: Buckets | int | None = None,
) -> Source:
    """Load pictures as squares of `size` pixels: into memory, or decoded on demand when they are too many for that.

    With `buckets` (how many, or Buckets) the pictures get a few shapes of about size x size pixels, each the one that
    cuts least off it.

    `source` is what `open_records` reads (a folder of pictures, .tar or .parquet shards, a .csv or .jsonl of paths, a
    folder of Hugging Face datasets), or one of NAMES; "fashion-mnist:DIR" and "fashion-mnist/test:DIR" read the idx
    files of DIR, "icons:STYLE,STYLE" has those styles alone (so with "scenes"). A folder wins over a name when given as
    a path ("./emoji").
    `size` defaults to a power of two near the pictures' median shorter side; `channels` (1 grey, 3 colour) to 1 when
    every picture is grey, else 3.
    Raises SfumatoError with one clear line for everything the user can mend.
    """
    _check("size", size, 1, 4096)
    if channels not in (None, 1, 3) or isinstance(channels, bool):
        raise SfumatoError(f"channels must be 1 (grey) or 3 (colour), not {channels!r}")
    given = os.fspath(source)
    if not isinstance(given, str) or not given.strip():
        raise SfumatoError(f"a source is a folder or one of: {', '.join(NAMES)}")
    name, _, where = given.partition(":")
    if isinstance(buckets, int):
        buckets = Buckets(buckets)
    if buckets is not None and name in NAMES and not (_square(buckets) or name == "words" and _double(buckets)):
        shape = "twice as wide as high" if name == "words" else "squares"
        raise SfumatoError(f"buckets are for pictures of different proportions; those of {given} are {shape}")
    if given == "digits":
        loaded = builtin.digits(size)
    elif given in ("emoji", "emoji-people"):
        loaded = emoji.load(given, size)
    elif name == "icons":
        loaded = icons.load(given, size)
    elif name == "scenes":
        loaded = scenes.load(given, size)
    elif given == "words":
        loaded = words.load(size)
    elif name in ("fashion-mnist", "fashion-mnist/test"):
        loaded = builtin.fashion_mnist(name, where, size)
    elif readable(Path(given).expanduser()):
        loaded = load(open_records(given), size, buckets)
    else:
        raise _unknown(given)
    return loaded if channels is None else loaded.with_pixels(with_channels(loaded.pixels, channels))


def _check(what: str, value: object, least: int, most: int) -> None:
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise SfumatoError(f"{what} must be a whole number of pixels from {least} to {most}, not {value!r}")


def _unknown(given: str) -> SfumatoError:
    path = Path(given).expanduser()
    if path.is_file():
        return SfumatoError(
            f"{shown(given)} is a file of a kind that is not read; give a folder of pictures (unpack archives first), .tar or"
            " .parquet shards, or a .csv or .jsonl of paths"
        )
    near = get_close_matches(given.lower(), NAMES, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return SfumatoError(f"no folder {given!r} and no source of that name; {hint}the sources are: {', '.join(NAMES)}")


def open_as(source: str | os.PathLike[str], codec: Mapping[str, Any]) -> Source:
    """The source with the picture shapes and channels of a run, as its run.json tells them under "codec"."""
    shapes = tuple((int(h), int(w)) for h, w in codec.get("shapes", [[codec["height"], codec["width"]]]))
    fixed = Buckets(fixed=shapes)
    return open(source, codec["height"], codec["channels"], None if _square(fixed) else fixed)


def _square(buckets: Buckets) -> bool:
    return len(buckets.fixed) == 1 and buckets.fixed[0][0] == buckets.fixed[0][1]


def _double(buckets: Buckets) -> bool:
    """Whether the only shape is that of the words, twice as wide as high."""
    return len(buckets.fixed) == 1 and buckets.fixed[0][1] == 2 * buckets.fixed[0][0]


def located(source: str | os.PathLike[str]) -> str:
    """The source as it can be opened from any folder: paths made absolute, names as they are."""
    given = os.fspath(source)
    name, colon, where = given.partition(":")
    if given in NAMES or name in ("icons", "scenes") or (name in NAMES and not where):
        return given
    if name in NAMES:
        return name + colon + os.path.abspath(Path(where).expanduser())
    return os.path.abspath(Path(given).expanduser())
