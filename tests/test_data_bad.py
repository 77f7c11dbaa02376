"""Bad input: each case ends in one clear line, either as an error or as a recorded reason."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import sfumato.data as data
from sfumato.core import SfumatoError
from sfumato.data import picture, source
from sfumato.data.builtin import read_idx


def noise_picture(width: int, height: int, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def save(image: Image.Image, path: Path, **options: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)


def fails(given: object, *needles: str, **options: object) -> None:
    with pytest.raises(SfumatoError) as caught:
        data.open(given, **options)
    line = str(caught.value)
    assert "\n" not in line and len(line) < 400, line
    for needle in needles:
        assert needle in line, line


def reasons(folder: Path, size: int = 8) -> dict[str, str]:
    """Reasons by name; a good picture beside the bad ones must survive."""
    save(noise_picture(12, 12), folder / "zz-good.png")
    loaded = data.open(folder, size=size)
    assert "zz-good.png" in loaded.keys
    summary = loaded.summary()
    json.dumps(summary)
    return {s["file"]: s["reason"] for s in summary["skipped"]}


def truncate(path: Path, part: float) -> None:
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * part)])


def test_sources_that_are_not_there(tmp_path: Path) -> None:
    fails(tmp_path / "nowhere", "no folder", "nowhere", "digits, emoji, emoji-people, fashion-mnist")
    fails("fasion-mnist", "did you mean 'fashion-mnist'?")
    fails("Emoji", "did you mean 'emoji'?")
    fails("", "a source is a folder or one of")
    file = tmp_path / "set.zip"
    file.write_bytes(b"PK")
    fails(file, "is a file", "unpack")
    fails(f"fashion-mnist:{tmp_path}", "train-images-idx3-ubyte", "apt-get install dataset-fashion-mnist")
    fails(f"fashion-mnist/test:{tmp_path}", "t10k-images-idx3-ubyte")


def test_empty_folder(tmp_path: Path) -> None:
    fails(tmp_path, "no pictures in", "put .png")
    (tmp_path / "readme.md").write_text("hello")
    fails(tmp_path, "no pictures in")


@pytest.mark.parametrize("size", [0, -4, 3.5, "32", True, 10**6])
def test_sizes_that_are_none(tmp_path: Path, size: object) -> None:
    save(noise_picture(12, 12), tmp_path / "a.png")
    fails(tmp_path, "size must be a whole number of pixels", repr(size), size=size)
    fails("digits", "size must be a whole number", size=size)


def test_channels_that_are_none(tmp_path: Path) -> None:
    for channels in (0, 2, 4, True, "rgb"):
        fails("digits", "channels must be 1", channels=channels)


def test_files_that_are_no_pictures(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("I am a text file")
    (tmp_path / "empty.jpg").write_bytes(b"")
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "dangling.png").symlink_to(tmp_path / "gone.png")
    save(noise_picture(64, 64), tmp_path / "cut.jpg")
    truncate(tmp_path / "cut.jpg", 0.5)
    save(noise_picture(64, 64), tmp_path / "cut.png")
    truncate(tmp_path / "cut.png", 0.6)
    save(Image.fromarray(np.ones((8, 8), np.float32)), tmp_path / "float.tiff")
    save(Image.fromarray(np.full((8, 8), 70_000, np.int32)), tmp_path / "deep.tiff")
    (tmp_path / "device.png").symlink_to("/dev/null")
    found = reasons(tmp_path)
    expected = {
        "text.png": "not a picture that Pillow can read",
        "empty.jpg": "empty file (0 bytes)",
        "folder.png": "a folder, not a picture",
        "dangling.png": "a link to a file that is not there",
        "cut.jpg": "cannot be decoded",
        "cut.png": "cannot be decoded",
        "float.tiff": "floating-point values",
        "deep.tiff": "32-bit values",
        "device.png": "not a regular file",
    }
    assert found.keys() == expected.keys()
    for name, reason in expected.items():
        assert found[name].startswith(reason), (name, found[name])


def test_pictures_after_a_skipped_one_keep_their_names(tmp_path: Path) -> None:
    for k in (0, 2, 3, 5):
        save(Image.new("RGB", (8, 8), (10 * k, 0, 0)), tmp_path / f"{k}.png")
    for k in (1, 4):  # the header is whole, the data is not
        save(noise_picture(64, 64), tmp_path / f"{k}.png")
        truncate(tmp_path / f"{k}.png", 0.6)
    loaded = data.open(tmp_path, size=8)
    assert loaded.keys == ("0.png", "2.png", "3.png", "5.png")
    assert loaded.pixels[:, 4, 4, 0].tolist() == [0, 20, 30, 50]


def test_pipes_do_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    assert reasons(tmp_path)["pipe.png"] == "not a regular file"


def test_unreadable_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root may read everything, so the refusal of the system is planted."""
    save(noise_picture(12, 12), tmp_path / "secret.png")
    really_open = Image.open

    def refuse(path: Path, *rest: object) -> Image.Image:
        if path.name == "secret.png":
            raise PermissionError(13, "Permission denied")
        return really_open(path, *rest)

    monkeypatch.setattr(picture.Image, "open", refuse)
    assert reasons(tmp_path) == {"secret.png": "no permission to read it"}


def test_everything_unreadable(tmp_path: Path) -> None:
    for k in range(3):
        (tmp_path / f"{k}.png").write_text("no")
    fails(tmp_path, "none of the 3 pictures", "0.png: not a picture")


def test_one_pixel_and_panoramas(tmp_path: Path) -> None:
    save(Image.new("RGB", (1, 1), "red"), tmp_path / "dot.png")
    save(Image.new("RGB", (20_000, 10), "red"), tmp_path / "wide.png")
    save(Image.new("RGB", (10, 20_000), "red"), tmp_path / "tall.jpg", quality=95)
    loaded = data.open(tmp_path)
    assert len(loaded) == 3 and loaded.codec.spec == (3, 8, 8)
    assert np.abs(loaded.pixels.astype(int) - (255, 0, 0)).max() <= 2


def test_decompression_bombs_become_a_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(Image.new("L", (3_000, 1_000)), tmp_path / "bomb.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1_000_000)
    assert reasons(tmp_path) == {"bomb.png": "more than 2 million pixels; make it smaller first"}


def test_more_than_memory_should_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for k in range(4):
        save(noise_picture(12, 12, k), tmp_path / f"{k}.png")
    monkeypatch.setattr(source, "LIMIT_BYTES", 4 * 3 * 20**2)
    monkeypatch.setenv("SFUMATO_CACHE", str(tmp_path / "cache"))
    assert data.open(tmp_path, size=20).summary()["in_memory"]
    assert not data.open(tmp_path, size=21).summary()["in_memory"]
    monkeypatch.setattr(source, "LIMIT_BYTES", 1797 * 8**2)
    fails("digits", "1797 pictures at 9x9", "a size of at most 8", size=9)  # a named source has no files to read again


def test_splits_in_one_folder(tmp_path: Path) -> None:
    for name in ("train/a.png", "test/b.png"):
        save(noise_picture(12, 12), tmp_path / name)
    fails(tmp_path, "holds the splits test, train", "train")
    assert len(data.open(tmp_path / "train")) == 1


def jsonl(folder: Path, *lines: str) -> Path:
    for k in range(2):
        save(noise_picture(12, 12, k), folder / f"{k}.png")
    (folder / "metadata.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    "lines,needles",
    [
        (['{"file_name": "0.png"}', '{"file_name": "1.png",'], ["metadata.jsonl line 2", "not valid JSON"]),
        (["", "[1, 2]"], ["line 2", "not a JSON object"]),
        (['{"text": "a cat"}'], ["line 1", "no file_name"]),
        (['{"file_name": NaN, "text": "a cat"}'], ["line 1", "no file_name"]),
        (['{"file_name": 3}'], ["line 1", "no file_name"]),
        (['{"file_name": "0.png", "text": 5}'], ["line 1", "text is 5"]),
        (
            ['{"file_name": "0.png", "text": "a"}', '{"file_name": "./0.png", "text": "b"}'],
            ["line 2", "again", "line 1"],
        ),
        (['{"file_name": "gone.png", "text": "a"}'], ["no row names a usable picture", "gone.png"]),
        (['{"file_name": "../0.png", "text": "a"}'], ["no row names a usable picture"]),
        (["[" * 100_000], ["line 1", "not valid JSON"]),
    ],
)
def test_bad_rows(tmp_path: Path, lines: list[str], needles: list[str]) -> None:
    fails(jsonl(tmp_path, *lines), *needles)


def test_rows_that_can_be_lived_with(tmp_path: Path) -> None:
    """Captions for missing files, missing captions, NaN, identical duplicates: counted, not fatal."""
    loaded = data.open(
        jsonl(
            tmp_path,
            '{"file_name": "0.png", "text": NaN, "score": NaN}',
            '{"file_name": "1.png", "text": "a cat", "score": 0.5}',
            '{"file_name": "1.png", "text": "a cat", "score": 0.5}',
            '{"file_name": "gone.png", "text": "a ghost", "score": null}',
        )
    )
    assert loaded.captions == ["", "a cat"] and loaded.columns == {"score": [None, 0.5]}
    summary = loaded.summary()
    assert summary["rows_without_picture"] == {"count": 1, "first": ["gone.png"]}
    assert summary["duplicate_rows"] == 1 and summary["missing_values"] == {"text": 1, "score": 1}
    assert "NaN" not in json.dumps(summary)


@pytest.mark.parametrize(
    "content,needles",
    [
        (b"name,text\n0.png,cat\n", ["metadata.csv line 1", "no column file_name", "name, text"]),
        (b"", ["line 1", "no column file_name"]),
        (b"file_name,text\n0.png,a cat, red\n", ["line 2", "more cells than the header", "quotes"]),
        (b"file_name,text\n,a cat\n", ["line 2", "no file_name"]),
        (b"file_name,text\n0.png,caf\xe9\n", ["line 2", "not UTF-8"]),
    ],
)
def test_bad_csv(tmp_path: Path, content: bytes, needles: list[str]) -> None:
    save(noise_picture(12, 12), tmp_path / "0.png")
    (tmp_path / "metadata.csv").write_bytes(content)
    fails(tmp_path, *needles)


def test_two_metadata_files(tmp_path: Path) -> None:
    jsonl(tmp_path, '{"file_name": "0.png"}')
    (tmp_path / "metadata.csv").write_text("file_name\n0.png\n")
    fails(tmp_path, "both metadata.jsonl and metadata.csv")


@pytest.mark.parametrize(
    "name,content,needle",
    [
        ("a", b"\0\0\x08\x03" + b"\0\0\0\x02\0\0\0\x01\0\0\0\x01" + b"x", "promises 2 bytes of data and holds 1"),
        ("a", b"\0\0\x0d\x03" + bytes(12), "not an idx file of bytes with 3 dimensions"),
        ("a", b"\0\0", "not an idx file"),
        ("a", b"\0\0\x08\x03" + b"\xff" * 12, "promises"),
        ("a.gz", b"not gzip at all", "cannot be read"),
        ("a.gz", b"\x1f\x8b\x08\0\0\0\0\0\0\xff" + b"\xff" * 20, "cannot be read"),
        ("a.gz", b"\x1f\x8b\x08\0\0", "cannot be read"),
    ],
)
def test_corrupt_idx(tmp_path: Path, name: str, content: bytes, needle: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SfumatoError, match=needle) as caught:
        read_idx(tmp_path / name, 3)
    assert "\n" not in str(caught.value)
