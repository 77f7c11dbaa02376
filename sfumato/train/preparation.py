"""What a recipe does to the data before the network sees them, as facts for the run folder, the card and the user."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

from torch import Tensor

from sfumato.data import Source, Standard, balance
from sfumato.data.drawings import Area, listed
from sfumato.data.encoders import text_slot
from sfumato.data.hygiene import Policy, ai_marks
from sfumato.data.progress import progress
from sfumato.data.records import OWN, shown
from sfumato.data.standardise import normality
from sfumato.train.recipe import Recipe

MOST = 20_000  # training pictures that the normality of a standardised set is taken on


def noted(source: Source, recipe: Recipe, policy: Policy) -> Source:
    """The source with its summary saying: the AI-made share and the rule for it, and what balance and standardising do."""
    notes: dict[str, Any] = {"ai_made": _ai_made(source, recipe, policy)}
    if recipe.balance is not None:
        notes["balance"] = balance.told(recipe.balance, source)
    if recipe.standard is not None:
        notes["standard"] = _standard(source, recipe.standard)
    drawn = {name: int(source.own[name].here.sum()) for name in recipe.controls.drawn(source)}
    if drawn or recipe.controls.palette:
        notes["own"] = {"of": len(source), **drawn}
        notes["palette"] = {area.colour: area.name for area in recipe.controls.palette}
    unread = {OWN[name][1]: int(own.here.sum()) for name, own in source.own.items() if name not in drawn}
    if unread:
        notes["unread"] = unread
    return dataclasses.replace(source, notes={**source.notes, **notes})


def _ai_made(source: Source, recipe: Recipe, policy: Policy) -> dict[str, Any]:
    """Counts over all pictures; `drawn` is the share of what training shows the network."""
    marks = ai_marks(source)
    rows = source.train_index
    drawn = marks[rows].double().mean()
    if recipe.balance is not None:
        drawn = recipe.balance.weights(source, rows)[marks[rows]].sum()
    share = round(float(marks.double().mean()), 4)
    return {"pictures": int(marks.sum()), "share": share, "rule": str(policy), "drawn": round(float(drawn), 4)}


def _standard(source: Source, standard: Standard) -> dict[str, Any]:
    rows = source.train_index[:: max(1, -(-len(source.train_index) // MOST))]

    def parts() -> Iterator[Tensor]:
        for part in source.alike(rows, 1024):
            yield standard(source.batch(rows[part]).x0)

    return {"per": standard.per, **normality(parts)}


def read_ahead(source: Source, recipe: Recipe) -> None:
    """Have a frozen encoder read every caption that training will show, so that no time of training goes into it."""
    if recipe.encoder is None:
        return
    rows, versions = list(range(len(source))), range(recipe.encoder.variants)
    texts = dict.fromkeys(source.captions or ())
    if recipe.captions is not None:
        for v in versions:
            texts |= dict.fromkeys(recipe.worded(source, rows, None, [v] * len(rows)))
    for caption in progress(texts, len(texts), "reading captions"):
        text_slot(recipe.encoder, [caption], keep=True)


def lines(notes: dict[str, Any]) -> list[str]:
    """The facts in words, one a line; nothing where there is nothing to say."""
    said = []
    if "crop" in notes:
        said.append(f"the crop cuts away {notes['crop']:.1%} of the pixels")
    made = notes.get("ai_made")
    if made and made["pictures"]:
        said.append(
            f"AI-made: {made['pictures']:,} pictures ({made['share']:.1%}) are marked, rule {made['rule']}: "
            f"{made['drawn']:.1%} of what training sees"
        )
    if "balance" in notes:
        facts = notes["balance"]
        text = f"balance: a picture comes at most {facts['most_draws_of_one_picture']:g} times per pass"
        if "class_shares" in facts:
            shares, before = facts["class_shares"].values(), facts["class_shares_before"].values()
            text += f"; classes have {min(shares):.1%} ... {max(shares):.1%}, before {min(before):.1%} ... {max(before):.1%}"
        said.append(text)
    for name, count in notes.get("own", {}).items():
        if name != "of":
            said.append(f"{OWN[name][1]}: {count:,} of {notes['own']['of']:,} pictures have one of their own")
    if notes.get("palette"):
        palette = [Area(colour, name) for colour, name in notes["palette"].items()]
        said.append(f"classes: {len(palette)} of the palette {listed(palette)}")
    for folder, count in notes.get("unread", {}).items():
        said.append(f"{folder}: {count:,} are not read: add {_control(folder)} to --slots")
    for folder, lost in notes.get("without_picture", {}).items():
        said.append(f"{folder}: {lost['count']:,} belong to no picture, the first {shown(lost['first'][0])}")
    if "standard" in notes:
        facts = notes["standard"]
        numbers = ", ".join(f"{name} {_listed(facts[name])}" for name in ("skewness", "kurtosis", "ks"))
        said.append(f"standardised per {facts['per']}; distance from a normal by channel: {numbers}")
    return said


def _control(folder: str) -> str:
    return next(control for control, (_, own) in OWN.items() if own == folder)


def _listed(values: list[float]) -> str:
    return "/".join(f"{v:.2f}" for v in values)
