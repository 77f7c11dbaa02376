"""Models that the tests of editing share: tiny networks with any slots, and exact denoisers in a model's place."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import torch
from PIL import Image

from sfumato.core import Cond, Noise
from sfumato.data import VOCABULARY, PixelCodec
from sfumato.data.colours import NAMES
from sfumato.denoiser import SlotSpec, UNetConfig
from sfumato.forward import RectifiedFlow
from sfumato.settings import to_dict
from sfumato.tasks import Model
from sfumato.train import Recipe

torch.set_num_threads(1)
PROCESS = RectifiedFlow()
MAPS = {"known": 4, "lowres": 4, "sketch": 1, "classes": len(NAMES)}


def untrained(*names: str, side: int = 16, channels: int = 3) -> Model:
    """A network of a few thousand random weights for these slots; its pictures' sides are multiples of 4."""
    slots = []
    for name in names:
        if name in ("text", "boxes"):
            slots.append(SlotSpec(name, "placed" if name == "boxes" else "tokens", VOCABULARY, ids=True))
        else:
            slots.append(SlotSpec(name, "map", {"known": channels + 1, "lowres": channels + 1}.get(name, MAPS[name])))
    net = UNetConfig(channels=channels, patch=2, widths=(8, 16), blocks=(1, 1), embedding=32, slots=tuple(slots))
    recipe = Recipe(net=net, sigma_data=0.5)
    denoiser = recipe.build()
    noise = torch.Generator().manual_seed(5)
    for p in denoiser.parameters():
        p.data = 0.15 * torch.randn(p.shape, generator=noise)
    denoiser.eval().requires_grad_(False)
    facts = {"recipe": to_dict(recipe), "codec": {"height": side, "width": side, "channels": channels}}
    facts |= {"data": {}, "classes": [], "styles": [], "captions": ["a red apple", "a boat"]}
    return Model(denoiser, PixelCodec(side, side, channels), facts)


class Known:
    """An exact denoiser where a network is expected: every pixel has its own colour `mean` [C, 1, 1] and variance, other
    places and conditions tell it nothing; it remembers the shapes and conditions that it was asked with."""

    def __init__(self, mean: torch.Tensor, variance: float, names: tuple[str, ...]) -> None:
        slots = [SimpleNamespace(name=name) for name in names]
        self.net = SimpleNamespace(config=SimpleNamespace(multiple=4, slots=slots))
        self.process, self.mean, self.variance = PROCESS, mean, variance
        self.asked: list[tuple[tuple[int, ...], Cond]] = []

    def __call__(self, x_t, t, cond=Cond()):  # noqa: B008
        self.asked.append((tuple(x_t.shape), cond))
        alpha, sigma = PROCESS.alpha_sigma(t)
        gain = alpha * self.variance / (alpha**2 * self.variance + sigma**2)
        return PROCESS.posterior(x_t, t, self.mean + gain * (x_t - alpha * self.mean))

    def parameters(self):
        return []

    named_parameters = parameters


def exact(*names: str, side: int = 16, colour: tuple[float, ...] = (0.5, -0.5, 0.0), variance: float = 0.0) -> Model:
    """A model whose pictures are known: this colour everywhere, give or take the variance."""
    denoiser = Known(torch.tensor(colour).reshape(-1, 1, 1), variance, names)
    return Model(
        denoiser, PixelCodec(side, side, len(colour)), {"codec": {}, "captions": [""], "classes": [], "styles": []}
    )


def photograph(width: int, height: int, mode: str = "RGB", seed: int = 0) -> Image.Image:
    """Random pixels of any mode, smooth in one direction."""
    bands = {"L": 1, "LA": 2, "RGB": 3, "RGBA": 4, "P": 3}[mode]
    values = Noise.of(seed, 1).uniform((1, height, width, bands))[0]
    values = (values * 200 + torch.arange(width).reshape(1, -1, 1) * 55 / max(1, width)).to(torch.uint8).numpy()
    picture = Image.fromarray(np.ascontiguousarray(values if bands > 1 else values[..., 0]))
    if mode == "LA":
        return Image.merge("LA", [Image.fromarray(np.ascontiguousarray(values[..., k])) for k in (0, 1)])
    return picture.quantize(64) if mode == "P" else picture


FILL = (191, 64, 128)  # the colour of `exact` in 8 bits


LAYOUT = {"width": 32, "height": 16, "boxes": [{"box": [0, 0, 0.5, 1], "text": "a red boat"}]}


def drawing(width: int = 300, height: int = 200, line: int = 2) -> Image.Image:
    """A dark cross of thin lines on white paper."""
    values = np.full((height, width), 245, np.uint8)
    values[height // 2 : height // 2 + line] = 20
    values[:, width // 2 : width // 2 + line] = 20
    return Image.fromarray(values)


def random_mask(seed: int, width: int, height: int) -> np.ndarray:
    """Boxes, strokes, scattered pixels, halves or borders."""
    rng = np.random.default_rng(seed)
    fill = np.zeros((height, width), dtype=bool)
    kind = seed % 5
    if kind == 0:
        top, left = rng.integers(0, height), rng.integers(0, width)
        fill[top : top + rng.integers(1, height + 1), left : left + rng.integers(1, width + 1)] = True
    elif kind == 1:
        for k in range(20):
            fill[(top := rng.integers(0, height)) : top + 2, rng.integers(0, width) : rng.integers(0, width) + k] = True
    elif kind == 2:
        fill = rng.random((height, width)) < rng.random()
    elif kind == 3:
        fill[:, : rng.integers(1, width + 1)] = True
    else:
        fill[:] = True
        fill[height // 4 : -height // 4, width // 4 : -width // 4] = False
    fill[rng.integers(0, height), rng.integers(0, width)] = True
    return fill
