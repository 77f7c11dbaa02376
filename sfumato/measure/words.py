"""What the curve and the numbers say, in plain sentences that claim no more than they show."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]

# Share of the way from noise to real pictures, on the logarithm of the Fréchet distance, and what we call it.
LEVELS = (
    (0.85, "almost like real pictures"),
    (0.55, "good"),
    (0.35, "recognisable, still rough"),
    (0.15, "first shapes"),
)


def way(metrics: Mapping[str, Any]) -> float | None:
    """Place between noise (0) and real pictures (1): log(noise / fd) / log(noise / floor); None where not defined."""
    try:
        noise, floor, here = (float(m["fd"]) for m in (metrics["noise"], metrics["floor"], metrics))
    except (KeyError, TypeError):  # too few pictures for the distance itself, or nothing measured
        return metrics.get("place")
    if not 0 < floor < noise or not 0 < here < math.inf:
        return None
    return min(1.0, max(0.0, math.log(noise / here) / math.log(noise / floor)))


def level(metrics: Mapping[str, Any]) -> str | None:
    """One of `LEVELS` (or "hardly better than noise") for a result of `measure`."""
    share = way(metrics)
    if share is None:
        return None
    return next((word for least, word in LEVELS if share >= least), "hardly better than noise")


def number(value: Any) -> str:
    """Three significant digits, thousands apart; "-" for nothing and for what is not finite."""
    if value is None or isinstance(value, float) and not math.isfinite(value):
        return "–"
    if isinstance(value, int) or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) >= 0.001 or value == 0 else f"{value:.1e}"


def duration(seconds: float) -> str:
    """Seconds as people say them: "48 s", "4 min 3 s", "2 h 5 min"."""
    s = round(seconds)
    if s < 60:
        return f"{s} s"
    return f"{s // 60} min {s % 60} s" if s < 3600 else f"{s // 3600} h {s % 3600 // 60} min"


def _series(history: Sequence[Row], key: str) -> tuple[list[float], list[Row]]:
    rows = [row for row in history if row.get(key) is not None]
    return [float(row[key]) for row in rows], rows


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _change(values: Sequence[float]) -> float:
    """Mean of the last quarter over the mean of the quarter before, minus 1."""
    quarter = max(1, len(values) // 4)
    return _mean(values[-quarter:]) / _mean(values[-2 * quarter : -quarter]) - 1


def _of_the_curve(history: Sequence[Row]) -> str:
    train, train_rows = _series(history, "loss")
    held, rows = _series(history, "validation_loss")
    for values, found in ((train, train_rows), (held, rows)):
        for value, row in zip(values, found, strict=True):
            if not math.isfinite(value):
                return (
                    f"Training diverged: the loss is no number from step {row['step']:,} on. Lower the learning rate."
                )
    if len(held) < 8:
        return "The run is too short to say anything about its curve."
    best = min(range(len(held)), key=held.__getitem__)
    rising = _mean(held[-2:]) > 1.03 * held[best] and best < 0.75 * len(held)
    if rising and _mean(train[-2:]) < train[min(best, len(train) - 1)]:
        return (
            f"Validation loss has risen since step {rows[best]['step']:,} while training loss fell: copying is likely. "
            "Stop there, or train on more pictures."
        )
    if rising:
        return f"Both losses have risen since step {rows[best]['step']:,}: the learning rate is probably too high."
    if _change(held) < -0.01:
        return "Validation loss was still falling when training ended: a longer run would help."
    fd, _ = _series(history, "fd")
    if len(fd) >= 4 and fd[-1] < 0.9 * fd[len(fd) // 2]:
        return f"The loss is flat, yet samples still improve (Fréchet distance {fd[len(fd) // 2]:.3g} to {fd[-1]:.3g})."
    return "The loss is flat: more time with this recipe will change little."


def _of_the_overlap(metrics: Mapping[str, Any]) -> list[str]:
    if metrics.get("precision") is None or metrics.get("recall") is None:
        return []
    floor = metrics.get("floor") or {}

    def beside(key: str) -> str:
        real = f" ({100 * floor[key]:.0f} for real ones)" if key in floor else ""
        return f"{100 * metrics[key]:.0f}{real}"

    told = [
        f"Of 100 generated pictures {beside('precision')} are like pictures of the data; "
        f"of 100 real pictures {beside('recall')} are within reach of the model."
    ]
    recall = metrics["recall"] / floor["recall"] if floor.get("recall") else None
    precision = metrics["precision"] / floor["precision"] if floor.get("precision") else None
    if recall is not None and precision is not None and recall < 0.6 and precision > recall + 0.2:
        told.append("It repeats itself: a part of the data is never made.")
    elif precision is not None and recall is not None and precision < 0.6 and recall > precision + 0.2:
        told.append("It is varied, but many pictures are unlike anything in the data.")
    return told


def verdict(history: Sequence[Row], metrics: Mapping[str, Any] | None) -> list[str]:
    """Sentences on how good the samples are, what they miss, and what the curve says of going on.

    history: rows with step, loss, validation_loss and, where measured, fd. metrics: a result of `measure`, or None.
    """
    told = []
    if metrics:
        word = level(metrics)
        if word:
            key, what = ("fd", "Fréchet distance") if metrics.get("fd") is not None else ("kid", "kernel distance")
            here, floor, noise = (number(m.get(key)) for m in (metrics, metrics["floor"], metrics["noise"]))
            told.append(
                f"The samples are {word}: {what} {here}, where real pictures get {floor} and pure noise {noise}."
            )
        told += _of_the_overlap(metrics)
        told += [f"Mind: {note}." for note in metrics.get("notes", ())]
    return told + ([_of_the_curve(history)] if history else [])
