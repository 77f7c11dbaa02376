"""What else fills holes and enlarges pictures: OpenCV, Pillow, and an ESRGAN that comes as a package.

Pictures are x0 float [N, C, H, W] in [-1, 1]; what comes back has 8 bits, as a file would.
"""

from __future__ import annotations

import base64
import hashlib
import json
import subprocess
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

RADIUS = 3  # pixels round a hole that OpenCV looks at, as in its examples
ESRGAN = ("@upscalerjs/esrgan-medium", "1.0.0")
ESRGAN_SHA512 = "Z8JnR87sgetPABKevasXST3FdnXhaoTu9zpXnu3KLaHYpYStVt0FD1VZS9c6jhSGMBC0H929gN9RbWl+MeisKA=="
RESAMPLING = {"bicubic": Image.Resampling.BICUBIC, "Lanczos": Image.Resampling.LANCZOS}


def pixels(x0: Tensor) -> np.ndarray:
    """uint8 [N, H, W, C]."""
    return x0.add(1).mul(127.5).round().clamp(0, 255).byte().permute(0, 2, 3, 1).contiguous().numpy()


def tensor(pictures: np.ndarray) -> Tensor:
    """The reverse of `pixels`."""
    return torch.from_numpy(np.ascontiguousarray(pictures)).permute(0, 3, 1, 2).float() / 127.5 - 1


def opencv(x0: Tensor, fill: Tensor, method: str) -> Tensor:
    """`fill` (bool [N, 1, H, W]) by cv2.inpaint, "Telea" (2004) or "Navier-Stokes" (Bertalmio et al. 2001)."""
    import cv2

    flag = {"Telea": cv2.INPAINT_TELEA, "Navier-Stokes": cv2.INPAINT_NS}[method]
    done = []
    for picture, hole in zip(pixels(x0), fill[:, 0].numpy(), strict=True):
        found = cv2.inpaint(picture, hole.astype(np.uint8) * 255, RADIUS, flag)
        done.append(found.reshape(picture.shape))
    return tensor(np.stack(done))


def resized(small: Tensor, scale: int, method: str) -> Tensor:
    """Pillow's "bicubic" or "Lanczos"."""
    done = []
    for picture in pixels(small):
        image = Image.fromarray(picture.squeeze(-1) if picture.shape[-1] == 1 else picture)
        large = image.resize((image.width * scale, image.height * scale), RESAMPLING[method])
        done.append(np.asarray(large).reshape(large.height, large.width, -1))
    return tensor(np.stack(done))


class Keras:
    """A network in the format of TensorFlow.js that is made of convolutions, ReLU, sums, joins and repeated pixels."""

    def __init__(self, told: dict[str, Any], weights: bytes) -> None:
        config = told["modelTopology"]["model_config"]["config"]
        self.layers, self.last = config["layers"], config["output_layers"][0][0]
        self.weights: dict[str, Tensor] = {}
        place = 0
        for spec in (spec for group in told["weightsManifest"] for spec in group["weights"]):
            if spec["dtype"] != "float32" or "quantization" in spec:
                raise SystemExit(f"the weights {spec['name']} are not plain float32")
            count = int(np.prod(spec["shape"], dtype=np.int64))
            found = np.frombuffer(weights, "<f4", count, place).reshape(spec["shape"])
            self.weights[spec["name"]] = torch.from_numpy(found.copy())
            place += 4 * count

    @torch.no_grad()
    def __call__(self, x: Tensor) -> Tensor:
        """x [N, C, H, W], laid out as torch does."""
        found: dict[str, Tensor] = {}
        for layer in self.layers:
            told, name = layer["config"], layer["name"]
            given = [found[node[0]] for node in layer["inbound_nodes"][0]] if layer["inbound_nodes"] else [x]
            kind = layer["class_name"]
            if kind == "InputLayer":
                found[name] = x
            elif kind == "Conv2D" and told["activation"] == "linear" and set(told["strides"]) == {1}:
                kernel = self.weights[f"{name}/kernel"].permute(3, 2, 0, 1)
                around = kernel.shape[-1] // 2 if told["padding"] == "same" else 0
                found[name] = functional.conv2d(given[0], kernel, self.weights[f"{name}/bias"], padding=around)
            elif kind == "Activation" and told["activation"] == "relu":
                found[name] = given[0].relu()
            elif kind == "Concatenate":
                found[name] = torch.cat(given, 1)
            elif kind == "Add":
                found[name] = sum(given[1:], given[0])
            elif kind == "UpSampling2D" and told["interpolation"] == "nearest":
                found[name] = functional.interpolate(given[0], scale_factor=told["size"][0], mode="nearest")
            else:
                raise SystemExit(f"the layer {name} ({kind}) is of no known kind")
        return found[self.last]


def esrgan(folder: Path, scale: int) -> Keras:
    """The packaged network for this scale (2 or 4), fetched once through npm and checked."""
    package, version = ESRGAN
    path = folder / f"esrgan-medium-{version}.tgz"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as part:
            told = ["npm", "pack", f"{package}@{version}", "--ignore-scripts", "--silent"]
            subprocess.run(told, cwd=part, check=True, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL)
            next(Path(part).glob("*.tgz")).replace(path)
    if base64.b64encode(hashlib.sha512(path.read_bytes()).digest()).decode() != ESRGAN_SHA512:
        raise SystemExit(f"{path} is not the archive that it should be: delete it and try again")
    with tarfile.open(path, "r:gz") as archive:
        read = [
            archive.extractfile(f"package/models/x{scale}/{name}") for name in ("model.json", "group1-shard1of1.bin")
        ]
        told, weights = (file.read() for file in read if file is not None)
    return Keras(json.loads(told), weights)


def enlarged(network: Keras, small: Tensor) -> Tensor:
    """Small pictures through the packaged network, which reads and answers in 0 ... 255, as its package says."""
    found = torch.cat([network((part + 1) * 127.5) for part in small.split(16)])
    return tensor(pixels(found / 127.5 - 1))
