"""A finite-data oracle (every solver gives back training images), and determinism over batches and threads."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn
from truth import PROCESSES, name

from sfumato.core import Noise
from sfumato.denoiser import Denoiser, Flow
from sfumato.forward import EDM, RectifiedFlow, VPLinear
from sfumato.measure.oracles import finite_data
from sfumato.reverse import SOLVERS, pick_grid, pick_solver, sample

LINEAR = [solver for solver in SOLVERS if "unmask" not in solver]


@pytest.fixture(scope="module")
def digits() -> torch.Tensor:
    """200 digits, 1 x 8 x 8 in [-1, 1]."""
    return torch.from_numpy(load_digits().images[:200]).float().div(8).sub(1).unsqueeze(1)


@pytest.mark.parametrize("solver", LINEAR)
@pytest.mark.parametrize("process", PROCESSES, ids=name)
def test_the_optimal_denoiser_of_200_images_gives_them_back(digits, process, solver):
    """Every sample is a training image (0.02 per pixel, root mean square), and not always the same one.

    A belief that is sure makes the ODE stiff: iPNDM needs moves that are short beside sigma / alpha.
    """
    moves = {"adaptive": 1, "euler-maruyama": 120, "euler": 120, "ipndm4": 120}.get(solver, 40)
    grid = pick_grid("karras")(moves, process)
    x = sample(finite_data(process, digits), (16, 1, 8, 8), Noise.of(1, 16), pick_solver(solver), grid)
    distance = torch.cdist(x.flatten(1).double(), digits.flatten(1).double()) / 8
    nearest = distance.min(1)
    assert nearest.values.max() < 0.02
    assert nearest.indices.unique().numel() >= 8


class TinyNet(nn.Module):
    """A random convolutional network: deterministic, nonlinear, aware of the noise level."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 3, 3, padding=1)

    def forward(self, x, level, cond):
        return self.last(torch.tanh(self.first(x) + level.reshape(-1, 1, 1, 1)))


@pytest.fixture(scope="module", params=[VPLinear(), RectifiedFlow(), EDM()], ids=name)
def denoiser(request) -> Denoiser:
    state = torch.random.get_rng_state()
    torch.manual_seed(3)
    denoiser = Denoiser(TinyNet(), request.param, Flow()).eval()
    torch.random.set_rng_state(state)
    return denoiser


@pytest.mark.parametrize("solver", LINEAR)
def test_picture_k_alone_is_picture_k_of_64(denoiser, solver):
    grid = pick_grid("karras")(1 if solver == "adaptive" else 12, denoiser.process)
    batch = sample(denoiser, (64, 3, 8, 8), Noise.of(7, 64), pick_solver(solver), grid)
    assert batch.isfinite().all() and batch.dtype == torch.float32
    for k in (0, 17, 63):
        alone = sample(denoiser, (1, 3, 8, 8), Noise.of(7, 1, first=k), pick_solver(solver), grid)
        assert (alone[0] - batch[k]).abs().max() < 1e-4 * max(1.0, batch.std().item())
    assert (batch[0] - batch[1]).abs().max() > 0.01


@pytest.mark.parametrize("solver", LINEAR)
def test_eight_threads_share_one_denoiser_and_one_solver(denoiser, solver):
    shared, process = pick_solver(solver), denoiser.process
    grid = pick_grid("karras")(1 if solver == "adaptive" else 8, process)

    def draw(seed: int) -> torch.Tensor:
        return sample(denoiser, (2, 3, 8, 8), Noise.of(seed, 2), shared, grid)

    one_by_one = [draw(seed) for seed in range(8)]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(draw, range(8)))
    for a, b in zip(one_by_one, together, strict=True):
        assert (a - b).abs().max() < 1e-5 * max(1.0, a.std().item())


def test_sampling_leaves_the_global_generator_alone(denoiser):
    state = torch.random.get_rng_state()
    grid = pick_grid("karras")(4, denoiser.process)
    for solver in ("ddpm", "predictor-corrector", "euler-maruyama"):
        sample(denoiser, (2, 3, 8, 8), Noise.of(0, 2), pick_solver(solver), grid)
    assert torch.equal(state, torch.random.get_rng_state())
