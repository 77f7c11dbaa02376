"""Work on many items in a few threads or processes, in bounded memory, with a limit of time for each item."""

from __future__ import annotations

import ctypes
import mmap
import multiprocessing
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from typing import Any

import torch

AHEAD = 64  # results a reader may be ahead of the one who takes them
BATCH, FLUSH = 32, 0.2  # results that a process hands over at once, and seconds after which it does in any case
WORTH = 128  # items that repay the start of processes


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


def forks() -> bool:
    """Whether a process can be split here: on Linux, while no other thread could be stopped in the middle of something."""
    alone = threading.active_count() == 1 and not multiprocessing.current_process().daemon
    return sys.platform == "linux" and alone


def each_apart(
    n: int, work: Callable[[int], Any], workers: int, seconds: float, late: Any, crashed: Any
) -> Iterator[tuple[int, Any]]:
    """`each`, in processes of their own where that can be had; (i, crashed) for an item that ends its process.

    For work of many small steps: two threads of it wait for each other's hold on the interpreter, and take longer than
    one. A process that is late is ended, and another goes on behind the item.
    """
    if workers < 2 or n < WORTH or not forks():
        yield from each(n, work, workers, seconds, late)
        return
    parts = [_Part(range(first, n, workers), work) for first in range(workers)]
    try:
        while running := [part for part in parts if part.left]:
            ready = wait([part.results for part in running], timeout=0.5)
            for part in running:
                if part.results in ready:
                    taken = part.take()
                    if taken is None:
                        yield part.give_up(), crashed
                    else:
                        yield from taken
                elif part.quiet() > seconds:
                    yield part.give_up(), late
    finally:
        for part in parts:
            part.end()


class _Part:
    """Items that one process works on in their order; `left`: those whose results have not come."""

    def __init__(self, items: Sequence[int], work: Callable[[int], Any]) -> None:
        self.left, self._work = list(items)[::-1], work
        self._at = mmap.mmap(-1, 8)  # the place of the item in hand, which the process writes and this one reads
        self._begin()

    def _begin(self) -> None:
        self._at[:] = (0).to_bytes(8, "little")
        self._seen, self._since = -1, time.monotonic()
        self.results, end = multiprocessing.Pipe(duplex=False)
        told = (self.left[::-1], self._work, self._at, self.results, end)
        self._process = multiprocessing.get_context("fork").Process(target=_work, args=told, daemon=True)
        self._process.start()
        end.close()
        self._came = 0

    def take(self) -> list[tuple[int, Any]] | None:
        """What the process hands over; None when it has ended instead."""
        try:
            values = self.results.recv()
        except (EOFError, OSError):
            return None
        self._came += len(values)
        return [(self.left.pop(), value) for value in values]

    def quiet(self) -> float:
        """Seconds since the process was first seen at the item it is at."""
        at = int.from_bytes(self._at[:], "little")
        if at != self._seen:
            self._seen, self._since = at, time.monotonic()
        return time.monotonic() - self._since

    def give_up(self) -> int:
        """End the process, go on with another behind the item in hand, and tell which that was."""
        self.end()
        ahead = max(0, int.from_bytes(self._at[:], "little") - self._came)  # done, not handed over: done again
        item = self.left.pop(-1 - ahead)
        if self.left:
            self._begin()
        return item

    def end(self) -> None:
        self._process.kill()
        self._process.join()
        self.results.close()


def _work(items: list[int], work: Callable[[int], Any], at: mmap.mmap, taken: Connection, results: Connection) -> None:
    """What a process does: the items in their order."""
    taken.close()  # the other end: while it is held here, the end of the one who takes would not be seen
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the one who takes the results
    done: list[Any] = []
    flushed = time.monotonic()
    try:
        for place, item in enumerate(items):
            at[:] = place.to_bytes(8, "little")
            done.append(work(item))
            if len(done) == BATCH or place + 1 == len(items) or time.monotonic() - flushed > FLUSH:
                results.send(done)
                done, flushed = [], time.monotonic()
    except BrokenPipeError:  # nobody takes them any more
        pass


def give_back() -> None:
    """Ask the C library (glibc alone can) to return freed memory: what is kept in pieces grows with the hours of a pass."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


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
        give_back()
