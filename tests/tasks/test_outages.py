"""Everything that asks again, while the service is away: for 20 seconds, and for ten minutes.

A real server that hangs up, on a clock that only pauses move.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from queue import Queue
from types import SimpleNamespace
from typing import Any

import pytest

from rebyte_cli import RebyteClient
from rebyte_cli.api.views import ContentView, EventView
from rebyte_cli.batch.poller import Poller
from rebyte_cli.batch.throttle import Throttle
from rebyte_cli.commands._wait import _wait_command
from rebyte_cli.errors import NetworkError, ServerFault, Unsent
from rebyte_cli.system.deadline import FAULTS, OUTAGE, Patience
from rebyte_cli.tasks import logs, stream, wait
from rebyte_cli.tasks.question_watch import QuestionWatcher
from rebyte_cli.tasks.task_watch import TaskWatch
from rebyte_cli.tasks.workspaces import ready
from tests.servers import Answer, RawServer, Request, json_reply, reply, reset, transport_to
from tests.task_board import Time
from tests.tasks.test_question_watch import User, asks
from tests.waiting import eventually

AWAY = 10.0  # when the outage begins


class Bench:
    """One task and one computer, which are ready a second after the outage."""

    def __init__(self, length: float) -> None:
        self.at, self.back = Time(), AWAY + length
        self.server = RawServer(self.answer)
        transport = transport_to(self.server, clock=self.at.clock, sleep=self.at.sleep)
        self.client = RebyteClient(transport=transport)
        self.asking = asks("m")

    def answer(self, request: Request) -> Answer:
        now = self.at.now
        if AWAY <= now < self.back:
            return reset
        is_over = now > self.back
        status = "completed" if is_over else "running"
        prompt = {"id": "p1", "status": status, "userPrompt": "Go", "response": "Done."}
        later = {"id": "p2", "status": "pending"}
        if request.path.endswith("/events"):
            end = {"status": status, "lastSeq": -1, "finalResult": "Done."}
            body = f"event: done\ndata: {json.dumps(end)}\n\n" if is_over else ""
            return reply(200, body, {"Content-Type": "text/event-stream"})
        if "/content" in request.path:
            said = {"eventType": "text", "payload": {"content": "Done."}}
            events = [self.asking, *([said] if is_over else [])]
            return json_reply({"id": "t1", "prompts": [{**prompt, "events": events}, later]})
        if request.path.startswith("/v1/tasks?"):
            row = {"id": "t1", "completedAt": "2026-02-09T10:00:00.000Z" if is_over else None}
            return json_reply({"data": [row], "total": 1})
        if "computer" in request.path:
            state = "ready" if is_over else "provisioning"
            return json_reply({"id": "w1", "status": state})
        return json_reply({"id": "t1", "status": status, "prompts": [prompt]})


def waiting(bench: Bench) -> None:
    hint = _wait_command(["t1"], "all")
    patience = wait.patient(bench.client, bench.at.deadline(), resume=hint)
    targets = [wait.WaitTarget("t1")]
    list(wait.watch(bench.client, targets, patience=patience, pause=bench.at.pause))


def streaming(bench: Bench) -> None:
    limit = bench.at.deadline()
    patience = stream.patient(bench.client, "t1", limit, sleep=bench.at.sleep)
    list(stream.follow(bench.client, "t1", patience=patience))


def queue(bench: Bench) -> None:
    found = ContentView(dict(bench.client.task_content("t1", events=True)))
    limit = bench.at.deadline()
    patience = stream.patient(bench.client, "t1", limit, sleep=bench.at.sleep)
    list(logs.queued(bench.client, "t1", found, patience, asked=lambda *_: None))


def question(bench: Bench) -> None:
    history: Any = SimpleNamespace(was_answered=lambda _id: False)
    watcher = QuestionWatcher(
        bench.client,
        history,
        "ask",
        note=lambda _text: None,
        dialog=User(bench.at),
        deadline=bench.at.deadline(),
        sleep=bench.at.sleep,
    )
    question = EventView(bench.asking).question
    assert question is not None
    watcher.react("t1", question)


def the_list(bench: Bench) -> None:
    history: Any = SimpleNamespace(
        remember_shown=list, was_answered=lambda _id: False, ends=lambda _ids: {}
    )
    watch = TaskWatch(
        bench.client,
        history,
        most=10,
        tests=list,
        note=lambda _text: None,
        deadline=bench.at.deadline(),
    )
    watch.begin()
    while not all(task.has_ended for task in watch.tasks):
        bench.at.sleep(watch.step())


def computer(bench: Bench) -> None:
    first = bench.client.get_computer("w1")
    ready(bench.client, first, deadline=bench.at.deadline(), sleep=bench.at.sleep)


def library(bench: Bench) -> None:
    bench.client.wait_for_task("t1", timeout_seconds=3600)


def batch(bench: Bench) -> None:
    reports: Queue[tuple[Any, ...]] = Queue()

    def ask(things: dict[int, str]) -> None:
        bench.at.sleep(1.0)
        task = bench.client.get_task("t1")
        if task["status"] == "completed":
            for line in things:
                poller.drop(line)
                reports.put(("ended", line, task))

    poller: Poller[str] = Poller(
        "bench",
        bench.client,
        Throttle(clock=bench.at.clock),
        lambda *report: reports.put(report),
        ask=ask,
        pause=lambda _since, _count: 0.0,
    )
    poller.add(1, "t1")
    kind, _, value = reports.get(timeout=300)
    poller.stop()
    eventually(lambda: not (poller._thread and poller._thread.is_alive()))
    if kind == "fatal":
        raise value


LOOPS: dict[Callable[[Bench], None], str] = {
    waiting: "Resume with `rebyte wait t1`",
    streaming: "See the rest with `rebyte logs t1 -f`",
    queue: "See the rest with `rebyte logs t1 -f`",
    question: "See the rest with `rebyte logs t1 -f`",
    the_list: "Resume with `rebyte list --watch`",
    computer: "`rebyte workspace show w1` shows its progress",
    library: "Wait again with client.wait_for_task('t1')",
    batch: "The tasks keep running; run the same command again to resume.",
}


@pytest.mark.slow
@pytest.mark.parametrize("loop", LOOPS, ids=lambda loop: loop.__name__)
def test_an_outage_of_20_seconds_ends_nothing(loop: Callable[[Bench], None]) -> None:
    bench = Bench(20.0)
    with bench.server, bench.client:
        loop(bench)
    assert bench.back < bench.at.now < bench.back + 30


@pytest.mark.slow
@pytest.mark.parametrize("loop", LOOPS, ids=lambda loop: loop.__name__)
def test_an_outage_of_ten_minutes_ends_it_and_says_how_to_resume(
    loop: Callable[[Bench], None],
) -> None:
    bench = Bench(600.0)
    with bench.server, bench.client, pytest.raises(NetworkError) as caught:
        loop(bench)
    assert caught.value.hint == LOOPS[loop]
    assert AWAY + OUTAGE <= bench.at.now < bench.back


# Patience itself


def test_an_answer_in_between_is_the_end_of_an_outage() -> None:
    at, error = Time(), NetworkError("gone")
    patience = Patience(at.deadline(), sleep=at.sleep, longest=20.0)
    for _ in range(3):
        while at.now < OUTAGE - 20:
            patience.failed(error)
            patience.sleep()
        patience.answered()
        at.now = 0.0
        assert patience.pause() == 1.0


def test_few_faults_are_not_enough_however_long_they_take() -> None:
    """The process may have been stopped in between."""
    at = Time()
    patience = Patience(at.deadline())
    for _ in range(FAULTS - 1):
        patience.failed(ServerFault("down", status_code=503))
        at.now += OUTAGE
    with pytest.raises(ServerFault):
        patience.failed(ServerFault("down", status_code=503))


def test_a_hint_of_the_error_comes_before_the_one_that_resumes() -> None:
    patience = Patience(outage=0.0, faults=1, resume="Resume with `rebyte wait t1`")
    with pytest.raises(NetworkError) as caught:
        patience.failed(Unsent("no such host: x", hint="Check the base URL and your network"))
    assert caught.value.hint == "Check the base URL and your network\nResume with `rebyte wait t1`"
