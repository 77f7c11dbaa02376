"""Named recipes: the same mathematics under the names people know. Each is a function of the picture's side in pixels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from sfumato.core import SfumatoError
from sfumato.data.canvas import Controls
from sfumato.data.icons import CAPTIONS
from sfumato.denoiser import EDMTarget, Eps, TransformerConfig, UNetConfig
from sfumato.forward import EDM, VE, VPLinear
from sfumato.train.objective import SquaredError
from sfumato.train.recipe import Recipe
from sfumato.train.times import LogNormalTimes, UniformTimes


def _patch(size: int) -> int:
    """Space-to-depth that leaves about 32 x 32 places inside: none where that is affordable, it costs detail."""
    return max(1, size // 32)


def default(size: int) -> Recipe:
    """The U-Net, rectified flow with velocity prediction (Liu et al. 2022)."""
    return Recipe(net=UNetConfig(patch=_patch(size)))


def transformer(size: int) -> Recipe:
    """The plain transformer on 8 x 8 patches."""
    return Recipe(net=TransformerConfig(patch=max(1, size // 8)))


def text(size: int) -> Recipe:
    """Text to picture: a wider U-Net whose words are read by attention at a half and a quarter of its resolution.

    Its times lean to the noisy side, where what a picture shows is decided (Esser et al. 2024, section 3.1).
    """
    net = UNetConfig(patch=_patch(size), widths=(64, 128, 256, 320), attention=(1, 2))
    return Recipe(net=net, times=LogNormalTimes(mean=0.4), each_dropout=0.1)


def icons(size: int) -> Recipe:
    """Text to picture on the set of icons, whose captions are varied by rules of their own."""
    return replace(text(size), captions=CAPTIONS)


def canvas(size: int) -> Recipe:
    """Every control of one model at once: words, boxes, a sketch, a low resolution and what is known of a picture."""
    return replace(icons(size), controls=Controls(("known", "lowres", "sketch", "boxes")))


def words(size: int) -> Recipe:
    """Legible words, 32 x 64 pixels for a `size` of 32: half the resolution at once, letters read by attention below it."""
    net = UNetConfig(patch=max(1, size // 16), widths=(64, 128, 192), blocks=(1, 2, 1), attention=(1, 2), embedding=192)
    return Recipe(net=net, batch=64, conditions=("text",), times=LogNormalTimes(mean=0.2))


def _published(
    size: int, process: VPLinear | VE | EDM, target: Eps | EDMTarget, times: UniformTimes | LogNormalTimes
) -> Recipe:
    """A published method: the error is squared in the space of what is predicted, at every noise level."""
    loss = SquaredError(target, floor=1e-4)
    return replace(default(size), process=process, parameterisation=target, objective=loss, times=times)


def ddpm(size: int) -> Recipe:
    """DDPM: variance-preserving linear beta, noise prediction, plain noise loss, uniform times (Ho et al. 2020)."""
    return _published(size, VPLinear(), Eps(), UniformTimes())


def score(size: int) -> Recipe:
    """A score-based model: variance-exploding SDE, denoising score matching (Song & Ermon 2019; Song et al. 2021)."""
    return _published(size, VE(), Eps(), UniformTimes())


def edm(size: int) -> Recipe:
    """EDM: sigma-space process, preconditioned target, log-normal sigma (Karras et al. 2022)."""
    return _published(size, EDM(), EDMTarget(), LogNormalTimes(-1.2, 1.2))


RECIPES: dict[str, Callable[[int], Recipe]] = {
    "default": default,
    "transformer": transformer,
    "text": text,
    "words": words,
    "icons": icons,
    "canvas": canvas,
    "ddpm": ddpm,
    "score": score,
    "edm": edm,
}


def pick_recipe(name: str, size: int) -> Recipe:
    """The recipe of this name for pictures of `size` pixels; SfumatoError lists the known ones."""
    if name not in RECIPES:
        raise SfumatoError(f"unknown recipe {name!r}; known: {', '.join(RECIPES)}")
    return RECIPES[name](size)
