"""One thread that asks the networks for all jobs at once: whoever waits for a belief shares the next call.

Every job samples in a thread of its own, with its own solver, times, guidance and task; only the network is shared. Calls
have one form (denoiser/steady.py), so what a picture becomes does not depend on who shares them. Guides that go back through
the network ask it in their own thread, in the same form.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from sfumato.core import Cond
from sfumato.denoiser import Denoiser
from sfumato.denoiser.steady import Call, answers, steadily
from sfumato.tasks import Model

PATIENCE = 0.004  # seconds that a call waits for company while other jobs are between two calls


class Cancelled(Exception):
    """Nobody wants the pictures any more."""


@dataclass
class _Asked:
    net: nn.Module
    call: Call
    answer: Tensor | None = None
    error: Exception | None = None
    ready: threading.Event = field(default_factory=threading.Event)


class Fuser:
    """`shared(model, ...)` is the model whose network calls are joined with those of all other jobs."""

    def __init__(self) -> None:
        self._waiting: list[_Asked] = []
        self._sampling = 0
        self._wake = threading.Condition()
        self._open = True
        self.calls = self.rows = 0
        self._thread = threading.Thread(target=self._run, name="network", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Answer nobody any more."""
        with self._wake:
            self._open = False
            self._wake.notify_all()
        self._thread.join(10)

    @contextmanager
    def joined(self) -> Iterator[None]:
        """While a job samples: calls wait a moment for its next one."""
        with self._wake:
            self._sampling += 1
        try:
            yield
        finally:
            with self._wake:
                self._sampling -= 1
                self._wake.notify_all()

    def shared(self, model: Model, **changes: Any) -> Model:
        """The model asked through this thread; `changes` are other fields of it."""
        weak = model.weak
        if weak is not None:
            changes["weak"] = lambda: self._through(weak())
        return replace(model, denoiser=self._through(model.denoiser), **changes)

    def _through(self, denoiser: Denoiser) -> Denoiser:
        own = Denoiser(_Line(self, denoiser.net), denoiser.process, denoiser.parameterisation, denoiser.sigma_data)
        return own.eval()

    def ask(self, net: nn.Module, call: Call) -> Tensor:
        asked = _Asked(net, call)
        with self._wake:
            if not self._open:
                raise Cancelled
            self._waiting.append(asked)
            self._wake.notify_all()
        asked.ready.wait()
        if asked.error is not None:
            raise asked.error
        return asked.answer

    def _run(self) -> None:
        while True:
            with self._wake:
                self._wake.wait_for(lambda: self._waiting or not self._open)
                until = time.monotonic() + PATIENCE
                while self._open and len(self._waiting) < self._sampling and (left := until - time.monotonic()) > 0:
                    self._wake.wait(left)
                together, self._waiting = self._waiting, []
                if not self._open:
                    for asked in together:
                        asked.error = Cancelled()
                        asked.ready.set()
                    return
            by_net: dict[int, list[_Asked]] = {}
            for asked in together:
                by_net.setdefault(id(asked.net), []).append(asked)
            for some in by_net.values():
                self._answer(some)

    def _answer(self, some: list[_Asked]) -> None:
        def counted(x: Tensor, level: Tensor, cond: Cond, even: bool = False) -> Tensor:
            self.calls += 1
            self.rows += len(x)
            return some[0].net(x, level, cond, even)

        try:
            with torch.no_grad():
                found = answers(counted, [asked.call for asked in some])
            for asked, y in zip(some, found, strict=True):
                asked.answer = y
        except Exception as error:  # whatever a network raises belongs to the one who asked for it
            if len(some) > 1:
                for asked in some:
                    self._answer([asked])
                return
            some[0].error = error
        for asked in some:
            asked.ready.set()


class _Line(nn.Module):
    """Looks like the network, and asks the one thread."""

    def __init__(self, fuser: Fuser, net: nn.Module) -> None:
        super().__init__()
        self._ask, self.config = fuser.ask, net.config
        self._net = [net]  # not registered: its weights are not this module's

    def forward(self, x: Tensor, level: Tensor, cond: Cond) -> Tensor:
        if x.requires_grad:  # a guide goes back through the network: the graph belongs to the thread that does
            return steadily(self._net[0], x, level, cond)
        return self._ask(self._net[0], Call(x, level, cond))
