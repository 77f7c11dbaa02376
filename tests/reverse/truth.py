"""What the tests of this folder compare with: exact data, exact flows, and networks that say the exact thing."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from scipy.integrate import solve_ivp
from torch import Tensor

from sfumato.core import Cond, Denoise, Noise, Posterior, expand
from sfumato.denoiser.parameterisation import X0, EDMTarget, Eps, Flow, Parameterisation, V
from sfumato.forward import EDM, VE, RectifiedFlow, SubVP, VPCosine, VPLinear
from sfumato.measure.oracles import Gaussian, Mixture
from sfumato.reverse import DDIM, IPNDM4, DPMpp2M, Euler, Heun, UniPC

PROCESSES = [VPLinear(), VPCosine(), SubVP(), VE(), RectifiedFlow(), EDM()]
PARAMETERISATIONS = [X0(), Eps(), V(), Flow(), EDMTarget()]
ODE_SOLVERS = [DDIM(), Euler(), Heun(), DPMpp2M(), IPNDM4(), UniPC(2), UniPC(3)]


def name(thing: object) -> str:
    return repr(thing) if isinstance(thing, UniPC) else type(thing).__name__


def gaussian(process) -> Gaussian:
    """Unequal means and variances on two axes."""
    return Gaussian(process, torch.tensor([0.3, -0.2]), torch.tensor([0.25, 0.04]))


def mixture(process) -> Mixture:
    """Three unequal round Gaussians in the plane."""
    means = torch.tensor([[0.5, 0.2], [-0.4, 0.3], [0.0, -0.6]])
    return Mixture(process, means, torch.tensor([0.04, 0.09, 0.02]), torch.tensor([0.3, 0.3, 0.4]))


def t_at(process, u: float) -> float:
    """The time where sigma / alpha = u."""
    return process.t_of_log_snr(-2 * math.log(u))


def u_at(process, t: float) -> float:
    alpha, sigma = process.alpha_sigma(t)
    return sigma / alpha


def scale(process, t: float, spread: float = 0.5) -> float:
    """About the standard deviation of x_t."""
    alpha, sigma = process.alpha_sigma(t)
    return math.hypot(alpha * spread, sigma)


def eps_of(oracle, x: Tensor, t: float) -> Tensor:
    alpha, sigma = oracle.process.alpha_sigma(t)
    return (x - alpha * oracle(x, t).x0) / sigma


def exact_flow(oracle, x: Tensor, t: float, s: float) -> Tensor:
    """x_s on the probability-flow ODE through x (float64): closed form for a Gaussian, scipy's DOP853 for a mixture."""
    if isinstance(oracle, Gaussian):
        return oracle.flow(x, t, s)
    process = oracle.process

    def slope(u, y):
        at = t_at(process, u)
        return eps_of(oracle, process.alpha_sigma(at)[0] * torch.tensor(y).reshape(x.shape), at).numpy().ravel()

    span = [u_at(process, t), u_at(process, s)]
    start = (x / process.alpha_sigma(t)[0]).numpy().ravel()
    end = solve_ivp(slope, span, start, method="DOP853", rtol=1e-11, atol=1e-11).y[:, -1]
    return torch.tensor(end).reshape(x.shape) * process.alpha_sigma(s)[0]


@dataclass(frozen=True)
class Saying:
    """A perfect network in float32: it says the oracle's y of this parameterisation, from which x0 is worked out."""

    oracle: Denoise
    parameterisation: Parameterisation

    @property
    def process(self):
        return self.oracle.process

    def __call__(self, x_t: Tensor, t, cond: Cond | None = None) -> Posterior:
        alpha, sigma = self.process.alpha_sigma(t)
        exact = x_t.double()
        x0 = self.oracle(exact, t).x0
        eps = (exact - expand(alpha, exact) * x0) / expand(sigma, exact)
        y = self.parameterisation.target(x0, eps, alpha, sigma).float()
        return self.process.posterior(x_t, t, self.parameterisation.x0(x_t, y, alpha, sigma))


def start(process, t: float, n: int = 16, spread: float = 0.5, seed: int = 5) -> Tensor:
    """Float64 points spread like x_t, [n, 2]."""
    return scale(process, t, spread) * Noise.of(seed, n).normal((n, 2)).double()
