"""Masks, class maps and sketches of a user's own: read from folders, columns and shards, and never off their picture."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from mapped import AREAS, DRAWN, PALETTE, RULES, SHOWN, classes_of, follows, make, planted, save
from PIL import Image
from training import TINY

from sfumato import data
from sfumato.core import Noise, SfumatoError
from sfumato.data import Augment
from sfumato.data import source as sources
from sfumato.data.pack import pack
from sfumato.data.records import open_records
from sfumato.train import Recipe

torch.set_num_threads(1)


# where they are found


@pytest.mark.parametrize(
    ("names", "own"),
    [
        ("{}.png", "{}.png"),
        ("images/{}.png", "{}.png"),
        ("images/{}.png", "images/{}.png"),
        ("a/b/{}.jpg", "{}.gif"),
    ],
)
def test_folders_of_the_same_names_belong_to_the_pictures(tmp_path, names, own) -> None:
    source = data.open(make(tmp_path, names=names, own=own))
    assert len(source) == 12 and not source.classes and sorted(source.own) == ["classes", "known", "sketch"]
    found, here = classes_of(source)
    order = [int(Path(key).stem) for key in source.keys]
    assert here.all() and torch.equal(found, torch.from_numpy(np.stack([planted(k) for k in order])))


def test_pictures_in_class_folders_have_maps_in_the_same(tmp_path) -> None:
    for kind in ("cat", "dog"):
        for k in range(3):
            save(tmp_path, f"{kind}/{k}.png", SHOWN[planted(k)])
            save(tmp_path, f"maps/{kind}/{k}.png", DRAWN[planted(k + 5 * (kind == "dog"))])
    source = data.open(tmp_path)
    assert source.classes == ("cat", "dog") and len(source) == 6
    found = classes_of(source)[0]
    assert torch.equal(found, torch.from_numpy(np.stack([planted(k) for k in (0, 1, 2, 5, 6, 7)])))


def test_a_class_that_is_called_maps_stays_a_class(tmp_path) -> None:
    for kind in ("maps", "photos", "sketches"):
        for k in range(3):
            save(tmp_path, f"{kind}/{kind}-{k}.png", SHOWN[planted(k)])
    source = data.open(tmp_path)
    assert source.classes == ("maps", "photos", "sketches") and len(source) == 9 and not source.own


def test_columns_name_the_files_too_and_those_are_no_pictures(tmp_path) -> None:
    rows = []
    for k in range(6):
        save(tmp_path, f"in/{k}.png", SHOWN[planted(k)])
        rows.append({"file_name": f"{k}.png"})
        if k != 4:
            save(tmp_path, f"in/labels/of-{k}.png", DRAWN[planted(k)])
            rows[-1]["map"] = f"labels/of-{k}.png"
    (tmp_path / "in" / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    for source in (data.open(tmp_path), data.open(tmp_path / "in"), data.open(tmp_path / "in" / "metadata.jsonl")):
        found, here = classes_of(source)
        assert len(source) == 6 and here.tolist() == [k != 4 for k in range(6)]
        assert torch.equal(found[5], torch.from_numpy(planted(5))) and (found[4] == -1).all()
    (tmp_path / "in" / "labels" / "of-3.png").unlink()
    with pytest.raises(SfumatoError, match=r"of-3.png: there is no such file"):
        classes_of(data.open(tmp_path))


def test_shards_a_small_memory_and_the_folder_give_the_same_to_the_bit(tmp_path, monkeypatch) -> None:
    folder = make(tmp_path / "set", sizes=((16, 16), (23, 17), (18, 40)))
    (folder / "maps" / "3.png").unlink()
    (folder / "maps" / "palette.json").write_text(json.dumps(PALETTE))
    plain = data.open(folder, 8)
    pack(open_records(folder), tmp_path / "packed", 20_000)
    packed = data.open(tmp_path / "packed", 8)
    assert packed.own["classes"].palette() == plain.own["classes"].palette() == AREAS
    monkeypatch.setattr(sources, "LIMIT_BYTES", 1)
    lazy = data.open(folder, 8)
    assert not lazy.own["known"].in_memory and plain.own["known"].in_memory
    rows = torch.tensor([plain.keys.index(f"{k}.png") for k in (3, 0, 9, 9, 6)])  # of one shape
    for control in RULES.names:
        want, here = plain.own[control].at(rows, AREAS)
        assert want.any() and here.tolist() == [control != "classes"] + [True] * 4
        for other in (packed, lazy, plain.take(rows)):
            index = torch.arange(5) if len(other) == 5 else rows
            got = other.own[control].at(index, AREAS)
            assert torch.equal(got[0], want) and torch.equal(got[1], here)


# the way of the picture


def test_maps_are_cropped_and_made_small_as_their_pictures_are(tmp_path) -> None:
    source = data.open(make(tmp_path, sizes=((96, 64), (64, 96), (65, 97), (64, 64))), 32)
    x0, (found, _) = source.batch(torch.arange(12)).x0, classes_of(source)
    assert follows(x0, found) > 0.995 and found.shape == (12, 32, 32)
    assert follows(x0, found.roll(2, 2)) < 0.97 and follows(x0, found.flip(2)) < 0.9, "the check can fail"
    assert follows(x0.roll(1, 0), found) < 0.9


def test_maps_lie_in_the_bucket_of_their_picture(tmp_path) -> None:
    source = data.open(make(tmp_path, sizes=((96, 48), (48, 96), (64, 64))), 32, buckets=3)
    assert len(source.shapes) == 3
    for rows in source.alike(torch.arange(12), 4):
        found = classes_of(source, rows)[0]
        x0 = source.batch(rows).x0
        assert found.shape[1:] == x0.shape[2:] and follows(x0, found) > 0.995


def test_maps_of_photographs_on_their_side_are_upright(tmp_path) -> None:
    classes = planted(1, 48, 32)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise
    save(tmp_path, "a.jpg", np.rot90(SHOWN[classes]).copy(), exif=exif, quality=95, subsampling=0)
    save(tmp_path, "maps/a.png", DRAWN[classes])
    source = data.open(tmp_path, 16)
    assert follows(source.batch(torch.arange(1)).x0, classes_of(source)[0]) > 0.99


CHANGES = {
    "nothing": None,
    "mirrored": Augment(flip=1.0, p=0.0),
    "shifted": Augment(flip=0.0, p=1.0, scale=0.0, rotate=0.0, shift=0.4),
    "scaled": Augment(flip=0.0, p=1.0, shift=0.0, rotate=0.0, scale=0.5),
    "turned": Augment(flip=0.0, p=1.0, shift=0.0, scale=0.0),
    "all": Augment(flip=0.5, p=1.0),
}


@pytest.mark.parametrize("augment", CHANGES.values(), ids=CHANGES)
def test_what_was_drawn_moves_with_the_augmented_picture(tmp_path, augment) -> None:
    make(tmp_path, sizes=((32, 32), (48, 32)))
    (tmp_path / "maps" / "palette.json").write_text(json.dumps(PALETTE))
    source = data.open(tmp_path, 32)
    recipe = Recipe(net=TINY, controls=RULES, augment=augment).fit_to(source)
    batch = recipe.look(source, torch.arange(12), Noise.of(3, 12))
    classes = batch.cond["classes"].value
    found = classes.argmax(1)
    assert recipe.controls.palette == AREAS and torch.equal(classes.sum(1), torch.ones(12, 32, 32))
    assert follows(batch.x0, found) > 0.99
    known = batch.cond["known"].value
    assert torch.equal(known[:, 0], 1 - classes[:, 1]), "the mask is where class 1 is, and that is the hole"
    assert torch.equal(known[:, 1:], batch.x0 * known[:, :1])
    # a sketch keeps its lines when it is made small, so it may be a pixel wider than the class that it was drawn on
    lines = batch.cond["sketch"].value[:, 0] > 0
    grown = torch.nn.functional.max_pool2d(classes[:, 2:3], 5, 1, 2)[:, 0] > 0
    assert not (lines & ~grown).any() and (lines & (classes[:, 2] > 0)).sum() > 0.9 * classes[:, 2].sum() > 0
    if augment is not None:
        still = classes_of(source)[0]
        assert follows(batch.x0, still) < 0.97, "the check can fail"


# masks, maps and sketches that are not there


def test_what_is_missing_is_absent_or_derived(tmp_path) -> None:
    folder = make(tmp_path)
    for name in ("maps/0.png", "masks/1.png", "sketches/1.png"):
        (folder / name).unlink()
    save(folder, "masks/2.png", np.zeros((16, 16)))  # fills nothing
    source = data.open(folder)
    row = {int(Path(key).stem): k for k, key in enumerate(source.keys)}
    recipe = Recipe(net=TINY, controls=RULES).fit_to(source)
    seen = recipe.look(source, torch.arange(12), Noise.of(0, 12)).cond
    derived = Recipe(net=TINY, controls=dataclasses.replace(RULES, names=("known", "sketch", "classes"))).fit_to(
        dataclasses.replace(source, own={})
    )
    plain = derived.look(source := dataclasses.replace(source, own={}), torch.arange(12), Noise.of(0, 12)).cond
    absent = seen["classes"].present()
    assert not absent[row[0]] and absent.sum() == 11 and not seen["classes"].value[row[0]].any()
    for name, missing in (("known", (1, 2)), ("sketch", (1,))):
        same = (seen[name].value == plain[name].value).flatten(1).all(1)
        assert seen[name].present().all() and same.nonzero()[:, 0].tolist() == sorted(row[k] for k in missing)


def test_own_masks_stand_beside_random_holes_in_their_share(tmp_path) -> None:
    source = data.open(make(tmp_path, n=4))
    recipe = Recipe(net=TINY, controls=dataclasses.replace(RULES, names=("known",), masks=0.3)).fit_to(source)
    rows = torch.arange(400) % 4
    kept = recipe.look(source, rows, Noise.of(0, 400)).cond["known"].value[:, 0]
    own = source.own["known"].at(rows, ())[0][:, 0]
    share = (kept == 1 - own).flatten(1).all(1).float().mean()
    assert abs(float(share) - 0.3) < 5 * (0.3 * 0.7 / 400) ** 0.5


def test_a_mask_may_be_the_picture_with_the_hole_erased(tmp_path) -> None:
    source = data.open(make(tmp_path, n=2))
    want = source.own["known"].at(torch.arange(2), ())[0]
    for k in range(2):
        clear = np.dstack([SHOWN[planted(k)], 255 * (planted(k) != 1)])
        save(tmp_path, f"masks/{k}.png", clear)
    assert torch.equal(data.open(tmp_path).own["known"].at(torch.arange(2), ())[0], want)
