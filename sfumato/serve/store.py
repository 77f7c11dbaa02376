"""Jobs and files that outlive the server: one SQLite file, and pictures under the SHA-256 of their bytes."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import sqlite3
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sfumato.core import SfumatoError

STATES = ("queued", "running", "done", "failed", "cancelled")
ENDED = STATES[2:]
_TABLES = """
create table if not exists jobs (
  number integer primary key autoincrement, id text unique not null, state text not null, client text not null,
  task text not null, model text not null, prompt text not null, request text not null, attached integer not null,
  created real not null, started real, ended real, attempts integer not null default 0, result text, error text);
create index if not exists by_state on jobs (state, number);
create table if not exists parents (job text not null, parent text not null, primary key (job, parent));
create index if not exists by_parent on parents (parent);
create table if not exists files (
  hash text primary key, mime text not null, width integer not null, height integer not null, bytes integer not null,
  created real not null);
"""
_LOST = "the server was stopped while the client waited for the answer"
_DEADLY = "the server died while this job ran, more than once: ask for less"
TRIES = 3  # times that a job may be running when the server dies


@dataclass(frozen=True)
class Job:
    """One request as it was accepted: `request` is what a task needs, `result` its files and what was said of them,
    `parents` the jobs and files that it was made from. An `attached` job ends with the connection that asked for it."""

    id: str
    number: int
    state: str
    client: str
    task: str
    model: str
    prompt: str
    request: dict[str, Any]
    attached: bool
    created: float
    started: float | None = None
    ended: float | None = None
    attempts: int = 0
    result: dict[str, Any] | None = None
    error: dict[str, Any] | None = None
    parents: tuple[str, ...] = field(default=())


@dataclass(frozen=True)
class Stored:
    """A file in the store."""

    hash: str
    mime: str
    width: int
    height: int
    bytes: int


class Store:
    """All that a server keeps, in one folder; any thread may ask. One server at a time: SfumatoError for a second one."""

    def __init__(self, folder: Path) -> None:
        self.folder, self._lock = folder, threading.RLock()
        try:
            (folder / "files").mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(folder / "jobs.sqlite", timeout=0.5, check_same_thread=False)
        except (OSError, sqlite3.Error) as error:
            raise SfumatoError(f"cannot keep jobs in {folder}: {error}") from error
        self._db.row_factory = sqlite3.Row
        try:
            for pragma in ("locking_mode=exclusive", "journal_mode=wal", "synchronous=full"):
                self._db.execute(f"pragma {pragma}")
            with self._db:
                self._db.executescript(_TABLES)
                self._db.execute("begin exclusive")
        except sqlite3.Error as error:
            self._db.close()
            raise SfumatoError(
                f"{folder} cannot be used ({error}): does another server run on it? Give this one a --data of its own"
            ) from error

    def close(self) -> None:
        with self._lock:
            self._db.close()

    def recover(self) -> list[Job]:
        """After a start: the jobs that wait, oldest first. Those that ran when the server died wait again, nothing of them
        was kept, unless it died of the same ones TRIES times; those whose client waited for the answer are cancelled, since
        it is gone."""
        with self._lock, self._db:
            self._db.execute(
                "update jobs set state='cancelled', ended=?, error=? where attached and state in ('queued', 'running')",
                (time.time(), json.dumps({"message": _LOST})),
            )
            self._db.execute(
                "update jobs set state='failed', ended=?, error=? where state='running' and attempts >= ?",
                (time.time(), json.dumps({"message": _DEADLY}), TRIES),
            )
            self._db.execute("update jobs set state='queued', started=null where state='running'")
        return self.jobs(states=("queued",), newest=False, limit=-1)

    def accept(self, task: str, client: str, request: Mapping[str, Any], attached: bool, parents: Sequence[str]) -> Job:
        """A new job, safe on the disk when this returns."""
        name = secrets.token_hex(12)
        row = (
            name,
            "queued",
            client,
            task,
            request["model"],
            request.get("prompt") or "",
            json.dumps(request),
            attached,
        )
        with self._lock, self._db:
            self._db.execute(
                "insert into jobs (id, state, client, task, model, prompt, request, attached, created)"
                " values (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (*row, time.time()),
            )
            self._db.executemany("insert or ignore into parents values (?, ?)", [(name, p) for p in parents])
        return self.job(name)

    def begin(self, name: str) -> bool:
        """Whether this waiting job may run now; False when it does not wait any more."""
        changed = "update jobs set state='running', started=?, attempts=attempts+1 where id=? and state='queued'"
        with self._lock, self._db:
            return self._db.execute(changed, (time.time(), name)).rowcount == 1

    def end(
        self, name: str, state: str, result: dict[str, Any] | None = None, error: dict[str, Any] | None = None
    ) -> bool:
        """Record how a job ended, once; False when it had ended already."""
        told = (state, time.time(), result and json.dumps(result), error and json.dumps(error), name)
        with self._lock, self._db:
            return (
                self._db.execute(
                    "update jobs set state=?, ended=?, result=?, error=? where id=? and state in ('queued', 'running')",
                    told,
                ).rowcount
                == 1
            )

    def job(self, name: str) -> Job | None:
        with self._lock:
            row = self._db.execute("select * from jobs where id=?", (name,)).fetchone()
            return row and self._job(row)

    def jobs(
        self, states: Sequence[str] = STATES, words: str = "", newest: bool = True, limit: int = 50, before: int = 0
    ) -> list[Job]:
        """Jobs in these states whose prompt has all these words (any case), of a number below `before` where that is given."""
        where, told = [f"state in ({','.join('?' * len(states))})"], list(states)
        for word in words.split()[:20]:
            where.append("instr(lower(prompt), lower(?)) > 0")
            told.append(word)
        if before:
            where.append("number < ?")
            told.append(before)
        query = f"select * from jobs where {' and '.join(where)} order by number {'desc' if newest else 'asc'} limit ?"
        with self._lock:
            return [self._job(row) for row in self._db.execute(query, (*told, limit)).fetchall()]

    def children(self, name: str) -> list[str]:
        """The jobs that were made from this job or from this file."""
        with self._lock:
            rows = self._db.execute("select job from parents where parent=? order by rowid", (name,)).fetchall()
        return [row["job"] for row in rows]

    def counts(self) -> dict[str, int]:
        """How many jobs are in each state."""
        with self._lock:
            rows = self._db.execute("select state, count(*) as n from jobs group by state").fetchall()
        return dict.fromkeys(STATES, 0) | {row["state"]: row["n"] for row in rows}

    def _job(self, row: sqlite3.Row) -> Job:
        told = dict(row)
        for name in ("request", "result", "error"):
            told[name] = told[name] and json.loads(told[name])
        parents = self._db.execute("select parent from parents where job=? order by rowid", (told["id"],)).fetchall()
        return Job(**told | {"attached": bool(told["attached"]), "parents": tuple(p["parent"] for p in parents)})

    def keep(self, data: bytes, mime: str, size: tuple[int, int]) -> Stored:
        """The bytes of a picture of (width, height), written whole or not at all; the same bytes are kept once."""
        name = hashlib.sha256(data).hexdigest()
        path = self._path(name)
        if not path.exists():
            part = path.with_name(f"{name}.{secrets.token_hex(4)}.part")
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                with part.open("wb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                part.replace(path)
            except OSError as error:
                part.unlink(missing_ok=True)
                raise SfumatoError(f"cannot keep a picture: {error.strerror or error}") from error
        stored = Stored(name, mime, *size, len(data))
        with self._lock, self._db:
            self._db.execute(
                "insert or ignore into files values (?, ?, ?, ?, ?, ?)",
                (name, mime, stored.width, stored.height, stored.bytes, time.time()),
            )
        return stored

    def file(self, name: str) -> Stored | None:
        """What is known of a file; None for a hash that was never kept."""
        with self._lock:
            row = self._db.execute("select * from files where hash=?", (name,)).fetchone()
        return row and Stored(row["hash"], row["mime"], row["width"], row["height"], row["bytes"])

    def read(self, stored: Stored) -> bytes:
        """The bytes; SfumatoError when they are gone or not what they were."""
        try:
            data = self._path(stored.hash).read_bytes()
        except OSError as error:
            raise SfumatoError(f"the file {stored.hash} is gone from the store") from error
        if hashlib.sha256(data).hexdigest() != stored.hash:
            raise SfumatoError(f"the file {stored.hash} in the store was damaged")
        return data

    def _path(self, name: str) -> Path:
        return self.folder / "files" / name[:2] / name
