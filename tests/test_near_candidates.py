"""The search for near-duplicates: true pairs come through, others fall out early, and the work stays in bounds."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sfumato.data.audit import align, candidates
from sfumato.data.audit.candidates import _Index


def smooth(n: int, seed: int, sigma: float = 2.0) -> torch.Tensor:
    """Random smooth pictures, float [n, 1, 32, 32], contrast about 50 levels."""
    draw = np.random.default_rng(seed)
    noise = torch.from_numpy(draw.normal(0, 180 * sigma, (n, 1, 32, 32)).astype(np.float32))
    return (align.blur(noise, sigma) + 128).clamp(0, 255)


def thumbs(x: torch.Tensor) -> np.ndarray:
    return x[:, 0].round().to(torch.uint8).numpy()


def found(pictures: np.ndarray) -> set[tuple[int, int]]:
    several = candidates.candidates(
        pictures, np.arange(len(pictures)), lambda *pairs: torch.stack(pairs[:2], 1).tolist()
    )
    assert len(several) == -(-len(pictures) // candidates.ASKING)
    pairs = [tuple(pair) for some in several for pair in some]
    assert all(a != b for a, b in pairs)
    assert len(set(pairs)) == len(pairs), "a pair was given twice"
    return {(min(p), max(p)) for p in pairs}


def test_copies_among_many_are_found_and_few_others_are_looked_at(monkeypatch):
    """2,000 pictures in 62 cells, 200 of them moved and mirrored copies."""
    monkeypatch.setattr(candidates, "CELL", 32)
    originals = smooth(1800, 0)
    move = torch.tensor([[[-0.93, 0.01, 0.03], [-0.01, 0.95, -0.02]]]).expand(200, 2, 3)
    copies, _ = align.warp(originals[:200], move)
    asked = found(thumbs(torch.cat([originals, copies])))
    true = {(k, 1800 + k) for k in range(200)}
    assert len(asked & true) >= 198
    assert len(asked - true) < 100


def test_pictures_of_one_kind_that_differ_are_left_out(monkeypatch):
    """One picture with a blot of 4x4 at 49 places: correlated by over 0.9, and no move lays one on the other."""
    pictures = thumbs(smooth(1, 1, 3.0).expand(49, -1, -1, -1)).copy()
    for k, picture in enumerate(pictures):
        part = picture[2 + k // 7 * 4 :, 2 + k % 7 * 4 :][:4, :4]
        part[:] = np.where(part > 127, part - 110, part + 110)
    asked = found(pictures)
    monkeypatch.setattr(candidates, "LEFT", (999.0,) * 3)
    assert len(found(pictures)) > 100 > 10 * len(asked)


@pytest.mark.parametrize("cells", [1, 40])
def test_the_index_finds_the_nearest(cells, monkeypatch):
    """Against all products: everything in one cell, and nearly all of the truly near in forty."""
    draw = torch.Generator().manual_seed(0)
    vectors = torch.randn(2000, 16, generator=draw)
    vectors[1000:] = vectors[:1000] + 0.3 * torch.randn(1000, 16, generator=draw)
    vectors = vectors / vectors.norm(dim=1, keepdim=True)
    monkeypatch.setattr(candidates, "CELL", 2000 // cells)
    stored = vectors.half()
    looks = vectors[:300, None] + 0.05 * torch.randn(300, 3, 16, generator=draw)
    looks = looks / looks.norm(dim=2, keepdim=True)
    like, whose = _Index(stored).nearest(looks, torch.arange(300))
    truth = (looks @ stored.float().T).amax(1)
    truth[torch.arange(300), torch.arange(300)] = -2.0
    best, order = truth.topk(candidates.NEAREST)
    assert not (whose == torch.arange(300)[:, None])[like > -2].any()
    assert torch.allclose(like, truth.gather(1, whose), atol=1e-5)
    if cells == 1:
        assert torch.allclose(like, best, atol=1e-5)
    else:
        close = best > 0.8
        assert close.sum() >= 290 and (order[:, :, None] == whose[:, None]).any(2)[close].float().mean() > 0.98


def test_pictures_that_share_one_cell_are_searched_in_stretches(monkeypatch):
    """What is found does not depend on how many stretches a cell is searched in."""
    vectors = torch.nn.functional.normalize(torch.randn(700, 16, generator=torch.Generator().manual_seed(1)), dim=1)
    index = _Index(vectors.half())
    assert len(index.centres) == 1
    looks = vectors[:100, None]
    at_once = index.nearest(looks, torch.arange(100))
    monkeypatch.setattr(candidates, "CELL", 10)
    assert len(list(index._parts(torch.ones(1, dtype=torch.bool)))) == 18
    in_parts = index.nearest(looks, torch.arange(100))
    assert torch.allclose(at_once[0], in_parts[0], atol=1e-6)
    assert (at_once[1] == in_parts[1]).float().mean() > 0.99


def test_a_set_smaller_than_the_neighbours_asked_for():
    pictures = thumbs(smooth(3, 5))
    assert found(np.concatenate([pictures, pictures[:1]])) == {(0, 3)}


def test_a_step_foretells_what_it_leaves():
    """Where two pictures differ by a small move the step finds it; pairs that differ in kind go no further."""
    first = align.blur(smooth(64, 6, 2.5)[:, :, 8:24, 8:24], 0.7)
    move = torch.tensor([[[1.02, 0.0, 0.01], [0.01, 0.98, -0.02]]]).expand(64, 2, 3)
    second = 0.9 * align.warp(first, move)[0] + 8
    start = torch.eye(2, 3).expand(64, 2, 3)
    kept, affine, left = align.register(first, first, second, start, (20.0,))
    assert kept.tolist() == list(range(64)) and (left < 6).all()
    assert (affine - move).abs().mean() < 0.5 * (start - move).abs().mean()
    mixed = torch.cat([second[:32], second[32:].roll(1, 0)])
    kept, affine, _ = align.register(first, first, mixed, start, (30.0, 20.0))
    assert set(range(32)) <= set(kept.tolist()) and len(kept) < 36 and len(affine) == len(kept)
