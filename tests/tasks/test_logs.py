"""The prompts before the latest: how each is followed to its end, and when it is left."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import cycle
from typing import Any

import pytest

from rebyte_cli import RebyteClient
from rebyte_cli.api.views import ContentView
from rebyte_cli.errors import APIError, WaitTimeout
from rebyte_cli.system.deadline import Deadline
from rebyte_cli.tasks.logs import LATE_READS, Step, queued
from rebyte_cli.tasks.stream import patient
from tests.servers import Answer, RawServer, error_reply, json_reply, transport_to


def event(text: str) -> dict[str, Any]:
    return {"eventType": "text", "payload": {"content": text}}


def looks(*firsts: dict[str, Any] | Answer) -> list[Any]:
    """What each look shows of a first prompt, with a second behind it that waits for its turn."""
    return [
        {"prompts": [{"id": "p1", **first}, {"id": "p2", "status": "pending"}]}
        if isinstance(first, dict)
        else first
        for first in firsts
    ]


RUNS = {"status": "running"}
SILENT = {"status": "completed"}
SPOKE = {"status": "completed", "events": [event("a"), event("b")]}


class Bench:
    """A task and a client that follows it, on a clock that only pauses move."""

    def __init__(self) -> None:
        self.now = 100.0
        self.pauses: list[float] = []
        self.script: list[Any] = []
        self.asked = 0
        self.server = RawServer(self.answer)
        self.client = RebyteClient(transport=transport_to(self.server, sleep=lambda _seconds: None))

    def answer(self, _request: Any) -> Answer:
        said = self.script[min(self.asked, len(self.script) - 1)]
        if isinstance(said, dict):
            self.asked += 1
            return json_reply(said)
        return said

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds

    def follow(self, first: Any, *later: Any, timeout: float | None = None) -> Iterator[Step]:
        """Each read, without the empty step that follows it."""
        self.script = list(later)
        limit = Deadline(timeout, clock=lambda: self.now)
        patience = patient(self.client, "t1", limit, growth=1.25, steady=0.0, sleep=self.sleep)
        steps = queued(self.client, "t1", ContentView(first), patience, asked=lambda *_: None)
        return (step for step, empty in zip(steps, cycle([False, True])) if not empty)


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench()
    with bench.server, bench.client:
        yield bench


def words(turns: list[Step]) -> list[list[str]]:
    return [[row.payload["content"] for row in turn.events] for turn in turns]


def test_new_events_are_shown_read_by_read(bench: Bench) -> None:
    turns = list(bench.follow(*looks({**RUNS, "events": [event("a")]}, RUNS, SPOKE)))
    assert words(turns) == [["a"], [], ["b"]]
    assert [(turn.begins, turn.end is not None) for turn in turns] == [
        (True, False),
        (False, False),
        (False, True),
    ]


def test_the_last_words_of_one_that_just_ended_are_waited_for(bench: Bench) -> None:
    turns = list(bench.follow(*looks(RUNS, SILENT, SILENT, SPOKE)))
    assert words(turns) == [[], [], [], ["a", "b"]]
    assert [turn.end is not None for turn in turns] == [False, False, False, True]


def test_waiting_for_the_last_words_ends(bench: Bench) -> None:
    assert len(list(bench.follow(*looks(RUNS, SILENT)))) == 1 + LATE_READS


@pytest.mark.parametrize("end", [{"status": "failed"}, {**SILENT, "response": "Done"}])
def test_no_wait_for_last_words_that_cannot_come(bench: Bench, end: dict[str, Any]) -> None:
    assert len(list(bench.follow(*looks(RUNS, end)))) == 2


def test_a_prompt_that_ended_before_is_shown_at_once(bench: Bench) -> None:
    assert len(list(bench.follow(*looks(SILENT)))) == 1
    assert bench.pauses == []


def test_the_pauses_between_reads_grow(bench: Bench) -> None:
    list(bench.follow(*looks(*[RUNS] * 10, SPOKE)))
    assert bench.pauses[:3] == [1.0, 1.25, 1.5625]
    assert bench.pauses[-2:] == [5.0, 5.0]


def test_the_last_pause_ends_at_the_time_limit(bench: Bench) -> None:
    with pytest.raises(WaitTimeout, match="t1 is still running after 2 s") as caught:
        list(bench.follow(*looks(RUNS, RUNS), timeout=2.0))
    assert bench.pauses == [1.0, 1.0]
    assert caught.value.pending == ["t1"]


def test_permanent_errors_end_it_at_once(bench: Bench) -> None:
    turns = bench.follow(*looks(RUNS, error_reply(400, "odd", "Not this one")))
    next(turns)
    with pytest.raises(APIError, match="Not this one"):
        next(turns)


def test_a_document_that_lost_prompts_is_not_believed(bench: Bench) -> None:
    fewer = {"prompts": [{"id": "p2", "status": "completed"}]}
    first, last = looks(RUNS, SPOKE)
    turns = list(bench.follow(first, fewer, last))
    assert [turn.prompt and turn.prompt.id for turn in turns] == ["p1", "p1", "p1"]


def test_events_that_are_none_are_passed_over(bench: Bench) -> None:
    for odd in ("text", {"a": 1}, [None, "text", event("a")]):
        (turn,) = bench.follow(*looks({**SILENT, "events": odd}))
        assert words([turn]) == [["a"] if isinstance(odd, list) else []]
