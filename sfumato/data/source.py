"""A set of decoded pictures with what is known of each."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from hashlib import blake2b
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sfumato.core import Batch, Cond, SfumatoError, Slot
from sfumato.data import text
from sfumato.data.codec import PixelCodec
from sfumato.data.lazy import Lazy
from sfumato.data.order import Window, split

LIMIT_BYTES = 4 * 2**30


def check_fits(n: int, size: int, channels: int) -> None:
    """Raise SfumatoError when n decoded square pictures would take more than LIMIT_BYTES of memory."""
    need = n * size * size * channels
    if need > LIMIT_BYTES:
        fits = int((LIMIT_BYTES / (n * channels)) ** 0.5)
        raise SfumatoError(
            f"{n} pictures at {size}x{size} take {need / 2**30:.1f} GiB decoded, over {LIMIT_BYTES / 2**30:.0f} GiB;"
            f" use a size of at most {fits} or fewer pictures"
        )


@dataclass(frozen=True)
class Source:
    """Pictures uint8 [N, H, W, C], in memory or decoded on demand, with names, classes and captions where there are any.

    `window` is how training shuffles a set that is not in memory (None: the whole set at once). `labels` is int64 [N]
    into `classes`, -1 where unknown; `captions` holds "" where missing; `columns` keeps every other column of the
    metadata (None where missing); `notes` goes into the summary (licence, skipped files, ...).
    """

    name: str
    pixels: np.ndarray | Lazy
    keys: tuple[str, ...]
    classes: tuple[str, ...] = ()
    labels: Tensor | None = None
    captions: list[str] | None = None
    columns: dict[str, list[Any]] = field(default_factory=dict)
    notes: dict[str, Any] = field(default_factory=dict)
    window: Window | None = None

    def __len__(self) -> int:
        return len(self.pixels)

    def with_pixels(self, pixels: np.ndarray) -> Source:
        """The same pictures with other pixels, uint8 [N, H, W, C]."""
        return replace(self, pixels=pixels)

    def take(self, rows: Tensor) -> Source:
        """Only these rows (int64 [n]), as a source of their own, with a split of its own."""
        chosen = rows.tolist()
        return replace(
            self,
            pixels=self.pixels.take(np.asarray(rows), axis=0),
            keys=tuple(self.keys[k] for k in chosen),
            labels=None if self.labels is None else self.labels[rows],
            captions=None if self.captions is None else [self.captions[k] for k in chosen],
            columns={name: [values[k] for k in chosen] for name, values in self.columns.items()},
        )

    @property
    def codec(self) -> PixelCodec:
        return PixelCodec(*self.pixels.shape[1:])

    @property
    def captioned(self) -> bool:
        return self.captions is not None

    @cached_property
    def _split(self) -> tuple[Tensor, Tensor]:
        return split(self.keys)

    @property
    def train_index(self) -> Tensor:
        """Rows to learn from, int64, ascending."""
        return self._split[0]

    @property
    def validation_index(self) -> Tensor:
        """Rows held out (about 5 %, chosen by hash of the file name, at least 1), int64, ascending."""
        return self._split[1]

    @cached_property
    def text_length(self) -> int:
        """Token columns of the "text" slot: the longest caption's, at most text.LENGTH; 0 without captions."""
        longest = max((len(text.words(c)) for c in self.captions or ()), default=0)
        return min(longest, text.LENGTH)

    @cached_property
    def _tokens(self) -> tuple[Tensor, Tensor]:
        return text.encode(self.captions or [], self.text_length)

    def images(self, index: Tensor) -> np.ndarray:
        """Pictures of these rows, uint8 [B, H, W, C]."""
        return self.pixels[np.asarray(index)]

    def expect(self, index: Tensor) -> None:
        """These rows will be asked for next: a set that is not in memory begins to decode them."""
        if isinstance(self.pixels, Lazy):
            self.pixels.expect(np.asarray(index))

    def batch(self, index: Tensor) -> Batch:
        """Rows int64 [B] -> x0 float32 [B, C, H, W] in [-1, 1] with the slots "class" and "text" where they exist."""
        slots = {}
        if self.labels is not None:
            label = self.labels[index]
            slots["class"] = Slot(label.clamp_min(0), "vector", label >= 0)
        if self.captions is not None:
            ids, mask = self._tokens
            slots["text"] = Slot(ids[index], "tokens", mask[index])
        return Batch(self.codec.encode(self.images(index)), Cond(slots), index)

    @property
    def fingerprint(self) -> str:
        """A hash of the file names in their order: the same names, the same split and the same order of training."""
        names = "\n".join(self.keys).encode("utf-8", "surrogateescape")
        return blake2b(names, digest_size=8).hexdigest()

    def summary(self) -> dict[str, Any]:
        """What was loaded and what was left out; JSON-able."""
        channels, height, width = self.codec.spec
        told: dict[str, Any] = {
            "name": self.name,
            "pictures": len(self),
            "fingerprint": self.fingerprint,
            "height": height,
            "width": width,
            "channels": channels,
            "train": len(self.train_index),
            "validation": len(self.validation_index),
            "classes": list(self.classes),
            "captioned": self.captioned,
            "columns": sorted(self.columns),
            "in_memory": not isinstance(self.pixels, Lazy),
            "skipped": [],
        }
        if len(self) == 1:
            told["split"] = "one picture: it is both trained on and validated on"
        if self.labels is not None:
            counts = torch.bincount(self.labels[self.labels >= 0], minlength=len(self.classes))
            told["class_counts"] = dict(zip(self.classes, counts.tolist(), strict=True))
            told["unlabelled"] = int((self.labels < 0).sum())
        if self.captions is not None:
            lengths = [len(text.words(c)) for c in self.captions]
            told["text"] = {
                "vocabulary": text.VOCABULARY,
                "length": self.text_length,
                "missing": sum(n == 0 for n in lengths),
                "cut": sum(n > self.text_length for n in lengths),
            }
        return {**told, **self.notes}
