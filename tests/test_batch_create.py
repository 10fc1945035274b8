"""The workers of a batch, one create at a time: what they report, and what is noted of it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest

from rebyte_cli.batch.throttle import Throttle
from rebyte_cli.batch.workers import Job
from rebyte_cli.errors import BadUsage, KeyRejected, RebyteError

from .keyring_daemon import eventually
from .servers import Answer, RawServer, error_reply, reset
from .workshop import MADE, Workshop

pytestmark = pytest.mark.usefixtures("home")


@pytest.fixture
def answers() -> list[Answer]:
    return [MADE]


@pytest.fixture
def server(answers: list[Answer]) -> Iterator[RawServer]:
    with RawServer(lambda _request: answers[-1]) as server:
        yield server


@pytest.fixture
def shop(tmp_path: Path, server: RawServer) -> Iterator[Workshop]:
    shop = Workshop(tmp_path, server)
    yield shop
    shop.close()


def test_a_create_that_went_through(shop: Workshop) -> None:
    kind, (body, task) = shop.create(0)
    assert (kind, body["prompt"], task["id"]) == ("created", "n 0", "t1")
    assert shop.states() == ["sending", "created"]
    assert shop.creators.known == {"t1"}
    assert shop.creators.flying == {0}  # taken out by who reads the reports


def test_an_answer_that_is_lost_is_reported_with_its_time(
    shop: Workshop, answers: list[Answer]
) -> None:
    answers.append(lambda line: reset(line))
    kind, sent = shop.create(0)
    assert kind == "lost"
    assert sent.startswith("20")
    assert shop.states() == ["sending"]


@pytest.mark.parametrize("status", [401, 403, 302])
def test_what_every_other_create_would_meet_ends_the_batch(
    shop: Workshop, answers: list[Answer], status: int
) -> None:
    answers.append(error_reply(status, "told", "No"))
    kind, error = shop.create(0)
    assert kind == "fatal"
    assert isinstance(error, KeyRejected) == (status != 302)
    assert shop.states() == ["sending", "unsent"]
    shop.creators.put(Job(2, None))
    assert shop.reports.get(timeout=20)[0] == "unsent", "the gate is shut at once"


def test_a_refusal_is_of_that_line_alone(shop: Workshop, answers: list[Answer]) -> None:
    answers.append(error_reply(400, "validation_error", "No such model"))
    kind, error = shop.create(0)
    assert (kind, error.message) == ("refused", "No such model")
    assert shop.states() == ["sending", "refused"]
    answers.append(MADE)
    assert shop.create(2)[0] == "created"


def test_a_file_that_cannot_be_uploaded_refuses_its_line(shop: Workshop) -> None:
    def gone(path: str) -> None:
        raise BadUsage(f"cannot read {path}")

    shop.upload = gone
    kind, error = shop.create(1)
    assert (kind, error.message) == ("refused", "cannot read f")
    assert shop.states() == ["refused"], "nothing was sent"


def test_a_file_of_many_lines_is_uploaded_once(shop: Workshop) -> None:
    uploads: list[str] = []

    def upload(path: str) -> dict[str, str]:
        uploads.append(path)
        return {"id": "f1", "filename": path}

    shop.upload = upload
    for at in (1, 3, 5):
        _, (body, _) = shop.create(at)
        assert body["files"] == [{"id": "f1", "filename": "f"}]
    assert uploads == ["f"]


def test_a_mistake_of_ours_does_not_look_like_a_hanging_batch(shop: Workshop) -> None:
    def wrong(_path: str) -> None:
        raise ZeroDivisionError

    shop.upload = wrong
    kind, error = shop.create(1)
    assert kind == "crash"
    assert isinstance(error, ZeroDivisionError)


def test_a_journal_that_fails_ends_it_before_anything_is_sent(
    shop: Workshop, server: RawServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_records: object) -> None:
        raise RebyteError("cannot write the journal: No space left on device")

    monkeypatch.setattr(shop.journal, "commit", full)
    kind, error = shop.create(0)
    assert (kind, "No space left" in error.message) == ("fatal", True)
    assert server.requests == []


def test_no_more_threads_than_were_asked_for_and_what_none_began_is_given_back(
    tmp_path: Path, server: RawServer
) -> None:
    shop = Workshop(tmp_path, server, count=2)
    shop.gate.hold(60, "a pause")
    for at in range(0, 10, 2):
        shop.creators.put(Job(at, None))
    eventually(lambda: shop.creators.jobs.qsize() == 3)
    assert [job.at for job in shop.creators.take_back()] == [4, 6, 8]
    assert sum(thread.name.startswith("create-") for thread in threading.enumerate()) >= 2
    assert len(shop.creators._threads) == 2
    shop.close()
    assert sorted(shop.reports.get(timeout=20)[:2] for _ in range(2)) == [
        ("unsent", 0),
        ("unsent", 2),
    ]
    assert server.requests == []


def test_lines_come_to_the_gate_in_the_order_of_the_file(tmp_path: Path, server: RawServer) -> None:
    """However long a worker takes from its line to the gate: here it lets the others go first."""
    order: list[int] = []

    class Noted(Throttle):
        def _lets_pass(self, ticket: Any) -> bool:
            passed = super()._lets_pass(ticket)
            if passed:
                order.append(ticket.at)
            return passed

    shop = Workshop(tmp_path, server, count=4, gate=Noted(rate=1000))
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

    shop.creators.jobs = Slow()
    for at in range(0, 8, 2):
        shop.creators.put(Job(at, None))
    for _ in range(4):
        assert shop.reports.get(timeout=20)[0] == "created"
    assert order == [0, 2, 4, 6]
    shop.close()
