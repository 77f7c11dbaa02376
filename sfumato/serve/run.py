"""Starts the server, and logs one JSON object a line."""

from __future__ import annotations

import json
import logging
import re
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sfumato.core import SfumatoError
from sfumato.serve.desk import Desk
from sfumato.serve.policy import rules
from sfumato.serve.shelf import Shelf
from sfumato.serve.store import Store

LOOPBACK = ("127.0.0.1", "localhost", "::1")
GRACE = 25  # seconds that open connections have at the end


class Lines(logging.Formatter):
    """A log record as one JSON object."""

    def format(self, record: logging.LogRecord) -> str:
        told = {"time": round(time.time(), 3), "level": record.levelname.lower(), "log": record.name}
        told |= {"message": record.getMessage(), **getattr(record, "told", {})}
        if record.exc_info:
            told["traceback"] = self.formatException(record.exc_info)
        return json.dumps(told, default=str)


@dataclass(frozen=True)
class Site:
    """Where a server listens and what it may do: `token` is what callers must know, `data` where it keeps jobs and pictures,
    `allowed` the folders that may be audited and trained on, `policy` the owner's rules on top of the package's, `names` what
    callers may call this machine."""

    host: str = "127.0.0.1"
    port: int = 7860
    token: str | None = None
    data: Path = Path("sfumato-data")
    allowed: tuple[Path, ...] = ()
    policy: Path | None = None
    names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        token = self.token
        if token is not None and not re.fullmatch(r"[!-~]{8,200}", token):
            raise SfumatoError("--token: 8 to 200 letters, digits and signs without spaces")
        if self.host not in LOOPBACK and token is None:
            raise SfumatoError(
                f"--host {self.host} opens the server to other machines: give a --token that callers must know"
            )
        for name in self.names:
            if not re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,252}[A-Za-z0-9])?", name):
                raise SfumatoError(f"--name: a host name such as studio.example.com, not {name[:80]!r}")
        if not 0 <= self.port <= 65535:
            raise SfumatoError(f"--port: 0 to 65535, not {self.port}")


def serve(models: list[str], site: Site) -> dict[str, Any]:
    """Serve until a signal comes; returns what was done.

    Raises SfumatoError when FastAPI is not there, for a folder that another server uses, and for what is no model.
    """
    try:
        import uvicorn

        from sfumato.serve.app import build
        from sfumato.serve.works import Works
    except ImportError as error:
        raise SfumatoError("the server needs FastAPI: pip install 'sfumato[serve]'") from error
    told, works = rules(site.policy), Works(site.data / "trainings", site.allowed)
    shelf, store = Shelf(models), Store(site.data)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Lines())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    desk = Desk(store, shelf, told)
    config = uvicorn.Config(
        build(desk, site.host, site.token, works, site.names),
        host=site.host,
        port=site.port,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=GRACE,
        timeout_keep_alive=30,
        limit_concurrency=1000,
        h11_max_incomplete_event_size=32_768,
    )

    class Server(uvicorn.Server):
        def handle_exit(self, sig: int, frame: Any) -> None:
            desk.drain_soon()
            super().handle_exit(sig, frame)

        async def startup(self, sockets: Any = None) -> None:
            await super().startup(sockets)
            for server in self.servers if self.started else ():
                name, bound, *_ = server.sockets[0].getsockname()
                told = {
                    "url": f"http://{f'[{name}]' if ':' in name else name}:{bound}",
                    "models": [m.name for m in shelf],
                }
                logging.getLogger("sfumato.serve").info("serving", extra={"told": told})

    server = Server(config)
    # uvicorn ends gently at the first signal and raises it again afterwards: it has been obeyed by then
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        server.run()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if not server.started:
        raise SfumatoError(f"cannot listen on {site.host}:{site.port}: is another server there? Choose another --port")
    return {"jobs": {name: int(desk.totals[name]) for name in ("done", "failed", "cancelled")}}
