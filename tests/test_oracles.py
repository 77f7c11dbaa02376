"""The oracles against definitions: autograd of log-densities, brute-force Bayes, limits."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from sfumato.core import Cond, Noise, Slot
from sfumato.forward import EDM, VE, Absorbing, RectifiedFlow, SubVP, Uniform, VPCosine, VPLinear
from sfumato.measure.oracles import Gaussian, Mixture, Sequences, finite_data

PROCESSES = [VPLinear(), VPCosine(), SubVP(), VE(), RectifiedFlow(), EDM()]
processes = pytest.mark.parametrize("process", PROCESSES, ids=lambda p: type(p).__name__)
COVARIANCE = torch.tensor([[0.5, 0.3], [0.3, 0.4]])


def points(n: int = 32) -> torch.Tensor:
    return Noise.of(1, n).normal((n, 2)).double()


@processes
def test_mixture_is_tweedie_of_its_density(process):
    means = torch.tensor([[0.5, 0.2], [-0.4, 0.3], [0.0, -0.6]])
    oracle = Mixture(process, means, torch.tensor([0.04, 0.09, 0.02]), torch.tensor([1.0, 2.0, 3.0]))
    for t in (0.1, 0.5, 0.9):
        x = points().requires_grad_()
        (score,) = torch.autograd.grad(oracle.log_prob(x, t).sum(), x)
        assert torch.allclose(oracle(x.detach(), t).score, score, rtol=1e-6, atol=1e-8)


def test_mixture_density_is_torchs():
    means, variances, weights = (
        torch.randn(3, 2, generator=torch.Generator().manual_seed(1)),
        [0.1, 0.3, 0.2],
        [1, 2, 1],
    )
    parts = torch.distributions.Independent(
        torch.distributions.Normal(means.double(), torch.tensor(variances).double().sqrt().unsqueeze(1).expand(3, 2)), 1
    )
    mixed = torch.distributions.MixtureSameFamily(
        torch.distributions.Categorical(torch.tensor(weights).double()), parts
    )
    got = Mixture(VPLinear(), means, torch.tensor(variances), torch.tensor(weights)).log_prob(points())
    assert torch.allclose(got, mixed.log_prob(points()), rtol=1e-5, atol=1e-5)


@processes
def test_gaussian_is_conditional_expectation(process):
    mean = torch.tensor([0.3, -0.1])
    oracle = Gaussian(process, mean, COVARIANCE)
    x = points()
    for t in (0.1, 0.5, 0.9):
        alpha, sigma = process.alpha_sigma(t)
        total = alpha**2 * COVARIANCE.double() + sigma**2 * torch.eye(2).double()
        expected = mean + (alpha * COVARIANCE.double() @ torch.linalg.solve(total, (x - alpha * mean).T)).T
        assert torch.allclose(oracle(x, t).x0, expected)
        assert torch.allclose(oracle(x, torch.full((32,), t, dtype=torch.float64)).x0, expected)


@processes
def test_gaussian_flow_solves_the_ode_and_carries_the_marginals(process):
    oracle, h = Gaussian(process, torch.tensor([0.3, -0.1]), COVARIANCE), 1e-5
    x = points()
    for t in (0.2, 0.8):
        slope = (oracle.flow(x, t, t + h) - oracle.flow(x, t, t - h)) / (2 * h)
        assert torch.allclose(slope, oracle(x, t).velocity, rtol=1e-4, atol=1e-5)
    (alpha_t, sigma_t), (alpha_s, sigma_s) = process.alpha_sigma(0.8), process.alpha_sigma(0.2)
    start = torch.linalg.cholesky(alpha_t**2 * COVARIANCE.double() + sigma_t**2 * torch.eye(2).double())
    moved = oracle.flow(start.T + alpha_t * oracle.mean.double(), 0.8, 0.2) - alpha_s * oracle.mean.double()
    assert torch.allclose(moved.T @ moved, alpha_s**2 * COVARIANCE.double() + sigma_s**2 * torch.eye(2).double())


@processes
def test_one_component_is_a_gaussian(process):
    one = Mixture(process, torch.tensor([[0.3, -0.1]]), 0.2)
    same = Gaussian(process, torch.tensor([0.3, -0.1]), torch.full((2,), 0.2))
    assert torch.allclose(one(points(), 0.4).x0, same(points(), 0.4).x0, atol=1e-7)


def test_finite_data_by_brute_force_and_at_the_ends():
    process = EDM()
    images = torch.randn(20, 1, 3, 3, generator=torch.Generator().manual_seed(2))
    oracle = finite_data(process, images)
    x = torch.randn(5, 1, 3, 3, generator=torch.Generator().manual_seed(3)).double()
    for t in (0.005, 0.02, 0.5):
        sigma = process.alpha_sigma(t)[1]
        share = torch.stack([(-(x - image).square().sum((1, 2, 3)) / (2 * sigma**2)) for image in images], 1).softmax(1)
        assert torch.allclose(oracle(x, t).x0, torch.einsum("bk,kchw->bchw", share, images.double()))
    near = oracle(images + 0.001, 1e-6)  # sigma = 8e-5: distances of 1e8 sigma^2
    assert torch.allclose(near.x0, images) and near.x0.dtype == torch.float32
    assert torch.allclose(oracle(80 * x, 1.0).x0.mean(0), images.double().mean(0), atol=0.2)


def test_class_condition_restricts_the_mixture():
    process = VPLinear()
    means = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]])
    oracle = Mixture(process, means, 0.1, labels=torch.tensor([0, 1, 1]))
    x, t = points(4), 0.5
    slot = Slot(torch.tensor([0, 1, 1, 0]), "vector", torch.tensor([True, True, False, False]))
    got = oracle(x, t, Cond({"class": slot})).x0
    first = Mixture(process, means[:1], 0.1)(x, t).x0
    second = Mixture(process, means[1:], 0.1)(x, t).x0
    free = oracle(x, t).x0
    assert torch.allclose(got, torch.stack([first[0], second[1], free[2], free[3]]))


@pytest.mark.parametrize("process", [Absorbing(3), Uniform(3), Uniform(3, "cosine")], ids=repr)
def test_sequences_by_brute_force(process):
    rows = torch.tensor([[0, 1, 2], [2, 2, 0], [1, 1, 1], [0, 1, 0]])
    weights = torch.tensor([0.1, 0.4, 0.2, 0.3])
    oracle, t = Sequences(process, rows, weights), 0.6
    keep = process.alpha(t)

    def q(shown: int, clean: int) -> float:
        if isinstance(process, Absorbing):
            return (1 - keep) if shown == process.mask else keep * (shown == clean)
        return keep * (shown == clean) + (1 - keep) / process.classes

    for x in itertools.product(range(process.states), repeat=3):
        likely = [
            w * math.prod(q(a, b) for a, b in zip(x, row, strict=True))
            for row, w in zip(rows.tolist(), weights.tolist(), strict=True)
        ]
        if sum(likely) == 0:
            continue
        expected = torch.zeros(3, 3)
        for row, p in zip(rows.tolist(), likely, strict=True):
            for entry, clean in enumerate(row):
                expected[clean, entry] += p / sum(likely)
        assert torch.allclose(oracle(torch.tensor([x]), t).probabilities[0], expected, atol=1e-5)


def test_draws_have_the_moments():
    noise = Noise.of(9, 4000)
    x = Gaussian(VPLinear(), torch.tensor([0.3, -0.1]), COVARIANCE).draw(noise.at(0))
    assert torch.allclose(x.mean(0), torch.tensor([0.3, -0.1]), atol=0.05)
    assert torch.allclose(x.T.cov(), COVARIANCE, atol=0.05)
    means = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    x = Mixture(VPLinear(), means, 0.01, torch.tensor([3.0, 1.0])).draw(noise.at(1))
    assert (x[:, 0] > 0).float().mean().item() == pytest.approx(0.75, abs=0.03)
