"""What the measures say of Fashion-MNIST pictures spoilt in a known way, beside clean ones: how to read their numbers.

1,000 training pictures each, against the 10,000 test pictures in 32x32; prints the table of docs/measure.md.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from benchmarks import common
from sfumato.data import open as open_source
from sfumato.data.audit.align import blur
from sfumato.measure import features_for, frechet_distance, kid, precision_recall

N = 1000


def noisy(sigma: float) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda x, noise: (x + sigma * noise).clamp(-1, 1)


# name -> (pictures, normal noise of their shape) -> spoilt pictures
SPOILT: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "clean (the floor)": lambda x, noise: x,
    **{f"blur, sigma {s} pixels": lambda x, noise, s=s: blur(x, s) for s in (0.4, 0.6, 1.2)},
    **{f"noise {s} (pictures are -1 to 1)": noisy(s) for s in (0.05, 0.1, 0.2, 0.4)},
    "pure noise": lambda x, noise: noise.clamp(-1, 1),
    "two pictures blended": lambda x, noise: (x + x.roll(1, 0)) / 2,
    "one picture, 1,000 times": lambda x, noise: x[:1].expand_as(x),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, default=common.RESULTS)
    args = parser.parse_args()
    train, test = open_source("fashion-mnist", 32), open_source("fashion-mnist/test", 32)
    features = features_for(train)
    real = features(test.batch(torch.arange(len(test))).x0)
    generator = torch.Generator().manual_seed(0)
    order = torch.randperm(len(train), generator=generator)
    clean = train.batch(order[:N]).x0
    noise = torch.randn(clean.shape, generator=generator)
    drawn = {name: spoil(clean, noise) for name, spoil in SPOILT.items()}
    for missing in (3, 5):
        kept = order[train.labels[order] >= missing][:N]
        drawn[f"{missing} of 10 classes missing"] = train.batch(kept).x0
    rows = []
    print("| pictures | fd | kid | precision | recall |\n|---|---|---|---|---|")
    for name, x in drawn.items():
        found = features(x)
        distance, (precision, recall) = kid(found, real), precision_recall(real[:N], found)
        row = {"fd": frechet_distance(found, real), "kid": distance.value, "kid_se": distance.se}
        rows.append({"pictures": name, **row, "precision": precision, "recall": recall})
        told = f"{row['fd']:.3g} | {row['kid']:.3f} ± {row['kid_se']:.3f} | {precision:.2f} | {recall:.2f}"
        print(f"| {name} | {told} |", flush=True)
    about = {"features": features.name, "accuracy": features.accuracy, "n": N}
    print(common.write("spoilt_pictures", common.envelope(rows=rows, **about), args.results))


if __name__ == "__main__":
    main()
