"""The tables of `rival`: diffusion beside the GAN, per set, with what the numbers say."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from benchmarks.data_tables import markdown
from sfumato.measure.compare import NAMES, SCORES
from sfumato.measure.compare_page import LOSS_NAMES, MODES, spread
from sfumato.measure.words import number

Data = dict[str, Any]


def _row(label: str, facts: Data, *keys: str) -> list[str]:
    """One number of every contender, found by its keys."""
    cells = []
    for one in facts.values():
        found: Any = one
        for key in keys:
            found = found[key]
        cells.append(spread(found) if found is None or isinstance(found, dict) else number(found))
    return [label, *cells]


def compared(data: Data) -> str:
    """Quality, stability, loss and speed of every set."""
    parts = []
    for one in data["comparisons"]:
        facts, ends = one["contenders"], (one["floor"], one["noise"])
        rows = [
            [*_row(label, facts, key), *(number(end.get(key)) for end in ends)] for key, (label, _) in SCORES.items()
        ]
        for key, label in (
            ("images", "pictures seen in training"),
            ("parameters", "weights of what is shipped"),
            ("trained_parameters", "weights trained"),
            ("diverged", "runs that diverged"),
            ("worsened", "runs that ended at over twice their best KID"),
        ):
            rows.append([*_row(label, facts, key), "", ""])
        head = ["", *(NAMES[name].removeprefix("the ") for name in facts), "real pictures", "noise"]
        losses = [
            f"{LOSS_NAMES[loss]} of {NAMES[name]} {spread(found)}"
            for name, own in facts.items()
            for loss, found in own["loss_to_kid"].items()
        ]
        told = " ".join(one["said"])
        about = (
            f"**{one['source']}**, {one['minutes']:g} minutes each on {one['threads']} threads, {one['seeds']} seeds, "
            f"{one['n']:,} pictures against {one['n_reference']:,}, {one['features']}:"
        )
        ranks = f"Rank correlation with KID along training: {'; '.join(losses)}."
        parts += [about, markdown(head, rows), ranks, told]
        if one["modes"]:
            parts.append(_modes(one))
    if data.get("tuning"):
        parts.append("The GAN's recipe was chosen by these trials on Fashion-MNIST:\n\n" + tuned(data))
    return "\n\n".join(parts) or "_Not measured yet: `python -m benchmarks.rival`._"


def _modes(one: Data) -> str:
    facts, real = one["modes"], one["modes_of_real"]
    rows = [[*_row(label, facts, key), number(real[key])] for key, label in MODES.items()]
    return markdown(["stacked set", *(NAMES[name].removeprefix("the ") for name in facts), "real pictures"], rows)


def tuned(data: Data) -> str:
    """How the GAN's recipe was chosen: Fréchet distance at the quarters of each trial."""
    rows = [
        [f"`{one['gan'] or 'default'}`", f"{one['minutes']:g}", f"{one['curve'][-1]['images']:,}"]
        + [number(row["fd"]) for row in one["curve"]]
        for one in data["tuning"]
    ]
    return markdown(["change", "minutes", "pictures seen", "FD at 1/4", "1/2", "3/4", "the end"], rows)


TABLES: dict[str, tuple[str, Callable[[Data], str]]] = {"rival": ("rival", compared)}
