"""A spoilt set and what is asked of it, for the tests of cleaning."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from sfumato.data.audit.finding import Finding
from sfumato.data.clean import clean, plan_path

FINDINGS = (
    Finding("corrupt", ("b/broken.png",), "truncated", "error", "quarantine"),
    Finding("exact_duplicate", ("a/1.png", "a/2.png", "b/copy.png"), "the same pixels", "error", "quarantine-others"),
    Finding("alpha", ("a/clear.png", "b/moving.gif"), "see-through", "warning", "convert"),
    Finding("mixed_modes", ("b/sixteen.png", "a/turned.jpg"), "other modes", "warning", "convert"),
    Finding("caption_without_picture", ("nowhere.png",), "not there", "warning", "drop-rows"),
    Finding("outlier", ("a/3.png",), "far away", "warning", "review"),
    Finding("class_imbalance", (), "4 to 1", "warning", "balance"),
)


def pixels(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (12, 16, 3), dtype=np.uint8)


def make_pets(root: Path) -> Path:
    """Pictures with faults of every kind that cleaning mends, and a metadata.csv."""
    for folder in ("a", "b"):
        (root / folder).mkdir(parents=True)
    for k in (1, 3, 4):
        Image.fromarray(pixels(k)).save(root / "a" / f"{k}.png")
    shutil.copy(root / "a/1.png", root / "a/2.png")
    Image.fromarray(pixels(1)).save(root / "b/copy.png", compress_level=0)
    (root / "b/broken.png").write_bytes((root / "a/1.png").read_bytes()[:100])
    clear = np.dstack([pixels(5), np.tile(np.array([0, 255], np.uint8), (12, 8))])
    Image.fromarray(clear).save(root / "a/clear.png")
    Image.fromarray(pixels(6)).quantize(64).save(root / "b/moving.gif", transparency=0)
    Image.fromarray((np.arange(192).reshape(12, 16) * 340).astype(np.uint16)).save(root / "b/sixteen.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    smooth = Image.fromarray(pixels(7)).resize((64, 48), Image.Resampling.BICUBIC)
    smooth.save(root / "a/turned.jpg", quality=95, exif=exif)
    (root / "metadata.csv").write_bytes(
        b'file_name,text,weight\r\na/1.png,"one, or\r\ntwo",1\r\na/2.png,a copy,2\r\n./b/moving.gif,moves,3\r\n'
        b"nowhere.png,gone,4\r\nb/broken.png,torn,5\r\n"
    )
    return root


def hashes(root: Path) -> dict[str, str]:
    """Every file below root that is not of the cleaning itself."""
    found = {p.relative_to(root).as_posix(): p for p in root.rglob("*") if p.is_file()}
    return {
        n: hashlib.sha256(p.read_bytes()).hexdigest()
        for n, p in found.items()
        if not n.startswith(".") and n != "manifest.json"
    }


def run(source: Path, out: Path, only: tuple[str, ...] = ()) -> dict:
    return clean(str(source), out, only, lambda: FINDINGS)


def edit(out: Path, change: Callable[[dict], object]) -> None:
    told = json.loads(plan_path(out).read_text())
    change(told)
    plan_path(out).write_text(json.dumps(told))


def array(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        assert picture.mode == "RGB"
        return np.asarray(picture)


def whole(out: Path) -> None:
    told = json.loads((out / "manifest.json").read_text())
    for where, names in (("", told["files"]), (".quarantine", told["quarantine"])):
        for name, given in names.items():
            assert hashlib.blake2b((out / where / name).read_bytes(), digest_size=32).hexdigest() == given
