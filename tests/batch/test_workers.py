"""The workers of a batch, one create at a time: what they report, and what is noted of it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest
from requests.adapters import HTTPAdapter

from rebyte_cli.batch.throttle import Throttle
from rebyte_cli.batch.workers import FAULTS_IN_A_ROW, Job
from rebyte_cli.errors import BadUsage, KeyRejected, NetworkError, RebyteError, ServerFault
from tests.batch_worker import MADE, WorkerBench, take_away
from tests.servers import Answer, RawServer, error_reply, reset
from tests.waiting import eventually

pytestmark = pytest.mark.usefixtures("home")


@pytest.fixture
def answers() -> list[Answer]:
    return [MADE]


@pytest.fixture
def server(answers: list[Answer]) -> Iterator[RawServer]:
    with RawServer(lambda _request: answers[-1]) as server:
        yield server


@pytest.fixture
def bench(tmp_path: Path, server: RawServer) -> Iterator[WorkerBench]:
    bench = WorkerBench(tmp_path, server)
    yield bench
    bench.close()


def test_a_create_that_went_through(bench: WorkerBench) -> None:
    kind, (task, is_taken) = bench.create(0)
    assert (kind, bench.sent["prompt"], task["id"]) == ("created", "n 0", "t1")
    assert not is_taken
    assert bench.states() == ["sending", "created"]
    assert bench.history.knows(["t1"]) == {"t1"}  # before another line is sent
    assert bench.ledger.named(["t1"]) == {"t1"}
    assert bench.ledger.under_way == {1}  # settled by who reads the reports


def test_an_answer_that_is_lost_is_reported_with_the_record_of_its_sending(
    bench: WorkerBench, answers: list[Answer]
) -> None:
    answers.append(lambda line: reset(line))
    kind, record = bench.create(0)
    assert (kind, record["line"], record["is"]) == ("lost", 1, "sending")
    assert record["at"].startswith("20")
    assert bench.states() == ["sending"]


@pytest.mark.parametrize("status", [401, 403, 302])
def test_an_error_that_every_create_would_meet_ends_the_batch(
    bench: WorkerBench, answers: list[Answer], status: int
) -> None:
    answers.append(error_reply(status, "told", "No"))
    kind, error = bench.create(0)
    assert kind == "fatal"
    assert isinstance(error, KeyRejected) == (status != 302)
    assert bench.states() == ["sending", "unsent"]
    bench.pool.put(Job(2, None))
    assert bench.reports.get(timeout=20)[0] == "unsent", "the gate is shut at once"


def test_a_refusal_is_of_that_line_alone(bench: WorkerBench, answers: list[Answer]) -> None:
    answers.append(error_reply(400, "validation_error", "No such model"))
    kind, error = bench.create(0)
    assert (kind, error.message) == ("refused", "No such model")
    assert bench.states() == ["sending", "refused"]
    answers.append(MADE)
    assert bench.create(2)[0] == "created"


def test_a_file_that_cannot_be_uploaded_refuses_its_line(bench: WorkerBench) -> None:
    def gone(path: str) -> None:
        raise BadUsage(f"cannot read {path}")

    bench.upload = gone
    kind, error = bench.create(1)
    assert (kind, error.message) == ("refused", "cannot read f")
    assert bench.states() == ["refused"], "nothing was sent"


def test_a_file_of_many_lines_is_uploaded_once(bench: WorkerBench) -> None:
    uploads: list[str] = []

    def upload(path: str) -> dict[str, str]:
        uploads.append(path)
        return {"id": "f1", "filename": path}

    bench.upload = upload
    for at in (1, 3, 5):
        bench.create(at)
        assert bench.sent["files"] == [{"id": "f1", "filename": "f"}]
    assert uploads == ["f"]


def test_a_mistake_of_ours_does_not_look_like_a_hanging_batch(bench: WorkerBench) -> None:
    def wrong(_path: str) -> None:
        raise ZeroDivisionError

    bench.upload = wrong
    kind, error = bench.create(1)
    assert kind == "crash"
    assert isinstance(error, ZeroDivisionError)


def test_a_journal_that_fails_ends_it_before_anything_is_sent(
    bench: WorkerBench, server: RawServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_records: object) -> None:
        raise RebyteError("cannot write the journal: No space left on device")

    monkeypatch.setattr(bench.journal, "commit", full)
    kind, error = bench.create(0)
    assert (kind, "No space left" in error.message) == ("fatal", True)
    assert server.requests == []


@pytest.mark.parametrize("is_sent", [False, True])
def test_out_of_memory_is_unsent_unless_the_create_went_out(
    bench: WorkerBench, monkeypatch: pytest.MonkeyPatch, is_sent: bool
) -> None:
    send = HTTPAdapter.send

    def too_large(*given: Any, **options: Any) -> Any:
        if is_sent:
            send(*given, **options)
        raise MemoryError

    bench.create(2)
    monkeypatch.setattr(HTTPAdapter, "send", too_large)
    kind, value = bench.create(0)
    if is_sent:
        assert (kind, bench.states()[2:]) == ("lost", ["sending"])
    else:
        assert (kind, "out of memory" in value.message) == ("fatal", True)
        assert bench.states()[2:] == ["sending", "unsent"]
        assert 1 not in bench.ledger.under_way


def test_a_system_without_a_thread_to_spare_ends_the_batch(
    bench: WorkerBench, server: RawServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    kind, error = bench.create(0)
    monkeypatch.undo()
    assert (kind, error.message) == ("fatal", "cannot start a thread")
    assert server.requests == []


def test_no_more_threads_than_were_asked_for_and_what_none_began_is_given_back(
    tmp_path: Path, server: RawServer
) -> None:
    bench = WorkerBench(tmp_path, server, count=2)
    bench.throttle.pause(60, "a pause")
    for at in range(0, 10, 2):
        bench.pool.put(Job(at, None))
    eventually(lambda: bench.pool.jobs.qsize() == 3)
    assert [job.line for job in bench.pool.take_back()] == [4, 6, 8]
    assert sum(thread.name.startswith("create-") for thread in threading.enumerate()) >= 2
    assert len(bench.pool._threads) == 2
    bench.close()
    assert sorted(bench.reports.get(timeout=20)[:2] for _ in range(2)) == [
        ("unsent", 0),
        ("unsent", 2),
    ]
    assert server.requests == []


def test_lines_come_to_the_gate_in_the_order_of_the_file(tmp_path: Path, server: RawServer) -> None:
    """However long a worker takes from its line to the gate: here it lets the others go first."""
    order: list[int] = []

    class Noted(Throttle):
        def _may_pass(self, ticket: Any) -> bool:
            passed = super()._may_pass(ticket)
            if passed:
                order.append(ticket.line)
            return passed

    bench = WorkerBench(tmp_path, server, count=4, throttle=Noted(rate=1000))
    first = threading.Event()

    class Slow(SimpleQueue[Job | None]):
        def get(self, *args: Any, **options: Any) -> Job | None:
            job = super().get(*args, **options)
            if job is not None and not first.is_set():
                first.set()
                end = time.monotonic() + 0.2
                while len(order) < 3 and time.monotonic() < end:
                    time.sleep(0.01)
            return job

    bench.pool.jobs = Slow()
    for at in range(0, 8, 2):
        bench.pool.put(Job(at, None))
    for _ in range(4):
        assert bench.reports.get(timeout=20)[0] == "created"
    assert order == [0, 2, 4, 6]
    bench.close()


# Workers and the throttle: a lost network, and a failing service


def test_a_network_that_went_away_closes_the_gate(bench: WorkerBench, server: RawServer) -> None:
    bench.create(0)
    take_away(server)
    bench.client.close()
    assert bench.create(2) == ("unsent", None)
    assert bench.states()[2:] == ["sending", "unsent"]
    assert bench.throttle.network_is_down
    assert "Paused" in bench.told[0]


def test_a_network_that_was_never_there_ends_the_batch(
    bench: WorkerBench, server: RawServer
) -> None:
    take_away(server)
    kind, error = bench.create(0)
    assert kind == "fatal"
    assert isinstance(error, NetworkError)
    assert not bench.throttle.network_is_down


def test_a_create_that_is_refused_on_every_attempt_pauses_all(
    bench: WorkerBench, answers: list[Answer]
) -> None:
    answers.append(error_reply(429, "too_many", "Slow down"))
    assert bench.create(0) == ("unsent", None)
    assert bench.states() == ["sending", "unsent"]
    assert bench.told == ["The service turns creates away (429): pausing creates for 5 s"]


def test_faults_at_every_create_slow_it_down(bench: WorkerBench, answers: list[Answer]) -> None:
    answers.append(error_reply(500, "internal_error", "Broken"))
    for turn in range(FAULTS_IN_A_ROW):
        assert bench.told == []
        kind, error = bench.create(turn * 2)
        assert kind == "refused"
        assert isinstance(error, ServerFault)
    eventually(lambda: bench.told)  # it is reported before it is counted
    assert bench.told == ["The service fails at every create: pausing creates for 5 s"]


def test_a_success_resets_the_count_of_faults(bench: WorkerBench, answers: list[Answer]) -> None:
    for turn in range(FAULTS_IN_A_ROW * 2):
        fine = turn == FAULTS_IN_A_ROW - 1
        answers.append(MADE if fine else error_reply(500, "internal_error", "Broken"))
        if turn == FAULTS_IN_A_ROW * 2 - 1:
            assert bench.told == []
        bench.create(turn * 2)
    eventually(lambda: bench.told)
    assert len(bench.told) == 1


@pytest.mark.parametrize("refused", [False, True])
def test_any_answer_says_that_the_network_is_back(
    tmp_path: Path,
    server: RawServer,
    answers: list[Answer],
    refused: bool,
) -> None:
    told: list[str] = []
    bench = WorkerBench(tmp_path, server, throttle=Throttle(first_probe=0.01, note=told.append))
    bench.throttle.network_lost(NetworkError("no route"))
    assert bench.throttle.network_is_down
    answers.append(error_reply(400, "validation_error", "No") if refused else MADE)
    assert bench.create(0)[0] == ("refused" if refused else "created")
    assert not bench.throttle.network_is_down
    assert told[-1] == "The network is back"
    bench.close()


def test_a_file_that_is_gone_says_nothing_about_the_network(
    tmp_path: Path, server: RawServer
) -> None:
    """It had the one try that a lost network allows, so the next one must get it."""
    bench = WorkerBench(tmp_path, server, throttle=Throttle(first_probe=0.01))

    def gone(path: str) -> None:
        raise BadUsage(f"cannot read {path}")

    bench.upload = gone
    bench.throttle.network_lost(NetworkError("no route"))
    assert bench.create(1)[0] == "refused"
    assert bench.throttle.network_is_down
    assert bench.create(0)[0] == "created"
    bench.close()


# A network lost while a file of a line is uploaded: the line is not sent without the file


@pytest.mark.usefixtures("home")
def test_a_line_whose_file_could_not_go_up_is_not_sent(tmp_path: Path) -> None:
    def unreachable(_path: str) -> None:
        raise NetworkError("no route")

    with RawServer(lambda _request: MADE) as server:
        bench = WorkerBench(tmp_path, server)
        bench.create(0)  # so that it is no wrong address
        sent = len(server.requests)
        bench.upload = unreachable
        assert bench.create(1) == ("unsent", None)
        assert bench.throttle.network_is_down
        bench.close()
        assert len(server.requests) == sent
        assert bench.reports.empty()
        records = (tmp_path / "j").read_text()
        assert '"line":2' not in records
