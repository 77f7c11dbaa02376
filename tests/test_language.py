"""The small encoder of words: what it reads, and that place and padding do not matter to it."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor, nn
from training import small_source

from sfumato.core import Cond, Slot
from sfumato.data import VOCABULARY, encode
from sfumato.data.text import FEATURES
from sfumato.denoiser import SlotSpec, UNet, UNetConfig
from sfumato.denoiser.conditions import Conditioner
from sfumato.denoiser.language import REACH, Language, Pool
from sfumato.denoiser.tokens import Tokens
from sfumato.settings import from_dict, to_dict
from sfumato.tasks import Model, load
from sfumato.train import Budget, Optimiser, Recipe, Setting, Trainer, pick_recipe

torch.set_num_threads(1)
TEXT = (SlotSpec("text", "tokens", VOCABULARY, ids=True),)


def alive(module: nn.Module) -> nn.Module:
    """With weights everywhere, as after training."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        for p in module.parameters():
            if p.abs().max() == 0:
                nn.init.normal_(p, std=0.1)
    return module


def language() -> Language:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return alive(Language(VOCABULARY, 32))


def read(net: Language, *captions: str) -> list[Tensor]:
    ids, mask = encode(captions)
    return list(net(ids, mask).split(mask.sum(1).tolist()))


def test_captions_of_different_lengths_are_read_as_each_alone() -> None:
    net, captions = language(), ("a red apple", "cat", "", "one two three four five six seven eight nine")
    for caption, together in zip(captions, read(net, *captions), strict=True):
        assert torch.allclose(together, read(net, caption)[0], atol=1e-5)


@pytest.mark.parametrize("place", [5, 100, 500, 1000])
def test_a_fact_is_read_alike_wherever_it_stands(place: int) -> None:
    net, filler = language(), "of and then so "
    plain = (filler * 2).split() + ["red", "apple"] + (filler * 2).split()
    moved = (filler * 300).split()[: place // 4 * 4] + ["red", "apple"] + (filler * 2).split()
    at = place // 4 * 4
    assert torch.allclose(read(net, " ".join(plain))[0][8:10], read(net, " ".join(moved))[0][at : at + 2], atol=1e-5)


def test_a_word_knows_its_neighbours_and_no_others() -> None:
    net = language()
    first, second = read(net, "red apple and a b c d e f g h", "blue apple and a b c d e f g h")
    changed = (first - second).abs().amax(1) > 1e-5
    reach = 2 * (REACH // 2)  # two layers
    assert changed[: reach + 1].all() and not changed[reach + 1 :].any()


def test_a_word_never_seen_lands_near_those_spelled_alike() -> None:
    net = language()
    apple, apples, crocus = (read(net, word)[0][0] for word in ("strawberry", "strawberries", "xylophone"))
    cosine = torch.nn.functional.cosine_similarity
    assert cosine(apple, apples, 0) > cosine(apple, crocus, 0) + 0.2


def test_one_telling_word_is_not_thinned_out_by_a_thousand_others() -> None:
    pool = Pool(32)
    with torch.no_grad():
        pool.score.weight.zero_().add_(torch.linspace(-3, 3, 32))
    tokens = torch.zeros(1, 1001, 32)
    tokens[0, 700] = torch.linspace(-3, 3, 32)
    alone, among = (
        pool(Tokens(part[0], torch.zeros(part.shape[1], dtype=torch.int64), 1)) for part in (tokens[:, 700:701], tokens)
    )
    assert torch.allclose(alone, among, rtol=0.02, atol=1e-3)


def test_text_and_its_absence_are_told_apart_and_nothing_is_read_of_an_empty_caption() -> None:
    conditioner = alive(Conditioner((SlotSpec("text", "tokens", VOCABULARY, ids=True),), 32))
    x = torch.zeros(2, 1, 8, 8)
    ids, mask = encode(["", ""])
    empty = conditioner(Cond({"text": Slot(ids, "tokens", mask)}), x)
    absent = conditioner(Cond(), x)
    ids, mask = encode(["a cat", "a dog"])
    told = Cond({"text": Slot(ids, "tokens", mask)})
    for found in (empty, conditioner(told.null(), x)):
        assert torch.allclose(found[0], absent[0], atol=1e-6) and bool((found[1].count == 1).all())
    vector = conditioner(told, x)[0]
    assert (vector[0] - vector[1]).abs().max() > 1e-3 and (vector - absent[0]).abs().amax(1).min() > 1e-3


def test_tokens_are_padded_in_their_order_and_one_long_caption_does_not_pad_the_others() -> None:
    sample = torch.tensor([0, 0, 2, *[3] * 500, 4, 0, *range(5, 20)])  # 1 has none; one of 0 comes late
    tokens = Tokens(torch.arange(1.0, len(sample) + 1).unsqueeze(1), sample, 20)
    assert tokens.whole.mask.shape == (20, 500) and tokens.count.tolist()[:4] == [3, 0, 1, 500]
    few, many = tokens.groups
    assert few.mask.shape == (19, 3) and many.samples.tolist() == [3]
    for group in (tokens.whole, few, many):
        for row, mask, k in zip(group.padded(tokens.rows), group.mask, group.samples.tolist(), strict=True):
            assert row[mask, 0].tolist() == tokens.rows[sample == k, 0].tolist() and not row[~mask].any()
    even = Tokens(tokens.rows[:8], torch.arange(8), 8)
    assert even.groups == [even.whole]


def test_a_picture_is_the_same_beside_a_long_caption() -> None:
    net = alive(UNet(UNetConfig(widths=(16, 32), blocks=(1, 1), attention=(1,), embedding=64, head=16, slots=TEXT)))
    x = torch.randn(8, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    captions = ["a cat", "a dog", "so it is " * 150, "a red apple", "", "an owl", "a boat", "a hat"]

    def drawn(rows: list[int]) -> Tensor:
        ids, mask = encode([captions[k] for k in rows])
        return net(x[rows], torch.zeros(len(rows)), Cond({"text": Slot(ids, "tokens", mask)}))

    together = drawn(list(range(8)))
    for k in range(8):
        assert torch.allclose(drawn([k])[0], together[k], atol=1e-5)


def captioned(captions: list[str]):
    source = small_source(len(captions))
    return dataclasses.replace(source, captions=captions, classes=(), labels=None)


def test_gradients_reach_words_letters_and_neighbours() -> None:
    net = language()
    ids, mask = encode(["red apple"])
    net(ids, mask).square().sum().backward()
    reached = {n for n, p in net.named_parameters() if p.grad is not None and p.grad.abs().max() > 0}
    assert reached == {n for n, _ in net.named_parameters()}
    rows = net.table.weight.grad.abs().amax(1).nonzero()[:, 0].tolist()
    assert set(rows) == set(ids.flatten().tolist()) - {0}


def test_captions_are_learned_and_the_right_picture_is_drawn(tmp_path) -> None:
    """Pictures with a caption each, of shared words: afterwards every caption draws its own."""
    captions = [f"{colour} {thing}" for colour in ("red", "blue") for thing in ("apple", "owl")]
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 2, (4, 4, 4, 1), generator=generator).repeat_interleave(2, 1).repeat_interleave(2, 2)
    source = dataclasses.replace(captioned(captions), pixels=(pixels * 255).to(torch.uint8).numpy())
    net = UNetConfig(widths=(16, 32), blocks=(1, 1), attention=(1,), embedding=64, head=16)
    recipe = Recipe(net=net, batch=8, optimiser=Optimiser(rate=4e-3, warmup=10), condition_dropout=0.05)
    recipe = recipe.fit_to(source)
    trainer = Trainer(recipe.build(), recipe, source, Budget(steps=200), Setting(None, False))
    for _ in trainer.steps():
        pass
    facts = {"classes": [], "captions": captions, "codec": {"height": 8, "width": 8, "channels": 1}}
    facts |= {"recipe": to_dict(recipe), "data": {}}
    model = Model(trainer.denoiser.eval(), recipe.codec(source.codec), facts)
    x0 = source.batch(torch.arange(4)).x0
    for k in source.train_index.tolist():
        drawn = model.generate(n=1, prompt=captions[k], steps=12).x0
        assert int((x0 - drawn).square().flatten(1).mean(1).argmin()) == k, captions[k]
    again = load(model.export(tmp_path / "model.safetensors"))
    first, second = (m.generate(n=1, prompt="red owl", steps=4).x0 for m in (model, again))
    assert torch.allclose(first, second, atol=1e-3)


def test_the_recipe_for_text_carries_its_encoder_through_its_settings() -> None:
    recipe = pick_recipe("text", 8).fit_to(captioned([f"thing {k}" for k in range(20)]))
    assert recipe.net.slots == (SlotSpec("text", "tokens", VOCABULARY, ids=True),)
    assert from_dict(Recipe, to_dict(recipe)) == recipe and encode(["word"])[0].shape == (1, 1, FEATURES)
