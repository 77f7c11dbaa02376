"""The Inception network of FID, for those who have its weights: the numbers others publish, on your own pictures.

The network of Szegedy et al. 2015 (arXiv 1512.00567) as the TensorFlow graph of 2015-12-05 has it, which Heusel et al. 2017
measured with: average pooling that leaves the border out, maximum pooling in the last block, 1,008 outputs. The names of
the parameters are those of the published PyTorch conversions (torch-fidelity 0.4, pytorch-fid).
"""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from sfumato.core import SfumatoError
from sfumato.data.records import shown

SIDE = 299
WIDTH = 2048
CHUNK = 25

# Convolutions as (name, outputs, kernel, stride, padding); branches go side by side, their steps one after the other.
Step = tuple[str, int, tuple[int, int], int, tuple[int, int]]


def _step(name: str, outputs: int, kernel: int | tuple[int, int] = 1, stride: int = 1, pad: bool = True) -> Step:
    height, width = (kernel, kernel) if isinstance(kernel, int) else kernel
    return name, outputs, (height, width), stride, (height // 2, width // 2) if pad else (0, 0)


STEM = (
    _step("Conv2d_1a_3x3", 32, 3, 2, False),
    _step("Conv2d_2a_3x3", 32, 3, 1, False),
    _step("Conv2d_2b_3x3", 64, 3),
    _step("Conv2d_3b_1x1", 80),
    _step("Conv2d_4a_3x3", 192, 3, 1, False),
)
POOLED_AFTER = ("Conv2d_2b_3x3", "Conv2d_4a_3x3")


def _a(pooled: int) -> list[list[Step]]:
    return [
        [_step("branch1x1", 64)],
        [_step("branch5x5_1", 48), _step("branch5x5_2", 64, 5)],
        [_step("branch3x3dbl_1", 64), _step("branch3x3dbl_2", 96, 3), _step("branch3x3dbl_3", 96, 3)],
        [_step("branch_pool", pooled)],
    ]


def _c(inner: int) -> list[list[Step]]:
    across, down = (1, 7), (7, 1)
    double = [_step("branch7x7dbl_1", inner)]
    double += [_step(f"branch7x7dbl_{k}", inner, (down, across)[k % 2]) for k in (2, 3, 4)]
    return [
        [_step("branch1x1", 192)],
        [_step("branch7x7_1", inner), _step("branch7x7_2", inner, across), _step("branch7x7_3", 192, down)],
        [*double, _step("branch7x7dbl_5", 192, across)],
        [_step("branch_pool", 192)],
    ]


# name -> (branches, what the last branch pools by)
BLOCKS: dict[str, tuple[list[list[Step]], str]] = {
    "Mixed_5b": (_a(32), "mean"),
    "Mixed_5c": (_a(64), "mean"),
    "Mixed_5d": (_a(64), "mean"),
    "Mixed_6a": (
        [
            [_step("branch3x3", 384, 3, 2, False)],
            [
                _step("branch3x3dbl_1", 64),
                _step("branch3x3dbl_2", 96, 3),
                _step("branch3x3dbl_3", 96, 3, 2, False),
            ],
            [],
        ],
        "halve",
    ),
    "Mixed_6b": (_c(128), "mean"),
    "Mixed_6c": (_c(160), "mean"),
    "Mixed_6d": (_c(160), "mean"),
    "Mixed_6e": (_c(192), "mean"),
    "Mixed_7a": (
        [
            [_step("branch3x3_1", 192), _step("branch3x3_2", 320, 3, 2, False)],
            [
                _step("branch7x7x3_1", 192),
                _step("branch7x7x3_2", 192, (1, 7)),
                _step("branch7x7x3_3", 192, (7, 1)),
                _step("branch7x7x3_4", 192, 3, 2, False),
            ],
            [],
        ],
        "halve",
    ),
}


class _Convolution(nn.Module):
    def __init__(
        self, inputs: int, outputs: int, kernel: tuple[int, int], stride: int, padding: tuple[int, int]
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(outputs, eps=0.001)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)), inplace=True)


def _pool(x: Tensor, how: str) -> Tensor:
    if how == "halve":
        return F.max_pool2d(x, 3, 2)
    if how == "most":
        return F.max_pool2d(x, 3, 1, 1)
    return F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)


class _Block(nn.Module):
    """Branches side by side; the last one pools first."""

    def __init__(self, inputs: int, branches: list[list[Step]], pool: str) -> None:
        super().__init__()
        self.pool, self.paths, self.outputs = pool, [[step[0] for step in b] for b in branches], 0
        for branch in branches:
            width = inputs
            for name, outputs, *shape in branch:
                self.add_module(name, _Convolution(width, outputs, *shape))
                width = outputs
            self.outputs += width

    def forward(self, x: Tensor) -> Tensor:
        out = []
        for k, path in enumerate(self.paths):
            y = _pool(x, self.pool) if k == len(self.paths) - 1 else x
            for name in path:
                y = self.get_submodule(name)(y)
            out.append(y)
        return torch.cat(out, 1)


class _Forked(nn.Module):
    """The last two blocks: two branches end in a pair of flat convolutions, laid one after the other."""

    def __init__(self, inputs: int, pool: str) -> None:
        super().__init__()
        self.pool, self.outputs = pool, WIDTH
        self.branch1x1 = _Convolution(inputs, 320, (1, 1), 1, (0, 0))
        self.branch3x3_1 = _Convolution(inputs, 384, (1, 1), 1, (0, 0))
        self.branch3x3dbl_1 = _Convolution(inputs, 448, (1, 1), 1, (0, 0))
        self.branch3x3dbl_2 = _Convolution(448, 384, (3, 3), 1, (1, 1))
        for stem in ("branch3x3_2", "branch3x3dbl_3"):
            self.add_module(stem + "a", _Convolution(384, 384, (1, 3), 1, (0, 1)))
            self.add_module(stem + "b", _Convolution(384, 384, (3, 1), 1, (1, 0)))
        self.branch_pool = _Convolution(inputs, 192, (1, 1), 1, (0, 0))

    def forward(self, x: Tensor) -> Tensor:
        out = [self.branch1x1(x)]
        for stem, y in (
            ("branch3x3_2", self.branch3x3_1(x)),
            ("branch3x3dbl_3", self.branch3x3dbl_2(self.branch3x3dbl_1(x))),
        ):
            out += [self.get_submodule(stem + "a")(y), self.get_submodule(stem + "b")(y)]
        return torch.cat([*out, self.branch_pool(_pool(x, self.pool))], 1)


class Network(nn.Module):
    """Pictures [B, 3, 299, 299] in [-1, 1] -> pooled features [B, 2048]; `fc` is held so that weights load whole."""

    def __init__(self) -> None:
        super().__init__()
        width = 3
        for name, outputs, *shape in STEM:
            self.add_module(name, _Convolution(width, outputs, *shape))
            width = outputs
        for name, (branches, pool) in BLOCKS.items():
            block = _Block(width, branches, pool)
            self.add_module(name, block)
            width = block.outputs
        self.Mixed_7b, self.Mixed_7c = _Forked(width, "mean"), _Forked(WIDTH, "most")
        self.fc = nn.Linear(WIDTH, 1008)

    def forward(self, x: Tensor) -> Tensor:
        for name, *_ in STEM:
            x = self.get_submodule(name)(x)
            if name in POOLED_AFTER:
                x = F.max_pool2d(x, 3, 2)
        for name in BLOCKS:
            x = self.get_submodule(name)(x)
        return self.Mixed_7c(self.Mixed_7b(x)).mean((2, 3))


def _stretch(inputs: int, outputs: int = SIDE) -> Tensor:
    """The matrix [outputs, inputs] of TensorFlow 1's bilinear resize: source = k inputs / outputs, no half pixel."""
    at = torch.arange(outputs, dtype=torch.float32) * (inputs / outputs)
    low = at.floor().long().clamp_max(inputs - 1)
    high, weight = (low + 1).clamp_max(inputs - 1), at - low
    out = torch.zeros(outputs, inputs)
    rows = torch.arange(outputs)
    out[rows, low] += 1 - weight
    out[rows, high] += weight
    return out


class Inception:
    """Pictures x0 [B, C, H, W] in [-1, 1] -> Inception features [B, 2048]; grey pictures are shown as grey colours.

    They are rounded to 8 bits, resized to 299x299 as TensorFlow 1 did, and scaled by (u - 128) / 128.
    """

    def __init__(self, net: Network, name: str) -> None:
        self.net, self.name = net, name

    @torch.no_grad()
    def __call__(self, x0: Tensor) -> Tensor:
        if x0.ndim != 4 or x0.shape[1] not in (1, 3):
            raise SfumatoError(f"Inception sees grey or colour pictures [B, C, H, W], not {tuple(x0.shape)}")
        if not torch.isfinite(x0).all():
            raise SfumatoError("some of the pictures hold NaN or infinite values and cannot be measured")
        rows, columns = _stretch(x0.shape[2]), _stretch(x0.shape[3])
        out = []
        for part in x0.split(CHUNK):
            u = part.float().add(1).mul(127.5).round().clamp(0, 255).expand(-1, 3, -1, -1)
            out.append(self.net((rows @ u @ columns.T - 128) / 128))
        return torch.cat(out)


def inception(path: str | Path) -> Inception:
    """FID's extractor from a .safetensors file with the published parameters; named by the hash of the file.

    Whether the numbers inside are the published ones cannot be seen from names and shapes: compare the name with that
    of others. Raises SfumatoError for pickles, which may run code when opened, and for other networks.
    """
    path = Path(path).expanduser()
    if path.suffix in (".pt", ".pth", ".pkl", ".ckpt"):
        target = shown(path.with_suffix(".safetensors").name)
        raise SfumatoError(
            f'{shown(path.name)} may run code when it is opened; convert it once, where you trust it: python -c "import torch,'
            f" safetensors.torch as s; s.save_file(torch.load('{shown(path.name)}', weights_only=True), '{target}')\""
        )
    try:
        weights = load_file(path)
        fingerprint = sha256(path.read_bytes()).hexdigest()[:8]
    except (OSError, SafetensorError) as error:
        raise SfumatoError(f"{shown(path)} cannot be read as safetensors weights: {error}") from error
    with torch.device("meta"):
        net = Network()
    wanted = {k: v.shape for k, v in net.state_dict().items() if not k.endswith("num_batches_tracked")}
    wrong = [k for k, shape in wanted.items() if k not in weights or weights[k].shape != shape]
    if wrong:
        raise SfumatoError(
            f"{shown(path)} does not hold FID's Inception network: {len(wrong)} of {len(wanted)} parameters are absent or of "
            f"another shape, first {wrong[0]}"
        )
    net = net.to_empty(device="cpu")
    net.load_state_dict({k: weights[k].float() for k in wanted}, strict=False)
    return Inception(net.eval().requires_grad_(False), f"inception-fid-{fingerprint}")
