"""What the network predicts is two numbers: inverses, the weight identity, and the denoiser around the network."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from sfumato.core import Noise, SfumatoError
from sfumato.denoiser import X0, CategoricalDenoiser, Denoiser, EDMTarget, Eps, Flow, UNet, UNetConfig, V, noise_level
from sfumato.forward import EDM, VE, Absorbing, RectifiedFlow, SubVP, Uniform, VPCosine, VPLinear

TARGETS = [X0(), Eps(), V(), Flow(), EDMTarget(0.5), EDMTarget(1.3)]
PROCESSES = [VPLinear(), VPCosine(), SubVP(), VE(), RectifiedFlow(), EDM()]


def pairs(n: int = 400) -> list[tuple[float, float]]:
    """(alpha, sigma) over six decades of their ratio, at several overall scales."""
    generator = torch.Generator().manual_seed(0)
    ratio = 10 ** (torch.rand(n, generator=generator, dtype=torch.float64) * 6 - 3)
    scale = 10 ** (torch.rand(n, generator=generator, dtype=torch.float64) * 2 - 1)
    return [
        (s / math.hypot(1, r), s * r / math.hypot(1, r)) for r, s in zip(ratio.tolist(), scale.tolist(), strict=True)
    ]


def data(dtype=torch.float64) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(50, generator=generator, dtype=dtype), torch.randn(50, generator=generator, dtype=dtype)


@pytest.mark.parametrize("target", TARGETS, ids=str)
def test_x0_is_the_inverse_of_the_target(target) -> None:
    x0, eps = data()
    for alpha, sigma in pairs():
        y = target.target(x0, eps, alpha, sigma)
        found = target.x0(alpha * x0 + sigma * eps, y, alpha, sigma)
        # an error of one rounding in eps is magnified by sigma / alpha where the signal is faint
        assert (found - x0).abs().max() < 1e-13 * (1 + sigma / alpha) ** 2, (alpha, sigma)


@pytest.mark.parametrize("target", TARGETS, ids=str)
def test_tensor_times_give_what_floats_give(target) -> None:
    x0, eps = data()
    some = pairs(20)
    alpha, sigma = torch.tensor(some, dtype=torch.float64).T
    many = target.target(x0.expand(20, -1), eps.expand(20, -1), alpha, sigma)
    for row, (a, s) in zip(many, some, strict=True):
        assert torch.allclose(row, target.target(x0, eps, a, s), rtol=1e-12)


@pytest.mark.parametrize("target", TARGETS, ids=str)
def test_squared_error_of_y_is_the_weighted_squared_error_of_x0(target) -> None:
    x0, eps = data()
    wrong = data()[1] * 0.1
    for alpha, sigma in pairs():
        x_t = alpha * x0 + sigma * eps
        y = target.target(x0, eps, alpha, sigma)
        error = (target.x0(x_t, y + wrong, alpha, sigma) - target.x0(x_t, y, alpha, sigma)).square().mean()
        weighted = target.x0_weight(alpha, sigma) * error
        assert weighted.item() == pytest.approx(wrong.square().mean().item(), rel=1e-5)


@pytest.mark.parametrize("target", TARGETS[:5], ids=str)
def test_formulas_of_the_papers(target) -> None:
    x0, eps = data()
    for alpha, sigma in pairs(50):
        total = alpha**2 * 0.25 + sigma**2
        c_skip, c_out = alpha * 0.25 / total, sigma * 0.5 / total**0.5
        stated = {
            X0: x0,
            Eps: eps,
            V: alpha * eps - sigma * x0,
            Flow: eps - x0,
            EDMTarget: (x0 - c_skip * (alpha * x0 + sigma * eps)) / c_out,
        }[type(target)]
        assert torch.allclose(target.target(x0, eps, alpha, sigma), stated, rtol=1e-6, atol=1e-9)


def test_edm_target_has_unit_variance_at_every_noise_level() -> None:
    generator = torch.Generator().manual_seed(2)
    x0, eps = 0.5 * torch.randn(200_000, generator=generator), torch.randn(200_000, generator=generator)
    for sigma in (1e-4, 0.01, 0.5, 3.0, 80.0):
        assert EDMTarget(0.5).target(x0, eps, 1.0, sigma).var().item() == pytest.approx(1.0, abs=0.02)


def test_edm_target_is_finite_and_exact_where_no_noise_is_left() -> None:
    x0, eps = data(torch.float32)
    y = EDMTarget(0.5).target(x0, eps, 1.0, 0.0)
    assert torch.allclose(EDMTarget(0.5).x0(x0, y, 1.0, 0.0), x0)
    zero = torch.zeros(1)
    assert EDMTarget(0.5).target(x0[None], eps[None], zero + 1, zero).isfinite().all()
    # float32 times keep their digits at small sigma: the plain (1 - c_skip alpha) / c_out loses them
    small = torch.tensor([1e-4])
    a32 = EDMTarget(0.5).coefficients(torch.ones(1), small)[0].item()
    assert a32 == pytest.approx(EDMTarget(0.5).coefficients(1.0, small.item())[0], rel=1e-5)


def test_eps_cannot_tell_x0_without_signal() -> None:
    x = torch.zeros(1, 1, 2, 2)
    with pytest.raises(SfumatoError, match="Eps cannot tell x0 where alpha = 0.*predict x0, v or flow"):
        Eps().x0(x, x, 0.0, 1.0)
    for target in (X0(), V(), Flow(), EDMTarget()):
        assert target.x0(x, x + 1, 0.0, 1.0).isfinite().all()


class Spy(nn.Module):
    """A network that keeps what it was asked and answers with a fixed share of its input."""

    def forward(self, x: Tensor, level: Tensor, cond) -> Tensor:
        self.x, self.level = x, level
        return 0.3 * x


@pytest.mark.parametrize("process", PROCESSES, ids=lambda p: type(p).__name__)
def test_the_network_is_fed_unit_variance(process) -> None:
    spy = Spy()
    for d in (0.25, 0.5, 1.0):
        denoiser = Denoiser(spy, process, X0(), d)
        x0 = d * Noise.of(0, 400).normal((400, 1, 16, 16))
        for t in (0.02, 0.3, 0.7, 0.98):
            denoiser(process.corrupt(x0, t, Noise.of(1, 400)), t)
            assert spy.x.std().item() == pytest.approx(1.0, abs=0.015)


@pytest.mark.parametrize("process", PROCESSES, ids=lambda p: type(p).__name__)
@pytest.mark.parametrize("target", TARGETS[:5], ids=str)
def test_times_as_float_per_sample_and_per_frame_agree(process, target) -> None:
    denoiser = Denoiser(Spy(), process, target)
    x = Noise.of(0, 4).normal((4, 3, 2, 5, 5))  # samples, frames, channels, height, width
    for t in (0.05, 0.4, 0.9):
        whole = denoiser(x, t)
        level = denoiser.net.level.clone()
        per_sample = denoiser(x, torch.full((4,), t))
        assert torch.allclose(per_sample.x0, whole.x0, rtol=1e-4, atol=1e-4)
        assert level.shape == (4,) and torch.allclose(denoiser.net.level, level, atol=1e-5)
        per_frame = denoiser(x, torch.full((4, 3), t))
        assert torch.allclose(per_frame.x0, whole.x0, rtol=1e-4, atol=1e-4)
        assert denoiser.net.level.shape == (4, 3)


def test_every_sample_and_frame_has_its_own_time() -> None:
    denoiser = Denoiser(Spy(), RectifiedFlow(), Flow())
    x = Noise.of(0, 2).normal((2, 3, 1, 4, 4))
    times = torch.tensor([[0.1, 0.5, 0.9], [0.3, 0.6, 0.2]])
    belief = denoiser(x, times)
    for b in range(2):
        for f in range(3):
            alone = denoiser(x[b : b + 1, f : f + 1], times[b, f].item())
            assert torch.allclose(belief.x0[b, f], alone.x0[0, 0], atol=1e-5)
            assert torch.allclose(belief.velocity[b, f], alone.velocity[0, 0], atol=1e-4)


@pytest.mark.parametrize("process", PROCESSES, ids=lambda p: type(p).__name__)
def test_noise_level_is_a_quarter_of_log_sigma_over_alpha_and_clamped(process) -> None:
    t = torch.linspace(0.001, 0.999, 50, dtype=torch.float64)
    alpha, sigma = process.alpha_sigma(t)
    level = noise_level(process, t)
    assert torch.allclose(level, ((sigma / alpha).log() / 4).clamp(-3, 3))
    ends = noise_level(process, torch.tensor([0.0, 1.0]))
    assert ends.isfinite().all() and (ends.abs() <= 3).all() and (level.diff() > 0).all()


def trained_like(net: nn.Module, seed: int = 0) -> nn.Module:
    """Weights as large as after training: an untrained network answers zero and would prove nothing."""
    generator = torch.Generator().manual_seed(seed)
    for p in net.parameters():
        if p.abs().max() == 0:
            p.data.copy_(0.05 * torch.randn(p.shape, generator=generator))
    return net


def test_half_precision_inside_float32_outside() -> None:
    net = trained_like(UNet(UNetConfig(widths=(16, 32), blocks=(1, 1), attention=(1,))))
    denoiser = Denoiser(net, RectifiedFlow(), Flow())
    x = Noise.of(0, 4).normal((4, 1, 8, 8))
    inside: list[torch.dtype] = []
    net.head.register_forward_hook(lambda module, args, out: inside.append(out.dtype))
    for t in (0.02, 0.5, 0.98):
        denoiser.precision = None
        single = denoiser(x, t)
        denoiser.precision = torch.bfloat16
        half = denoiser(x, t)
        assert inside[-2:] == [torch.float32, torch.bfloat16]
        assert half.lin.dtype == half.eps.dtype == torch.float32
        assert not torch.equal(half.lin, single.lin)
        y = (single.velocity - half.velocity).abs().max() / single.velocity.abs().max()
        assert y < 0.05


@pytest.mark.parametrize("process", [Absorbing(5), Uniform(5), Absorbing(5, "cosine")], ids=str)
def test_categorical_denoiser_reads_one_hot_states(process) -> None:
    class Count(nn.Module):
        def forward(self, x: Tensor, level: Tensor, cond) -> Tensor:
            self.x, self.level = x, level
            return x[:, :5] * 2

    denoiser = CategoricalDenoiser(Count(), process)
    x_t = process.corrupt(torch.arange(24).reshape(2, 3, 4) % 5, 0.5, Noise.of(0, 2))
    belief = denoiser(x_t, 0.5)
    assert belief.lin.shape == (2, 5, 3, 4) and denoiser.net.x.shape == (2, process.states, 3, 4)
    assert torch.equal(denoiser.net.x.argmax(1), x_t) and denoiser.net.x.sum(1).eq(1).all()
    level = denoiser.net.level.clone()
    kept = process.alpha(0.5)
    assert torch.allclose(level, torch.full((2,), math.log((1 - kept) / kept) / 4), atol=1e-5)
    denoiser(x_t, torch.full((2,), 0.5))
    assert torch.allclose(denoiser.net.level, level, atol=1e-6)
    for t in (0.0, 1.0):
        denoiser(x_t, t)
        assert denoiser.net.level.isfinite().all() and (denoiser.net.level.abs() <= 3).all()
