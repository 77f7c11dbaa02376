"""The server under load and under made-up requests, in small; the benchmark does it for ten minutes."""

from __future__ import annotations

from pathlib import Path

import pytest
from serving import tiny_model

from benchmarks.serve_load import Server, cancel_test, fuzz, kill_test, load_test

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("model"))


def test_64_clients_get_pictures_or_are_told_to_wait(model: Path, tmp_path: Path) -> None:
    server = Server(model, tmp_path)
    told = load_test(server, 64, 30)
    cancelled = cancel_test(server, 3)
    server.stop()
    assert set(told["statuses"]) <= {"200", "429"} and told["statuses"]["200"] > 10
    assert told["memory_end"] < 1.1 * told["memory_second_quarter"] and cancelled["times"] == 3


def test_a_kill_in_the_middle_loses_and_doubles_nothing(model: Path, tmp_path: Path) -> None:
    told = kill_test(model, tmp_path, 8, 20)
    assert told["accepted"] > 10 and told["lost"] == told["more_files_than_jobs"] == 0
    assert told["done_with_other_than_one_picture"] == 0 and told["jobs_nobody_knows_of"] <= 8


def test_made_up_requests_find_no_fault(model: Path, tmp_path: Path) -> None:
    server = Server(model, tmp_path)
    told = fuzz(server, 100)
    server.stop()
    assert told["code"] == 0 and "500" not in told["statuses"], told["said"]
    assert sum(told["statuses"].values()) > 1500
