"""The same numbers as torchmetrics and prdc."""

from __future__ import annotations

import prdc
import pytest
import torch
from torchmetrics.image import fid
from torchmetrics.image import kid as peer_kid

from sfumato.measure import frechet_distance, kid, manifold


@pytest.fixture
def sets() -> tuple[torch.Tensor, torch.Tensor]:
    first, second = (torch.randn(250, 16, generator=torch.Generator().manual_seed(s)) for s in (0, 1))
    return first.double(), second.double() * 0.8 + 0.2


def test_torchmetrics_kid(sets: tuple[torch.Tensor, torch.Tensor]) -> None:
    assert kid(*sets).value == pytest.approx(float(peer_kid.poly_mmd(*sets)), abs=1e-9)


def test_torchmetrics_frechet(sets: tuple[torch.Tensor, torch.Tensor]) -> None:
    moments = [m for x in sets for m in (x.mean(0), x.T.cov())]
    assert frechet_distance(*sets) == pytest.approx(float(fid._compute_fid(*moments)), rel=1e-6)


@pytest.mark.parametrize("k", [1, 3, 5])
def test_prdc(sets: tuple[torch.Tensor, torch.Tensor], k: int) -> None:
    real, fake = sets[0], sets[1][:180]
    found = prdc.compute_prdc(real_features=real.numpy(), fake_features=fake.numpy(), nearest_k=k)
    assert manifold(real, fake, k)._asdict() == pytest.approx(found, abs=1e-9)
