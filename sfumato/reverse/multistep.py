"""Solvers that remember earlier beliefs: DPM-Solver++ 2M, iPNDM and UniPC. One call a move, coefficients in floats."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from sfumato.core import Denoise, Noise, SfumatoError
from sfumato.reverse.solver import half_log_snr, straight


class Past(NamedTuple):
    """One earlier belief: half log-SNR and x0 [B, ...]."""

    lam: float
    x0: Tensor


@dataclass(frozen=True)
class DPMpp2M:
    """x_s = (sigma_s / sigma_t) x - alpha_s (e^-h - 1) D, D = (1 + 1/2r) x0 - (1/2r) x0_before (Lu et al. 2022,
    algorithm 2).

    h is the step in log(alpha / sigma), r the step before divided by h. The first move and a last one to sigma = 0
    are of first order (as in diffusers and k-diffusion), so the order over a whole grid is 2.
    """

    needs = "linear"
    order = 2

    def init(self) -> Past | None:
        return None

    def step(
        self, denoise: Denoise, x: Tensor, t: float, s: float, state: Past | None, noise: Noise
    ) -> tuple[Tensor, Past]:
        process, x0 = denoise.process, denoise(x, t).x0
        alpha_t, sigma_t = process.alpha_sigma(t)
        alpha_s, sigma_s = process.alpha_sigma(s)
        lam = math.log(alpha_t / sigma_t)
        if state is None or sigma_s == 0.0:
            return straight(process, x, x0, t, s), Past(lam, x0)
        h = math.log(alpha_s / sigma_s) - lam
        gain, lean = -alpha_s * math.expm1(-h), 0.5 * h / (lam - state.lam)
        x_s = (x * (sigma_s / sigma_t)).add_(x0, alpha=gain * (1 + lean)).add_(state.x0, alpha=-gain * lean)
        return x_s, Past(lam, x0)


_ADAMS_BASHFORTH = ((1.0,), (3 / 2, -1 / 2), (23 / 12, -16 / 12, 5 / 12), (55 / 24, -59 / 24, 37 / 24, -9 / 24))


@dataclass(frozen=True)
class IPNDM4:
    """x_s / alpha_s = x / alpha_t + (u_s - u_t) sum_k c_k eps_k, u = sigma / alpha, c Adams-Bashforth's four numbers
    (Liu et al. 2022, "Pseudo numerical methods"; Zhang & Chen 2023, iPNDM).

    `order` is 2, honestly: the first move is Euler's, and the four numbers suit a grid uniform in u only. Once under
    way on such a grid the order is 4. State: up to three earlier eps, newest first.
    """

    needs = "linear"
    order = 2

    def init(self) -> tuple[Tensor, ...]:
        return ()

    def step(
        self, denoise: Denoise, x: Tensor, t: float, s: float, state: tuple[Tensor, ...], noise: Noise
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        process, x0 = denoise.process, denoise(x, t).x0
        alpha_t, sigma_t = process.alpha_sigma(t)
        alpha_s, sigma_s = process.alpha_sigma(s)
        past = ((x * (1 / sigma_t)).add_(x0, alpha=-alpha_t / sigma_t), *state)
        ratio = alpha_s / alpha_t
        move = sigma_s - sigma_t * ratio
        x_s = x * ratio
        for c, eps in zip(_ADAMS_BASHFORTH[len(past) - 1], past, strict=True):
            x_s.add_(eps, alpha=c * move)
        return x_s, past[:3]


class UniPCState(NamedTuple):
    """Earlier beliefs (newest first), the corrected x and the time of the last move, and how many beliefs it used."""

    past: tuple[Past, ...]
    x: Tensor
    t: float
    used: int


@dataclass(frozen=True)
class UniPC:
    """UniPC with B(h) = e^h - 1, predicting x0: each belief first corrects the move that led to it, then predicts the
    next (Zhao et al. 2023, algorithms 5 to 8); one call a move, equal to diffusers' UniPCMultistepScheduler.

    Args: `beliefs` 2 or 3, how many a prediction uses (the paper's order p). `order` is 3 for both: the corrector
    lifts 2 to 3, and the warm-up with fewer beliefs holds 3 there.
    """

    beliefs: int = 2
    needs = "linear"
    order = 3

    def __post_init__(self) -> None:
        if self.beliefs not in (2, 3):
            raise SfumatoError(f"UniPC uses 2 or 3 beliefs, not {self.beliefs}")

    def init(self) -> UniPCState | None:
        return None

    def step(
        self, denoise: Denoise, x: Tensor, t: float, s: float, state: UniPCState | None, noise: Noise
    ) -> tuple[Tensor, UniPCState]:
        process = denoise.process
        now = Past(half_log_snr(process, t), denoise(x, t).x0)
        before: tuple[Past, ...] = ()
        if state is not None:
            before = state.past
            x = self._move(process, state.x, state.t, t, before[: state.used], now)
        used = min(self.beliefs, len(before) + 1)
        if process.alpha_sigma(s)[1] == 0.0:
            used = 1
        past = (now, *before)[: self.beliefs]
        x_s = self._move(process, x, t, s, past[:used], None)
        return x_s, UniPCState(past, x, t, used)

    @staticmethod
    def _move(process, x: Tensor, t: float, s: float, past: tuple[Past, ...], end: Past | None) -> Tensor:
        """x_s from the beliefs `past` (newest is that at t), and from that at s when correcting."""
        x_s, newest = straight(process, x, past[0].x0, t, s), past[0]
        if len(past) == 1 and end is None:
            return x_s
        h = half_log_snr(process, s) - newest.lam
        nodes = [(p.lam - newest.lam) / h for p in past[1:]]
        beliefs = [p.x0 for p in past[1:]]
        if end is not None:
            nodes.append(1.0)
            beliefs.append(end.x0)
        gain = -process.alpha_sigma(s)[0] * math.expm1(-h)
        for rho, node, x0 in zip(_weights(nodes, h), nodes, beliefs, strict=True):
            c = gain * rho / node
            x_s.add_(x0, alpha=c).add_(newest.x0, alpha=-c)
        return x_s


def _weights(nodes: list[float], h: float) -> list[float]:
    """The paper's coefficients a_m: sum_m a_m nodes_m^(k-1) = b_k for k = 1 ... len(nodes), by elimination in floats.

    b_k = k! psi_k / (e^-h - 1) with psi_1 = (e^-h - 1) / -h - 1 and psi_(k+1) = psi_k / -h - 1 / (k + 1)!. A single
    unknown is 1/2, as the paper has it: equal to the solution up to the order needed.
    """
    n = len(nodes)
    if n == 1:
        return [0.5]
    hh = -h
    scale, phi, factorial = math.expm1(hh), math.expm1(hh) / hh - 1.0, 1.0
    right = []
    for k in range(1, n + 1):
        right.append(phi * factorial / scale)
        factorial *= k + 1
        phi = phi / hh - 1.0 / factorial
    rows = [[node**k for node in nodes] + [right[k]] for k in range(n)]
    for i in range(n):
        top = max(range(i, n), key=lambda r: abs(rows[r][i]))
        rows[i], rows[top] = rows[top], rows[i]
        for r in range(n):
            if r != i:
                factor = rows[r][i] / rows[i][i]
                rows[r] = [a - factor * b for a, b in zip(rows[r], rows[i], strict=True)]
    return [rows[i][n] / rows[i][i] for i in range(n)]
