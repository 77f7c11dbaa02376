"""Rows of fixed size in a file without a name: a set of any size takes no memory for what is not being worked on."""

from __future__ import annotations

import tempfile
from threading import Lock

import numpy as np

from sfumato.core import SfumatoError


class Table:
    """Rows of one dtype, written and read by number, by one thread or several; gone with the last one who holds it."""

    def __init__(self, dtype: np.dtype) -> None:
        self.dtype = dtype
        self._file, self._lock = tempfile.TemporaryFile(buffering=0), Lock()

    def __setitem__(self, row: int, value: np.ndarray) -> None:
        """Write the rows of `value` from number `row` on; raises SfumatoError when the disk is full."""
        try:
            with self._lock:
                self._file.seek(row * self.dtype.itemsize)
                left = memoryview(np.ascontiguousarray(value, self.dtype).reshape(-1).view("u1"))
                while left:
                    left = left[self._file.write(left) :]
        except OSError as error:
            raise SfumatoError(
                f"no place for about 2 kB per picture in {tempfile.gettempdir()} ({error.strerror}): free some, or set "
                "TMPDIR to a folder on another disk"
            ) from error

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        """A copy of the rows int [B] -> [B]; rows that follow each other are read at once."""
        found = np.empty(len(rows), self.dtype)
        flat, size = memoryview(found.view("u1").reshape(-1)), self.dtype.itemsize
        breaks = np.flatnonzero(np.diff(rows) != 1) + 1
        for first, last in zip([0, *breaks.tolist()], [*breaks.tolist(), len(rows)], strict=True):
            if last > first:
                with self._lock:
                    self._file.seek(int(rows[first]) * size)
                    self._file.readinto(flat[first * size : last * size])
        return found

    def column(self, name: str) -> Column:
        return Column(self, name)


class Column:
    """One field of a table, indexed by rows like an array."""

    def __init__(self, table: Table, name: str) -> None:
        self._table, self._name = table, name

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        return self._table[rows][self._name]
