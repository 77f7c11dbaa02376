"""Rows kept on the disk come back as they were written, and a full disk is one clear line."""

from __future__ import annotations

import numpy as np
import pytest

from sfumato.core import SfumatoError
from sfumato.data.audit.table import Table

KIND = np.dtype([("number", "u4"), ("parts", "u1", (3, 2))])


def test_rows_come_back_in_any_order() -> None:
    draw = np.random.default_rng(0)
    values = np.zeros(500, KIND)
    values["number"], values["parts"] = np.arange(500), draw.integers(0, 256, (500, 3, 2))
    table = Table(KIND)
    for row in draw.permutation(400):
        table[row] = values[row]
    table[400] = values[400:]
    for rows in (np.arange(500), np.array([7]), draw.integers(0, 500, 300), np.array([3, 4, 5, 5, 6, 2, 1, 499])):
        assert (table[rows] == values[rows]).all()
        assert (table.column("parts")[rows] == values["parts"][rows]).all()
    assert len(table[np.arange(0)]) == 0


def test_a_full_disk_is_told() -> None:
    table = Table(KIND)
    table._file = open("/dev/full", "wb", buffering=0)
    with pytest.raises(SfumatoError, match="TMPDIR"):
        table[0] = np.zeros((), KIND)
