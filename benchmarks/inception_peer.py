"""Our Inception network beside that of torch-fidelity, with the same random weights: same parameters, same features.

The published weights are a download; random ones show the same of names, shapes, pooling, resizing and order. Ours are
drawn, torch-fidelity's network loads them whole (no name may be missing or left over), and both see the same pictures.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import types
from pathlib import Path
from typing import Any

import torch

from benchmarks import common
from sfumato.measure.inception import Inception, Network


def drawn(seed: int) -> Network:
    """A network with weights that keep the signal's size, and statistics that are not 0 and 1."""
    generator, net = torch.Generator().manual_seed(seed), Network()
    for module in net.modules():
        if isinstance(module, torch.nn.Conv2d | torch.nn.Linear):
            torch.nn.init.kaiming_normal_(module.weight, nonlinearity="relu", generator=generator)
        if isinstance(module, torch.nn.BatchNorm2d):
            for entry in (module.running_mean, module.bias):
                entry.data.normal_(0, 0.1, generator=generator)
            for entry in (module.running_var, module.weight):
                entry.data.uniform_(0.7, 1.3, generator=generator)
    return net.eval().requires_grad_(False)


def peer(wheel: Path, net: Network) -> Any:
    """torch-fidelity's extractor with our weights, out of its wheel: its package would import torchvision, one module does
    not; and installed it would break torchmetrics where there is no torchvision."""
    package = types.ModuleType("torch_fidelity")
    package.__path__ = [str(wheel / "torch_fidelity")]
    sys.modules["torch_fidelity"] = package
    module = importlib.import_module("torch_fidelity.feature_extractor_inceptionv3")
    module.load_state_dict_from_url = lambda *args, **kwargs: net.state_dict()
    return module.FeatureExtractorInceptionV3("peer", ["2048"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("wheel", type=Path, help="from 'pip download --no-deps torch-fidelity'")
    parser.add_argument("--results", type=Path, default=common.RESULTS)
    args = parser.parse_args()
    net = drawn(0)
    other, rows = peer(args.wheel, net), []
    for channels, height, width in ((3, 32, 32), (1, 28, 28), (3, 64, 48)):
        generator = torch.Generator().manual_seed(height)
        u = torch.randint(0, 256, (4, channels, height, width), generator=generator, dtype=torch.uint8)
        ours = Inception(net, "ours")(u / 127.5 - 1)
        with torch.no_grad():
            theirs = other(u.expand(-1, 3, -1, -1))[0]
        error = float((ours - theirs).norm() / theirs.norm())
        rows.append({"pictures": [channels, height, width], "relative_error": error})
        print(f"{channels}x{height}x{width}: relative difference of the features {error:.1e}")
    parameters = sum(p.numel() for p in net.parameters())
    print(f"{parameters:,} parameters, {len(net.state_dict())} entries of the same names and shapes")
    head = common.envelope(rows=rows, parameters=parameters, peer=args.wheel.name)
    print(common.write("inception_peer", head, args.results))


if __name__ == "__main__":
    main()
