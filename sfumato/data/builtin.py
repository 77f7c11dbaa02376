"""Sources with a name: scikit-learn's digits and Fashion-MNIST's idx files."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from sfumato.core import SfumatoError
from sfumato.data.picture import fit
from sfumato.data.source import Source, check_fits

DEBIAN_FASHION = Path("/usr/share/datasets/fashion-mnist")
FASHION_CLASSES = (
    "t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot",
)  # fmt: skip


def resize_all(pixels: np.ndarray, size: int) -> np.ndarray:
    """Square uint8 [N, H, H, C] -> [N, size, size, C] by the crop rule's resize; itself when the size is right."""
    if pixels.shape[1] == size:
        return pixels
    n, channels = len(pixels), pixels.shape[3]
    check_fits(n, size, channels)
    out = np.empty((n, size, size, channels), np.uint8)
    for row, picture in zip(out, pixels, strict=True):
        image = Image.fromarray(picture[:, :, 0] if channels == 1 else picture)
        row[:] = np.asarray(fit(image, (size, size))).reshape(size, size, channels)
    return out


def digits(size: int | None) -> Source:
    """scikit-learn's 1,797 handwritten digits, 8x8 grey, white on black; needs scikit-learn."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise SfumatoError("the source 'digits' needs scikit-learn: pip install scikit-learn") from error
    data = load_digits()
    pixels = np.round(data.images * (255 / 16)).astype(np.uint8)[..., None]  # 17 levels, 0..16
    return Source(
        name="digits",
        pixels=resize_all(pixels, size or 8),
        keys=tuple(f"digits/{row:04d}" for row in range(len(pixels))),
        classes=tuple("0123456789"),
        labels=torch.from_numpy(data.target.astype(np.int64)),
        notes={
            "licence": "UCI optical recognition of handwritten digits, CC BY 4.0",
            "rule": "Lanczos resize from 8x8",
        },
    )


def fashion_mnist(name: str, where: str, size: int | None) -> Source:
    """Fashion-MNIST, 28x28 grey on black; laid in the middle of 32x32 black unless `size` is 28.

    `name` is "fashion-mnist" (60,000 to learn from) or "fashion-mnist/test" (10,000); `where` a folder with the idx
    files, plain or .gz ("" for Debian's). Raises SfumatoError when they are absent or corrupt.
    """
    root = Path(where).expanduser() if where else DEBIAN_FASHION
    prefix = "t10k" if name.endswith("/test") else "train"
    images = read_idx(_find(root, f"{prefix}-images-idx3-ubyte"), dimensions=3)
    labels = read_idx(_find(root, f"{prefix}-labels-idx1-ubyte"), dimensions=1)
    if len(images) != len(labels):
        raise SfumatoError(
            f"{root}: {len(images)} pictures but {len(labels)} labels; the idx files do not belong together"
        )
    if images.shape[1:] != (28, 28) or not len(images):
        raise SfumatoError(f"{root}: pictures of {images.shape[1]}x{images.shape[2]} pixels, Fashion-MNIST has 28x28")
    if labels.max() >= len(FASHION_CLASSES):
        raise SfumatoError(f"{root}: label {labels.max()}, Fashion-MNIST has 0 to 9")
    pixels = images[..., None]
    if size != 28:
        pixels = np.pad(pixels, ((0, 0), (2, 2), (2, 2), (0, 0)))
    return Source(
        name=name,
        pixels=resize_all(pixels, size or 32),
        keys=tuple(f"{prefix}/{row:05d}" for row in range(len(pixels))),
        classes=FASHION_CLASSES,
        labels=torch.from_numpy(labels.astype(np.int64)),
        notes={"licence": "MIT, Zalando SE", "rule": "28x28 padded with black to 32x32, then Lanczos if another size"},
    )


def _find(root: Path, stem: str) -> Path:
    for suffix in ("", ".gz"):
        path = root / (stem + suffix)
        if path.is_file():
            return path
    raise SfumatoError(
        f"Fashion-MNIST: no {stem}[.gz] in {root}; install it with `apt-get install dataset-fashion-mnist`, or give the"
        " folder that has the idx files: fashion-mnist:DIR"
    )


def read_idx(path: Path, dimensions: int) -> np.ndarray:
    """An idx file of bytes (magic 0, 0, 8, dimensions; big-endian sizes; data), plain or .gz -> uint8 array."""
    try:
        raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:  # gzip.BadGzipFile is an OSError
        raise SfumatoError(f"{path} cannot be read ({error}); fetch it again") from error
    if len(raw) < 4 + 4 * dimensions or raw[:4] != bytes((0, 0, 8, dimensions)):
        raise SfumatoError(f"{path} is not an idx file of bytes with {dimensions} dimensions; fetch it again")
    shape = tuple(int(v) for v in np.frombuffer(raw, ">u4", dimensions, offset=4))
    want, have = int(np.prod(shape, dtype=object)), len(raw) - 4 - 4 * dimensions
    if want != have:
        raise SfumatoError(f"{path} promises {want} bytes of data and holds {have}; fetch it again")
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * dimensions).reshape(shape)
