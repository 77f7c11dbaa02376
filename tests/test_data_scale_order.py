"""The order of a set that is not in memory: shuffled stretches, shuffled windows, a pure function of the step."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sfumato.core import SfumatoError
from sfumato.data.order import Order, Window


@pytest.mark.parametrize(
    "n,batch,rows,block", [(100, 7, 32, 4), (97, 10, 30, 8), (5, 8, 100, 64), (64, 64, 1, 1), (33, 4, 8, 64)]
)
def test_windowed_epochs_visit_every_picture_once(n: int, batch: int, rows: int, block: int) -> None:
    order = Order(n, batch, 3, Window(rows, block))
    flat = torch.cat([order.at(k) for k in range(4 * n)])
    epochs = flat[: len(flat) // n * n].reshape(-1, n)
    assert (epochs.sort(1).values == torch.arange(n)).all()
    if rows > 1 and n > 5:
        assert len({tuple(e.tolist()) for e in epochs}) == len(epochs)


def test_windowed_order_is_pure() -> None:
    forward = [Order(1000, 32, 1, Window(128, 16)).at(k).tolist() for k in range(80)]
    order = Order(1000, 32, 1, Window(128, 16))
    assert [order.at(k).tolist() for k in reversed(range(80))] == forward[::-1]
    order.at(0).zero_()
    assert order.at(0).tolist() == forward[0]
    assert Order(1000, 32, 2, Window(128, 16)).at(0).tolist() != forward[0]
    for wrong in (lambda: Window(0, 4), lambda: Window(4, 0)):
        with pytest.raises(SfumatoError):
            wrong()


def test_a_window_reads_few_stretches_of_the_disk() -> None:
    """256 places of a window come from 16 stretches of 16, one more where a stretch is cut; the stretches from anywhere."""
    order = Order(16_384, 256, 0, Window(256, 16))
    stretches = [set((order.at(k) // 16).tolist()) for k in range(64)]
    assert all(len(s) <= 17 for s in stretches)
    assert len(set().union(*stretches)) == 1024
    assert np.mean([max(s) - min(s) for s in stretches]) > 800  # of 1,024: not neighbours
    inside = order.at(0) // 16
    assert (inside[1:] != inside[:-1]).float().mean() > 0.8  # shuffled within the window


def test_windowed_shuffling_is_uniform_over_epochs() -> None:
    """Each place holds each picture equally often: chi-squared with 11 * 11 degrees of freedom."""
    counts, order = torch.zeros(12, 12), Order(12, 12, 5, Window(4, 2))
    for epoch in range(3_000):
        counts[torch.arange(12), order.at(epoch)] += 1
    expected = 3_000 / 12
    assert ((counts - expected) ** 2 / expected).sum() < 187  # its 99.99th percentile


def test_a_large_windowed_order_is_cheap() -> None:
    """A hundred million pictures: only the stretches are drawn anew, not the pictures."""
    order = Order(10**8, 32, 0, Window(8192, 4096))
    assert len(set(order.at(10**6).tolist())) == 32
