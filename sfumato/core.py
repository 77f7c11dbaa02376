"""Records and protocols that every room shares; imports nothing from below.

Time runs from t = 0 (data) to t = 1 (noise); s always comes after t in a move, so s < t when denoising.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from torch import Tensor

Time = float | Tensor
Role = Literal["vector", "tokens", "placed", "map", "frames"]
TOKENS = ("tokens", "placed")  # roles of one row for each word
EDGES, THOUSAND = 4, 1000  # the last numbers of a placed word: its box's left, top, right and bottom in thousandths


class SfumatoError(Exception):
    """A mistake the user can mend; its one-line message says how. The command line turns it into exit code 2."""


def expand(value: Time, like: Tensor) -> Time:
    """Append axes to a per-sample (or per-frame) value so that it broadcasts over `like`; floats pass through."""
    if isinstance(value, float):
        return value
    return value.reshape(value.shape + (1,) * (like.ndim - value.ndim))


@dataclass(frozen=True)
class Slot:
    """One condition: `value` [B, ...], the `role` its encoder declared, `mask` True where present ([B], tokens [B, N]).

    Placed tokens say in their last EDGES numbers where in the picture they stand."""

    value: Tensor
    role: Role
    mask: Tensor | None = None

    def present(self) -> Tensor:
        """The mask, made explicit: bool [B], or [B, N] for tokens."""
        if self.mask is not None:
            return self.mask
        shape = self.value.shape[:2] if self.role in TOKENS else self.value.shape[:1]
        return torch.ones(shape, dtype=torch.bool, device=self.value.device)

    def take(self, index: Tensor | slice) -> Slot:
        return Slot(self.value[index], self.role, None if self.mask is None else self.mask[index])

    def null(self, where: Tensor | None = None) -> Slot:
        """The same slot, absent for the samples of `where` (bool [B]; all when None)."""
        present = self.present()
        if where is None:
            return Slot(self.value, self.role, torch.zeros_like(present))
        return Slot(self.value, self.role, present & ~where.reshape(-1, *(1,) * (present.ndim - 1)))


class Cond(Mapping[str, Slot]):
    """What a sample is conditioned on: slot names to slots; immutable."""

    def __init__(self, slots: Mapping[str, Slot] | None = None) -> None:
        self._slots = dict(slots or {})

    def __getitem__(self, name: str) -> Slot:
        return self._slots[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._slots)

    def __len__(self) -> int:
        return len(self._slots)

    def null(self, *names: str, where: Tensor | None = None) -> Cond:
        """The same conditions with `names` (all when empty) absent for the samples of `where` (all when None)."""
        unknown = set(names) - set(self)
        if unknown:
            raise SfumatoError(f"no condition named {sorted(unknown)}; this model has {sorted(self) or 'none'}")
        return Cond({k: v.null(where) if not names or k in names else v for k, v in self.items()})

    def take(self, index: Tensor | slice) -> Cond:
        """Rows of every slot."""
        return Cond({k: v.take(index) for k, v in self.items()})

    def __or__(self, other: Mapping[str, Slot]) -> Cond:
        return Cond({**self, **other})

    def to(self, device: torch.device | str) -> Cond:
        return Cond(
            {
                k: Slot(v.value.to(device), v.role, None if v.mask is None else v.mask.to(device))
                for k, v in self.items()
            }
        )


@dataclass(frozen=True)
class Batch:
    """What training sees: encoded data `x0` [B, ...], its conditions, and the row numbers in the source [B]."""

    x0: Tensor
    cond: Cond = field(default_factory=Cond)
    index: Tensor | None = None

    def take(self, rows: slice) -> Batch:
        return Batch(self.x0[rows], self.cond.take(rows), None if self.index is None else self.index[rows])


def _mix(*keys: int) -> int:
    """A 63-bit hash of integers (splitmix64 finaliser), so that nearby seeds and steps give unrelated streams."""
    h = 0
    for key in keys:
        h = (h ^ (key & 0xFFFFFFFFFFFFFFFF)) + 0x9E3779B97F4A7C15 & 0xFFFFFFFFFFFFFFFF
        h = (h ^ (h >> 30)) * 0xBF58476D1CE4E5B9 & 0xFFFFFFFFFFFFFFFF
        h = (h ^ (h >> 27)) * 0x94D049BB133111EB & 0xFFFFFFFFFFFFFFFF
        h ^= h >> 31
    return h >> 1


class Noise:
    """Randomness with one generator per sample: sample k draws the same numbers alone or in any batch.

    `at(i)` gives the independent noise of step i; asking twice for the same i gives the same numbers.
    """

    def __init__(self, seeds: Sequence[int]) -> None:
        self.seeds = tuple(int(s) for s in seeds)
        self._generators: list[torch.Generator] | None = None

    @classmethod
    def of(cls, seed: int, n: int, first: int = 0) -> Noise:
        """Noise for pictures `first` ... `first + n - 1` of the run with this seed."""
        return cls([_mix(seed, k) for k in range(first, first + n)])

    def at(self, *keys: int) -> Noise:
        return Noise([_mix(s, *keys) for s in self.seeds])

    def _draw(self, draw: Any, shape: Sequence[int], device: torch.device | str) -> Tensor:
        if shape[0] != len(self.seeds):
            raise ValueError(f"noise for {len(self.seeds)} samples cannot fill a batch of {shape[0]}")
        if self._generators is None:
            self._generators = [torch.Generator().manual_seed(s) for s in self.seeds]
        rows = [draw(tuple(shape[1:]), generator=g) for g in self._generators]
        return torch.stack(rows).to(device)

    def normal(self, shape: Sequence[int], device: torch.device | str = "cpu") -> Tensor:
        """Standard normal float32 of this shape (first axis = samples)."""
        return self._draw(torch.randn, shape, device)

    def uniform(self, shape: Sequence[int], device: torch.device | str = "cpu") -> Tensor:
        """Uniform [0, 1) float32 of this shape (first axis = samples)."""
        return self._draw(torch.rand, shape, device)


@runtime_checkable
class Posterior(Protocol):
    """What is believed of x0 given x_t: the one currency between network and sampler."""

    x_t: Tensor
    t: Time
    lin: Tensor  # mean or logits: guidance is linear in it

    @property
    def x0(self) -> Tensor: ...
    def with_lin(self, lin: Tensor) -> Posterior: ...
    def observe(self, known: Tensor, y: Tensor) -> Posterior: ...
    def draw(self, noise: Noise) -> Tensor: ...


class Process(Protocol):
    """The forward kernel and its exact reverse bridge."""

    linear: bool
    t_min: float
    t_max: float

    def prior(self, shape: Sequence[int], noise: Noise) -> Tensor: ...
    def corrupt(self, x0: Tensor, t: Time, noise: Noise) -> Tensor: ...
    def renoise(self, x: Tensor, s: Time, t: Time, noise: Noise) -> Tensor: ...
    def bridge(self, x_t: Tensor, t: Time, s: Time, posterior: Posterior, noise: Noise) -> Tensor: ...
    def posterior(self, x_t: Tensor, t: Time, lin: Tensor) -> Posterior: ...


class Denoise(Protocol):
    """Anything that turns (x_t, t, cond) into a belief: a network, an exact oracle, or a guided one."""

    process: Process

    def __call__(self, x_t: Tensor, t: Time, cond: Cond = ...) -> Posterior: ...
