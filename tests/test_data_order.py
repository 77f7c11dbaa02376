"""Codec, captions, order, split and augmentation."""

from __future__ import annotations

from hashlib import blake2b

import numpy as np
import pytest
import torch
from PIL import Image

from sfumato.core import Noise, SfumatoError
from sfumato.data import VOCABULARY, Augment, Order, PixelCodec, encode
from sfumato.data.order import split
from sfumato.data.text import features, words


def test_codec_round_trip_is_exact_for_every_byte() -> None:
    pixels = np.arange(256, dtype=np.uint8).repeat(3).reshape(1, 16, 16, 3)
    codec = PixelCodec(16, 16, 3)
    x0 = codec.encode(pixels)
    assert x0.shape == (1, 3, 16, 16) and x0.dtype == torch.float32 and x0.is_contiguous()
    assert x0.min() == -1 and x0.max() == 1
    assert torch.allclose(x0[0, 0].flatten().double(), torch.arange(256).double() / 127.5 - 1, atol=1e-6)
    for dtype in (torch.float32, torch.float64):
        assert (codec.pixels(x0.to(dtype)) == pixels).all()
    assert (np.asarray(codec.decode(x0)[0]) == pixels[0]).all()
    assert torch.equal(codec.encode(codec.decode(x0)), x0)
    assert torch.equal(codec.encode(torch.from_numpy(pixels)), x0)


def test_codec_keeps_rows_columns_and_channels_apart() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 3, 5, 3), dtype=np.uint8)
    x0 = PixelCodec(3, 5, 3).encode(pixels)
    assert x0[1, 2, 0, 4].item() == pytest.approx(pixels[1, 0, 4, 2] / 127.5 - 1, abs=1e-6)


def test_codec_converts_pil_modes_and_clamps() -> None:
    grey = PixelCodec(2, 2, 1)
    assert grey.encode([Image.new("RGB", (2, 2), "white")]).eq(1).all()
    assert grey.encode([Image.new("RGBA", (2, 2), (0, 0, 0, 0))]).eq(1).all()
    assert grey.decode(torch.tensor([-7.0, -1.0, 1.0, 9.0]).reshape(1, 1, 2, 2))[0].tobytes() == bytes([0, 0, 255, 255])
    assert grey.decode(torch.zeros(0, 1, 2, 2)) == [] and grey.encode([]).shape == (0, 1, 2, 2)


@pytest.mark.parametrize(
    "act,needle",
    [
        (lambda c: c.decode(torch.full((2, 3, 4, 4), torch.nan)), "picture 0 of 2 is not finite"),
        (lambda c: c.decode(torch.full((2, 3, 4, 4), torch.inf)), "is not finite"),
        (lambda c: c.decode(torch.zeros(2, 1, 4, 4)), r"must be \[B, 3, 4, 4\], not \[2, 1, 4, 4\]"),
        (lambda c: c.encode(np.zeros((1, 4, 5, 3), np.uint8)), r"must be \[B, 4, 4, 3\]"),
        (lambda c: c.encode(np.zeros((4, 4, 3), np.uint8)), r"must be \[B, 4, 4, 3\]"),
        (lambda c: c.encode(np.zeros((1, 4, 4, 3), np.float32)), "must be uint8"),
        (lambda c: c.encode([Image.new("RGB", (5, 4))]), "is 5x4 pixels, the model has 4x4"),
        (lambda c: PixelCodec(4, 4, 2), "1 channel"),
        (lambda c: PixelCodec(0, 4, 3), "0x4 pixels"),
    ],
)
def test_codec_refuses(act: object, needle: str) -> None:
    with pytest.raises(SfumatoError, match=needle):
        act(PixelCodec(4, 4, 3))


def test_captions_become_hashed_words_and_runs_of_letters() -> None:
    ids, mask = encode(["A red cat!", None, "cat", "", "CAT\u00a0 RED"])
    assert ids.shape[:2] == mask.shape == (5, 4) and ids.dtype == torch.int64 and mask.dtype == torch.bool
    assert mask.sum(1).tolist() == [4, 0, 1, 0, 2]

    def hashed(text: str, below: int) -> int:
        return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big") % below

    cat = [1 + hashed("cat", 8191), *(8192 + hashed(run, 8192) for run in ("<ca", "cat", "at>"))]
    assert ids[2, 0].tolist() == ids[0, 2].tolist() == ids[4, 0].tolist() == cat + [0] * 9
    assert torch.equal(ids[4, 1], ids[0, 1]) and torch.equal(ids[..., 0] > 0, mask) and ids.max() < VOCABULARY
    assert encode([])[0].shape[:2] == (0, 0)
    for wrong in ("bare text", [3], ["word " * 20_001]):
        with pytest.raises(SfumatoError):
            encode(wrong)


def test_words_spelled_alike_share_features_and_long_ones_keep_both_ends() -> None:
    def seen(word: str) -> set[int]:
        return set(features(word)[1:])

    assert len(seen("strawberries") & seen("strawberry")) > 6 and not seen("strawberry") & seen("owl")
    long = features("a" * 30 + "b" * 30)
    assert len(long) == 13 and seen("b" * 30) & set(long) and seen("a" * 30) & set(long)


def test_scripts_without_spaces_are_read_sign_by_sign() -> None:
    assert words("赤いリンゴ red") == [*"赤いリンゴ", "red"] and words("красное яблоко") == ["красное", "яблоко"]
    assert words("تفاحة حمراء") == ["تفاحة", "حمراء"] and words("빨간 사과") == ["빨간", "사과"]


def test_a_thousand_words_are_all_read() -> None:
    ids, mask = encode([" ".join(f"w{k}" for k in range(1000)), "short"])
    assert mask.sum(1).tolist() == [1000, 1] and len({tuple(row) for row in ids[0].tolist()}) == 1000


@pytest.mark.parametrize("n,batch", [(10, 4), (10, 10), (3, 8), (1, 5), (7, 1)])
def test_each_epoch_visits_every_picture_once(n: int, batch: int) -> None:
    order = Order(n, batch, seed=3)
    steps = [order.at(k) for k in range(5 * n)]
    assert all(s.shape == (batch,) and s.dtype == torch.int64 for s in steps)
    flat = torch.cat(steps)
    epochs = flat[: len(flat) // n * n].reshape(-1, n)
    assert (epochs.sort(1).values == torch.arange(n)).all()
    if n > 5:
        assert len({tuple(e.tolist()) for e in epochs}) == len(epochs)  # shuffled anew each time


def test_order_is_a_pure_function_of_seed_and_step() -> None:
    forward = [Order(100, 7, 1).at(k).tolist() for k in range(60)]
    torch.manual_seed(99)
    order = Order(100, 7, 1)
    assert [order.at(k).tolist() for k in reversed(range(60))] == forward[::-1]
    assert Order(100, 7, 2).at(0).tolist() != forward[0]
    kept = order.at(0).clone()
    order.at(0).zero_()  # a caller that writes into its batch must not spoil the next
    assert torch.equal(order.at(0), kept)
    assert order.epoch(100) == 7.0
    for wrong in (lambda: Order(0, 4), lambda: Order(4, 0), lambda: order.at(-1)):
        with pytest.raises(SfumatoError):
            wrong()


def test_shuffling_is_uniform() -> None:
    """Each place holds each picture equally often: chi-squared with 36 degrees of freedom."""
    counts = torch.zeros(7, 7)
    order = Order(7, 7, seed=5)
    for epoch in range(2_000):
        counts[torch.arange(7), order.at(epoch)] += 1
    expected = 2_000 / 7
    assert ((counts - expected) ** 2 / expected).sum() < 76.4  # its 99.99th percentile


def test_split_holds_out_five_percent_and_leaks_nothing() -> None:
    keys = [f"folder/{k}.png" for k in range(4_000)]
    train, held = split(keys)
    assert sorted(train.tolist() + held.tolist()) == list(range(4_000))
    assert abs(len(held) - 200) < 4 * (4_000 * 0.05 * 0.95) ** 0.5  # four standard deviations


def test_split_does_not_move_when_files_come_or_go() -> None:
    keys = [f"{k}.png" for k in range(1_000)]
    held = {keys[k] for k in split(keys)[1]}
    more = sorted(keys[::2] + [f"new{k}.jpg" for k in range(900)])
    assert {more[k] for k in split(more)[1]} & set(keys) == held & set(more)


def test_small_splits_hold_out_one() -> None:
    for n in range(2, 15):
        for name in "abcdef":
            train, held = split([f"{name}{k}" for k in range(n)])
            assert len(held) >= 1 and len(train) >= 1 and not set(train.tolist()) & set(held.tolist())
    assert [i.tolist() for i in split(["alone.png"])] == [[0], [0]]


def pictures(n: int, height: int = 12, width: int = 12) -> torch.Tensor:
    return torch.rand(n, 3, height, width, generator=torch.Generator().manual_seed(0)) * 2 - 1


def test_zero_vector_means_untouched() -> None:
    x0 = pictures(400)
    out, slot = Augment()(x0, Noise.of(0, 400))
    assert slot.role == "vector" and slot.value.shape == (400, 6)
    same = (slot.value == 0).all(1)
    assert 0.2 < same.float().mean() < 0.5  # (1 - 0.5) (1 - p)^3 = 0.34
    assert torch.equal(out[same], x0[same])
    assert (out[~same] != x0[~same]).flatten(1).any(1).all()
    assert out.min() >= -1 and out.max() <= 1
    assert not Augment.nothing(3).value.any() and torch.equal(Augment().apply(x0[:3], Augment.nothing(3).value), x0[:3])


def test_flips_and_shifts_against_numpy() -> None:
    augment, x0 = Augment(shift=0.25), pictures(3, 8, 12)
    vector = torch.zeros(3, 6)
    vector[0, 0] = 1
    vector[1, 1], vector[1, 2] = 1.0, -1 / 3  # 2 rows down, 1 column to the left
    vector[2, 0], vector[2, 2] = 1, 1.0
    out = augment.apply(x0, vector).numpy()
    source = x0.numpy()
    assert (out[0] == source[0, :, :, ::-1]).all()
    padded = np.pad(source[1], ((0, 0), (3, 3), (3, 3)), mode="reflect")
    assert (out[1] == padded[:, 1:9, 4:16]).all()
    padded = np.pad(source[2, :, :, ::-1], ((0, 0), (0, 0), (3, 3)), mode="reflect")
    assert (out[2] == padded[:, :, 0:12]).all()


def test_quarter_turns_against_torch_and_inverse_of_the_flip() -> None:
    x0 = pictures(3)
    vector = torch.zeros(3, 6)
    for row, angle in enumerate((0.5, 1.0, -0.5)):
        vector[row, 4], vector[row, 5] = np.cos(angle * np.pi) - 1, np.sin(angle * np.pi)
    out = Augment().apply(x0, vector)
    for row, turns in enumerate((1, 2, 3)):
        assert torch.allclose(out[row], torch.rot90(x0[row], turns, (1, 2)), atol=1e-4)
    flip = torch.tensor([[1.0, 0, 0, 0, 0, 0]]).repeat(3, 1)
    assert torch.equal(Augment().apply(Augment().apply(x0, flip), flip), x0)


def test_scaling_magnifies_about_the_centre() -> None:
    """A smooth ramp scaled by 2 has half the slope and the same centre."""
    ramp = torch.linspace(-0.9, 0.9, 16).reshape(1, 1, 1, 16).expand(1, 1, 16, 16)
    vector = torch.zeros(1, 6)
    vector[0, 3] = 1.0
    out = Augment().apply(ramp, vector)[0, 0, 8]
    assert torch.allclose(out, ramp[0, 0, 8] / 2, atol=0.01)  # torch's bicubic kernel bends a ramp a little


def test_augmentation_of_one_picture_does_not_depend_on_its_batch() -> None:
    x0, augment = pictures(64), Augment()
    out, slot = augment(x0, Noise.of(7, 64))
    for k in range(0, 64, 9):
        alone, its = augment(x0[k : k + 1], Noise.of(7, 1, first=k))
        assert torch.equal(its.value[0], slot.value[k])
        assert torch.allclose(alone[0], out[k], atol=1e-5)
    again, _ = augment(x0, Noise.of(7, 64))
    assert torch.equal(again, out)


def test_how_often_each_change_happens() -> None:
    n = 4_000
    vector = Augment(flip=0.3, p=0.12).draw(pictures(n, 16, 16), Noise.of(1, n))
    rates = (vector != 0).float().mean(0)
    shift = 0.12 * 4 / 5  # one shift in five is by nothing at all
    for rate, want in zip(rates.tolist(), (0.3, shift, shift, 0.12, 0.12, 0.12), strict=True):
        assert abs(rate - want) < 4 * (want * (1 - want) / n) ** 0.5
    assert vector[:, 1:3].abs().max() == 1
    off, slot = Augment(flip=0, p=0)(pictures(50), Noise.of(1, 50))
    assert torch.equal(off, pictures(50)) and not slot.value.any()
    for wrong in ({"p": 1.5}, {"flip": -1}, {"shift": 1.0}, {"scale": -0.1}):
        with pytest.raises(SfumatoError):
            Augment(**wrong)
