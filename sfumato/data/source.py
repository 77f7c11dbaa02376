"""A set of decoded pictures with what is known of each."""

from __future__ import annotations

from collections.abc import Iterator
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
from sfumato.data.order import Window, split, split_pairs
from sfumato.data.own import Own
from sfumato.data.ragged import Ragged, Squares, square_side
from sfumato.data.shapes import Shape

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

    A set laid into several shapes (`Ragged`) is asked for rows of one shape at a time: `bucket` says which has which.

    `window` is how training shuffles a set that is not in memory (None: the whole set at once). `labels` is int64 [N]
    into `classes`, -1 where unknown; `captions` holds "" where missing; `columns` keeps every other column of the
    metadata (None where missing); `notes` goes into the summary (licence, skipped files, ...). `style_labels` is int64
    [N] into `styles`, -1 where unknown. `groups` names the drawing that each picture shows (None: each its own): a
    drawing is held out whole. `held` says of each what kind of `holdout` it is of ("": it is learned from), where that is
    not left to chance. `sizes` int64 [N, 2] are height and width of the upright pictures before they were cropped, 0 where
    that is not known. `own` holds by control what users drew to the pictures: masks, class maps, sketches.
    """

    name: str
    pixels: np.ndarray | Lazy | Ragged | Squares
    keys: tuple[str, ...]
    classes: tuple[str, ...] = ()
    labels: Tensor | None = None
    captions: list[str] | None = None
    columns: dict[str, list[Any]] = field(default_factory=dict)
    notes: dict[str, Any] = field(default_factory=dict)
    window: Window | None = None
    styles: tuple[str, ...] = ()
    style_labels: Tensor | None = None
    groups: tuple[str, ...] | None = None
    held: tuple[str, ...] | None = None
    sizes: Tensor | None = None
    own: dict[str, Own] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.pixels)

    def with_pixels(self, pixels: np.ndarray | Lazy | Ragged | Squares) -> Source:
        """The same pictures with other pixels, uint8 [N, H, W, C]."""
        return replace(self, pixels=pixels)

    @property
    def _largest(self) -> list[int] | None:
        """Height and width of the largest picture as it came; None where none is known (drawn ones)."""
        if self.sizes is None or not len(self.sizes):
            return None
        size = self.sizes[self.sizes.prod(1).argmax()].tolist()
        return size if all(size) else None

    @property
    def shapes(self) -> tuple[Shape, ...]:
        """(H, W) of the pictures, one per bucket; the first has the most of them."""
        return self.pixels.shapes if isinstance(self.pixels, Ragged) else (tuple(self.pixels.shape[1:3]),)

    @property
    def size(self) -> int:
        """The side that was asked for: every shape has about size x size pixels."""
        return self.notes.get("size", self.codec.height)

    @cached_property
    def bucket(self) -> Tensor:
        """Which of `shapes` each picture has, int64 [N]."""
        ragged = isinstance(self.pixels, Ragged)
        return torch.from_numpy(self.pixels.bucket) if ragged else torch.zeros(len(self), dtype=torch.int64)

    def alike(self, rows: Tensor, most: int) -> Iterator[Tensor]:
        """Places int64 [n <= most] in `rows` [N], all of them once, each time of pictures of one shape."""
        for k in range(len(self.shapes)):
            yield from filter(len, (self.bucket[rows] == k).nonzero()[:, 0].split(most))

    def squares(self) -> Source:
        """The same pictures as squares of one size, to be measured and compared; itself where they are."""
        if len(set(self.shapes)) == 1 and self.shapes[0][0] == self.shapes[0][1]:
            return self
        ragged = self.pixels if isinstance(self.pixels, Ragged) else Ragged((self.pixels,), self.bucket.numpy())
        return self.with_pixels(Squares(ragged, square_side(self.shapes)))

    def take(self, rows: Tensor) -> Source:
        """Only these rows (int64 [n]), as a source of their own, with a split of its own."""
        chosen = rows.tolist()
        return replace(
            self,
            pixels=self.pixels.take(np.asarray(rows), axis=0),
            keys=tuple(self.keys[k] for k in chosen),
            labels=None if self.labels is None else self.labels[rows],
            captions=None if self.captions is None else [self.captions[k] for k in chosen],
            style_labels=None if self.style_labels is None else self.style_labels[rows],
            groups=None if self.groups is None else tuple(self.groups[k] for k in chosen),
            sizes=None if self.sizes is None else self.sizes[rows],
            held=None if self.held is None else tuple(self.held[k] for k in chosen),
            columns={name: [values[k] for k in chosen] for name, values in self.columns.items()},
            own={control: own.take(np.asarray(rows)) for control, own in self.own.items()},
        )

    @property
    def codec(self) -> PixelCodec:
        """Of pictures of the first shape; `codec.sized(*shape)` is that of another."""
        return PixelCodec(*self.pixels.shape[1:])

    @property
    def captioned(self) -> bool:
        return self.captions is not None

    @cached_property
    def _split(self) -> tuple[Tensor, dict[str, Tensor]]:
        if self.held is not None and "" in self.held and any(self.held):
            rows = {kind: [k for k, own in enumerate(self.held) if own == kind] for kind in dict.fromkeys(self.held)}
            learned, *kinds = (torch.tensor(rows[kind], dtype=torch.int64) for kind in ("", *filter(None, rows)))
            return learned, dict(zip(filter(None, rows), kinds, strict=True))
        train, held = split(self.groups or self.keys)
        if self.groups is None:
            return train, {"pictures": held}
        if self.style_labels is None:
            return train, {"glyphs": held}
        train, pairs = split_pairs(self.groups, self.style_labels, train)
        return train, {"glyphs": held, "pairs": pairs}

    @property
    def train_index(self) -> Tensor:
        """Rows to learn from, int64, ascending."""
        return self._split[0]

    @property
    def holdout(self) -> dict[str, Tensor]:
        """Held-out rows, int64 ascending, by what is new in them.

        "pictures", each chosen by its name; where there are `groups`, "glyphs": drawings that are not trained on at all,
        and, with styles, "pairs": drawings that are trained on in another style only.
        """
        return self._split[1]

    @cached_property
    def validation_index(self) -> Tensor:
        """All rows of `holdout` (about 5 % chosen by hash, and a tenth of the pairs; at least 1), int64, ascending."""
        return torch.cat(list(self.holdout.values())).sort().values

    def images(self, index: Tensor) -> np.ndarray:
        """Pictures of these rows, uint8 [B, H, W, C]; raises SfumatoError for rows of several shapes."""
        return self.pixels[np.asarray(index)]

    def expect(self, index: Tensor) -> None:
        """These rows will be asked for next: a set that is not in memory begins to decode them."""
        if not isinstance(self.pixels, np.ndarray):
            self.pixels.expect(np.asarray(index))

    def batch(self, index: Tensor) -> Batch:
        """Rows int64 [B] -> x0 float32 [B, C, H, W] in [-1, 1] with the slots "class", "style" and "text" where they exist."""
        slots = {}
        for name, labels in (("class", self.labels), ("style", self.style_labels)):
            if labels is not None:
                label = labels[index]
                slots[name] = Slot(label.clamp_min(0), "vector", label >= 0)
        if self.captions is not None:
            ids, mask = text.encode([self.captions[k] for k in index.tolist()])
            slots["text"] = Slot(ids, "tokens", mask)
        pictures = self.images(index)
        return Batch(self.codec.sized(*pictures.shape[1:3]).encode(pictures), Cond(slots), index)

    def _counts(self) -> list[int]:
        """Pictures of each shape."""
        return torch.bincount(self.bucket, minlength=len(self.shapes)).tolist()

    @property
    def fingerprint(self) -> str:
        """A hash of the file names in their order: the same names, the same split and the same order of training."""
        names = "\n".join([*self.keys, *(self.groups or ())]).encode("utf-8", "surrogateescape")
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
            "shapes": [[*shape, n] for shape, n in zip(self.shapes, self._counts(), strict=True)],
            "channels": channels,
            "train": len(self.train_index),
            "validation": len(self.validation_index),
            "holdout": {name: len(rows) for name, rows in self.holdout.items()},
            "classes": list(self.classes),
            "captioned": self.captioned,
            "columns": sorted(self.columns),
            "largest": self._largest,
            "in_memory": isinstance(self.pixels, np.ndarray) or self.pixels.in_memory,
            "window": None if self.window is None else [self.window.rows, self.window.block],
            "skipped": [],
        }
        if len(self) == 1:
            told["split"] = "one picture: it is both trained on and validated on"
        if self.labels is not None:
            counts = torch.bincount(self.labels[self.labels >= 0], minlength=len(self.classes))
            told["class_counts"] = dict(zip(self.classes, counts.tolist(), strict=True))
            told["unlabelled"] = int((self.labels < 0).sum())
        if self.style_labels is not None:
            counts = torch.bincount(self.style_labels[self.style_labels >= 0], minlength=len(self.styles))
            told["style_counts"] = dict(zip(self.styles, counts.tolist(), strict=True))
        if self.captions is not None:
            lengths = [len(text.words(c)) for c in self.captions]
            told["text"] = {
                "vocabulary": text.VOCABULARY,
                "longest": max(lengths, default=0),
                "missing": sum(n == 0 for n in lengths),
            }
        return {**told, **self.notes}
