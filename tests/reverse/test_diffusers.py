"""The same network function, noise and times give what diffusers' schedulers give, to 1e-4 of their scale."""

from __future__ import annotations

import math

import pytest
import torch
from diffusers.schedulers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    HeunDiscreteScheduler,
    UniPCMultistepScheduler,
)
from truth import t_at

from sfumato.core import Noise
from sfumato.forward import EDM, VPLinear
from sfumato.reverse import DDIM, DDPM, DPMpp2M, Euler, Heun, UniPC, walk

SHAPE = (3, 3, 8, 8)
CHAIN = dict(num_train_timesteps=1000, beta_start=1e-4, beta_end=0.02, beta_schedule="linear")
WEIGHT = torch.randn(SHAPE[1:], generator=torch.Generator().manual_seed(9))


def network(x: torch.Tensor, u: float) -> torch.Tensor:
    """Some smooth eps for x scaled to unit variance; no belief about anything, so every coefficient matters."""
    return 0.8 * x + 0.4 * torch.sin(x * WEIGHT + 0.3 * math.log(u)) + 0.1


class Denoise:
    def __init__(self, process):
        self.process = process

    def __call__(self, x, t, cond=None):
        alpha, sigma = self.process.alpha_sigma(t)
        eps = network(x / math.hypot(alpha, sigma), sigma / alpha)
        return self.process.posterior(x, t, (x - sigma * eps) / alpha)


def ours(process, solver, levels: list[float], x: torch.Tensor, noise: Noise) -> list[torch.Tensor]:
    """The walk over sigma / alpha = `levels`; 0 is t_min."""
    grid = torch.tensor([t_at(process, u) if u > 0 else process.t_min for u in levels], dtype=torch.float64)
    return [step.x for step in walk(Denoise(process), solver, grid, x, noise)]


def assert_same(ours: list[torch.Tensor], theirs: list[torch.Tensor]) -> None:
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs, strict=True):
        assert (a - b).abs().max() < 1e-4 * b.std()


@pytest.mark.parametrize("eta", [0.0, 0.7, 1.0])
@pytest.mark.parametrize("steps", [10, 50])
def test_ddim(steps, eta):
    scheduler = DDIMScheduler(**CHAIN, clip_sample=False, timestep_spacing="leading")
    scheduler.set_timesteps(steps)
    noise = Noise.of(7, SHAPE[0])
    x = first = noise.at(-1).normal(SHAPE)
    levels, theirs = [], []
    for i, k in enumerate(scheduler.timesteps):
        bar = scheduler.alphas_cumprod[k].item()
        levels.append(math.sqrt((1 - bar) / bar))
        z = noise.at(i).normal(SHAPE)
        x = scheduler.step(network(x, levels[-1]), k, x, eta=eta, variance_noise=z if eta else None).prev_sample
        theirs.append(x)
    assert_same(ours(VPLinear(), DDIM(eta), [*levels, 0.0], first, noise), theirs)


def vp_levels(scheduler) -> list[float]:
    return scheduler.sigmas.tolist()


def vp_run(scheduler, steps: int) -> tuple[torch.Tensor, list[torch.Tensor]]:
    scheduler.set_timesteps(steps)
    x = first = Noise.of(8, SHAPE[0]).normal(SHAPE)
    theirs = []
    for k, u in zip(scheduler.timesteps, vp_levels(scheduler), strict=False):
        x = scheduler.step(network(x, u), k, x).prev_sample
        theirs.append(x)
    return first, theirs


@pytest.mark.parametrize("steps", [5, 12, 30])
def test_dpmpp2m(steps):
    scheduler = DPMSolverMultistepScheduler(**CHAIN, algorithm_type="dpmsolver++", solver_order=2)
    first, theirs = vp_run(scheduler, steps)
    assert_same(ours(VPLinear(), DPMpp2M(), vp_levels(scheduler), first, Noise.of(0, SHAPE[0])), theirs)


@pytest.mark.parametrize("steps", [5, 12, 30])
def test_unipc_two_beliefs(steps):
    scheduler = UniPCMultistepScheduler(**CHAIN, solver_order=2, solver_type="bh2")
    first, theirs = vp_run(scheduler, steps)
    assert_same(ours(VPLinear(), UniPC(2), vp_levels(scheduler), first, Noise.of(0, SHAPE[0])), theirs)


@pytest.mark.parametrize("steps", [5, 12, 30])
def test_unipc_three_beliefs(steps):
    """Without diffusers' lowering of the order at the end, which a solver that does not count moves cannot do."""
    options = dict(lower_order_final=False, final_sigmas_type="sigma_min")
    scheduler = UniPCMultistepScheduler(**CHAIN, solver_order=3, solver_type="bh2", **options)
    first, theirs = vp_run(scheduler, steps)
    assert_same(ours(VPLinear(), UniPC(3), vp_levels(scheduler), first, Noise.of(0, SHAPE[0])), theirs)


@pytest.mark.parametrize("kind, solver", [(EulerDiscreteScheduler, Euler()), (HeunDiscreteScheduler, Heun())])
@pytest.mark.parametrize("steps", [6, 25])
def test_euler_and_heun(kind, solver, steps):
    """diffusers runs these in x / alpha: our EDM process, whose t is sigma / 80 (and may pass 1)."""
    scheduler = kind(**CHAIN)
    scheduler.set_timesteps(steps)
    first = scheduler.sigmas[0] * Noise.of(9, SHAPE[0]).normal(SHAPE)
    x, theirs = first, []
    sigmas = scheduler.sigmas.tolist()
    for i, k in enumerate(scheduler.timesteps):
        x_in = scheduler.scale_model_input(x, k)
        x = scheduler.step(network(x_in, sigmas[i]), k, x).prev_sample
        theirs.append(x)
    if kind is HeunDiscreteScheduler:  # every second output is half a move
        theirs = theirs[1::2] + theirs[-1:]
        sigmas = sigmas[:1] + sigmas[1:-1:2] + sigmas[-1:]
    process = EDM()
    assert_same(ours(process, solver, sigmas, first, Noise.of(0, SHAPE[0])), theirs)


@pytest.mark.parametrize("spacing", ["linspace", "leading"])
def test_ddpm_grid_is_the_discrete_chain(spacing):
    """The chain's log-SNR is diffusers' to 1e-3; our grid's, whose times are shrunk by 0.3 %, to 0.08."""
    process = VPLinear()
    scheduler = DDIMScheduler(**CHAIN, timestep_spacing=spacing)
    bar = scheduler.alphas_cumprod.double()
    exact = torch.tensor([process.log_snr(t) for t in DDPM().times(process).tolist()], dtype=torch.float64)
    assert torch.allclose(exact, (bar / (1 - bar)).log(), atol=1e-3)
    scheduler.set_timesteps(20)
    grid = DDPM(spacing)(20, process)
    theirs = (bar / (1 - bar)).log()[scheduler.timesteps]
    mine = torch.tensor([process.log_snr(t) for t in grid.tolist()[:-1]], dtype=torch.float64)
    assert (mine - theirs).abs().max() < 0.08
