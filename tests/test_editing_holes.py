"""Holes that are larger than a model sees at once, what is foretold by what is known, and borders without seams."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from editing import FILL, PROCESS, Known, drawing, exact, photograph, random_mask
from PIL import Image

from sfumato.core import Cond, Noise, SfumatoError
from sfumato.data.colours import NAMES
from sfumato.measure.oracles import Gaussian
from sfumato.tasks import editing
from sfumato.tasks.canvas import around
from sfumato.tasks.carry import carry_out
from sfumato.tasks.coarse import Small
from sfumato.tasks.inpaint import Inpaint, inpaint
from sfumato.tasks.layout import layout
from sfumato.tasks.outpaint import outpaint
from sfumato.tasks.sketch import sketch


def test_only_the_surroundings_of_a_hole_are_drawn() -> None:
    """A photograph of 6 million pixels and a hole that one picture of the model covers: nothing larger is ever asked."""
    model, picture = exact("known"), Image.new("RGB", (3000, 2000), (10, 200, 30))
    fill = np.zeros((2000, 3000), dtype=bool)
    fill[1990:2000, 17:26] = True
    (done,) = inpaint(model, picture, fill, steps=2).images
    assert {shape for shape, _ in model.denoiser.asked} == {(1, 3, 16, 16)}
    assert done.getpixel((20, 1995)) == FILL and done.getpixel((200, 200)) == (10, 200, 30)
    slot = model.denoiser.asked[0][1]["known"].value
    assert slot.shape == (1, 4, 16, 16) and slot[0, 0].sum() == 16 * 16 - 90
    fill[1900:2000, 100:140] = True  # now it takes windows, those without a hole are left out
    model.denoiser.asked.clear()
    inpaint(model, picture, fill, steps=1)
    shapes = [shape for shape, _ in model.denoiser.asked]
    assert all(max(shape[2:]) <= 16 and shape[0] <= 64 for shape in shapes)
    assert sum(shape[0] for shape in shapes) < 60


def test_the_region_around_a_hole_lies_in_the_picture() -> None:
    model = exact()
    for seed in range(60):
        rng = np.random.default_rng(seed)
        width, height = (int(v) for v in rng.integers(1, 80, 2))
        fill = random_mask(seed, width, height)
        region = around(model, fill)
        assert 0 <= region.top <= region.top + region.height <= height
        assert 0 <= region.left <= region.left + region.width <= width
        inside = fill[region.top : region.top + region.height, region.left : region.left + region.width]
        assert inside.sum() == fill.sum()
        assert all(side % 4 == 0 and side >= own for side, own in zip(region.shape, inside.shape, strict=True))


def test_a_hole_is_filled_as_the_known_pixels_foretell() -> None:
    """A stationary Gaussian field and no slot: mean and spread of the hole, given the rest, are those of the conditional
    Gaussian in closed form (the guide goes through the network; putting known pixels into the belief alone is biased)."""
    side, n = 8, 200
    y, x = (v.flatten().double() for v in torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij"))
    covariance = 0.06 * torch.exp(-((y[:, None] - y) ** 2 + (x[:, None] - x) ** 2).sqrt() / 4)
    oracle = Gaussian(PROCESS, torch.zeros(1, side, side), covariance)
    model = exact(side=side, colour=(0.0,))
    model.denoiser.__class__ = type("Field", (Known,), {"__call__": lambda self, *told: oracle(*told)})
    picture = model.codec.decode(oracle.draw(Noise.of(11, 1)))[0]
    fill = np.zeros((side, side), dtype=bool)
    fill[2:6, 3:6] = True
    drawn = inpaint(model, picture, fill, n=n, steps=24).x0.flatten(1).double()[:, torch.from_numpy(fill.flatten())]
    hole, rest = torch.from_numpy(fill.flatten()), torch.from_numpy(~fill.flatten())
    gain = covariance[hole][:, rest] @ torch.linalg.inv(covariance[rest][:, rest])
    mean = gain @ model.codec.encode([picture]).flatten().double()[rest]
    spread = (covariance[hole][:, hole] - gain @ covariance[rest][:, hole]).diagonal().sqrt()
    assert ((drawn.mean(0) - mean) / spread).square().mean().sqrt() < 0.25
    assert (drawn.std(0) / spread - 1).abs().max() < 0.25
    assert (mean / spread).square().mean().sqrt() > 1  # there is something to foretell


def test_everything_may_be_told_at_once_and_stands_in_its_place() -> None:
    """A hole in a large picture, with a drawing, boxes and colours of the whole: all are cut as the picture is."""
    model = exact("known", "text", "sketch", "boxes", "classes")
    picture, fill = photograph(40, 30), np.zeros((30, 40), dtype=bool)
    fill[12:18, 20:28] = True  # the canvas: 16 pixels from row 7 and column 16
    lines = Image.new("L", (40, 30), 255)
    lines.putpixel((20, 12), 0)
    areas = Image.new("RGBA", (40, 30), (255, 0, 0, 0))
    areas.paste((0, 0, 255, 255), (18, 8, 22, 10))
    boxes = [{"box": [20, 7, 40, 23], "text": "a boat"}, {"box": [0, 0, 10, 30], "text": "far away"}]
    scene = {"width": 40, "height": 30, "boxes": boxes}
    result = inpaint(
        model, picture, fill, prompt="a sea", sketch=lines, colours=areas, layout=scene, steps=1, guidance=1.0
    )
    cond = model.denoiser.asked[0][1]
    assert set(cond) == {"known", "text", "sketch", "boxes", "classes"} and result.by == "slot"
    assert cond["sketch"].value[0, 0].nonzero().tolist() == [[5, 4]]
    blue = cond["classes"].value[0, NAMES.index("blue")]
    assert blue.sum() == cond["classes"].value.sum() == 8 and blue[1:3, 2:6].sum() == 8
    words = cond["boxes"].value[0][cond["boxes"].present()[0]]
    assert len(words) == 2 and words[:, -4:].tolist() == [[250, 0, 1000, 1000]] * 2
    for call in (
        lambda: outpaint(model, picture, (48, 48), sketch=lines, layout=scene, steps=1),
        lambda: layout(model, scene, (16, 16), sketch=drawing(), colours=areas, steps=1),
        lambda: sketch(model, drawing(), (16, 16), layout=scene, colours=areas, steps=1),
    ):
        model.denoiser.asked.clear()
        call()
        assert {"sketch", "boxes"} <= set(model.denoiser.asked[0][1])
    with pytest.raises(SfumatoError, match="'sketch'.*leave --sketch away"):
        inpaint(exact("known"), picture, fill, sketch=lines)


def test_a_hole_of_many_windows_is_of_one_piece() -> None:
    """Data of one random grey for the whole picture, and a hole so large that most windows see nothing that is known: drawn
    small first, all of it has the grey of the border; windows alone lose it on the way to the middle."""
    exactly: dict[tuple[int, int], Gaussian] = {}

    def flat(self, x_t, t, cond=Cond()):  # noqa: B008
        height, width = x_t.shape[-2:]
        if (height, width) not in exactly:
            covariance = 0.2 * torch.ones(height * width, height * width) + 1e-4 * torch.eye(height * width)
            exactly[height, width] = Gaussian(PROCESS, torch.zeros(1, height, width), covariance)
        return exactly[height, width](x_t, t)

    model = exact(colour=(0.0,))
    model.denoiser.__class__ = type("Flat", (Known,), {"__call__": flat})
    picture, fill = Image.new("L", (64, 64), 200), np.zeros((64, 64), dtype=bool)
    fill[6:58, 6:58] = True
    whole = inpaint(model, picture, fill, n=4, steps=8)
    region = around(model, fill)
    request = editing.requested(model, region.shape, {"n": 4, "steps": 8})
    pieces = carry_out(model, Inpaint(picture, fill, region), request)
    off, lost = ([np.abs(np.asarray(i).astype(float) - 200).mean() for i in r.images] for r in (whole, pieces))
    assert max(off) < 10 < np.mean(lost) and whole.network_calls == 16


def test_what_is_told_of_a_large_hole_is_told_of_the_small_drawing_in_the_same_place() -> None:
    model = exact("known", "sketch", "boxes")
    picture, fill = photograph(120, 60), np.zeros((60, 120), dtype=bool)
    fill[10:50, 20:110] = True
    lines = Image.new("L", (120, 60), 255)
    lines.paste(0, (60, 0, 61, 60))  # down the middle
    scene = {"width": 120, "height": 60, "boxes": [{"box": [60, 0, 120, 60], "text": "boat"}]}
    inpaint(model, picture, fill, sketch=lines, layout=scene, steps=1, guidance=1.0)
    cond = model.denoiser.asked[0][1]
    assert cond["sketch"].value.shape == (1, 1, 8, 16)  # 16 x 8 of 120 x 60, the part round the hole being all of it
    assert cond["sketch"].value[0, 0, :, 8].all() and cond["sketch"].value.sum() == 8
    assert cond["boxes"].value[0, 0, -4:].tolist() == [500, 0, 1000, 1000]
    assert not cond["known"].value[0, 0, 2:6, 3:14].any() and cond["known"].value[0, 0, 0].all()


@pytest.mark.parametrize("seed", range(20))
def test_the_small_mask_covers_the_hole_and_kept_pixels_are_clean(seed) -> None:
    """The hole is black in a white picture: no kept pixel of the small one is darkened by it."""
    rng = np.random.default_rng(seed)
    width, height = (int(v) for v in rng.integers(20, 150, 2))
    fill = random_mask(seed, width, height)
    small = Small.of(fill, (16, 16))
    assert max(small.size) <= 16 and small.fill(fill).any()
    picture = Image.fromarray(np.where(fill, 0, 255).astype(np.uint8))
    kept = ~small.fill(fill)
    assert (np.asarray(small.picture(picture))[kept] == 255).all()


@pytest.mark.slow
def test_the_border_of_a_hole_shows_no_seam() -> None:
    """A correlated Gaussian field, a hole of several windows and no slot: neighbours across the border differ as all
    neighbours of the field do."""
    y, x = (v.flatten().double() for v in torch.meshgrid(torch.arange(32), torch.arange(32), indexing="ij"))
    near = torch.exp(-((y[:, None] - y) ** 2 + (x[:, None] - x) ** 2).sqrt() / 1.5)

    def field(height: int, width: int) -> Gaussian:
        some = ((y < height) & (x < width)).nonzero()[:, 0]
        return Gaussian(
            PROCESS, torch.zeros(1, height, width), 0.06 * near[some][:, some] + 1e-6 * torch.eye(len(some))
        )

    known: dict[tuple[int, int], Gaussian] = {}

    def call(self, x_t, t, cond=Cond()):  # noqa: B008
        size = tuple(x_t.shape[-2:])
        if size not in known:
            known[size] = field(*size)
        return known[size](x_t, t)

    model, fill = exact(colour=(0.0,)), np.zeros((32, 32), dtype=bool)
    model.denoiser.__class__ = type("Field", (Known,), {"__call__": call})
    fill[6:26, 6:26] = True
    real, border = field(32, 32).draw(Noise.of(100, 12)), []
    usual = (2 / np.pi * 2 * 0.06 * (1 - np.exp(-1 / 1.5))) ** 0.5  # mean |a - b| of two neighbours
    for k, picture in enumerate(model.codec.sized(32, 32).decode(real)):
        for image in inpaint(model, picture, fill, n=8, steps=14, seed=k).images:
            step = np.abs(np.diff(np.asarray(image).astype(float) / 127.5, axis=1))[6:26]
            border.append(step[:, [5, 25]].mean())
    assert abs(np.mean(border) / usual - 1) < 0.05
