"""Is the prompt obeyed: what a judge says of drawn pictures, beside what it says of real ones; colour words; long prompts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from sfumato.core import Noise, SfumatoError
from sfumato.data import Source, colours
from sfumato.measure.intervals import Interval
from sfumato.measure.judge import AMONG, Judge, meanings, shares

# Sentences about nothing that can be seen, to bury a fact in.
FILLER = (
    "It has often been said that nothing follows from this.",
    "Whoever reads on will learn why the matter was left there.",
    "Perhaps it should be added that opinions differed at the time.",
    "Some of it was written down, and most of it was not.",
    "What came before need not concern us any longer.",
    "In any case it would have been much the same.",
    "They agreed that this could wait until somebody asked again.",
    "Nobody remembers who was the first to mention it.",
    "As far as anyone knows, the question is still undecided.",
    "Further remarks of this kind may be skipped without loss.",
)
PLACES = (5, 100, 500, 1000)
LENGTH = 1050  # words of a long prompt, wherever the fact stands


def relative(made: Interval, real: float) -> Interval | None:
    """A share as a part of what real pictures get, which is taken as known; None where they get nothing."""
    return Interval(*(end / real for end in made)) if real > 0 else None


def faithfulness(judge: Judge, x0: Tensor, source: Source, rows: Tensor, seed: int = 0) -> dict[str, Any]:
    """How often drawn pictures show what was asked for.

    x0: [N, C, H, W] in [-1, 1], picture k drawn for the caption and style of row k of `rows`, int64 [N], of the source. The
    real pictures of the same rows are judged against the same other texts. Returns `first` (own text first among 50),
    `real`, `relative` = first / real, `style` and `real_style` (share judged to have the style asked for; None without
    styles), each with value, low, high (95 %, for as many independent pictures as there are different texts); `n`, `texts`,
    `among`, `chance`. Raises SfumatoError for pictures of another size or number and for NaN.
    """
    if len(x0) != len(rows):
        raise SfumatoError(f"{len(x0)} pictures were drawn for {len(rows)} captions: one for each is needed")
    said = meanings(source)
    own, among = [said[k] for k in rows.tolist()], min(AMONG, len(set(said)))
    real = source.batch(rows).x0
    first, of_real = (shares(judge.first(x, own, said, among, seed), own) for x in (x0, real))
    part = relative(first, of_real.value)
    found: dict[str, Any] = {"first": first._asdict(), "real": of_real._asdict()}
    found |= {"relative": None if part is None else part._asdict(), "style": None, "real_style": None}
    if source.styles:
        asked = source.style_labels[rows]
        for key, x in (("style", x0), ("real_style", real)):
            found[key] = shares(judge.style(x) == asked, own)._asdict()
    return found | {"n": len(rows), "texts": len(set(own)), "among": among, "chance": 1 / among}


def named(judge: Judge, x0: Tensor, names: Sequence[str], source: Source, seed: int = 0) -> Interval:
    """How often pictures [N, C, H, W] show what `names` [N] say, own text first among 50; names are texts of `meanings`."""
    said = meanings(source)
    return shares(judge.first(x0, names, said, min(AMONG, len(set(said))), seed), names)


def colours_obeyed(x0: Tensor, wanted: Sequence[str], of: Sequence[str]) -> tuple[Interval, Interval]:
    """How often the colour asked for is among those of the picture, and how often it is the first of them.

    A picture's colours are what the captions of icons would name (`sfumato.data.colours`): at most three, each at least a
    fifth of what is not white ground. x0: [N, 3, H, W]; wanted: a colour for each; of: the object each shows, for the
    interval.
    """
    pixels = x0.add(1).mul(127.5).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).numpy()
    found = [colours.named(share) for share in colours.shares(pixels, colours.inside(pixels))]
    among = torch.tensor([name in names for names, name in zip(found, wanted, strict=True)])
    first = torch.tensor([names[:1] == (name,) for names, name in zip(found, wanted, strict=True)])
    return shares(among, of), shares(first, of)


def buried(fact: str, place: int, seed: int = 0, length: int = LENGTH) -> str:
    """A prompt of `length` words, `fact` beginning at word `place` (from 1) and filler all round.

    Raises SfumatoError when it does not fit.
    """
    words = fact.split()
    if place < 1 or place - 1 + len(words) > length:
        raise SfumatoError(f"{len(words)} words cannot begin at word {place} of {length}")
    shortest = min(len(sentence.split()) for sentence in FILLER)
    drawn = Noise.of(seed, 1).uniform((1, math.ceil(length / shortest)))[0]
    filler = " ".join(FILLER[int(u * len(FILLER))] for u in drawn.tolist()).split()
    return " ".join([*filler[: place - 1], *words, *filler[place - 1 : length - len(words)]])
