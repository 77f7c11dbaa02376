"""The queue: turns, bounds, cancelling, crashes and restarts."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
import torch
from serving import http, served, tiny_model
from torch import nn

from sfumato.core import Cond, SfumatoError
from sfumato.denoiser.steady import Call
from sfumato.serve.fuse import Cancelled, Fuser
from sfumato.serve.queue import Full, Queue
from sfumato.serve.store import Store

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("model"))


def test_clients_take_turns() -> None:
    queue = Queue()
    for k in range(5):
        queue.add(f"greedy-{k}", "greedy")
    queue.add("late-0", "late")
    queue.add("late-1", "late")
    queue.add("third-0", "third")
    order = list(queue)
    assert order[:3] == ["greedy-0", "late-0", "third-0"] and order[3:5] == ["greedy-1", "late-1"]
    assert [queue.position(name) for name in ("late-0", "greedy-4", "nobody")] == [1, 7, None]
    taken = queue.take()
    queue.put_back(taken, "greedy")
    assert list(queue)[0] == taken and len(queue) == 8
    assert queue.drop("late-0") and not queue.drop("late-0")
    assert [queue.take() for _ in range(7)] == ["greedy-0", "late-1", "third-0", *(f"greedy-{k}" for k in range(1, 5))]
    with pytest.raises(IndexError):
        queue.take()


def test_the_queue_and_each_clients_part_of_it_are_bounded() -> None:
    queue = Queue(waiting=3, each=2)
    for k, client in enumerate("aab"):
        queue.check(client, 2.0)
        queue.add(str(k), client)
        if client == "a" and k == 1:
            with pytest.raises(Full, match="yours"):
                queue.check("a", 2.0)
    with pytest.raises(Full) as full:
        queue.check("c", 1e9)
    assert full.value.seconds == 600
    queue.take()
    queue.check("c", 2.0)


def asked(store: Store, n: int, attached: bool = False) -> list[str]:
    return [store.accept("generate", "c", {"model": "m", "prompt": f"p {k}"}, attached, ()).id for k in range(n)]


def test_a_job_ends_once_and_begins_only_while_it_waits(tmp_path: Path) -> None:
    store = Store(tmp_path)
    (name,) = asked(store, 1)
    assert store.begin(name) and not store.begin(name)
    assert store.end(name, "done", {"files": []}) and not store.end(name, "cancelled") and not store.begin(name)
    assert store.job(name).state == "done" and store.job(name).attempts == 1
    (other,) = asked(store, 1)
    assert store.end(other, "cancelled") and not store.begin(other)
    assert store.job("nobody") is None and store.counts()["cancelled"] == 1
    store.close()


def test_after_a_crash_jobs_wait_again_but_those_whose_client_is_gone(tmp_path: Path) -> None:
    store = Store(tmp_path)
    waits, ran, done, attached = *asked(store, 3), *asked(store, 1, attached=True)
    store.begin(ran)
    store.begin(done)
    store.end(done, "done", {"files": []})
    store.close()
    store = Store(tmp_path)
    assert [job.id for job in store.recover()] == [waits, ran]
    assert store.job(attached).state == "cancelled" and "client" in store.job(attached).error["message"]
    with pytest.raises(SfumatoError, match="another server"):
        Store(tmp_path)
    store.close()


def test_a_job_that_kills_the_server_is_not_begun_for_ever(tmp_path: Path) -> None:
    store = Store(tmp_path)
    deadly, other = asked(store, 2)
    for k in range(5):
        waiting = [job.id for job in store.recover()]
        assert waiting == ([deadly, other] if k < 3 else [other])
        if k < 3:
            store.begin(deadly)
        store.close()
        store = Store(tmp_path)
    assert store.job(deadly).state == "failed" and "more than once" in store.job(deadly).error["message"]
    store.close()


def test_files_are_kept_once_by_what_they_hold_and_checked(tmp_path: Path) -> None:
    store = Store(tmp_path)
    kept = [store.keep(b"some bytes", "image/png", (2, 3)) for _ in range(2)]
    assert kept[0] == kept[1] and kept[0].hash == hashlib.sha256(b"some bytes").hexdigest()
    (path,) = [p for p in (tmp_path / "files").rglob("*") if p.is_file()]
    assert store.read(store.file(kept[0].hash)) == b"some bytes" and store.file("../../etc/passwd") is None
    path.write_bytes(b"other bytes")
    with pytest.raises(SfumatoError, match="damaged"):
        store.read(kept[0])
    path.unlink()
    with pytest.raises(SfumatoError, match="gone"):
        store.read(kept[0])
    store.close()


class Fragile(nn.Module):
    """Doubles its input; some it cannot bear."""

    config = None

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, x, level, cond, even=False):
        self.calls += 1
        if (x < 0).any():
            raise ValueError("negative")
        return 2 * x


def test_calls_of_many_threads_are_joined_and_one_bad_call_spoils_no_other() -> None:
    fuser, net = Fuser(), Fragile()

    def ask(value: float):
        with fuser.joined():
            return fuser.ask(net, Call(torch.full((1, 2), value), torch.zeros(1), Cond()))

    barrier = threading.Barrier(8)
    with ThreadPoolExecutor(8) as pool:
        found = [pool.submit(lambda v=float(v): (barrier.wait(), ask(v))[1]) for v in (1, 2, 3, -1, 4, 5, 6, 7)]
        with pytest.raises(ValueError, match="negative"):
            found[3].result(5)
        for value, one in zip((1, 2, 3, None, 4, 5, 6, 7), found, strict=True):
            assert value is None or float(one.result(5)[0, 0]) == 2 * value
        net.calls = 0
        assert [float(pool.submit(ask, 3.0).result()[0, 0]) for _ in range(3)] == [6.0] * 3
    fuser.close()
    with pytest.raises(Cancelled):
        ask(1.0)


def test_cancelling_frees_the_place_within_one_step(model: Path, tmp_path: Path) -> None:
    with served(model, tmp_path) as (url, desk):
        body = {"prompt": "owl", "steps": 250, "n": 8, "seed": 1}
        names = [http.post(url + "/api/jobs", json=body).json()["id"] for _ in range(3)]
        while len(desk.running) < 2 or min(live.i for live in desk.running) < 3:
            time.sleep(0.002)
        assert desk.queue.position(names[2]) == 0, "two of eight pictures each are all that is drawn at once"
        live = desk.live(names[0])
        step, began = live.i, time.monotonic()
        assert http.delete(f"{url}/api/jobs/{names[0]}").json()["state"] == "cancelled"
        while desk.live(names[2]).i < 1:
            assert time.monotonic() - began < 10
            time.sleep(0.001)
        assert live.i <= step + 3, "a step or two may have passed before the request came"
        calls = desk.fuser.calls
        time.sleep(0.1)
        assert live.i <= step + 3 and live.stop.is_set() and desk.fuser.calls > calls, (
            "others are drawn, this one is not"
        )
        assert http.delete(f"{url}/api/jobs/{names[2]}").json()["state"] == "cancelled"
        assert http.delete(f"{url}/api/jobs/{names[1]}").status_code == 200
        again = http.delete(f"{url}/api/jobs/{names[1]}")
        assert again.json()["state"] == "cancelled" and http.delete(url + "/api/jobs/none").status_code == 404
        end = time.monotonic()
        while desk.running:
            assert time.monotonic() - end < 5
        assert desk.totals["cancelled"] == 3 and desk.store.counts()["cancelled"] == 3


def test_a_patient_client_is_served_between_a_greedy_ones_jobs(model: Path, tmp_path: Path) -> None:
    with served(model, tmp_path) as (url, desk):

        def ask(client: str) -> str:
            body = {"prompt": "owl", "steps": 4, "n": 8}
            return http.post(url + "/api/jobs", json=body, headers={"x-sfumato-client": client}).json()["id"]

        greedy = [ask("greedy") for _ in range(12)]
        patient = ask("patient")
        while desk.store.counts()["done"] < 13:
            time.sleep(0.02)
        order = sorted((desk.store.job(name).ended, name) for name in (*greedy, patient))
        assert [name for _, name in order].index(patient) < 8, "not after all twelve"


def started(model: Path, data: Path) -> tuple[subprocess.Popen, str]:
    command = [sys.executable, "-m", "sfumato", "serve", str(model), "--port", "0", "--data", str(data), "--json"]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env)
    for line in process.stderr:
        told = json.loads(line)
        if told["message"] == "serving":
            break
    threading.Thread(target=process.stderr.read, daemon=True).start()
    return process, told["url"]


def test_kill_9_loses_no_job_and_doubles_none_and_a_signal_ends_gently(model: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    process, url = started(model, data)
    jobs = [
        http.post(url + "/api/jobs", json={"prompt": f"owl {k}", "seed": k, "steps": 12, "n": 4}).json()["id"]
        for k in range(10)
    ]
    sync = threading.Thread(
        target=lambda: pytest.raises(
            httpx.TransportError, http.post, url + "/v1/images/generations", json={"prompt": "lost"}, timeout=60
        )
    )
    sync.start()
    while http.get(url + "/api/jobs?state=done").json()["jobs"] == []:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait(10)
    sync.join(10)
    database = sqlite3.connect(data / "jobs.sqlite")
    before = dict(database.execute("select id, state from jobs").fetchall())
    kept = dict(database.execute("select id, result from jobs where state='done'").fetchall())
    database.close()
    assert len(before) >= 10 and "running" in before.values() and kept

    process, url = started(model, data)
    while http.get(url + "/api/jobs?state=queued,running").json()["jobs"]:
        time.sleep(0.02)
    ended = {job["id"]: job for job in http.get(url + "/api/jobs?limit=100").json()["jobs"]}
    assert [ended[name]["state"] for name in jobs] == ["done"] * 10
    assert all(ended[name]["state"] == "cancelled" for name in set(before) - set(jobs))
    for name, result in kept.items():
        assert ended[name]["result"] == json.loads(result), "what was done was not touched"
    hashes = [file["hash"] for name in jobs for file in ended[name]["files"]]
    assert len(hashes) == len(set(hashes)) == 40
    http.post(url + "/api/jobs", json={"prompt": "last", "steps": 30, "n": 10, "seed": 99})
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0 and json.loads(out.splitlines()[-1])["jobs"]["done"] >= 1
    database = sqlite3.connect(data / "jobs.sqlite")
    rows = database.execute("select id, state, attempts from jobs").fetchall()
    database.close()
    tries = {name: n for name, state, n in rows if state == "done"}
    assert all(tries[name] == 1 for name in kept) and all(tries[name] <= 2 for name in jobs)
    assert "running" not in {state for _, state, _ in rows}, "what ran was finished"


def test_a_second_server_on_the_same_data_is_refused_in_one_line(model: Path, tmp_path: Path) -> None:
    from sfumato.cli import main

    store = Store(tmp_path)
    assert main(["serve", str(model), "--data", str(tmp_path)]) == 2
    store.close()
    assert main(["serve", str(model), "--host", "0.0.0.0", "--data", str(tmp_path)]) == 2
    assert main(["serve", str(model), "--token", "short", "--data", str(tmp_path)]) == 2
    assert main(["serve", str(tmp_path / "none"), "--data", str(tmp_path)]) == 2
    assert main(["serve", str(model), "--allow", str(tmp_path / "none"), "--data", str(tmp_path)]) == 2
