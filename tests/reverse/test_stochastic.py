"""Stochastic solvers against exact marginals; unmasking against an exact joint."""

from __future__ import annotations

import math

import pytest
import torch
from scipy import stats
from truth import PROCESSES, gaussian, name, t_at, u_at

from sfumato.core import Noise, SfumatoError
from sfumato.forward import Absorbing, Uniform, VPLinear
from sfumato.guide import observe
from sfumato.measure.oracles import Sequences
from sfumato.reverse import (
    DDIM,
    SOLVERS,
    Ancestral,
    EulerMaruyama,
    Heun,
    PredictorCorrector,
    Unmask,
    pick_grid,
    sample,
    uniform,
    walk,
)

SDE_SOLVERS = [
    Ancestral(),
    DDIM(eta=0.5),
    EulerMaruyama(),
    PredictorCorrector(),
    PredictorCorrector(EulerMaruyama()),
    PredictorCorrector(Heun(), corrections=2),
]
LEAST_P = 1e-4


def many(shape: tuple[int, ...], seed: int):
    return Noise.of(seed, shape[0])


@pytest.mark.parametrize("solver", SDE_SOLVERS, ids=repr)
@pytest.mark.parametrize("process", PROCESSES, ids=name)
def test_sde_solvers_keep_the_marginals(process, solver):
    """From exact draws at sigma / alpha = 2 to exact draws at 0.25, in 150 moves: KS on both axes, 8,000 samples each.

    The discretisation's own error at 150 moves (about 1 % of the spread) is below what 8,000 samples show.
    """
    oracle = gaussian(process)
    t, s, n = t_at(process, 2.0), t_at(process, 0.25), 8000
    u = torch.linspace(math.log(2.0), math.log(0.25), 151, dtype=torch.float64).exp()
    grid = torch.tensor([t_at(process, v) for v in u.tolist()], dtype=torch.float64)

    class Flat:
        """The oracle on 16 long rows, so that 16 generators serve 8,000 samples."""

        def __init__(self):
            self.process = process

        def __call__(self, x, t, cond=None):
            belief = oracle(x.reshape(n, 2), t)
            return process.posterior(x, t, belief.x0.reshape(x.shape))

    noise = many((16,), 31)
    alpha, sigma = process.alpha_sigma(t)
    shape = (16, n // 16, 2)
    x = alpha * (oracle.mean + oracle.covariance.sqrt() * noise.at(100_000).normal(shape))
    x = x + sigma * noise.at(100_001).normal(shape)
    for step in walk(Flat(), solver, grid, x, noise):
        x = step.x
    alpha, sigma = process.alpha_sigma(s)
    for axis in (0, 1):
        std = math.sqrt(alpha**2 * oracle.covariance[axis].item() + sigma**2)
        z = (x[..., axis].double().flatten() - alpha * oracle.mean[axis].item()) / std
        assert z.mean().item() == pytest.approx(0, abs=4 / math.sqrt(n) + 0.01)
        assert z.std().item() == pytest.approx(1, abs=4 / math.sqrt(2 * n) + 0.02)
        assert stats.kstest(z.numpy(), "norm").pvalue > LEAST_P


@pytest.mark.parametrize("process", PROCESSES, ids=name)
def test_euler_maruyama_is_of_weak_order_one(process):
    """The exact recursion of the variance under the solver's own linear moves, read off with two inputs: no chance."""
    oracle = gaussian(process)

    class Fixed:
        """Noise that is all `value`."""

        def __init__(self, value):
            self.value = value

        def at(self, *keys):
            return self

        def normal(self, shape, device="cpu"):
            return torch.full(tuple(shape), self.value, dtype=torch.float64)

    errors = []
    for n in (100, 200):
        grid = torch.linspace(t_at(process, 2.0), t_at(process, 0.25), n + 1, dtype=torch.float64).tolist()
        alpha, sigma = process.alpha_sigma(grid[0])
        variance = alpha**2 * oracle.covariance.double() + sigma**2
        solver, zero, one = EulerMaruyama(), torch.zeros(1, 2).double(), torch.ones(1, 2).double()
        for t, s in zip(grid, grid[1:], strict=False):
            base = solver.step(oracle, zero, t, s, None, Fixed(0.0))[0]
            gain = solver.step(oracle, one, t, s, None, Fixed(0.0))[0] - base
            spread = solver.step(oracle, zero, t, s, None, Fixed(1.0))[0] - base
            variance = gain**2 * variance + spread**2
        alpha, sigma = process.alpha_sigma(grid[-1])
        errors.append((variance - (alpha**2 * oracle.covariance.double() + sigma**2)).abs().max().item())
    assert abs(math.log2(errors[0] / errors[1]) - 1) < 0.3


def joint() -> tuple[torch.Tensor, torch.Tensor]:
    """Six sequences of four entries with strong dependence, unequal weights."""
    rows = [[0, 0, 0, 0], [1, 1, 1, 1], [2, 2, 2, 2], [0, 1, 2, 0], [2, 1, 0, 2], [0, 0, 2, 2]]
    return torch.tensor(rows), torch.tensor([0.3, 0.2, 0.1, 0.15, 0.15, 0.1])


def counts_of(x: torch.Tensor) -> torch.Tensor:
    rows, _ = joint()
    same = (x.unsqueeze(1) == rows).all(2)
    assert same.any(1).all(), "a sequence that the data does not have"
    return same.double().sum(0)


@pytest.mark.parametrize("grid", ["uniform", "cosine"])
def test_random_unmasking_one_by_one_draws_the_exact_joint(grid):
    """As many moves as entries reveal at most one each: any-order autoregression, exact. 3,000 draws, chi-square."""
    rows, weights = joint()
    process, n = Absorbing(3), 3000
    x = sample(
        Sequences(process, rows, weights), (n, 4), Noise.of(41, n), Unmask("random"), pick_grid(grid)(16, process)
    )
    expected = weights.double() / weights.double().sum() * n
    assert stats.chisquare(counts_of(x).numpy(), expected.numpy()).pvalue > LEAST_P


@pytest.mark.parametrize("process", [Absorbing(3), Uniform(3), Absorbing(3, "cosine")], ids=repr)
def test_ancestral_draws_the_joint_in_the_limit(process):
    """200 moves of the categorical bridge: total variation to the joint below 5 % over 3,000 draws (15 rows of 200)."""
    rows, weights = joint()
    oracle = Sequences(process, rows, weights)

    class Flat:
        def __init__(self):
            self.process = process

        def __call__(self, x, t, cond=None):
            logits = oracle(x.reshape(-1, 4), t).lin
            return process.posterior(x, t, logits.reshape(15, 200, 3, 4).movedim(2, 1))

    x = sample(Flat(), (15, 200, 4), Noise.of(42, 15), Ancestral(), uniform(200, process)).reshape(-1, 4)
    same = (x.unsqueeze(1) == rows).all(2).double().mean(0)
    assert 0.5 * ((same - weights).abs().sum() + (1 - same.sum())) < 0.05


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_unmask_by_confidence(temperature):
    """Every sequence is one of the data's; nothing shown is ever changed; the counts fall as the grid says."""
    rows, weights = joint()
    process = Absorbing(3)
    denoise, solver, grid = Sequences(process, rows, weights), Unmask(temperature=temperature), uniform(4, process)
    x = process.prior((200, 4), Noise.of(43, 200))
    for i, step in enumerate(walk(denoise, solver, grid, x, Noise.of(43, 200))):
        shown = x != process.mask
        assert torch.equal(step.x[shown], x[shown])
        assert ((step.x == process.mask).sum(1) == 3 - i).all()
        x = step.x
    counts_of(x)


def test_unmask_shows_the_surest_first():
    """Without temperature: the entry of the drawn class with the highest probability."""
    process = Absorbing(2)

    class Belief:
        def __init__(self):
            self.process = process

        def __call__(self, x, t, cond=None):
            odds = torch.tensor([0.0, 1.0, 9.0, 2.0]).expand(len(x), 4)
            return process.posterior(x, t, torch.stack([odds, -odds], 1))

    x = process.prior((50, 4), Noise.of(0, 50))
    x, _ = Unmask(temperature=0.0).step(Belief(), x, 1.0, 0.75, None, Noise.of(0, 50))
    assert (x[:, 2] == 0).float().mean() > 0.95 and ((x == process.mask).sum(1) == 3).all()


def test_unmask_with_pinned_entries():
    rows, weights = joint()
    process = Absorbing(3)
    known = torch.tensor([True, False, False, False]).expand(300, 4)
    denoise = observe(known, torch.full((300, 4), 2))(Sequences(process, rows, weights))
    for solver in (Unmask("confidence", 0.0), Ancestral()):
        x = sample(denoise, (300, 4), Noise.of(44, 300), solver, uniform(8, process))
        assert (x[:, 0] == 2).all() and (x != process.mask).all()


def test_wrong_meeting_of_solver_and_process_names_what_works():
    denoise = Sequences(Uniform(3), *joint())
    with pytest.raises(SfumatoError, match=r"Heun needs a linear process.*use ddpm$"):
        sample(denoise, (1, 4), Noise.of(0, 1), Heun(), uniform(4, denoise.process))
    with pytest.raises(SfumatoError, match=r"use ddpm, unmask, unmask-random$"):
        next(
            walk(Sequences(Absorbing(3), *joint()), Heun(), uniform(4, Absorbing(3)), torch.zeros(1, 4), Noise.of(0, 1))
        )
    with pytest.raises(SfumatoError, match="Unmask needs a masked process.*ddim.*heun"):
        sample(gaussian(VPLinear()), (1, 2), Noise.of(0, 1), Unmask(), uniform(4, VPLinear()))
    for make in SOLVERS.values():
        assert make().needs in ("any", "linear", "masked") and make().order >= 0


def test_noise_free_last_move():
    """Where sigma(s) = 0 every stochastic solver ends on its belief, without noise on top."""
    for process in PROCESSES:
        if u_at(process, process.t_min) > 0:
            continue
        oracle = gaussian(process)
        x = torch.full((2, 2), 0.1)
        for solver in SDE_SOLVERS:
            ended = solver.step(oracle, x, 0.01, process.t_min, solver.init(), Noise.of(0, 2))[0]
            assert torch.allclose(ended, oracle(x, 0.01).x0, atol=1e-6)
