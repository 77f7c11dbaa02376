"""Pictures of several shapes, and the same pictures as squares of one size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from PIL import Image
from torch import Tensor

from sfumato.core import SfumatoError
from sfumato.data.codec import PixelCodec
from sfumato.data.lazy import Lazy, luma
from sfumato.data.picture import crop, fit
from sfumato.data.shapes import Shape


@dataclass(frozen=True)
class Ragged:
    """Reads like an array uint8 [N, H, W, C], but pictures have the shape of their bucket: [n, H, W, C] of one at a time.

    `parts`: the pictures of each bucket; `bucket` int64 [N]: which part each picture lies in, in the order of the set.
    Indexed by int64 rows of one bucket; raises SfumatoError when they are of several.
    """

    parts: tuple[np.ndarray | Lazy, ...]
    bucket: np.ndarray

    @cached_property
    def _place(self) -> np.ndarray:
        """The place of each picture within its part."""
        place = np.empty(len(self.bucket), np.int64)
        for k in range(len(self.parts)):
            mine = self.bucket == k
            place[mine] = np.arange(mine.sum())
        return place

    def __len__(self) -> int:
        return len(self.bucket)

    @property
    def shapes(self) -> tuple[Shape, ...]:
        return tuple(part.shape[1:3] for part in self.parts)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(N, H, W, C) with the height and width of the first bucket."""
        return len(self), *self.parts[0].shape[1:]

    @property
    def nbytes(self) -> int:
        """Bytes held in memory now."""
        return sum(part.nbytes for part in self.parts)

    @property
    def in_memory(self) -> bool:
        return all(isinstance(part, np.ndarray) for part in self.parts)

    def _of(self, index: np.ndarray) -> int:
        """The bucket that all these rows lie in."""
        found = np.unique(self.bucket[index])
        if len(found) > 1:
            told = ", ".join("{1}x{0}".format(*self.shapes[k]) for k in found)
            raise SfumatoError(f"one batch holds pictures of one shape; these rows are of {told}")
        return int(found[0]) if len(found) else 0

    def __getitem__(self, index: np.ndarray) -> np.ndarray:
        index = np.asarray(index)
        return self.parts[self._of(index)][self._place[index]]

    def expect(self, index: np.ndarray) -> None:
        """Begin to decode these pictures of one bucket, where they are not in memory."""
        part = self.parts[self._of(index)]
        if isinstance(part, Lazy):
            part.expect(self._place[index])

    def take(self, index: np.ndarray, axis: int = 0) -> Ragged:
        """Only these pictures; a bucket may be left empty."""
        bucket, place = self.bucket[index], self._place[index]
        parts = tuple(part.take(place[bucket == k], axis=0) for k, part in enumerate(self.parts))
        return Ragged(parts, bucket)

    def with_channels(self, channels: int) -> Ragged:
        return Ragged(tuple(with_channels(part, channels) for part in self.parts), self.bucket)


@dataclass(frozen=True)
class Squares:
    """The pictures of a Ragged, any rows at once, as squares uint8 [n, side, side, C]: see `square`."""

    of: Ragged
    side: int

    in_memory = False  # made when they are asked for

    def __len__(self) -> int:
        return len(self.of)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return len(self), self.side, self.side, self.of.shape[3]

    @property
    def nbytes(self) -> int:
        return self.of.nbytes

    def __getitem__(self, index: np.ndarray) -> np.ndarray:
        index = np.asarray(index)
        out = np.empty((len(index), *self.shape[1:]), np.uint8)
        for k in range(len(self.of.parts)):
            mine = np.flatnonzero(self.of.bucket[index] == k)
            if len(mine):
                out[mine] = square(self.of[index[mine]], self.side)
        return out

    def expect(self, index: np.ndarray) -> None:
        """Nothing: pictures are measured, not trained on, as squares."""

    def take(self, index: np.ndarray, axis: int = 0) -> Squares:
        """Only these pictures."""
        return Squares(self.of.take(index), self.side)


def square(pixels: np.ndarray, side: int) -> np.ndarray:
    """Pictures uint8 [n, H, W, C] -> [n, side, side, C]: centre square crop, Lanczos resize; squares of that side as they are.

    What makes pictures of several shapes comparable: real and generated ones go the same way.
    """
    if pixels.shape[1:3] == (side, side):
        return pixels
    channels = pixels.shape[3]
    out = np.empty((len(pixels), side, side, channels), np.uint8)
    for row, picture in zip(out, pixels, strict=True):
        image = Image.fromarray(picture[:, :, 0] if channels == 1 else picture)
        row[:] = np.asarray(fit(crop(image, (side, side)), (side, side))).reshape(side, side, channels)
    return out


def square_x0(x0: Tensor, side: int) -> Tensor:
    """As `square`, of pictures x0 [n, C, H, W] in [-1, 1], in 8 bits; squares of that side stay as they are."""
    channels, height, width = x0.shape[1:]
    if (height, width) == (side, side):
        return x0
    return PixelCodec(side, side, channels).encode(square(PixelCodec(height, width, channels).pixels(x0), side))


def square_side(shapes: Sequence[Shape]) -> int:
    """The side of the squares that pictures of these shapes are compared as: the shortest of all sides, so none is enlarged."""
    return min(min(shape) for shape in shapes)


def with_channels(pixels: np.ndarray | Lazy | Ragged, channels: int) -> np.ndarray | Lazy | Ragged:
    """The same pictures in grey (1) or colour (3)."""
    if channels == pixels.shape[3]:
        return pixels
    if isinstance(pixels, np.ndarray):
        return np.repeat(pixels, 3, axis=3) if channels == 3 else luma(pixels)
    return pixels.with_channels(channels)
