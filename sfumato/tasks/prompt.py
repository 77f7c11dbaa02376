"""The prompt line: a text with options behind it, as people know them from chat bots.

`a red apple --ar 3:2 --no leaf, stem --seed 7`; `a {red,blue} apple` stands for two prompts; `\\{` is a brace.
"""

from __future__ import annotations

import difflib
import itertools
import re
from dataclasses import dataclass, fields

from sfumato.core import SfumatoError

MOST = 40  # prompts that one line may stand for
RANGES = {"seed": (0, 2**63 - 1), "chaos": (0, 100), "stylize": (0, 1000), "n": (1, 1000)}
_OPTION = re.compile(r"(?:^|\s)--([A-Za-z][\w-]*)(?=\s|$)")
_CHOICE = re.compile(r"(?<!\\)\{([^{}]*(?<!\\))\}")


@dataclass(frozen=True)
class Line:
    """What one prompt line asks for; None where it says nothing.

    `ar` (width, height) proportions; `chaos` 0 ... 100, how unlike each other the pictures may be; `stylize` 0 ... 1000,
    how closely they keep to the words; `no` what should not be seen.
    """

    text: str
    ar: tuple[int, int] | None = None
    seed: int | None = None
    no: str | None = None
    chaos: int | None = None
    stylize: int | None = None
    style: str | None = None
    n: int | None = None

    def __post_init__(self) -> None:
        for name, (low, high) in RANGES.items():
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                raise SfumatoError(f"--{name} takes a whole number from {low} to {high}, not {value}")


OPTIONS = tuple(f.name for f in fields(Line) if f.name != "text")
SHORT = {"c": "chaos", "s": "stylize", "aspect": "ar"}  # what people type too


def parse(line: str) -> tuple[Line, ...]:
    """All prompts that a line stands for, in the order of its choices; SfumatoError for an option that does not fit."""
    variants = _permuted(line)
    return tuple(_parsed(_unescaped(variant)) for variant in variants)


def _permuted(line: str) -> list[str]:
    parts = _CHOICE.split(line)  # every second one is what stood in braces
    choices = [[part] if k % 2 == 0 else [c.strip() for c in part.split(",")] for k, part in enumerate(parts)]
    total = 1
    for choice in choices:
        total *= len(choice)
    if total > MOST:
        raise SfumatoError(
            f"the choices in braces make {total:,} prompts; at most {MOST} are drawn at once: leave some away"
        )
    found = ["".join(picked) for picked in itertools.product(*choices)]
    if any(re.search(r"(?<!\\)[{}]", prompt) for prompt in found):
        raise SfumatoError("a brace has no partner: write {red,blue} for a choice, and \\{ for a brace itself")
    return list(dict.fromkeys(found))


def _unescaped(text: str) -> str:
    return text.replace("\\{", "{").replace("\\}", "}")


def _parsed(prompt: str) -> Line:
    marks = list(_OPTION.finditer(prompt))
    text = prompt[: marks[0].start()] if marks else prompt
    told: dict[str, object] = {}
    for mark, following in itertools.zip_longest(marks, marks[1:]):
        name, value = mark[1].lower(), prompt[mark.end() : following.start() if following else None].strip()
        name = SHORT.get(name, name)
        if name not in OPTIONS:
            near = difflib.get_close_matches(name, OPTIONS, n=1)
            hint = f"; did you mean --{near[0]}?" if near else ""
            raise SfumatoError(f"no prompt option --{name[:40]}{hint}; known: {', '.join('--' + o for o in OPTIONS)}")
        if name in told:
            raise SfumatoError(f"--{name} stands twice in the prompt: leave one away")
        told[name] = _value(name, value)
    return Line(text.strip(), **told)


def _value(name: str, value: str) -> object:
    if name in RANGES:
        if not re.fullmatch(r"[0-9]{1,19}", value):
            raise SfumatoError(
                "--{} takes a whole number from {} to {}, not {!r}".format(name, *RANGES[name], value[:40])
            )
        return int(value)
    if name == "ar":
        found = re.fullmatch(r"(\d{1,3})\s*[:x/]\s*(\d{1,3})", value)
        if found is None or not 0 < int(found[1]) <= 8 * int(found[2]) or int(found[2]) > 8 * int(found[1]):
            raise SfumatoError(f"--ar takes width:height such as 3:2, at most 8:1 either way, not {value[:40]!r}")
        return int(found[1]), int(found[2])
    if not value:
        raise SfumatoError(f"--{name} needs words behind it")
    return value
