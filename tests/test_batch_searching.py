"""What a batch hears of its search for lost answers, look after look."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from queue import Empty, Queue
from typing import Any

import pytest

from rebyte_cli.batch import search as batch_lost
from rebyte_cli.batch.search import Lost, Verdict, searching
from rebyte_cli.batch.throttle import Throttle
from rebyte_cli.errors import APIError, KeyRejected, ServerFault

from .keyring_daemon import eventually

FOUND = Verdict(0, {"id": "t1"}, False, [])
ABSENT = Verdict(0, None, True, [])
DOUBTFUL = Verdict(0, None, False, ["t1", "t2"])


class Scripted:
    """A finder that says what a test has it say, the last for ever; `seconds` since it was sent."""

    def __init__(self, *says: list[Verdict] | APIError, seconds: float = 1000.0) -> None:
        self.says = list(says)
        self.seconds = seconds
        self.looks = 0

    def find(self, _lost: object) -> list[Verdict]:
        said = self.says[min(self.looks, len(self.says) - 1)]
        self.looks += 1
        if isinstance(said, APIError):
            raise said
        return said

    def age(self, _sent: str) -> float:
        return self.seconds


class Known:
    """A client whose service answered before."""

    class transport:  # noqa: N801 -- it stands for an attribute
        @staticmethod
        def server_now() -> float:
            return 1.0


Search = Callable[..., Queue[tuple[Any, ...]]]


@pytest.fixture
def search(monkeypatch: pytest.MonkeyPatch) -> Iterator[Search]:
    """Search for one line; `patient`: the 20 s after which it is called unknown are not over."""
    running = []

    def begin(finder: Scripted, *, patient: bool = False) -> Queue[tuple[Any, ...]]:
        monkeypatch.setattr(batch_lost, "LOOK_FOR", 1000.0 if patient else 0.0)
        monkeypatch.setattr(batch_lost, "LATER", 0.01)
        reports: Queue[tuple[Any, ...]] = Queue()
        client: Any = Known()
        stand_in: Any = finder
        rounds = searching(client, Throttle(), lambda *report: reports.put(report), stand_in)
        running.append(rounds)
        rounds.add(0, Lost(0, "2026-02-09T10:30:00+00:00", 900.0))
        return reports

    yield begin
    for rounds in running:
        rounds.stop()


def nothing_more(reports: Queue[tuple[Any, ...]], finder: Scripted) -> None:
    """After three further looks there is nothing to say."""
    looks = finder.looks
    eventually(lambda: finder.looks >= looks + 3)
    with pytest.raises(Empty):
        reports.get_nowait()


def test_what_is_found_is_told_once_and_looked_for_no_more(search: Search) -> None:
    finder = Scripted([FOUND])
    reports = search(finder, patient=True)
    assert reports.get(timeout=20) == ("found", 0, {"id": "t1"})
    with pytest.raises(Empty):
        reports.get(timeout=0.1)
    assert finder.looks == 1


def test_one_that_is_old_enough_to_be_sent_again(search: Search) -> None:
    assert search(Scripted([ABSENT], seconds=900.0)).get(timeout=20) == ("absent", 0, None)


def test_one_that_is_not_is_called_unknown_once_and_looked_for_on(search: Search) -> None:
    finder = Scripted([ABSENT], seconds=899.0)
    reports = search(finder)
    assert reports.get(timeout=20) == ("unknown", 0, [])
    nothing_more(reports, finder)
    finder.seconds = 900.0
    assert reports.get(timeout=20) == ("absent", 0, None)


def test_what_it_could_be_is_named_and_keeps_it_from_being_absent(search: Search) -> None:
    finder = Scripted([DOUBTFUL])
    reports = search(finder)
    told = reports.get(timeout=20)
    assert told[1:] == (0, ["t1", "t2"])
    assert told[0] in ("unsure", "unknown")


def test_what_it_could_be_is_told_before_it_is_called_unknown(search: Search) -> None:
    reports = search(Scripted([DOUBTFUL]), patient=True)
    assert reports.get(timeout=20) == ("unsure", 0, ["t1", "t2"])


@pytest.mark.parametrize("status", [400, 404, 410])
def test_without_a_list_nobody_can_know_and_nothing_is_sent_again(
    search: Search, status: int
) -> None:
    """However old it is: that the list is refused says nothing about the task."""
    finder = Scripted(APIError("no list here", status_code=status))
    reports = search(finder)
    assert reports.get(timeout=20) == ("unknown", 0, [])
    nothing_more(reports, finder)


def test_a_fault_is_looked_past(search: Search) -> None:
    finder = Scripted(ServerFault("down", status_code=503), [FOUND])
    assert search(finder).get(timeout=20) == ("found", 0, {"id": "t1"})


def test_a_rejected_key_ends_the_batch(search: Search) -> None:
    rejected = KeyRejected("no", status_code=401)
    assert search(Scripted(rejected)).get(timeout=20) == ("fatal", None, rejected)
