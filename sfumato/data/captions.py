"""Captions as training sees them: phrases shuffled, words and templates exchanged by the user's own rules."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from sfumato.core import Noise, SfumatoError, Slot
from sfumato.data import text
from sfumato.settings import from_dict

PLACE = "{}"  # where a template takes the caption


@dataclass(frozen=True)
class Synonyms:
    """A phrase (words as they stand in captions, whatever their case) and what may stand in its place."""

    phrase: str
    others: tuple[str, ...]


@dataclass(frozen=True)
class Captions:
    """What happens to a caption, each time anew and alone of the rest.

    `drop`: probability that it is left empty; `shuffle`: that its phrases (parted by commas) change places, the first
    `keep` of them staying; `swap`: for every occurrence of a phrase in `synonyms`, that one of the others takes its
    place; `template`: that the caption is put into one of `templates` (texts with one {}). Order: synonyms, shuffle,
    template. Nothing is added that the rules do not hold. A missing caption stays missing.
    """

    drop: float = 0.0
    shuffle: float = 0.0
    keep: int = 0
    swap: float = 0.5
    synonyms: tuple[Synonyms, ...] = ()
    template: float = 0.5
    templates: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("drop", "shuffle", "swap", "template"):
            if not 0 <= getattr(self, name) <= 1:
                raise SfumatoError(f"captions: {name} must lie in 0 ... 1, not {getattr(self, name)!r}")
        if self.keep < 0:
            raise SfumatoError(f"captions: keep must be 0 or more phrases, not {self.keep}")
        for entry in self.synonyms:
            if not entry.phrase.strip() or not entry.others:
                raise SfumatoError(f"captions: the synonyms of {entry.phrase!r} need a phrase and at least one other")
        for template in self.templates:
            if template.count(PLACE) != 1:
                raise SfumatoError(f"captions: the template {template!r} needs exactly one {PLACE}")

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        # the longest first, so that "black cat" is found before "cat"
        phrases = sorted((entry.phrase for entry in self.synonyms), key=len, reverse=True)
        return re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, phrases))})(?!\w)", re.IGNORECASE)

    @cached_property
    def _others(self) -> dict[str, tuple[str, ...]]:
        return {entry.phrase.lower(): entry.others for entry in self.synonyms}

    def change(self, caption: str, noise: Noise) -> str:
        """One caption, changed as the single stream of `noise` says."""
        if not caption.strip():
            return ""
        drop, mix, dress, which = noise.at(0).uniform((1, 4))[0].tolist()
        if drop < self.drop:
            return ""
        if self.synonyms:
            caption = self._swapped(caption, noise.at(1))
        if mix < self.shuffle:
            caption = self._shuffled(caption, noise.at(2))
        if self.templates and dress < self.template:
            caption = self.templates[int(which * len(self.templates))].replace(PLACE, caption)
        return caption

    def _swapped(self, caption: str, noise: Noise) -> str:
        found = list(self._pattern.finditer(caption))
        drawn = noise.uniform((1, 2 * len(found)))[0].reshape(-1, 2).tolist() if found else []
        for match, (whether, which) in reversed(list(zip(found, drawn, strict=True))):
            if whether < self.swap:
                others = self._others[match[0].lower()]
                caption = caption[: match.start()] + others[int(which * len(others))] + caption[match.end() :]
        return caption

    def _shuffled(self, caption: str, noise: Noise) -> str:
        phrases = [p.strip() for p in caption.split(",") if p.strip()]
        kept, moved = phrases[: self.keep], phrases[self.keep :]
        if len(moved) < 2:
            return caption
        places = noise.uniform((1, len(moved)))[0].argsort().tolist()
        return ", ".join([*kept, *(moved[k] for k in places)])

    def __call__(self, captions: Sequence[str], noise: Noise) -> Slot:
        """B captions -> the slot "text"; caption k depends on its own stream of `noise` alone."""
        changed = [self.change(c, Noise([s])) for c, s in zip(captions, noise.seeds, strict=True)]
        longest = max((len(text.words(c)) for c in changed), default=0)
        ids, mask = text.encode(changed, min(max(longest, 1), text.LENGTH))
        return Slot(ids, "tokens", mask)


def read(path: str | Path) -> Captions:
    """Rules from a JSON file with the fields of `Captions`, the synonyms as {"phrase": ["other", ...]}.

    Raises SfumatoError naming what is wrong.
    """
    try:
        told = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise SfumatoError(f"{path}: the caption rules cannot be read as JSON ({error})") from error
    if not isinstance(told, dict):
        raise SfumatoError(f'{path}: caption rules are an object such as {{"shuffle": 0.5}}')
    return from_rules(told, str(path))


def from_rules(told: dict[str, Any], where: str) -> Captions:
    """The rules of a JSON object; raises SfumatoError naming the field that does not fit."""
    synonyms = told.get("synonyms", {})
    if not isinstance(synonyms, dict):
        raise SfumatoError(f'{where}: synonyms are an object such as {{"cat": ["kitten"]}}')
    listed = [{"phrase": phrase, "others": others} for phrase, others in synonyms.items()]
    return from_dict(Captions, {**told, "synonyms": listed}, where)
