"""What a recipe does to the data before the network sees them, as facts for the run folder, the card and the user."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

from torch import Tensor

from sfumato.data import Source, Standard, balance
from sfumato.data.hygiene import Policy, ai_marks
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
    if "standard" in notes:
        facts = notes["standard"]
        numbers = ", ".join(f"{name} {_listed(facts[name])}" for name in ("skewness", "kurtosis", "ks"))
        said.append(f"standardised per {facts['per']}; distance from a normal by channel: {numbers}")
    return said


def _listed(values: list[float]) -> str:
    return "/".join(f"{v:.2f}" for v in values)
