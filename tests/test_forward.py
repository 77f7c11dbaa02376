"""Forward processes against calculus and exact marginals; parameterisations against their definitions."""

from __future__ import annotations

import math

import pytest
import torch
from scipy import stats

from sfumato.core import Noise, SfumatoError
from sfumato.denoiser.parameterisation import X0, EDMTarget, Eps, Flow, V
from sfumato.forward import EDM, VE, Absorbing, RectifiedFlow, SubVP, Uniform, VPCosine, VPLinear

PROCESSES = [VPLinear(), VPCosine(), SubVP(), VE(), RectifiedFlow(), EDM()]
CATEGORICAL = [Absorbing(5), Uniform(5), Absorbing(5, "cosine"), Uniform(5, "cosine")]
SHAPE = (64, 400)  # 64 streams of 400 numbers: every test of a distribution sees 25,600
LEAST_P = 1e-4  # a right implementation fails one such test in 10,000; the seeds are fixed
gaussians = pytest.mark.parametrize("process", PROCESSES, ids=lambda p: type(p).__name__)
categoricals = pytest.mark.parametrize("process", CATEGORICAL, ids=repr)


def assert_normal(x: torch.Tensor, mean: float, std: float) -> None:
    assert stats.kstest(x.double().flatten().numpy(), stats.norm(mean, std).cdf).pvalue > LEAST_P


def assert_shares(x: torch.Tensor, shares: torch.Tensor) -> None:
    counts = torch.bincount(x.flatten(), minlength=len(shares)).double()
    assert counts[shares == 0].sum() == 0
    some = shares > 0
    if some.sum() > 1:
        expected = shares[some] / shares[some].sum() * counts.sum()
        assert stats.chisquare(counts[some].numpy(), expected.numpy()).pvalue > LEAST_P


@gaussians
def test_derivatives_are_those_of_autograd(process):
    t = torch.linspace(0.01, 0.98, 50, dtype=torch.float64, requires_grad=True)
    for k, derivative in enumerate(process.derivatives(t)):
        scale, expected = process.alpha_sigma(t)[k], torch.zeros_like(t)
        if scale.requires_grad:
            (expected,) = torch.autograd.grad(scale.sum(), t)
        assert torch.allclose(derivative.detach(), expected, rtol=1e-9, atol=1e-9)


@gaussians
def test_sde_gives_the_marginals(process):
    """d alpha/dt = f alpha and d sigma^2/dt = 2 f sigma^2 + g^2: the moment equations of dx = f x dt + g dW."""
    h = 1e-6
    for t in (0.05, 0.3, 0.7, 0.95):
        (a0, s0), (a, s), (a1, s1) = (process.alpha_sigma(v) for v in (t - h, t, t + h))
        f, g2 = process.drift(t), process.diffusion2(t)
        assert (a1 - a0) / (2 * h) == pytest.approx(f * a, rel=1e-5, abs=1e-6)
        assert (s1**2 - s0**2) / (2 * h) == pytest.approx(2 * f * s**2 + g2, rel=1e-5)
        assert g2 > 0


@gaussians
def test_floats_and_tensors_agree(process):
    for t in (0.02, 0.4, 0.97):
        tensor = torch.tensor([t], dtype=torch.float64)
        for f in (process.log_snr, process.drift, process.diffusion2):
            assert f(tensor).item() == pytest.approx(f(t), rel=1e-9)
        for f in (process.alpha_sigma, process.derivatives):
            assert [v.item() for v in f(tensor)] == pytest.approx(list(f(t)), rel=1e-9)


@gaussians
def test_log_snr_inverse(process):
    t = torch.linspace(1e-4, process.t_max, 200, dtype=torch.float64)
    log_snr = process.log_snr(t)
    assert (log_snr.diff() < 0).all()
    assert torch.allclose(process.t_of_log_snr(log_snr), t, rtol=1e-7, atol=1e-10)
    for v in t[::20].tolist():
        assert process.t_of_log_snr(process.log_snr(v)) == pytest.approx(v, rel=1e-7)


def test_published_forms():
    t = 0.37
    beta = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    chain = torch.cumprod(1 - beta, 0)  # DDPM
    for k in (100, 500, 900):
        assert 2 * math.log(VPLinear().alpha_sigma(k / 1000)[0]) == pytest.approx(chain[k - 1].log().item(), rel=0.01)
    alpha, sigma = VPLinear().alpha_sigma(t)
    assert alpha**2 + sigma**2 == pytest.approx(1)
    assert SubVP().alpha_sigma(t) == pytest.approx((alpha, 1 - alpha**2))
    alpha, sigma = VPCosine().alpha_sigma(t)
    assert alpha**2 + sigma**2 == pytest.approx(1)
    assert VPCosine().alpha_sigma(0.0)[1] == pytest.approx(1e-3) == VPCosine().alpha_sigma(1.0)[0]
    assert VE().alpha_sigma(0.0) == pytest.approx((1, 0.002)) and VE().alpha_sigma(1.0) == pytest.approx((1, 80))
    assert VE().alpha_sigma(0.5)[1] == pytest.approx(math.sqrt(0.002 * 80))
    assert RectifiedFlow().alpha_sigma(t) == pytest.approx((0.63, 0.37))
    assert EDM().alpha_sigma(t) == pytest.approx((1, 29.6))


@gaussians
def test_corrupt_then_renoise_has_the_marginal(process):
    x0 = torch.full(SHAPE, 0.7)
    noise = Noise.of(11, 64)
    for s, t in ((0.2, 0.5), (0.0, 0.3), (0.5, 0.95)):
        x_s = process.corrupt(x0, s, noise.at(1)) if s else x0 * process.alpha_sigma(0.0)[0]
        x_t = process.renoise(x_s, s, t, noise.at(2))
        alpha, sigma = process.alpha_sigma(t)
        if s == 0.0:  # from clean data: no noise of sigma(0) in x_s
            a0, s0 = process.alpha_sigma(0.0)
            sigma = math.sqrt(sigma**2 - (alpha / a0 * s0) ** 2)
        assert_normal(x_t, alpha * 0.7, sigma)


@gaussians
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_bridge_has_the_marginal(process, eta):
    x0 = torch.full(SHAPE, -0.4)
    noise = Noise.of(12, 64)
    for t, s in ((0.9, 0.5), (0.5, 0.45), (0.3, 0.02)):
        x_t = process.corrupt(x0, t, noise.at(1))
        x_s = process.bridge(x_t, t, s, process.posterior(x_t, t, x0), noise.at(2), eta=eta)
        (alpha_t, _), (alpha_s, sigma_s) = process.alpha_sigma(t), process.alpha_sigma(s)
        assert_normal(x_s, alpha_s * -0.4, sigma_s)
        if eta == 1.0:  # the Markov chain: Cov(x_s, x_t) = (alpha_t / alpha_s) sigma_s^2
            a, b = (x_s + 0.4 * alpha_s).double() / sigma_s, (x_t + 0.4 * alpha_t).double() / process.alpha_sigma(t)[1]
            correlation = alpha_t / alpha_s * sigma_s / process.alpha_sigma(t)[1]
            error = 4 * math.sqrt((1 + correlation**2) / a.numel())
            assert (a * b).mean().item() == pytest.approx(correlation, abs=error)


@gaussians
def test_bridge_ends_on_the_belief(process):
    lin = torch.full((4, 3), 0.25)
    x_t = process.corrupt(lin, 0.1, Noise.of(1, 4))
    got = process.bridge(x_t, 0.1, process.t_min, process.posterior(x_t, 0.1, lin), Noise.of(0, 4))
    alpha, sigma = process.alpha_sigma(process.t_min)
    assert (got - alpha * lin).abs().max() <= 6 * sigma


@gaussians
def test_posterior_says_one_thing_in_four_ways(process):
    x_t = torch.randn(8, 3, generator=torch.Generator().manual_seed(1)).double()
    lin = torch.randn(8, 3, generator=torch.Generator().manual_seed(2)).double()
    for t in (0.1, 0.6, 0.95):
        belief = process.posterior(x_t, t, lin)
        alpha, sigma = process.alpha_sigma(t)
        assert torch.allclose(alpha * lin + sigma * belief.eps, x_t)
        assert torch.allclose(belief.score, -belief.eps / sigma)
        flow = process.drift(t) * x_t - 0.5 * process.diffusion2(t) * belief.score  # Song et al. 2021, eq. 13
        assert torch.allclose(belief.velocity, flow, rtol=1e-9, atol=1e-9)
        per_sample = process.posterior(x_t, torch.full((8,), t, dtype=torch.float64), lin)
        assert torch.allclose(per_sample.velocity, belief.velocity)


@gaussians
def test_time_per_sample(process):
    x0 = torch.full((64, 3, 2), 0.5)
    t = torch.linspace(0.1, 0.9, 64)
    together = process.corrupt(x0, t, Noise.of(3, 64))
    for k in (0, 31, 63):
        alone = process.corrupt(x0[:1], t[k].item(), Noise.of(3, 1, first=k))
        assert torch.allclose(together[k : k + 1], alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", [X0(), Eps(), V(), Flow(), EDMTarget(0.5)], ids=lambda p: type(p).__name__)
@gaussians
def test_parameterisation_tells_x0(kind, process):
    g = torch.Generator().manual_seed(4)
    x0, eps, wrong = (torch.randn(16, 3, generator=g).double() for _ in range(3))
    for t in (0.05, 0.5, 0.9):
        alpha, sigma = process.alpha_sigma(t)
        x_t = alpha * x0 + sigma * eps
        y = kind.target(x0, eps, alpha, sigma)
        assert torch.allclose(kind.x0(x_t, y, alpha, sigma), x0, rtol=1e-6, atol=1e-6)
        # an error of y is an error of x0, by the stated weight
        error = (kind.x0(x_t, y + wrong, alpha, sigma) - x0).square().sum() * kind.x0_weight(alpha, sigma)
        assert error.item() == pytest.approx(wrong.square().sum().item(), rel=1e-6)


def test_targets_as_published():
    alpha, sigma = 0.6, 0.8
    x0, eps = torch.tensor([2.0]), torch.tensor([-1.0])
    assert X0().target(x0, eps, alpha, sigma).item() == 2.0
    assert Eps().target(x0, eps, alpha, sigma).item() == -1.0
    assert V().target(x0, eps, alpha, sigma).item() == pytest.approx(0.6 * -1 - 0.8 * 2)
    assert Flow().target(x0, eps, alpha, sigma).item() == -3.0
    d, s = 0.5, 3.0  # Karras et al. 2022, eq. 8: F = (x0 - c_skip (x0 + n)) / c_out
    c_skip, c_out = d**2 / (d**2 + s**2), s * d / math.sqrt(d**2 + s**2)
    assert EDMTarget(d).target(x0, eps, 1.0, s).item() == pytest.approx((2 - c_skip * (2 - s)) / c_out)


def test_edm_target_has_unit_variance():
    g = torch.Generator().manual_seed(5)
    x0, eps = 0.5 * torch.randn(100_000, generator=g), torch.randn(100_000, generator=g)
    for process in PROCESSES:
        for t in (0.1, 0.9):
            y = EDMTarget(0.5).target(x0, eps, *process.alpha_sigma(t))
            assert y.std().item() == pytest.approx(1, abs=0.02)


def test_eps_at_no_signal_says_what_to_do():
    with pytest.raises(SfumatoError, match="smaller t"):
        Eps().x0(torch.zeros(1), torch.zeros(1), *RectifiedFlow().alpha_sigma(1.0))


def kernel(process, keep: float) -> torch.Tensor:
    """Transition matrix [from, to] of an entry that stays with probability `keep`."""
    n = process.states
    fallen = torch.zeros(n, n, dtype=torch.float64)
    if isinstance(process, Absorbing):
        fallen[:, process.mask] = 1
    else:
        fallen[:] = 1 / n
    return keep * torch.eye(n, dtype=torch.float64) + (1 - keep) * fallen


@categoricals
def test_categorical_marginals(process):
    x0, noise = torch.full(SHAPE, 2), Noise.of(21, 64)
    for s, t in ((0.3, 0.6), (0.1, 0.95)):
        expected = kernel(process, process.alpha(t))[2]
        assert_shares(process.corrupt(x0, t, noise.at(1)), expected)
        x_s = process.corrupt(x0, s, noise.at(2))
        assert_shares(process.renoise(x_s, s, t, noise.at(3)), expected)
    assert_shares(process.prior(SHAPE, noise.at(4)), kernel(process, 0.0)[0])


@categoricals
def test_categorical_bridge_is_bayes(process):
    """q(x_s | x_t, x0) ~ q(x_t | x_s) q(x_s | x0), entry by entry, from the transition matrices."""
    t, s, x0, noise = 0.7, 0.4, 2, Noise.of(22, 64)
    up, first = kernel(process, process.alpha(t) / process.alpha(s)), kernel(process, process.alpha(s))[x0]
    logits = torch.full((*SHAPE[:1], 5, SHAPE[1]), -math.inf)
    logits[:, x0] = 0.0
    for x_t in range(process.states):
        bayes = up[:, x_t] * first
        if bayes.sum() == 0:
            continue
        here = torch.full(SHAPE, x_t)
        x_s = process.bridge(here, t, s, process.posterior(here, t, logits), noise.at(x_t))
        assert_shares(x_s, bayes / bayes.sum())


@categoricals
def test_categorical_belief(process):
    shares = torch.tensor([0.1, 0.2, 0.05, 0.4, 0.25], dtype=torch.float64)
    x = torch.zeros(SHAPE, dtype=torch.int64)
    lin = shares.log().float().reshape(1, 5, 1).expand(64, 5, 400)
    belief = process.posterior(x, 0.5, lin)
    assert_shares(belief.draw(Noise.of(23, 64)), shares)
    assert (belief.x0 == 3).all()
    known = torch.zeros(SHAPE, dtype=torch.bool)
    known[:, :10] = True
    pinned = belief.observe(known, torch.full(SHAPE, 1)).draw(Noise.of(23, 64))
    assert (pinned[:, :10] == 1).all() and (pinned[:, 10:] != 1).any()
    assert_shares(pinned[:, 10:], shares)
