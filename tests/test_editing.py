"""Editing: kept pixels are kept, canvases of any size, what is told reaches the model, mistakes are told in one line."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from editing import FILL, LAYOUT, drawing, exact, photograph, random_mask, untrained
from PIL import Image

from sfumato.core import SfumatoError
from sfumato.data import Standard, StandardCodec
from sfumato.tasks import canvas, editing
from sfumato.tasks.canvas import read_fill, read_picture
from sfumato.tasks.inpaint import inpaint
from sfumato.tasks.layout import layout
from sfumato.tasks.outpaint import margins, outpaint
from sfumato.tasks.sketch import sketch
from sfumato.tasks.upscale import upscale
from sfumato.tasks.vary import vary


def saved(image: Image.Image) -> Image.Image:
    """The picture as it comes back from its PNG file."""
    file = io.BytesIO()
    image.save(file, "PNG")
    return Image.open(io.BytesIO(file.getvalue()))


@pytest.mark.parametrize("names", [("known",), ()], ids=["slot", "guide"])
def test_a_kept_pixel_of_the_saved_file_is_the_inputs_own(names) -> None:
    """100 random masks for each way: pictures of any mode and size, smaller and larger than the model's, no multiples."""
    model = untrained(*names)
    for seed in range(100):
        rng = np.random.default_rng(1000 + seed)
        width, height = (int(v) for v in rng.integers(3, 45, 2))
        mode = ("RGB", "RGBA", "L", "P", "LA")[seed // 5 % 5]
        picture, fill = photograph(width, height, mode, seed), random_mask(seed, width, height)
        result = inpaint(model, picture, fill, steps=1, seed=seed)
        (done,) = result.images
        came, given = saved(done), picture.convert("RGBA" if mode in ("RGBA", "LA") else "RGB")
        assert came.size == picture.size and came.mode == given.mode, (seed, mode)
        kept = ~fill
        assert np.array_equal(np.asarray(came)[kept], np.asarray(given)[kept]), (seed, mode)
        assert result.by == (None if fill.all() else "slot" if names else "guide") or not kept.any()


@pytest.mark.parametrize("names", [("known",), ()], ids=["slot", "guide"])
@pytest.mark.parametrize("size", [(16, 16), (13, 19), (90, 40), (7, 200)])
def test_the_hole_is_what_the_model_draws(names, size) -> None:
    model, picture, fill = exact(*names), photograph(*size, seed=3), random_mask(7, *size)
    for mode in ("RGB", "RGBA"):
        (done,) = inpaint(model, picture.convert(mode), fill, steps=4).images
        pixels = np.asarray(done)
        assert (np.abs(pixels[fill][:, :3].astype(int) - FILL) <= 1).all()
        assert mode == "RGB" or (pixels[fill][:, 3] == 255).all()
        assert np.array_equal(pixels[~fill][:, :3], np.asarray(picture)[~fill])


def test_colour_profiles_and_turned_photographs_are_kept(tmp_path: Path) -> None:
    picture = photograph(20, 12)
    exif = picture.getexif()
    exif[0x0112] = 6  # turned by a quarter
    picture.save(tmp_path / "a.png", exif=exif, icc_profile=b"a profile")
    fill = np.zeros((20, 12), dtype=bool)
    fill[3:6, 3:6] = True
    (done,) = inpaint(exact(), tmp_path / "a.png", fill, steps=1).images
    upright = np.asarray(picture.transpose(Image.Transpose.ROTATE_270))
    assert done.size == (12, 20) and np.array_equal(np.asarray(done)[~fill], upright[~fill])
    assert saved(done).info["icc_profile"] == b"a profile" and "exif" not in saved(done).info


def test_the_condition_says_what_is_known() -> None:
    """Channel 0 is 1 where pixels are given, the others are x0 there and 0 elsewhere."""
    model, picture, fill = exact("known"), photograph(16, 16), random_mask(0, 16, 16)
    inpaint(model, picture, fill, steps=1)
    slot = model.denoiser.asked[0][1]["known"].value[0]
    assert torch.equal(slot[0] > 0.5, torch.from_numpy(~fill))
    x0 = model.codec.encode([picture])[0]
    assert torch.allclose(slot[1:], x0 * torch.from_numpy(~fill)) and slot[1:, torch.from_numpy(fill)].abs().max() == 0


def test_a_full_mask_is_plain_generation_and_small_pictures_are_reflected() -> None:
    model = exact("known")
    result = inpaint(model, photograph(16, 16), np.ones((16, 16), dtype=bool), steps=1)
    assert "known" not in model.denoiser.asked[0][1] and result.by is None
    region = canvas.whole(model, (5, 3))
    assert region.shape == (4, 8)
    rows = region.cut(np.arange(15).reshape(3, 5))
    assert rows.tolist() == [[0, 1, 2, 3, 4, 3, 2, 1], [5, 6, 7, 8, 9, 8, 7, 6], [10, 11, 12, 13, 14, 13, 12, 11]] + [
        [5, 6, 7, 8, 9, 8, 7, 6]
    ]
    assert canvas.whole(model, (1, 1)).cut(np.ones((1, 1))).shape == (4, 4)


def mask_file(values: np.ndarray, mode: str) -> Image.Image:
    """White (255) where `values` are true, in any mode."""
    grey = Image.fromarray(np.where(values, 255, 0).astype(np.uint8))
    if mode == "alpha":
        return Image.merge("RGBA", [photograph(*grey.size, "L")] * 3 + [Image.fromarray(255 - np.asarray(grey))])
    if mode == "opaque":
        return Image.merge("RGBA", [grey] * 3 + [Image.new("L", grey.size, 255)])
    if mode == "I;16":
        return Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    if mode == "P clear":
        picture = Image.fromarray(np.where(values, 1, 0).astype(np.uint8))
        picture.putpalette([255, 255, 255, 0, 0, 0])  # colours say the opposite
        picture = Image.frombytes("P", picture.size, picture.tobytes())
        picture.putpalette([255, 255, 255, 0, 0, 0])
        picture.info["transparency"] = 1
        return picture
    return grey.convert(mode)


@pytest.mark.parametrize("mode", ["L", "1", "RGB", "P", "I;16", "opaque", "alpha", "P clear", "LA"])
def test_the_mask_rule_holds_for_every_kind_of_file(mode) -> None:
    wanted = random_mask(5, 21, 17)
    fill, notes = read_fill(mask_file(wanted, mode), (21, 17))
    assert np.array_equal(fill, wanted) and notes == ()


def test_half_grey_is_white_and_it_is_said(tmp_path: Path) -> None:
    values = np.tile(np.array([0, 60, 127, 128, 200, 255], np.uint8), (4, 1))
    Image.fromarray(values).save(tmp_path / "m.png")
    fill, notes = read_fill(tmp_path / "m.png", (6, 4))
    assert fill[0].tolist() == [False, False, False, True, True, True] and "16 pixels" in notes[0]
    clear = Image.merge("RGBA", [Image.new("L", (6, 4), 255)] * 3 + [Image.fromarray(values)])
    fill, notes = read_fill(clear, (6, 4))
    assert fill[0].tolist() == [True, True, True, False, False, False] and "transparent" in notes[0]


@pytest.mark.parametrize(
    "mask,said",
    [
        (Image.new("L", (20, 10), 255), "20x10.*10x20.*same size"),
        (Image.new("L", (10, 20), 0), "nothing to fill"),
        (Image.new("RGBA", (10, 20), (0, 0, 0, 255)), "nothing to fill"),
        (np.zeros((20, 10), bool), "nothing to fill"),
        (np.ones((20, 10, 3), bool), "same size"),
        ("no-such.png", "no-such.png: there is no such file"),
    ],
)
def test_a_mask_that_does_not_fit_is_told_in_one_line(mask, said) -> None:
    with pytest.raises(SfumatoError, match=said) as error:
        inpaint(exact(), photograph(10, 20), mask)
    assert "\n" not in str(error.value)


def test_what_is_no_picture_is_told(tmp_path: Path) -> None:
    (tmp_path / "a\nb.png").write_bytes(b"no picture")
    with pytest.raises(SfumatoError, match="not a picture") as error:
        read_picture(tmp_path / "a\nb.png", 3)
    assert "\n" not in str(error.value)
    photograph(30, 30).save(tmp_path / "c.png")
    cut = (tmp_path / "c.png").read_bytes()[:-300]
    (tmp_path / "c.png").write_bytes(cut)
    with pytest.raises(SfumatoError, match="cannot be decoded"):
        read_picture(tmp_path / "c.png", 3)
    with pytest.raises(SfumatoError, match="folder"):
        read_picture(tmp_path, 3)


def test_what_memory_cannot_hold_is_refused_with_the_size_that_fits(monkeypatch) -> None:
    monkeypatch.setattr(editing, "available_memory", lambda: 30_000_000)
    with pytest.raises(SfumatoError, match=r"1000x500 need about .* up to about (\d+)x(\d+) fits") as error:
        vary(exact(), photograph(1000, 500), 0.5)
    width, height = (int(n) for n in str(error.value).split("about ")[-1].removesuffix(" fits").split("x"))
    assert 1.9 < width / height < 2.1 and width < 1000
    for call in (
        lambda: outpaint(exact(), photograph(900, 900), zoom=16),
        lambda: sketch(exact(), drawing(), (40_000, 40_000)),
        lambda: layout(exact("boxes"), LAYOUT, (40_000, 40_000)),
        lambda: inpaint(exact(), photograph(60, 60), random_mask(0, 60, 60), n=100_000),
    ):
        with pytest.raises(SfumatoError, match="memory"):
            call()
    vary(exact(), photograph(width, height), 0.5, steps=1)


@pytest.mark.parametrize("names", [("known",), ()], ids=["slot", "guide"])
def test_outpainting_keeps_the_picture_in_its_place(names) -> None:
    model, picture = exact(*names), photograph(13, 9, "RGBA")
    for options, size, at in (
        ({"to": (30, 20)}, (30, 20), (8, 5)),
        ({"zoom": 1.5}, (20, 14), (3, 2)),
        ({"sides": {"left": 5, "bottom": 40}}, (18, 49), (5, 0)),
    ):
        (done,) = outpaint(model, picture, steps=2, **options).images
        left, top = at
        assert done.size == size
        assert np.array_equal(np.asarray(done.crop((left, top, left + 13, top + 9))), np.asarray(picture))
        assert done.getpixel((0, size[1] - 1)) == (*FILL, 255)


@pytest.mark.parametrize(
    "told,said",
    [
        ({}, "nothing to add"),
        ({"to": (10, 10)}, "nothing to add"),
        ({"to": (9, 40)}, "smaller than the picture"),
        ({"zoom": 1.0}, "above 1"),
        ({"zoom": float("nan")}, "above 1"),
        ({"left": -1}, "0 to 16,384"),
        ({"right": 20_000}, "0 to 16,384"),
        ({"zoom": 2.0, "left": 4}, "one way"),
        ({"to": (20, 20), "zoom": 2.0}, "one way"),
    ],
)
def test_how_far_to_go_on_is_said_in_one_way(told, said) -> None:
    with pytest.raises(SfumatoError, match=said):
        margins((10, 10), **told)


def test_prompts_are_told_guided_and_only_where_there_are_some() -> None:
    model, picture, fill = exact("known", "text"), photograph(16, 16), random_mask(0, 16, 16)
    told = inpaint(model, picture, fill, prompt="a red boat", steps=1)
    (shape, cond), *_ = model.denoiser.asked
    assert shape[0] == 2 and cond["text"].present().any(1).tolist() == [True, False]  # guided: with and without words
    assert cond["known"].present().tolist() == [True, True] and told.request.guidance == 3.0
    model.denoiser.asked.clear()
    quiet = inpaint(model, picture, fill, steps=1)
    (shape, cond), *_ = model.denoiser.asked
    assert shape[0] == 1 and "text" not in cond and quiet.request.guidance == 1.0
    with pytest.raises(SfumatoError, match="without captions"):
        inpaint(exact("known"), picture, fill, prompt="a boat")
    with pytest.raises(SfumatoError, match="guidance"):
        inpaint(exact("known"), picture, fill, guidance=2.0)


@pytest.mark.parametrize("names", [("known",), ()], ids=["slot", "guide"])
@pytest.mark.parametrize("size", [(40, 23), (16, 16)], ids=["windows", "one"])
def test_picture_k_of_an_edit_is_the_same_to_the_last_bit_alone_and_in_a_batch(names, size) -> None:
    model, picture, fill = untrained(*names), photograph(*size), random_mask(3, *size)
    model.denoiser.steady = True  # as a loaded model is
    both = inpaint(model, picture, fill, n=3, seed=4, steps=2)
    alone = inpaint(model, picture, fill, n=1, first=2, seed=4, steps=2)
    assert torch.equal(both.x0[2], alone.x0[0])
    assert torch.equal(both.x0, inpaint(model, picture, fill, n=3, seed=4, steps=2).x0)


def test_progress_goes_from_none_to_all() -> None:
    shares: list[float] = []
    upscale(exact(), photograph(8, 8), 4, shares.append, steps=3, n=2)
    assert shares == sorted(shares) and len(shares) >= 3 and shares[-1] == pytest.approx(1)


def test_standardised_models_are_told_of_pictures_and_not_of_their_code() -> None:
    """Controls are learned from pictures in [-1, 1], whatever the network's own numbers are."""
    plain = exact("known", "lowres")
    codec = StandardCodec(plain.codec, Standard("channel", (0.2, 0.0, -0.3), (0.5, 0.25, 0.125)))
    model, picture, fill = replace(plain, codec=codec), photograph(16, 16), random_mask(0, 16, 16)
    inpaint(model, picture, fill, steps=1)
    upscale(model, photograph(8, 8), steps=1)
    keep, x0 = torch.from_numpy(~fill), plain.codec.encode([picture])[0]
    assert torch.allclose(model.denoiser.asked[0][1]["known"].value[0, 1:], x0 * keep, atol=1e-6)
    small = plain.codec.sized(8, 8).encode([photograph(8, 8)])[0].repeat_interleave(2, 1).repeat_interleave(2, 2)
    assert torch.allclose(model.denoiser.asked[-1][1]["lowres"].value[0, :3], small, atol=1e-6)


@pytest.mark.parametrize("mode,kept", [("RGB", True), ("L", False), ("CMYK", False)])
def test_a_colour_profile_is_left_away_where_it_no_longer_fits(mode, kept) -> None:
    picture = Image.new(mode, (8, 8))
    picture.info["icc_profile"] = b"a profile"
    assert ("icc_profile" in read_picture(picture, 3).info) == kept
