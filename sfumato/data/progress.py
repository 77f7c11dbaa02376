"""A progress line on stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")


def progress(items: Iterable[T], total: int, label: str) -> Iterator[T]:
    """Pass items through; on a terminal, draw how many of `total` are done once the work lasts beyond half a second."""
    shown, start, next_draw = sys.stderr.isatty(), time.monotonic(), 0.5
    drawn = False
    for done, item in enumerate(items, 1):
        yield item
        spent = time.monotonic() - start
        if shown and (spent >= next_draw or (drawn and done == total)):
            left = spent / done * (total - done)
            print(f"\r{label} {done}/{total}, {left:.0f} s left \033[K", end="", file=sys.stderr, flush=True)
            next_draw, drawn = spent + 0.1, True
    if drawn:
        print(file=sys.stderr)
