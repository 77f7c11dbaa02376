"""U-Net and transformer: shapes, conditions, independence of samples, gradients, and the crash of torch 2.13."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sfumato.core import Cond, SfumatoError, Slot
from sfumato.denoiser import SlotSpec, Transformer, TransformerConfig, UNet, UNetConfig
from sfumato.denoiser.layers import attend, modulated_norm
from sfumato.denoiser.transformer import rotary, rotate

torch.set_num_threads(1)
SLOTS = (
    SlotSpec("class", "vector", 5, ids=True),
    SlotSpec("style", "vector", 3),
    SlotSpec("text", "tokens", 11, ids=True),
    SlotSpec("boxes", "tokens", 4),
    SlotSpec("placed", "placed", 11, ids=True),
    SlotSpec("sketch", "map", 2),
    SlotSpec("past", "frames", 1, frames=2),
)
PLACES = torch.tensor([[[0, 0, 500, 1000], [500, 0, 1000, 1000]]])
CONFIGS = {
    "unet": UNetConfig(widths=(8, 16), blocks=(1, 2), attention=(1,), embedding=32, head=8, slots=SLOTS),
    "transformer": TransformerConfig(width=32, depth=2, head=8, bottleneck=8, slots=SLOTS),
}
each_network = pytest.mark.parametrize("kind", CONFIGS)


def make(config: UNetConfig | TransformerConfig, seed: int = 0) -> nn.Module:
    """A network with weights everywhere, as after training (untrained ones answer zero and would prove nothing)."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = UNet(config) if isinstance(config, UNetConfig) else Transformer(config)
        for p in net.parameters():
            if p.abs().max() == 0:
                nn.init.normal_(p, std=0.1)
    return net


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def everything(n: int = 4, side: int = 8) -> Cond:
    mask = torch.tensor([[1, 1, 1, 0], [1, 0, 0, 0], [0, 0, 0, 0], [1, 1, 1, 1]], dtype=torch.bool)[:n]
    return Cond(
        {
            "class": Slot(torch.tensor([0, 4, 2, 1])[:n], "vector"),
            "style": Slot(draw(n, 3, seed=1), "vector"),
            "text": Slot(torch.arange(32).reshape(4, 4, 2)[:n] % 11, "tokens", mask),
            "boxes": Slot(draw(n, 2, 4, seed=2), "tokens"),
            "placed": Slot(torch.cat([torch.arange(4).reshape(1, 2, 2) + 1, PLACES], -1).expand(n, -1, -1), "placed"),
            "sketch": Slot(draw(n, 2, side, side, seed=3), "map"),
            "past": Slot(draw(n, 2, 1, side, side, seed=4), "frames"),
        }
    )


def inputs(n: int = 4, side: int = 8) -> tuple[Tensor, Tensor]:
    return draw(n, 1, side, side, seed=5), torch.linspace(-2, 2, n)


@each_network
def test_an_untrained_network_answers_zero(kind) -> None:
    config = CONFIGS[kind]
    net = UNet(config) if kind == "unet" else Transformer(config)
    assert net(*inputs(), everything()).eq(0).all()


@pytest.mark.parametrize("patch", [1, 2, 4])
@pytest.mark.parametrize(("height", "width"), [(8, 8), (16, 8), (8, 24)])
@each_network
def test_shapes_over_patches_sides_and_channels(kind, patch, height, width) -> None:
    for channels, out in ((1, 0), (3, 0), (2, 5)):
        config = dataclasses.replace(CONFIGS[kind], slots=(), patch=patch, channels=channels, channels_out=out)
        assert height % config.multiple == width % config.multiple == 0
        y = make(config)(draw(2, channels, height, width), torch.zeros(2), Cond())
        assert y.shape == (2, out or channels, height, width) and y.isfinite().all()


def test_levels_of_a_unet_halve_the_picture() -> None:
    config = UNetConfig(patch=2, widths=(8, 8, 8), blocks=(1, 1, 1), attention=(0, 2), embedding=16, head=8)
    assert config.multiple == 8
    assert make(config)(draw(1, 1, 16, 8), torch.zeros(1), Cond()).shape == (1, 1, 16, 8)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (UNetConfig(widths=(64, 128)), "blocks"),
        (UNetConfig(widths=(64, 100), blocks=(1, 1)), "multiples of 8"),
        (UNetConfig(widths=(), blocks=()), "blocks"),
        (UNetConfig(widths=(112, 64), blocks=(1, 1), attention=(0,), head=32), "112 .* heads of 32"),
        (UNetConfig(widths=(64, 64), blocks=(1, 1), attention=(2,)), "level 2"),
        (TransformerConfig(width=100), "head"),
        (TransformerConfig(width=60, head=6), "multiple of 4"),
    ],
)
def test_a_shape_that_cannot_be_built_is_said_in_one_line(config, said) -> None:
    with pytest.raises(SfumatoError, match=said):
        UNet(config) if isinstance(config, UNetConfig) else Transformer(config)


@pytest.mark.parametrize("name", [s.name for s in SLOTS])
@each_network
def test_a_null_slot_is_a_missing_slot_and_a_present_one_is_read(kind, name) -> None:
    net, (x, level), cond = make(CONFIGS[kind]), inputs(), everything()
    full = net(x, level, cond)
    missing = net(x, level, Cond({k: v for k, v in cond.items() if k != name}))
    assert torch.allclose(net(x, level, cond.null(name)), missing, atol=1e-5)
    told = torch.ones(4, dtype=torch.bool) if name != "text" else cond["text"].mask.any(1)
    change = (full - missing).flatten(1).abs().amax(1)
    assert (change[told] > 1e-4).all() and (change[~told] < 1e-5).all()


@each_network
def test_slots_can_be_absent_for_some_samples(kind) -> None:
    net, (x, level), cond = make(CONFIGS[kind]), inputs(), everything()
    where = torch.tensor([True, False, False, True])
    mixed = net(x, level, cond.null(where=where))
    assert torch.allclose(mixed[where], net(x, level, cond.null())[where], atol=1e-5)
    assert torch.allclose(mixed[~where], net(x, level, cond)[~where], atol=1e-5)


@each_network
def test_what_is_masked_has_no_influence(kind) -> None:
    net, (x, level), cond = make(CONFIGS[kind]), inputs(), everything()
    before = net(x, level, cond)
    text = cond["text"]
    changed = torch.where(text.mask[..., None], text.value, (text.value + 3) % 11)
    assert not torch.equal(changed, text.value)
    assert torch.equal(net(x, level, cond | {"text": Slot(changed, "tokens", text.mask)}), before)
    longer = Slot(F.pad(text.value, (0, 0, 0, 3), value=7), "tokens", F.pad(text.mask, (0, 3)))
    assert torch.allclose(net(x, level, cond | {"text": longer}), before, atol=1e-5)
    for name in ("class", "style", "sketch", "past"):
        slot = cond[name]
        mask = torch.tensor([True, False, True, False])
        other = Slot(slot.value.clone(), slot.role, mask)
        other.value[~mask] += 1 if slot.value.dtype == torch.int64 else 2.5
        other.value[1::2] %= 5
        masked = net(x, level, cond | {name: Slot(slot.value, slot.role, mask)})
        assert torch.equal(net(x, level, cond | {name: other}), masked), name


@each_network
def test_tokens_are_read_in_full_and_out_of_order_alike(kind) -> None:
    """Condition tokens carry no position, so their order is free; which ones there are is not."""
    net, (x, level), cond = make(CONFIGS[kind]), inputs(), everything()
    boxes = Slot(cond["boxes"].value.flip(1), "tokens")
    assert torch.allclose(net(x, level, cond | {"boxes": boxes}), net(x, level, cond), atol=1e-5)


@each_network
def test_a_map_is_read_where_it_lies(kind) -> None:
    """Its influence is largest near the changed place, so rows and columns are not exchanged on the way."""
    net, (x, level), cond = make(CONFIGS[kind]), inputs(side=16), everything(side=16)
    sketch = cond["sketch"].value.clone()
    sketch[:, :, 1, 14] += 3
    change = (net(x, level, cond | {"sketch": Slot(sketch, "map")}) - net(x, level, cond)).abs().sum((0, 1))
    assert change[:4, 12:].mean() > 2 * change[12:, :4].mean()


@each_network
def test_a_sample_alone_is_the_sample_in_a_batch(kind) -> None:
    net, (x, level), cond = make(CONFIGS[kind]), inputs(), everything()
    batch = net(x, level, cond)
    for k in range(4):
        rows = slice(k, k + 1)
        assert torch.allclose(net(x[rows], level[rows], cond.take(rows)), batch[rows], atol=1e-5)


@each_network
def test_unknown_conditions_are_refused_by_name(kind) -> None:
    net = make(dataclasses.replace(CONFIGS[kind], slots=SLOTS[:2]))
    with pytest.raises(SfumatoError, match="no condition .'tone'.*'class', 'style'"):
        net(*inputs(), Cond({"tone": Slot(torch.zeros(4), "vector")}))


@each_network
def test_gradients_reach_every_parameter(kind) -> None:
    config = CONFIGS[kind]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = UNet(config) if kind == "unet" else Transformer(config)
    optimiser = torch.optim.Adam(net.parameters(), lr=1e-2)
    x, level = inputs()
    reached: set[str] = set()
    for step in range(6):
        cond = everything().null(where=torch.arange(4) == step % 4)
        (net(x, level, cond) - draw(4, 1, 8, 8, seed=9)).square().mean().backward()
        reached |= {n for n, p in net.named_parameters() if p.grad is not None and p.grad.abs().max() > 0}
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
    assert set(dict(net.named_parameters())) - reached == set()


FROZEN = """
import torch
from test_denoiser_networks import CONFIGS, draw, everything, make, inputs
torch.set_num_threads(1)
for kind in CONFIGS:
    for trained in ("head", "head_modulation", "modulation", "all but stem", "conditioner", ""):
        net = make(CONFIGS[kind])
        for name, p in net.named_parameters():
            if p.ndim == 4:
                p.data = p.data.contiguous(memory_format=torch.channels_last)
            inside = not name.startswith(("stem", "embed")) if trained == "all but stem" else trained in name
            p.requires_grad_(inside)
        for precision in (None, torch.bfloat16):
            x, level = inputs(4, 16)
            x = x.contiguous(memory_format=torch.channels_last)
            with torch.autocast("cpu", torch.bfloat16, enabled=precision is not None):
                net(x, level, everything(side=16)).float().square().mean().backward()
            grads = [p.grad for p in net.parameters() if p.requires_grad]
            assert grads and all(g is None or g.isfinite().all() for g in grads)
            assert any(g is not None and g.abs().max() > 0 for g in grads)
print("alive")
"""


def test_backward_survives_frozen_parts_in_channels_last() -> None:
    """torch 2.13 on CPU dies in GroupNorm's backward when its channels_last input needs no grad and its weights do."""
    tests = Path(__file__).parent
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tests.parent), str(tests)]), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", FROZEN], capture_output=True, text=True, env=env, timeout=120)
    assert done.returncode == 0 and done.stdout.strip() == "alive", (done.returncode, done.stderr[-2000:])


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_the_modulated_norm_and_its_gradients_are_those_of_group_norm(layout) -> None:
    x = draw(3, 16, 5, 4).double().to(memory_format=layout).requires_grad_()
    scale, shift = (draw(3, 16, 1, 1, seed=s).double().requires_grad_() for s in (1, 2))
    found, truth = modulated_norm(x, scale, shift, 4), F.group_norm(x, 4) * (1 + scale) + shift
    assert torch.allclose(found, truth, atol=1e-12)
    back = draw(3, 16, 5, 4, seed=3).double()
    ours, theirs = (torch.autograd.grad(y, (x, scale, shift), back) for y in (found, truth))
    assert all(torch.allclose(a, b, atol=1e-12) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("masked", [False, True])
def test_written_out_attention_is_the_fused_one(masked) -> None:
    q, k, v = draw(2, 3, 17, 8), draw(2, 3, 30, 8, seed=1), draw(2, 3, 30, 8, seed=2)
    mask = torch.rand(2, 30, generator=torch.Generator().manual_seed(3)) < 0.5 if masked else None
    weights = q.double() @ k.double().transpose(-1, -2) / 8**0.5
    if mask is not None:
        weights = weights.masked_fill(~mask[:, None, None], -torch.inf)
    truth = weights.softmax(-1) @ v.double()
    assert torch.allclose(attend(q, k, v, mask).double(), truth, atol=1e-5)
    half = attend(q.bfloat16(), k.bfloat16(), v.bfloat16(), mask)
    assert half.dtype == torch.bfloat16 and (half.double() - truth).abs().max() < 0.03


def test_half_precision_attention_takes_both_ways_to_the_same_answer(monkeypatch) -> None:
    q, k, v = (draw(1, 2, 300, 16, seed=s).bfloat16() for s in range(3))
    calls: list[int] = []
    fused = F.scaled_dot_product_attention
    monkeypatch.setattr(F, "scaled_dot_product_attention", lambda *a, **kw: calls.append(1) or fused(*a, **kw))
    for keys in (256, 257):
        found = attend(q, k[:, :, :keys], v[:, :, :keys])
        truth = fused(q.double(), k[:, :, :keys].double(), v[:, :, :keys].double())
        assert (found.double() - truth).abs().max() < 0.02
    assert len(calls) == 1


def test_rotary_positions_are_relative() -> None:
    q, k = draw(1, 1, 1, 16), draw(1, 1, 1, 16, seed=1)
    cos, sin = rotary(6, 7, 0, 16, q)
    q, k = (rotate(x.expand(-1, 42, -1, -1), cos, sin)[0, :, 0].reshape(6, 7, 16) for x in (q, k))
    assert torch.allclose(q.norm(dim=-1), q[0, 0].norm().expand(6, 7), atol=1e-5)
    seen = {}
    for y in range(4):
        for x in range(5):
            for dy, dx in ((0, 0), (1, 0), (0, 1), (2, 2), (1, 2)):
                product = (q[y, x] * k[y + dy, x + dx]).sum()
                assert torch.allclose(product, seen.setdefault((dy, dx), product), atol=1e-5)
    assert (seen[1, 0] - seen[0, 1]).abs() > 1e-3 and (seen[0, 0] - seen[2, 2]).abs() > 1e-3


def test_rotary_turns_pairs_of_halves_by_their_angles() -> None:
    x = draw(1, 6, 3, 8)
    cos, sin = rotary(2, 3, 0, 8, x)
    pairs = torch.complex(*x.double().chunk(2, -1))
    for place in range(6):
        y, column = divmod(place, 3)
        angle = torch.tensor([y, y * 0.1, column, column * 0.1], dtype=torch.float64)
        turned = pairs[:, place] * torch.polar(torch.ones(4, dtype=torch.float64), angle)
        assert torch.allclose(
            rotate(x, cos, sin)[:, place].double(), torch.cat([turned.real, turned.imag], -1), atol=1e-6
        )


def test_rotary_leaves_condition_tokens_alone_and_positions_are_told_apart() -> None:
    x = draw(1, 7, 1, 8)
    cos, sin = rotary(2, 2, 3, 8, x)
    turned = rotate(x, cos, sin)
    assert torch.equal(turned[:, 4:], x[:, 4:]) and torch.equal(turned[:, 0], x[:, 0])
    angles = torch.cat([cos, sin], -1)[:4, 0]
    assert len(angles.unique(dim=0)) == 4


def test_building_leaves_the_global_generator_alone() -> None:
    from training import small_source, tiny_recipe

    recipe = tiny_recipe(small_source())
    torch.manual_seed(0)
    before = torch.get_rng_state()
    one, two = recipe.build(), recipe.build()
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    other = dataclasses.replace(recipe, seed=1).build()
    assert not torch.equal(other.net.stem.weight, one.net.stem.weight)


@each_network
def test_a_placed_word_is_read_with_its_place_and_by_the_words_of_captions(kind) -> None:
    net, x, cond = make(CONFIGS[kind]), inputs(), everything()
    before = net(*x, cond)
    placed = cond["placed"]
    for column in range(2, 6):  # each edge of the box matters
        moved = placed.value.clone()
        moved[:, 0, column] = 250
        assert (net(*x, cond | {"placed": Slot(moved, "placed")}) - before).abs().amax() > 1e-4
    net.conditioner.encoders["text"].table.weight.data[3] += 1.0  # the word 3 is said in a box, and by no caption alone
    alone = Cond({"placed": placed})
    changed = net(*x, alone)
    net.conditioner.encoders["text"].table.weight.data[3] -= 1.0
    assert (net(*x, alone) - changed).abs().amax() > 1e-4
    own = make(replace(CONFIGS[kind], slots=(SlotSpec("placed", "placed", 11, ids=True),)))
    assert own.conditioner.encoders["placed"].language is not None and own(*x, alone).isfinite().all()


@each_network
def test_a_picture_knows_where_it_is_only_where_words_do(kind) -> None:
    """Attention is told of places by weights that begin at zero: adding the slot changes nothing of what is drawn."""
    slots = tuple(spec for spec in SLOTS if spec.role != "placed")
    with_places = make(CONFIGS[kind])
    without = make(replace(CONFIGS[kind], slots=slots))
    shared = {k: v for k, v in with_places.state_dict().items() if k in without.state_dict()}
    without.load_state_dict(shared)
    for name, p in with_places.named_parameters():
        if name.endswith("place.weight") and "encoders" not in name:
            p.data.zero_()
    cond = Cond({k: v for k, v in everything().items() if k != "placed"})
    assert torch.allclose(with_places(*inputs(), cond), without(*inputs(), cond), atol=1e-6)


@pytest.mark.parametrize("keys", [40, 400, 2100])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_key_is_heard_as_its_bias_says(keys: int, dtype: torch.dtype) -> None:
    q, k, v, bias = draw(2, 3, 5, 8), draw(2, 3, keys, 8, seed=1), draw(2, 3, keys, 8, seed=2), draw(2, 3, keys, seed=3)
    mask = draw(2, keys, seed=4) > -1
    logits = (q @ k.transpose(-1, -2) / 8**0.5 + bias.unsqueeze(2)).double()
    truth = logits.masked_fill(~mask[:, None, None], -torch.inf).softmax(-1) @ v.double()
    found = attend(q.to(dtype), k.to(dtype), v.to(dtype), mask, bias.to(dtype)).double()
    assert torch.allclose(found, truth, atol=1e-5 if dtype == torch.float32 else 0.05)


def test_one_word_can_be_heard_among_a_thousand_that_mean_nothing() -> None:
    net = make(replace(CONFIGS["unet"], slots=(SlotSpec("text", "tokens", 2),)))
    for module in net.modules():
        if isinstance(getattr(module, "heard", None), nn.Linear):
            module.heard.weight.data.zero_()
            module.heard.bias.data.zero_()
    word, filler = torch.tensor([[[1.0, 0.0]]]), torch.tensor([[[0.0, 1.0]]])
    x, level = inputs(1)

    def drawn(n: int) -> Tensor:
        return net(x, level, Cond({"text": Slot(torch.cat([word, filler.expand(1, n, 2)], 1), "tokens")}))

    net.conditioner.pool.score.weight.data.zero_()  # what is added to the embedding has its own way of hearing
    net.conditioner.pool.out.weight.data.zero_()
    drowned = (drawn(1000) - drawn(0)).abs().max()
    token = net.conditioner.encoders["text"](filler)[0, 0]
    for module in net.modules():
        if isinstance(getattr(module, "heard", None), nn.Linear):
            module.heard.weight.data[:] = -30 * token / token.square().sum()
    heard = (drawn(1000) - drawn(0)).abs().max()
    assert heard < 0.2 * drowned
