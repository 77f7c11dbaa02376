"""A picture is the same to the last bit in any company."""

from __future__ import annotations

import pytest
import torch
from training import tiny_recipe

from sfumato.core import Cond, Noise, Slot
from sfumato.data import Source, encode
from sfumato.denoiser import TransformerConfig, UNetConfig
from sfumato.denoiser.steady import ROWS, Call, answers
from sfumato.guide import bind, cfg, with_guides
from sfumato.reverse import pick_grid, pick_solver, sample

CAPTIONS = ["a red apple", "", "one two three four five six seven eight nine ten", "owl", "b c d", "x " * 40, "last"]
NETS = (
    UNetConfig(patch=1, widths=(32, 64), blocks=(1, 1), embedding=64, attention=(0, 1), head=16),
    TransformerConfig(patch=2, width=64, depth=2, head=16, bottleneck=16),
)


def denoiser(net):
    pixels = torch.zeros(8, 16, 16, 3, dtype=torch.uint8).numpy()
    source = Source("s", pixels, tuple(str(k) for k in range(8)), captions=[f"caption {k}" for k in range(8)])
    made, generator = tiny_recipe(source, net=net).build(), torch.Generator().manual_seed(3)
    for p in made.parameters():
        p.data += 0.1 * torch.randn(p.shape, generator=generator)
    return made.eval().requires_grad_(False)


def drawn(denoise, rows: list[int], guidance: float) -> torch.Tensor:
    ids, mask = encode([CAPTIONS[k] for k in rows])
    guided = bind(with_guides(denoise, cfg(guidance)), Cond({"text": Slot(ids, "tokens", mask)}))
    grid = pick_grid("flow")(4, denoise.process)
    return sample(guided, (len(rows), 3, 16, 16), Noise([100 + k for k in rows]), pick_solver("dpmpp2m"), grid)


@pytest.mark.parametrize("net", NETS, ids=["unet", "transformer"])
@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_company_changes_no_bit(net, guidance: float) -> None:
    made = denoiser(net)
    loose = [drawn(made, [k], guidance) for k in range(len(CAPTIONS))]
    made.steady = True
    alone = [drawn(made, [k], guidance) for k in range(len(CAPTIONS))]
    for a, b in zip(alone, loose, strict=True):
        assert torch.allclose(a, b, atol=1e-3)  # the same belief, but for rounding
    for rows in ([0, 1, 2, 3, 4, 5, 6], [6, 5, 0], [2, 2, 5, 1, 0, 3, 3, 3, 4]):
        for k, one in zip(rows, drawn(made, rows, guidance), strict=True):
            assert torch.equal(one, alone[k][0]), (k, rows)


def test_without_it_bits_do_change() -> None:
    """The test above can fail: the plain network is not the same in every company."""
    made = denoiser(NETS[0])
    alone = torch.cat([drawn(made, [k], 3.0) for k in range(7)])
    together = [drawn(made, rows, 3.0) for rows in (list(range(7)), list(range(4)), list(range(3)))]
    assert any(not torch.equal(some, alone[: len(some)]) for some in together)


@pytest.mark.parametrize("net", NETS, ids=["unet", "transformer"])
def test_for_many_pictures_the_same_weights_are_asked_in_calls_of_any_form(net) -> None:
    made = denoiser(net)
    loose = drawn(made, list(range(7)), 3.0)
    made.steady = True
    steady = drawn(made, list(range(7)), 3.0)
    plain = made.plain()
    assert torch.equal(drawn(plain, list(range(7)), 3.0), loose) and not torch.equal(steady, loose)
    assert torch.equal(drawn(made, list(range(7)), 3.0), steady)  # and it is as it was
    assert all(p is q for p, q in zip(made.parameters(), plain.parameters(), strict=True))


def test_calls_of_all_kinds_are_answered_in_their_order() -> None:
    """Other sizes, other conditions, no rows; each call to the network has ROWS rows of one kind."""
    seen = []

    def net(x, level, cond, even=False):
        seen.append((tuple(x.shape), sorted(cond)))
        return x + level.reshape(-1, 1) + sum(slot.value.float().sum(1, keepdim=True) for slot in cond.values())

    calls = [
        Call(torch.arange(10.0).reshape(5, 2), torch.arange(5.0), Cond()),
        Call(torch.ones(3, 4), torch.zeros(3), Cond()),
        Call(torch.ones(1, 2), torch.ones(1), Cond({"v": Slot(torch.full((1, 2), 5.0), "vector")})),
        Call(torch.ones(0, 2), torch.ones(0), Cond()),
    ]
    found = answers(net, calls)
    for call, y in zip(calls, found, strict=True):
        assert torch.equal(y, net(call.x, call.level, call.cond)) and y.shape == call.x.shape
    asked = seen[: -len(calls)]
    assert all(shape[0] == ROWS for shape, _ in asked) and len(asked) == 4
