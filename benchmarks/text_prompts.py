"""What the models are asked to draw: rows of the source, colours of objects, facts in long prompts, pictures to look at.

Everything is chosen by the source and a seed, before any picture is drawn; nothing is picked by its result.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from sfumato.core import Noise
from sfumato.data import Source
from sfumato.data import colours as measured
from sfumato.measure.faithful import PLACES, buried
from sfumato.measure.judge import meanings

SEED = 0
OBJECTS = (
    "apple", "balloon", "heart", "car", "ball", "book", "hat", "umbrella", "shoe", "dress", "bird", "fish", "flower",
    "house", "chair", "key", "bell", "star", "cup", "bag", "shirt", "bicycle", "butterfly", "kite", "cat", "dog",
    "guitar", "candle", "rocket", "boat", "train", "crayon",
)  # fmt: skip
# White and grey cannot be told from the white ground and from shading.
COLOURS = tuple(name for name in measured.NAMES if name not in ("white", "grey"))
# Everyday names for the first sheet; the first eight that the source has in every style and trained on are shown.
EVERYDAY = (
    "cat", "pizza", "rocket", "red apple", "guitar", "sunflower", "automobile", "house", "fish", "snowman", "umbrella",
    "hot beverage", "bicycle", "banana", "rainbow", "soccer ball", "mushroom", "cactus", "ghost", "elephant", "cherries",
    "crown", "penguin", "hamburger", "airplane", "star",
)  # fmt: skip
UNSEEN = (
    "a blue apple", "a cat wearing sunglasses", "a green car next to a tree", "a purple banana", "a pink elephant",
    "a dog on a bicycle", "a red house under a rainbow", "two yellow ducks", "a robot holding a flower",
    "a pizza with a smiling face", "a black and white butterfly", "an orange fish in a bowl", "a green heart on fire",
    "a snowman in the desert", "a penguin with an umbrella", "a blue guitar", "a rocket flying to the moon",
    "a cup of tea beside a book", "a sad sun behind a cloud", "a golden key", "a bear playing a trumpet",
    "a red balloon above a boat", "a white cat and a black cat", "a tree made of candy",
)  # fmt: skip
SHOWN_CAPTIONS, SHOWN_PAIRS = 8, 24


@dataclass(frozen=True)
class Asked:
    """Prompts with the style of each (None: not asked for), and what is known of them: rows of the source, or words."""

    prompts: list[str]
    styles: list[str | None]
    rows: Tensor | None = None
    about: dict[str, list[Any]] | None = None

    def __len__(self) -> int:
        return len(self.prompts)


def drawn(rows: Tensor, n: int) -> Tensor:
    """At most n of these rows at random, ascending."""
    order = Noise.of(SEED, 1).uniform((1, max(len(rows), 1)))[0, : len(rows)].argsort()
    return rows[order[:n]].sort().values


def style_of(source: Source, row: int) -> str | None:
    known = int(source.style_labels[row]) if source.styles else -1
    return source.styles[known] if known >= 0 else None


def of_rows(source: Source, rows: Tensor) -> Asked:
    """The caption and style of every row."""
    assert source.captions is not None
    chosen = rows.tolist()
    return Asked([source.captions[k] for k in chosen], [style_of(source, k) for k in chosen], rows)


def kinds(source: Source, n: int) -> dict[str, Asked]:
    """Captions that were trained on, and every kind of held-out rows, at most n of each."""
    found = {"seen": of_rows(source, drawn(source.train_index, n))}
    held = source.holdout.items()
    return found | {name: of_rows(source, drawn(rows, n)) for name, rows in held if len(rows)}


def name_of(meaning: str) -> str:
    return meaning.split(",")[0].strip()


def colours(source: Source, n: int) -> Asked:
    """About n prompts "COLOUR object": every colour of every object that the names in the source speak of."""
    said = meanings(source)
    spoken = {word for k in source.train_index.tolist() for word in name_of(said[k]).lower().split()}
    objects = [o for o in OBJECTS if o in spoken][: max(1, n // len(COLOURS))]
    pairs = [(colour, thing) for thing in objects for colour in COLOURS]
    about = {"colour": [c for c, _ in pairs], "object": [o for _, o in pairs]}
    return Asked([f"{c} {o}" for c, o in pairs], _by_turns(source, len(pairs)), None, about)


def plain(coloured: Asked) -> Asked:
    """The same prompts without the colour word: what colour comes by itself."""
    assert coloured.about is not None
    return Asked(list(coloured.about["object"]), list(coloured.styles), None, coloured.about)


def long(source: Source, n: int) -> dict[str, Asked]:
    """n names of pictures trained on, alone and buried at each of PLACES."""
    rows = drawn(source.train_index, n)
    said = [meanings(source)[k] for k in rows.tolist()]
    names, styles = [name_of(s) for s in said], [style_of(source, k) for k in rows.tolist()]
    asked = {"alone": Asked(names, styles, rows, {"said": said})}
    for place in PLACES:
        prompts = [buried(name, place, seed=k) for k, name in enumerate(names)]
        asked[f"word {place}"] = Asked(prompts, styles, rows, {"said": said})
    return asked


def _by_turns(source: Source, n: int) -> list[str | None]:
    return [source.styles[k % len(source.styles)] if source.styles else None for k in range(n)]


def shown_seen(source: Source) -> Asked:
    """Eight everyday names in every style, all of them trained on; where the source lacks them, names drawn at random."""
    trained: dict[str, set[str | None]] = {}
    said = meanings(source)
    for k in source.train_index.tolist():
        trained.setdefault(name_of(said[k]), set()).add(style_of(source, k))
    everywhere = [name for name, styles in trained.items() if len(styles - {None}) >= len(source.styles)]
    chosen = [name for name in EVERYDAY if name in everywhere][:SHOWN_CAPTIONS]
    rest = sorted(set(everywhere) - set(chosen))
    more = drawn(torch.arange(len(rest)), SHOWN_CAPTIONS - len(chosen)).tolist() if rest else []
    chosen += [rest[k] for k in more]
    styles: list[str | None] = list(source.styles) or [None]
    return Asked([name for name in chosen for _ in styles], styles * len(chosen))


def shown_pairs(source: Source) -> Asked:
    """24 held-out pairs, drawn at random; `about` has their names, as captions are long."""
    asked = of_rows(source, drawn(source.holdout.get("pairs", source.validation_index), SHOWN_PAIRS))
    return replace(asked, about={"name": [name_of(caption) for caption in asked.prompts]})


def shown_unseen(source: Source) -> Asked:
    """24 prompts that no caption holds, styles by turns."""
    return Asked(list(UNSEEN), _by_turns(source, len(UNSEEN)))
