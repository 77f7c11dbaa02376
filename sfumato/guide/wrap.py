"""The shape of every guide: a denoiser made from a denoiser, with the same process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from sfumato.core import Cond, Denoise, Posterior, Process, Time

Guide = Callable[[Denoise], Denoise]
EMPTY = Cond()


@dataclass(frozen=True)
class Guided:
    """A denoiser whose call is `believe(x_t, t, cond)`; it shares the process of what it wraps."""

    process: Process
    believe: Callable[[Tensor, Time, Cond], Posterior]

    def __call__(self, x_t: Tensor, t: Time, cond: Cond = EMPTY) -> Posterior:
        return self.believe(x_t, t, cond)


def bind(denoise: Denoise, cond: Cond) -> Denoise:
    """The denoiser with `cond` given once, so that solvers need not carry it; conditions of a call are added on top."""
    return Guided(denoise.process, lambda x_t, t, more: denoise(x_t, t, cond | more))


def with_guides(denoise: Denoise, *guides: Guide) -> Denoise:
    """The denoiser wrapped by each guide in turn, the first innermost."""
    for guide in guides:
        denoise = guide(denoise)
    return denoise


def on_mean(change: Callable[[Tensor], Tensor]) -> Guide:
    """A guide that replaces the belief's `lin` by change(lin)."""

    def guide(denoise: Denoise) -> Denoise:
        def believe(x_t: Tensor, t: Time, cond: Cond) -> Posterior:
            belief = denoise(x_t, t, cond)
            return belief.with_lin(change(belief.lin))

        return Guided(denoise.process, believe)

    return guide
