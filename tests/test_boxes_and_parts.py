"""What is said of parts of a picture: boxes of training data go through its crop, parts are of every picture of a batch."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import sfumato.data as data
from sfumato.core import Cond, Posterior, SfumatoError, Slot, Time
from sfumato.data import colours
from sfumato.data.canvas import Controls, boxes_of
from sfumato.forward import RectifiedFlow
from sfumato.guide import cfg
from sfumato.guide.regions import Part, regions
from sfumato.train import Recipe, continued


class Told:
    """Believes what its conditions say: text (the number it is told) + 10 x the mean of the map that it is shown."""

    process = RectifiedFlow()

    def __call__(self, x_t: Tensor, t: Time, cond: Cond = Cond()) -> Posterior:  # noqa: B008
        assert all(len(slot.value) == len(x_t) for slot in cond.values())
        text, told = cond["text"], torch.zeros(len(x_t))
        told = torch.where(text.present()[:, 0], text.value[:, 0, 0].float(), told)
        if "sketch" in cond:
            assert cond["sketch"].value.shape[2:] == x_t.shape[2:]
            told = told + 10 * cond["sketch"].value.mean((1, 2, 3)) * cond["sketch"].present()
        return self.process.posterior(x_t, t, told.reshape(-1, 1, 1, 1).expand_as(x_t).clone())


def words(*numbers: float) -> Slot:
    return Slot(torch.tensor(numbers).reshape(-1, 1, 1), "tokens", torch.ones(len(numbers), 1, dtype=torch.bool))


@pytest.mark.parametrize("n", [1, 2, 3])
def test_a_part_is_of_every_picture_and_guided_in_every_picture(n: int) -> None:
    sketch = torch.zeros(n, 1, 16, 16)
    sketch[:, :, 8:, 8:] = 1
    cond = Cond({"text": words(*[1.0] * n), "sketch": Slot(sketch, "map")})
    part = Part(8, 8, 16, 16, Cond({"text": words(5.0)}))
    lin = regions([part])(cfg(3.0)(Told()))(torch.zeros(n, 1, 16, 16), 0.5, cond).lin
    # w (text + map) beside (1 - w) nothing: the part is told 5 and the lines in it, all of them
    assert torch.allclose(lin[:, 0, 13, 13], torch.tensor(3.0 * (5 + 10)))
    assert torch.allclose(lin[:, 0, 2, 2], torch.tensor(3.0 * (1 + 2.5)))


def test_what_is_pushed_away_needs_no_prompt() -> None:
    cond = Cond({"sketch": Slot(torch.ones(2, 1, 8, 8), "map")})

    class Seen(Told):
        def __call__(self, x_t: Tensor, t: Time, cond: Cond = Cond()) -> Posterior:  # noqa: B008
            assert cond["text"].present()[:, 0].tolist() == [False, False, True, True]
            return super().__call__(x_t, t, cond)

    lin = cfg(2.0, against=Cond({"text": words(4.0)}), keep=("sketch",))(Seen())(torch.zeros(2, 1, 8, 8), 0.5, cond).lin
    assert torch.allclose(lin, torch.tensor(2.0 * 10 - (10 + 4)))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for name, size in (("wide.png", (96, 64)), ("tall.png", (32, 64)), ("square.png", (40, 40))):
        Image.new("RGB", size, (200, 40, 40)).save(tmp_path / name)
    return tmp_path


def tell(folder: Path, **boxes: list) -> None:
    rows = [json.dumps({"file_name": f"{name}.png", "text": "a thing", "boxes": told}) for name, told in boxes.items()]
    (folder / "metadata.jsonl").write_text("\n".join(rows))


def test_boxes_go_through_the_crop_of_their_picture(photos: Path) -> None:
    third = [1 / 3, 0.0, 2 / 3, 1.0, "middle"]  # of 96 pixels; the square in the middle begins at 16 and ends at 80
    tell(photos, wide=[third, [0.0, 0.0, 0.1, 1.0, "cut away"]], tall=[[0.0, 0.0, 1.0, 1.0, "all"]], square=[third])
    source = data.open(photos, size=16)
    at = {key: k for k, key in enumerate(source.keys)}
    wide, tall, square = boxes_of(source, [at["wide.png"], at["tall.png"], at["square.png"]])
    (box,) = wide
    assert box[:4] == pytest.approx((0.25, 0.0, 0.75, 1.0)) and box.text == "middle"
    assert tall[0][:4] == (0.0, 0.0, 1.0, 1.0) and square[0][:4] == pytest.approx(tuple(third[:4]))


@pytest.mark.parametrize(
    "box",
    [
        [12, 30, 20, 40, "pixels"],
        [0.5, 0.1, 0.2, 0.9, "turned round"],
        [0.1, 0.1, 0.1, 0.9, "no area"],
        [0.1, 0.1, 0.9, 0.9, " "],
        [0.1, 0.1, 0.9, "four"],
        [float("nan"), 0.1, 0.9, 0.9, "nan"],
        [0.1, 0.1, float("inf"), 0.9, "inf"],
    ],
)
def test_wrong_boxes_are_told_before_training(photos: Path, box: list) -> None:
    tell(photos, wide=[], tall=[[0.0, 0.0, 1.0, 1.0, "all"]], square=[box])
    with pytest.raises(SfumatoError, match="square.png.*column boxes holds"):
        Controls(("boxes",)).fit_to(data.open(photos, size=16))


def test_a_model_that_another_begins_with_gives_its_palette_on() -> None:
    palette = ((255, 0, 0), "roof"), ((0, 255, 0), "meadow")
    before = Recipe(controls=Controls(("classes",), palette=palette))
    assert continued(before, Recipe(controls=Controls(("classes", "known")))).controls.palette == palette


def test_colours_of_large_pictures_take_little_memory() -> None:
    small = np.random.default_rng(0).integers(0, 256, (50, 1500, 3), dtype=np.uint8)  # more than one block
    single = np.array([colours.nearest(pixel) for pixel in small[::7, ::97].reshape(-1, 3)])
    assert (colours.nearest(small)[::7, ::97].ravel() == single).all() and colours.nearest(small).shape == (50, 1500)
