"""Work in a few threads or processes: every result once, and never far ahead of the one who takes them."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sfumato.data.audit.pool import each, each_apart, forks

linux = pytest.mark.skipif(sys.platform != "linux", reason="processes are split on Linux alone")


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


@linux
def test_processes_give_each_result_once_and_are_gone_when_left() -> None:
    assert forks()  # else what follows would try threads again
    found = list(each_apart(500, lambda k: (k * k, os.getpid()), 3, 5, None, None))
    assert sorted((k, square) for k, (square, _) in found) == [(k, k * k) for k in range(500)]
    assert len({pid for _, (_, pid) in found} - {os.getpid()}) == 3
    for _ in each_apart(10_000, lambda k: k, 2, 5, None, None):
        break
    assert not multiprocessing.active_children()


@linux
def test_a_late_item_and_one_that_crashes_cost_nobody_else_anything() -> None:
    def work(k: int) -> int:
        if k in (7, 200, 499):
            os.kill(os.getpid(), signal.SIGKILL)
        if k in (50, 51):
            time.sleep(60)
        return k

    began = time.monotonic()
    found = list(each_apart(500, work, 2, 0.5, "late", "crashed"))
    wrong = {k: value for k, value in found if value != k}
    assert wrong == {7: "crashed", 200: "crashed", 499: "crashed", 50: "late", 51: "late"}
    assert sorted(k for k, _ in found) == list(range(500)) and time.monotonic() - began < 20


def test_beside_other_threads_no_process_is_split() -> None:
    stop = threading.Event()
    other = threading.Thread(target=stop.wait)
    other.start()
    try:
        assert not forks()
        assert {pid for _, pid in each_apart(300, lambda k: os.getpid(), 2, 5, None, None)} == {os.getpid()}
    finally:
        stop.set()
        other.join()


@linux
def test_processes_end_when_the_one_who_takes_is_killed() -> None:
    code = """
import os, time
from sfumato.data.audit.pool import each_apart
for k, pid in each_apart(10**6, lambda k: time.sleep(0.001) or os.getpid(), 3, 60, None, None):
    print(pid, flush=True)
"""
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    pids = set()
    while len(pids) < 3:
        pids.add(int(parent.stdout.readline()))
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 20
    while any(_runs(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(_runs(pid) for pid in pids)


def _runs(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False
