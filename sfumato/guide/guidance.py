"""Guidance: push one belief away from another; and keep the result in range."""

from __future__ import annotations

import torch
from torch import Tensor

from sfumato.core import TOKENS, Cond, Denoise, Posterior, SfumatoError, Slot, Time, expand
from sfumato.guide.wrap import Guide, Guided, on_mean


def _both(cond: Cond, against: Cond, keep: tuple[str, ...]) -> Cond:
    """The conditions twice in one batch: as they are, then those of `against` (one row, for all), the others absent but
    for those of `keep`."""

    def twice(name: str, slot: Slot) -> Slot:
        value, present = slot.value, slot.present()
        if name in keep:
            return Slot(torch.cat([value, value]), slot.role, torch.cat([present, present]))
        if name not in against:
            return Slot(torch.cat([value, value]), slot.role, torch.cat([present, torch.zeros_like(present)]))
        other = against[name].take(torch.zeros(len(value), dtype=torch.int64))
        parts = [(value, present), (other.value, other.present())]
        if slot.role in TOKENS:  # the shorter one is padded with masked tokens
            longest = max(v.shape[1] for v, _ in parts)
            parts = [(_longer(v, longest), _longer(m, longest)) for v, m in parts]
        return Slot(torch.cat([v for v, _ in parts]), slot.role, torch.cat([m for _, m in parts]))

    pushed = {name: _pushed(against[name], len(next(iter(cond.values())).value)) for name in set(against) - set(cond)}
    return Cond({name: twice(name, slot) for name, slot in cond.items()} | pushed)


def _pushed(slot: Slot, n: int) -> Slot:
    """A condition that is to be avoided and not asked for: absent in the first half of the batch, there in the second."""
    every = slot.take(torch.zeros(2 * n, dtype=torch.int64))
    return every.null(torch.arange(2 * n) < n)


def _longer(tokens: Tensor, n: int) -> Tensor:
    return torch.cat([tokens, tokens.new_zeros(len(tokens), n - tokens.shape[1], *tokens.shape[2:])], 1)


def cfg(
    w: float,
    interval: tuple[float, float] = (0.0, 1.0),
    against: Cond = Cond(),  # noqa: B008
    keep: tuple[str, ...] = (),
) -> Guide:
    """Classifier-free guidance lin = null + w (cond - null) (Ho & Salimans 2022), where t lies in `interval`
    (Kynkaanniemi et al. 2024), plain conditional belief elsewhere.

    `against` (one row) stands in place of the absent conditions: the belief is pushed away from it, as negative prompts
    do; conditions named in `keep` are given to both beliefs. w = 1 is no guidance (one network call), w = 0 ignores the
    condition. Both come from one call on a batch twice as long. Works on means and on logits. Raises SfumatoError for a
    call without conditions.
    """

    def guide(denoise: Denoise) -> Denoise:
        def believe(x_t: Tensor, t: Time, cond: Cond) -> Posterior:
            low, high = interval
            inside = (t >= low) & (t <= high) if isinstance(t, Tensor) else low <= t <= high
            if not (inside.any() if isinstance(inside, Tensor) else inside):
                return denoise(x_t, t, cond)
            if not cond:
                raise SfumatoError("guidance needs a condition to guide towards: give one (class, prompt) or use w = 1")
            times = torch.cat([t, t]) if isinstance(t, Tensor) else t
            with_cond, without = denoise(torch.cat([x_t, x_t]), times, _both(cond, against, keep)).lin.chunk(2)
            lin = without + w * (with_cond - without)
            if isinstance(inside, Tensor):
                lin = torch.where(expand(inside, lin), lin, with_cond)
            return denoise.process.posterior(x_t, t, lin)

        return Guided(denoise.process, believe)

    return guide if w != 1.0 else lambda denoise: denoise


def autoguide(weak: Denoise, w: float) -> Guide:
    """lin = weak + w (strong - weak), `weak` a smaller or less trained model of the same data (Karras et al. 2024).

    Works without conditions. w = 1 is no guidance.
    """

    def guide(denoise: Denoise) -> Denoise:
        def believe(x_t: Tensor, t: Time, cond: Cond) -> Posterior:
            strong, base = denoise(x_t, t, cond), weak(x_t, t, cond).lin
            return strong.with_lin(base + w * (strong.lin - base))

        return Guided(denoise.process, believe)

    return guide if w != 1.0 else lambda denoise: denoise


def dynamic_threshold(p: float = 0.995) -> Guide:
    """x0 clipped to [-q, q] and divided by q, q = max(1, p-quantile of |x0|) of each sample (Saharia et al. 2022,
    Imagen).

    For data in [-1, 1]. Args: `p` in (0, 1].
    """
    if not 0 < p <= 1:
        raise SfumatoError(f"the quantile of a dynamic threshold lies above 0 and up to 1, not {p}")

    def change(x0: Tensor) -> Tensor:
        # picture by picture: torch's quantile takes 16 million numbers at most
        q = expand(torch.stack([row.quantile(p) for row in x0.abs().flatten(1)]).clamp_min(1.0), x0)
        return x0.clamp(-q, q) / q

    return on_mean(change)
