"""AI-made pictures in the data: which are marked, what their share is, and whether a run may use them."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from sfumato.core import SfumatoError
from sfumato.data.open import NAMES
from sfumato.data.picture import Unusable
from sfumato.data.progress import progress
from sfumato.data.records import open_records
from sfumato.data.source import Source

COLUMN = "ai_made"  # of the metadata
YES, NO = ("true", "yes", "1"), ("false", "no", "0", "")
NAMED = 3  # files that a refusal names


def ai_marks(source: Source) -> Tensor:
    """Which pictures are marked as AI-made, bool [N]: by the column "ai_made" (true/false, yes/no, 1/0; missing is no).

    Raises SfumatoError naming the picture when the column holds something else.
    """
    values = source.columns.get(COLUMN)
    if values is None:
        return torch.zeros(len(source), dtype=torch.bool)
    return torch.tensor([_marked(v, key) for v, key in zip(values, source.keys, strict=True)], dtype=torch.bool)


def _marked(value: Any, key: str) -> bool:
    word = "" if value is None else str(value).strip().lower()
    if word not in YES + NO:
        raise SfumatoError(f"{key!r} has {COLUMN} = {value!r} in the metadata; write true or false")
    return word in YES


def with_declared(source: Source, where: str | os.PathLike[str]) -> Source:
    """The source with what the picture files of `where` declare themselves joined to its column "ai_made".

    Only declarations count (C2PA, IPTC digital source type, parameters that generators write, our own mark); nothing is
    guessed from pixels. Named sources have no files and stay as they are.
    """
    from sfumato.data.audit.declared import claim

    if str(where).partition(":")[0] in NAMES:
        return source
    records = open_records(where)
    place = {key: row for row, key in enumerate(records.keys)}
    marks = ai_marks(source).tolist()
    for k, key in enumerate(progress(source.keys, len(source), "reading declarations")):
        try:
            found = None if marks[k] or key not in place else claim(records[place[key]].read())
        except Unusable:  # was readable a moment ago: whatever it declared is no longer there to read
            found = None
        marks[k] = marks[k] or (found is not None and found.made)
    return replace(source, columns={**source.columns, COLUMN: marks}) if any(marks) else source


@dataclass(frozen=True)
class Policy:
    """What a run does about AI-made pictures: `refuse` them, or let them be at most the share `cap` of what it sees."""

    refuse: bool = False
    cap: float = 1.0

    def __str__(self) -> str:
        return "refuse" if self.refuse else "allow" if self.cap == 1 else f"cap={self.cap:g}"

    def check(self, source: Source) -> None:
        """Raise SfumatoError with the count and the first names when the source holds what is refused."""
        rows = ai_marks(source).nonzero()[:, 0].tolist()
        if self.refuse and rows:
            names = ", ".join(repr(source.keys[k]) for k in rows[:NAMED]) + (", ..." if len(rows) > NAMED else "")
            raise SfumatoError(
                f"{len(rows)} of {len(source)} pictures of {source.name} are marked as AI-made and --ai-made is refuse: "
                f"{names}; take them out, or give --ai-made cap=0.2 or allow"
            )


def parse_policy(text: str) -> Policy:
    """What --ai-made says: refuse, allow, or cap=SHARE with a share of 0 ... 1."""
    if text in ("refuse", "allow"):
        return Policy(refuse=text == "refuse")
    name, _, value = text.partition("=")
    try:
        cap = float(value)
    except ValueError:
        cap = -1.0
    if name != "cap" or not 0 <= cap <= 1:
        raise SfumatoError(f"--ai-made {text!r}: write refuse, allow, or cap=SHARE with a share of 0 ... 1")
    return Policy(cap=cap)
