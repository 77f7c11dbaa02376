"""Holes larger than a model sees at once: drawn small first, so that all windows begin with one idea of the whole."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from sfumato.core import EDGES, Cond, Slot
from sfumato.data.shapes import Shape
from sfumato.tasks.canvas import Region

STRENGTH = 0.65  # where the windows take over: the small drawing says what is where, they say what it looks like
CONTEXT = 3  # the surroundings on each side are the hole's own side divided by this


@dataclass(frozen=True)
class Small:
    """The surroundings of a hole, `part` of the picture, made small: `size` (width, height)."""

    part: Region
    size: tuple[int, int]

    @classmethod
    def of(cls, fill: np.ndarray, own: Shape) -> Small:
        """As much as goes into pictures of the shape `own` (height, width), with what is round the hole `fill` [H, W]."""
        spans = []
        for axis, length in enumerate(fill.shape):
            places = np.flatnonzero(fill.any(1 - axis))
            border = (int(places[-1]) + 1 - int(places[0])) // CONTEXT
            first, last = max(0, int(places[0]) - border), min(length, int(places[-1]) + 1 + border)
            spans.append((first, last - first))
        (top, height), (left, width) = spans
        scale = max(1.0, height / own[0], width / own[1])
        part = Region(top, left, height, width, (height, width))
        return cls(part, (max(1, round(width / scale)), max(1, round(height / scale))))

    def picture(self, picture: Image.Image) -> Image.Image:
        """This part of a picture, small."""
        p = self.part
        return picture.crop((p.left, p.top, p.left + p.width, p.top + p.height)).resize(self.size, Image.Resampling.BOX)

    def fill(self, fill: np.ndarray) -> np.ndarray:
        """Bool [h, w]: whatever pixel has part of the hole in it."""
        found = Image.fromarray(np.where(self.part.cut(fill), 255, 0).astype(np.uint8)).convert("F")
        return np.asarray(found.resize(self.size, Image.Resampling.BOX)) > 0

    def cond(self, cond: Cond, region: Region) -> Cond:
        """Conditions of the part (one row) on the canvas of the small picture, `region`."""
        return Cond({name: self._slot(name, slot, region) for name, slot in cond.items()})

    def _slot(self, name: str, slot: Slot, region: Region) -> Slot:
        (width, height), (h, w) = self.size, region.shape
        if slot.role == "map":
            small = F.adaptive_max_pool2d(
                slot.value, (height, width)
            )  # a line in any part of a pixel is one in all of it
            if name == "classes":  # a pixel is of one class, or of none: of what most of it is
                shares = F.adaptive_avg_pool2d(slot.value, (height, width))
                whole = torch.cat([1 - shares.sum(1, keepdim=True), shares], 1)
                small = F.one_hot(whole.argmax(1), whole.shape[1])[..., 1:].permute(0, 3, 1, 2).float()
            small = small[0].permute(1, 2, 0).numpy()
            return Slot(torch.from_numpy(np.ascontiguousarray(region.cut(small))).permute(2, 0, 1)[None], "map")
        ids = slot.value.clone()  # placed words: the canvas may be larger than the picture on it
        ids[..., -EDGES:] = (ids[..., -EDGES:] * torch.tensor([width / w, height / h] * 2)).round().long()
        return Slot(ids, slot.role, slot.mask)

    def start(self, picture: Image.Image, drawn: Image.Image, fill: np.ndarray) -> Image.Image:
        """The picture with the small drawing, enlarged, in its hole."""
        p = self.part
        return p.paste(picture, drawn.resize((p.width, p.height), Image.Resampling.BICUBIC), fill)
