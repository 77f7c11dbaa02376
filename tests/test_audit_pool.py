"""Work in a few threads: every result once, and never far ahead of the one who takes them."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

from sfumato.data.audit.pool import each


def test_the_pool_gives_each_result_once_and_stops_when_left() -> None:
    assert sorted(each(500, lambda k: k * k, 4, 5, None)) == [(k, k * k) for k in range(500)]
    before = threading.active_count()
    for _ in each(10_000, lambda k: k, 2, 5, None):
        break
    deadline = time.monotonic() + 5
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() <= before


def test_the_pool_does_not_run_ahead() -> None:
    begun: list[int] = []

    def taken() -> Iterator[int]:
        for k, _ in each(100_000, lambda k: begun.append(k), 2, 5, None):
            time.sleep(0.0005)
            yield k

    for _, _ in zip(range(50), taken(), strict=False):
        pass
    assert len(begun) < 50 + 64 + 8
