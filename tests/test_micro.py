"""Sizes and crops of pictures before they were learned from: planted ones arrive exactly, and a model obeys them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from PIL import Image
from training import FLOAT32, small_source, tiny_recipe, tiny_trainer

from sfumato.cli import main
from sfumato.core import SfumatoError
from sfumato.data import Buckets
from sfumato.data import open as open_source
from sfumato.data.micro import crop_slot, size_slot, slots
from sfumato.tasks import Request, load
from sfumato.tasks.conditions import conditions
from sfumato.train import Budget, Optimiser, Recipe, Run, Trainer, fit

PLANTED = {"a.png": (8, 8), "b.png": (40, 30), "c.png": (17, 64), "d.jpg": (900, 700)}  # height, width


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "pictures"
    path.mkdir()
    for name, (height, width) in PLANTED.items():
        Image.new("RGB", (width, height), "red").save(path / name)
    turned = Image.new("RGB", (30, 50), "blue")
    exif = turned.getexif()
    exif[0x0112] = 6  # to be turned by a quarter: 30 high, 50 wide
    turned.save(path / "e.jpg", exif=exif)
    (path / "f.png").write_bytes(b"no picture")
    Image.new("L", (12, 20)).save(path / "g.png")
    return path


def test_planted_sizes_and_crops_arrive_exactly(folder):
    source = open_source(folder, 8)
    sizes = [*PLANTED.values(), (30, 50), (20, 12)]
    assert source.sizes.tolist() == [list(size) for size in sizes]
    assert source.summary()["largest"] == [900, 700]
    made = slots(source, range(6))
    assert torch.equal(made["size"].value, torch.tensor([[math.log2(h), math.log2(w)] for h, w in sizes]))
    # squares from the middle: the odd pixel is left over at the right or the bottom
    crops = [(0, 0), (5, 0), (0, 23), (100, 0), (0, 10), (4, 0)]
    wanted = torch.tensor([[top / h, left / w] for (top, left), (h, w) in zip(crops, sizes, strict=True)])
    assert torch.equal(made["crop"].value, wanted)
    assert made["size"].mask.all() and made["crop"].mask.all()
    part = source.take(torch.tensor([4, 1]))
    assert part.sizes.tolist() == [[30, 50], [40, 30]]


def test_crops_are_those_of_each_shape(folder):
    source = open_source(folder, 8, buckets=Buckets(fixed=((8, 8), (4, 16))))
    crop = slots(source, range(6))["crop"].value
    row = source.keys.index("c.png")  # 17 x 64 in 4 x 16: 64 * 4 / 16 = 16 rows of the 17
    assert source.shapes[source.bucket[row]] == (4, 16) and torch.equal(crop[row], torch.tensor([0.0, 0.0]))
    assert torch.equal(crop[1], torch.tensor([5 / 40, 0.0]))


def test_the_network_sees_them_where_it_is_asked_to(folder):
    source = open_source(folder, 8)
    assert "size" not in {spec.name for spec in Recipe(net=tiny_recipe(small_source()).net).fit_to(source).net.slots}
    recipe = tiny_recipe(source, conditions=("size", "crop"))
    assert [(s.name, s.role, s.size, s.ids) for s in recipe.net.slots] == [
        ("size", "vector", 2, False),
        ("crop", "vector", 2, False),
    ]
    rows = torch.tensor([3, 0])
    seen = recipe.look(source, rows).cond
    assert torch.equal(seen["size"].value, size_slot([(900, 700), (8, 8)]).value)
    assert torch.equal(seen["crop"].value, crop_slot([(100 / 900, 0), (0, 0)]).value)


def test_what_is_not_known_is_not_told():
    assert size_slot([None, (4, 4)]).mask.tolist() == [False, True]
    with pytest.raises(SfumatoError, match="need picture files"):
        tiny_recipe(small_source(), conditions=("size",))
    with pytest.raises(SfumatoError, match="two numbers of pixels"):
        size_slot([(0, 4)])


def test_a_model_draws_sharp_or_blurred_pictures_as_it_is_told(tmp_path):
    """Half of the pictures are noise of 2 x 2 enlarged to 8 x 8, which is smooth, half are noise of 8 x 8."""
    rng = np.random.default_rng(0)
    (tmp_path / "pictures").mkdir()
    for k in range(64):
        side = 2 if k % 2 else 8
        pixels = (rng.random((side, side)) < 0.5).astype(np.uint8) * 255
        Image.fromarray(pixels).save(tmp_path / "pictures" / f"{k}.png")
    source = open_source(tmp_path / "pictures", 8)

    def rough(x0):
        return (x0[..., 1:] - x0[..., :-1]).abs().mean().item()

    sharp = source.sizes[:, 0] == 8
    real = [rough(source.batch(rows.nonzero()[:, 0]).x0) for rows in (sharp, ~sharp)]
    trainer = tiny_trainer(400, source=source, conditions=("size",), optimiser=Optimiser(rate=5e-3, warmup=10))
    run = Run(tmp_path / "run")
    run.begin(trainer.recipe, source, Budget(steps=400), FLOAT32)
    for _ in fit(run, Trainer(trainer.denoiser, trainer.recipe, source, Budget(steps=400), FLOAT32), reports=1):
        pass
    model = load(run.path)
    large, small = (rough(model.generate(n=16, steps=8, original=side).x0) for side in ((8, 8), (2, 2)))
    told = ["sample", str(run.path), "--n", "1", "--steps", "8", "--original", "2x2", "--out", str(tmp_path / "small")]
    assert main(told) == 0
    (drawn,) = (tmp_path / "small").iterdir()
    assert np.array_equal(np.asarray(Image.open(drawn)), model.generate(n=1, steps=8, original=(2, 2)).images[0])
    usual = rough(model.generate(n=16, steps=8).x0)
    assert usual == large  # the largest that it learned from
    assert large - small > 0.25 * (real[0] - real[1]) > 0


def test_only_a_model_that_was_told_sizes_can_be_asked_for_one(tmp_path):
    trainer = tiny_trainer(1)
    run = Run(tmp_path / "run")
    run.begin(trainer.recipe, trainer.source, trainer.budget, trainer.setting)
    for _ in fit(run, trainer):
        pass
    with pytest.raises(SfumatoError, match="without the condition size"):
        conditions(load(run.path), Request(n=1, original=(8, 8)))
    assert main(["sample", str(run.path), "--original", "8x8", "--out", str(tmp_path / "x.png")]) == 2
    assert main(["sample", str(run.path), "--original", "large", "--out", str(tmp_path / "x.png")]) == 2
