"""Metrics against textbook formulas, plain loops and sets whose answers are known."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sfumato.core import SfumatoError
from sfumato.measure import frechet_distance, kid, manifold, metrics, nearest, precision_recall


def normal(n: int, d: int, seed: int) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def test_frechet_is_the_textbook_formula() -> None:
    from scipy import linalg

    a = normal(300, 12, 1) @ normal(12, 12, 2) + 0.3
    b = normal(200, 12, 3) @ normal(12, 12, 4)
    x, y = a.double().numpy(), b.double().numpy()
    ca, cb = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    truth = ((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(ca + cb - 2 * linalg.sqrtm(ca @ cb).real)
    assert frechet_distance(a, b) == pytest.approx(truth, rel=1e-9)


def test_frechet_of_known_gaussians() -> None:
    """Samples standardised to an exact mean and covariance, so the distance is exact: |m|^2 + sum (s - r)^2."""

    def exact(seed: int, mean: torch.Tensor, spread: torch.Tensor) -> torch.Tensor:
        x = normal(500, 5, seed).double()
        x = x - x.mean(0)
        white = torch.linalg.solve_triangular(torch.linalg.cholesky(torch.cov(x.T)), x.T, upper=False).T
        return white * spread + mean

    mean = torch.tensor([1.0, -2.0, 0.0, 0.5, 0.0], dtype=torch.float64)
    s, r = torch.tensor([1.0, 2.0, 3.0, 0.5, 1.0]).double(), torch.tensor([2.0, 2.0, 1.0, 0.1, 4.0]).double()
    truth = float(mean.square().sum() + (s - r).square().sum())
    assert frechet_distance(exact(1, mean, s), exact(2, 0 * mean, r)) == pytest.approx(truth, rel=1e-9)


def test_frechet_survives_singular_covariances() -> None:
    a = normal(20, 64, 1)
    assert frechet_distance(a, a.clone()) == pytest.approx(0, abs=1e-5)
    constant = torch.ones(20, 64)
    assert frechet_distance(constant, constant + 1) == pytest.approx(64, rel=1e-9)


def plain_kid(x: np.ndarray, y: np.ndarray) -> float:
    d, n, m = x.shape[1], len(x), len(y)

    def k(u: np.ndarray, v: np.ndarray) -> float:
        return (float(u @ v) / d + 1) ** 3

    own_x = sum(k(x[i], x[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    own_y = sum(k(y[i], y[j]) for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
    return own_x + own_y - 2 * sum(k(u, v) for u in x for v in y) / (n * m)


def test_kid_is_the_plain_double_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "BLOCK_ELEMENTS", 100)  # many ragged blocks
    a, b = normal(31, 6, 1), normal(23, 6, 2) + 0.4
    x, y = a.double().numpy(), b.double().numpy()
    found = kid(a, b)
    assert found.value == pytest.approx(plain_kid(x, y), rel=1e-9)
    without = (
        [plain_kid(np.delete(x, i, 0), y) for i in range(31)],
        [plain_kid(x, np.delete(y, j, 0)) for j in range(23)],
    )
    jackknife = sum((len(w) - 1) * np.var(w) for w in without)
    assert found.se == pytest.approx(np.sqrt(jackknife), rel=1e-6)


def test_kid_of_gaussians_has_its_exact_mean_and_an_honest_error() -> None:
    """E k(x, y) for x ~ N(m, I), y ~ N(0, I) in closed form; 60 draws average to it, and the error bars cover it."""
    d, shift = 4, 0.6

    def third(mean_dot: float, second: float) -> float:
        # (u + 1)^3 with u = x.y / d given E u, E u^2, E u^3 of the Gaussian product below
        return mean_dot**3 + 3 * mean_dot * second

    def expected(m: np.ndarray, p: np.ndarray) -> float:
        """E (x.y / d + 1)^3 for independent x ~ N(m, I), y ~ N(p, I): given y, x.y ~ N(m.y, |y|^2)."""
        nodes, weights = np.polynomial.hermite_e.hermegauss(8)  # exact to degree 15 in every axis
        weights = weights / weights.sum()
        total = 0.0
        for corner in np.ndindex(*(8,) * d):
            y = p + nodes[list(corner)]
            mean, spread = m @ y / d + 1, (y @ y) / d**2
            total += weights[list(corner)].prod() * third(mean, spread)
        return total

    m, zero = np.full(d, shift), np.zeros(d)
    truth = expected(m, m) + expected(zero, zero) - 2 * expected(m, zero)
    found = [kid(normal(80, d, 2 * s) + shift, normal(80, d, 2 * s + 1)) for s in range(60)]
    values, errors = np.array([f.value for f in found]), np.array([f.se for f in found])
    assert abs(values.mean() - truth) < 4 * values.std() / np.sqrt(60)
    assert 0.75 < errors.mean() / values.std() < 1.5


def test_kid_of_one_distribution_is_zero_within_its_error() -> None:
    z = np.array([(f := kid(normal(150, 16, 2 * s), normal(150, 16, 2 * s + 1))).value / f.se for s in range(40)])
    assert (np.abs(z) < 3).all()
    assert abs(z.mean()) < 4 / np.sqrt(40)


def plain_manifold(real: np.ndarray, fake: np.ndarray, k: int) -> tuple[float, float, float, float]:
    def radii(x: np.ndarray) -> list[float]:
        return [sorted(np.linalg.norm(x - x[i], axis=1)[np.arange(len(x)) != i])[k - 1] for i in range(len(x))]

    rr, fr = radii(real), radii(fake)
    inside = np.array([[np.linalg.norm(r - f) <= rr[i] for f in fake] for i, r in enumerate(real)])
    recalled = [any(np.linalg.norm(r - f) <= fr[j] for j, f in enumerate(fake)) for r in real]
    return inside.any(0).mean(), np.mean(recalled), inside.sum(0).mean() / k, inside.any(1).mean()


@pytest.mark.parametrize("k", [1, 3, 5])
def test_manifold_is_the_plain_loop(k: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "BLOCK_ELEMENTS", 150)
    real, fake = normal(60, 3, 1), normal(45, 3, 2) * 0.7 + 0.3
    assert tuple(manifold(real, fake, k)) == pytest.approx(plain_manifold(real.numpy(), fake.numpy(), k))


def test_dropped_modes_lower_recall_by_their_share_and_leave_precision() -> None:
    """Ten far clusters; a model that makes only the first 7 recalls 7/10 and is as precise as before."""
    centres = 100 * torch.eye(10)

    def draw(modes: int, n: int, seed: int) -> torch.Tensor:
        return centres[torch.arange(n) % modes] + normal(n, 10, seed)

    real, whole, part = draw(10, 1000, 1), draw(10, 700, 2), draw(7, 700, 3)
    (p_whole, r_whole), (p_part, r_part) = precision_recall(real, whole), precision_recall(real, part)
    assert r_whole > 0.8
    assert r_part / r_whole == pytest.approx(0.7, abs=0.08)  # 100 a mode instead of 70: the balls are a bit tighter
    assert p_part == pytest.approx(p_whole, abs=0.06)
    found = manifold(real, part)
    assert found.coverage <= 0.7
    far = manifold(real, draw(10, 100, 4) + 1000)
    assert far == (0, 0, 0, 0)


def test_copies_of_one_picture_are_precise_and_recall_nothing() -> None:
    real = normal(200, 8, 1)
    precision, recall = precision_recall(real, real[:1].repeat(200, 1))
    assert precision == 1
    assert recall == pytest.approx(1 / 200)


def test_far_away_features_keep_their_digits() -> None:
    """A common offset of 10,000 in float32 units leaves shares as they are: distances are taken after centring."""
    real, fake = normal(100, 4, 1).double(), normal(100, 4, 2).double()
    assert manifold(real + 1e4, fake + 1e4) == manifold(real, fake)


def test_nearest_is_the_plain_loop() -> None:
    train, made = normal(50, 2 * 3 * 3, 1).reshape(50, 2, 3, 3), normal(7, 18, 2).reshape(7, 2, 3, 3)
    made[2] = train[31]
    index, distance = nearest(made, train, k=3)
    plain = torch.stack([(train - m).flatten(1).norm(dim=1) for m in made])
    truth = plain.sort(1)
    assert torch.equal(index, truth.indices[:, :3])
    assert torch.allclose(distance, truth.values[:, :3], atol=1e-4)
    assert index[2, 0] == 31 and distance[2, 0] < 1e-5


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: frechet_distance(normal(1, 4, 1), normal(9, 4, 1)), "too few"),
        (lambda: kid(normal(9, 4, 1), normal(9, 5, 1)), "same extractor"),
        (lambda: kid(normal(9, 4, 1), normal(9, 4, 1) * float("nan")), "NaN"),
        (lambda: precision_recall(normal(3, 4, 1), normal(9, 4, 1)), "at least 4"),
        (lambda: manifold(normal(9, 4, 1)[None], normal(9, 4, 1)), "table"),
        (lambda: nearest(normal(9, 4, 1), normal(2, 4, 1)), "only 2"),
    ],
)
def test_bad_features_are_named(call: object, words: str) -> None:
    with pytest.raises(SfumatoError, match=words):
        call()
