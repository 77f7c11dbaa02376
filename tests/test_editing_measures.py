"""Measures of edits against other libraries, planted seams and lines, and numbers worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

from sfumato.core import SfumatoError
from sfumato.measure.editing import edge_f, feature_distance, inconsistency, psnr, seam_ratio, ssim


def pictures(n: int = 4, side: int = 32, seed: int = 0) -> torch.Tensor:
    """Smooth random ones."""
    rough = torch.randn(n, 3, side // 4, side // 4, generator=torch.Generator().manual_seed(seed))
    return functional.interpolate(rough, scale_factor=4, mode="bicubic").tanh()


def noise(like: torch.Tensor, seed: int = 9) -> torch.Tensor:
    return torch.randn(like.shape, generator=torch.Generator().manual_seed(seed))


def test_psnr_is_that_of_torchmetrics():
    real = pictures()
    made = (real + 0.1 * noise(real)).clamp(-1, 1)
    for k, value in enumerate(psnr(made, real).tolist()):
        peer = peak_signal_noise_ratio(made[k : k + 1], real[k : k + 1], data_range=2.0)
        assert value == pytest.approx(float(peer), abs=1e-4)
    assert psnr(real, real).isinf().all()


def test_psnr_counts_only_the_pixels_asked_for():
    real = torch.zeros(2, 3, 8, 8)
    where = torch.zeros(1, 1, 8, 8, dtype=torch.bool)
    where[..., :4, :4] = True
    made = torch.full_like(real, 0.7)
    made[..., :4, :4] = 0.2
    assert psnr(made, real, where).tolist() == pytest.approx([10 * math.log10(4 / 0.04)] * 2)
    with pytest.raises(SfumatoError, match="without any pixel"):
        psnr(made, real, torch.zeros(1, 1, 8, 8, dtype=torch.bool))
    with pytest.raises(SfumatoError, match="one by one"):
        psnr(made[:1], real)


def test_ssim_is_that_of_torchmetrics():
    real = pictures()
    for made in ((real + 0.1 * noise(real)).clamp(-1, 1), functional.avg_pool2d(real, 3, 1, 1), pictures(seed=5)):
        for k, value in enumerate(ssim(made, real).tolist()):
            pair = made[k : k + 1], real[k : k + 1]
            places = structural_similarity_index_measure(*pair, data_range=2.0, return_full_image=True)[1]
            assert value == pytest.approx(float(places[..., 5:-5, 5:-5].mean()), abs=1e-4)  # the window lies inside
    assert ssim(real, real).tolist() == pytest.approx([1.0] * 4)
    with pytest.raises(SfumatoError, match="at least 11x11"):
        ssim(real[..., :8], real[..., :8])


class Means:
    name = "means"

    def __call__(self, x0):
        return x0.mean((2, 3))


def test_feature_distance_is_of_pairs():
    real = pictures()
    assert feature_distance(Means(), real, real).abs().max() == 0
    moved = feature_distance(Means(), real + torch.tensor([0.3, 0.0, 0.0]).reshape(1, 3, 1, 1), real)
    assert moved.tolist() == pytest.approx([0.09 / 3 / 2] * 4, rel=1e-4)


@pytest.mark.parametrize("factor", [2, 4])
def test_inconsistency_is_in_levels_of_255(factor):
    large = pictures()
    small = functional.avg_pool2d(large, factor)
    assert inconsistency(large, small).max() < 1e-4
    assert inconsistency(large, small + 2 / 255).tolist() == pytest.approx([1.0] * 4, rel=1e-4)
    one = large.clone()
    one[:, :, 0, 0] += 0.5  # one pixel of one block: its share of the mean
    expected = 0.5 / factor**2 / small[0, 0].numel() * 127.5
    assert inconsistency(one, small).tolist() == pytest.approx([expected] * 4, rel=1e-3)
    with pytest.raises(SfumatoError, match="multiple"):
        inconsistency(large, small[..., :-1])


REGIONS = {
    "box": lambda y, x: (y >= 8) & (y < 24) & (x >= 8) & (x < 24),
    "half": lambda y, x: x >= len(x) // 2,
    "stripes": lambda y, x: x // 8 % 2 == 1,
    "diagonal": lambda y, x: x + y > 30,
}


def region(name: str, side: int = 32) -> torch.Tensor:
    y, x = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    return REGIONS[name](y, x)[None, None]


@pytest.mark.parametrize("name", REGIONS)
def test_a_planted_seam_is_found_and_a_smear_too(name):
    real, where = pictures(64, seed=1), region(name)
    assert tuple(seam_ratio(real, real, where)) == pytest.approx((1, 1, 1))
    seen = [seam_ratio(real + step * where.float(), real, where) for step in (0.05, 0.1, 0.2, 0.4)]
    assert [s.value for s in seen] == sorted(s.value for s in seen) and seen[0].value > 1.005 and seen[2].low > 1.1
    blurred = torch.where(where, functional.avg_pool2d(real, 5, 1, 2), functional.avg_pool2d(real, 5, 1, 2))
    assert seam_ratio(blurred, real, where).high < 0.95


def test_a_step_is_of_neighbours_inside_and_outside():
    """A ramp of 0.1 a pixel, and 0.3 more inside the right half: 8 rows of one step of 0.4 instead of 0.1."""
    real = (0.1 * torch.arange(8.0)).expand(3, 1, 8, 8)
    where = torch.arange(8).expand(1, 1, 8, 8) >= 4
    assert seam_ratio(real + 0.3 * where, real, where).value == pytest.approx(4.0)
    away = torch.arange(8).expand(1, 1, 8, 8) == 1  # a seam elsewhere is not counted
    assert seam_ratio(real + 0.3 * away, real, where).value == pytest.approx(1.0)


def test_the_interval_of_a_seam_holds_the_truth():
    """Other pictures of the same kind have no seam: 95 % of intervals hold 1 (here, of 100, at least 88)."""
    held = 0
    for seed in range(100):
        made, real = pictures(24, 16, 2 * seed), pictures(24, 16, 2 * seed + 1)
        low, high = seam_ratio(made, real, region("half", 16))[1:]
        held += low < 1 < high
    assert held >= 88


def test_a_seam_needs_a_border():
    real = pictures()
    for where in (torch.ones(1, 1, 32, 32, dtype=torch.bool), torch.zeros(1, 1, 32, 32, dtype=torch.bool)):
        with pytest.raises(SfumatoError, match="no border"):
            seam_ratio(real, real, where)
    with pytest.raises(SfumatoError, match="at least 3"):
        seam_ratio(real[:2], real[:2], region("half"))


def line(column: int, side: int = 16) -> torch.Tensor:
    found = torch.zeros(1, 1, side, side, dtype=torch.bool)
    found[..., column] = True
    return found


def test_equal_lines_and_lines_within_tolerance_score_one():
    for tolerance in (0, 1, 2):
        assert edge_f(line(5), line(5), tolerance).item() == 1
        assert edge_f(line(5 + tolerance), line(5), tolerance).item() == 1
        assert edge_f(line(6 + tolerance), line(5), tolerance).item() == 0
    drawing = torch.rand(3, 20, 20, generator=torch.Generator().manual_seed(0)) < 0.1
    shifted = torch.roll(drawing[:, 2:-2, 2:-2], (1, -1), (1, 2))  # what goes over the edge comes in at the other
    inner = torch.nn.functional.pad(drawing[:, 3:-3, 3:-3], (1, 1, 1, 1))
    moved = torch.roll(inner, (1, -1), (1, 2))
    assert edge_f(inner, inner).tolist() == [1] * 3 and edge_f(moved, inner).tolist() == [1] * 3
    assert edge_f(shifted, drawing[:, 2:-2, 2:-2], 0).max() < 0.5


def test_the_score_is_the_harmonic_mean_of_two_shares():
    """Two of four wanted lines are drawn, and one that nobody asked for: P = 2/3, R = 1/2."""
    wanted = line(1) | line(5) | line(9) | line(13)
    found = line(1) | line(5) | line(11)
    assert edge_f(found, wanted).item() == pytest.approx(2 * (2 / 3) * 0.5 / (2 / 3 + 0.5))
    assert edge_f(wanted, found).item() == pytest.approx(edge_f(found, wanted).item())


def test_empty_lines():
    nothing = torch.zeros(1, 1, 16, 16, dtype=torch.bool)
    assert edge_f(nothing, nothing).item() == 1
    assert edge_f(nothing, line(3)).item() == 0 and edge_f(line(3), nothing).item() == 0
    with pytest.raises(SfumatoError, match="line maps"):
        edge_f(nothing, nothing[..., :-1])
