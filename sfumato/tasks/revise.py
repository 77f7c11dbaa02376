"""Prompts made more like the captions a model learned from, every change told: offline, by what the model was told."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from sfumato.data.captions import FILLER
from sfumato.data.colours import NAMES as COLOURS
from sfumato.data.english import ENGLISH
from sfumato.data.text import words
from sfumato.tasks.spelling import meant

LONG = 60  # words; a longer prompt is nobody's slip
SHORT = 4  # telling words; a prompt that has more is left as it is
ADDED = 3  # phrases of a caption that a short prompt gets
_PLAIN = frozenset(
    (*FILLER, "a", "an", "the", "on", "at", "from", "style", "picture", "drawing", "icon", "emoji", "image")
)
_REAL = _PLAIN | frozenset(ENGLISH)  # no slips, whether a model knows them or not


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
        """Spelling mended, and a short prompt completed by phrases of a caption of the same thing; nothing is taken away.

        `chance` in [0, 1) picks among captions and phrases that fit as well: other numbers, other pictures.
        """
        if not prompt.strip() or not self.captions or len(words(prompt)) > LONG:
            return Revised(prompt)
        text, reasons = self._spelled(prompt)
        told = zip(words(text), [*words(text)[1:], ""], strict=True)
        telling = [w for w, after in told if w.isalpha() and w not in _PLAIN and after != "style"]
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
            near = None if word in _REAL or word in self._known else meant(word, self._known)
            if near is not None:
                prompt = _replaced(prompt, word, near)
                reasons.append(f"{word!r} read as {near!r}")
        return prompt, reasons

    def _more(self, telling: set[str], chance: float) -> list[str]:
        """Phrases of a caption of just this thing: its name says no more than the prompt, colours aside, and the prompt
        says nothing that is not in it."""
        asked, coloured = telling - set(COLOURS), telling & set(COLOURS)
        rows = [p for name, every, p in self._rows if asked & name and name - set(COLOURS) <= asked <= every]
        if not rows:
            return []
        told = rows[int(chance * len(rows))][1:]
        if chance == 0:  # what most captions of it say
            counts = Counter(p for row in rows for p in row[1:])
            told = [p for p, n in counts.most_common() if 2 * n > len(rows)]
        free = chance > 0 and not coloured  # else the colour is the user's, or left to the model's own chance
        new = [p for p in told if not set(words(p)) & telling and (free or not set(words(p)) & set(COLOURS))]
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
