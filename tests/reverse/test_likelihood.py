"""Exact log-likelihood against closed forms."""

from __future__ import annotations

import math

import pytest
import torch
from truth import PROCESSES, gaussian, mixture, name

from sfumato.core import Noise, SfumatoError
from sfumato.forward import Absorbing, VPLinear
from sfumato.measure.oracles import Gaussian, Sequences
from sfumato.reverse import UpAndDown, bits_per_dimension, log_likelihood


@pytest.mark.parametrize("process", PROCESSES, ids=name)
@pytest.mark.parametrize("make", [gaussian, mixture])
def test_log_likelihood_is_the_density(make, process):
    oracle = make(process)
    x0 = oracle.draw(Noise.of(1, 128))
    if make is gaussian:
        normal = torch.distributions.Normal(oracle.mean.double(), oracle.covariance.double().sqrt())
        truth = normal.log_prob(x0.double()).sum(1)
    else:
        truth = oracle.log_prob(x0)
    got = log_likelihood(oracle, x0, Noise.of(2, 128), trace="exact")
    assert (got - truth).abs().mean() < 0.01
    assert (got - truth).abs().max() < 0.1


@pytest.mark.parametrize("process", PROCESSES, ids=name)
def test_bits_per_dimension_of_a_gaussian(process):
    """16 x 16 grey noise of spread 0.25: entropy log2(0.25 sqrt(2 pi e) 127.5) bits an entry, to 1 %."""
    shape = (1, 16, 16)
    oracle = Gaussian(process, torch.full(shape, 0.1), torch.full(shape, 0.25**2))
    x0 = oracle.draw(Noise.of(3, 16))
    truth = math.log2(0.25 * math.sqrt(2 * math.pi * math.e) * 127.5)
    z = ((x0 - 0.1) / 0.25).double()
    of_these = math.log2(0.25 * math.sqrt(2 * math.pi) * 127.5) + 0.5 * z.square().mean().item() / math.log(2)
    got = bits_per_dimension(oracle, x0, Noise.of(4, 16), dequantise=False).mean().item()
    assert got == pytest.approx(of_these, rel=0.002)
    assert got == pytest.approx(truth, rel=0.01)
    levels = torch.round((x0 + 1) * 127.5) / 127.5 - 1  # as an 8-bit file would hold them
    again = bits_per_dimension(oracle, levels, Noise.of(4, 16)).mean().item()
    assert again == pytest.approx(truth, rel=0.01)


def test_hutchinson_is_unbiased_and_exact_for_round_data():
    """On a correlated Gaussian many probes approach the exact trace; the probes differ from sample to sample."""
    covariance = torch.tensor([[0.3, 0.2, 0.0], [0.2, 0.4, -0.1], [0.0, -0.1, 0.2]])
    oracle = Gaussian(VPLinear(), torch.zeros(3), covariance)
    x0 = oracle.draw(Noise.of(5, 64))
    truth = torch.distributions.MultivariateNormal(torch.zeros(3).double(), covariance.double()).log_prob(x0.double())
    exact = log_likelihood(oracle, x0, Noise.of(6, 64), trace="exact")
    assert (exact - truth).abs().max() < 0.05
    one = log_likelihood(oracle, x0, Noise.of(6, 64)) - truth
    many = log_likelihood(oracle, x0, Noise.of(6, 64), probes=16) - truth
    assert one.std() > 0.05
    assert many.std() < one.std() / 2
    assert abs(many.mean().item()) < 4 * many.std().item() / 8 + 0.01


def test_likelihood_refuses_what_it_cannot_do():
    oracle = gaussian(VPLinear())
    with pytest.raises(SfumatoError, match="only goes down"):
        log_likelihood(oracle, torch.zeros(1, 2), Noise.of(0, 1), UpAndDown()(4, VPLinear()))
    with pytest.raises(SfumatoError, match="hutchinson"):
        log_likelihood(oracle, torch.zeros(1, 2), Noise.of(0, 1), trace="no")
    tiles = Sequences(Absorbing(2), torch.zeros(1, 2, dtype=torch.int64), torch.ones(1))
    with pytest.raises(SfumatoError, match="linear"):
        log_likelihood(tiles, torch.zeros(1, 2), Noise.of(0, 1))
