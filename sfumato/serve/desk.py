"""The desk: takes jobs, lets clients take turns, runs several at once on the one network thread, and tells how they go."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sfumato.core import Cond, Denoise, Posterior, SfumatoError, Time
from sfumato.guide import Guide
from sfumato.guide.wrap import Guided
from sfumato.serve.fuse import Cancelled, Fuser
from sfumato.serve.jobs import Ask, Made, carry_out, options_of, steps_of
from sfumato.serve.policy import Classifier, Rules, Verdict, check, check_picture, rules
from sfumato.serve.queue import Full, Queue
from sfumato.serve.shelf import Shelf
from sfumato.serve.store import Job, Store

PICTURES = 16  # drawn at once; more would make nobody's faster
LONGEST = 900.0  # seconds of one job
LOG = logging.getLogger("sfumato.serve")


class Refused(SfumatoError):
    """The rules forbid it; `verdict` says which."""

    def __init__(self, verdict: Verdict) -> None:
        super().__init__(verdict.message or f"refused by the rule {verdict.rule!r}")
        self.verdict = verdict


class Closing(Exception):
    """The server takes no more jobs."""


@dataclass
class Live:
    """How a job goes: step i of `of`, the newest preview (uint8 [n, H, W, C]) while somebody watches, and those previews
    that were asked to be kept, by step."""

    job: str
    of: int = 0
    i: int = 0
    watchers: int = 0
    preview: np.ndarray | None = None
    keep: frozenset[int] = frozenset()
    kept: dict[int, np.ndarray] = field(default_factory=dict)
    over: bool = False
    stop: threading.Event = field(default_factory=threading.Event)
    changed: asyncio.Event = field(default_factory=asyncio.Event)


class Desk:
    """All of it on one event loop, but for the jobs themselves, which run in threads."""

    def __init__(
        self, store: Store, shelf: Shelf, policy: Rules | None = None, classifier: Classifier | None = None
    ) -> None:
        self.store, self.shelf, self.fuser, self.queue = store, shelf, Fuser(), Queue()
        self.rules, self.classifier = policy or rules(), classifier
        self.closing = False
        self.service = 2.0  # seconds per job, a running mean
        self.totals: dict[str, float] = dict.fromkeys(("done", "failed", "cancelled", "refused", "full"), 0)
        self.totals |= {"pictures": 0, "seconds": 0.0, "waited": 0.0}
        self._lives: dict[str, Live] = {}
        self._pool = ThreadPoolExecutor(PICTURES, thread_name_prefix="job")
        self._running: dict[str, int] = {}  # pictures of each running job
        self._loop: asyncio.AbstractEventLoop | None = None

    def open(self) -> None:
        """Go on with what waited when the server last stopped."""
        self._loop = asyncio.get_running_loop()
        for job in self.store.recover():
            self._enter(job)
        self._pump()

    async def close(self, seconds: float = 20.0) -> None:
        """Let the running jobs end, at most so long; whatever is left then waits for the next start."""
        self.drain()
        until = time.monotonic() + seconds
        while self._running and time.monotonic() < until:
            await asyncio.sleep(0.05)
        for live in self._lives.values():
            live.stop.set()
        self.fuser.close()
        await asyncio.to_thread(self._pool.shutdown, True)
        self.store.close()

    def drain_soon(self) -> None:
        """`drain`, asked for by a signal."""
        self._call(self.drain)

    def drain(self) -> None:
        """Take no new jobs and begin none; waiting jobs whose client would wait too are cancelled."""
        self.closing = True
        for name in list(self.queue):
            job = self.store.job(name)
            if job is not None and job.attached:
                self.cancel(name, "the server is stopping")
        for live in self._lives.values():
            self._tell(live)

    def accept(self, ask: Ask, client: str, attached: bool = False, parents: tuple[str, ...] = ()) -> Job:
        """A job in the queue, on the disk when this returns.

        Raises Full, Refused by the rules, Closing, and SfumatoError for what cannot be done.
        """
        if self.closing:
            raise Closing
        try:
            self.queue.check(client, self.service)
        except Full:
            self.totals["full"] += 1
            raise
        for text in filter(None, ask.texts):
            self._judge(check(text, self.rules))
        for name in ask.parents:
            if self.store.file(name) is None:
                raise SfumatoError(f"no file {name[:80]!r} was uploaded or made here")
        options_of(self.shelf.get(ask.model).model, ask)
        job = self.store.accept(
            ask.task, client, dataclasses.asdict(ask), attached, tuple(dict.fromkeys((*parents, *ask.parents)))
        )
        self._enter(job)
        self._pump()
        return job

    def cancel(self, name: str, why: str = "cancelled") -> bool:
        """Whether the job had not ended yet: it has now, its place is free, and its thread ends within one step."""
        if not self.store.end(name, "cancelled", error={"message": why}):
            return False
        self.queue.drop(name)
        self.totals["cancelled"] += 1
        if (live := self._lives.get(name)) is not None:
            live.stop.set()
        self._running.pop(name, None)
        self._over(name)
        self._pump()
        return True

    def live(self, name: str) -> Live | None:
        """How a job goes that has not ended; None for others."""
        return self._lives.get(name)

    @property
    def running(self) -> list[Live]:
        return [self._lives[name] for name in self._running if name in self._lives]

    async def finished(self, name: str) -> Job:
        """The job once it has ended."""
        while (live := self._lives.get(name)) is not None and not live.over:
            await live.changed.wait()
        job = self.store.job(name)
        assert job is not None
        return job

    def _judge(self, verdict: Verdict) -> None:
        if not verdict.allowed:
            self.totals["refused"] += 1
            raise Refused(verdict)

    def _enter(self, job: Job) -> None:
        self._lives[job.id] = Live(job.id)
        self.queue.add(job.id, job.client)

    def _pump(self) -> None:
        while len(self.queue) and not self.closing:
            name = self.queue.take()
            job = self.store.job(name)
            n = job.request["n"]
            if self._running and sum(self._running.values()) + n > PICTURES:
                self.queue.put_back(name, job.client)
                break
            self._running[name] = n
            self._pool.submit(self._run, job, self._lives[name])
        for name in self.queue:  # their positions are others now
            self._tell(self._lives[name])

    def _tell(self, live: Live) -> None:
        live.changed.set()
        live.changed = asyncio.Event()

    def _call(self, what: Callable[..., None], *told: Any) -> None:
        with contextlib.suppress(RuntimeError, AttributeError):  # no loop, or a closed one: nobody listens
            self._loop.call_soon_threadsafe(what, *told)

    def _run(self, job: Job, live: Live) -> None:
        began, state = time.monotonic(), "left"
        try:
            if self.store.begin(job.id):
                state = self._draw(job, live)
        except Cancelled:
            state = "left"  # what was cancelled has its end already; at a shutdown it waits for the next start
        except SfumatoError as error:
            state = self._failed(job, {"message": str(error)} | _verdict(error))
        except Exception as error:
            LOG.exception("job failed", extra={"told": {"job": job.id}})
            state = self._failed(job, {"message": f"a fault of the server ({type(error).__name__})", "fault": True})
        finally:
            self._call(self._ended, job, state, time.monotonic() - began)

    def _draw(self, job: Job, live: Live) -> str:
        ask = Ask.of(job.request)
        offered = self.shelf.get(ask.model)
        live.of = steps_of(offered.model, ask)
        live.keep = frozenset(round(live.of * (k + 1) / (ask.partials + 1)) for k in range(ask.partials))
        model = self.fuser.shared(offered.model, watch=self._watch(live, offered.model))
        with self.fuser.joined():
            made = carry_out(offered, model, ask, self.store)
        for image in made.images if self.classifier else ():
            self._judge(check_picture(image, self.rules, self.classifier))
        return "done" if self.store.end(job.id, "done", self._kept(made)) else "left"

    def _kept(self, made: Made) -> dict[str, Any]:
        files = []
        for data, image in zip(made.files, made.images, strict=True):
            stored = self.store.keep(data, "image/png", image.size)
            files.append({"hash": stored.hash, "width": stored.width, "height": stored.height})
        return {"files": files, **made.told}

    def _failed(self, job: Job, error: dict[str, Any]) -> str:
        return "failed" if self.store.end(job.id, "failed", error=error) else "left"

    def _ended(self, job: Job, state: str, seconds: float) -> None:
        self._running.pop(job.id, None)
        if state in self.totals:
            self.totals[state] += 1
        if state == "done":
            self.service += 0.1 * (seconds - self.service)
            self.totals["pictures"] += job.request["n"]
            self.totals["seconds"] += seconds
            self.totals["waited"] += max(0.0, time.time() - seconds - job.created)
        told = {"job": job.id, "state": state, "seconds": round(seconds, 3), "client": job.client}
        LOG.info("job ended", extra={"told": told})
        self._over(job.id)
        self._pump()

    def _over(self, name: str) -> None:
        live = self._lives.pop(name, None)
        if live is not None:
            live.over = True
            self._tell(live)

    def _watch(self, live: Live, model: Any) -> Guide:
        """Counts the steps, keeps previews, and ends the job when nobody wants it any more."""
        last: list[float] = []
        until = time.monotonic() + LONGEST

        def watch(denoise: Denoise) -> Denoise:
            def believe(x_t: Any, t: Time, cond: Cond) -> Posterior:
                if live.stop.is_set():
                    raise Cancelled
                if time.monotonic() > until:
                    raise SfumatoError(f"this took longer than {LONGEST:.0f} s: ask for fewer or smaller pictures")
                belief = denoise(x_t, t, cond)
                if not last or last[0] != float(t):  # a solver may ask twice at one time
                    last[:] = [float(t)]
                    live.i += 1
                    live.of = max(live.of, live.i)
                    self._seen(live, belief, model)
                return belief

            return Guided(denoise.process, believe)

        return watch

    def _seen(self, live: Live, belief: Posterior, model: Any) -> None:
        if live.watchers or live.i in live.keep:
            x0 = belief.x0
            if bool(x0.isfinite().all()):
                pixels = model.codec_of(tuple(x0.shape[-2:])).pixels(x0)
                live.preview = pixels
                if live.i in live.keep:
                    live.kept[live.i] = pixels
        self._call(self._tell, live)


def _verdict(error: Exception) -> dict[str, Any]:
    return {"verdict": dataclasses.asdict(error.verdict)} if isinstance(error, Refused) else {}
