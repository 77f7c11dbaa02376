"""Prompts made more like the captions a model learned from, every change told: offline, by what the model was told."""

from __future__ import annotations

import difflib
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from sfumato.data.captions import FILLER
from sfumato.data.colours import NAMES as COLOURS
from sfumato.data.english import ENGLISH
from sfumato.data.text import words

LONG = 60  # words; a longer prompt is nobody's slip
SHORT = 4  # telling words; a prompt that has more is left as it is
ADDED = 3  # phrases of the nearest caption that a short prompt gets
ALIKE = 0.84  # of difflib's ratio: a word not known becomes the known one that is at least so near
_PLAIN = frozenset(
    (*FILLER, "a", "an", "the", "on", "at", "from", "style", "picture", "drawing", "icon", "emoji", "image")
)
_REAL = _PLAIN | frozenset(ENGLISH)  # no slips, whether a model knows them or not
LONGEST = 24  # letters of a word that may be a slip


@dataclass(frozen=True)
class Revised:
    """The new prompt, and a line for each thing that was changed."""

    text: str
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True)
class Reviser:
    """`revise(prompt, chance)` by the captions (phrases parted by commas, the name first) that a model learned from."""

    captions: tuple[str, ...]

    @cached_property
    def _known(self) -> Counter[str]:
        return Counter(w for caption in self.captions for w in set(words(caption)))

    @cached_property
    def _rows(self) -> list[tuple[set[str], set[str], list[str]]]:
        """Words of the name, all words, phrases of every caption."""
        rows = []
        for caption in self.captions:
            phrases = [p.strip() for p in caption.split(",") if p.strip()]
            if phrases:
                rows.append((set(words(phrases[0])), set(words(caption)), phrases))
        return rows

    def revise(self, prompt: str, chance: float = 0.0) -> Revised:
        """Spelling mended, and a short prompt completed by phrases of the nearest caption; nothing is taken away.

        `chance` in [0, 1) picks among captions and phrases that fit as well: other numbers, other pictures.
        """
        if not prompt.strip() or not self.captions or len(words(prompt)) > LONG:
            return Revised(prompt)
        text, reasons = self._spelled(prompt)
        telling = [w for w in words(text) if w.isalpha() and w not in _PLAIN]
        if 0 < len(telling) <= SHORT:
            more = self._more(set(telling), chance)
            if more:
                reasons.append(f"short, so completed as captions of such pictures read: {', '.join(more)}")
                text = ", ".join([text.rstrip(" .,"), *more])
        return Revised(text, tuple(reasons))

    def style(self, prompt: str, names: Sequence[str], rows: Sequence[int]) -> str | None:
        """The style of `names` that the prompt asks for: by its name ("noto style"), or by a phrase such as "flat style"
        that only captions of one style have (`rows`: the style of each caption). None where none or several are meant."""
        meant: dict[str, set[str]] = {f"{name} style": {name} for name in names}
        for caption, row in zip(self.captions, rows, strict=False):  # models of old tell no styles of captions
            for phrase in caption.split(","):
                if phrase.endswith(" style") and row >= 0:
                    meant.setdefault(phrase.strip(), set()).add(names[row])
        told = f" {' '.join(words(prompt))} "
        of = [styles for phrase, styles in meant.items() if f" {' '.join(words(phrase))} " in told]
        found = {style for styles in of for style in styles}
        return found.pop() if len(found) == 1 else None

    def _spelled(self, prompt: str) -> tuple[str, list[str]]:
        reasons = []
        for word in dict.fromkeys(words(prompt)):
            near = self._meant(word)
            if near is not None:
                prompt = _replaced(prompt, word, near)
                reasons.append(f"{word!r} read as {near!r}")
        return prompt, reasons

    def _meant(self, word: str) -> str | None:
        """The known word that this one is a slip of; None for a known or a plain English word, or where none is near.

        Of a word of up to five letters only doubled, missing and exchanged letters are mended, since too many such words
        are neighbours (snake, sake)."""
        if (
            not (4 <= len(word) <= LONGEST and word.isascii() and word.isalpha())
            or word in _REAL
            or word in self._known
        ):
            return None
        if not {word.rstrip("s"), word.removesuffix("ing"), word.removesuffix("ed")}.isdisjoint(self._known):
            return None
        alike = [w for w in self._known if w[0] == word[0] and abs(len(w) - len(word)) <= 2 and w.isalpha()]
        alike = [w for w in alike if len(word) > 5 or set(w) == set(word)]
        near = difflib.get_close_matches(word, alike, n=1, cutoff=ALIKE)
        return near[0] if near and near[0].rstrip("s") != word.rstrip("s") else None

    def _more(self, telling: set[str], chance: float) -> list[str]:
        """Phrases of the caption that shares most with the prompt, its name counting double."""
        total = len(self.captions)

        def worth(shared: set[str]) -> float:
            return sum(math.log(1 + total / self._known[w]) for w in shared)

        scored = [(worth(telling & name) + worth(telling & every), name, row) for name, every, row in self._rows]
        best = max((score for score, _, _ in scored), default=0.0)
        if best == 0 or not any(telling & name for score, name, _ in scored if score == best):
            return []  # no caption is of that thing
        rows = [row for score, _, row in scored if score == best]
        row = rows[int(chance * len(rows))]
        coloured = telling & set(COLOURS)
        new = [p for p in row[1:] if not set(words(p)) & telling and not (coloured and set(words(p)) & set(COLOURS))]
        new = [p for p in new if not p.endswith(" style")]
        first = int(chance * len(rows) % 1 * max(1, len(new) - ADDED + 1)) if len(new) > ADDED else 0
        return new[first : first + ADDED]


def _replaced(prompt: str, word: str, other: str) -> str:
    """The prompt with a word exchanged wherever it stands alone, whatever its case."""
    low, parts, at = prompt.lower(), [], 0
    if len(low) != len(prompt):  # a letter whose small form is longer: places would not fit
        return prompt
    while (found := low.find(word, at)) >= 0:
        end = found + len(word)
        alone = not (found and low[found - 1].isalnum()) and not (end < len(low) and low[end].isalnum())
        parts.append(prompt[at:found] + (other if alone else prompt[found:end]))
        at = end
    return "".join([*parts, prompt[at:]])
