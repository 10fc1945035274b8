"""One run over as many connections as it takes: the traps of the event stream, one by one."""

from __future__ import annotations

import json
import time
import tracemalloc
from collections.abc import Iterable
from types import MappingProxyType
from typing import Any

import pytest

from rebyte_cli import RebyteClient
from rebyte_cli.api.views import EventView
from rebyte_cli.errors import (
    APIError,
    KeyRejected,
    NetworkError,
    Redirected,
    ResourceNotFound,
    WaitTimeout,
)
from rebyte_cli.system.deadline import Deadline
from rebyte_cli.tasks.stream import (
    EventDeduplicator,
    Silence,
    StreamConnection,
    follow,
    patient,
    snapshot,
)
from tests.servers import (
    Answer,
    Line,
    RawServer,
    Request,
    drip,
    error_reply,
    json_reply,
    parts,
    reply,
    reset,
    stall,
    then_close,
    then_stall,
    transport_to,
)
from tests.task_board import Time
from tests.waiting import with_time

pytestmark = pytest.mark.usefixtures("home")
HEAD = b"HTTP/1.1 200 X\r\nContent-Type: text/event-stream\r\n\r\n"


def text(seq: int, content: str, **more: Any) -> dict[str, Any]:
    return {"seq": seq, "eventType": "text", "payload": {"content": content}, **more}


def tool(seq: int, kind: str = "tool_use", **more: Any) -> dict[str, Any]:
    return {"seq": seq, "eventType": kind, "payload": {"id": "c1", "name": "Bash"}, **more}


def done(result: str = "", last: int = 0, status: str = "succeeded") -> dict[str, Any]:
    return {"status": status, "lastSeq": last, "finalResult": result, "done": True}


def stream(*records: dict[str, Any]) -> bytes:
    """The body of one connection."""
    out = b""
    for record in records:
        data = {name: value for name, value in record.items() if name != "done"}
        name = "done" if record.get("done") else "event"
        out += f"event: {name}\ndata: {json.dumps(data)}\n\n".encode()
    return out


class Run:
    """A service with one task: `connections` are what /events answers, the last one for ever.

    `statuses` are what the task says in turn, `response` what the content has.
    """

    def __init__(
        self,
        connections: list[Answer],
        *,
        statuses: list[str] | None = None,
        response: str | None = None,
        prompts: list[dict[str, Any]] | None = None,
        content: Answer | None = None,
    ) -> None:
        self.connections = connections
        self.statuses = statuses or ["running"]
        self.prompts = prompts
        self.content = content or json_reply(
            {
                "id": "t1",
                "prompts": [{"id": "p0", "response": "old"}, {"id": "p1", "response": response}],
            }
        )
        self.opened = self.asked = 0
        self.at = Time()
        self.slept = self.at.slept

    def __call__(self, request: Request) -> Answer:
        if request.path.endswith("/events"):
            self.opened += 1
            return self.connections[min(self.opened, len(self.connections)) - 1]
        if request.path.endswith("/content"):
            return self.content
        self.asked += 1
        status = self.statuses[min(self.asked, len(self.statuses)) - 1]
        return json_reply({"id": "t1", "status": status, "prompts": self.prompts or []})

    def follow(
        self, *, deadline: Deadline | None = None, times: Any = MappingProxyType({}), **options: Any
    ) -> list[Any]:
        """What comes; `times` are as in `Patience`."""
        with RawServer(self) as server:
            client = RebyteClient(transport=transport_to(server))
            limit = deadline or self.at.deadline()
            patience = patient(client, "t1", limit, sleep=self.at.sleep, **times)
            return list(follow(client, "t1", patience=patience, **options))


def contents(events: list[Any]) -> list[str]:
    """What was shown, in order, without the end."""
    return [
        event.data["payload"].get("content", event.data["eventType"])
        for event in events
        if event.name == "event"
    ]


def test_a_plain_run() -> None:
    run = Run([reply(200, stream(text(0, "Hello"), done("Hello")))])
    events = run.follow()
    assert contents(events) == ["Hello"]
    assert events[-1].name == "done"
    assert events[-1].data == {"status": "succeeded", "lastSeq": 0, "finalResult": "Hello"}
    assert (run.opened, run.asked, run.slept) == (1, 0, [])


def test_case_40_an_empty_done_before_the_run_has_begun() -> None:
    early = reply(200, stream(done(last=-1)))
    run = Run([early, early, reply(200, stream(text(0, "Now"), done("Now")))])
    assert contents(run.follow()) == ["Now"]
    assert run.slept == [1.0, 1.0]


def test_trap_1_an_empty_done_of_a_run_that_is_over_is_taken_after_four() -> None:
    run = Run(
        [reply(200, stream(done(last=-1)))], statuses=["running", "completed"], response="It is 4."
    )
    (end,) = run.follow()
    assert run.opened == 5
    assert end.data == {"status": "completed", "lastSeq": -1, "finalResult": "It is 4."}


def test_case_40_a_replay_is_shown_once() -> None:
    first = then_close(HEAD + stream(text(0, "a"), text(1, "b")))
    second = reply(200, stream(text(0, "a"), text(1, "b"), text(2, "c"), done("c", 2)))
    run = Run([first, second])
    assert contents(run.follow()) == ["a", "b", "c"]


def test_trap_2_the_first_event_is_not_lost_and_equal_events_are_two() -> None:
    both = stream(text(0, "tick"), text(1, "tick"))
    run = Run([then_close(HEAD + both), reply(200, both + stream(done("tick", 1)))])
    assert contents(run.follow()) == ["tick", "tick"]


@pytest.mark.parametrize("keyed", [True, False], ids=["eventKey", "without"])
def test_case_40_a_seq_that_moves(keyed: bool) -> None:
    def row(seq: int, content: str) -> dict[str, Any]:
        return text(seq, content, **({"eventKey": f"k-{content}"} if keyed else {}))

    first = then_close(HEAD + stream(row(0, "a"), row(1, "c")))
    second = reply(200, stream(row(0, "a"), row(1, "late"), row(2, "c"), row(3, "d"), done("d", 3)))
    assert contents(Run([first, second]).follow()) == ["a", "c", "late", "d"]


def test_trap_4_done_before_the_last_words_are_readable() -> None:
    early = reply(200, stream(text(0, "Looking"), tool(1), done(last=1)))
    late = stream(text(0, "Looking"), tool(1), tool(2, "tool_result"), text(3, "Found 3."))
    run = Run([early, early, reply(200, late + stream(done("Found 3.", 3)))])
    events = run.follow()
    assert contents(events) == ["Looking", "tool_use", "tool_result", "Found 3."]
    assert run.slept == [0.1, 0.1]
    assert events[-1].data["finalResult"] == "Found 3."


@pytest.mark.parametrize(("result", "answer"), [("From done.", "From done."), ("", "Read later.")])
def test_trap_4_last_words_that_never_come_are_in_the_result_or_the_content(
    result: str, answer: str
) -> None:
    run = Run([reply(200, stream(tool(0), done(result)))], response="Read later.")
    events = run.follow()
    assert contents(events) == ["tool_use"]
    assert run.opened == 9
    assert events[-1].data["finalResult"] == answer


def test_trap_6_a_stream_that_closes_or_breaks_is_taken_up_again() -> None:
    run = Run(
        [
            then_close(HEAD + stream(text(0, "a"))),
            then_close(HEAD + stream(text(0, "a"), text(1, "b"))[:-9], abrupt=True),
            then_close(HEAD),
            reply(200, stream(text(0, "a"), text(1, "b"), done("b", 1))),
        ]
    )
    assert contents(run.follow()) == ["a", "b"]


def test_trap_6_a_stream_without_done_of_a_task_that_is_over() -> None:
    run = Run([then_close(HEAD + stream(text(0, "a")))], statuses=["failed"], response="a")
    events = run.follow()
    assert contents(events) == ["a"]
    assert events[-1].data == {"status": "failed", "lastSeq": 0, "finalResult": "a"}
    assert run.opened == 4


def test_a_mute_stream_is_left_and_the_task_is_asked() -> None:
    run = Run([then_stall(HEAD), reply(200, stream(text(0, "a"), done("a")))])
    assert contents(run.follow(silence=Silence(usual=0.2))) == ["a"]
    assert run.asked >= 1


@pytest.mark.parametrize("statuses", [["completed"], ["running", "completed"]])
def test_the_end_of_a_task_is_told_soon_on_a_stream_of_keep_alives(statuses: list[str]) -> None:
    """It took 38 s, most of it for reading again what had shown nothing."""

    def check(second: float) -> None:
        silence = Silence(*(seconds * second for seconds in Silence()))
        keep_alives = drip(HEAD + b": keep-alive\n\n" * 1000, 0.01, size=len(HEAD))
        run = Run([keep_alives], statuses=statuses, response="the answer")
        began = time.monotonic()
        events = run.follow(silence=silence)
        took = (time.monotonic() - began) / second + sum(run.slept)
        assert events[-1].data["finalResult"] == "the answer"
        assert run.opened == len(statuses) + 1
        assert took < 30
        assert sum(run.slept) <= len(statuses)

    with_time(check, 0.02)


def test_the_time_limit_holds_in_a_mute_stream() -> None:
    run = Run([then_stall(HEAD + stream(text(0, "a")))])
    with pytest.raises(WaitTimeout) as caught:
        run.follow(deadline=Deadline(0.3))
    assert caught.value.pending == ["t1"]


def test_events_of_another_prompt_are_left_out() -> None:
    old = reply(200, stream(text(0, "old", promptId="p0"), done("old")))
    new = reply(200, stream(text(0, "new", promptId="p1"), done("new")))
    run = Run([old, old, new], prompts=[{"id": "p0", "status": "succeeded"}])
    events = run.follow(prompt_id="p1")
    assert contents(events) == ["new"]
    assert events[-1].data["finalResult"] == "new"


def test_an_end_that_may_be_of_the_prompt_before_is_checked() -> None:
    prompts = [{"id": "p0", "status": "succeeded"}, {"id": "p1", "status": "running"}]
    nameless = reply(200, stream(text(0, "which?"), done("which?")))
    run = Run(
        [nameless, reply(200, stream(text(0, "new", promptId="p1"), done("new")))], prompts=prompts
    )
    assert run.follow(prompt_id="p1")[-1].data["finalResult"] == "new"
    assert run.opened == 2


@pytest.mark.parametrize("content", [error_reply(404, "not_found", "no"), reply(200, "<html>")])
def test_a_service_without_content_still_has_an_end(content: Answer) -> None:
    run = Run([reply(200, stream(text(0, "a"), done("")))], content=content)
    assert run.follow()[-1].data["finalResult"] == ""


@pytest.mark.parametrize(
    ("answer", "kind", "opened"),
    [
        (error_reply(401, "invalid_api_key", "no"), KeyRejected, 1),
        (error_reply(403, "insufficient_scopes", "no"), KeyRejected, 1),
        (error_reply(400, "odd", "no"), APIError, 1),
        (error_reply(302, "moved", "no"), Redirected, 1),
    ],
    ids=["401", "403", "400", "302"],
)
def test_which_errors_end_it(answer: Answer, kind: type[Exception], opened: int) -> None:
    run = Run([answer])
    with pytest.raises(kind):
        run.follow()
    assert run.opened == opened


def test_a_task_that_is_not_there_ends_it_at_once() -> None:
    with RawServer(error_reply(404, "not_found", "no")) as server:
        client = RebyteClient(transport=transport_to(server))
        with pytest.raises(ResourceNotFound):
            list(follow(client, "t1"))
    assert len(server.requests) == 2


# Services that are down, slow or incomplete: what is retried, and for how long


class Outage(Run):
    """A run whose service resets every connection from the `first` to the `last` request."""

    def __init__(self, first: int, last: int, connections: list[Answer]) -> None:
        super().__init__(connections)
        self.span, self.count = range(first, last + 1), 0

    def __call__(self, request: Any) -> Answer:
        self.count += 1
        return reset if self.count in self.span else super().__call__(request)


def test_a_service_that_was_never_there_is_given_up_at_once() -> None:
    run = Outage(1, 10**6, [])
    with pytest.raises(NetworkError):
        run.follow()
    assert run.slept == []


def test_the_pauses_of_an_outage_grow() -> None:
    both = stream(text(0, "a"), text(1, "b"), done("b", 1))
    run = Outage(2, 60, [then_close(HEAD + stream(text(0, "a"))), reply(200, both)])
    assert contents(run.follow()) == ["a", "b"]
    assert run.slept[1:6] == [1.0, 2.0, 4.0, 5.0, 5.0]


@pytest.mark.parametrize("status", [404, 405, 410, 501])
def test_a_service_without_a_stream_is_asked_for_the_status(status: int) -> None:
    run = Run(
        [error_reply(status, "x", "no")], statuses=["running"] * 8 + ["completed"], response="It."
    )
    (end,) = run.follow()
    assert end.data == {"status": "completed", "lastSeq": -1, "finalResult": "It."}
    assert run.slept == [1.0] * 8


def test_trap_4_a_missing_answer_is_polled_for_a_while() -> None:
    early: Answer = reply(200, stream(tool(0), done()))
    run = Run([early] * 11 + [reply(200, stream(tool(0), text(1, "Found."), done("Found.", 1)))])
    assert contents(run.follow()) == ["tool_use", "Found."]
    assert run.slept == [0.1] * 8 + [0.25, 0.5, 1.0]


def test_trap_4_an_answer_that_never_comes_is_given_up_and_a_failed_run_sooner() -> None:
    for status, opened in (("succeeded", 13), ("failed", 9), ("canceled", 9)):
        run = Run([reply(200, stream(tool(0), done(status=status)))])
        assert run.follow()[-1].data["finalResult"] == ""
        assert run.opened == opened, status


@pytest.mark.parametrize("content", [reply(200, "<html>"), error_reply(405, "x", "no")])
def test_the_task_itself_may_be_all_that_has_the_answer(content: Answer) -> None:
    class WithResult(Run):
        def __call__(self, request: Any) -> Answer:
            if request.path.endswith("/t1"):
                return json_reply({"id": "t1", "status": "completed", "finalResult": "Here."})
            return super().__call__(request)

    run = WithResult([reply(200, stream(tool(0), done()))], content=content)
    assert run.follow()[-1].data["finalResult"] == "Here."


def test_the_time_limit_holds_while_the_task_cannot_be_read() -> None:
    class Stalls(Run):
        def __call__(self, request: Any) -> Answer:
            return stall if request.path.endswith("/t1") else super().__call__(request)

    with pytest.raises(WaitTimeout):
        Stalls([then_close(HEAD + stream(text(0, "a")))]).follow(deadline=Deadline(0.4))


@pytest.mark.parametrize("last", [None, "7", -1])
def test_an_end_that_does_not_say_which_event_was_the_last(last: Any) -> None:
    end = {**done("Found.", 0), "lastSeq": last}
    run = Run([reply(200, stream(tool(3), text(4, "Found."), end))])
    assert run.follow()[-1].data["lastSeq"] == 4


def test_a_connection_that_stays_open_after_the_end_is_left() -> None:
    began = time.monotonic()
    run = Run([then_stall(HEAD + stream(text(0, "a"), done("a")))])
    assert contents(run.follow()) == ["a"]
    assert time.monotonic() - began < 20


def test_failures_count_only_in_a_row() -> None:
    fault = error_reply(500, "x", "no")
    nothing = reply(200, stream())
    answers: list[Answer] = [*[fault] * 4, nothing, *[fault] * 4]
    run = Run([*answers, reply(200, stream(text(0, "a"), done("a")))])
    assert contents(run.follow()) == ["a"]


# Several prompts, and events that name none of them


class Late(Run):
    """A service whose events name no prompt, and that shows the prompt before for a while.

    `rows` are the prompts that the task tells in turn, one per read; the stream is that of the
    last of them.
    """

    def __init__(self, *rows: list[dict[str, Any]]) -> None:
        super().__init__([])
        self.rows = rows

    def __call__(self, request: Request) -> Answer:
        self.prompts = self.rows[min(self.asked, len(self.rows) - 1)]
        if request.path.endswith("/events"):
            word = self.prompts[-1]["id"]
            return reply(200, stream(text(0, f"said by {word}"), done(f"said by {word}")))
        return super().__call__(request)


P0, P1 = {"id": "p0", "status": "succeeded"}, {"id": "p1", "status": "succeeded"}


def test_nameless_events_of_the_prompt_before_are_not_taken_for_ours() -> None:
    events = Late([P0], [P0], [P0, P1]).follow(prompt_id="p1")
    assert contents(events) == ["said by p1"]
    assert events[-1].data["finalResult"] == "said by p1"


def test_nameless_events_of_a_later_prompt_are_not_ours_either() -> None:
    run = Late([P0, P1, {"id": "p2", "status": "running"}])
    run.content = json_reply({"prompts": [{"id": "p1", "response": "ours"}, {"id": "p2"}]})
    (end,) = run.follow(prompt_id="p1")
    assert (end.data["status"], end.data["finalResult"]) == ("succeeded", "ours")


def test_nameless_events_are_ours_where_the_task_tells_no_prompts() -> None:
    run = Run([reply(200, stream(text(0, "a"), done("a")))], statuses=["running", "completed"])
    assert contents(run.follow(prompt_id="p1")) == ["a"]


@pytest.mark.parametrize("word", [None, 5, "resting"])
def test_a_prompt_that_says_nothing_known_is_as_its_task(word: object) -> None:
    empty = reply(200, stream(done(last=-1)))
    run = Run([empty], statuses=["completed"], prompts=[{"id": "p1", "status": word}])
    (end,) = run.follow()
    assert end.data["status"] == "completed"
    assert run.opened == 4


def test_nameless_events_are_not_ours_while_our_turn_has_not_come() -> None:
    class Queued(Late):
        """Its stream is that of the prompt that runs, or of the last."""

        def __call__(self, request: Request) -> Answer:
            answer = super().__call__(request)
            if request.path.endswith("/events"):
                running = [row["id"] for row in self.prompts if row["status"] == "running"]
                word = running[0] if running else self.prompts[-1]["id"]
                return reply(200, stream(text(0, f"said by {word}"), done(f"said by {word}")))
            return answer

    p0 = {"id": "p0", "status": "running"}
    for waiting in ("pending", "queued"):
        run = Queued(*[[p0, {"id": "p1", "status": waiting}]] * 3, [P0, P1])
        events = run.follow(prompt_id="p1")
        assert contents(events) == ["said by p1"]
        assert events[-1].data["finalResult"] == "said by p1"


# Runs that never end


def test_case_71_a_long_run_is_shown_once_over_two_connections() -> None:
    """Each of them replays everything."""
    events = [text(number, f"word {number}") for number in range(2000)]
    first = then_close(HEAD + stream(*events))
    second = then_close(HEAD + stream(*events, text(2000, "last"), done("last", 2000)))
    shown = Run([first, second], statuses=["running"]).follow()
    assert contents(shown) == [*(f"word {number}" for number in range(2000)), "last"]


def test_case_71_a_long_run_takes_bounded_memory_and_a_replay_shows_nothing_again() -> None:
    """With far more events than are remembered."""
    deduplicator = EventDeduplicator(most=100)

    def new(numbers: Iterable[int]) -> int:
        connection, events = (
            StreamConnection(),
            (EventView({"seq": n, "eventKey": f"k{n}"}) for n in numbers),
        )
        return sum(deduplicator.is_new(event, connection) for event in events)

    assert new(range(1000)) == 1000
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        assert new(range(1000, 20_000)) == 19_000
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert grown < 100_000
    assert new(range(20_001)) == 1


def test_case_71_a_snapshot_of_a_run_that_never_pauses_has_an_end() -> None:
    endless = parts(HEAD, *[stream(text(0, "x" * 1_000_000))] * 200, every=0.001)
    with RawServer(lambda _request: endless) as server:
        found = snapshot(RebyteClient(transport=transport_to(server)), "t1", pause=60.0)
    assert 60 <= len(found) <= 70  # of a megabyte each


def test_a_snapshot_may_begin_later_than_it_may_pause() -> None:
    def late(line: Line) -> None:
        line.wait(0.3)
        line.send(HEAD + stream(text(0, "x")))

    with RawServer(lambda _request: late) as server:
        found = snapshot(RebyteClient(transport=transport_to(server)), "t1", pause=0.05)
    assert len(found) == 1


def test_a_run_that_never_pauses_ends_at_the_deadline() -> None:
    endless = parts(HEAD, *[stream(text(0, "x"))] * 20_000, every=0.005)
    begun = time.monotonic()
    with pytest.raises(WaitTimeout):
        Run([endless], statuses=["running"]).follow(deadline=Deadline(0.5))
    assert time.monotonic() - begun < 20
