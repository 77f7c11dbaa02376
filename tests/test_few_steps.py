"""Consistency tuning against closed forms: on known data the end of every path is known."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from training import FLOAT32

from sfumato.core import Batch, Cond, Noise, Slot
from sfumato.data import Source
from sfumato.denoiser import Denoiser, Flow, UNetConfig, V
from sfumato.forward import EDM, VE, RectifiedFlow, SubVP, VPCosine, VPLinear
from sfumato.guide import cfg
from sfumato.measure.oracles import Gaussian, Mixture
from sfumato.reverse import Renoise, pick_grid, pick_solver, sample
from sfumato.train import Budget, Consistency, LogNormalTimes, Optimiser, Recipe, Taught, Trainer, load_weights

PROCESSES = [VPLinear(), VPCosine(), SubVP(), VE(), RectifiedFlow(), EDM()]
by_name = {"ids": lambda p: type(p).__name__}
MEAN, VARIANCE = torch.tensor([[[0.3, -0.2]]]), torch.tensor([0.09, 0.02])


class Small(nn.Module):
    """A network of 2-D points, given as pictures of 1 x 2 pixels."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        sizes = [(9, width), (width, width), (width, width)]
        self.body = nn.Sequential(*(m for s in sizes for m in (nn.Linear(*s), nn.SiLU())), nn.Linear(width, 2))

    def forward(self, x: Tensor, level: Tensor, cond: Cond) -> Tensor:
        waves = [wave(k * level) for k in (2, 4, 8) for wave in (torch.sin, torch.cos)]
        return self.body(torch.cat([x.flatten(1), torch.stack([level, *waves], 1)], 1)).reshape(x.shape)


class Ends:
    """The exact end of the path through x, as a consistency model would believe it."""

    def __init__(self, oracle: Gaussian) -> None:
        self.oracle, self.process = oracle, oracle.process

    def __call__(self, x: Tensor, t: Tensor, cond: Cond = Cond()):  # noqa: B008 - Cond is immutable
        end = torch.cat([self.oracle.flow(x[k : k + 1].double(), float(t[k]), 0.0) for k in range(len(x))])
        return self.process.posterior(x, t, end)


def points(oracle: Gaussian | Mixture, n: int = 4000) -> Source:
    x = oracle.draw(Noise.of(0, n)).reshape(n, 1, 2, 1)
    pixels = ((x.clamp(-1, 1) + 1) * 127.5).round().numpy().astype(np.uint8)
    return Source("points", pixels, tuple(map(str, range(n))))


@pytest.mark.parametrize("process", PROCESSES, **by_name)
def test_the_earlier_time_nears_t_by_stages_and_never_passes_the_data(process) -> None:
    t = torch.linspace(process.t_min, process.t_max, 50)[1:]
    objective = Consistency(stages=8)
    before = None
    for stage in range(8):
        r = objective.earlier(process, t, stage / 8 + 0.01)
        assert (r >= process.t_min).all() and (r < t).all()
        assert before is None or (r >= before - 1e-6).all()
        before = r
    u, u_r = (torch.exp(-0.5 * process.log_snr(v.double())) for v in (t, before))
    gap, expected = 1 - u_r / u, (1 + 8 * torch.sigmoid(-u)) / 256
    inside = before > process.t_min
    assert inside.sum() > 40 and torch.allclose(gap[inside], expected[inside], atol=2e-3)
    first = objective.earlier(process, t, 0.0)  # 1 - n / 2, n = 1 + 8 sigmoid(-u): the data unless u is above 1.9
    assert (first[u < 1.9] <= process.t_min).all()


def test_an_exact_consistency_model_has_almost_no_loss_and_a_denoiser_has_one() -> None:
    """The teacher's path is the exact flow here, so f(x_t, t) = f(x_r, r) but for one short Euler step."""
    process = RectifiedFlow()
    oracle = Gaussian(process, MEAN.double(), VARIANCE)
    x0 = oracle.draw(Noise.of(1, 64)).double()
    t = torch.linspace(0.05, 0.95, 64, dtype=torch.float64)
    objective = Consistency(stages=8, huber=1e-6)

    def loss(denoise) -> float:
        return float(objective.losses(denoise, Batch(x0), t, Noise.of(2, 64), 1.0, teacher=oracle).mean())

    assert loss(Ends(oracle)) < 0.03 * loss(oracle)


def test_a_stopped_target_gets_no_gradient() -> None:
    process = RectifiedFlow()
    denoiser = Denoiser(Small(), process, Flow(), 0.4)
    x0, t = torch.randn(8, 1, 1, 2, generator=torch.Generator().manual_seed(0)), torch.full((8,), 0.6)
    loss = Consistency(stages=8, huber=1.0).losses(denoiser, Batch(x0), t, Noise.of(0, 8), 1.0)
    loss.sum().backward()
    gradient = [p.grad.clone() for p in denoiser.parameters()]
    # by hand: only the answer at t moves
    x_t = process.corrupt(x0, t, Noise.of(0, 8))
    r = Consistency(stages=8).earlier(process, t, 1.0)
    x_r = process.corrupt(x0, r, Noise.of(0, 8))
    denoiser.zero_grad()
    with torch.no_grad():
        target = denoiser(x_r, r).x0
    weight = Flow().x0_weight(1 - t, t)
    away = weight * (denoiser(x_t, t).x0 - target).square().flatten(1).mean(1)
    ((away + 1).sqrt() - 1).sum().backward()
    for p, g in zip(denoiser.parameters(), gradient, strict=True):
        assert torch.allclose(p.grad, g, rtol=1e-3, atol=1e-6)


def trained(oracle, parameterisation, teacher: bool = False, steps: int = 700) -> tuple[Denoiser, Denoiser]:
    """A denoiser of the oracle's data, and what consistency tuning makes of it."""
    process = oracle.process
    recipe = Recipe(
        net=UNetConfig(patch=1, widths=(8,), blocks=(1,)),
        process=process,
        parameterisation=parameterisation,
        batch=128,
        optimiser=Optimiser(rate=2e-3, muon=0.0, warmup=20),
        times=LogNormalTimes(0.0, 1.2),
    )
    made = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        denoiser = Denoiser(Small(), process, parameterisation, 0.4)
    source = points(oracle)
    for tuning in (False, True):
        objective = Consistency()
        if tuning:
            recipe = dataclasses.replace(recipe, objective=objective, times=LogNormalTimes(0.5, 2.0))
        trainer = Trainer(
            denoiser,
            recipe,
            source,
            Budget(steps=steps if tuning else 400),
            FLOAT32,
            Taught(objective, made[0]) if tuning and teacher else None,
        )
        for _ in trainer.steps():
            pass
        load_weights(denoiser, trainer.ema.averages[1])
        kept = Denoiser(Small(), process, parameterisation, 0.4)
        load_weights(kept, dict(denoiser.named_parameters()))
        made.append(kept.requires_grad_(False))
    return made[0], made[1]


def one_call(denoise, n: int = 2000) -> Tensor:
    process = denoise.process
    grid = torch.tensor([process.t_max, process.t_min], dtype=torch.float64)
    return sample(denoise, (n, 1, 1, 2), Noise.of(3, n), Renoise(), grid).reshape(n, 2)


@pytest.mark.parametrize(
    ("process", "parameterisation", "teacher"),
    [
        (RectifiedFlow(), Flow(), False),
        pytest.param(RectifiedFlow(), Flow(), True, marks=pytest.mark.slow),
        pytest.param(VPCosine(), V(), False, marks=pytest.mark.slow),
    ],
)
def test_a_tuned_net_approaches_the_known_function(process, parameterisation, teacher) -> None:
    """On a Gaussian the end of the path is m + (x - alpha m) sqrt(V_0 / V_t)."""
    oracle = Gaussian(process, MEAN, VARIANCE)
    base, tuned = trained(oracle, parameterisation, teacher)
    x = process.prior((2000, 1, 1, 2), Noise.of(3, 2000).at(-1))
    truth = oracle.flow(x, process.t_max, process.t_min).reshape(-1, 2)
    before, after = one_call(base), one_call(tuned)
    assert (after - truth).square().mean().sqrt() < 0.5 * (before - truth).square().mean().sqrt()
    assert torch.allclose(after.mean(0), truth.mean(0), atol=0.08)
    assert torch.allclose(after.std(0), truth.std(0), rtol=0.25)
    if isinstance(parameterisation, Flow):  # V's net is not yet at the mean of pure noise after these few steps
        assert (before.std(0) < 0.5 * truth.std(0)).all()  # a mean is no sample: what tuning is for


def test_the_guidance_of_a_teacher_is_learned_in() -> None:
    """The target of a taught step lies where the guided belief moves x_t."""
    process = RectifiedFlow()
    oracle = Mixture(process, torch.tensor([[[[0.5, 0.0]]], [[[-0.5, 0.0]]]]), 0.05)
    cond = Cond({"class": Slot(torch.zeros(4, dtype=torch.int64), "vector")})
    x0, t = torch.zeros(4, 1, 1, 2), torch.full((4,), 0.6)
    x_t = process.corrupt(x0, t, Noise.of(0, 4))
    objective, guided = Consistency(stages=1, huber=1e-6, guidance=3.0), cfg(3.0)(oracle)
    got = Taught(objective, guided).losses(oracle, Batch(x0, cond), t, Noise.of(0, 4), 0.0)
    aim = guided(x_t, t, cond).x0
    weight = Flow().x0_weight(1 - t, t)
    expected = (weight * (oracle(x_t, t, cond).x0 - aim).square().flatten(1).mean(1)).sqrt()
    assert (objective.earlier(process, t, 0.0) == 0).all() and torch.allclose(got, expected, atol=1e-4)
    assert (expected > 0.05).all()


@pytest.mark.parametrize("process", PROCESSES, **by_name)
def test_renoising_is_a_move_down_and_a_move_up(process) -> None:
    """One step of the solver is the mean of x0 put to s with fresh noise, as the process corrupts data."""
    oracle = Gaussian(process, MEAN, VARIANCE)
    x = process.prior((8, 1, 1, 2), Noise.of(5, 8))
    t, s = process.t_max, 0.4
    moved, _ = pick_solver("consistency").step(oracle, x, t, s, None, Noise.of(6, 8))
    alpha, sigma = process.alpha_sigma(s)
    assert torch.allclose(moved, alpha * oracle(x, t).x0 + sigma * Noise.of(6, 8).normal(x.shape))


def test_more_calls_of_an_exact_consistency_model_keep_the_distribution() -> None:
    process = RectifiedFlow()
    ends = Ends(Gaussian(process, MEAN.double(), VARIANCE))

    def believe(x, t, cond=Cond()):  # noqa: B008 - Cond is immutable
        return ends(x, torch.full((len(x),), t, dtype=torch.float64), cond)

    believe.process = process
    for calls in (1, 2, 4):
        x = sample(believe, (4000, 1, 1, 2), Noise.of(7, 4000), Renoise(), pick_grid("flow")(calls, process))
        x = x.reshape(-1, 2)
        assert torch.allclose(x.mean(0), MEAN.reshape(2).double(), atol=0.02)
        assert torch.allclose(x.var(0), VARIANCE.double(), rtol=0.08)
