"""Audits and trainings that the Studio starts: our own commands in processes of their own."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import secrets
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sfumato.core import SfumatoError
from sfumato.data.files import write_text
from sfumato.train import Run

DEPTH, MOST = 3, 1000  # of the list of folders
KEPT, ANSWER = 10, 50_000_000  # audits whose answers are kept; bytes of one
ENDED = ("done", "stopped", "failed")
ABOUT = "about.json"


@dataclass
class Work:
    """One audit or training. `line` is the newest line of progress."""

    id: str
    kind: str
    source: str
    name: str
    folder: Path | None = None
    state: str = "running"
    line: str = ""
    result: dict[str, Any] | None = None
    error: str | None = None
    model: str | None = None
    created: float = field(default_factory=time.time)
    process: asyncio.subprocess.Process | None = None
    stopped: bool = False


class Works:
    """What runs and what ran; sources are the folders under `roots`, which the owner named, and the sets of this machine."""

    def __init__(self, folder: Path, roots: Sequence[Path], sets: Sequence[str] = ()) -> None:
        self.folder, self.roots, self.sets = folder, [root.resolve() for root in roots], tuple(sets)
        for root in self.roots:
            if not root.is_dir():
                raise SfumatoError(f"--allow {root}: there is no such folder")
        self._works: dict[str, Work] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        for about in sorted(folder.glob(f"*/{ABOUT}")):
            with contextlib.suppress(OSError, ValueError, TypeError):
                told = json.loads(about.read_text(encoding="utf-8"))
                state = told["state"] if told["state"] in ENDED else "stopped"
                work = Work(**told | {"folder": about.parent, "state": state, "model": None})
                self._works[work.id] = work

    def sources(self) -> dict[str, str]:
        """What may be audited and trained on: the name that is shown -> what our commands are given."""
        found = {name: name for name in self.sets}
        for root in self.roots:
            for where, folders, _ in os.walk(root):
                depth = len(Path(where).relative_to(root).parts)
                folders[:] = sorted(f for f in folders if not f.startswith(".")) if depth < DEPTH else []
                found[str(Path(root.name) / Path(where).relative_to(root))] = where
                if len(found) >= MOST:
                    return found
        return found

    def get(self, name: str, kind: str) -> Work | None:
        work = self._works.get(name)
        return work if work is not None and work.kind == kind else None

    def all(self, kind: str) -> list[Work]:
        """Newest first."""
        return sorted((w for w in self._works.values() if w.kind == kind), key=lambda w: -w.created)

    async def start(self, kind: str, source: str, name: str, options: Sequence[str]) -> Work:
        """Begin `sfumato audit` or `sfumato train` on a source of the list.

        Raises SfumatoError for a source that is not in it, and while another one of the kind runs.
        """
        given = self.sources().get(source)
        if given is None:
            raise SfumatoError(f"folder: {source[:100]!r} is not in the list of folders that this server may read")
        if any(work.state == "running" for work in self.all(kind)):
            raise SfumatoError(f"another {kind} runs: wait for it, or stop it")
        work = Work(secrets.token_hex(8), kind, source, name)
        command = [sys.executable, "-m", "sfumato", kind, given, *options, "--json"]
        if kind == "train":
            work.folder = self.folder / work.id
            work.folder.mkdir(parents=True)
            command += ["--run", str(work.folder)]
            self._keep(work)
        pipe = asyncio.subprocess.PIPE
        self._works[work.id] = work  # before anything else is awaited: one runs at a time
        try:
            work.process = await asyncio.create_subprocess_exec(
                *command, stdin=asyncio.subprocess.DEVNULL, stdout=pipe, stderr=pipe, start_new_session=True
            )
        except OSError as error:
            del self._works[work.id]
            raise SfumatoError(f"{kind} cannot be started: {error.strerror or error}") from error
        for old in self.all("audit")[KEPT:]:  # each holds its whole answer
            if old.state != "running":
                del self._works[old.id]
        task = asyncio.create_task(self._follow(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return work

    def stop(self, work: Work) -> None:
        """Ask a running one to end; a training saves what it has learned."""
        if work.state == "running" and work.process is not None and work.process.returncode is None:
            work.stopped = True
            work.process.send_signal(signal.SIGINT)

    async def close(self) -> None:
        """Stop all of them, and wait until they have saved."""
        for work in self._works.values():
            self.stop(work)
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=20)
        for work in self._works.values():
            if work.process is not None and work.process.returncode is None:
                work.process.kill()

    async def _follow(self, work: Work) -> None:
        async def read(stream: asyncio.StreamReader) -> None:
            tail = ""
            while chunk := await stream.read(4096):
                tail = (tail + chunk.decode("utf-8", "replace"))[-2000:]
                lines = [line for line in re.split(r"[\r\n]+", tail) if line.strip()]
                work.line = lines[-1][-300:] if lines else ""

        async def whole(stream: asyncio.StreamReader) -> bytes:
            parts, size = [], 0
            while chunk := await stream.read(65536):  # to its end, or the other side could not write on
                size += len(chunk)
                if size <= ANSWER:
                    parts.append(chunk)
            return b"".join(parts) if size <= ANSWER else b""

        process = work.process
        out, _ = await asyncio.gather(whole(process.stdout), read(process.stderr))
        code = await process.wait()
        with contextlib.suppress(ValueError, IndexError):
            work.result = json.loads(out.decode("utf-8", "replace").strip().splitlines()[-1])
        finished = work.result is not None and code in (0, 1)  # 1: an audit that found faults
        work.state = "done" if finished and not work.stopped else "stopped" if work.stopped else "failed"
        work.error = None if work.state != "failed" else work.line or f"exit code {code}"
        self._keep(work)

    def _keep(self, work: Work) -> None:
        if work.folder is not None:
            told = {
                n: getattr(work, n) for n in ("id", "kind", "source", "name", "state", "result", "error", "created")
            }
            with contextlib.suppress(OSError):
                write_text(work.folder / ABOUT, json.dumps(told))


def rows_of(work: Work, name: str = "log") -> list[dict[str, Any]]:
    """The rows of a training's log so far."""
    try:
        return Run(work.folder).rows(name)
    except (SfumatoError, OSError):
        return []


def newest_preview(work: Work) -> Path | None:
    """The newest picture that a training drew of itself."""
    return max((work.folder / "previews").glob("*.png"), default=None)
