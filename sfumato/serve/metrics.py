"""Numbers for Prometheus, in its text format 0.0.4."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sfumato.serve.desk import Desk


def metrics(desk: Desk, requests: Mapping[tuple[str, int], int]) -> str:
    """All counters and gauges of a desk, and its requests by method and status."""
    lines: list[str] = []

    def add(name: str, kind: str, text: str, rows: Mapping[str, Any]) -> None:
        lines.extend((f"# HELP sfumato_{name} {text}", f"# TYPE sfumato_{name} {kind}"))
        lines.extend(f"sfumato_{name}{labels} {value}" for labels, value in rows.items())

    told = desk.totals
    ends = {f'{{state="{k}"}}': told[k] for k in ("done", "failed", "cancelled", "refused", "full")}
    add("jobs_total", "counter", "jobs by how they ended, and those that were not taken", ends)
    add("pictures_total", "counter", "pictures drawn", {"": told["pictures"]})
    add("service_seconds_total", "counter", "seconds that done jobs ran", {"": told["seconds"]})
    add("waited_seconds_total", "counter", "seconds that done jobs waited before", {"": told["waited"]})
    add("waiting", "gauge", "jobs in the queue", {"": len(desk.queue)})
    add("running", "gauge", "jobs being drawn", {"": len(desk.running)})
    add("network_calls_total", "counter", "calls of the networks", {"": desk.fuser.calls})
    add("network_rows_total", "counter", "rows of those calls, with those that only fill them", {"": desk.fuser.rows})
    rows = {f'{{method="{method}",status="{status}"}}': n for (method, status), n in sorted(requests.items())}
    add("requests_total", "counter", "HTTP requests", rows)
    return "\n".join(lines) + "\n"
