"""Training-free guides against Gaussians whose conditional distribution is known in closed form: which are right.

Two entries of correlation 0.9, the first known to be 1: the second is 0.90 +- sqrt(0.19) = 0.436. A picture here is 60
such pairs, 100 pictures are drawn: the standard error of a mean is 0.006, of a spread 0.004.
"""

from __future__ import annotations

import pytest
import torch

from sfumato.core import Cond, Noise, SfumatoError, Slot, expand
from sfumato.forward import EDM, Absorbing, RectifiedFlow, VPLinear
from sfumato.guide import Downsample, Mask, bind, observe, observe_linear, observe_noisy, observe_through, windows
from sfumato.measure.oracles import Gaussian, Sequences
from sfumato.reverse import DDIM, Ancestral, DPMpp2M, Heun, UniPC, UpAndDown, sample, uniform

MEAN, SPREAD = 0.9, 0.19**0.5
PAIRS, PICTURES = 60, 100
KNOWN, Y = torch.tensor([True, False]).repeat(PAIRS), torch.ones(1, 2 * PAIRS)
PAIR = torch.tensor([[1.0, 0.9], [0.9, 1.0]])
VP = VPLinear()


def pairs(process=VP) -> Gaussian:
    return Gaussian(process, torch.zeros(2 * PAIRS), torch.kron(torch.eye(PAIRS), PAIR))


def drawn(denoise, solver, grid) -> tuple[float, float]:
    """Mean and spread of the unknown entries; the known ones are checked on the way."""
    x = sample(denoise, (PICTURES, 2 * PAIRS), Noise.of(1, PICTURES), solver, grid).reshape(-1, 2)
    assert (x[:, 0] - 1).abs().max() < 1e-5
    return x[:, 1].mean().item(), x[:, 1].std().item()


def covariance(dims: int, seed: int = 0) -> torch.Tensor:
    """A random one with eigenvalues from 0.05 to 1."""
    basis = torch.linalg.qr(torch.randn(dims, dims, generator=torch.Generator().manual_seed(seed)).double())[0]
    return basis * torch.linspace(0.05, 1, dims).double() @ basis.T


def matrix(a, shape) -> torch.Tensor:
    """A as a matrix [numbers of y, numbers of x], by what it does to unit vectors."""
    dims = torch.Size(shape).numel()
    return torch.stack([a(one.reshape(1, *shape)).flatten() for one in torch.eye(dims).double()], 1)


def believed(oracle: Gaussian, m: torch.Tensor, y: torch.Tensor, noise: float, x_t: torch.Tensor, t: float):
    """E[x0 | x_t, y] of Gaussian data by the textbook: both measurements at once, rows x_t / alpha and A."""
    alpha, sigma = oracle.process.alpha_sigma(t)
    c, dims = oracle.covariance.double(), oracle.mean.numel()
    seen = torch.cat([torch.eye(dims).double(), m])
    error = torch.cat([torch.full((dims,), (sigma / alpha) ** 2), torch.full((len(m),), noise**2)]).double()
    said = torch.cat([x_t.flatten(1).double() / alpha, y.flatten(1).double()], 1)
    inner = seen @ c @ seen.T + torch.diag(error)
    gain = c @ seen.T @ torch.linalg.pinv(inner, rtol=1e-12, hermitian=True)
    mean = oracle.mean.double().flatten()
    return (mean + (said - seen @ mean) @ gain.T).reshape(x_t.shape)


OPERATORS = [
    (Mask(torch.rand(1, 4, 4, generator=torch.Generator().manual_seed(3)) < 0.4), (1, 4, 4)),
    (Downsample(2), (1, 4, 4)),
]


@pytest.mark.parametrize("noise", [0.0, 0.3])
@pytest.mark.parametrize("process", [VP, RectifiedFlow(), EDM()], ids=lambda p: type(p).__name__)
@pytest.mark.parametrize(("a", "shape"), OPERATORS, ids=["mask", "downsample"])
def test_through_the_network_is_the_conditional_mean(a, shape, process, noise):
    oracle = Gaussian(process, torch.full(shape, 0.3).double(), covariance(16))
    truth = oracle.draw(Noise.of(2, 3)).double()
    y = a(truth) + noise * a(Noise.of(4, 3).normal(truth.shape).double())
    guide = observe_through(a, y, noise, solves=16)
    for t in (0.05, 0.3, 0.8):
        x_t = process.corrupt(truth, t, Noise.of(3, 3))
        found = guide(oracle)(x_t, t).lin
        assert torch.allclose(found, believed(oracle, matrix(a, shape), y, noise, x_t, t), atol=2e-5)
        if not noise:
            assert (a(found) - a(y) if isinstance(a, Mask) else a(found) - y).abs().max() < 1e-9


def test_one_move_is_pi_gdm_where_its_assumption_holds():
    """White data: V is a multiple of the identity, and one move is the whole solution: x0 + A+ (y - A x0)."""
    oracle = Gaussian(VP, torch.zeros(1, 4, 4), torch.full((16,), 0.5))
    x_t = Noise.of(2, 3).normal((3, 1, 4, 4))
    for a, _ in OPERATORS:
        y = a(torch.full((3, 1, 4, 4), 0.7))
        through, direct = observe_through(a, y)(oracle), observe_linear(a, a.pinv, y)(oracle)
        assert torch.allclose(through(x_t, 0.4).lin, direct(x_t, 0.4).lin, atol=1e-6)


@pytest.mark.parametrize("solver", [DDIM(), Heun(), DPMpp2M(), UniPC()], ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("process", [VP, RectifiedFlow()], ids=lambda p: type(p).__name__)
def test_through_the_network_is_unbiased(process, solver):
    steps = 160 if isinstance(solver, DDIM) else 40  # of first order: at 40 its spread is 0.40
    mean, spread = drawn(observe_through(Mask(KNOWN), Y)(pairs(process)), solver, uniform(steps, process))
    assert mean == pytest.approx(MEAN, abs=0.02) and spread == pytest.approx(SPREAD, abs=0.02)


@pytest.mark.parametrize("process", [VP, RectifiedFlow()], ids=lambda p: type(p).__name__)
def test_replacement_is_biased_and_repaint_mends_it(process):
    """The limits that the docs tell: the mean of plain replacement is half the truth, an ancestral walk is better, and
    only up-and-down grids come near; their spread stays too small."""
    denoise, grid = observe(KNOWN, Y)(pairs(process)), uniform(40, process)
    mean, spread = drawn(denoise, Heun(), grid)
    assert mean == pytest.approx(0.45, abs=0.03) and spread == pytest.approx(0.72, abs=0.03)
    assert MEAN - drawn(denoise, Ancestral(), grid)[0] > 0.25
    mean, spread = drawn(denoise, Ancestral(), UpAndDown(10)(40, process))
    assert mean == pytest.approx(MEAN, abs=0.05) and spread == pytest.approx(SPREAD, abs=0.08)
    assert spread < SPREAD - 0.03  # no test of chance: a tenth of the spread is missing


class Trained:
    """The exact denoiser given the condition "known" of pairs, as a model trained with the slot would be: channels
    (mask, x0 * mask) [B, 2, pairs, 2]; where the first entry is given the second has its conditional distribution."""

    def __init__(self, process):
        self.process, self.free = process, pairs(process)

    def __call__(self, x_t, t, cond=Cond()):  # noqa: B008
        slot = cond["known"]
        mask, y = slot.value.flatten(2).unbind(1)
        alpha, sigma = self.process.alpha_sigma(t)
        alpha, sigma = expand(alpha, x_t), expand(sigma, x_t)
        mean = (0.9 * y.reshape(-1, PAIRS, 2).flip(-1)).flatten(1)
        other = mean + alpha * 0.19 / (alpha**2 * 0.19 + sigma**2) * (x_t - alpha * mean)
        given = torch.where(mask > 0, y, other)
        lin = torch.where(expand(slot.present(), x_t), given, self.free(x_t, t).lin)
        return self.process.posterior(x_t, t, lin)


@pytest.mark.parametrize("solver", [Heun(), DPMpp2M(), UniPC()], ids=lambda s: type(s).__name__)
def test_a_trained_condition_is_unbiased(solver):
    value = torch.stack([KNOWN.float().reshape(PAIRS, 2), (Y * KNOWN).reshape(PAIRS, 2)])
    slot = Slot(value.expand(PICTURES, -1, -1, -1), "map")
    mean, spread = drawn(bind(Trained(VP), Cond({"known": slot})), solver, uniform(40, VP))
    assert mean == pytest.approx(MEAN, abs=0.02) and spread == pytest.approx(SPREAD, abs=0.02)


def test_the_means_of_blocks_tell_of_their_neighbours():
    """Two blocks of two pixels, all correlated, the mean of one block known: the pixels of the other follow it. Replacement
    knows only its own block, through the network the distribution is right."""
    c = torch.full((4, 4), 0.9).fill_diagonal_(1.0)
    process = RectifiedFlow()
    whole = Gaussian(process, torch.zeros(4 * PAIRS), torch.kron(torch.eye(PAIRS), c))

    class FirstBlock:
        gram = 0.5

        def __call__(self, x):
            return x.reshape(-1, PAIRS, 4)[..., :2].mean(-1)

        def pinv(self, y):
            return torch.nn.functional.pad(y.unsqueeze(-1).expand(*y.shape, 2), (0, 2)).flatten(1)

    a, y = FirstBlock(), torch.ones(1, PAIRS)
    m = torch.tensor([[0.5, 0.5, 0.0, 0.0]])
    gain = c @ m.T / (m @ c @ m.T)
    left = c - gain @ m @ c
    for guide, right in ((observe_through(a, y), True), (observe_linear(a, a.pinv, y), False)):
        x = sample(guide(whole), (PICTURES, 4 * PAIRS), Noise.of(1, PICTURES), Heun(), uniform(40, process))
        x = x.reshape(-1, 4)
        assert (x[:, :2].mean(-1) - 1).abs().max() < 1e-5
        errors = (x.mean(0) - gain[:, 0]).abs().max(), (x.T.cov() - left).abs().max()
        assert (max(errors) < 0.02) == right


@pytest.mark.parametrize(("a", "shape"), OPERATORS, ids=["mask", "downsample"])
def test_the_proximal_step_is_its_minimum(a, shape):
    oracle = Gaussian(VP, torch.zeros(shape).double(), covariance(16))
    x_t, y, noise, t = Noise.of(2, 3).normal((3, *shape)).double(), a(torch.rand(3, *shape).double()), 0.2, 0.3
    alpha, sigma = VP.alpha_sigma(t)
    m, x0 = matrix(a, shape), oracle(x_t, t).lin.flatten(1)
    left = m.T @ m / noise**2 + torch.eye(16).double() * (alpha / sigma) ** 2
    right = y.flatten(1) @ m / noise**2 + x0 * (alpha / sigma) ** 2
    least = torch.linalg.solve(left, right.T).T
    found = observe_noisy(a, y, noise)(oracle)
    assert torch.allclose(found(x_t, t).lin.flatten(1), least, atol=1e-7)
    each = found(x_t, torch.full((3,), t, dtype=torch.float64)).lin
    assert torch.allclose(each.flatten(1), least, atol=1e-7)
    clean = RectifiedFlow().posterior(x_t, 0.0, x_t)  # at t = 0 x is known and no measurement changes it

    class Clean:
        process = RectifiedFlow()

        def __call__(self, x_t, t, cond=None):
            return clean

    assert torch.equal(observe_noisy(a, y, noise)(Clean())(x_t, 0.0).lin, x_t)


def test_noisy_measurements_of_one_number():
    """Data N(0, 1), seen as 1 with noise 0.5: the truth is 0.8 +- 0.447. Through the network it is right; the proximal step
    trusts what it sees too much; taking the measurement for exact copies it."""
    white = Gaussian(RectifiedFlow(), torch.zeros(2 * PAIRS), torch.ones(2 * PAIRS))
    a, y, found = Mask(torch.ones(1, dtype=torch.bool)), torch.ones(1, 2 * PAIRS), {}
    for name, guide in (
        ("through", observe_through(a, y, 0.5)),
        ("proximal", observe_noisy(a, y, 0.5)),
        ("exact", observe_linear(a, a.pinv, y)),
    ):
        grid = uniform(60, white.process)
        x = sample(guide(white), (PICTURES, 2 * PAIRS), Noise.of(1, PICTURES), Heun(), grid)
        found[name] = (x.mean().item(), x.std().item())
    assert found["through"] == pytest.approx((0.8, 0.2**0.5), abs=0.02)
    assert found["exact"] == pytest.approx((1.0, 0.0), abs=1e-5)
    assert 0.82 < found["proximal"][0] < 1.0


def test_a_picture_is_the_same_alone_and_among_others():
    oracle = Gaussian(RectifiedFlow(), torch.full((1, 4, 4), 0.2), covariance(16))
    a, _ = OPERATORS[1]
    y = a(oracle.draw(Noise.of(5, 4)))
    x_t = Noise.of(6, 4).normal((4, 1, 4, 4))
    together = observe_through(a, y, solves=3)(oracle)(x_t, 0.5).lin
    for k in range(4):
        alone = observe_through(a, y[k : k + 1], solves=3)(oracle)(x_t[k : k + 1], 0.5).lin
        assert torch.allclose(alone[0], together[k], atol=1e-6)


def test_it_leaves_no_graph_behind_and_works_under_windows():
    """Beliefs carry no gradients on (memory would grow with every move), and windows pass them through."""
    part = Gaussian(RectifiedFlow(), torch.zeros(1, 4, 4), torch.full((16,), 0.3))
    a, y = Mask(torch.arange(6) < 3), torch.full((2, 1, 6, 6), 0.5)
    denoise = observe_through(a, a(y))(windows((4, 4), 2)(part))
    x_t = Noise.of(1, 2).normal((2, 1, 6, 6))
    belief = denoise(x_t, 0.5)
    assert not belief.lin.requires_grad and belief.x_t is x_t
    assert torch.allclose(
        belief.lin, observe(torch.arange(6) < 3, y)(windows((4, 4), 2)(part))(x_t, 0.5).lin, atol=1e-6
    )


def test_a_network_that_answers_nonsense_gives_no_nan():
    """A constant belief has no gradient, a falling one a negative covariance: the measurement is still kept, all else is
    the belief."""
    process = RectifiedFlow()
    a, y = Mask(torch.tensor([True, False])), torch.ones(3, 2)

    class Says:
        def __init__(self, slope):
            self.process, self.slope = process, slope

        def __call__(self, x_t, t, cond=None):
            return process.posterior(x_t, t, 0.2 + self.slope * x_t)

    x_t = Noise.of(1, 3).normal((3, 2))
    blind = windows((1, 1), 0, needed=torch.zeros(3, 2, dtype=torch.bool))(Says(1.0))  # looks at nothing at all
    assert torch.equal(observe_through(a, a(y))(blind)(x_t, 0.5).lin, torch.tensor([[1.0, 0.0]] * 3))
    for slope in (0.0, -1.0):
        found = observe_through(a, a(y), solves=3)(Says(slope))(x_t, 0.5).lin
        assert torch.allclose(found, torch.stack([torch.ones(3), 0.2 + slope * x_t[:, 1]], 1))


def test_mistakes_are_told():
    tiles = Sequences(Absorbing(3), torch.tensor([[0, 1]]), torch.ones(1))
    a, y = Mask(torch.tensor([True, False])), torch.zeros(1, 2)
    with pytest.raises(SfumatoError, match="no gradients"):
        observe_through(a, y)(tiles)
    for wrong in ({"solves": 0}, {"noise": -0.1}, {"noise": float("nan")}):
        with pytest.raises(SfumatoError, match="at least 1 move"):
            observe_through(a, y, **wrong)
    for noise in (0.0, -1.0, float("nan")):
        with pytest.raises(SfumatoError, match="observe_linear"):
            observe_noisy(a, y, noise)
