"""Copies are found where they were planted, and nowhere else."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from training import small_source

from sfumato.core import Noise, SfumatoError
from sfumato.data import Source
from sfumato.forward import RectifiedFlow
from sfumato.measure.intervals import wilson
from sfumato.measure.memory import Gallery, copied, excess, memorisation
from sfumato.measure.oracles import finite_data
from sfumato.reverse import GRIDS, sample
from sfumato.reverse.catalogue import pick_solver

SIZE = 16


def blobs(n: int, seed: int, channels: int = 1) -> np.ndarray:
    """Smooth random pictures uint8 [n, 16, 16, C]: every one its own, like faces of one kind."""
    rng = np.random.default_rng(seed)
    coarse = torch.from_numpy(rng.normal(size=(n, channels, 6, 6)))
    fine = torch.nn.functional.interpolate(coarse, (SIZE, SIZE), mode="bicubic")
    return (fine * 50 + 128).clamp(0, 255).byte().permute(0, 2, 3, 1).numpy()


def source_of(pixels: np.ndarray) -> Source:
    return Source("blobs", pixels, tuple(f"{k}.png" for k in range(len(pixels))))


@pytest.fixture(scope="module")
def gallery() -> Gallery:
    return Gallery(source_of(blobs(600, 0)))


def fresh(n: int, seed: int) -> torch.Tensor:
    """Pictures of the same kind that nobody was trained on, float [n, 1, 16, 16]."""
    return source_of(blobs(n, seed)).codec.encode(blobs(n, seed))


def test_nearest_is_the_plain_loop(gallery: Gallery, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sfumato.measure.memory.BLOCK", 100)  # 570 pictures: the last block is a short one
    x = fresh(5, 1)
    train = gallery.source.batch(gallery.source.train_index).x0
    found = gallery.nearest(x, 3)
    for picture, rows, distances in zip(x, found.rows, found.distances, strict=True):
        plain = [
            min(((look - other) ** 2).mean().sqrt().item() for look in (picture, picture.flip(-1))) for other in train
        ]
        best = np.argsort(plain)[:3]
        assert rows.tolist() == gallery.source.train_index[torch.from_numpy(best)].tolist()
        assert np.allclose(distances, np.asarray(plain)[best], atol=1e-6)


def test_the_last_block_may_hold_one_picture(gallery: Gallery, monkeypatch: pytest.MonkeyPatch) -> None:
    x, whole = fresh(4, 1), gallery.nearest(fresh(4, 1), 3)
    monkeypatch.setattr("sfumato.measure.memory.BLOCK", len(gallery.source.train_index) - 1)
    parts = gallery.nearest(x, 3)
    assert torch.equal(parts.rows, whole.rows) and all(len(set(row)) == 3 for row in parts.rows.tolist())


@pytest.mark.parametrize("spoil", ["exact", "noised", "mirrored", "requantised", "brighter"])
def test_five_in_a_hundred_planted_copies_are_counted(gallery: Gallery, spoil: str) -> None:
    n, planted = 1000, 50
    x = fresh(n, 2)
    rows = gallery.source.train_index[: 10 * planted : 10]
    copies = gallery.source.batch(rows).x0
    noise = torch.randn(copies.shape, generator=torch.Generator().manual_seed(0))
    x[:planted] = {
        "exact": copies,
        "noised": copies + 0.03 * noise,
        "mirrored": copies.flip(-1),
        "requantised": (copies * 8).round() / 8,
        "brighter": copies + 0.02,
    }[spoil]
    found = memorisation(x, gallery, fresh(500, 3))
    assert abs(found.copies.value - planted / n) <= 0.015
    assert found.copies.low > 0 and found.copies.low <= planted / n <= found.copies.high
    assert "are copies of training pictures" in found.words


def test_new_pictures_are_no_copies(gallery: Gallery) -> None:
    found = memorisation(fresh(500, 4), gallery, fresh(500, 5))
    assert found.copies.value < 0.015 and found.copies.low == 0
    assert found.ratio.low <= 1 <= found.ratio.high
    assert "no more copies" in found.words


def test_a_copycat_is_exposed(gallery: Gallery) -> None:
    x = gallery.source.batch(gallery.source.train_index[:200]).x0
    found = memorisation(x, gallery, fresh(200, 6))
    assert found.copies.value == 1 and found.ratio.value == 0
    assert found.to_json()["copies"]["low"] > 0.95


def test_a_copy_of_a_picture_held_twice_is_a_copy() -> None:
    pixels = blobs(300, 7)
    pixels[150:300] = pixels[:150]  # every picture twice: the nearest two are equally near
    twice = Gallery(source_of(pixels))
    x = twice.source.batch(twice.source.train_index[:100]).x0 + 0.02
    first, second = twice.nearest(x).distances.T
    assert (first >= second / 3).float().mean() > 0.5  # the ratio alone would miss them
    assert memorisation(x, twice, fresh(200, 8)).copies.value > 0.95


def test_the_exact_denoiser_of_a_finite_set_copies() -> None:
    source = source_of(blobs(64, 9))
    gallery = Gallery(source)
    process = RectifiedFlow()
    oracle = finite_data(process, source.batch(source.train_index).x0)
    n = 32
    x = sample(oracle, (n, 1, SIZE, SIZE), Noise.of(0, n), pick_solver("heun"), GRIDS["flow"](20, process))
    found = memorisation(x.float().clamp(-1, 1), gallery, fresh(100, 10))
    assert found.copies.value > 0.95 and found.ratio.high < 0.2


def test_larger_pictures_are_compared_at_32_pixels() -> None:
    pixels = np.kron(blobs(40, 11), np.ones((1, 4, 4, 1), np.uint8))  # 64x64
    gallery = Gallery(source_of(pixels))
    x = gallery.source.batch(gallery.source.train_index[:20]).x0
    checker = torch.ones(64, 64)
    checker[::2, ::2] = checker[1::2, 1::2] = -1
    found = gallery.nearest(x + 0.1 * checker)  # gone in the means over 2x2
    assert found.rows[:, 0].tolist() == gallery.source.train_index[:20].tolist()
    assert found.distances[:, 0].max() < 1e-6


def test_wilson_and_newcombe_are_scipys() -> None:
    from scipy.stats import binomtest

    for hits, n in ((0, 50), (3, 40), (40, 40)):
        theirs = binomtest(hits, n).proportion_ci(method="wilson")
        assert wilson(hits / n, n)[1:] == pytest.approx((theirs.low, theirs.high), abs=1e-9)
    # Newcombe 1998, table II, method 10: 56/70 - 48/80 is 0.2000 (0.0524 to 0.3339)
    p, b = wilson(56 / 70, 70), wilson(48 / 80, 80)
    low = 0.2 - math.hypot(p.value - p.low, b.high - b.value)
    high = 0.2 + math.hypot(p.high - p.value, b.value - b.low)
    assert (low, high) == pytest.approx((0.0524, 0.3339), abs=1e-4)
    found = excess(56, 70, 48, 80)
    assert found == pytest.approx((0.2 / 0.4, 0.0524 / 0.4, 0.3339 / 0.4), abs=3e-4)


def test_where_new_pictures_look_copied_too_it_is_said(gallery: Gallery) -> None:
    found = excess(0, 500, 20, 100)
    assert found.value == found.low == 0 and found.high == wilson(0, 500).high > 0
    held = torch.cat([fresh(60, 13), gallery.source.batch(gallery.source.train_index[:40]).x0])
    told = memorisation(fresh(100, 14), gallery, held)
    assert told.base >= 0.4 and "the data hold much of the same" in told.words


def test_the_interval_holds_the_truth() -> None:
    """20 % copies above a base of 10 %: the interval holds 0.2 in about 95 of 100 draws."""
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(400):
        found = excess(rng.binomial(300, 0.2 + 0.8 * 0.1), 300, rng.binomial(200, 0.1), 200)
        held += found.low <= 0.2 <= found.high
    assert 0.92 <= held / 400 <= 0.98  # +- 2.8 standard errors


def test_the_rule() -> None:
    first, second = torch.tensor([0.3, 0.4, 0.3]), torch.tensor([1.0, 1.0, 0.31])
    assert copied(first, second, 0.5).tolist() == [True, False, False]
    assert copied(first, second, 1.0).tolist() == [True, False, True]


@pytest.mark.parametrize(
    ("x", "said"),
    [
        (torch.zeros(15, 1, SIZE, SIZE), "16 are the least"),
        (torch.zeros(20, 3, SIZE, SIZE), "not comparable"),
        (torch.zeros(20, 1, SIZE, 8), "not comparable"),
        (torch.full((20, 1, SIZE, SIZE), math.nan), "NaN"),
    ],
)
def test_bad_input(gallery: Gallery, x: torch.Tensor, said: str) -> None:
    with pytest.raises(SfumatoError, match=said):
        memorisation(x, gallery, fresh(20, 12))


def test_too_few_training_pictures() -> None:
    with pytest.raises(SfumatoError, match="3 are the least"):
        Gallery(small_source(2))
