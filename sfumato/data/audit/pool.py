"""Work on many items in a few threads, in bounded memory, with a limit of time for each item."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch

AHEAD = 64  # results a reader may be ahead of the one who takes them


def each(n: int, work: Callable[[int], Any], workers: int, seconds: float, late: Any) -> Iterator[tuple[int, Any]]:
    """(i, work(i)) for i in 0 ... n - 1 as they are done; (i, late) for one that takes more than `seconds`.

    A thread cannot be stopped: one that is late is left behind as a daemon and replaced. `work` must not raise.
    """
    todo = iter(range(n))
    lock, results = threading.Lock(), queue.Queue(AHEAD)
    running: dict[int, tuple[int, float]] = {}  # thread number -> item, start
    given_up: set[int] = set()
    closed = threading.Event()

    def run(me: int) -> None:
        while not closed.is_set():
            with lock:
                item = next(todo, None)
                if item is None:
                    running.pop(me, None)
                    return
                running[me] = (item, time.monotonic())
            value = work(item)
            with lock:
                if me in given_up:
                    return
                running.pop(me)
            results.put((item, value))

    def start(me: int) -> None:
        threading.Thread(target=run, args=(me,), daemon=True, name=f"audit-{me}").start()

    started = min(workers, n)
    for me in range(started):
        start(me)
    done, checked = 0, time.monotonic()
    try:
        while done < n:
            try:
                yield results.get(timeout=0.5)
                done += 1
            except queue.Empty:
                pass
            now = time.monotonic()
            if now - checked < 0.5:
                continue
            checked = now
            with lock:
                stuck = [(me, item) for me, (item, since) in running.items() if now - since > seconds]
                for me, _ in stuck:
                    given_up.add(me)
                    running.pop(me)
            for _, item in stuck:
                start(started)
                started += 1
                yield item, late
                done += 1
    finally:
        closed.set()
        while True:  # a thread that waits to hand over its result must be able to end
            try:
                results.get_nowait()
            except queue.Empty:
                break


def on_every_core(work: Callable[[Any], Any], items: Iterable[Any]) -> list[Any]:
    """[work(item), ...] in order, by as many threads as torch may use, each of whose tensors are worked on by one.

    Small tensors gain little from two threads within an operation, and much from two blocks at a time.
    """
    threads = torch.get_num_threads()
    pool = ThreadPoolExecutor(threads, "audit", initializer=torch.set_num_threads, initargs=(1,))
    try:
        return list(pool.map(torch.inference_mode()(work), items))
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)
