"""A create that is never doubled: answers lost on real connections, one task on the server.

The numbers in the names are those of the cases this project was built against: 33 nothing can
be reached, 34 reset after the body, 35 read timeout, 36 two candidates, 37 gateway timeout.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from rebyte_cli import RebyteClient
from rebyte_cli.api.transport import Transport
from rebyte_cli.errors import APIError, BadUsage, Interrupted, OutcomeUnknown, RebyteError, Unsent
from rebyte_cli.history.history import History
from rebyte_cli.local.server import LOCAL_KEY, Service

from .cutting_proxy import Cut, CuttingProxy
from .once_bench import PROMPT, TASKS, Bench


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
