"""A network for larger pictures around one that has learned small ones."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from sfumato.core import Cond, SfumatoError
from sfumato.denoiser import SlotSpec, UNet, UNetConfig
from sfumato.train import Recipe
from sfumato.train.start import take_over

SMALL = UNetConfig(
    channels=3,
    patch=2,
    widths=(16, 24),
    blocks=(1, 1),
    attention=(1,),
    embedding=32,
    head=8,
    slots=(SlotSpec("text", "tokens", 9),),
)
LARGE = replace(SMALL, widths=(32, 16, 24), blocks=(1, 1, 1), attention=(2,))
KNOWN = SlotSpec("known", "map", 4)


def learned(config: UNetConfig) -> dict[str, Tensor]:
    """Weights of a network that has been trained, as far as anybody can tell."""
    denoiser, noise = Recipe(net=config, sigma_data=0.5).build(), torch.Generator().manual_seed(3)
    return {name: 0.2 * torch.randn(p.shape, generator=noise) for name, p in denoiser.named_parameters()}


def grown(weights: dict[str, Tensor], after: UNetConfig = LARGE, before: UNetConfig = SMALL) -> UNet:
    denoiser = Recipe(net=after, sigma_data=0.5).build()
    take_over(denoiser, weights, before, after)
    return denoiser.net


def entering(net: UNet, x: Tensor, level: int) -> Tensor:
    """What the level of this network is given for pictures x."""
    seen: list[Tensor] = []
    hook = net.down[level][0][0].register_forward_hook(lambda _module, inputs, _out: seen.append(inputs[0]))
    with torch.no_grad():
        net(x, torch.zeros(len(x)), Cond())
    hook.remove()
    return seen[0]


@pytest.mark.parametrize("slots", [(), (KNOWN,)], ids=["words", "words and a map"])
def test_the_inside_is_given_what_it_was_given_of_the_small_picture(slots) -> None:
    weights = learned(SMALL)
    kernel = weights["net.stem.weight"].unflatten(
        1, (3, 2, 2)
    )  # its outer ring of small pixels lies beyond the new one
    kernel[:, :, 0, :, 0] = kernel[:, :, 1, :, 2] = 0
    kernel[:, :, :, 0, :, 0] = kernel[:, :, :, 1, :, 2] = 0
    small = UNet(SMALL)
    small.load_state_dict({k.removeprefix("net."): v for k, v in weights.items()}, strict=False)
    large = grown(weights, replace(LARGE, slots=(*SMALL.slots, *slots)))
    x = torch.randn(2, 3, 32, 24, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(entering(large, x, 1), entering(small, F.avg_pool2d(x, 2), 0), atol=1e-5)
    assert not torch.allclose(entering(large, x, 1), entering(small, x[..., ::2, ::2], 0), atol=1e-2)


def test_every_level_and_every_word_goes_one_further_in() -> None:
    weights = learned(SMALL)
    own = dict(grown(weights).named_parameters())
    for name, value in weights.items():
        name = name.removeprefix("net.")
        if name.startswith(("stem", "head")):
            continue
        part, _, rest = name.partition(".")
        if part in ("down", "up", "shrink", "grow"):
            number, _, rest = rest.partition(".")
            name = f"{part}.{int(number) + 1}.{rest}"
        assert torch.equal(own[name], value), name
    assert own["head.weight"].abs().max() == 0


@pytest.mark.parametrize(
    "change",
    [
        {"widths": (32, 16, 32)},
        {"attention": (1,)},
        {"blocks": (1, 1, 2)},
        {"patch": 1},
        {"widths": (24, 16), "blocks": (1, 1)},
    ],
    ids=str,
)
def test_another_inside_is_refused(change) -> None:
    after = replace(LARGE, **change)
    if len(after.widths) == 2:
        after = replace(after, attention=(1,))
    with pytest.raises(SfumatoError, match="cannot begin with that model"):
        grown(learned(SMALL), after)


def test_where_the_outside_is_too_thin_or_the_patch_another_it_begins_by_itself() -> None:
    for changed in ({"widths": (8, 16, 24)}, {}):
        before = SMALL if changed else replace(SMALL, patch=1)
        after = replace(LARGE, patch=before.patch, **changed)
        net = grown(learned(before), after, before)
        assert net.stem.weight.abs().sum() > 0 and net.shrink[0].weight.abs().sum() > 0
