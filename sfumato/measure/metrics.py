"""Distances between two sets of pictures, seen through any feature extractor: Fréchet, KID, precision and recall.

Every function takes features as float tensors [N, D]. Sums run in float64 and in blocks of rows, so 10,000 against
10,000 needs about a hundred megabytes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from sfumato.core import SfumatoError

BLOCK_ELEMENTS = 8_000_000  # float64 numbers in one block of a pairwise matrix: 64 MB


class Kid(NamedTuple):
    """An estimate of the kernel distance and its standard error."""

    value: float
    se: float


class Manifold(NamedTuple):
    """How two sets overlap: four shares, density alone may exceed 1."""

    precision: float
    recall: float
    density: float
    coverage: float


def check_features(a: Tensor, b: Tensor, least: int) -> tuple[Tensor, Tensor]:
    for x, who in ((a, "first"), (b, "second")):
        if x.ndim != 2:
            raise SfumatoError(
                f"features must be a table [pictures, dimensions]; the {who} set has shape {tuple(x.shape)}"
            )
        if len(x) < least:
            raise SfumatoError(
                f"{len(x)} pictures in the {who} set are too few to measure: at least {least} are needed"
            )
        if not torch.isfinite(x).all():
            raise SfumatoError(f"the {who} set has features that are NaN or infinite: its pictures cannot be measured")
    if a.shape[1] != b.shape[1]:
        raise SfumatoError(f"features of {a.shape[1]} and {b.shape[1]} dimensions: both sets need the same extractor")
    return a.detach().double(), b.detach().double()


def frechet_distance(a: Tensor, b: Tensor) -> float:
    """Squared Fréchet (2-Wasserstein) distance between Gaussians fitted to two sets of features.

    |mu_a - mu_b|^2 + tr(C_a + C_b - 2 (C_a^1/2 C_b C_a^1/2)^1/2), with unbiased covariances (Heusel et al. 2017,
    arXiv 1706.08500). It is biased upwards for few pictures: compare only at equal n and read it beside the floor.

    a, b: [N, D] and [M, D], N, M >= 2. Raises SfumatoError for other shapes and for values that are not finite.
    """
    a, b = check_features(a, b, 2)
    cov_a, cov_b = (torch.atleast_2d(torch.cov(x.T)) for x in (a, b))
    # The symmetric form keeps every eigenvalue real and non-negative even when N < D makes the covariances singular.
    values, vectors = torch.linalg.eigh(cov_a)
    root = vectors * values.clamp_min(0).sqrt() @ vectors.T
    cross = torch.linalg.eigvalsh(root @ cov_b @ root).clamp_min(0).sqrt().sum()
    distance = (a.mean(0) - b.mean(0)).square().sum() + cov_a.trace() + cov_b.trace() - 2 * cross
    return max(float(distance), 0.0)


def _blocks(rows: int, columns: int) -> Iterator[slice]:
    step = max(1, BLOCK_ELEMENTS // max(columns, 1))
    for start in range(0, rows, step):
        yield slice(start, min(start + step, rows))


def _kernel_sums(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Row and column sums of the kernel (a.b / D + 1)^3."""
    rows, columns = [], torch.zeros(len(b), dtype=torch.float64)
    for block in _blocks(len(a), len(b)):
        k = (a[block] @ b.T).div_(a.shape[1]).add_(1).pow_(3)
        rows.append(k.sum(1))
        columns += k.sum(0)
    return torch.cat(rows), columns


def kid(a: Tensor, b: Tensor) -> Kid:
    """Kernel distance: the unbiased squared MMD under the kernel (x.y / D + 1)^3, with its standard error.

    mean k(a, a') over a != a' + mean k(b, b') over b != b' - 2 mean k(a, b) (Bińkowski et al. 2018, arXiv 1801.01401),
    over all pairs instead of random subsets. The standard error is the delete-one jackknife over both sets; near zero
    distance it errs on the large side (Efron & Stein 1981). Unbiased, so it may be slightly negative.

    a, b: [N, D] and [M, D], N, M >= 3. Raises SfumatoError for other shapes and for values that are not finite.
    """
    a, b = check_features(a, b, 3)
    n, m, d = len(a), len(b), a.shape[1]
    own_a, own_b = (_kernel_sums(x, x)[0] - (x.square().sum(1) / d + 1) ** 3 for x in (a, b))
    cross_a, cross_b = _kernel_sums(a, b)
    sum_a, sum_b, cross = own_a.sum(), own_b.sum(), cross_a.sum()
    mean_a, mean_b = sum_a / (n * (n - 1)), sum_b / (m * (m - 1))
    value = mean_a + mean_b - 2 * cross / (n * m)
    without_a = (sum_a - 2 * own_a) / ((n - 1) * (n - 2)) + mean_b - 2 * (cross - cross_a) / ((n - 1) * m)
    without_b = (sum_b - 2 * own_b) / ((m - 1) * (m - 2)) + mean_a - 2 * (cross - cross_b) / ((m - 1) * n)
    variance = (n - 1) * without_a.var(correction=0) + (m - 1) * without_b.var(correction=0)
    return Kid(float(value), float(variance.sqrt()))


def squared_distances(a: Tensor, b: Tensor) -> Iterator[tuple[slice, Tensor]]:
    norms = b.square().sum(1)
    for block in _blocks(len(a), len(b)):
        rows = a[block]
        yield block, (rows @ b.T).mul_(-2).add_(norms).add_(rows.square().sum(1, keepdim=True)).clamp_min_(0)


def _radii(x: Tensor, k: int) -> Tensor:
    """Squared distance from every row to its k-th nearest other row."""
    out = []
    for block, d2 in squared_distances(x, x):
        d2[torch.arange(len(d2)), torch.arange(block.start, block.stop)] = -1.0  # the row itself always comes first
        out.append(d2.kthvalue(k + 1, dim=1).values)
    return torch.cat(out)


def manifold(real: Tensor, fake: Tensor, k: int = 3) -> Manifold:
    """Precision, recall, density and coverage of `fake` against `real` by balls to the k-th nearest neighbour.

    Precision: share of fake inside some real ball; recall: share of real inside some fake ball (Kynkäänniemi et al.
    2019, arXiv 1904.06991). Density: mean number of real balls round a fake, over k; coverage: share of real balls that
    hold a fake (Naeem et al. 2020, arXiv 2002.09797).

    real, fake: [N, D] and [M, D], N, M > k. Compare recall only between sets of equal M. Raises SfumatoError for
    other shapes, too few rows and values that are not finite.
    """
    real, fake = check_features(real, fake, k + 1)
    centre = real.mean(0)  # smaller norms, smaller rounding in the squared distances
    real, fake = real - centre, fake - centre
    real_radii, fake_radii = _radii(real, k), _radii(fake, k)
    balls_hit = torch.zeros(len(fake), dtype=torch.int64)
    recalled = covered = 0
    for block, d2 in squared_distances(real, fake):
        inside = d2 <= real_radii[block, None]
        balls_hit += inside.sum(0)
        covered += int(inside.any(1).sum())
        recalled += int((d2 <= fake_radii).any(1).sum())
    return Manifold(
        precision=float((balls_hit > 0).double().mean()),
        recall=recalled / len(real),
        density=float(balls_hit.double().mean()) / k,
        coverage=covered / len(real),
    )


def precision_recall(real: Tensor, fake: Tensor, k: int = 3) -> tuple[float, float]:
    """The first two shares of `manifold`: (precision, recall), each in [0, 1]."""
    return manifold(real, fake, k)[:2]


def nearest(generated: Tensor, train: Tensor, k: int = 3) -> tuple[Tensor, Tensor]:
    """The k rows of `train` nearest to every row of `generated`: (indices [N, k], Euclidean distances [N, k]).

    Rows may be features or flattened pictures: the distances are in the units of whatever is given.
    Raises SfumatoError when `train` has fewer than k rows.
    """
    if len(train) < k:
        raise SfumatoError(f"{k} nearest training pictures were asked for, but there are only {len(train)}")
    generated, train = check_features(generated.flatten(1), train.flatten(1), 1)
    centre = train.mean(0)
    found = [d2.topk(k, dim=1, largest=False) for _, d2 in squared_distances(generated - centre, train - centre)]
    return torch.cat([f.indices for f in found]), torch.cat([f.values for f in found]).sqrt().float()
