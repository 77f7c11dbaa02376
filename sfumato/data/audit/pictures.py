"""Faults of single pictures, by rules on the statistics of one look."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np

from sfumato.data.audit.finding import Finding

BLANK_FLAT = 0.999  # share of pixels of one colour
BLANK_SPREAD = 1.0  # levels: standard deviation between the parts of a blank picture, where its noise is averaged out
DARK_P99 = 60  # levels: not even the lightest hundredth is lighter
DARK_P999 = 110  # nor are there lamps, as in a picture of a night
DARK_NOISE = 6  # levels: tones farther apart than this in the dark are a picture, however faint, and no blank
LIGHT_P01 = 170  # levels: not even the darkest hundredth is darker
LIGHT_P001 = 130  # nor are there thin dark lines, as in a drawing
SOFT, SOFT_SHARE, SOFT_LEAST = 0.30, 0.36, 0.20  # steepest step of an edge as a share of its rise; of the set's median
DETAIL = 3.0  # levels beyond a smooth slope
ASPECT = 2.8
TINY_SHARE, TINY_LEAST, TINY_MOST = 1 / 8, 16, 64


def faults(keys: list[str], rows: np.ndarray) -> Iterator[Finding]:
    """One finding per picture and fault; a blank picture is only called blank. rows: ROW [N], unread ones left out."""
    sides = np.minimum(rows["width"], rows["height"]).astype(float)
    long = np.maximum(rows["width"], rows["height"]) / np.maximum(sides, 1)
    middle = float(np.median(sides))
    least = min(middle / 2, min(max(middle * TINY_SHARE, TINY_LEAST), TINY_MOST))
    soft = _soft(rows["sharpness"])
    widest = max(ASPECT, 2 * float(np.median(long)))
    for k, key in enumerate(keys):
        row = rows[k]
        size = f"{row['width']}x{row['height']} pixels"
        if sides[k] < least:
            yield Finding(
                "tiny",
                (key,),
                f"{size}; half of the set has a shorter side of {middle:.0f} or more",
                "warning",
                "quarantine",
            )
        if long[k] > widest:
            yield Finding(
                "odd_aspect",
                (key,),
                f"{size}: {long[k]:.1f} to 1; a square crop keeps {1 / long[k]:.0%}",
                "warning",
                "quarantine",
            )
        tone = _tone(row)
        if tone is not None:
            yield Finding(tone[0], (key,), tone[1], "warning", "quarantine")
        if tone is None and 0 <= row["sharpness"] < soft:
            told = f"the steepest edges take {1 / row['sharpness']:.1f} pixels to rise (limit {1 / soft:.1f})"
            yield Finding("blurred", (key,), told, "warning", "quarantine")
        if row["alpha"]:
            yield Finding("alpha", (key,), "see-through pixels; training sees them on white", "warning", "convert")


def _soft(sharpness: np.ndarray) -> float:
    """The sharpness under which a picture of this set is blurred: photographs are softer than drawings."""
    judged = sharpness[sharpness >= 0]
    return min(SOFT, max(SOFT_LEAST, SOFT_SHARE * float(np.median(judged)))) if len(judged) else SOFT


def _tone(row: np.void) -> tuple[str, str] | None:
    dark = row["p99"] <= DARK_P99 and row["p999"] <= DARK_P999
    faint = dark and int(row["p999"]) - int(row["p001"]) > DARK_NOISE
    if row["flat"] >= BLANK_FLAT and row["spread"] < BLANK_SPREAD and not faint:
        return "blank", f"{row['flat']:.1%} of the pixels have one colour"
    if dark:
        return "dark", f"99 % of the pixels are no lighter than {row['p99']} of 255"
    if row["p01"] >= LIGHT_P01 and row["p001"] >= LIGHT_P001:
        return "blown_out", f"99 % of the pixels are at least {row['p01']} of 255, {row['clipped']:.0%} are pure white"
    if row["detail"] < DETAIL:
        return "low_information", f"nothing but a smooth surface: {row['detail']:.1f} levels of detail"
    return None


def modes(keys: list[str], rows: np.ndarray) -> Iterator[Finding]:
    """Pictures of another colour mode than most; one finding per mode."""
    counts = Counter(rows["mode"].tolist())
    if len(counts) < 2:
        return
    most = counts.most_common(1)[0][0]
    for mode, count in counts.items():
        if mode != most:
            files = tuple(k for k, m in zip(keys, rows["mode"].tolist(), strict=True) if m == mode)
            told = f"{count:,} of mode {mode.decode()} among {counts[most]:,} of mode {most.decode()}"
            yield Finding("mixed_modes", files, told, "warning", "convert")
