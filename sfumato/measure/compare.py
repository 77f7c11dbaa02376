"""What a comparison's results say: quality, stability, whether losses mean something, speed, and who wins where."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from sfumato.measure.duel import LOSSES
from sfumato.measure.ranks import Spread, interval, spearman
from sfumato.measure.words import number

NAMES = {"diffusion": "diffusion", "gan": "the GAN", "vae": "the VAE"}
# what is measured: (name, whether less is better)
SCORES = {
    "kid": ("kernel distance (KID)", True),
    "fd": ("Fréchet distance", True),
    "precision": ("precision", False),
    "recall": ("recall", False),
    "density": ("density", False),
    "coverage": ("coverage", False),
    "pictures_per_second": ("pictures drawn per second", False),
}
WORSENED = 2.0  # times its own best KID along training, from which on a run counts as having worsened

Run = Mapping[str, Any]


def _value(run: Run, key: str) -> float | None:
    """A score of one run at the end; None for a run that diverged."""
    if run["diverged"] is not None:
        return None
    return run["pictures_per_second"] if key == "pictures_per_second" else run["final"].get(key)


def _paired(runs: Sequence[Run], key: str, a: str, b: str) -> list[float]:
    """Differences a - b of the seeds that both finished."""
    by = {(run["contender"], run["seed"]): _value(run, key) for run in runs}
    seeds = sorted({run["seed"] for run in runs})
    pairs = [(by.get((a, seed)), by.get((b, seed))) for seed in seeds]
    return [x - y for x, y in pairs if x is not None and y is not None]


def worsened(run: Run) -> bool:
    """Whether the last KID of a run is at least twice its best, beyond three standard errors."""
    rows = [row for row in run["rows"] if "kid" in row]
    if len(rows) < 2:
        return False
    best = min(rows, key=lambda row: row["kid"])
    last = rows[-1]
    beyond = 3 * math.hypot(last["kid_se"], best["kid_se"])
    return last["kid"] > WORSENED * max(best["kid"], 0.0) and last["kid"] - best["kid"] > beyond


def correlation(run: Run, loss: str) -> float | None:
    """Rank correlation of a loss with KID along one run: 1 when the loss orders the model's states as KID does."""
    rows = [row for row in run["rows"] if loss in row and "kid" in row]
    return spearman([row[loss] for row in rows], [row["kid"] for row in rows])


def _shown(found: Spread | None) -> dict[str, Any] | None:
    return None if found is None else {"mean": found.mean, "half": found.half}


def summary(runs: Sequence[Run]) -> dict[str, Any]:
    """Facts per contender, JSON-able: scores with 95 % intervals over seeds, failures, correlations, figures.

    runs: results of `duel.results`. A diverged run enters no mean; it is counted under "diverged".
    """
    told: dict[str, Any] = {}
    for name in [name for name in LOSSES if any(run["contender"] == name for run in runs)]:
        own = [run for run in runs if run["contender"] == name]
        facts: dict[str, Any] = {
            "runs": len(own),
            "diverged": sum(run["diverged"] is not None for run in own),
            "worsened": sum(worsened(run) for run in own),
            "parameters": own[0]["parameters"],
            "trained_parameters": own[0]["trained_parameters"],
            "images": round(sum(run["images"] for run in own) / len(own)),
            "seconds": sum(run["seconds"] for run in own) / len(own),
            "setting": own[0]["setting"],
        }
        for key in SCORES:
            values = [v for run in own if (v := _value(run, key)) is not None]
            facts[key] = {**_shown(interval(values)), "values": values} if values else None
        facts["loss_to_kid"] = {}
        for loss in LOSSES[name]:
            found = [v for run in own if (v := correlation(run, loss)) is not None]
            facts["loss_to_kid"][loss] = {**_shown(interval(found)), "values": found} if found else None
        last = [run["rows"][-1] for run in own if run["rows"]]
        figures = [k for k in ("gap", "d_gradient", "g_gradient", "penalty") if last and all(k in row for row in last)]
        facts["figures"] = {k: _shown(interval([row[k] for row in last])) for k in figures}
        told[name] = facts
    return told


def differences(runs: Sequence[Run], a: str = "diffusion", b: str = "gan") -> dict[str, Spread]:
    """Per score, how much more `a` has than `b`: mean over seeds that both finished, with its 95 % interval."""
    pairs = {key: _paired(runs, key, a, b) for key in SCORES}
    return {key: interval(found) for key, found in pairs.items() if found}


def _numbers(facts: Mapping[str, Any], key: str) -> str:
    found = facts[key]
    half = "" if found["half"] is None else f" ± {number(found['half'])}"
    return f"{number(found['mean'])}{half}"


def _listed(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def sentences(runs: Sequence[Run], modes: Sequence[Run] = ()) -> list[str]:
    """What the numbers say, the GAN's wins first among equals: nothing is claimed beyond the intervals."""
    facts, said = summary(runs), []
    found = differences(runs)
    ahead: dict[str, list[str]] = {"diffusion": [], "gan": []}
    open_: list[str] = []
    for key, gap in found.items():
        name, less = SCORES[key]
        winner = "diffusion" if (gap.mean < 0) == less and gap.mean != 0 else "gan"
        loser = "gan" if winner == "diffusion" else "diffusion"
        told = f"{name} ({_numbers(facts[winner], key)} against {_numbers(facts[loser], key)})"
        (ahead[winner] if gap.apart_from_zero else open_).append(told)
    seeds = len({run["seed"] for run in runs})
    for who, others in (("diffusion", "the GAN"), ("gan", "diffusion")):
        if ahead[who]:
            name = NAMES[who][0].upper() + NAMES[who][1:]
            said.append(f"{name} is ahead of {others} in {_listed(ahead[who])}.")
    if not ahead["gan"] and found:
        said.append("The GAN wins nowhere beyond the spread over seeds.")
    if open_:
        why = "one seed has no spread to judge by" if seeds < 2 else f"{seeds} seeds do not tell them apart"
        said.append(f"Not settled ({why}; the better is named first): {_listed(open_)}.")
    for name, one in facts.items():
        if one["diverged"]:
            left = one["runs"] - one["diverged"]
            said.append(
                f"{one['diverged']} of {one['runs']} runs of {NAMES[name]} diverged; its means are over {left}."
            )
        if one["worsened"]:
            said.append(
                f"{one['worsened']} of {one['runs']} runs of {NAMES[name]} ended at over {WORSENED:g} times their best KID."
            )
    said += _spread(facts) + _loss(facts) + _modes(modes)
    return said


def _spread(facts: Mapping[str, Any]) -> list[str]:
    parts = {}
    for name in ("diffusion", "gan"):
        values = ((facts.get(name) or {}).get("fd") or {}).get("values", [])
        if len(values) > 1:
            parts[name] = f"{number(min(values))} to {number(max(values))} for {NAMES[name]}"
    if len(parts) < 2:
        return []
    return [f"Fréchet distance over seeds runs from {' and from '.join(parts.values())}."]


def _loss(facts: Mapping[str, Any]) -> list[str]:
    said = []
    words = {
        ("diffusion", "validation_loss"): "diffusion's validation loss",
        ("gan", "d_loss"): "the discriminator's loss",
        ("gan", "g_loss"): "the generator's loss",
    }
    for (name, loss), text in words.items():
        found = (facts.get(name) or {"loss_to_kid": {}})["loss_to_kid"].get(loss)
        if found:
            half = "" if found["half"] is None else f" ± {found['half']:.2f}"
            said.append(f"{text} {found['mean']:.2f}{half}")
    if not said:
        return []
    return [f"Rank correlation with KID along training (1: the loss tells quality): {_listed(said)}."]


def mode_facts(modes: Sequence[Run]) -> dict[str, Any]:
    """Modes covered and KL to uniform per contender, with intervals over seeds."""
    told = {}
    for name in [name for name in LOSSES if any(run["contender"] == name for run in modes)]:
        own = [run for run in modes if run["contender"] == name]
        done = [run["final"] for run in own if run["diverged"] is None]
        told[name] = {"runs": len(own), "diverged": len(own) - len(done)}
        for key in ("modes", "kl", "outside"):
            values = [final[key] for final in done if final[key] is not None]
            told[name][key] = {**_shown(interval(values)), "values": values} if values else None
        told[name] |= {"of": done[0]["of"], "n": done[0]["n"]} if done else {}
    return told


def _modes(modes: Sequence[Run]) -> list[str]:
    parts = []
    for name, one in mode_facts(modes).items():
        if one["modes"]:
            parts.append(f"{_numbers(one, 'modes')} of {one['of']} by {NAMES[name]}")
        if one["diverged"]:
            parts.append(f"{one['diverged']} of {one['runs']} runs of {NAMES[name]} diverged")
    return [f"Modes of the stacked set that are made: {_listed(parts)}."] if parts else []
