"""Masks, class maps and sketches of a user's own: files that go the way of the picture they belong to."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from sfumato.core import SfumatoError
from sfumato.data import drawings
from sfumato.data.drawings import Area
from sfumato.data.picture import SIXTEEN, Unusable, brief, crop, opened, read_shape, upright
from sfumato.data.progress import progress
from sfumato.data.records import OWN, Beside, Records, shown
from sfumato.data.shapes import Shape

Drawn = tuple[Tensor, Tensor]


@dataclass(frozen=True, eq=False)
class Own:
    """What a user drew to the pictures of a source, of one `control` of OWN.

    `rows` are places in `records`, -1 for pictures that came later; `bucket` says which of `frames` (H, W) each picture has.
    Read when first asked for, and kept where the pictures are (`in_memory`), else once to be checked, and anew for each batch.
    """

    records: Records
    control: str
    rows: np.ndarray
    frames: tuple[Shape, ...]
    bucket: np.ndarray
    in_memory: bool = True
    kept: dict[tuple[Area, ...], list[np.ndarray | None]] = field(default_factory=dict, init=False, repr=False)

    @cached_property
    def here(self) -> np.ndarray:
        """Which pictures have one, bool [N]."""
        files = self.records.own[self.control]
        return np.array([row >= 0 and files[row] is not None for row in self.rows.tolist()], bool)

    def take(self, index: np.ndarray) -> Own:
        """Those of these pictures."""
        return replace(self, rows=self.rows[index], bucket=self.bucket[index])

    def longer(self, n: int) -> Own:
        """With n pictures more that have none."""
        none = np.zeros(n, np.int64)
        return replace(self, rows=np.append(self.rows, none - 1), bucket=np.append(self.bucket, none))

    def palette(self) -> tuple[Area, ...]:
        """The classes of the maps: those of palette.json, else every colour that they hold.

        Raises SfumatoError, naming the file, for what is no palette and no map.
        """
        if self.records.palette is not None:
            return drawings.read_palette(self.records.palette, shown(self.records.palette))
        return drawings.gathered(self._each(lambda k: self._told(k, lambda picture: drawings.colours_of(picture))))

    def check(self, palette: tuple[Area, ...]) -> None:
        """Read all of them; raises SfumatoError naming the file that does not fit its picture or the palette."""
        if palette not in self.kept:
            found: list[np.ndarray | None] = [None] * len(self.rows)
            for k, value in zip(np.flatnonzero(self.here), self._each(lambda k: self.read(k, palette)), strict=True):
                found[k] = value if self.in_memory else None
            self.kept[palette] = found

    def at(self, index: Tensor, palette: tuple[Area, ...]) -> Drawn:
        """Of these pictures of one shape: numbers float [B, 1, H, W], and which have one, bool [B].

        The number is 1 where a mask says that the picture is filled and where a sketch has a line; of a map it is 1 and on for
        the classes of `palette` in their order; all else is 0.
        """
        self.check(palette)
        places = index.tolist()
        here = self.here[places]
        frame = self.frames[self.bucket[places[0]]] if places else self.frames[0]
        values = np.zeros((len(places), 1, *frame), np.float32)
        for row in np.flatnonzero(here).tolist():
            kept = self.kept[palette][places[row]]
            values[row, 0] = self.read(places[row], palette) if kept is None else kept
        return torch.from_numpy(values), torch.from_numpy(here)

    def read(self, k: int, palette: tuple[Area, ...]) -> np.ndarray:
        """The numbers of the k-th picture's, uint8 [H, W], cropped and made small as the picture is, without mixing."""
        frame = self.frames[self.bucket[k]]
        if self.control == "classes":
            return _small(self._told(k, lambda picture: drawings.areas(picture, palette) + 1), frame)
        if self.control == "known":
            return _small(self._told(k, lambda picture: drawings.filled(picture)[0]), frame)
        cut = np.asarray(crop(_image(self._told(k, drawings.lines)), frame))
        if frame[0] > cut.shape[0]:  # enlarged, a line is as bold as it was
            return _small(cut, frame)
        return F.adaptive_max_pool2d(torch.from_numpy(cut.copy()).float()[None], frame)[0].byte().numpy()

    def _each(self, work: Callable[[int], Any]) -> Iterator[Any]:
        """Done for all that are here, in order, by several threads."""
        places = np.flatnonzero(self.here).tolist()
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
            yield from progress(pool.map(work, places), len(places), f"reading {OWN[self.control][1]}")

    def _told(self, k: int, rule: Callable[[Image.Image], Any]) -> Any:
        """What a rule finds in the k-th picture's own file; SfumatoError with the file's name."""
        row = int(self.rows[k])
        beside: Beside = self.records.own[self.control][row]
        try:
            found = _opened(beside, self.control)
            height, width = read_shape(self.records.file(row))
            if found.size != (width, height):
                raise SfumatoError(
                    f"it is {found.width}x{found.height} pixels and its picture {shown(self.records.keys[row])} is "
                    f"{width}x{height}: make it the same size"
                )
            return rule(found)
        except (Unusable, SfumatoError) as error:
            raise SfumatoError(f"{shown(beside.name)}: {error}") from error


def _opened(beside: Beside, control: str) -> Image.Image:
    """The file upright, in mode L, RGB or RGBA; raises Unusable."""
    with opened(beside.file()) as picture:
        if control == "classes" and picture.mode in SIXTEEN:
            raise Unusable(
                "16 bits per channel, which are no colours: save the map with 8 bits, one colour for each class"
            )
        try:
            return upright(picture)
        except Unusable:
            raise
        except Exception as error:  # as in `picture.read_sized`
            raise Unusable(f"cannot be decoded ({brief(error)})") from error


def _image(values: np.ndarray) -> Image.Image:
    return Image.fromarray(values.astype(np.uint8))


def _small(values: np.ndarray, frame: Shape) -> np.ndarray:
    """Whole numbers [H, W] -> uint8 of this shape: cropped as a picture is, each place that of its middle."""
    cut = crop(_image(values), frame)
    return np.asarray(cut.resize(frame[::-1], Image.Resampling.NEAREST))
