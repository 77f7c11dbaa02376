"""Preparation: captions by the user's rules, standardisation with its inverse, colour whose vector tells all."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections import Counter

import numpy as np
import pytest
import torch
from training import small_source, tiny_recipe, tiny_trainer

from sfumato.core import Cond, Noise, SfumatoError
from sfumato.data import Augment, Captions, Colour, PixelCodec, Source, Standard, StandardCodec
from sfumato.data.captions import Synonyms, read
from sfumato.data.standardise import normality
from sfumato.data.text import encode
from sfumato.settings import from_dict, override, to_dict
from sfumato.tasks import Model, Request, generate
from sfumato.train import Recipe, validation_losses


def many(rules: Captions, caption: str, n: int = 400) -> Counter[str]:
    return Counter(rules.change(caption, Noise([s])) for s in Noise.of(0, n).seeds)


# captions


def test_without_rules_a_caption_stays_as_it_is() -> None:
    assert many(Captions(), "a black cat, sitting,on  a mat") == {"a black cat, sitting,on  a mat": 400}


def test_dropped_and_missing_captions_are_empty() -> None:
    seen = many(Captions(drop=0.3), "a cat")
    assert set(seen) == {"a cat", ""} and abs(seen[""] / 400 - 0.3) < 5 * (0.21 / 400) ** 0.5
    assert many(Captions(templates=("a photo of {}",), template=1.0), "  ") == {"": 400}, "nothing is invented"


def test_phrases_are_shuffled_and_none_is_lost() -> None:
    """All 3! orders of what may move come about equally often, and the kept phrase stays first."""
    seen = many(Captions(shuffle=1.0, keep=1), "cat, black, big, old", 1200)
    orders = {f"cat, {a}, {b}, {c}" for a, b, c in itertools.permutations(("black", "big", "old"))}
    assert set(seen) == orders
    assert all(abs(n - 200) < 5 * (1200 * (1 / 6) * (5 / 6)) ** 0.5 for n in seen.values())
    assert many(Captions(shuffle=1.0), "one phrase") == {"one phrase": 400}


def test_synonyms_stand_for_whole_words_of_any_case_only() -> None:
    rules = Captions(swap=1.0, synonyms=(Synonyms("cat", ("kitten", "feline")), Synonyms("black cat", ("panther",))))
    assert many(rules, "a category, not concatenated") == {"a category, not concatenated": 400}
    assert set(many(rules, "Cat")) == {"kitten", "feline"}
    assert many(rules, "a black cat's home") == {"a panther's home": 400}, "the longest phrase wins"
    assert set(many(rules, "cat cat")) == {f"{a} {b}" for a in ("kitten", "feline") for b in ("kitten", "feline")}
    assert set(many(dataclasses.replace(rules, swap=0.5), "cat")) == {"cat", "kitten", "feline"}


def test_odd_characters_in_rules_are_only_characters() -> None:
    rules = Captions(swap=1.0, synonyms=(Synonyms("c++ (old)", (r"\1 {}",)),), template=1.0, templates=("[{}]",))
    assert many(rules, "about c++ (old) code") == {r"[about \1 {} code]": 400}


def test_a_caption_depends_on_its_own_stream_alone() -> None:
    rules = Captions(shuffle=0.5, swap=0.5, synonyms=(Synonyms("cat", ("kitten",)),), templates=("a photo of {}",))
    captions = [f"cat, red, number {k}" for k in range(20)]
    noise = Noise.of(4, 20)
    changed = [rules.change(c, Noise([s])) for c, s in zip(captions, noise.seeds, strict=True)]
    assert rules.changed(captions, noise) == changed
    assert bool(encode(changed)[1].any(0).all()), "no column is padding throughout"
    assert len(set(changed) & set(captions)) < 20


def test_rules_come_from_the_users_file(tmp_path) -> None:
    path = tmp_path / "rules.json"
    path.write_text(json.dumps({"shuffle": 0.25, "keep": 1, "synonyms": {"cat": ["kitten"]}, "templates": ["a {}"]}))
    assert read(path) == Captions(shuffle=0.25, keep=1, synonyms=(Synonyms("cat", ("kitten",)),), templates=("a {}",))
    for text, line in (
        ("{", "JSON"),
        ("[]", "object"),
        ('{"shufle": 1}', "shufle"),
        ('{"synonyms": ["cat"]}', "synonyms"),
        ('{"synonyms": {"cat": "kitten"}}', "others"),
        ('{"synonyms": {"cat": []}}', "at least one other"),
        ('{"templates": ["no place"]}', "exactly one"),
        ('{"shuffle": 2}', "0 ... 1"),
    ):
        path.write_text(text)
        with pytest.raises(SfumatoError, match=line) as error:
            read(path)
        assert "\n" not in str(error.value)
    with pytest.raises(SfumatoError, match="cannot be read"):
        read(tmp_path / "absent.json")


def captioned(n: int = 40) -> Source:
    source = small_source(n)
    captions = [f"bar {k}, {'across' if label else 'down'}" for k, label in enumerate(source.labels.tolist())]
    return dataclasses.replace(source, captions=captions)


def test_training_sees_changed_captions_and_validation_the_true_ones() -> None:
    rules = Captions(swap=1.0, synonyms=(Synonyms("bar", ("line",)),))
    source = captioned()
    trainer = tiny_trainer(source=source, captions=rules, condition_dropout=0.0)
    batch, _ = trainer.batch(3)
    expected = [source.captions[k].replace("bar", "line") for k in batch.index.tolist()]
    ids, mask = encode(expected)
    assert torch.equal(batch.cond["text"].value, ids) and torch.equal(batch.cond["text"].mask, mask)
    rows = source.validation_index
    assert torch.equal(trainer.look(rows).cond["text"].value, source.batch(rows).cond["text"].value)
    assert torch.equal(trainer.batch(3)[0].cond["text"].value, ids), "asked twice, the same"
    with pytest.raises(SfumatoError, match="need captions"):
        tiny_recipe(small_source(), captions=rules)


# standardisation


def coloured(n: int = 60, size: int = 8, seed: int = 1) -> Source:
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (n, size, size, 3)) * np.array([0.2, 1.0, 0.5]) + np.array([150, 0, 40])
    return Source("noise", pixels.clip(0, 255).astype(np.uint8), tuple(f"{k:03d}.png" for k in range(n)))


@pytest.mark.parametrize("per", ["channel", "element"])
def test_standardised_data_have_mean_zero_and_variance_one(per) -> None:
    x = coloured().batch(torch.arange(60)).x0
    standard = Standard(per).fit(x.split(7))
    z = standard(x).double()
    axes = (0, 2, 3) if per == "channel" else (0,)
    assert z.mean(axes).abs().max() < 1e-5
    assert (z.var(axes, correction=0) - 1).abs().max() < 1e-4
    rebuilt = torch.tensor(standard.mean).reshape(3, -1)[:, 0] if per == "element" else torch.tensor(standard.mean)
    truth = x.numpy().astype(np.float64).mean((0, 2, 3) if per == "channel" else 0)
    assert np.allclose(rebuilt.numpy(), truth if per == "channel" else truth[:, 0, 0], atol=1e-6)


def test_far_means_do_not_cost_digits() -> None:
    """Latents of any scale: a spread of 1 about 10,000 is measured as 1."""
    x = Noise.of(0, 500).normal((500, 2, 4, 4)).double() + 1e4
    standard = Standard().fit(x.split(100))
    assert standard.std == pytest.approx(x.transpose(0, 1).flatten(1).std(1, correction=0).tolist(), rel=1e-9)


@pytest.mark.parametrize("per", ["channel", "element"])
def test_every_picture_comes_back_exactly(per) -> None:
    source = coloured()
    standard = Standard(per).fit([source.batch(source.train_index).x0])
    codec = StandardCodec(source.codec, standard)
    pictures = source.images(torch.arange(60))
    z = codec.encode(pictures)
    assert np.array_equal(codec.pixels(z), pictures)
    assert [np.asarray(p).tolist() for p in codec.decode(z[:3])] == pictures[:3].tolist()
    assert torch.allclose(codec.scaled(z), source.codec.encode(pictures), atol=1e-5)
    assert float(codec.scaled(z * 100).abs().max()) <= 1


def test_constant_places_are_centred_only() -> None:
    x = torch.full((20, 1, 2, 2), -1.0)
    x[:, 0, 0, 0] = torch.linspace(-1, 1, 20)
    standard = Standard("element").fit([x])
    z = standard(x)
    assert z[:, 0, 1, 1].abs().max() == 0 and torch.allclose(standard.inverse(z), x, atol=1e-6)


def test_only_training_pictures_are_measured() -> None:
    source = coloured()
    spoilt = source.pixels.copy()
    spoilt[source.validation_index.numpy()] = 255
    a, b = (tiny_recipe(s, standard=Standard()) for s in (source, source.with_pixels(spoilt)))
    assert a.standard == b.standard and a.standard.fitted


def test_normality_agrees_with_scipy() -> None:
    from scipy import stats

    rng = np.random.default_rng(0)
    columns = [rng.normal(size=4000), rng.exponential(size=4000) - 1, rng.uniform(-1.7, 1.7, 4000), np.ones(4000)]
    z = torch.from_numpy(np.stack(columns)).reshape(4, 40, 10, 10).transpose(0, 1)
    told = normality(lambda: z.split(9))
    for k, column in enumerate(columns):
        assert told["ks"][k] == pytest.approx(stats.kstest(column, "norm").statistic, abs=1e-4)
        if k < 3:
            assert told["skewness"][k] == pytest.approx(stats.skew(column), abs=1e-4)
            assert told["kurtosis"][k] == pytest.approx(stats.kurtosis(column), abs=1e-4)
    assert told["ks"][0] < 0.03 < told["ks"][1], "an exponential is told from a normal"


def test_the_network_sees_standardised_data_and_pictures_come_back() -> None:
    source = coloured()
    trainer = tiny_trainer(steps=3, source=source, standard=Standard(), augment=Augment(), colour=Colour())
    seen = trainer.look(source.train_index).x0
    assert seen.mean((0, 2, 3)).abs().max() < 1e-5 and (seen.std((0, 2, 3)) - 1).abs().max() < 1e-3
    assert abs(trainer.recipe.sigma_data - 1) < 0.01
    list(trainer.steps())
    assert bool(validation_losses(trainer)[0].isfinite().all())
    recipe = from_dict(Recipe, json.loads(json.dumps(to_dict(trainer.recipe))))
    assert recipe == trainer.recipe, "what was fitted is saved with the run"
    model = Model(trainer.denoiser.eval(), recipe.codec(PixelCodec(8, 8, 3)), {"classes": []})
    drawn = generate(model, Request(n=2, steps=2))
    assert drawn.x0.abs().max() <= 1 and np.array_equal(
        np.stack([np.asarray(p) for p in drawn.images]), PixelCodec(8, 8, 3).pixels(drawn.x0)
    )


def test_a_standard_of_other_data_is_refused() -> None:
    with pytest.raises(SfumatoError, match="standardised for 1"):
        Standard("channel", (0.0,), (1.0,))(torch.zeros(1, 3, 2, 2))
    with pytest.raises(SfumatoError, match="above 0"):
        Standard("channel", (0.0,), (0.0,))


# colour


def test_untouched_pictures_are_the_same_bits() -> None:
    x = coloured().batch(torch.arange(60)).x0
    changed, slot = Colour(p=0.0)(x, Noise.of(0, 60))
    assert torch.equal(changed, x) and not slot.value.any()
    changed, slot = Colour()(x, Noise.of(0, 60))
    same = ~slot.value.any(1)
    assert 0 < int(same.sum()) < 60 and torch.equal(changed[same], x[same])
    assert not torch.equal(changed[~same], x[~same])
    assert slot.value.shape[1] == Colour.nothing(1).value.shape[1]


def test_the_vector_tells_what_was_done() -> None:
    """The same change made by other means: scipy's rotation about the grey axis, HSV-free saturation, plain arithmetic."""
    from scipy.spatial.transform import Rotation

    x = 0.1 * Noise.of(3, 50).normal((50, 3, 4, 4))  # small numbers: nothing is clamped
    kind = Colour(p=1.0, brightness=0.05, contrast=0.2, hue=1.0, saturation=0.3)
    changed, slot = kind(x, Noise.of(0, 50))
    for before, after, v in zip(x.double().numpy(), changed.numpy(), slot.value.double().numpy(), strict=True):
        angle = np.arctan2(v[3], v[2] + 1)
        y = (before + v[0]) * 2 ** v[1]
        turned = Rotation.from_rotvec(angle * np.ones(3) / 3**0.5).apply(y.reshape(3, -1).T).T
        grey = turned.mean(0)
        expected = grey + (turned - grey) * 2 ** v[4]
        assert np.allclose(after.reshape(3, -1), expected, atol=1e-5)
    assert float(slot.value[:, 2].min()) < -1, "all hues are reached"


def test_changes_come_as_often_and_as_wide_as_said() -> None:
    kind, n = Colour(p=0.25, brightness=0.3, contrast=0.4, saturation=0.5), 4000
    vector = kind.draw(torch.zeros(n, 3, 1, 1), Noise.of(0, n))
    for column, spread in ((0, 0.3), (1, 0.4), (4, 0.5)):
        moved = vector[:, column][vector[:, column] != 0]
        assert abs(len(moved) / n - 0.25) < 5 * (0.1875 / n) ** 0.5
        assert float(moved.std()) == pytest.approx(spread, rel=0.12)
    both = ((vector[:, 0] != 0) & (vector[:, 1] != 0)).double().mean()
    assert abs(float(both) - 0.0625) < 0.02, "alone of each other"


def test_grey_pictures_have_no_hue() -> None:
    x = small_source().batch(torch.arange(64)).x0
    changed, slot = Colour(p=1.0)(x, Noise.of(0, 64))
    assert not slot.value[:, 2:].any() and slot.value[:, :2].all() and changed.abs().max() <= 1


def test_the_network_is_told_and_sampling_needs_no_word() -> None:
    source = coloured()
    trainer = tiny_trainer(source=source, augment=Augment(), colour=Colour(p=0.5))
    batch, noise = trainer.batch(0)
    assert {"augment", "colour"} <= set(batch.cond)
    x0 = source.batch(batch.index).x0
    shifted, _ = Augment()(x0, noise.at(4))
    tinted, slot = Colour(p=0.5)(shifted, noise.at(6))
    assert torch.equal(batch.x0, tinted) and torch.equal(batch.cond["colour"].value, slot.value)
    assert set(trainer.look(source.validation_index).cond) == set()
    net = trainer.denoiser.net
    x, level = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0)), torch.tensor([0.1, 0.4])
    for p in net.parameters():
        torch.nn.init.normal_(p, std=0.3, generator=torch.Generator().manual_seed(1))
    plain = net(x, level, Cond())
    nothing = Cond({"augment": Augment.nothing(2), "colour": Colour.nothing(2)})
    assert torch.equal(net(x, level, nothing), plain)
    other = Cond({"colour": dataclasses.replace(Colour.nothing(2), value=torch.ones(2, 5))})
    assert not torch.allclose(net(x, level, other), plain)


def test_all_of_it_is_set_from_the_command_line() -> None:
    recipe = override(tiny_recipe(coloured()), ["colour=Colour", "colour.hue=0.5", "standard=Standard"])
    assert recipe.colour == Colour(hue=0.5) and recipe.standard == Standard()
    recipe = override(recipe, ["standard.per=element", 'captions={"is": "Captions", "shuffle": 0.5}'])
    assert recipe.standard.per == "element" and recipe.captions == Captions(shuffle=0.5)
    with pytest.raises(SfumatoError, match="hue"):
        Colour(hue=2.0)
