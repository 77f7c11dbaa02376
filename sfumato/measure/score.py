"""How good is a set of generated pictures: every metric at once, beside what real pictures and pure noise would get."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from sfumato.core import Noise, SfumatoError
from sfumato.measure.features import WIDTH, Features
from sfumato.measure.metrics import frechet_distance, kid, manifold

FEWEST = 16  # under this many pictures no number means anything


def _scores(seen: Tensor, reference: Tensor) -> dict[str, float]:
    distance, overlap = kid(seen, reference), manifold(reference, seen)
    return {"kid": distance.value, "kid_se": distance.se, "fd": frechet_distance(seen, reference), **overlap._asdict()}


def measure(generated: Tensor, reference: Tensor, features: Features, real: Tensor | None = None) -> dict[str, Any]:
    """Every metric of `generated` against `reference`, with the floor and the ceiling of the same metrics.

    generated, reference: pictures [N, C, H, W] and [M, C, H, W] in [-1, 1]; the reference should not have been trained
    on. real: training pictures; with them "floor" holds the scores of min(N, len(real)) of them (what a perfect model
    would get) and "noise" those of N pictures of pure noise. Keys: kid, kid_se, fd, precision, recall, density,
    coverage, n, n_reference, features (the extractor's name), notes, and floor, noise.

    Raises SfumatoError for fewer than 16 pictures on a side and for pictures of another size or with NaN.
    """
    for pictures, who in ((generated, "generated"), (reference, "reference")):
        if len(pictures) < FEWEST:
            raise SfumatoError(
                f"{len(pictures)} {who} pictures say nothing: {FEWEST} are the least, 1000 or more give a steady number"
            )
    seen = features(reference)
    result: dict[str, Any] = _scores(features(generated), seen)
    result |= {"n": len(generated), "n_reference": len(reference), "features": features.name, "notes": []}
    if min(len(generated), len(reference)) < 2 * WIDTH:
        result["notes"].append(
            f"fd is far too high with so few pictures (under {2 * WIDTH}): compare it with its floor only, or read kid"
        )
    if real is not None:
        again = real[: len(generated)]
        result["floor"] = {**_scores(features(again), seen), "n": len(again)}
        noise = Noise.of(0, len(generated)).normal(generated.shape).clamp(-1, 1)
        result["noise"] = {**_scores(features(noise), seen), "n": len(noise)}
    return result
