"""How good is a set of generated pictures: every metric with its interval, beside what real pictures and noise get."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from torch import Tensor

from sfumato.core import Noise, SfumatoError
from sfumato.measure.intervals import Interval, Z, frechet_interval, kid_interval, manifold_intervals
from sfumato.measure.metrics import frechet_distance, kid, manifold
from sfumato.measure.words import way

FEWEST = 16  # under this many pictures no number means anything
OVERLAP_FEWEST = 50  # below, the ball to the 3rd neighbour is a ball to one in sixteen of the set
MANY = 5_000  # from here on the bias of the Fréchet distance is small, and it is the number others publish
NEIGHBOURS = 3
OVERLAP = ("precision", "recall", "density", "coverage")
TOLD = ("fd", "recall")  # one of each family of metrics that are refused together
SCORES = ("kid", "fd", "fd_corrected", *OVERLAP)


class Extractor(Protocol):
    """Anything that turns pictures x0 [B, C, H, W] in [-1, 1] into features [B, D], and has a name."""

    @property
    def name(self) -> str: ...

    def __call__(self, x0: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class Classes:
    """Classes of both sets, and of the real pictures of the floor: int64 [N], [M], [K] into `names`, -1 where unknown."""

    names: Sequence[str]
    generated: Tensor
    reference: Tensor
    real: Tensor | None = None


class Refused(NamedTuple):
    """Why a number is not given, and how many pictures would do on each side."""

    why: str
    enough: int


def metric_name(metric: str, extractor: str, n: int, reference: str, only: str | None = None) -> str:
    """The name of a number, with all that it depends on: `kid[classifier-emoji-32-v1,n=1000,ref=emoji/validation]`.

    `only`: the class it is of. Two numbers may be compared when their names agree.
    """
    if extractor.startswith("inception-fid"):  # the name everybody knows, and only for these weights
        metric = {"fd": "FID-Inception", "kid": "KID-Inception"}.get(metric, metric)
    return f"{metric}[{extractor},n={n},ref={reference}{'' if only is None else f',class={only}'}]"


def refusals(n: int, dimensions: int) -> dict[str, Refused]:
    """The metrics that n pictures on the smaller side cannot give, and why."""
    found = {}
    if n < 2 * dimensions:
        why = f"a covariance of {dimensions}-dimensional features needs {2 * dimensions} pictures on each side"
        found |= {key: Refused(why, 2 * dimensions) for key in ("fd", "fd_corrected")}
    if n < OVERLAP_FEWEST:
        why = (
            f"of so few pictures every one is a large share of the range of all: it takes {OVERLAP_FEWEST} on each side"
        )
        found |= {key: Refused(why, OVERLAP_FEWEST) for key in OVERLAP}
    return found


def _scores(seen: Tensor, reference: Tensor) -> dict[str, Interval]:
    frechet = frechet_interval(seen, reference)
    return {
        "kid": kid_interval(seen, reference),
        "fd": frechet.plain,
        "fd_corrected": frechet.corrected,
        **manifold_intervals(reference, seen, NEIGHBOURS),
    }


def _plain(seen: Tensor, reference: Tensor) -> dict[str, float]:
    """The numbers alone."""
    overlap = manifold(reference, seen, NEIGHBOURS)._asdict()
    return {"kid": kid(seen, reference).value, "fd": frechet_distance(seen, reference), **overlap}


def _short(scores: dict[str, Interval], refused: dict[str, Refused], n: int) -> dict[str, Any]:
    """Short keys: the numbers, None for those refused, and the error of KID."""
    told: dict[str, Any] = {key: None if key in refused else found.value for key, found in scores.items()}
    return {**told, "kid_se": (scores["kid"].high - scores["kid"].low) / (2 * Z), "n": n}


def check_pictures(pictures: Tensor, reference: Tensor) -> None:
    """Raise SfumatoError for sets that cannot be compared: too few, other sizes or colour modes, NaN."""
    for x, who in ((pictures, "generated"), (reference, "reference")):
        if len(x) < FEWEST:
            raise SfumatoError(
                f"{len(x)} {who} pictures say nothing: {FEWEST} are the least, 1000 or more give a steady number"
            )
        bad = (~x.flatten(1).isfinite().all(1)).sum()
        if bad:
            raise SfumatoError(f"{bad} of the {len(x)} {who} pictures hold NaN or infinite values: leave them out")
    (c, h, w), (d, i, j) = pictures.shape[1:], reference.shape[1:]
    if c != d:
        kinds = {1: "grey", 3: "colour"}
        raise SfumatoError(
            f"the generated pictures are {kinds.get(c, f'of {c} channels')}, the reference {kinds.get(d, f'of {d}')}: "
            "bring both to one colour mode"
        )
    if (h, w) != (i, j):
        raise SfumatoError(f"the generated pictures are {h}x{w}, the reference {i}x{j}: bring both to one size")


def measure(
    generated: Tensor,
    reference: Tensor,
    features: Extractor,
    real: Tensor | None = None,
    *,
    split: str = "reference",
    classes: Classes | None = None,
    halves: bool = False,
) -> dict[str, Any]:
    """Every metric of `generated` against `reference` with 95 % intervals, and the floor and ceiling of the same metrics.

    generated, reference: pictures [N, C, H, W] and [M, C, H, W] in [-1, 1]; the reference should not have been trained
    on. real: training pictures; with them "floor" holds the scores of min(N, len(real)) of them: what a perfect model would
    get; "noise" those of N pictures of pure noise. halves: without such pictures the floor is one half of the reference,
    drawn at random, against the other.
    split: what the reference is, for the names. classes: with them every class is scored alone.

    Returns kid, kid_se, fd, fd_corrected, precision, recall, density, coverage (None where refused), n, n_reference,
    features, headline ("kid" under 5,000 pictures, else "fd"), metrics: rows of name, key, value, low, high, floor,
    floor_low, floor_high; refused: key -> why and how many would do; classes: a row each; place, notes, floor, noise.

    Raises SfumatoError for fewer than 16 pictures on a side, for other sizes or colour modes and for NaN.
    """
    check_pictures(generated, reference)
    seen, made = features(reference), features(generated)
    few, wide = min(len(made), len(seen)), seen.shape[1]
    scores, refused = _scores(made, seen), refusals(few, wide)
    result: dict[str, Any] = _short(scores, refused, len(made))
    result |= {"n_reference": len(seen), "features": features.name, "headline": "kid" if few < MANY else "fd"}
    result |= {"refused": {key: r._asdict() for key, r in refused.items()}}
    result["notes"] = [f"{key} is not given: {r.why}, and there are {few}" for key, r in refused.items() if key in TOLD]
    floor: dict[str, Interval] = {}
    again, against = None, seen
    if real is not None:
        again = features(real[: len(generated)])
    elif halves and len(seen) >= 2 * FEWEST:
        order = Noise.of(0, 1).uniform((1, len(seen)))[0].argsort()
        again, against = seen[order[::2]], seen[order[1::2]]
    if again is not None:
        floor = _scores(again, against)
        noisy = _plain(features(Noise.of(0, len(made)).normal(generated.shape).clamp(-1, 1)), seen)
        gone = {**refused, **refusals(min(len(again), len(against)), wide)}
        result["floor"] = _short(floor, gone, len(again))
        result["noise"] = {key: None if key in refused else value for key, value in noisy.items()} | {"n": len(made)}
        # the place between the two may be told where the distance itself may not: the bias is the same in all three
        result["place"] = way({"noise": noisy, "floor": {"fd": floor["fd"].value}, "fd": scores["fd"].value})
        floor = {key: found for key, found in floor.items() if key not in gone}
    order = sorted((key for key in SCORES if key not in refused), key=lambda key: key != result["headline"])
    result["metrics"] = [
        _row(metric_name(key, features.name, len(made), split), key, scores[key], floor.get(key)) for key in order
    ]
    if classes is not None:
        result["classes"] = _per_class(made, seen, again, classes, (features.name, split))
    return result


def _row(name: str, key: str, found: Interval, floor: Interval | None) -> dict[str, Any]:
    row: dict[str, Any] = {"name": name, "key": key, **found._asdict()}
    if floor is not None:
        row |= {"floor": floor.value, "floor_low": floor.low, "floor_high": floor.high}
    return row


def _per_class(
    made: Tensor, seen: Tensor, again: Tensor | None, classes: Classes, named: tuple[str, str]
) -> list[dict[str, Any]]:
    """KID, precision and recall of every class alone, with their floor: rows of class, n, n_reference and metrics, or a note
    of what n would do."""
    rows = []
    for k, name in enumerate(classes.names):
        a, b = made[classes.generated == k], seen[classes.reference == k]
        row: dict[str, Any] = {"class": name, "n": len(a), "n_reference": len(b), "metrics": []}
        rows.append(row)
        short = [
            f"{len(part)} {who}" + (f" (about {_enough(len(part), total):,} in all would do)" if len(part) else "")
            for part, total, who in ((a, len(made), "generated"), (b, len(seen), "reference"))
            if len(part) < OVERLAP_FEWEST
        ]
        if short:
            row["note"] = f"needs {OVERLAP_FEWEST} pictures on each side, has {' and '.join(short)}"
            continue
        found, floor = _of_class(a, b), {}
        if again is not None and classes.real is not None:
            real = again[classes.real[: len(again)] == k]
            floor = _of_class(real, b) if len(real) >= OVERLAP_FEWEST else {}
        row["metrics"] = [
            _row(metric_name(key, named[0], len(a), named[1], name), key, found[key], floor.get(key)) for key in found
        ]
    return rows


def _of_class(made: Tensor, seen: Tensor) -> dict[str, Interval]:
    overlap = manifold_intervals(seen, made, NEIGHBOURS)
    return {"kid": kid_interval(made, seen), "precision": overlap["precision"], "recall": overlap["recall"]}


def _enough(here: int, total: int) -> int:
    """Pictures in all that give OVERLAP_FEWEST of a class 97 times in 100, to the next hundred."""
    share = here / total
    least = ((2 + math.sqrt(4 + 4 * OVERLAP_FEWEST)) / 2) ** 2  # mean m with m - 2 sqrt(m) = OVERLAP_FEWEST
    return math.ceil(least / share / 100) * 100
