"""Colours by name: how much of a picture each of the eleven basic colour words covers."""

from __future__ import annotations

import numpy as np

# the eleven basic colour terms (Berlin & Kay 1969), each by a few typical values: a word covers light, dark and pale kinds
TYPICAL = {
    "black": "000000 1c1c1c 2b2f33 454545 433b4b 321b41".split(),
    "white": "ffffff f2f2f2 ecf3f7 efe6f2".split(),
    "grey": "808080 b3b3b3 5a5a5a d0d0d0 90a4ae 607d8b 455a64 b8c4cc 9b9b9b dcd8e6 d8e2e6 c4b8d4 305050".split(),
    "red": "ff0000 e53935 c62828 dc143c 8b0000 f8312f b71c1c".split(),
    "orange": "ff8c00 f57c00 ff6f1a ff7f50 ff9b3d e65100".split(),
    "yellow": "ffff00 ffeb3b ffd43b fcc21b ffb92e fff59d e0b400 ffe0b0".split(),
    "green": "00ff00 4caf50 2e7d32 8bc34a 006400 00d26a a5d6a7 808000 c0ca33 00796b".split(),
    "blue": "0000ff 2196f3 1565c0 0d47a1 00bcd4 90caf9 000080 5bc0eb 006994 c5e3f6 1a237e 4682b4 9fc9dc".split(),
    "purple": "800080 9c27b0 673ab7 b39ddb 4b0082 8d65c5 d6b3e6 433b6b 543a69".split(),
    "pink": "ff69b4 f48fb1 e91e63 ffc0cb ff1493 f8bbd0 f70a8d ef9a9a f8a8e8 ffd5c4".split(),
    "brown": "795548 8b4513 5d4037 a0522d 3e2723 b07b4f 8d6e63 6d4534 c69c6d d2b48c".split(),
}
NAMES = tuple(TYPICAL)
LEAST = 0.2  # of the object: a colour with less is not named
MOST = 3


def oklab(rgb: np.ndarray) -> np.ndarray:
    """sRGB uint8 [..., 3] -> float32 [..., 3] in Oklab, where equal distances look equally far (Ottosson 2020)."""
    c = rgb.astype(np.float32) / 255
    c = np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)
    cones = c @ np.array(
        [
            [0.4122214708, 0.2119034982, 0.0883024619],
            [0.5363325363, 0.6806995451, 0.2817188376],
            [0.0514459929, 0.1073969566, 0.6299787005],
        ],
        np.float32,
    )
    to_lab = np.array(
        [
            [0.2104542553, 1.9779984951, 0.0259040371],
            [0.7936177850, -2.4285922050, 0.7827717662],
            [-0.0040720468, 0.4505937099, -0.8086757660],
        ],
        np.float32,
    )
    return np.cbrt(cones) @ to_lab


BLOCK = 1 << 16  # pixels named at a time: each takes 400 bytes while it is
_OWNER = np.array([k for k, kinds in enumerate(TYPICAL.values()) for _ in kinds])
_TYPICAL = oklab(np.array([[*bytes.fromhex(h)] for kinds in TYPICAL.values() for h in kinds], np.uint8))


def nearest(pixels: np.ndarray) -> np.ndarray:
    """uint8 [..., 3] -> which of NAMES each pixel is: that of the nearest typical value in Oklab."""
    flat = pixels.reshape(-1, 3)
    found = np.empty(len(flat), _OWNER.dtype)
    for k in range(0, len(flat), BLOCK):
        # |a - b|^2 without |a|^2, which is the same for every b
        found[k : k + BLOCK] = _OWNER[((_TYPICAL**2).sum(-1) - 2 * oklab(flat[k : k + BLOCK]) @ _TYPICAL.T).argmin(-1)]
    return found.reshape(pixels.shape[:-1])


def shares(pixels: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """uint8 [N, H, W, 3] and bool [N, H, W] (the object) -> share of its pixels of each of NAMES, [N, 11]; 0 of nothing."""
    found = nearest(pixels)
    counts = np.stack([((found == k) & inside).sum((1, 2)) for k in range(len(NAMES))], 1)
    return counts / np.maximum(counts.sum(1, keepdims=True), 1)


def named(share: np.ndarray) -> tuple[str, ...]:
    """Shares [11] of one picture -> its colours, the largest first: up to MOST, each at least LEAST; at least one."""
    order = [k for k in np.argsort(-share, kind="stable").tolist() if share[k] > 0][:MOST]
    return tuple(NAMES[k] for place, k in enumerate(order) if place == 0 or share[k] >= LEAST)


def inside(pixels: np.ndarray, near: int = 24) -> np.ndarray:
    """uint8 [N, H, W, 3] on white -> bool [N, H, W]: what is not white ground, near-white pixels that reach the border.

    For pictures without transparency, such as generated ones. `near`: how far below 255 a channel of the ground may lie.
    """
    light = (pixels >= 255 - near).all(-1)
    ground = np.zeros_like(light)
    ground[:, [0, -1]], ground[:, :, [0, -1]] = light[:, [0, -1]], light[:, :, [0, -1]]
    while True:
        grown = ground.copy()
        grown[:, 1:] |= ground[:, :-1]
        grown[:, :-1] |= ground[:, 1:]
        grown[:, :, 1:] |= ground[:, :, :-1]
        grown[:, :, :-1] |= ground[:, :, 1:]
        grown &= light
        if (grown == ground).all():
            return ~ground
        ground = grown
