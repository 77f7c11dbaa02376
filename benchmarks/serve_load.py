"""The server under load: many clients at once for minutes, a kill -9 in the middle, and the same work one by one.

python -m benchmarks.serve_load MODEL --minutes 10 --clients 64        # load, throughput, latency, memory
python -m benchmarks.serve_load MODEL --kill --minutes 1               # kill -9 in the middle
python -m benchmarks.serve_load MODEL --fuzz 2000                      # schemathesis on the OpenAPI document
python -m benchmarks.serve_load MODEL --cancel 20                      # how soon a cancelled job's place is free
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import psutil

from benchmarks.common import envelope, write
from sfumato.tasks.asked import draw
from sfumato.tasks.model import load

PROMPTS = ("a red apple", "owl", "a police car in the rain, flat style", "two trees and a house", "strawberry")


class Server:
    """`sfumato serve` in a process of its own."""

    def __init__(self, model: Path, data: Path) -> None:
        command = [sys.executable, "-m", "sfumato", "serve", str(model), "--port", "0", "--data", str(data)]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        for line in self.process.stderr:
            told = json.loads(line)
            if told["message"] == "serving":
                self.url = told["url"]
                break
        else:
            raise SystemExit("the server did not start")
        threading.Thread(target=self._drain, daemon=True).start()
        self.about = psutil.Process(self.process.pid)

    def _drain(self) -> None:
        for _ in self.process.stderr:
            pass

    def megabytes(self) -> float:
        return self.about.memory_info().rss / 1e6

    def stop(self, how: int = signal.SIGTERM) -> None:
        self.process.send_signal(how)
        self.process.wait(60)


def quantile(values: list[float], q: float) -> float | None:
    return round(sorted(values)[min(len(values) - 1, int(q * len(values)))], 3) if values else None


def one_by_one(model: Path, seconds: float) -> dict[str, float]:
    """Pictures a second when requests are drawn one after another: as it is, and with the network asked in its plain form."""
    found = {}
    for name, steady in (("steady", True), ("plain", False)):
        ready, n, began = load(model), 0, time.perf_counter()
        ready.denoiser.steady = steady
        draw("owl --n 1 --seed 0", ready)
        began = time.perf_counter()
        while time.perf_counter() - began < seconds:
            draw(f"{PROMPTS[n % len(PROMPTS)]} --n 1 --seed {n}", ready)
            n += 1
        found[name] = n / (time.perf_counter() - began)
    return found


def load_test(server: Server, clients: int, seconds: float) -> dict[str, Any]:
    """Every client asks for one picture after another."""
    until, lock = time.monotonic() + seconds, threading.Lock()
    took: list[float] = []
    statuses: dict[str, int] = {}
    memory: list[float] = []

    def client(number: int) -> None:
        rng = random.Random(number)
        with httpx.Client(base_url=server.url, timeout=600) as http:
            while time.monotonic() < until:
                body = {"prompt": rng.choice(PROMPTS), "seed": rng.randrange(2**31), "user": str(number)}
                began = time.monotonic()
                try:
                    answer = http.post("/v1/images/generations", json=body)
                    status, wait = str(answer.status_code), answer.headers.get("retry-after")
                except httpx.HTTPError as error:
                    status, wait = type(error).__name__, None
                with lock:
                    statuses[status] = statuses.get(status, 0) + 1
                    if status == "200":
                        took.append(time.monotonic() - began)
                if wait:
                    time.sleep(float(wait))

    with ThreadPoolExecutor(clients) as pool:
        running = [pool.submit(client, number) for number in range(clients)]
        while time.monotonic() < until:
            memory.append(server.megabytes())
            time.sleep(min(5.0, max(0.1, seconds / 60)))
        [one.result() for one in running]
    lines = httpx.get(server.url + "/metrics").text.splitlines()
    metrics = {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines if line[0] != "#"}
    done = max(1.0, metrics['sfumato_jobs_total{state="done"}'])
    quarter = memory[len(memory) // 4 : len(memory) // 2] or memory
    return {
        "statuses": statuses,
        "pictures_per_second": round(len(took) / seconds, 3),
        "p50": quantile(took, 0.5),
        "p99": quantile(took, 0.99),
        "bound": round(clients * seconds / max(1, len(took)), 3),
        "service_seconds": round(metrics["sfumato_service_seconds_total"] / done, 3),
        "memory_second_quarter": round(sum(quarter) / len(quarter), 1),
        "memory_end": round(sum(memory[-len(quarter) :]) / len(quarter), 1),
        "rows_per_call": metrics["sfumato_network_rows_total"] / max(1.0, metrics["sfumato_network_calls_total"]),
    }


def kill_test(model: Path, data: Path, clients: int, seconds: float) -> dict[str, Any]:
    """Clients put jobs into the queue; the server is killed in the middle and started again; every job is looked up."""
    server, accepted, lock = Server(model, data), {}, threading.Lock()
    url, until = [server.url], time.monotonic() + seconds

    def client(number: int) -> None:
        rng = random.Random(number)
        while time.monotonic() < until:
            seed = rng.randrange(2**31)
            body = {"prompt": rng.choice(PROMPTS), "seed": seed, "n": 1}
            try:
                answer = httpx.post(
                    url[0] + "/api/jobs", json=body, headers={"x-sfumato-client": str(number)}, timeout=60
                )
            except httpx.HTTPError:
                time.sleep(0.2)
                continue
            if answer.status_code == 200:
                with lock:
                    accepted[answer.json()["id"]] = seed
            else:
                time.sleep(float(answer.headers.get("retry-after", 1)))

    with ThreadPoolExecutor(clients) as pool:
        running = [pool.submit(client, number) for number in range(clients)]
        time.sleep(seconds / 2)
        server.stop(signal.SIGKILL)
        before = len(accepted)
        server = Server(model, data)
        url[0] = server.url
        [one.result() for one in running]
    while httpx.get(url[0] + "/api/jobs?state=queued,running&limit=1", timeout=60).json()["jobs"]:
        time.sleep(0.5)
    ended = {name: httpx.get(f"{url[0]}/api/jobs/{name}", timeout=60).json() for name in accepted}
    files = [file["hash"] for job in ended.values() for file in job["files"]]
    states = [job["state"] for job in ended.values()]
    pages, every = 0, set()
    while True:
        page = httpx.get(f"{url[0]}/api/jobs?limit=500&before={pages}", timeout=60).json()
        every |= {job["id"] for job in page["jobs"]}
        pages = page["next"] or 0
        if not pages:
            break
    server.stop()
    return {
        "accepted": len(accepted),
        "accepted_before_the_kill": before,
        "lost": sum(state != "done" for state in states),
        "done_with_other_than_one_picture": sum(len(job["files"]) != 1 for job in ended.values()),
        "more_files_than_jobs": len(files) - len(accepted),
        "jobs_nobody_knows_of": len(every - set(accepted)),
    }


def cancel_test(server: Server, times: int) -> dict[str, Any]:
    """Seconds and steps from the end that DELETE gives a job until one that waited for its place has begun."""
    seconds, steps = [], []
    for k in range(times):
        body = {"prompt": "owl", "steps": 100, "n": 10, "seed": k}
        first, second = (httpx.post(server.url + "/api/jobs", json=body).json()["id"] for _ in range(2))
        while not (told := httpx.get(f"{server.url}/api/jobs/{first}").json())["step"]:
            time.sleep(0.005)
        time.sleep(0.5)
        told = httpx.get(f"{server.url}/api/jobs/{first}").json()
        per_step = (time.time() - told["started"]) / told["step"]
        ended = httpx.delete(f"{server.url}/api/jobs/{first}").json()["ended"]
        while not (told := httpx.get(f"{server.url}/api/jobs/{second}").json())["started"]:
            time.sleep(0.002)
        seconds.append(told["started"] - ended)
        steps.append(seconds[-1] / per_step)
        httpx.delete(f"{server.url}/api/jobs/{second}")
    return {"times": times, "seconds_max": round(max(seconds), 4), "steps_max": round(max(steps), 2)}


def fuzz(server: Server, cases: int) -> dict[str, Any]:
    """schemathesis' command on the OpenAPI document; `failures` are its own."""
    operations = sum(len(path) for path in httpx.get(server.url + "/openapi.json").json()["paths"].values())
    command = [sys.executable, "-m", "schemathesis.cli", "run", server.url + "/openapi.json"]
    command += ["--checks", "not_a_server_error,status_code_conformance,response_schema_conformance"]
    command += ["--max-examples", str(-(-cases // operations)), "--exclude-path-regex", "/events$"]
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(command, capture_output=True, text=True, cwd=folder, env={**os.environ, "NO_COLOR": "1"})
    lines = httpx.get(server.url + "/metrics").text.splitlines()
    requests = [line for line in lines if line.startswith("sfumato_requests_total")]
    statuses: dict[str, int] = {}
    for line in requests:
        status = line.split('status="')[1][:3]
        statuses[status] = statuses.get(status, 0) + int(line.rpartition(" ")[2])
    return {"code": done.returncode, "statuses": statuses, "said": done.stdout[-6000:]}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model", type=Path)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--kill", action="store_true")
    parser.add_argument("--fuzz", type=int, metavar="CASES")
    parser.add_argument("--cancel", type=int, metavar="TIMES")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        data, seconds = Path(folder) / "data", 60 * options.minutes
        if options.kill:
            name, told = "serve_kill", kill_test(options.model, data, options.clients, seconds)
        else:
            server = Server(options.model, data)
            try:
                if options.fuzz:
                    name, told = "serve_fuzz", fuzz(server, options.fuzz)
                elif options.cancel:
                    name, told = "serve_cancel", cancel_test(server, options.cancel)
                else:
                    name, told = "serve_load", load_test(server, options.clients, seconds)
            finally:
                server.stop()
        if name == "serve_load":
            alone = one_by_one(options.model, min(60.0, seconds))
            told["one_by_one_per_second"] = {k: round(v, 3) for k, v in alone.items()}
            told["times_as_fast"] = {k: round(told["pictures_per_second"] / v, 2) for k, v in alone.items()}
    print(told.pop("said", ""))
    print(json.dumps(told, indent=1))
    write(name, envelope(**told))


if __name__ == "__main__":
    main()
