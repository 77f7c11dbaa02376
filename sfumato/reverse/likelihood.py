"""Exact log-likelihood by the probability-flow ODE: how probable a model finds given data."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any, Literal

import torch
from torch import Tensor

from sfumato.core import Denoise, Noise, SfumatoError
from sfumato.reverse.grids import Karras

_LN2 = math.log(2)


def log_likelihood(
    denoise: Denoise,
    x0: Tensor,
    noise: Noise,
    grid: Tensor | None = None,
    trace: Literal["hutchinson", "exact"] = "hutchinson",
    probes: int = 1,
) -> Tensor:
    """log p(x0), natural, float64 [B]: log p_T(y_T) + int tr(d eps / d y) du along y = x / alpha,
    u = sigma / alpha (Song et al. 2021, appendix D.2; the ODE dy/du = eps has no other terms in these variables).

    The integral goes by Runge-Kutta 4 over the grid's times, upwards, from its smallest with sigma > 0: the density
    is that of the data blurred by sigma / alpha there (0.002 with the default, a quarter of an 8-bit grey level).

    Args: `x0` [B, ...] in the model's range; `grid` falling times (Karras, 40 moves, when None: 4 * 39 calls);
    `trace` "exact" costs D backward passes a call, "hutchinson" `probes` of them: unbiased, probes of +-1 from `noise`.
    Raises SfumatoError for a process that is not linear, or a grid that goes up.
    """
    process = denoise.process
    if not process.linear:
        raise SfumatoError(f"the likelihood by ODE needs a linear process, not {type(process).__name__}")
    times = (Karras()(40, process) if grid is None else grid).flip(0).tolist()
    if any(b <= a for a, b in pairwise(times)):
        raise SfumatoError("the likelihood needs a grid that only goes down")
    levels = [sigma / alpha for alpha, sigma in map(process.alpha_sigma, times) if sigma > 0]
    vectors = _probe_vectors(x0, noise, trace, probes)
    y, total = x0, torch.zeros(len(x0), dtype=torch.float64)
    for u, v in pairwise(levels):
        h = v - u
        k1, d1 = _slope_and_trace(denoise, y, u, vectors)
        k2, d2 = _slope_and_trace(denoise, y + 0.5 * h * k1, u + 0.5 * h, vectors)
        k3, d3 = _slope_and_trace(denoise, y + 0.5 * h * k2, u + 0.5 * h, vectors)
        k4, d4 = _slope_and_trace(denoise, y + h * k3, v, vectors)
        y = y + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
        total = total + h / 6 * (d1 + 2 * d2 + 2 * d3 + d4)
    # the prior in y: N(0, u_T^2)
    energy = 0.5 * (y.double() / levels[-1]).flatten(1).square().sum(1)
    dims = x0[0].numel()
    return total - energy - dims * (0.5 * math.log(2 * math.pi) + math.log(levels[-1]))


def _probe_vectors(x0: Tensor, noise: Noise, trace: str, probes: int) -> list[Tensor]:
    """Vectors v with mean of v v^T = identity: +-1 at random, or the axes (each by sqrt(D), so that their mean is
    it).
    """
    if trace == "hutchinson":
        return [torch.where(noise.at(k).uniform(x0.shape) < 0.5, -1.0, 1.0).to(x0) for k in range(probes)]
    if trace != "exact":
        raise SfumatoError(f'trace is "hutchinson" or "exact", not {trace!r}')
    dims = x0[0].numel()
    axes = torch.eye(dims, dtype=x0.dtype) * math.sqrt(dims)
    return [axis.reshape(x0[0].shape).expand_as(x0) for axis in axes]


def _slope_and_trace(denoise: Denoise, y: Tensor, u: float, vectors: list[Tensor]) -> tuple[Tensor, Tensor]:
    """eps = (y - x0(alpha y)) / u and its trace (D - tr d x0 / d y) / u, float64 [B]."""
    process = denoise.process
    t = process.t_of_log_snr(-2 * math.log(u))
    alpha = process.alpha_sigma(t)[0]
    with torch.enable_grad():
        y = y.detach().requires_grad_()
        x0 = denoise(alpha * y, t).x0
        inside = torch.zeros(len(y), dtype=torch.float64)
        for k, v in enumerate(vectors):
            (pulled,) = torch.autograd.grad((x0 * v).sum(), y, retain_graph=k + 1 < len(vectors))
            inside += (pulled * v).flatten(1).sum(1).double() / len(vectors)
    return ((y - x0) / u).detach(), (y[0].numel() - inside) / u


def bits_per_dimension(denoise: Denoise, x0: Tensor, noise: Noise, dequantise: bool = True, **how: Any) -> Tensor:
    """Bits per entry for pictures of 256 grey levels, float64 [B]: -log2 p(x0) / D + log2(127.5), x0 in [-1, 1].

    log2(127.5) is the change of variables from [-1, 1] back to 0 ... 255. With `dequantise` each entry is first moved
    uniformly within its grey level, (U - 1/2) / 127.5: the result then bounds the bits of the discrete picture from
    above (Theis et al. 2016). Without, it is the density's own, which for discrete data may be anything, and low.

    how: `grid`, `trace` and `probes` of `log_likelihood`.
    """
    if dequantise:
        x0 = x0 + (noise.at(-2).uniform(x0.shape) - 0.5).to(x0) / 127.5
    log_p = log_likelihood(denoise, x0, noise, **how)
    return -log_p / (x0[0].numel() * _LN2) + math.log2(127.5)
