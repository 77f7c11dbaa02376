"""Observation through the network: back-propagation tells how far each pixel's belief moves with a measurement.

By Tweedie's formula the covariance of x0 given x_t is V = (sigma^2 / alpha) J, J = d x0 / d x_t (Efron 2011; Meng et al.
2021), so products of V with a vector cost one back-propagation each.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from sfumato.core import Cond, Denoise, Posterior, SfumatoError, Time, expand
from sfumato.guide.observation import Mask, Measurement
from sfumato.guide.wrap import Guide, Guided


def observe_through(a: Measurement, y: Tensor, noise: float = 0.0, solves: int = 1) -> Guide:
    """x0 + V A^T (A V A^T + noise^2 I)^-1 (y - A x0): the mean of x0 given x_t and y = A(data) + noise eps, if x0 given x_t
    is Gaussian.

    The inverse by `solves` moves of conjugate gradients (MMPS, Rozet et al. 2024, arXiv 2405.13712). One move stands for
    A V A^T by one number per picture: Pi-GDM (Song et al. 2023) with its r_t^2 measured instead of assumed, and DPS
    (Chung et al. 2023) with the step that follows from it. Exact on Gaussian data once `solves` reaches the number of
    distinct eigenvalues of A V A^T. With noise = 0, A x0 = y exactly: what the moves leave is put in as
    `observe_linear` does.

    Cost: one network call with its graph kept in memory, and solves + 1 back-propagations. Args: `y` [B or 1, ...]. Raises
    SfumatoError for fewer than one move, for negative noise, and for beliefs that are not Gaussian.
    """
    if solves < 1 or not noise >= 0:
        raise SfumatoError(f"observing takes at least 1 move and noise of 0 or more, not {solves} and {noise}")

    def guide(denoise: Denoise) -> Denoise:
        if not getattr(denoise.process, "linear", False):
            raise SfumatoError(f"{type(denoise.process).__name__} has no gradients to follow: use observe")

        def believe(x_t: Tensor, t: Time, cond: Cond) -> Posterior:
            alpha, sigma = denoise.process.alpha_sigma(t)
            with torch.enable_grad():
                x = x_t.detach().requires_grad_()
                belief = denoise(x, t, cond)
            x0 = belief.lin.detach()
            left = a(a.pinv(y - a(x0)))  # of a mask's y only what is known counts
            ridge = expand(noise**2 * alpha / sigma**2, left) if noise else 0.0

            def moved(z: Tensor) -> Tensor:  # J A^T z: the factor of V is in the ridge
                if not belief.lin.requires_grad:  # a belief that does not look at x_t
                    return torch.zeros_like(x0)
                return torch.autograd.grad(belief.lin, x, a.gram * a.pinv(z), retain_graph=True)[0]

            z = _conjugate_gradients(lambda v: a(moved(v)) + ridge * v, left, solves)
            x0 = x0 + moved(z)
            return denoise.process.posterior(x_t, t, x0 if noise else x0 + a.pinv(y - a(x0)))

        return Guided(denoise.process, believe)

    return guide


def observe_told(name: str, solves: int = 1) -> Guide:
    """`observe_through` of the pixels that a map condition of this name tells (a mask, then x0 where it is 1), for networks
    that were not trained with it: the network is not told of it, and `windows` cut it as they cut every map."""

    def guide(denoise: Denoise) -> Denoise:
        def believe(x_t: Tensor, t: Time, cond: Cond) -> Posterior:
            told, mask = cond[name].value, Mask(cond[name].value[:, :1] > 0.5)
            rest = Cond({other: slot for other, slot in cond.items() if other != name})
            return observe_through(mask, mask(told[:, 1:]), solves=solves)(denoise)(x_t, t, rest)

        return Guided(denoise.process, believe)

    return guide


def _conjugate_gradients(matrix: Callable[[Tensor], Tensor], b: Tensor, moves: int) -> Tensor:
    """z with matrix(z) near b, for each row by itself; a row rests where its matrix is not positive (Hestenes & Stiefel
    1952)."""
    z, rest, along = torch.zeros_like(b), b, b
    square = _dot(b, b)
    for _ in range(moves):
        image = matrix(along)
        bent = _dot(along, image)
        step = torch.where(bent > 0, square / bent.clamp_min(torch.finfo(b.dtype).tiny), 0.0)
        z, rest = z + expand(step, z) * along, rest - expand(step, z) * image
        fresh = _dot(rest, rest)
        along = rest + expand(torch.where(step > 0, fresh / square.clamp_min(1e-30), 0.0), z) * along
        square = fresh
    return z


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """Scalar products [B], summed row by row: no row depends on how many there are."""
    return torch.stack([(one * other).sum() for one, other in zip(a, b, strict=True)])
