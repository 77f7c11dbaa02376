"""Near-duplicates are found by what was done to drawn pictures, and look-alikes are left alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from benchmarks.transformations import TRANSFORMATIONS
from sfumato.data.audit import align
from sfumato.data.audit.near import near_duplicates

SIDE = 128


def scene(seed: int) -> Image.Image:
    """Shapes of random colour, place and size on a slope of colour, with a little grain: no two seeds alike."""
    draw = np.random.default_rng(seed)
    slope = np.linspace(0, 1, SIDE)[:, None, None] * draw.uniform(-60, 60, 3) + draw.uniform(70, 190, 3)
    grain = draw.normal(0, 4, (SIDE, SIDE, 3))
    picture = Image.fromarray((np.broadcast_to(slope, (SIDE, SIDE, 3)) + grain).clip(0, 255).astype(np.uint8))
    pen = ImageDraw.Draw(picture)
    for _ in range(12):
        x, y, w, h = draw.integers(-20, 110), draw.integers(-20, 110), *draw.integers(15, 60, 2)
        fill = tuple(int(v) for v in draw.integers(0, 256, 3))
        (pen.ellipse if draw.random() < 0.5 else pen.rectangle)((x, y, x + w, y + h), fill=fill)
    return picture


def looked_at(pictures: list[Image.Image]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """What the audit keeps of each picture."""
    low_pass = Image.Resampling.BILINEAR
    rgb = [p.convert("RGB") for p in pictures]
    thumbs = np.stack([np.asarray(p.convert("L").resize((32, 32), low_pass)) for p in rgb])
    colours = np.stack([np.asarray(p.resize((16, 16), low_pass)) for p in rgb])
    return thumbs, colours, np.array([p.width / p.height for p in pictures]), np.arange(len(pictures))


def groups(pictures: list[Image.Image]) -> list[set[int]]:
    return [set(g.rows) for g in near_duplicates(*looked_at(pictures))]


@pytest.fixture(scope="module")
def scenes() -> list[Image.Image]:
    return [scene(k) for k in range(120)]


def test_different_pictures_are_left_alone(scenes):
    assert groups(scenes) == []


@pytest.mark.parametrize("name", TRANSFORMATIONS)
def test_altered_copies_are_found(scenes, name):
    draw = np.random.default_rng(7)
    copies = [TRANSFORMATIONS[name](p, draw) for p in scenes[:20]]
    found = groups([*scenes, *copies])
    hit = sum({k, len(scenes) + k} in found for k in range(20))
    assert hit >= 19
    assert len(found) == hit, "a group holds strangers"


@pytest.mark.parametrize("side", [8, 16])
def test_a_changed_detail_is_another_picture(scenes, side):
    """A blot of a sixteenth or an eighth of the side, of a tone that is not there, in the middle of each copy."""
    changed, low, high = [], 64 - side // 2, 63 + side // 2
    for picture in scenes[:20]:
        copy = picture.copy()
        local = np.asarray(picture.convert("L"))[low : high + 1, low : high + 1].mean()
        ImageDraw.Draw(copy).rectangle((low, low, high, high), fill=(0, 0, 0) if local > 127 else (255, 255, 255))
        changed.append(copy)
    assert groups([*scenes[:20], *changed]) == []


def test_much_less_contrast_or_a_small_part_is_another_picture(scenes):
    """Beyond what the benchmark plants: contrast halved, and the middle two thirds of each side."""
    pale = [p.point(lambda v: 64 + v // 2) for p in scenes[:40]]
    assert groups([*scenes[:40], *pale]) == []
    inner = [p.crop((22, 22, 105, 105)).resize((SIDE, SIDE)) for p in scenes[:40]]
    assert groups([*scenes[:40], *inner]) == []


def test_another_colour_of_one_part_is_another_picture():
    """Faces that differ in the colour of the skin alone, of nearly the same lightness."""

    def face(skin: tuple[int, int, int]) -> Image.Image:
        picture = Image.new("RGB", (SIDE, SIDE), "white")
        pen = ImageDraw.Draw(picture)
        pen.ellipse((16, 16, 112, 112), fill=skin, outline="black", width=4)
        pen.ellipse((42, 46, 52, 60), fill="black")
        pen.ellipse((76, 46, 86, 60), fill="black")
        pen.arc((40, 50, 88, 94), 20, 160, fill="black", width=4)
        return picture

    tones = [face(c) for c in ((252, 234, 43), (250, 220, 188), (193, 154, 101), (106, 70, 47))]
    assert groups(tones) == []
    brighter = tones[2].point(lambda v: min(255, v + 12))
    assert groups([*tones, brighter]) == [{2, 4}]


def test_a_grey_version_goes_with_its_own_original():
    """Two pictures of the same lightness and different colour, and the grey version of one."""
    first = scene(3)
    shifted = np.asarray(first, np.float32)
    shifted += np.array([60, -30.6, 0]) * (shifted[..., 1:2] > 100)  # luma unchanged
    second = Image.fromarray(shifted.clip(0, 255).astype(np.uint8))
    found = groups([first, second, second.convert("L")])
    assert found == [{1, 2}]


def test_copies_of_copies_are_one_group(scenes):
    draw = np.random.default_rng(1)
    row = [scenes[0], TRANSFORMATIONS["mirrored"](scenes[0], draw), TRANSFORMATIONS["relit"](scenes[0], draw)]
    assert groups([*scenes[1:30], *row]) == [{29, 30, 31}]


def test_other_proportions_and_flat_pictures_are_not_compared(scenes):
    squeezed = scenes[0].resize((SIDE, SIDE // 2))
    flat = [Image.new("RGB", (64, 64), (v, v, v)) for v in (10, 10, 200)]
    slope = np.linspace(60, 180, 64)[:, None].repeat(64, 1).round().astype(np.uint8)
    flat += [Image.fromarray(slope), Image.fromarray(slope + 5)]
    assert groups([scenes[0], squeezed, *flat]) == []
    assert near_duplicates(*looked_at(scenes[:1])) == []


def test_evidence_says_what_was_done(scenes):
    copy = TRANSFORMATIONS["mirrored"](scenes[0], np.random.default_rng(0))
    (group,) = near_duplicates(*looked_at([*scenes[:5], copy]))
    assert "mirrored" in group.evidence and "limit" in group.evidence


def test_registration_recovers_a_known_move():
    """A smooth picture seen through a known affine: the corners come back within a fifth of a pixel of 32."""
    draw = np.random.default_rng(5)
    noise = torch.from_numpy(draw.normal(0, 400, (8, 1, 32, 32)).astype(np.float32))
    first = align.blur(noise, 2.5) + 128
    true = torch.tensor([[[0.93, 0.02, 0.04], [-0.02, 0.95, -0.03]]]).expand(8, 2, 3)
    second, _ = align.warp(first, true)
    start = torch.eye(2, 3).expand(8, 2, 3)
    second = 0.9 * second + 10
    a, b = (torch.nn.functional.avg_pool2d(x, 2) for x in (first, second))
    kept, near, _ = align.register(a, a, b, start, (999.0,) * 3)
    assert len(kept) == 8
    found = align.fine(first, second, near)
    corners = torch.tensor([[-1.0, 1, -1, 1], [-1, -1, 1, 1], [1, 1, 1, 1]]) * torch.tensor([[0.8], [0.8], [1.0]])
    off = ((found - true) @ corners).abs().amax() * 16
    assert off < 0.2


def test_a_tenth_of_a_pixel_is_no_changed_detail_and_a_blot_is(monkeypatch):
    """Boxes of strong contrast, the second moved by a twelfth of a pixel of 32 and not registered."""
    pictures = [np.asarray(scene(k).convert("L").resize((96, 96), Image.Resampling.BILINEAR)) for k in range(12)]
    large = torch.from_numpy(np.stack(pictures))[:, None].float()
    moved = large.roll(1, 3) * 0.25 + large * 0.75
    first, second = (torch.nn.functional.avg_pool2d(x, 3) for x in (large, moved))
    tint, still = torch.zeros(12, 3, 16, 16), torch.eye(2, 3).expand(12, 2, 3)
    near = align.compare(first, second, (tint, tint), still).detail
    assert near.median() < 1.5
    second[:, :, 12:15, 12:15] += torch.where(second[:, :, 12:15, 12:15].mean((2, 3), keepdim=True) > 127, -50, 50)
    assert (align.compare(first, second, (tint, tint), still).detail > 15).sum() >= 10
    monkeypatch.setattr(align, "MISPLACED", 0.0)
    assert align.compare(first, second, (tint, tint), still).detail.min() > 15
    assert align.compare(first, torch.nn.functional.avg_pool2d(moved, 3), (tint, tint), still).detail.median() > 2.5


@pytest.mark.parametrize("shape", [(16, 16), (32, 32), (5, 9)])
def test_blur_is_a_convolution_with_a_gaussian_and_repeated_edges(shape):
    from scipy.ndimage import gaussian_filter

    draw = np.random.default_rng(0)
    pictures = draw.uniform(0, 255, (3, 2, *shape)).astype(np.float32)
    for sigma in (0.5, 0.7, 1.0, 2.5):
        reach = max(1, round(2.5 * sigma))
        truth = gaussian_filter(pictures, (0, 0, sigma, sigma), mode="nearest", radius=(0, 0, reach, reach))
        assert np.abs(align.blur(torch.from_numpy(pictures), sigma).numpy() - truth).max() < 1e-3


def test_two_names_of_one_drawing_are_no_lookalikes():
    from benchmarks.planter import _drawn_twice

    names = ["man swimming", "person swimming", "woman swimming", "man guard", "guard", "man", "flag of Diego Garcia"]
    names += ["men with bunny ears", "man swimming dark skin tone", "flag of Norway"]
    assert {names[k] for k in _drawn_twice(names)} == {"man swimming", "man guard", "flag of Diego Garcia"}


def test_a_symmetric_drawing_mirrored_is_an_exact_copy(scenes):
    from benchmarks.planter import _kind_of_copy

    ring = Image.new("RGB", (64, 64), "white")
    ImageDraw.Draw(ring).ellipse((10, 10, 53, 53), outline="black", width=3)
    mirrored = TRANSFORMATIONS["mirrored"]
    draw = np.random.default_rng(0)
    assert _kind_of_copy("mirrored", ring, mirrored(ring, draw)) == "exact"
    assert _kind_of_copy("mirrored", scenes[0], mirrored(scenes[0], draw)) == "mirrored"
