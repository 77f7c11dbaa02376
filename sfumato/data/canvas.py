"""Which controls a model learns, how often it is shown each, and what they look like for a batch of pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from sfumato.core import Cond, Noise, SfumatoError, Slot
from sfumato.data import colours, controls
from sfumato.data.drawings import Area
from sfumato.data.layout import Box
from sfumato.data.own import Drawn
from sfumato.data.picture import inside
from sfumato.data.text import VOCABULARY

if TYPE_CHECKING:
    from sfumato.data.source import Source

NAMES = ("known", "lowres", "sketch", "classes", "boxes")
SMALLER = (2, 4)  # times that a low-resolution picture is smaller, one as likely as the other
NOISIEST = 0.5  # level that it is noised to at most
CLASSES = len(colours.NAMES)
SEEN = 0.25  # share of a box that a crop must leave of it


@dataclass(frozen=True)
class Controls:
    """`names` of the controls (of NAMES); a share `none` of the samples is shown none of them, so that words alone are not
    unlearned, and of the others each is shown with probability `each`, whatever becomes of the rest: any subset occurs.

    "known": the picture outside of a random hole, or in a share `masks` of the pictures that have a mask of their own outside
    of that; "lowres": the picture in a half or a quarter of its size, noised; "sketch": its own sketch, else its lines, as a
    hand draws them; "classes": with a `palette` its own map, nothing where it has none, else the basic colours of its areas;
    "boxes": what the source's column "boxes" says, a list of [x0, y0, x1, y1, text] for each picture.
    """

    names: tuple[str, ...] = ()
    none: float = 0.4
    each: float = 0.35
    masks: float = 0.5
    palette: tuple[Area, ...] = ()

    def __post_init__(self) -> None:
        for name in self.names:
            if name not in NAMES:
                raise SfumatoError(f"no control is named {name!r}; known: {', '.join(NAMES)}")
        if len(set(self.names)) < len(self.names):
            raise SfumatoError(f"controls {', '.join(self.names)}: each can be learned once")
        for name in ("none", "each", "masks"):
            if not 0 <= getattr(self, name) <= 1:
                raise SfumatoError(f"controls.{name} should lie in 0 ... 1, not {getattr(self, name):g}")

    def sizes(self, channels: int) -> dict[str, int]:
        """Channels of each control's map for pictures of so many channels, and the ids of the words of boxes."""
        known = {"known": 1 + channels, "lowres": channels + 1, "sketch": 1, "boxes": VOCABULARY}
        known["classes"] = len(self.palette) or CLASSES
        return {name: known[name] for name in self.names}

    def fit_to(self, source: Source) -> Controls:
        """Those that this source can tell (boxes only where it has a column of them), with the palette of its maps.

        Everything drawn to the pictures is read once; SfumatoError names the file that does not fit.
        """
        names = tuple(name for name in self.names if name != "boxes" or "boxes" in source.columns)
        fitted = replace(self, names=names)
        if "classes" in names and "classes" in source.own and not self.palette:
            fitted = replace(fitted, palette=source.own["classes"].palette())
        for name in fitted.drawn(source):
            source.own[name].check(fitted.palette)
        if "boxes" in names:
            if source.window is not None:
                raise SfumatoError(
                    "the control boxes needs pictures that fit into memory: boxes go through the crop of their picture; leave "
                    "boxes away, or use a smaller --size or fewer pictures"
                )
            boxes_of(source, range(len(source)))  # a wrong one is told before anything is learned
        return fitted

    def drawn(self, source: Source) -> tuple[str, ...]:
        """The controls that are told by what users drew to the pictures."""
        return tuple(n for n in self.names if n in source.own and (n != "classes" or self.palette))

    def __call__(
        self,
        x0: Tensor,
        boxes: Sequence[Any] | None,
        noise: Noise,
        own: Mapping[str, Drawn] = {},  # noqa: B006
    ) -> Cond:
        """The controls of pictures x0 [B, C, H, W] in [-1, 1], each shown to some of them; row k depends on its own stream
        of `noise` alone. `boxes`: those of each picture, None where it has none; SfumatoError for what are no boxes. `own`:
        what users drew to them, as `Own.at` gives it, moved as they were."""
        u = noise.at(0).uniform((len(x0), 1 + len(NAMES)))
        shown = (u[:, 1:] < self.each) & (u[:, :1] >= self.none)
        slots = {}
        for name in self.names:
            k = NAMES.index(name)
            if name == "boxes":
                slots[name] = _boxes(boxes, len(x0), shown[:, k])
                continue
            present = shown[:, k]
            if name == "classes" and self.palette:
                drawn = own.get(name)
                present = present & drawn[1] if drawn is not None else torch.zeros_like(present)
            rows = present.nonzero()[:, 0]
            value = x0.new_zeros(len(x0), self.sizes(x0.shape[1])[name], *x0.shape[2:])
            if len(rows):
                seeds = noise.at(1 + k).seeds
                streams = Noise([seeds[row] for row in rows.tolist()])
                mine = (own[name][0][rows], own[name][1][rows]) if name in own else None
                value = value.index_copy(0, rows, MADE[name](self, x0[rows], streams, mine).value)
            slots[name] = Slot(value, "map", present)
        return Cond(slots)


def _known(told: Controls, x0: Tensor, noise: Noise, own: Drawn | None) -> Slot:
    keep = controls.random_keep(noise, tuple(x0.shape[2:]))
    if own is not None:
        fill, here = own[0] > 0, own[1]
        here = here & fill.flatten(1).any(1)  # a mask that fills nothing is none
        chosen = here & (noise.at(2).uniform((len(x0), 1))[:, 0] < told.masks)
        keep = torch.where(chosen.reshape(-1, 1, 1, 1), ~fill, keep)
    return controls.known_slot(x0, keep)


def _lowres(told: Controls, x0: Tensor, noise: Noise, own: Drawn | None) -> Slot:
    u = noise.at(0).uniform((len(x0), 2))
    levels, shape = NOISIEST * u[:, 1], tuple(x0.shape[2:])
    small = torch.stack([F.interpolate(F.avg_pool2d(x0, n), size=shape, mode="nearest") for n in SMALLER])
    which = (u[:, 0] * len(SMALLER)).long().clamp_max(len(SMALLER) - 1)
    return controls.lowres_slot(small[which, torch.arange(len(x0))], shape, levels, noise.at(1))


def _sketch(told: Controls, x0: Tensor, noise: Noise, own: Drawn | None) -> Slot:
    lines = controls.sketch_of(x0, noise)
    return controls.sketch_slot(lines if own is None else torch.where(own[1].reshape(-1, 1, 1, 1), own[0], lines))


def _classes(told: Controls, x0: Tensor, noise: Noise, own: Drawn | None) -> Slot:
    if own is None:
        return controls.classes_slot(controls.segments_of(x0), CLASSES)
    return controls.classes_slot(own[0][:, 0].long() - 1, len(told.palette))


def boxes_of(source: Source, rows: Iterable[int]) -> list[list[Box]] | None:
    """The column "boxes" of these pictures, in fractions of what training sees of them; None where there is no such column.

    A box goes through the crop of its picture; of one that is cut, at least the share SEEN must be left. Raises SfumatoError
    naming the picture whose boxes are none.
    """
    column = source.columns.get("boxes")
    if column is None:
        return None
    return [[box for told in column[k] or () for box in _seen(_box(told, source.keys[k]), source, k)] for k in rows]


def _box(told: Any, key: str) -> Box:
    try:
        x0, y0, x1, y1, text = told
        box = Box(float(x0), float(y0), float(x1), float(y1), text)
        fits = isinstance(text, str) and text.strip() and 0 <= box.x0 < box.x1 <= 1 and 0 <= box.y0 < box.y1 <= 1
    except (TypeError, ValueError, OverflowError):
        fits = False
    if not fits:
        raise SfumatoError(
            f"{key!r}: the column boxes holds {told!r:.80}: write lists of [x0, y0, x1, y1, text], the edges in fractions "
            "of the picture's sides, left before right and top before bottom"
        )
    return box


def _seen(box: Box, source: Source, row: int) -> tuple[Box, ...]:
    size = (0, 0) if source.sizes is None else tuple(source.sizes[row].tolist())
    if not all(size):
        return (box,)
    left, top, right, bottom = inside(size, source.shapes[int(source.bucket[row])])
    sides = [(v * size[1] - left) / (right - left) for v in (box.x0, box.x1)]
    sides += [(v * size[0] - top) / (bottom - top) for v in (box.y0, box.y1)]
    x0, x1, y0, y1 = (min(1.0, max(0.0, side)) for side in sides)
    whole = (sides[1] - sides[0]) * (sides[3] - sides[2])
    return (Box(x0, y0, x1, y1, box.text),) if (x1 - x0) * (y1 - y0) >= SEEN * whole else ()


MADE: dict[str, Callable[[Controls, Tensor, Noise, Drawn | None], Slot]] = {
    "known": _known,
    "lowres": _lowres,
    "sketch": _sketch,
    "classes": _classes,
}


def _boxes(boxes: Sequence[Any] | None, n: int, shown: Tensor) -> Slot:
    if boxes is None:
        raise SfumatoError("the control boxes needs a column boxes: a list of [x0, y0, x1, y1, text] for each picture")
    try:
        told = [[Box(*map(float, b[:4]), str(b[4])) for b in row or ()] for row in boxes]
    except (TypeError, ValueError, IndexError, KeyError) as error:
        raise SfumatoError(f"the column boxes holds {boxes!r:.80}: write lists of [x0, y0, x1, y1, text]") from error
    slot = controls.boxes_slot([row if here else [] for row, here in zip(told, shown.tolist(), strict=True)])
    return Slot(slot.value, slot.role, slot.present())
