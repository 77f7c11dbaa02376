"""Pictures that are decoded when a batch asks for them, by reader threads that work ahead."""

from __future__ import annotations

import os
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from sfumato.core import SfumatoError
from sfumato.data.picture import Unusable, read
from sfumato.data.records import Records, shown


def luma(pixels: np.ndarray) -> np.ndarray:
    """Colour uint8 [..., 3] -> grey [..., 1]: ITU-R 601 in Pillow's own integer arithmetic, equal to Image.convert("L")."""
    red, green, blue = (pixels[..., c].astype(np.uint32) for c in range(3))
    return ((red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16).astype(np.uint8)[..., None]


@dataclass(frozen=True)
class Lazy:
    """Reads like an array uint8 [N, H, W, channels], but every picture is decoded anew when it is asked for.

    `rows` are places in `records`, `frame` is (H, W). Indexed by an int64 array, it returns the same values whatever the number
    of `readers` and whatever was expected. Memory: the pictures of two batches. Raises SfumatoError when a picture can no
    longer be read.
    """

    records: Records
    rows: np.ndarray
    frame: tuple[int, int]
    channels: int
    readers: int = field(default_factory=lambda: min(8, os.cpu_count() or 1))
    ahead: dict[int, Future[np.ndarray]] = field(default_factory=dict, init=False, repr=False, compare=False)

    dtype = np.dtype(np.uint8)
    ndim = 4
    in_memory = False

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return len(self.rows), *self.frame, self.channels

    @property
    def nbytes(self) -> int:
        """Bytes held in memory now: the pictures decoded ahead."""
        return len(self.ahead) * self.frame[0] * self.frame[1] * self.channels

    @cached_property
    def _pool(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(self.readers, "reader")

    def __getitem__(self, index: np.ndarray) -> np.ndarray:
        index = np.asarray(index)
        out = np.empty((len(index), *self.shape[1:]), np.uint8)
        self._submit(index)
        try:
            for place, row in enumerate(index.tolist()):
                out[place] = self.ahead[row].result()
        finally:
            for row in index.tolist():
                self.ahead.pop(row, None)
        return out

    def take(self, index: np.ndarray, axis: int = 0) -> Lazy:
        """Only these pictures, still undecoded."""
        return replace(self, rows=self.rows[index])

    def with_channels(self, channels: int) -> Lazy:
        return replace(self, channels=channels)

    def expect(self, index: np.ndarray) -> None:
        """Begin to decode these pictures, which will be asked for next; what was expected before is forgotten."""
        wanted = set(index.tolist())
        for row in [row for row in self.ahead if row not in wanted]:
            self.ahead.pop(row).cancel()
        self._submit(index)

    def _submit(self, index: np.ndarray) -> None:
        """Hand what is not yet under way to the readers, in the order of the disk."""
        for row in sorted(set(index.tolist()) - self.ahead.keys()):
            self.ahead[row] = self._pool.submit(self._decode, row)

    def _decode(self, row: int) -> np.ndarray:
        place = int(self.rows[row])
        try:
            picture = read(self.records.file(place), self.frame)
        except Unusable as reason:
            raise SfumatoError(
                f"{shown(self.records.keys[place])} of {self.records.where} could be read before and now cannot"
                f" ({reason}); restore it and begin again, or go on with --resume"
            ) from reason
        return picture if self.channels == 3 else luma(picture)
