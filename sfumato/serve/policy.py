"""What a server draws and what it refuses: rules in a file that its owner can read and change."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from PIL import Image

from sfumato.core import SfumatoError
from sfumato.data.records import shown
from sfumato.serve.names import Forms, Found, People, Person, Styles, spoken_of
from sfumato.serve.wording import COMMA, Word, glued, squeezed, words_of

OWN = Path(__file__).with_name("policy.json")
PARTS = ("artists", "figures", "forms", "given", "ordinary", "words", "together", "pictures")
LONGEST = 32_000  # signs of a prompt; the longest that any client may send

Classifier = Callable[[Image.Image], Mapping[str, float]]  # a picture -> how surely it is of each category, 0 ... 1
Phrase = tuple[str, ...]


@dataclass(frozen=True)
class Verdict:
    """What the rules say of one prompt or picture; `stage` is "input" or "output".

    A refusal names the `rule`, the `word` of the prompt that it is about, the `categories` (OpenAI's names where it has
    one) and a `message` for the user; when allowed they are None and empty.
    """

    allowed: bool
    rule: str | None = None
    word: str | None = None
    stage: str = "input"
    categories: tuple[str, ...] = ()
    message: str = ""


class Phrases:
    """Phrases and what excuses each, found by their first word."""

    def __init__(self, told: Mapping[str, Sequence[str]]) -> None:
        self.starts: dict[str, list[tuple[Phrase, tuple[Phrase, ...]]]] = {}
        for phrase, excuses in told.items():
            read = _phrase(phrase)
            self.starts.setdefault(read[0], []).append((read, tuple(_phrase(e) for e in excuses)))
        self.open = [start[:-1] for start in self.starts if start.endswith("*")]

    def said(self, words: Sequence[Word]) -> Iterator[tuple[int, int]]:
        """Where a phrase stands that nothing excuses: its first word, and the one behind its last."""
        texts = [w.text for w in words]
        short = [squeezed(t) for t in texts]
        for i, word in enumerate(texts):
            starts = {word, short[i], *(f"{s}*" for s in self.open if word.startswith(s) or short[i].startswith(s))}
            for phrase, excuses in (found for start in starts for found in self.starts.get(start, ())):
                if not (_stands(phrase, texts, i) or _stands(phrase, short, i)):
                    continue
                if any(w.gap >= COMMA for w in words[i + 1 : i + len(phrase)]):
                    continue
                near = range(max(i - 4, 0), i + len(phrase))
                if not any(k <= i < k + len(e) and _stands(e, texts, k) for e in excuses for k in near):
                    yield i, i + len(phrase)


@dataclass(frozen=True)
class Rules:
    """A policy as its file says it, read by `rules`."""

    told: Mapping[str, Any] = field(hash=False)

    @cached_property
    def styles(self) -> Styles:
        return Styles(self._people("artists"), Forms.of(self.told.get("forms") or {}))

    @cached_property
    def figures(self) -> People:
        return self._people("figures")

    @cached_property
    def words(self) -> dict[str, Phrases]:
        """Category -> its phrases, minors first."""
        told = self.told.get("words") or {}
        order = sorted(told, key=lambda category: category != "sexual/minors")
        return {c: Phrases({p: (said or {}).get("except", ()) for p, said in told[c].items()}) for c in order}

    @cached_property
    def together(self) -> dict[str, list[Phrases]]:
        """Category -> groups of phrases that are refused where one of each stands in the same prompt."""
        excuses = {
            p: said.get("except", ()) for words in (self.told.get("words") or {}).values() for p, said in words.items()
        }
        told = self.told.get("together") or {}
        return {c: [Phrases({p: excuses.get(p, ()) for p in group}) for group in groups] for c, groups in told.items()}

    def _people(self, part: str) -> People:
        given, ordinary = (self.told.get(name) or () for name in ("given", "ordinary"))
        listed = (self.told.get(part) or {}).items()
        people = [Person(n, p.get("born"), p.get("died"), tuple(p.get("aliases", ()))) for n, p in listed]
        return People(people, given, ordinary)


def rules(path: Path | str | None = None) -> Rules:
    """The package's rules, changed by those of the owner's file; SfumatoError for a file that is no policy.

    The file is a JSON merge patch (RFC 7396): objects are merged, null takes away, everything else replaces. With
    `"replace": true` it stands alone.
    """
    told = json.loads(OWN.read_text("utf-8"))
    if path is None:
        return Rules(told)
    try:
        changes = json.loads(Path(path).read_text("utf-8"))
    except OSError as error:
        raise SfumatoError(f"cannot read the policy {shown(path)}: {error.strerror or error}") from error
    except ValueError as error:
        raise SfumatoError(f"the policy {shown(path)} is no JSON: {error}") from error
    if not isinstance(changes, dict):
        raise SfumatoError(f"the policy {shown(path)} is a JSON object with any of {', '.join(PARTS)}")
    alone = changes.pop("replace", False)
    found = Rules(_merged({} if alone is True else told, changes))
    _checked(found, f"the policy {shown(path)}")
    return found


def check(prompt: str, rules: Rules) -> Verdict:
    """What the rules say of a prompt: the first rule that refuses it, words before people.

    Negative prompts are not asked for: leave them out. Raises SfumatoError for a prompt longer than any client may send.
    """
    if len(prompt) > LONGEST:
        raise SfumatoError(f"a prompt has at most {LONGEST:,} letters, not {len(prompt):,}")
    words = words_of(prompt)
    return _words(prompt, words, rules) or _people(prompt, words, rules) or Verdict(True)


def check_picture(image: Image.Image, rules: Rules, classifier: Classifier) -> Verdict:
    """What the rules say of a picture, by a classifier of the owner's choice: the first category above its limit refuses."""
    told = classifier(image)
    for category, limit in (rules.told.get("pictures") or {}).items():
        if told.get(category, 0.0) >= limit:
            message = (
                f"the picture was refused by the rule pictures.{category}: its classifier is {told[category]:.0%} sure "
                f"(the limit is {limit:.0%}); try other words or another seed"
            )
            return Verdict(False, f"pictures.{category}", None, "output", (category,), message)
    return Verdict(True, stage="output")


def _words(prompt: str, words: Sequence[Word], rules: Rules) -> Verdict | None:
    lines = [words, *((word,) for word in glued(prompt))]
    for category, groups in rules.together.items():
        spans = sorted(hit for group in groups if (hit := next(group.said(words), None)))
        if groups and len(spans) == len(groups):
            return _refused(prompt, words[spans[0][0]], words[spans[-1][1] - 1], category)
    for category, phrases in rules.words.items():
        for line in lines:
            for first, last in phrases.said(line):
                return _refused(prompt, line[first], line[last - 1], category)
    return None


def _refused(prompt: str, first: Word, last: Word, category: str) -> Verdict:
    word = prompt[first.start : last.end]
    message = f"refused by the rule words.{category}: {shown(word)!r} is a word it does not draw"
    return Verdict(False, f"words.{category}", word, "input", (category,), message)


def _stands(phrase: Phrase, texts: Sequence[str], i: int) -> bool:
    said = texts[i : i + len(phrase)]
    return len(said) == len(phrase) and all(
        w.startswith(p[:-1]) if p[-1] == "*" else w == p for p, w in zip(phrase, said, strict=True)
    )


def _phrase(text: str) -> Phrase:
    *before, last = _folded(text)
    return (*before, last + "*" * text.endswith("*"))


def _folded(text: str) -> list[str]:
    return [word.text for word in words_of(text)]


def _people(prompt: str, words: Sequence[Word], rules: Rules) -> Verdict | None:
    def said(found: Found) -> str:
        return prompt[words[found.first].start : words[found.last - 1].end]

    found = rules.styles.asked(words)
    script = None if found else rules.styles.in_script(prompt)
    if found or script:
        who, word = (found.person, said(found)) if found else (script[0], prompt[script[1] : script[2]])
        message = (
            f"refused by the rule artists: {shown(word)!r} asks for the style of {who.name}, a living artist "
            f"({who.years()}); describe the look instead, or name an artist who is dead"
        )
        return Verdict(False, "artists", word, "input", ("living-artist",), message)
    if found := spoken_of(rules.figures, words):
        who = found.person
        message = f"refused by the rule figures: {shown(said(found))!r} is {who.name}, a public figure"
        return Verdict(False, "figures", said(found), "input", ("public-figure",), message)
    return None


def _merged(old: Any, new: Any) -> Any:
    """RFC 7396."""
    if not isinstance(new, dict):
        return new
    out = dict(old) if isinstance(old, dict) else {}
    for key, value in new.items():
        if value is None:
            out.pop(key, None)
        else:
            out[key] = _merged(out.get(key), value)
    return out


def _checked(rules: Rules, who: str) -> None:
    """SfumatoError that says what is wrong, where the rules have not the shape of a policy."""
    told = rules.told
    if unknown := set(told) - set(PARTS):
        raise SfumatoError(f"{who}: no part {sorted(unknown)[0]!r}; the parts are {', '.join(PARTS)}")
    for part in ("artists", "figures"):
        for name, person in _object(told, part, who).items():
            ok = isinstance(person, dict) and set(person) <= {"born", "died", "aliases"} and name.strip()
            years = ok and all(isinstance(person.get(k, 0), int) for k in ("born", "died"))
            if not years or not _texts(person.get("aliases", [])) or not _folded(name):
                said = '{"born": YEAR, "died": YEAR, "aliases": [NAME, ...]}, each where it is known'
                raise SfumatoError(f"{who}: {part}: {name!r} is {said}")
    for category, listed in _object(told, "words", who).items():
        for word, said in (listed if isinstance(listed, dict) else {"": 0}).items():
            if not (
                isinstance(said, dict) and set(said) <= {"except"} and _texts(said.get("except", [])) and _folded(word)
            ):
                raise SfumatoError(
                    f'{who}: words: {category}: a word is "WORD": {{"except": [PHRASE, ...]}} or "WORD": {{}}'
                )
    for category, groups in _object(told, "together", who).items():
        if not isinstance(groups, list) or not all(_texts(group) and all(map(_folded, group)) for group in groups):
            raise SfumatoError(f"{who}: together: {category} is a list of lists of words")
    for language, form in _object(told, "forms", who).items():
        lists = form.values() if isinstance(form, dict) else [form]
        if not all(_texts(x) for x in lists):
            raise SfumatoError(f"{who}: forms: {language} holds lists of texts")
    for part in ("given", "ordinary"):
        if not _texts(told.get(part, [])):
            raise SfumatoError(f"{who}: {part} is a list of texts")
    for category, limit in _object(told, "pictures", who).items():
        if isinstance(limit, bool) or not isinstance(limit, (int, float)) or not 0 < limit <= 1:
            raise SfumatoError(f"{who}: pictures: {category} is a limit above 0 and at most 1")


def _object(told: Mapping[str, Any], part: str, who: str) -> Mapping[str, Any]:
    found = told.get(part, {})
    if not isinstance(found, dict):
        raise SfumatoError(f"{who}: {part} is a JSON object")
    return found


def _texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(x, str) for x in value)
