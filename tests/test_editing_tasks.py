"""Editing: pictures enlarged, varied, mixed, tiled, and drawn from lines and boxes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from editing import FILL, LAYOUT, drawing, exact, photograph, untrained
from PIL import Image

from sfumato.core import Cond, Noise, SfumatoError
from sfumato.data import encode
from sfumato.data.text import features
from sfumato.tasks.beside import lines_of
from sfumato.tasks.blend import blend
from sfumato.tasks.layout import layout
from sfumato.tasks.sketch import sketch
from sfumato.tasks.tile import tile
from sfumato.tasks.upscale import consistent, upscale
from sfumato.tasks.vary import vary

TWO = [{"box": [0.125, 0.25, 0.5, 0.75], "text": "a boat"}, {"box": [0.25, 0, 1, 1], "text": "the wide sea"}]


@pytest.mark.parametrize("names", [("lowres",), ()], ids=["slot", "guide"])
@pytest.mark.parametrize("scale", [2, 4])
@pytest.mark.parametrize("size", [(8, 8), (5, 7), (23, 41)])
def test_upscaled_and_brought_back_it_is_the_same_picture(names, scale, size) -> None:
    model, picture = untrained(*names), photograph(*size, seed=4)
    result = upscale(model, picture, scale, steps=2, n=2)
    for large in result.images:
        assert large.size == (size[0] * scale, size[1] * scale)
        blocks = np.asarray(large).reshape(size[1], scale, size[0], scale, 3).mean((1, 3))
        assert np.abs(blocks - np.asarray(picture)).mean() < 1
    assert result.by == ("slot" if names else "guide")
    assert not np.array_equal(*(np.asarray(image) for image in result.images))


def test_consistency_holds_where_pixels_are_clipped() -> None:
    small = torch.tensor([-1.0, 1.0, 0.98, -0.98]).reshape(1, 1, 2, 2)
    wild = Noise.of(3, 4).normal((4, 1, 8, 8)) * 2
    large = consistent(wild, small, 4)
    assert large.abs().max() <= 1
    assert (torch.nn.functional.avg_pool2d(large, 4) - small).abs().max() < 1 / 127.5


def test_the_small_picture_reaches_the_model_as_it_is() -> None:
    model, picture = exact("lowres"), photograph(8, 8)
    upscale(model, picture, 2, steps=1)
    slot = model.denoiser.asked[0][1]["lowres"].value[0]
    nearest = model.codec.sized(8, 8).encode([picture])[0].repeat_interleave(2, 1).repeat_interleave(2, 2)
    assert torch.allclose(slot[:3], nearest) and not slot[3].any()


def test_larger_pictures_are_upscaled_in_windows_that_begin_with_a_block() -> None:
    model = exact("lowres", variance=0.1)
    result = upscale(model, photograph(31, 22), 2, steps=2)
    shapes = {shape for shape, _ in model.denoiser.asked}
    assert all(shape[1:] == (3, 16, 16) for shape in shapes) and "16x16" in result.notes[0]
    for _, cond in model.denoiser.asked:
        blocks = cond["lowres"].value.unflatten(-1, (8, 2)).unflatten(-3, (8, 2))
        assert (blocks.amax((-3, -1)) == blocks.amin((-3, -1))).all()


def test_strength_picks_a_time_and_eats_no_steps() -> None:
    model, picture = exact(variance=0.3, colour=(0.0, 0.0, 0.0)), photograph(16, 16)
    given, away = np.asarray(picture).astype(float), []
    for strength in (0.05, 0.3, 0.6, 1.0):
        model.denoiser.asked.clear()
        result = vary(model, picture, strength, steps=7, seed=1)
        assert result.network_calls == 7 == len(model.denoiser.asked)
        away.append(np.abs(np.asarray(result.images[0]) - given).mean())
    assert away == sorted(away) and away[0] < 10 and away[-1] > 1.5 * away[1]
    same = vary(model, photograph(9, 31, "RGBA"), 0.0, n=2)
    assert same.network_calls == 0 and len(same.images) == 2
    assert np.array_equal(np.asarray(same.images[1]), np.asarray(photograph(9, 31, "RGBA")))
    for strength in (-0.1, 1.1, float("nan")):
        with pytest.raises(SfumatoError, match="strength"):
            vary(model, picture, strength)


def test_pictures_of_any_size_are_varied_at_their_size() -> None:
    for size in ((3, 5), (16, 16), (50, 21)):
        (done,) = vary(untrained(), photograph(*size), 0.4, steps=1).images
        assert done.size == size


def test_a_blend_stands_between_its_pictures() -> None:
    """Two plain colours and a model that leaves what it is given nearly as it is: their mean, at the first one's size."""
    model = exact(variance=100.0)
    red, blue = Image.new("RGB", (16, 12), (255, 55, 55)), Image.new("RGB", (40, 40), (55, 55, 255))
    (done,) = blend(model, [red, blue], 0.02, steps=3).images
    assert done.size == (16, 12) and np.abs(np.asarray(done).mean((0, 1)) - (155, 55, 155)).max() < 4
    for images, strength, said in (
        ([red], 0.5, "2 to 16"),
        ([red] * 17, 0.5, "2 to 16"),
        ([red, blue], 0.0, "strength"),
    ):
        with pytest.raises(SfumatoError, match=said):
            blend(model, images, strength)


def test_tiles_are_drawn_round_the_edges() -> None:
    model = exact(variance=0.2)
    result = tile(model, steps=2)
    assert result.images[0].size == (16, 16) and result.notes == ()
    assert {shape for shape, _ in model.denoiser.asked} == {(4, 3, 16, 16)}
    assert tile(model, (24, 40), steps=1).images[0].size == (40, 24)
    with pytest.raises(SfumatoError, match="multiples of 4"):
        tile(model, (18, 16))


def test_thin_lines_of_a_large_drawing_are_all_there_and_undistorted() -> None:
    lines = lines_of(drawing(), (16, 16))[0, 0]
    assert lines[:, 8].sum() == 11 and lines[7].sum() == 16
    assert not lines[:2].any() and not lines[-2:].any()  # 3:2 in the middle of a square
    assert 16 + 10 - 1 <= lines.sum() <= 2 * (16 + 11)
    assert lines_of(drawing(8, 8, 1), (32, 32)).sum() > 60
    for bad, said in (
        (Image.new("L", (30, 30), 255), "no lines"),
        (Image.new("L", (30, 30), 0), "invert"),
        (Image.eval(drawing(), lambda v: 255 - v), "invert"),
    ):
        with pytest.raises(SfumatoError, match=said):
            sketch(exact("sketch"), bad)


def test_lines_reach_the_model() -> None:
    model = exact("sketch")
    result = sketch(model, drawing(), steps=1)
    slot = model.denoiser.asked[0][1]["sketch"].value
    assert result.by == "slot" and torch.equal(slot > 0.5, lines_of(drawing(), (16, 16)))
    without = sketch(exact(), drawing(), steps=3)
    assert without.by == "guide" and without.network_calls == 3 and "sketch" in without.notes[0]


def test_boxes_reach_the_model_with_their_words() -> None:
    model = exact("boxes", "text", side=32)
    result = layout(model, LAYOUT | {"boxes": TWO, "background": "a quiet day"}, steps=1, n=2)
    shape, cond = model.denoiser.asked[0]
    assert shape == (4, 3, 16, 32) and result.by == "slot" and result.request.guidance == 3.0
    assert cond["boxes"].present().any(1).tolist() == [True, True, False, False]  # guidance: with them and without
    words, places = encode(["a boat", "the wide sea"])[0], cond["boxes"].value[0]
    assert torch.equal(places[0, :-4], words[0, 0]) and places[0, -4:].tolist() == [125, 250, 500, 750]
    assert result.images[0].size == (32, 16) and result.request.prompt == "a quiet day"


@pytest.mark.parametrize("size", [(30, 30), (18, 32), (5, 3)])
def test_a_layout_of_any_size_is_drawn_at_its_size(size) -> None:
    model = exact("boxes", side=32)
    result = layout(model, LAYOUT | {"width": size[0], "height": size[1]}, steps=1)
    assert result.images[0].size == size
    canvas, cond = model.denoiser.asked[0]
    assert cond["boxes"].value[0, 0, -2] == round(1000 * size[0] / 2 / canvas[-1])


def test_a_larger_layout_is_drawn_as_the_model_learned_or_in_windows_when_asked() -> None:
    model = exact("boxes", side=16)
    result = layout(model, LAYOUT | {"width": 640, "height": 640}, steps=1)
    assert result.images[0].size == (16, 16) and "--size 640x640" in result.notes[0]
    model.denoiser.asked.clear()
    result = layout(model, LAYOUT, (16, 40), steps=1)
    assert result.images[0].size == (40, 16) and "windows" in result.notes[0]
    assert all(shape[1:] == (3, 16, 16) for shape, _ in model.denoiser.asked)


def test_without_the_slot_each_box_is_drawn_by_its_words() -> None:
    """An exact denoiser that believes in red where the words say so: the box becomes red, all else stays as it was."""
    model = exact("text", side=32)
    red = features("red")[0]
    plain = model.denoiser.__class__.__call__

    class Reading(model.denoiser.__class__):
        def __call__(self, x_t, t, cond=Cond()):  # noqa: B008
            belief = plain(self, x_t, t, cond)
            if "text" not in cond:
                return belief
            said = (cond["text"].value[..., 0] == red).any(1) & cond["text"].present().any(1)
            colour = torch.tensor([1.0, -1.0, -1.0]).reshape(1, 3, 1, 1)
            return belief.with_lin(torch.where(said.reshape(-1, 1, 1, 1), colour, belief.lin))

    model.denoiser.__class__ = Reading
    result = layout(model, LAYOUT | {"width": 32, "height": 32}, steps=2, guidance=1.0)
    pixels = np.asarray(result.images[0])
    assert result.by == "guide" and "boxes" in result.notes[0]
    assert (pixels[2:-2, 2:14] == (255, 0, 0)).all() and (np.abs(pixels[:, 16:].astype(int) - FILL) <= 1).all()


@pytest.mark.parametrize(
    "boxes",
    [
        TWO * 20,  # overlapping
        [{"box": [0, 0, 0.001, 0.001], "text": "dust"}, {"box": [0.999, 0.999, 1, 1], "text": "dust"}],
        [{"box": [0, 0, 1, 1], "text": "x " * 2000}],
        [{"box": [1, 2, 9, 11], "text": "in pixels"}],
    ],
    ids=["overlapping", "tiny", "long", "pixels"],
)
@pytest.mark.parametrize("names", [("boxes",), ("text",)], ids=["slot", "guide"])
def test_odd_boxes_are_drawn(boxes, names) -> None:
    (done,) = layout(untrained(*names), LAYOUT | {"width": 16, "boxes": boxes}, steps=1).images
    assert done.size == (16, 16)


@pytest.mark.parametrize(
    "told,said",
    [
        ({"boxes": [{"box": [0, 0, 2, 40], "text": "a"}]}, "box 0.*outside"),
        ({"boxes": [{"box": [0.5, 0, 0.5, 1], "text": "a"}]}, "no area"),
        ({"boxes": TWO * 250}, "500 boxes"),
        ({"boxes": []}, "no boxes"),
    ],
)
def test_layouts_that_do_not_fit_are_told(told, said) -> None:
    with pytest.raises(SfumatoError, match=said):
        layout(exact("boxes"), LAYOUT | told)
    with pytest.raises(SfumatoError, match="neither|without boxes"):
        layout(exact(), LAYOUT)
    with pytest.raises(SfumatoError, match="cannot be read"):
        layout(exact("boxes"), "no-such.json")
