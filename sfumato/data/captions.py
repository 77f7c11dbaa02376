"""Captions as training sees them: phrases shuffled, words and templates exchanged by the user's own rules."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from sfumato.core import Noise, SfumatoError
from sfumato.data.colours import NAMES as COLOURS
from sfumato.settings import from_dict

PLACE = "{}"  # where a template takes the caption
PROBABILITIES = (
    "drop", "shuffle", "swap", "template", "alternative", "colour_first", "alone", "leave", "joined", "filler"
)  # fmt: skip


@dataclass(frozen=True)
class Synonyms:
    """A phrase (words as they stand in captions, whatever their case) and what may stand in its place."""

    phrase: str
    others: tuple[str, ...]


@dataclass(frozen=True)
class Captions:
    """What happens to a caption, each time anew and alone of the rest.

    All but `keep` and `filler_words` are probabilities. `drop`: it is left empty; `alternative`: its first phrase (phrases
    are parted by commas) gives way to one of the picture's alternatives, such as its name in another language;
    `colour_first`: a phrase of colours alone ("red and white"), or every other time the first colour of it, moves before
    the first phrase, where that names no colour and was not exchanged; `alone`: all phrases but the first are left away, as
    in what people ask for; `leave`: a phrase, not the first, is left away;
    `swap`: for every occurrence of a phrase in `synonyms`, one of the others takes its place; `shuffle`: phrases change
    places, the first `keep` of them staying; `joined`: blanks stand between phrases instead of commas; `template`: the
    caption is put into one of `templates` (texts with one {}); `filler`: it is put amid up to `filler_words` words that
    show nothing, short texts as likely as long ones. They are done in this order. Nothing else is added. A missing caption
    stays missing.
    """

    drop: float = 0.0
    shuffle: float = 0.0
    keep: int = 0
    swap: float = 0.5
    synonyms: tuple[Synonyms, ...] = ()
    template: float = 0.5
    templates: tuple[str, ...] = ()
    alternative: float = 0.0
    colour_first: float = 0.0
    alone: float = 0.0
    leave: float = 0.0
    joined: float = 0.0
    filler: float = 0.0
    filler_words: int = 300

    def __post_init__(self) -> None:
        for name in PROBABILITIES:
            if not 0 <= getattr(self, name) <= 1:
                raise SfumatoError(f"captions: {name} must lie in 0 ... 1, not {getattr(self, name)!r}")
        if self.keep < 0:
            raise SfumatoError(f"captions: keep must be 0 or more phrases, not {self.keep}")
        if self.filler_words < 1:
            raise SfumatoError(f"captions: filler_words must be 1 or more, not {self.filler_words}")
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

    def change(self, caption: str, noise: Noise, alternatives: Sequence[str] = ()) -> str:
        """One caption, changed as the single stream of `noise` says."""
        if not caption.strip():
            return ""
        drop, mix, dress, which = noise.at(0).uniform((1, 4))[0].tolist()
        if drop < self.drop:
            return ""
        other, choice, colour, joined, filler, length, place, alone = noise.at(3).uniform((1, 8))[0].tolist()
        if other < self.alternative and alternatives:
            first, comma, rest = caption.partition(",")
            caption = alternatives[int(choice * len(alternatives))] + comma + rest
        elif colour < self.colour_first:
            caption = _colour_first(caption, alone=colour < self.colour_first / 2)
        if alone < self.alone:
            caption = (_phrases(caption) or [caption])[0]
        if self.leave > 0:
            caption = self._thinned(caption, noise.at(4))
        if self.synonyms:
            caption = self._swapped(caption, noise.at(1))
        if mix < self.shuffle:
            caption = self._shuffled(caption, noise.at(2))
        if joined < self.joined:
            caption = " ".join(_phrases(caption))
        if self.templates and dress < self.template:
            caption = self.templates[int(which * len(self.templates))].replace(PLACE, caption)
        if filler < self.filler:
            words = _filler(round(self.filler_words**length), noise.at(5))
            before = round(place * len(words))
            caption = ". ".join(filter(None, (" ".join(words[:before]), caption, " ".join(words[before:]))))
        return caption

    def _thinned(self, caption: str, noise: Noise) -> str:
        first, *rest = _phrases(caption) or [caption]
        drawn = noise.uniform((1, len(rest)))[0].tolist()
        return ", ".join([first, *(p for p, u in zip(rest, drawn, strict=True) if u >= self.leave)])

    def _swapped(self, caption: str, noise: Noise) -> str:
        found = list(self._pattern.finditer(caption))
        drawn = noise.uniform((1, 2 * len(found)))[0].reshape(-1, 2).tolist() if found else []
        for match, (whether, which) in reversed(list(zip(found, drawn, strict=True))):
            if whether < self.swap:
                others = self._others[match[0].lower()]
                caption = caption[: match.start()] + others[int(which * len(others))] + caption[match.end() :]
        return caption

    def _shuffled(self, caption: str, noise: Noise) -> str:
        phrases = _phrases(caption)
        kept, moved = phrases[: self.keep], phrases[self.keep :]
        if len(moved) < 2:
            return caption
        places = noise.uniform((1, len(moved)))[0].argsort().tolist()
        return ", ".join([*kept, *(moved[k] for k in places)])

    def changed(
        self, captions: Sequence[str], noise: Noise, alternatives: Sequence[Sequence[str] | str | None] | None = None
    ) -> list[str]:
        """B captions, changed; caption k depends on its own stream of `noise` alone.

        `alternatives`: for each what may stand in place of its first phrase.
        """
        changed = []
        for k, (caption, seed) in enumerate(zip(captions, noise.seeds, strict=True)):
            others = (alternatives[k] if alternatives else None) or ()
            others = (others,) if isinstance(others, str) else others
            if not isinstance(others, Sequence) or not all(isinstance(other, str) for other in others):
                raise SfumatoError(f"captions: the column alternatives holds {others!r}; write a list of texts")
            changed.append(self.change(caption, Noise([seed]), others))
        return changed


def _phrases(caption: str) -> list[str]:
    return [p.strip() for p in caption.split(",") if p.strip()]


def _colours(phrase: str) -> list[str]:
    """The colours of a phrase of colours alone; [] for another."""
    words = [w for w in phrase.split() if w != "and"]
    return words if all(w in COLOURS for w in words) else []


def _colour_first(caption: str, alone: bool) -> str:
    """ "apple, fruit, red and white" -> "red and white apple, fruit", or with one colour alone; itself where none fits."""
    phrases = _phrases(caption)
    found = next((p for p in phrases[1:] if _colours(p)), None)
    if found is None or set(phrases[0].split()) & set(COLOURS):
        return caption
    told = _colours(found)[0] if alone else found
    return ", ".join([f"{told} {phrases[0]}", *(p for p in phrases[1:] if p != found)])


def _filler(n: int, noise: Noise) -> list[str]:
    """n words that show nothing, every third one made up: a word that was never learned shows nothing either."""
    drawn = noise.uniform((1, n * (2 + SYLLABLES)))[0].reshape(n, -1).tolist()
    return [_made_up(rest) if kind < 1 / 3 else FILLER[int(u * len(FILLER))] for kind, u, *rest in drawn]


def _made_up(u: list[float]) -> str:
    parts = [CONSONANTS[int(v * len(CONSONANTS))] + VOWELS[int(v * 9973 % 1 * len(VOWELS))] for v in u]
    return "".join(parts[: 1 + int(u[0] * 7919 % 1 * len(parts))])


SYLLABLES = 4  # of a made-up word, at most
CONSONANTS = tuple("b c d f g h j k l m n p r s t v w z br ch cl dr fl gr pl qu sh sp st th tr".split())
VOWELS = tuple("a e i o u an en in on er ar or al el ing ed".split())
# words of letters and speeches, none of them a thing that can be drawn or a colour
FILLER = tuple(
    """about above according actually after again ago all almost already also although always among amount and another any
    anyway approximately around as ask aspect assume at average aware basically be because become been before begin being
    believe below better between beyond both briefly but by can case certain certainly choice clearly come compare concern
    consider consist continue could course current decide deeply define depend describe despite detail did difference
    difficult discuss do does done due during each easily either else end enough entire especially even eventually ever
    every exactly example except expect explain fact fairly few finally find first following for former forward from further
    general generally get give given go good great had happen hardly has have he hence her here his hope how however idea if
    imagine important in indeed instead intend into is issue it its itself just keep kind know lack last later least less let
    like likely little long lot made mainly make manner many matter may maybe me mean meanwhile might moment more moreover
    most mostly much must my namely near nearly necessary need neither never nevertheless next nice no nor not nothing notice
    now obvious occasion of often on once one only opinion or order other otherwise our ourselves out over own part
    particular past perhaps please point possible probably problem provide purpose quite rather reach really reason recently
    regard relate remain remember result said same say second see seem several shall she should similar simply since so some
    somehow sometimes soon still such suggest suppose sure take tell than thank that the their them then there therefore these
    they thing think this those though through thus to together too toward truly try two under understand unless until up
    upon us use useful usual usually various very via want was way we well were what whatever when where whether which while
    who whole whose why will wish with within without wonder word would yes yesterday yet you your""".split()
)


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
