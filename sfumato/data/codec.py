"""Pictures <-> the space diffusion runs in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from sfumato.core import SfumatoError
from sfumato.data.picture import as_uint8, flatten


@dataclass(frozen=True)
class PixelCodec:
    """Eight-bit pictures u <-> x0 = u / 127.5 - 1, float32 [B, C, H, W] in [-1, 1]; `decode(encode(u))` is u exactly.

    Height and width are pixels (1 or more); channels is 1 (grey) or 3 (sRGB). Raises SfumatoError on other values.
    """

    height: int
    width: int
    channels: int

    def __post_init__(self) -> None:
        if self.channels not in (1, 3):
            raise SfumatoError(f"pictures have 1 channel (grey) or 3 (colour), not {self.channels}")
        if min(self.height, self.width) < 1:
            raise SfumatoError(
                f"a picture of {self.height}x{self.width} pixels is not possible; give a size of 1 or more"
            )

    @property
    def spec(self) -> tuple[int, int, int]:
        """Shape (C, H, W) of one encoded picture."""
        return self.channels, self.height, self.width

    def sized(self, height: int, width: int) -> PixelCodec:
        """The same codec for pictures of another height and width."""
        return PixelCodec(height, width, self.channels)

    def encode(self, pictures: np.ndarray | Tensor | Sequence[Image.Image]) -> Tensor:
        """Pictures (uint8 [B, H, W, C], or PIL of any mode) -> x0 float32 [B, C, H, W] in [-1, 1].

        Raises SfumatoError when the size, the channels or the number type differ from the codec's: nothing is
        resized here.
        """
        if isinstance(pictures, Tensor):
            pixels = pictures
        elif isinstance(pictures, np.ndarray):
            pixels = torch.from_numpy(np.ascontiguousarray(pictures))
        else:
            pixels = torch.from_numpy(self._from_pil(pictures))
        if pixels.dtype != torch.uint8:
            raise SfumatoError(
                f"pictures to encode must be uint8 in 0..255, not {str(pixels.dtype).removeprefix('torch.')}"
            )
        want = (self.height, self.width, self.channels)
        if pixels.ndim != 4 or tuple(pixels.shape[1:]) != want:
            raise SfumatoError(f"pictures to encode must be [B, {', '.join(map(str, want))}], not {list(pixels.shape)}")
        return pixels.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format).div_(127.5).sub_(1.0)

    def _from_pil(self, pictures: Sequence[Image.Image]) -> np.ndarray:
        rows = []
        for k, picture in enumerate(pictures):
            if picture.size != (self.width, self.height):
                raise SfumatoError(
                    f"picture {k} is {picture.width}x{picture.height} pixels, the model has {self.width}x{self.height}"
                    " (width x height); resize it first"
                )
            rows.append(as_uint8(flatten(picture), self.channels))
        return np.stack(rows) if rows else np.zeros((0, self.height, self.width, self.channels), np.uint8)

    def scaled(self, x0: Tensor) -> Tensor:
        """x0 -> pictures as numbers in [-1, 1]: the same, clamped."""
        return x0.clamp(-1, 1)

    def pixels(self, x0: Tensor) -> np.ndarray:
        """x0 [B, C, H, W] of any float type -> uint8 [B, H, W, C]; values outside [-1, 1] are clamped.

        Raises SfumatoError when the shape differs or a value is NaN or infinite.
        """
        if x0.ndim != 4 or tuple(x0.shape[1:]) != self.spec:
            raise SfumatoError(f"x0 to decode must be [B, {', '.join(map(str, self.spec))}], not {list(x0.shape)}")
        bad = ~torch.isfinite(x0.detach()).flatten(1).all(1)
        if bad.any():
            raise SfumatoError(
                f"picture {int(bad.nonzero()[0])} of {len(x0)} is not finite (NaN or infinity): the model or the solver"
                " diverged; run `sfumato doctor`"
            )
        scaled = x0.detach().to("cpu", torch.float32).add(1.0).mul_(127.5).round_().clamp_(0, 255).to(torch.uint8)
        return scaled.permute(0, 2, 3, 1).contiguous().numpy()

    def decode(self, x0: Tensor) -> list[Image.Image]:
        """x0 [B, C, H, W] -> PIL pictures (mode L or RGB); clamps and raises as `pixels` does."""
        pixels = self.pixels(x0)
        return [Image.fromarray(p[:, :, 0] if self.channels == 1 else p) for p in pixels]
