"""Which extractor, and which number, agrees with what people see: pictures spoilt step by step, in ways anybody would notice.

Every way has five grades. For each extractor and metric the table holds Spearman's correlation with the grade (clean is
grade 0; signed so that 1 is perfect agreement) and the first grade that KID tells from clean pictures: its interval lies
above the clean one's. Prints the tables of docs/measure.md.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks import common
from sfumato.data import Source
from sfumato.data import open as open_source
from sfumato.data.audit.align import blur
from sfumato.measure import Extractor, features_for, frechet_distance, kid_interval, manifold
from sfumato.measure.ranks import spearman

N, REFERENCE, SIZE = 1000, 2000, 32
METRICS = {"kid": 1, "fd": 1, "precision": -1, "recall": -1, "coverage": -1}  # +1: rises when pictures get worse
BLURS = (0.3, 0.5, 0.7, 1.0, 1.5)  # pixels
NOISES = (0.05, 0.1, 0.2, 0.4, 0.8)  # pictures are -1 to 1
DROPPED = (0.1, 0.2, 0.3, 0.5, 0.7)  # of the classes, or of 10 groups of alike pictures
MIXED = (0.1, 0.2, 0.3, 0.4, 0.5)  # share of the second picture in each
WRONG = (0.05, 0.1, 0.2, 0.4, 0.8)  # of the labels


@dataclass(frozen=True)
class Pixels:
    """Flattened pictures, projected: the least that could be called an extractor."""

    name: str
    mean: Tensor
    axes: Tensor

    def __call__(self, x0: Tensor) -> Tensor:
        return (x0.flatten(1) - self.mean) @ self.axes


def projected(source: Source, how: str, width: int = 128) -> Pixels:
    """The first principal components, or random directions; scaled to mean variance 1."""
    rows = source.train_index[torch.linspace(0, len(source.train_index) - 1, 4000).long().unique()]
    x = source.batch(rows).x0.flatten(1)
    if how == "pca":
        axes = torch.linalg.eigh(torch.cov(x.T)).eigenvectors[:, -width:]
    else:
        axes = torch.randn(x.shape[1], width, generator=torch.Generator().manual_seed(0))
    found = Pixels(f"pixels-{how}", x.mean(0), axes)
    return replace(found, axes=axes * ((x - found.mean) @ axes).var(0).mean().rsqrt())


def extractors(source: Source) -> list[tuple[Extractor, float]]:
    """All candidates with the seconds their making took."""
    plain = replace(source, labels=None, classes=())
    made: list[Callable[[], Extractor]] = [lambda: features_for(plain)]
    if source.labels is not None:
        made.insert(0, lambda: features_for(source))
    made += [lambda: projected(source, "pca"), lambda: projected(source, "random")]
    out = []
    for make in made:
        started = time.perf_counter()
        out.append((make(), time.perf_counter() - started))
    return out


def groups(source: Source, rows: Tensor) -> Tensor:
    """What can go missing: the class of each row; without classes one of 10 groups alike in brightness and colour."""
    if source.labels is not None:
        return source.labels[rows]
    light = source.batch(rows).x0.mean((2, 3)) @ torch.linspace(1, 2, source.codec.channels)
    return light.argsort().argsort() * 10 // len(rows)


@dataclass(frozen=True)
class Sets:
    """Pictures to spoil, the same number of each grade, and the pictures they are measured against."""

    pool: Tensor
    pool_group: Tensor
    reference: Tensor
    reference_group: Tensor
    n: int

    @property
    def clean(self) -> Tensor:
        return self.pool[: self.n]

    def without(self, share: float) -> Tensor:
        """The first n pictures left when this share of the groups, the smallest first, is missing."""
        count = torch.bincount(self.pool_group)
        gone = count.argsort()[: round(share * len(count))]
        left = self.pool[~torch.isin(self.pool_group, gone)]
        return left[: self.n]


def sets(name: str) -> tuple[Source, Sets]:
    """A source, and its pictures in two halves; Fashion-MNIST is measured against its test set."""
    source, generator = open_source(name, SIZE), torch.Generator().manual_seed(0)
    order = torch.randperm(len(source), generator=generator)
    if name == "fashion-mnist":
        test = open_source("fashion-mnist/test", SIZE)
        other, theirs = torch.randperm(len(test), generator=generator)[:REFERENCE], test
        order = order[: 4 * N]
    else:
        half = len(order) // 2
        order, other, theirs = order[:half], order[half:][:REFERENCE], source
    n = min(N, len(order) // 2)
    group, against = groups(source, order), groups(theirs, other)
    found = Sets(source.batch(order).x0, group, theirs.batch(other).x0, against, n)
    return source, replace(found, n=min(n, len(found.without(max(DROPPED)))))


def ways(s: Sets) -> dict[str, list[Tensor]]:
    """name -> pictures of the five grades."""
    generator = torch.Generator().manual_seed(1)
    x, noise = s.clean, torch.randn(s.clean.shape, generator=generator)
    return {
        "blur": [blur(x, sigma) for sigma in BLURS],
        "noise": [(x + sigma * noise).clamp(-1, 1) for sigma in NOISES],
        "kinds missing": [s.without(share) for share in DROPPED],
        "two mixed": [(1 - share) * x + share * x.roll(1, 0) for share in MIXED],
    }


def scores(made: Tensor, seen: Tensor) -> dict[str, Any]:
    found = kid_interval(made, seen)
    overlap = manifold(seen, made)._asdict()
    return {
        "kid": found.value,
        "kid_low": found.low,
        "kid_high": found.high,
        "fd": frechet_distance(made, seen),
        **overlap,
    }


def by_class(made: Tensor, group: Tensor, seen: Tensor, against: Tensor) -> dict[str, Any]:
    """Mean over the classes of what each scores alone, the only place where a wrong label can be seen."""
    told = []
    for k in against.unique().tolist():
        a, b = made[group == k], seen[against == k]
        if len(a) >= 20 and len(b) >= 20:
            told.append(scores(a, b))
    return {key: sum(t[key] for t in told) / len(told) for key in told[0]}


def mislabelled(s: Sets, share: float) -> Tensor:
    """The groups of the clean pictures, this share of them those of other pictures."""
    group = s.pool_group[: s.n].clone()
    k = round(share * len(group))
    group[:k] = group[:k].roll(1)
    return group


def graded(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Clean and five grades -> correlations, and the first grade whose KID interval lies above the clean one's."""
    told: dict[str, Any] = {}
    for key, sign in METRICS.items():
        found = spearman(range(len(rows)), [sign * row[key] for row in rows])
        told[key] = 0.0 if found is None else found
    seen = [k for k, row in enumerate(rows) if row["kid_low"] > rows[0]["kid_high"]]
    return told | {"first": seen[0] if seen else None}


def run(name: str) -> list[dict[str, Any]]:
    source, s = sets(name)
    spoilt, rows = ways(s), []
    for extractor, seconds in extractors(source):
        started = time.perf_counter()
        seen, clean = extractor(s.reference), extractor(s.clean)
        table = {way: [clean, *(extractor(x) for x in grades)] for way, grades in spoilt.items()}
        found = {way: [scores(made, seen) for made in grades] for way, grades in table.items()}
        found["wrong label, per class"] = [
            by_class(clean, mislabelled(s, share), seen, s.reference_group) for share in (0.0, *WRONG)
        ]
        spent = time.perf_counter() - started
        for way, grades in found.items():
            rows.append(
                {"set": name, "extractor": extractor.name, "way": way, **graded(grades), "grades": grades, "n": s.n}
            )
            rows[-1] |= {"making_seconds": seconds, "measuring_seconds": spent}
            common.log(f"{name} {extractor.name} {way}: {graded(grades)}")
    return rows


def tables(rows: list[dict[str, Any]]) -> str:
    """One line per set, extractor and way, then one per extractor with its means."""
    out = ["| set | extractor | spoilt by | KID | FD | precision | recall | coverage | KID sees it from grade |"]
    out.append("|---|---|---|---|---|---|---|---|---|")
    for row in rows:
        told = " | ".join(f"{row[key]:.2f}" for key in METRICS)
        out.append(f"| {row['set']} | {row['extractor']} | {row['way']} | {told} | {row['first'] or 'never'} |")
    out += [
        "",
        "| extractor | mean of KID | mean of FD | ways KID sees at grade 1 | never sees |",
        "|---|---|---|---|---|",
    ]
    for kind in dict.fromkeys(_kind(row["extractor"]) for row in rows):
        own = [row for row in rows if _kind(row["extractor"]) == kind]
        means = [sum(row[key] for row in own) / len(own) for key in ("kid", "fd")]
        first, never = (sum(row["first"] == k for row in own) for k in (1, None))
        out.append(f"| {kind} | {means[0]:.2f} | {means[1]:.2f} | {first} of {len(own)} | {never} of {len(own)} |")
    return "\n".join(out)


def _kind(extractor: str) -> str:
    return extractor if extractor.startswith("pixels") else extractor.split("-")[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sets", nargs="+", default=["fashion-mnist", "emoji"])
    parser.add_argument("--results", type=Path, default=common.RESULTS)
    args = parser.parse_args()
    torch.set_grad_enabled(False)
    rows = [row for name in args.sets for row in run(name)]
    print(tables(rows))
    print(common.write("agreement", common.envelope(rows=rows), args.results))


if __name__ == "__main__":
    main()
