"""95 % intervals of the metrics: how far each number may lie from what endless repetitions would give on average.

KID and the Fréchet distance have the jackknife, which leaves out pictures or groups of them, of both sets (Quenouille
1956, Efron 1982): with theta_g the number without group g of G, bias = (G - 1)(mean theta_g - theta), variance =
(G - 1)/G sum (theta_g - mean theta_g)^2, added over the two sets. What counts neighbours has the spread over disjoint
quarters. No bootstrap anywhere: a picture drawn twice is its own nearest neighbour.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from sfumato.measure.metrics import Manifold, check_features, kid, manifold

Z = 1.959963984540054  # the normal distribution holds 95 % within this many standard deviations
GROUPS = 20
WIDE = 512  # features of more dimensions are left out in FEW_GROUPS groups: each costs an eigenvalue decomposition
FEW_GROUPS = 6
PARTS, SHUFFLES = 4, 10  # of what counts neighbours


# 97.5 % points of Student's t at 1, 2, ... degrees of freedom
T_POINTS = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131)
T_POINTS += (2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042)


class Interval(NamedTuple):
    """A number and the ends of its 95 % interval."""

    value: float
    low: float
    high: float


class Frechet(NamedTuple):
    """The Fréchet distance as everybody computes it, and freed of the first order of its bias."""

    plain: Interval
    corrected: Interval


def student(freedom: float) -> float:
    """The 97.5 % point of Student's distribution: from a table at whole degrees up to 30, else by Cornish-Fisher
    (Abramowitz & Stegun 26.7.5), 0.5 % off at 4 degrees."""
    if freedom in range(1, len(T_POINTS) + 1):
        return T_POINTS[int(freedom) - 1]
    z, v = Z, max(freedom, 1.0)
    g1, g2 = (z**3 + z) / 4, (5 * z**5 + 16 * z**3 + 3 * z) / 96
    g3 = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + g1 / v + g2 / v**2 + g3 / v**3


def mean_interval(values: Tensor) -> Interval:
    """The mean of independent numbers [N], N >= 2, with Student's interval."""
    half = student(len(values) - 1) * float(values.double().std()) / math.sqrt(len(values))
    mean = float(values.double().mean())
    return Interval(mean, mean - half, mean + half)


def kid_interval(a: Tensor, b: Tensor) -> Interval:
    """Kernel distance with its interval by the delete-one jackknife of `kid`; too wide where the distance is near 0."""
    found = kid(a, b)
    return Interval(found.value, found.value - Z * found.se, found.value + Z * found.se)


def _groups(n: int, count: int, seed: int) -> Tensor:
    """The group of each of n rows, int64: equal in size to one, at random, for rows often come in an order."""
    return torch.randperm(n, generator=torch.Generator().manual_seed(seed)) % count


def _spread(without: Tensor) -> tuple[float, float, float]:
    """Variance, its square over the degrees of freedom, and the mean, of what was found without each group."""
    count = len(without)
    variance = float((count - 1) * without.var(correction=0))
    return variance, variance**2 / (count - 1), float(without.mean())


def _error(*sides: Tensor) -> float:
    """Half the width of the interval, from the numbers without each group of each set (Satterthwaite 1946)."""
    found = [_spread(side) for side in sides]
    variance, doubt = sum(v for v, _, _ in found), sum(d for _, d, _ in found)
    return student(variance**2 / doubt) * math.sqrt(variance) if doubt > 0 else 0.0


def _root(cov: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(cov)
    return vectors * values.clamp_min(0).sqrt() @ vectors.T


def _frechet_without(x: Tensor, other: Tensor, root: Tensor, count: int) -> Tensor:
    """Distances [count + 1] between the Gaussian of `other` (centred rows, root of its covariance) and that of x without
    each group, and of the whole of x last."""
    group = _groups(len(x), count, 0)
    whole, total, outer = len(x), x.sum(0), x.T @ x
    trace, mean = float(root.square().sum()), other.mean(0)
    out = []
    for g in range(count + 1):
        left = x[group == g]
        n, m = whole - len(left), (total - left.sum(0)) / (whole - len(left))
        cov = (outer - left.T @ left - n * torch.outer(m, m)) / (n - 1)
        cross = torch.linalg.eigvalsh(root @ cov @ root).clamp_min(0).sqrt().sum()
        out.append((m - mean).square().sum() + cov.trace() + trace - 2 * cross)
    return torch.stack(out)


def frechet_interval(a: Tensor, b: Tensor) -> Frechet:
    """Fréchet distance (see `frechet_distance`) with two intervals.

    `plain` holds what the same n pictures would get on average, bias and all: compare it at equal n. `corrected` takes
    the bias that falls like 1/n away by the jackknife, and holds the distance of endlessly many pictures (cf. Chong &
    Forsyth 2020, arXiv 1911.07023). It may be slightly negative.

    a, b: [N, D], [M, D] with N, M >= 16 and more than 2 D to be of any use. Raises SfumatoError as `kid` does.
    """
    a, b = check_features(a, b, 16)
    centre = b.mean(0)
    a, b = a - centre, b - centre
    count = GROUPS if a.shape[1] <= WIDE else FEW_GROUPS
    roots = [_root(torch.atleast_2d(torch.cov(x.T))) for x in (a, b)]
    of_a, of_b = _frechet_without(a, b, roots[1], count), _frechet_without(b, a, roots[0], count)
    value, half = max(float(of_a[-1]), 0.0), _error(of_a[:-1], of_b[:-1])
    bias = sum((count - 1) * (float(side[:-1].mean()) - float(side[-1])) for side in (of_a, of_b))
    # what is taken away for the bias of each set is made of the same draws: it doubles no error to first order
    better = value - bias
    return Frechet(
        Interval(value, max(value - half, 0.0), value + half), Interval(better, better - half, better + half)
    )


def wilson(value: float, independent: float) -> Interval:
    """Wilson's 95 % interval of a share, 0 ... 1, of so many independent pictures.

    Unlike value +- error it says something where the share is 0 or 1 (Wilson 1927).
    """
    n = independent
    middle = (value + Z**2 / (2 * n)) / (1 + Z**2 / n)
    width = Z / (1 + Z**2 / n) * math.sqrt(value * (1 - value) / n + Z**2 / (4 * n * n))
    return Interval(value, min(max(middle - width, 0.0), value), max(min(middle + width, 1.0), value))


def _quarters(real: Tensor, fake: Tensor, k: int) -> Tensor:
    """The four numbers of `manifold` for disjoint quarters of both sets: [SHUFFLES, PARTS, 4]."""
    found = []
    for seed in range(SHUFFLES):
        of_real, of_fake = _groups(len(real), PARTS, 2 * seed), _groups(len(fake), PARTS, 2 * seed + 1)
        found.append([manifold(real[of_real == g], fake[of_fake == g], k) for g in range(PARTS)])
    return torch.tensor(found, dtype=torch.float64)


def manifold_intervals(real: Tensor, fake: Tensor, k: int = 3) -> dict[str, Interval]:
    """Precision, recall, density and coverage as `manifold` finds them, each with the interval that holds what sets of
    these sizes get on average: all four depend on both sizes, so compare at equal ones.

    The spread of the number over disjoint quarters of both sets, drawn anew SHUFFLES times, tells how many independent
    pictures the share is worth: n = p (1 - p) / variance, at most all that were judged. Leaving out single
    pictures or small groups would count the changes among neighbours several times over.

    real, fake: [N, D], [M, D] with N, M >= 4 (k + 1). Raises SfumatoError as `manifold` does.
    """
    real, fake = check_features(real, fake, PARTS * (k + 1))
    whole, parts = manifold(real, fake, k), _quarters(real, fake, k)
    variance, level = parts.var(1).mean(0) / PARTS, parts.mean((0, 1))
    found = {}
    for name, judged in (("precision", len(fake)), ("recall", len(real)), ("coverage", len(real))):
        i = Manifold._fields.index(name)
        # a share nearer to 0 or 1 in the whole varies less than in quarters: counted, but for no more than half
        here, there = (p * (1 - p) for p in (whole[i], float(level[i])))
        worth = max(min(here, there), there / 2)
        found[name] = wilson(whole[i], min(worth / float(variance[i]), judged) if variance[i] > 0 else judged)
    half = Z * math.sqrt(float(variance[Manifold._fields.index("density")]))
    # where no fake lies in any ball, as many may as precision allows
    high = whole.density + half if whole.density > 0 else found["precision"].high
    found["density"] = Interval(whole.density, max(whole.density - half, 0.0), high)
    return {name: found[name] for name in Manifold._fields}
