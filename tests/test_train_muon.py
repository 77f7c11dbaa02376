"""Muon: orthogonal updates, and which weights get them."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from sfumato.denoiser import Transformer, TransformerConfig, UNet, UNetConfig
from sfumato.train import muon
from sfumato.train.muon import Muon, hidden, orthogonalise


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("shape", [(24, 24), (16, 144), (96, 20)])
def test_the_update_is_roughly_the_orthogonal_factor(shape, half, monkeypatch) -> None:
    monkeypatch.setattr(muon, "bf16_pays", lambda: half)
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    u, s, v = torch.linalg.svd(matrix, full_matrices=False)
    found = orthogonalise(matrix)
    # in the basis of the matrix's own singular vectors the update is diagonal, with entries near 1
    core = u.T @ found @ v.T
    strong = s > 0.2 * s.max()  # weaker directions are partly rounding, in bf16
    core = core[strong][:, strong]
    assert (core - core.diag().diag()).abs().max() < 0.15
    assert 0.15 < core.diag().min() and 0.9 < core.diag().mean() < 1.5 and core.diag().max() < 2.0


def test_products_are_in_half_precision_only_where_it_pays(monkeypatch) -> None:
    matrix = torch.randn(16, 40, generator=torch.Generator().manual_seed(3))
    found = {}
    for half in (False, True):
        monkeypatch.setattr(muon, "bf16_pays", lambda half=half: half)
        found[half] = orthogonalise(matrix)
    rounded = found[False].bfloat16().float()
    assert 1e-4 < (found[True] - found[False]).abs().max() < 0.05  # the same update, coarsely
    assert (rounded - found[False]).abs().max() > 0  # float32 all the way: not numbers of bfloat16


def test_scale_does_not_matter_and_zero_stays_zero() -> None:
    matrix = torch.randn(12, 30, generator=torch.Generator().manual_seed(1))
    assert torch.allclose(orthogonalise(matrix), orthogonalise(1024 * matrix), atol=0.05)
    assert orthogonalise(torch.zeros(4, 6)).abs().max() == 0


def test_it_solves_least_squares() -> None:
    generator = torch.Generator().manual_seed(2)
    x, true = torch.randn(256, 16, generator=generator), torch.randn(8, 16, generator=generator)
    w = nn.Parameter(torch.zeros(8, 16))
    optimiser = Muon([w], lr=0.1)
    for step in range(200):
        optimiser.param_groups[0]["lr"] = 0.1 * (1 - step / 200)
        optimiser.zero_grad()
        (x @ (w - true).T).square().mean().backward()
        optimiser.step()
    assert (w - true).norm() < 0.02 * true.norm()


@pytest.mark.parametrize("net", [UNet(UNetConfig(attention=(2,))), Transformer(TransformerConfig(depth=1))])
def test_hidden_matrices_are_those_between_the_edges(net) -> None:
    chosen = {name for name, p in net.named_parameters() if hidden(name, p)}
    share = sum(p.numel() for n, p in net.named_parameters() if n in chosen) / sum(p.numel() for p in net.parameters())
    assert share > 0.5
    edges = [n for n, p in net.named_parameters() if n.startswith(("stem", "head", "embed", "level")) or p.ndim < 2]
    assert edges and not chosen & set(edges)
