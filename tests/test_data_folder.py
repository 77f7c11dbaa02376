"""Folders of pictures: the crop rule and colour modes against Pillow, classes, metadata, the split."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

import sfumato.data as data
from sfumato.data.load import default_size


def noise_picture(width: int, height: int, seed: int = 0, mode: str = "RGB") -> Image.Image:
    """Smooth random colours: sharp enough to tell a wrong crop, smooth enough for JPEG."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (5, 7, 3), dtype=np.uint8))
    return small.resize((width, height), Image.Resampling.BICUBIC).convert(mode)


def save(picture: Image.Image, path: Path, **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path, **options)
    return path


def only(folder: Path, size: int, channels: int | None = 3) -> np.ndarray:
    source = data.open(folder, size=size, channels=channels)
    assert len(source) == 1, source.summary()
    return source.images(torch.tensor([0]))[0]


@pytest.mark.parametrize(
    "width,height,box,size",
    [
        (60, 40, (10, 0, 50, 40), 16),
        (40, 60, (0, 10, 40, 50), 16),
        (33, 33, (0, 0, 33, 33), 32),
        (20, 12, (4, 0, 16, 12), 32),
        (500, 300, (100, 0, 400, 300), 16),
    ],
)
def test_crop_rule(tmp_path: Path, width: int, height: int, box: tuple[int, ...], size: int) -> None:
    """The crop written out by hand and one full Lanczos pass of Pillow; the box reduction before may round."""
    picture = noise_picture(width, height)
    save(picture, tmp_path / "a.png")
    want = np.asarray(picture.crop(box).resize((size, size), Image.Resampling.LANCZOS)).astype(int)
    assert np.abs(only(tmp_path, size) - want).max() <= 2


def test_a_picture_of_the_right_size_is_untouched(tmp_path: Path) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    save(Image.fromarray(pixels), tmp_path / "a.png")
    assert (only(tmp_path, 16) == pixels).all()


def test_odd_margins_leave_the_pixel_at_the_far_side(tmp_path: Path) -> None:
    pixels = np.random.default_rng(2).integers(0, 256, (8, 11, 3), dtype=np.uint8)
    save(Image.fromarray(pixels), tmp_path / "a.png")
    assert (only(tmp_path, 8) == pixels[:, 1:9]).all()


def test_large_jpegs_decoded_at_reduced_scale_stay_close_to_the_full_decode(tmp_path: Path) -> None:
    path = save(noise_picture(1600, 1200), tmp_path / "a.jpg", quality=95)
    with Image.open(path) as full:
        want = np.asarray(ImageOps.fit(full.convert("RGB"), (32, 32), Image.Resampling.LANCZOS)).astype(int)
    assert np.abs(only(tmp_path, 32) - want).max() <= 4


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(tmp_path: Path, orientation: int) -> None:
    picture = noise_picture(24, 24)
    exif = Image.Exif()
    exif[0x0112] = orientation
    save(picture, tmp_path / "a.png", exif=exif)
    pixels = np.asarray(picture)
    upright = {  # the EXIF specification: where row 0 and column 0 of the stored picture lie
        1: pixels,
        2: pixels[:, ::-1],
        3: pixels[::-1, ::-1],
        4: pixels[::-1],
        5: pixels.transpose(1, 0, 2),
        6: np.rot90(pixels, -1),
        7: pixels[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(pixels, 1),
    }[orientation]
    assert (only(tmp_path, 24) == upright).all()


def test_sixteen_bits_scale_right(tmp_path: Path) -> None:
    values = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)
    for name in ("a.png", "a.tiff", "a.pgm"):
        folder = tmp_path / name
        save(Image.fromarray(values), folder / name)
        got = only(folder, 8, channels=None)
        assert got.shape == (8, 8, 1), name
        assert np.abs(got[..., 0] - values / 257.0).max() <= 0.5 + 1e-9, name


def test_transparency_lies_on_white(tmp_path: Path) -> None:
    rgba = np.zeros((8, 8, 4), np.uint8)
    rgba[..., 0], rgba[:4, :, 3], rgba[4:, :, 3] = 200, 255, 51  # alpha 1 above, 0.2 below
    save(Image.fromarray(rgba), tmp_path / "rgba" / "a.png")
    got = only(tmp_path / "rgba", 8).astype(int)
    assert (got[:4] == (200, 0, 0)).all()
    assert np.abs(got[4:] - (0.2 * np.array([200, 0, 0]) + 0.8 * 255)).max() <= 1
    palette = Image.fromarray(np.repeat([[0, 1]], 8, 0).repeat(4, 1).astype(np.uint8))
    palette.putpalette([10, 20, 30, 40, 50, 60])
    save(palette, tmp_path / "palette" / "a.png", transparency=1)
    got = only(tmp_path / "palette", 8)
    assert (got[:, :4] == (10, 20, 30)).all() and (got[:, 4:] == 255).all()


def test_colour_modes(tmp_path: Path) -> None:
    cmyk = Image.fromarray(np.tile(np.array([0, 255, 255, 0], np.uint8), (8, 8, 1)), "CMYK")  # magenta + yellow = red
    save(cmyk, tmp_path / "cmyk" / "a.tiff")
    assert (only(tmp_path / "cmyk", 8) == (255, 0, 0)).all()
    save(noise_picture(8, 8, mode="1"), tmp_path / "bits" / "a.png")
    assert set(np.unique(only(tmp_path / "bits", 8))) == {0, 255}
    frames = [Image.new("RGB", (8, 8), c) for c in ("red", "blue")]
    save(frames[0], tmp_path / "gif" / "a.gif", save_all=True, append_images=frames[1:], duration=50)
    assert (only(tmp_path / "gif", 8) == (255, 0, 0)).all()


def test_grey_sets_have_one_channel_and_mixed_sets_three(tmp_path: Path) -> None:
    grey = noise_picture(16, 16, mode="L")
    save(grey, tmp_path / "a.png")
    save(grey.convert("RGB"), tmp_path / "b.png")  # grey stored as colour is still grey
    assert data.open(tmp_path).codec.spec == (1, 16, 16)
    assert data.open(tmp_path, channels=3).codec.spec == (3, 16, 16)
    colour = noise_picture(16, 16)
    save(colour, tmp_path / "c.png")
    mixed = data.open(tmp_path)
    assert mixed.codec.spec == (3, 16, 16)
    assert (mixed.images(torch.tensor([0]))[0] == np.asarray(grey)[..., None]).all()
    luma = data.open(tmp_path, channels=1).images(torch.tensor([2]))[0, ..., 0]
    assert (luma == np.asarray(colour.convert("L"))).all()


def test_default_size_follows_the_median_shorter_side(tmp_path: Path) -> None:
    for sides, size in (([28], 32), ([1], 8), ([4000, 3000], 64), ([8, 8, 500], 8), ([40], 32), ([48], 64)):
        assert default_size(sides) == size
    for k, (width, height) in enumerate([(100, 30), (34, 90), (31, 31)]):
        save(noise_picture(width, height, k), tmp_path / f"{k}.png")
    assert data.open(tmp_path).codec.spec == (3, 32, 32)


def test_classes_from_subfolders(tmp_path: Path) -> None:
    for name in ("10/a.png", "9/b.png", "9/deep.jpg", "loose.png", ".hidden/x.png", "9/.thumb.png", "9/notes.txt"):
        path = tmp_path / name
        if path.suffix == ".txt":
            path.write_text("not counted")
        else:
            save(noise_picture(12, 12), path)
    source = data.open(tmp_path, size=8)
    assert source.keys == ("10/a.png", "9/b.png", "9/deep.jpg", "loose.png")
    assert source.classes == ("9", "10")
    assert source.labels.tolist() == [1, 0, 0, -1]
    slot = source.batch(torch.arange(4)).cond["class"]
    assert slot.role == "vector" and slot.mask.tolist() == [True, True, True, False]
    assert slot.value.tolist() == [1, 0, 0, 0] and slot.value.dtype == torch.int64
    assert source.summary()["unlabelled"] == 1
    one = data.open(tmp_path / "9", size=8)
    assert one.classes == () and one.labels is None and "class" not in one.batch(torch.arange(2)).cond


@pytest.mark.parametrize("kind", ["jsonl", "csv"])
def test_metadata(tmp_path: Path, kind: str) -> None:
    for k in range(3):
        save(noise_picture(12, 12, k), tmp_path / "set" / f"{k}.png")
    if kind == "jsonl":
        rows = [
            {"file_name": "2.png", "text": "a red, cat", "label": "cat", "stars": 4},
            {"file_name": "0.png", "text": "dog"},
        ]
        text = "\ufeff" + "\n\n".join(json.dumps(r) for r in rows) + "\n"
    else:
        text = 'file_name,text,label,stars\r\n2.png,"a red, cat",cat,4\r\n0.png,dog,,\r\n'
    (tmp_path / "set" / f"metadata.{kind}").write_text(text, encoding="utf-8")
    source = data.open(tmp_path, size=8)  # names are relative to the metadata file, which may lie deeper
    assert source.captioned and source.captions == ["dog", "", "a red, cat"]
    assert [str(v) for v in source.columns["stars"]] == ["None", "None", "4"]
    assert source.classes == ()  # one label only
    summary = source.summary()
    assert summary["pictures_without_row"] == 1 and summary["text"]["missing"] == 1
    slot = source.batch(torch.tensor([2, 1])).cond["text"]
    assert slot.role == "tokens" and slot.value.shape[:2] == (2, 4) == slot.mask.shape
    assert slot.mask.tolist() == [[True] * 4, [False] * 4]
    json.dumps(summary)


def test_a_label_column_names_the_classes(tmp_path: Path) -> None:
    for k in range(3):
        save(noise_picture(12, 12, k), tmp_path / f"{k}.png")
    rows = [{"file_name": f"{k}.png", "label": v} for k, v in enumerate([7, 10, None])]
    (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    source = data.open(tmp_path)
    assert source.classes == ("7", "10") and source.labels.tolist() == [0, 1, -1] and not source.captioned


def test_the_order_of_pictures_is_that_of_their_names(tmp_path: Path) -> None:
    for k in (3, 1, 2):
        save(Image.new("L", (8, 8), 10 * k), tmp_path / f"{k}.png")
    source = data.open(tmp_path)
    assert source.images(torch.arange(3))[:, 0, 0, 0].tolist() == [10, 20, 30]
    batch = source.batch(torch.tensor([2, 0]))
    assert batch.index.tolist() == [2, 0] and batch.x0.dtype == torch.float32
    assert torch.allclose(batch.x0[:, 0, 0, 0], torch.tensor([30, 10]) / 127.5 - 1)


def test_pictures_through_links_count_once(tmp_path: Path) -> None:
    save(noise_picture(8, 8), tmp_path / "real" / "a.png")
    (tmp_path / "real" / "loop").symlink_to(tmp_path / "real")
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "linked").symlink_to(tmp_path / "real")
    assert data.open(tmp_path / "set").keys == ("linked/a.png",)
