"""What was done to a picture before it was learned from, told to the model: its own size, and where it was cropped.

SDXL's micro-conditioning (Podell et al. 2023, arXiv 2307.01952, section 2.2): small pictures need not be thrown away, for
the model learns which are blurred because they were enlarged, and at use it is told of none that was.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from sfumato.core import SfumatoError, Slot
from sfumato.data.picture import inside
from sfumato.data.shapes import Shape
from sfumato.data.source import Source

NAMES = ("size", "crop")
LARGEST = 2**20  # pixels of a side


def size_slot(sizes: Sequence[Shape | None]) -> Slot:
    """(height, width) in pixels of each picture as it came, None where that is not known -> vectors [B, 2] of
    log2(pixels): one pixel, which no picture is, is as good as not told."""
    for size in sizes:
        if size is not None and not all(1 <= side <= LARGEST for side in size):
            raise SfumatoError(f"a size is two numbers of pixels, 1 to {LARGEST:,}, not {size}")
    value = [[0.0, 0.0] if size is None else [math.log2(side) for side in size] for size in sizes]
    return Slot(torch.tensor(value), "vector", torch.tensor([size is not None for size in sizes]))


def crop_slot(crops: Sequence[tuple[float, float] | None]) -> Slot:
    """(top, left) of the crop of each picture, in shares of its own height and width -> vectors [B, 2]; (0, 0), a picture
    that is there whole, is as good as not told."""
    value = torch.tensor([(0.0, 0.0) if crop is None else crop for crop in crops], dtype=torch.float32)
    return Slot(value, "vector", torch.tensor([crop is not None for crop in crops]))


def slots(source: Source, rows: Sequence[int]) -> dict[str, Slot]:
    """Both slots of these rows; SfumatoError for a set whose files were not looked at one by one."""
    if source.sizes is None:
        raise SfumatoError(
            "the conditions size and crop need picture files that fit into memory: this data does not tell how large its "
            "pictures were; leave them away"
        )
    sizes = [tuple(source.sizes[k].tolist()) for k in rows]
    shapes = [source.shapes[k] for k in source.bucket[list(rows)].tolist()]
    known = [size if all(size) else None for size in sizes]
    crops = [size and _crop(size, shape) for size, shape in zip(known, shapes, strict=True)]
    return {"size": size_slot(known), "crop": crop_slot(crops)}


def _crop(size: Shape, shape: Shape) -> tuple[float, float]:
    left, top, _, _ = inside(size, shape)
    return top / size[0], left / size[1]
