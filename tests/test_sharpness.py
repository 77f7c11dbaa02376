"""How sharp a picture is: against edges of known blur and the definition written out, and who is called blurred."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from sfumato.data.audit import audit
from sfumato.data.audit.sharpness import REACH, RISE, detail, sharpness, spread


def measured(picture: Image.Image) -> float:
    grey = picture.convert("L")
    return sharpness(picture.convert("RGB"), np.asarray(grey))


@pytest.mark.parametrize("sigma", [0.8, 1.0, 1.5, 2.0])
def test_an_edge_of_known_blur(sigma):
    """A Gaussian edge rises by 1 / (sigma sqrt(2 pi)) of its height per pixel where it is steepest."""
    from scipy.special import ndtr

    x = np.arange(40) - 19.5
    middle = np.arange(40)[:, None] % 2 * 0.5  # half of the rows have the edge between two pixels, half on one
    edge = 30 + 200 * ndtr((x - middle) / sigma)
    found = measured(Image.fromarray(edge.round().astype(np.uint8)))
    steepest = 2 * ndtr(0.5 / sigma) - 1  # over one whole pixel
    assert found == pytest.approx(steepest, rel=0.03)
    assert steepest == pytest.approx(1 / (sigma * np.sqrt(2 * np.pi)), rel=0.07)


@pytest.mark.parametrize("shape", [(9, 9), (17, 30), (30, 17), (4, 12)])
def test_the_definition_written_out(shape):
    """Place by place: the steepest step among its neighbours, the rise within REACH, the strong ones, their ninth tenth."""
    draw = np.random.default_rng(sum(shape))
    soft = Image.fromarray(draw.integers(0, 256, shape, dtype=np.uint8)).filter(ImageFilter.GaussianBlur(0.8))
    found = []
    for lines in (np.asarray(soft, int), np.asarray(soft, int).T):
        for line in lines:
            steps = np.abs(np.diff(line))
            for k, step in enumerate(steps):
                around = line[max(0, k - REACH) : k + REACH + 2]
                rise = around.max() - around.min()
                if step and step == steps[max(0, k - 1) : k + 2].max() and rise >= RISE:
                    found.append((rise, step / rise))
    most = max(rise for rise, _ in found)
    strong = sorted(share for rise, share in found if rise >= 0.4 * most)
    assert measured(soft) == pytest.approx(strong[int(0.9 * (len(strong) - 1))])


def test_nothing_to_judge_by():
    assert measured(Image.new("L", (40, 40), 90)) == -1
    assert measured(Image.new("L", (3, 3))) == -1


def boxes(seed: int) -> Image.Image:
    draw = np.random.default_rng(seed)
    pixels = np.full((64, 64, 3), 255, np.uint8)
    for _ in range(6):
        top, left = draw.integers(0, 44, 2)
        high, wide = draw.integers(14, 30, 2)
        pixels[top : top + high, left : left + wide] = draw.integers(0, 256, 3)
    return Image.fromarray(pixels)


@pytest.mark.parametrize(
    ("usual", "blurred"),
    [(0.0, {"1.5", "2.5"}), (0.7, {"2.5"}), (2.2, {"2.5"})],
    ids=["sharp drawings", "soft photographs", "all of them blurred"],
)
def test_soft_pictures_are_blurred_beside_sharp_ones_only(tmp_path: Path, usual, blurred):
    """Blur of 1.5 pixels is a fault among drawings and usual among soft photographs; 2.5 pixels always are one."""
    for k in range(12):
        boxes(k).filter(ImageFilter.GaussianBlur(usual)).save(tmp_path / f"usual{k}.png")
    for k, sigma in enumerate(("1.5", "2.5")):
        boxes(50 + k).filter(ImageFilter.GaussianBlur(float(sigma))).save(tmp_path / f"{sigma}.png")
    found = {name for f in audit(str(tmp_path)).findings if f.kind == "blurred" for name in f.files}
    assert {name.removesuffix(".png") for name in found if not name.startswith("usual")} == blurred
    assert any(name.startswith("usual") for name in found) == (usual > 2)


def test_detail_and_spread_of_many_thumbnails_are_those_of_each():
    """A cubic surface leaves nothing; noise alone leaves itself, and a quarter of it between parts of 4x4."""
    y, x = np.mgrid[-1:1:32j, -1:1:32j]
    draw = np.random.default_rng(0)
    noise = draw.normal(128, 8, (40, 32, 32))
    surface = 128 + 60 * x**3 - 40 * x * y**2 + 20 * y
    thumbs = np.concatenate([surface[None], noise]).round().astype(np.uint8)
    assert detail(thumbs)[0] < 0.5
    assert abs(detail(thumbs)[1:].mean() - 8) < 0.2 and abs(spread(thumbs)[1:].mean() - 2) < 0.1
    assert np.allclose(detail(thumbs), [detail(t) for t in thumbs], rtol=1e-4)
    assert np.allclose(spread(thumbs), [t.reshape(8, 4, 8, 4).mean((1, 3)).std() for t in thumbs])
