"""People in a prompt: whose style it asks for, and who is only spoken of."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sfumato.data.english import ENGLISH
from sfumato.serve.wording import COMMA, JOINED, SPACE, STOP, Word, plain, sound
from sfumato.tasks.spelling import slips

LONGEST = 6  # words of a name as it may be typed
REACH = 14  # words behind "in the style of" that still belong to it
_COMMON = frozenset(ENGLISH)
_ENDING = ("esque", "ish", "like", "style", "styled", "inspired", "stil", "stijl")
_VERB = {
    "a",
    "an",
    "the",
    "his",
    "her",
    "their",
    "at",
    "in",
    "on",
    "outside",
    "outdoors",
    "with",
}  # he is painting a ...
_ARTICLE = {"a", "an", "any", "another", "this", "that", "some", "ein", "eine", "un", "une", "una", "uno", "um", "uma"}


@dataclass(frozen=True)
class Person:
    """Somebody of the lists; living unless a year of death is known."""

    name: str
    born: int | None = None
    died: int | None = None
    aliases: tuple[str, ...] = ()

    def years(self) -> str:
        if self.born is None:
            return "no year of death is known" if self.died is None else f"died {self.died}"
        return f"born {self.born}" if self.died is None else f"{self.born} to {self.died}"


@dataclass(frozen=True)
class Spelling:
    """One way to write a person: folded words, and what they sound like."""

    person: Person
    words: tuple[str, ...]
    text: str
    heard: str
    whole: bool  # the full name, or one that stands for it wherever it stands


@dataclass(frozen=True)
class Found:
    """A person at words `first` ... `last` - 1 of a prompt, so many slips of the pen away."""

    person: Person
    first: int
    last: int
    slips: float
    whole: bool
    words: tuple[str, ...] = ()  # as the list writes it


def _counts(text: str) -> np.ndarray:
    """How often each letter stands in a text: int16 [32]."""
    return np.bincount([ord(c) % 32 for c in text], minlength=32).astype(np.int16)


class People:
    """A list of people that finds its names in windows of words, wrongly spelled too."""

    def __init__(self, people: Sequence[Person], given: Sequence[str] = (), ordinary: Sequence[str] = ()) -> None:
        self.ordinary = frozenset("".join(plain(phrase).split()) for phrase in ordinary)
        firsts = {plain(p.name).split()[0] for p in people if " " in p.name}
        self.given = frozenset(given) | {name for name in firsts if len(name) > 2 and name not in _COMMON}
        self.exact: dict[str, list[Spelling]] = {}
        self.every: list[Spelling] = []
        self.surnames: set[tuple[str, ...]] = set()  # that one is known by
        for person in people:
            for k, name in enumerate((person.name, *person.aliases)):
                words = tuple(plain(name).split())
                full = k == 0 or tuple(plain(person.name).split()[-len(words) :]) != words
                text = "".join(words)
                found = Spelling(person, words, text, sound(text), full)
                self.every.append(found)
                self.exact.setdefault(text, []).append(found)
                if k and words == tuple(plain(person.name).split()[-1:]):  # G. Rutkowski
                    self.surnames.add(words)
                    self.exact.setdefault(plain(person.name)[0] + text, []).append(found)
                if len(words) == 2:  # Sherman, Cindy
                    self.exact.setdefault(words[1] + words[0], []).append(found)
        self.unparted = [(p, name) for p in people for name in p.aliases if min(name) > "\u2e80"]
        self.letters = np.stack([_counts(s.text) for s in self.every] or [_counts("")])
        self.heard = np.stack([_counts(s.heard) for s in self.every] or [_counts("")])
        self.most = np.array([_most(len(s.text)) for s in self.every] or [-9])

    def at(self, window: Sequence[str], first: int) -> list[Found]:
        """Who these words may stand for, the nearest first."""
        text = "".join(window)
        last = first + len(window)
        apart = len(window) > 1 and all(w in _COMMON for w in window)  # put in a box is nobody's name
        exact = [s for s in self.exact.get(text, ()) if not (apart and len(s.words) == 1)]
        if exact:
            return [Found(s.person, first, last, 0.0, s.whole, s.words) for s in exact]
        if len(text) < 5 or text in self.ordinary or all(w in _COMMON for w in window):
            return []
        heard = sound(text)
        # a slip changes the letters by two at most: few names are left to be compared letter by letter
        near = (np.abs(self.letters - _counts(text)).sum(1) <= 2 * self.most) | (
            np.abs(self.heard - _counts(heard)).sum(1) <= 2 * self.most - 1
        )
        found = []
        for spelling in (self.every[k] for k in np.flatnonzero(near)):
            if not self._other(window, spelling):
                distance = _distance(text, heard, spelling)
                if distance is not None:
                    found.append(Found(spelling.person, first, last, distance, spelling.whole, spelling.words))
        return sorted(found, key=lambda f: f.slips)

    def _other(self, window: Sequence[str], spelling: Spelling) -> bool:
        """Tom Walker is not Tim Walker, Peter Lane not Peter Laird: a given name that is one is not misspelled, nor a short
        name twice."""
        names = spelling.words
        if len(window) == 1 and len(names) > 1 and sound(window[0]) == sound("".join(names[1:])):
            return True  # Templeton is not Ed Templeton
        if len(names) < 2 or len(window) != len(names):
            return False
        known = names[-1] == window[-1] and (names[-1],) in self.surnames  # Anne Leibovitz is nobody else
        if known and slips(window[0], names[0]) <= 2:
            return False
        stranger = window[0] in self.given and sound(window[0]) != sound(names[0])
        return stranger or not all(map(_near, window, names))


def _most(size: int) -> int:
    """Slips of the pen that a name of so many letters forgives."""
    return 1 if size < 10 else 2 if size < 16 else 3


def _near(word: str, other: str) -> bool:
    most = 1 if len(other) < 6 else 2
    if word == other or len(other) > 9 or abs(len(word) - len(other)) > most:
        return word == other or len(other) > 9
    return min(slips(word, other), slips(sound(word), sound(other))) <= most


def _distance(text: str, heard: str, spelling: Spelling) -> float | None:
    """How many slips of the pen lie between, or None where there are too many for a name of this length.

    One slip from 6 letters on, two from 10, three from 16; in shorter names only letters exchanged, and what is heard alike.
    Between two names heard alike lies half a slip.
    """
    name, size = spelling.text, len(spelling.text)
    if heard == spelling.heard:
        return 0.5
    if size < 7:
        if slips(text, name) != 1 or (text[0] != name[0] and sorted(text) != sorted(name)):
            return None
        return 1.0 if size == 6 or (size == 5 and sorted(text) == sorted(name)) else None
    if not spelling.whole and text[0] != name[0] and sorted(text) != sorted(name):
        return None
    count, alike = slips(text, name), slips(heard, spelling.heard)
    if count > _most(size) + 2 or min(count, alike) > _most(size):
        return None
    return min(count, alike + 0.5)


@dataclass(frozen=True)
class Forms:
    """The words by which a style is asked for, of all languages together."""

    before: frozenset[tuple[str, ...]]
    after: frozenset[tuple[str, ...]]
    works: frozenset[tuple[str, ...]]
    no: frozenset[tuple[str, ...]]
    between: frozenset[str]
    weak: frozenset[str]
    joins: frozenset[str]
    script: tuple[str, ...]

    @classmethod
    def of(cls, told: Mapping[str, Any]) -> Forms:
        languages = [value for value in told.values() if isinstance(value, Mapping)]

        def phrases(kind: str) -> frozenset[tuple[str, ...]]:
            return frozenset(tuple(p.split()) for language in languages for p in language.get(kind, ()))

        lists = {name: told.get(name, ()) for name in ("between", "weak", "and", "no")}
        return cls(
            phrases("before"),
            phrases("after"),
            phrases("works"),
            frozenset(tuple(p.split()) for p in lists["no"]),
            frozenset(lists["between"]),
            frozenset(lists["weak"]),
            frozenset(lists["and"]),
            tuple(p for language in languages for p in language.get("script", ())),
        )


class Styles:
    """Whose style the words of a prompt ask for."""

    def __init__(self, people: People, forms: Forms) -> None:
        self.people, self.forms = people, forms

    def in_script(self, prompt: str) -> tuple[Person, int, int] | None:
        """The living artist whose style is asked for in a script that parts no words, and where: X\u98a8."""
        for person, name in self.people.unparted:
            at = prompt.find(name)
            following = prompt[at + len(name) :].lstrip(" \u306e\u7684")
            if at >= 0 and person.died is None and following.startswith(self.forms.script):
                return person, at, at + len(name)
        return None

    def asked(self, words: Sequence[Word]) -> Found | None:
        """The first living artist whose style is asked for, or None."""
        for candidates in self._places(words):
            living = [f for f in candidates if f.person.died is None]
            dead = [f for f in candidates if f.person.died is not None]
            for found in sorted(living, key=lambda f: f.slips):
                if not any(d.slips <= found.slips and d.last - d.first >= found.last - found.first for d in dead):
                    return found
        return None

    def _places(self, words: Sequence[Word]) -> Iterator[list[Found]]:
        texts = [w.text for w in words]
        for i in range(len(words)):
            cue = self._cue(self.forms.before, texts, i, words)
            if cue and not any(texts[max(i + cue - len(no), 0) : i + cue] == list(no) for no in self.forms.no):
                yield from self._behind(words, texts, i, i + cue)
            if i and (cue := self._cue(self.forms.after, texts, i, words)):
                yield from self._before(words, texts, i, i + cue, False)
            elif i and (cue := self._cue(self.forms.works, texts, i, words)):
                yield from self._before(words, texts, i, i + cue, True)
            if i and texts[i - 1] in _ARTICLE and words[i].gap == SPACE and self._closes(words, texts, i + 1):
                yield self.people.at([texts[i]], i)  # it looks like a Banksy
            yield from self._stuck(texts, i)
        yield from self._tags(words, texts)

    @staticmethod
    def _cue(cues: frozenset[tuple[str, ...]], texts: list[str], i: int, words: Sequence[Word]) -> int:
        for size in (4, 3, 2, 1):
            if tuple(texts[i : i + size]) in cues and all(w.gap < COMMA for w in words[i + 1 : i + size]):
                return size
        return 0

    def _windows(self, words: Sequence[Word], texts: list[str], start: int) -> list[Found]:
        """Everybody whom words from `start` on may stand for."""
        found: list[Found] = []
        for last in range(start + 1, min(start + LONGEST, len(words)) + 1):
            if last - 1 > start and words[last - 1].gap > COMMA:
                break
            window = texts[start:last]
            found += self.people.at(window, start)
            for ending in _ENDING:  # Banksyesque
                if window[-1].endswith(ending) and len(window[-1]) - len(ending) >= 3:
                    found += self.people.at([*window[:-1], window[-1].removesuffix(ending)], start)
        return found

    def _behind(self, words: Sequence[Word], texts: list[str], cue: int, start: int) -> Iterator[list[Found]]:
        """By X; in the style of the famous painter X; by X, Y and Z."""
        strong = not (start - cue == 1 and texts[cue] in self.forms.weak)
        opened, named = True, False
        for q in range(start, min(start + REACH, len(words))):
            comma = words[q].gap == COMMA and q > start
            if words[q].gap == STOP:
                return
            if comma or (q > start and texts[q - 1] in self.forms.joins):
                opened = strong or named  # by the sea, X sitting: nobody has been named yet
            elif q > start:
                opened = opened and texts[q - 1] in self.forms.between
            if not opened:
                continue
            found = self._windows(words, texts, q)
            named = named or bool(found)
            if comma:
                found = [f for f in found if self._closes(words, texts, f.last)]
            if found:
                yield found

    def _closes(self, words: Sequence[Word], texts: list[str], last: int) -> bool:
        if last >= len(words) or words[last].gap >= COMMA or texts[last] in self.forms.joins:
            return True
        return (texts[last],) in self.forms.after or (texts[last],) in self.forms.works

    def _before(self, words: Sequence[Word], texts: list[str], cue: int, end: int, work: bool) -> Iterator[list[Found]]:
        """X style, X's painting style, X-esque; a work only where it is one: a X painting of ..., not X painting a wall."""
        if words[cue].gap > SPACE:
            return
        after = texts[end : end + 2]  # a manga page of ...
        following = after[0] if after and words[end].gap < COMMA else None
        lasts = [cue]
        for k in range(cue - 1, max(cue - 5, 0), -1):
            if words[k].gap > COMMA:
                break
            if texts[k] == "s" and words[k].gap == JOINED:  # X's distinctive brush style
                lasts.append(k)
            elif texts[k] in self.forms.joins:
                lasts.append(k)
        for last in lasts:
            found: list[Found] = []
            for first in range(max(last - LONGEST, 0), last):
                if any(w.gap > SPACE for w in words[first + 1 : last]) or texts[last - 1] == "s":
                    continue
                if work and not self._work(words, texts, first, following, after):
                    continue
                windows = [texts[first:last]]
                if last == cue and len(texts[last - 1]) > 3 and texts[last - 1].endswith("s"):  # Hockneys Stil
                    windows.append([*texts[first : last - 1], texts[last - 1][:-1]])
                for f in (f for window in windows for f in self.people.at(window, first)):
                    if f.whole or not (first and words[first].gap < COMMA and self._stranger(f, texts[first - 1])):
                        found.append(f)
            if found:
                yield found

    def _work(
        self, words: Sequence[Word], texts: list[str], first: int, following: str | None, after: list[str]
    ) -> bool:
        if following in _VERB:
            return False
        if "of" in after:
            return True
        article = first > 0 and texts[first - 1] in _ARTICLE and words[first].gap < COMMA
        return article or (following is None and words[first].gap >= COMMA)

    def _stranger(self, found: Found, before: str) -> bool:
        """Emily Hockney is not David Hockney."""
        return before in self.people.given and before != plain(found.person.name).split()[0]

    def _stuck(self, texts: list[str], i: int) -> Iterator[list[Found]]:
        """bygregrutkowski, davidhockneystyle: form and name in one word."""
        word = texts[i]
        if len(word) < 8:
            return
        for form in ("inthestyleof", "styleof", "styledafter", "inspiredby", "paintedby", "artby", "by"):
            if form in word and (rest := word.split(form, 1)[1]):
                if found := [f for f in self.people.at([rest], i) if f.whole or len(rest) > 5]:
                    yield found
        for ending in _ENDING:
            if word.endswith(ending) and (found := self.people.at([word.removesuffix(ending)], i)):
                yield found

    def _tags(self, words: Sequence[Word], texts: list[str]) -> Iterator[list[Found]]:
        """A castle, oil on canvas, X: a name that stands alone between commas, but not first, where it is what is shown."""
        starts = [k for k, w in enumerate(words) if w.gap >= COMMA or (k and texts[k - 1] == "and")]
        for k, start in enumerate(starts):
            last = starts[k + 1] if k + 1 < len(starts) else len(words)
            if last - start > 1 and texts[last - 1] == "and":
                last -= 1
            weighted = last < len(words) and texts[last].isdecimal()  # (X:1.2)
            if 0 < last - start <= LONGEST and (start or weighted or last == len(words)):
                if any(w.gap >= COMMA for w in words[start + 1 : last]):
                    continue
                if found := self.people.at(texts[start:last], start):
                    yield found


def spoken_of(people: People, words: Sequence[Word]) -> Found | None:
    """The first person of the list who is named at all, with at most one slip of the pen."""
    for first in range(len(words)):
        for last in range(first + 1, min(first + 5, len(words)) + 1):
            if any(w.gap > SPACE for w in words[first + 1 : last]):
                break
            window = [w.text for w in words[first:last]]
            for found in people.at(window, first):
                if last - first in (1, len(found.words)) and (found.slips == 0 or (found.whole and found.slips <= 1)):
                    return found
    return None
