"""A create that is never doubled: answers lost on real connections, one task on the server.

The numbers in the names are those of the cases this project was built against: 33 nothing can
be reached, 34 reset after the body, 35 read timeout, 36 two candidates, 37 gateway timeout.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from rebyte_cli import RebyteClient
from rebyte_cli.api.transport import Transport
from rebyte_cli.errors import (
    APIError,
    BadUsage,
    Interrupted,
    OutcomeUnknown,
    RebyteError,
    ServerFault,
    Unsent,
)
from rebyte_cli.history.history import History
from rebyte_cli.local.server import LOCAL_KEY, Service
from rebyte_cli.tasks.create import CreateOperation, FollowUpOperation
from rebyte_cli.tasks.search import digest_of
from tests.cutting_proxy import Cut, CuttingProxy
from tests.once_bench import PROMPT, TASKS, Bench
from tests.servers import Answer, RawServer, closed_port, error_reply, json_reply, wire_to
from tests.task_board import Time


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with Service(tmp_path / "service") as service, CuttingProxy(service.base_url) as proxy:
        yield Bench(tmp_path, service, proxy)


def test_an_answer_is_returned_and_remembered(bench: Bench) -> None:
    created = bench.create(key="nightly", body={"executor": "claude"})
    assert bench.on_server() == [created["id"]]
    assert created["workspaceId"]
    remembered = bench.history.task(created["id"])
    assert remembered is not None
    assert (remembered["prompt"], remembered["executor"]) == (PROMPT, "claude")
    assert bench.notes == []


def test_case_33_nothing_listens(bench: Bench) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    pauses: list[float] = []
    transport = Transport(f"http://127.0.0.1:{port}/v1", LOCAL_KEY, sleep=pauses.append)
    with pytest.raises(Unsent):
        bench.create(client=RebyteClient(transport=transport), key="k")
    assert len(pauses) == 3  # four tries
    # Nothing was sent, so the key is as good as new.
    assert bench.create(key="k")["id"] == bench.on_server()[0]


def test_case_33_a_reset_before_the_server_heard_of_it_is_not_sent_again(bench: Bench) -> None:
    bench.proxy.cut("POST", TASKS, Cut.BEFORE)
    with pytest.raises(OutcomeUnknown) as caught:
        bench.create()
    assert bench.proxy.count("POST") == 1
    assert bench.on_server() == []
    assert caught.value.exit_status == 6
    assert caught.value.candidates == []


@pytest.mark.parametrize("cut", [Cut.AFTER, Cut.MIDWAY, Cut.STATUS])
def test_cases_34_and_37_the_task_behind_a_lost_answer_is_taken(bench: Bench, cut: Cut) -> None:
    bench.proxy.cut("POST", TASKS, cut)
    created = bench.create(key="k")
    assert bench.proxy.count("POST") == 1
    assert bench.on_server() == [created["id"]]
    assert created["url"].endswith(created["id"])
    assert created["status"] == "running"
    assert "workspaceId" not in created
    assert "was lost" in bench.notes[-1]
    assert created["id"] in bench.notes[-1]
    assert [task["id"] for task in bench.history.tasks()] == [created["id"]]
    assert bench.create(key="k") == created


def test_case_35_a_read_timeout_while_the_task_exists(bench: Bench) -> None:
    bench.proxy.cut("POST", TASKS, Cut.MUTE)
    created = bench.create(client=bench.connect(timeout=0.3))
    assert bench.proxy.count("POST") == 1
    assert bench.on_server() == [created["id"]]


def test_case_36_two_equal_tasks_are_both_named(bench: Bench) -> None:
    def twin() -> None:
        bench.direct.create_task(PROMPT)

    bench.proxy.cut("POST", TASKS, Cut.AFTER, then=twin)
    with pytest.raises(OutcomeUnknown) as caught:
        bench.create(key="k")
    ids = bench.on_server()
    assert len(ids) == 2
    assert sorted(task["id"] for task in caught.value.candidates) == sorted(ids)
    assert all(task["id"] in caught.value.message for task in caught.value.candidates)
    # Asked again, it still does not guess, and still makes none.
    with pytest.raises(OutcomeUnknown):
        bench.create(key="k")
    assert bench.on_server() == ids


def test_tasks_of_others_are_not_taken(bench: Bench) -> None:
    def others() -> None:
        bench.direct.create_task(PROMPT + " and the logout test")
        bench.direct.create_task("Something else")

    bench.proxy.cut("POST", TASKS, Cut.BEFORE)
    bench.proxy.cut("GET", r"/v1/tasks\?", Cut.STATUS, status=503, then=others)
    with pytest.raises(OutcomeUnknown) as caught:
        bench.create()
    # One of them holds our prompt and could be ours with something added: named, not taken.
    assert [task["id"] for task in caught.value.candidates] == bench.on_server()[:1]


def test_a_task_known_from_here_is_not_taken_for_the_lost_one(bench: Bench) -> None:
    bench.create()
    bench.proxy.cut("POST", TASKS, Cut.BEFORE)
    with pytest.raises(OutcomeUnknown) as caught:
        bench.create()
    assert caught.value.candidates == []
    assert len(bench.on_server()) == 1


def test_an_old_task_with_the_same_prompt_is_not_taken(tmp_path: Path) -> None:
    time = [1_780_000_000.0]
    with (
        Service(tmp_path / "service", clock=lambda: time[0]) as service,
        CuttingProxy(service.base_url) as proxy,
    ):
        bench = Bench(tmp_path, service, proxy)
        bench.direct.create_task(PROMPT)
        time[0] += 60
        # The clock that counts is the server's, here far away from ours.
        proxy.cut("POST", TASKS, Cut.AFTER)
        assert bench.create()["id"] == bench.on_server()[1]
        time[0] += 60
        proxy.cut("POST", TASKS, Cut.BEFORE)
        with pytest.raises(OutcomeUnknown) as caught:
            bench.create()
        assert caught.value.candidates == []


def test_without_content_a_candidate_is_named_but_not_taken(bench: Bench) -> None:
    bench.proxy.cut("POST", TASKS, Cut.AFTER)
    bench.proxy.cut("GET", "/content", Cut.STATUS, status=404, times=20)
    with pytest.raises(OutcomeUnknown) as caught:
        bench.create(key="k")
    assert [task["id"] for task in caught.value.candidates] == bench.on_server()


def test_another_executor_makes_a_match_doubtful(bench: Bench) -> None:
    def other() -> None:
        bench.direct.create_task(PROMPT, executor="gemini")

    bench.proxy.cut("POST", TASKS, Cut.BEFORE)
    bench.proxy.cut("GET", r"/v1/tasks\?", Cut.STATUS, status=503, then=other)
    with pytest.raises(OutcomeUnknown) as caught:
        bench.create(body={"executor": "claude"})
    assert [task["id"] for task in caught.value.candidates] == bench.on_server()


def test_a_failing_look_says_why(bench: Bench) -> None:
    bench.proxy.cut("POST", TASKS, Cut.AFTER)
    bench.proxy.cut("GET", TASKS[:-1], Cut.STATUS, status=500, times=20)
    with pytest.raises(OutcomeUnknown, match="500"):
        bench.create()


def test_a_refusal_leaves_the_key_free(bench: Bench) -> None:
    bench.proxy.cut("POST", TASKS, Cut.STATUS, status=400)
    with pytest.raises(APIError) as caught:
        bench.create(key="k")
    assert caught.value.exit_status == 1
    again = bench.create(key="k")
    assert bench.on_server()[-1] == again["id"]


def test_a_history_that_cannot_be_written(bench: Bench) -> None:
    (bench.folder / "file").write_text("")
    nowhere = History(bench.folder / "file" / "history.db", origin="test")
    created = bench.create(history=nowhere)
    assert bench.on_server() == [created["id"]]
    assert "no trace" in bench.notes[0]
    # With a key that would be a promise nobody can keep.
    with pytest.raises(RebyteError, match=r"cannot|not a folder"):
        bench.create(history=nowhere, key="k")
    assert len(bench.on_server()) == 1


def stopped(_seconds: float) -> None:
    raise KeyboardInterrupt


def test_an_interrupt_while_looking_says_what_is_known(bench: Bench) -> None:
    bench.proxy.cut("POST", TASKS, Cut.BEFORE)
    with pytest.raises(Interrupted) as caught:
        bench.create(sleep=stopped)
    assert caught.value.exit_status == 130
    assert "not known" in str(caught.value.hint)
    # The next attempt looks for that one first; cut short there, nothing was sent by it.
    with pytest.raises(Interrupted) as caught:
        bench.create(sleep=stopped)
    assert "sent nothing" in str(caught.value.hint)
    assert bench.proxy.count("POST") == 1


def test_an_empty_key_is_a_mistake(bench: Bench) -> None:
    with pytest.raises(BadUsage):
        bench.create(key=" ")
    assert bench.proxy.seen == []


# -- What is said of a task or a prompt that was found, and of one that nobody can be sure of.

ROW = {"id": "t1", "url": "https://x/", "createdAt": "c", "title": "Fix it"}
TASK = {"id": "t1", "workspaceId": "w1", "status": "completed", "prompts": []}


@pytest.fixture
def answers() -> list[Answer]:
    return [json_reply(TASK)]


@pytest.fixture
def client(answers: list[Answer]) -> Iterator[RebyteClient]:
    with (
        RawServer(lambda _request: answers[-1]) as server,
        RebyteClient(transport=wire_to(server)) as client,
    ):
        yield client


@pytest.fixture
def history(tmp_path: Path) -> History:
    return History(tmp_path / "history.db", origin="o")


def test_a_task_that_was_found_is_told_as_one_that_was_answered(
    client: RebyteClient, history: History, answers: list[Answer]
) -> None:
    create = CreateOperation(client, history, {"prompt": "Hi"}, "Hi")
    found = {"id": "t1", "url": "https://x/", "createdAt": "c"}
    assert create.taken(ROW) == {**found, "workspaceId": "w1", "status": "completed"}
    answers.append(error_reply(400, "odd", "Not this one"))
    assert create.taken(ROW) == {**found, "status": "running"}


def test_a_task_is_named_with_its_link_if_it_has_one(
    client: RebyteClient, history: History
) -> None:
    create = CreateOperation(client, history, {"prompt": "Hi"}, "Hi")
    assert create.says(ROW) == "task t1 (https://x/)"
    assert create.says({"id": "t1"}) == "task t1"


@pytest.mark.parametrize(
    ("rows", "why", "says"),
    [
        ([], None, "is not known"),
        ([], "no list", "is not known; looking for it failed: no list"),
        ([{"id": "1"}, {"id": "2"}], "no list", "is not known; it may be {0}1 or 2"),
    ],
)
def test_what_cannot_be_known_says_what_it_may_be_and_why(
    client: RebyteClient, history: History, rows: list[dict[str, Any]], why: str, says: str
) -> None:
    create = CreateOperation(client, history, {"prompt": "Hi"}, "Hi")
    assert create.unknown(rows, None, why).message.endswith(says.format(""))
    follow_up = FollowUpOperation(client, history, "t1", {"prompt": "Hi"})
    assert follow_up.unknown(rows, None, why).message.endswith(says.format("prompt "))


def test_only_with_a_key_the_same_command_is_safe(client: RebyteClient, history: History) -> None:
    create = CreateOperation(client, history, {"prompt": "Hi"}, "Hi")
    assert "rebyte list" in str(create.unknown([], None, None).hint)
    assert str(create.unknown([], "key", None).hint).startswith("run the same command again")


def test_the_history_keeps_the_prompt_of_what_was_made_from_it(
    client: RebyteClient, history: History
) -> None:
    create = CreateOperation(client, history, {"prompt": "Hi"}, "Hi")
    assert create.keep({"id": "t1"}) == "t1"
    create.keep({"id": "t2"}, as_asked=False)  # by an earlier attempt, with another prompt
    assert [(history.task(id_) or {}).get("prompt") for id_ in ("t1", "t2")] == ["Hi", ""]


def test_a_body_is_the_same_in_whatever_order(client: RebyteClient, history: History) -> None:
    bodies: list[dict[str, Any]] = [
        {"prompt": "Hi", "model": "big"},
        {"model": "big", "prompt": "Hi"},
        {"prompt": "Hi", "model": "small"},
    ]
    first, same, other = (
        CreateOperation(client, history, body, "Hi").body_digest for body in bodies
    )
    assert first == same != other


# -- What an attempt leaves behind when it ends, and what the next one of the same makes of it.

LIST = r"/v1/tasks\?"


def left_open(bench: Bench) -> list[str]:
    """States of attempts whose end is not known."""
    return [intent.state for intent in bench.memory().unsettled(digest_of(PROMPT))]


def nowhere() -> RebyteClient:
    url = f"http://127.0.0.1:{closed_port()}/v1"
    return RebyteClient(transport=Transport(url, LOCAL_KEY, sleep=lambda _seconds: None))


@pytest.mark.parametrize("key", [None, "k"])
def test_an_attempt_that_made_nothing_is_settled(bench: Bench, key: str | None) -> None:
    bench.proxy.cut("POST", TASKS, Cut.STATUS, status=400)
    with pytest.raises(APIError):
        bench.create(key=key)
    assert left_open(bench) == []
    with pytest.raises(Unsent):
        bench.create(key=key, client=nowhere())
    assert left_open(bench) == []
    with pytest.raises(BadUsage):
        bench.create(key=key, body={"odd": float("nan")})  # JSON has no word for it
    assert left_open(bench) == []
    created = bench.create(key=key)
    assert bench.on_server()[-1] == created["id"]  # the 400 was the proxy's: that one was made too
    # Nothing was looked for: nothing was lost.
    assert bench.proxy.count("GET", LIST) == 0


@pytest.mark.parametrize("key", [None, "k"])
def test_a_fault_of_the_server_is_raised_and_leaves_it_open(bench: Bench, key: str | None) -> None:
    """A 500 does not say whether the task was made, and here it was."""
    bench.proxy.cut("POST", TASKS, Cut.STATUS, status=500)
    with pytest.raises(ServerFault):
        bench.create(key=key)
    assert left_open(bench) == ["unknown"]
    created = bench.create(key=key)
    assert bench.on_server() == [created["id"]]
    assert bench.proxy.count("POST") == 1
    assert left_open(bench) == []


def test_what_was_sent_and_lost_is_left_open(bench: Bench) -> None:
    bench.proxy.cut("POST", TASKS, Cut.BEFORE)
    with pytest.raises(OutcomeUnknown):
        bench.create(key="k")
    assert left_open(bench) == ["unknown"]
    assert any("looking for what became of it" in note for note in bench.notes)


def test_a_look_that_fails_is_taken_again(bench: Bench) -> None:
    bench.proxy.cut("POST", TASKS, Cut.AFTER)
    bench.proxy.cut("GET", LIST, Cut.STATUS, status=500)
    created = bench.create(look_for=5)
    assert bench.on_server() == [created["id"]]


def test_a_key_that_is_rejected_meanwhile_ends_the_look(bench: Bench) -> None:
    at = Time()
    bench.proxy.cut("POST", TASKS, Cut.AFTER)
    bench.proxy.cut("GET", LIST, Cut.STATUS, status=401, times=50)
    with pytest.raises(OutcomeUnknown, match="401"):
        bench.create(look_for=20, clock=at.clock, sleep=at.sleep)
    assert at.now == 0
    assert bench.proxy.count("GET", LIST) == 1


def test_a_lost_answer_is_found_without_a_history(bench: Bench) -> None:
    (bench.folder / "file").write_text("")
    broken = History(bench.folder / "file" / "history.db", origin="test")
    bench.proxy.cut("POST", TASKS, Cut.AFTER)
    created = bench.create(history=broken)
    assert bench.on_server() == [created["id"]]


def test_a_promise_that_cannot_be_written_is_not_begun(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that fills up between taking the key and writing the intent."""

    def full(self: History, *_: Any, **__: Any) -> None:
        raise RebyteError("cannot write the history: No space left on device")

    monkeypatch.setattr(History, "open_intent", full)
    with pytest.raises(RebyteError, match="No space left"):
        bench.create(key="k")
    assert bench.proxy.count("POST") == 0
    assert bench.on_server() == []


# -- attempts that were cut off ----------------------------------------------------------------


def cut_off(bench: Bench, owner: str, **more: str) -> None:
    """An attempt at the same whose process died after it wrote its intent."""
    body = {"prompt": PROMPT, **more}
    bench.memory().open_intent(
        None,
        digest=digest_of(PROMPT),
        body_digest=CreateOperation(bench.client, bench.history, body, PROMPT).body_digest,
        started_at=datetime.now(UTC).isoformat(),
        owner=owner,
    )


def test_two_that_died_may_have_made_one_task_which_is_taken(bench: Bench) -> None:
    cut_off(bench, "gone 1")
    cut_off(bench, "gone 2")
    made = bench.direct.create_task(PROMPT)
    assert bench.create()["id"] == made["id"]
    assert bench.on_server() == [made["id"]]
    assert any("looking for it" in note for note in bench.notes)


def test_the_task_of_one_that_is_at_work_is_not_taken(bench: Bench) -> None:
    """Of two attempts one died and one lives: the task may be of the one that lives."""
    cut_off(bench, "gone")
    cut_off(bench, "alive")
    made = bench.direct.create_task(PROMPT)
    held, done = threading.Event(), threading.Event()

    def live() -> None:
        with bench.memory().hold("alive"):
            held.set()
            done.wait(20)

    other = threading.Thread(target=live)
    other.start()
    assert held.wait(20)
    try:
        created = bench.create()
    finally:
        done.set()
        other.join()
    assert created["id"] != made["id"]
    assert "Sending anew" in bench.notes


def test_what_asked_for_something_else_is_not_taken_up(bench: Bench) -> None:
    """The same prompt for another executor: its task is not what this call asks for."""
    cut_off(bench, "gone", executor="gemini")
    made = bench.direct.create_task(PROMPT, executor="gemini")
    assert bench.create()["id"] != made["id"]
    assert bench.notes == []
    assert bench.proxy.count("GET") == 0
