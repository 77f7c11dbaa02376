"""The same numbers as torchmetrics (KID, Fréchet distance) and prdc (precision, recall, density, coverage)."""

from __future__ import annotations

import prdc
import pytest
import torch
from torch import nn
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.kid import KernelInceptionDistance

from sfumato.measure import frechet_distance, frechet_interval, kid, kid_interval, manifold, manifold_intervals

SHAPES = [(250, 250, 16), (180, 320, 5), (97, 61, 24)]  # real, generated, dimensions
shapes = pytest.mark.parametrize("shape", SHAPES, ids=str)


class Projection(nn.Module):
    """Pictures uint8 [B, 3, 8, 8] -> features [B, D]: what both sides see through."""

    def __init__(self, dimensions: int) -> None:
        super().__init__()
        self.num_features = dimensions
        self.matrix = torch.randn(192, dimensions, generator=torch.Generator().manual_seed(9)) / 192**0.5

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x.flatten(1).float() / 127.5 - 1) @ self.matrix


def pictures(n: int, seed: int, brightest: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, brightest, (n, 3, 8, 8), dtype=torch.uint8, generator=generator)


def both(shape: tuple[int, int, int]) -> tuple[torch.Tensor, torch.Tensor, Projection]:
    n, m, dimensions = shape
    return pictures(n, 1, 256), pictures(m, 2, 220), Projection(dimensions)


@shapes
def test_torchmetrics_kid(shape: tuple[int, int, int]) -> None:
    real, fake, features = both(shape)
    least = min(len(real), len(fake))
    real, fake = real[:least], fake[:least]  # one subset that is the whole, so that nothing is drawn at random
    peer = KernelInceptionDistance(feature=features, subsets=1, subset_size=least)
    peer.update(real, real=True)
    peer.update(fake, real=False)
    a, b = features(real), features(fake)
    assert kid(a, b).value == pytest.approx(float(peer.compute()[0]), abs=1e-4)
    assert kid_interval(a, b).value == kid(a, b).value


@shapes
def test_torchmetrics_frechet(shape: tuple[int, int, int]) -> None:
    real, fake, features = both(shape)
    peer = FrechetInceptionDistance(feature=features).set_dtype(torch.float64)
    for part in real.split(50):  # moments are gathered as pictures come
        peer.update(part, real=True)
    peer.update(fake, real=False)
    a, b = features(real), features(fake)
    assert frechet_distance(a, b) == pytest.approx(float(peer.compute()), abs=1e-4)
    assert frechet_interval(a, b).plain.value == pytest.approx(float(peer.compute()), abs=1e-4)


@shapes
@pytest.mark.parametrize("k", [3, 5])
def test_prdc(shape: tuple[int, int, int], k: int) -> None:
    real, fake, features = both(shape)
    a, b = features(real).double(), features(fake).double()
    found = prdc.compute_prdc(real_features=a.numpy(), fake_features=b.numpy(), nearest_k=k)
    assert manifold(a, b, k)._asdict() == pytest.approx(found, abs=1e-4)
    assert {key: i.value for key, i in manifold_intervals(a, b, k).items()} == pytest.approx(found, abs=1e-4)
