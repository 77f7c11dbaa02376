"""Which noise levels are visited, and what is minimised there."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from scipy import stats
from torch import Tensor, nn

from sfumato.core import Noise
from sfumato.denoiser import X0, CategoricalDenoiser, EDMTarget, Eps, Flow, V
from sfumato.forward import EDM, VE, Absorbing, RectifiedFlow, SubVP, Uniform, VPCosine, VPLinear
from sfumato.train import CrossEntropy, LogNormalTimes, MinSNR, SquaredError, UniformTimes
from sfumato.train.times import stratified

torch.set_num_threads(1)
PROCESSES = [VPLinear(), VPCosine(), SubVP(), VE(), RectifiedFlow(), EDM()]
TARGETS = [X0(), Eps(), V(), Flow(), EDMTarget(0.5)]
by_name = {"ids": lambda p: type(p).__name__}


def even(n: int) -> Tensor:
    return (torch.arange(n) + 0.5) / n


@pytest.mark.parametrize("process", PROCESSES, **by_name)
def test_uniform_times_are_uniform_between_the_ends(process) -> None:
    u = torch.rand(20_000, generator=torch.Generator().manual_seed(0))
    t = UniformTimes().quantile(u, process)
    low, high = process.t_min, process.t_max
    assert stats.kstest(t.numpy(), stats.uniform(low, high - low).cdf).pvalue > 1e-3


@pytest.mark.parametrize("process", PROCESSES, **by_name)
@pytest.mark.parametrize(("mean", "std"), [(0.0, 1.0), (-1.2, 1.2)])
def test_log_normal_times_are_log_normal_in_sigma_over_alpha(process, mean, std) -> None:
    u = torch.rand(20_000, generator=torch.Generator().manual_seed(1))
    t = LogNormalTimes(mean, std).quantile(u, process)
    assert t.dtype == torch.float32 and (t >= process.t_min).all() and (t <= process.t_max).all()
    inside = (t > max(process.t_min, 1e-5)) & (t < process.t_max)
    assert inside.float().mean() > 0.99
    ratio = (-process.log_snr(t[inside].double()) / 2).numpy()
    assert stats.kstest(ratio, stats.norm(mean, std).cdf).statistic < 0.015  # 20,000 draws: 1e-3 level is 0.0138


def test_log_normal_times_on_flow_are_the_logit_normal() -> None:
    t = LogNormalTimes(0.3, 0.8).quantile(even(2000), RectifiedFlow()).double().numpy()
    assert stats.kstest(stats.logistic.ppf(t), stats.norm(0.3, 0.8).cdf).statistic < 2e-3


def test_log_normal_times_on_edm_are_karras_sigmas() -> None:
    t = LogNormalTimes(-1.2, 1.2).quantile(even(2000), EDM()).double().numpy()
    assert stats.kstest(80 * t, stats.lognorm(1.2, scale=math.exp(-1.2)).cdf).statistic < 2e-3


@pytest.mark.parametrize("times", [UniformTimes(), LogNormalTimes()], **by_name)
@pytest.mark.parametrize("process", PROCESSES, **by_name)
def test_quantiles_rise_and_are_finite_to_the_ends(times, process) -> None:
    u = torch.cat([torch.zeros(1), torch.tensor([1e-7, 1e-6]), even(100), torch.ones(1)])
    t = times.quantile(u, process)
    assert t.isfinite().all() and (t.diff() >= 0).all() and t.unique().numel() > 90


def test_stratified_draws_fill_every_stratum_once_and_stay_uniform() -> None:
    generator = torch.Generator().manual_seed(2)
    batches = torch.stack([stratified(torch.rand(32, generator=generator)) for _ in range(2000)])
    assert (batches.mul(32).floor().clamp_max(31).sort(1).values == torch.arange(32)).all()
    assert stats.kstest(batches.flatten().numpy(), "uniform").pvalue > 1e-3
    spread = batches.mean(1).std()
    assert spread < 0.2 * (1 / 12 / 32) ** 0.5  # far below that of independent draws


@pytest.mark.parametrize("process", PROCESSES, **by_name)
@pytest.mark.parametrize("space", TARGETS, **by_name)
@pytest.mark.parametrize("predicted", TARGETS, **by_name)
def test_squared_error_is_the_plain_mse_in_its_space(process, space, predicted) -> None:
    n = 6
    t = torch.linspace(0.15, 0.85, n, dtype=torch.float64)
    x0, noise = Noise.of(0, n).normal((n, 2, 3, 3)).double(), Noise.of(1, n)
    alpha, sigma = (v.reshape(n, 1, 1, 1) for v in process.alpha_sigma(t))
    eps = noise.normal((n, 2, 3, 3)).double()
    x_t = alpha * x0 + sigma * eps
    y = predicted.target(x0, eps, alpha, sigma) + 0.3 * Noise.of(2, n).normal((n, 2, 3, 3)).double()
    guess = predicted.x0(x_t, y, alpha, sigma)
    guessed_eps = (x_t - alpha * guess) / sigma
    direct = space.target(guess, guessed_eps, alpha, sigma) - space.target(x0, eps, alpha, sigma)
    loss = SquaredError(space, floor=0.0)(process.posterior(x_t, t, guess), x0)
    assert loss.shape == (n,)
    assert torch.allclose(loss, direct.square().mean((1, 2, 3)), rtol=1e-6)


@pytest.mark.parametrize("space", TARGETS, **by_name)
def test_the_floor_bounds_the_weight_near_the_data(space) -> None:
    t = torch.tensor([0.0, 1e-6, 0.01, 0.05, 0.3])
    belief = RectifiedFlow().posterior(torch.zeros(5, 1, 1, 1), t, torch.ones(5, 1, 1, 1))
    held = SquaredError(space, floor=0.05)(belief, torch.zeros(5, 1, 1, 1))
    assert held.isfinite().all() and held.max() < 500
    free = SquaredError(space, floor=1e-4)(belief, torch.zeros(5, 1, 1, 1))
    assert torch.allclose(held[3:], free[3:])


def test_min_snr_is_the_published_weight() -> None:
    """Hang et al. 2023: min(SNR, gamma) on the squared error of x0, that is min(gamma / SNR, 1) on that of eps."""
    n, process = 9, VPLinear()
    t = torch.linspace(0.05, 0.95, n, dtype=torch.float64)
    alpha, sigma = process.alpha_sigma(t)
    snr = (alpha / sigma) ** 2
    assert (snr > 5).any() and (snr < 5).any()
    x0, guess = Noise.of(0, n).normal((n, 4)).double(), Noise.of(1, n).normal((n, 4)).double()
    loss = SquaredError(Eps(), MinSNR(5.0), floor=0.0)(process.posterior(x0, t, guess), x0)
    assert torch.allclose(loss, snr.clamp_max(5.0) * (guess - x0).square().mean(1))


def brute_cross_entropy(lin: Tensor, x_t: Tensor, x0: Tensor, counted: list[list[bool]]) -> list[float]:
    found = []
    for b in range(len(x0)):
        terms = [
            -math.log(math.exp(lin[b, x0[b, i], i]) / sum(math.exp(v) for v in lin[b, :, i].tolist()))
            for i in range(x0.shape[1])
            if counted[b][i]
        ]
        found.append(sum(terms) / max(1, len(terms)))
    return found


@pytest.mark.parametrize("process", [Absorbing(4), Uniform(4), Absorbing(4, "cosine")], ids=str)
def test_cross_entropy_against_a_loop(process) -> None:
    x0 = torch.arange(60).reshape(6, 10) * 7 % 4
    t = torch.tensor([0.0, 0.2, 0.5, 0.8, 0.95, 1.0])
    x_t = process.corrupt(x0, t, Noise.of(0, 6))
    lin = Noise.of(1, 6).normal((6, 4, 10))
    hidden = [[isinstance(process, Uniform) or bool(x == 4) for x in row] for row in x_t]
    loss = CrossEntropy(process)(process.posterior(x_t, t, lin), x0)
    assert loss.tolist() == pytest.approx(brute_cross_entropy(lin, x_t, x0, hidden), rel=1e-4)


JOINT = torch.tensor([[0.30, 0.05, 0.02], [0.03, 0.25, 0.05], [0.10, 0.02, 0.18]])


class TwoTokens(nn.Module):
    """Logits of two tokens of three classes from both one-hot states and the level."""

    def __init__(self, states: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(2 * states + 2, 64), nn.SiLU(), nn.Linear(64, 64), nn.SiLU(), nn.Linear(64, 6)
        )

    def forward(self, x: Tensor, level: Tensor, cond) -> Tensor:
        return self.layers(torch.cat([x.flatten(1), level[:, None], level[:, None] ** 2], 1)).reshape(-1, 3, 2)


def exact_marginals(process, x_t: tuple[int, int], t: float) -> Tensor:
    """p(x0_i | x_t) for both tokens [3, 2] by adding up all nine pairs."""
    alpha = process.alpha(t)

    def seen(x: int, clean: int) -> float:
        if isinstance(process, Absorbing):
            return (1 - alpha) if x == process.mask else alpha * (x == clean)
        return alpha * (x == clean) + (1 - alpha) / 3

    joint = torch.tensor([[JOINT[a, b] * seen(x_t[0], a) * seen(x_t[1], b) for b in range(3)] for a in range(3)])
    joint = joint / joint.sum()
    return torch.stack([joint.sum(1), joint.sum(0)], 1)


@pytest.mark.parametrize("process", [Absorbing(3), Uniform(3)], ids=lambda p: type(p).__name__)
def test_training_on_cross_entropy_finds_the_exact_posterior(process) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        denoiser = CategoricalDenoiser(TwoTokens(process.states), process)
    optimiser = torch.optim.Adam(denoiser.parameters(), lr=3e-3)
    generator, objective, steps, n = torch.Generator().manual_seed(0), CrossEntropy(process), 400, 512
    for step in range(steps):
        flat = torch.multinomial(JOINT.flatten(), n, replacement=True, generator=generator)
        x0 = torch.stack([flat // 3, flat % 3], 1)
        t = stratified(torch.rand(n, generator=generator))
        # `corrupt` draws per sample from Noise; one generator for the batch is the same law and far quicker
        stays = torch.rand(n, 2, generator=generator) < process.alpha(t)[:, None]
        fallen = (
            torch.full_like(x0, 3) if isinstance(process, Absorbing) else torch.randint(3, (n, 2), generator=generator)
        )
        objective(denoiser(torch.where(stays, x0, fallen), t), x0).mean().backward()
        optimiser.param_groups[0]["lr"] = 3e-3 * (1 - step / steps)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
    for x_t in itertools.product(range(process.states), repeat=2):
        for t in (0.3, 0.6, 0.9):
            with torch.no_grad():
                found = denoiser(torch.tensor([x_t]), t).probabilities[0]
            exact = exact_marginals(process, x_t, t)
            asked = [i for i in range(2) if isinstance(process, Uniform) or x_t[i] == process.mask]
            assert (found - exact)[:, asked].abs().max() < 0.06 if asked else True, (x_t, t)
