"""The other libraries: imported with stand-ins for packages they need only elsewhere, and networks of a wanted cost."""

from __future__ import annotations

import importlib
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.machinery import ModuleSpec
from typing import Any

import torch
from torch import Tensor, nn

# Image folders, metrics, logging and augmentation: imported by the peers at module level, never used in what is
# measured here. torchvision's wheels need their own torch build and do not import beside the CPU one.
STAND_INS = ("torchvision", "pytorch_fid", "clip", "cleanfid", "wandb", "skimage", "kornia", "dctorch", "jsonmerge")


class _StandIn(types.ModuleType):
    """A module in which every name exists and means nothing."""

    __path__: list[str] = []

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _StandIn(f"{self.__name__}.{name}")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        raise RuntimeError(f"{self.__name__} is a stand-in of the benchmark: install the real package to use it")


class _Finder:
    def __init__(self, names: tuple[str, ...]) -> None:
        self.names = names

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        return ModuleSpec(fullname, self, is_package=True) if fullname.split(".")[0] in self.names else None

    def create_module(self, spec: ModuleSpec) -> types.ModuleType:
        return _StandIn(spec.name)

    def exec_module(self, module: types.ModuleType) -> None:
        pass


@contextmanager
def stand_ins(names: tuple[str, ...] = STAND_INS) -> Iterator[None]:
    """Inside, `names` import as empty stand-ins; afterwards they are gone again, so nobody else is deceived."""
    finder = _Finder(names)
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        for key in [k for k in sys.modules if k.split(".")[0] in names and isinstance(sys.modules[k], _StandIn)]:
            del sys.modules[key]


def denoising_diffusion_pytorch() -> Any:
    """The package `denoising_diffusion_pytorch`."""
    import accelerate  # noqa: F401  before the stand-ins, so that it sees what is really installed

    with stand_ins():
        return importlib.import_module("denoising_diffusion_pytorch")


def k_diffusion() -> Any:
    """The module `k_diffusion.sampling`."""
    import accelerate  # noqa: F401

    with stand_ins():
        return importlib.import_module("k_diffusion").sampling


class Diffusers(nn.Module):
    """diffusers' UNet2DModel of four resolutions with attention at the third (8x8), as (x, t) -> y."""

    def __init__(self, widths: tuple[int, ...], channels: int, size: int = 32) -> None:
        super().__init__()
        from diffusers import UNet2DModel

        # The unconditional example has attention at the second-lowest resolution only; the same here, less two levels.
        self.unet = UNet2DModel(
            sample_size=size,
            in_channels=channels,
            out_channels=channels,
            layers_per_block=2,
            block_out_channels=widths,
            down_block_types=("DownBlock2D", "DownBlock2D", "AttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "AttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
        )

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.unet(x, t).sample


def ddp_unet(dim: int, mults: tuple[int, ...], channels: int) -> nn.Module:
    """denoising-diffusion-pytorch's Unet, as (x, t) -> y."""
    return denoising_diffusion_pytorch().Unet(dim, dim_mults=mults, channels=channels)


def build(peer: str, shape: dict[str, Any], channels: int) -> nn.Module:
    """The network of `peer` ("diffusers" or "denoising-diffusion-pytorch") with this shape."""
    if peer == "diffusers":
        return Diffusers(tuple(shape["widths"]), channels)
    return ddp_unet(shape["dim"], tuple(shape["mults"]), channels)


def shapes(peer: str) -> Iterator[dict[str, Any]]:
    """Reasonable shapes of a peer: widths that grow downwards, in multiples of 8 or 32 that vector units like."""
    if peer == "diffusers":
        for first in (32, 64):
            for third in range(2 * first, 4 * first + 1, 32):
                for fourth in range(third, 2 * third + 1, 32):
                    yield {"widths": [first, 2 * first, third, fourth]}
    else:
        every = ((1, 2, 4, 8), (1, 2, 4, 6), (1, 2, 4, 4), (1, 2, 3, 4), (1, 2, 2, 4), (1, 2, 2, 2))
        yield from ({"dim": dim, "mults": list(mults)} for dim in range(16, 57, 8) for mults in every)


def parameters(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


def training_flops(net: nn.Module, channels: int, size: int = 32) -> float:
    """Counted floating-point operations per picture, forward + backward (2 per multiply-add).

    On the meta device no arithmetic is done, so going through many candidate shapes is cheap.
    """
    from torch.utils.flop_counter import FlopCounterMode

    device = next(net.parameters()).device
    x, t = torch.randn(2, channels, size, size, device=device), torch.full((2,), 500, device=device)
    with FlopCounterMode(display=False) as counter:
        net(x, t).square().mean().backward()
    net.zero_grad(set_to_none=True)
    return counter.get_total_flops() / len(x)
