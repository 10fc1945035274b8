"""A create that is never doubled: answers lost on real connections, one task on the server.

The numbers in the names are those of the cases this project was built against: 33 nothing can
be reached, 34 reset after the body, 35 read timeout, 36 two candidates, 37 gateway timeout, 38
kill -9 between the POST and its answer.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from rebyte_cli import RebyteClient
from rebyte_cli.api.transport import Transport
from rebyte_cli.config.credentials import LOCAL_KEY
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
from rebyte_cli.history.intents import Intents
from rebyte_cli.history.rows import Intent, NewTask, digest_of
from rebyte_cli.local.local_service import Service
from rebyte_cli.once.operation import Operation
from rebyte_cli.once.request_kinds import TaskRequest
from rebyte_cli.once.scan import LostRequest
from rebyte_cli.system.deadline import Deadline
from rebyte_cli.tasks import create
from tests.create_bench import PATIENT, PROMPT, TASKS, Bench, timestamp
from tests.cutting_proxy import Cut, CuttingProxy
from tests.paces import paced_command
from tests.servers import closed_port
from tests.task_board import Time
from tests.waiting import eventually, with_time

LIST = r"/v1/tasks\?"
AT_ONCE = PATIENT._replace(look_for=0.0)
AGAIN = "It was not found; sending the request again"


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
    prompt = f"{PROMPT} [[run=1h]]"
    created = bench.create(prompt, key="k")
    assert bench.proxy.count("POST") == 1
    assert bench.on_server() == [created["id"]]
    assert created["url"].endswith(created["id"])
    assert created["status"] == "running"
    assert "workspaceId" not in created
    assert "was lost" in bench.notes[-1]
    assert created["id"] in bench.notes[-1]
    assert [task["id"] for task in bench.history.tasks()] == [created["id"]]
    assert bench.create(prompt, key="k") == created


def test_case_35_a_read_timeout_while_the_task_exists(bench: Bench) -> None:
    def check(limit: float) -> None:
        is_made, at, before = threading.Event(), Time(), bench.proxy.count("POST")
        bench.proxy.cut("POST", TASKS, Cut.MUTE, then=is_made.set)
        bench.proxy.cut("GET", LIST, Cut.SLOW, then=lambda: is_made.wait(20))
        created = bench.create(f"Wait {limit}", deadline=at.deadline(limit), sleep=at.sleep)
        assert bench.proxy.count("POST") == before + 1
        assert bench.on_server()[-1] == created["id"]

    with_time(check, 0.3)


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
    # A server may show ours in other words: named, not taken.
    assert {task["id"] for task in caught.value.candidates} == set(bench.on_server())


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
        time[0] += 120
        # The clock that counts is the server's, here far away from ours.
        proxy.cut("POST", TASKS, Cut.AFTER)
        assert bench.create()["id"] == bench.on_server()[1]
        time[0] += 120
        proxy.cut("POST", TASKS, Cut.BEFORE)
        with pytest.raises(OutcomeUnknown) as caught:
            bench.create()
        assert caught.value.candidates == []


def test_without_content_a_candidate_is_named_but_not_taken(bench: Bench) -> None:
    bench.proxy.cut("POST", TASKS, Cut.AFTER)
    bench.proxy.cut("GET", "/content", Cut.STATUS, status=404, times=99)
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


def test_a_failing_search_says_why(bench: Bench) -> None:
    bench.proxy.cut("POST", TASKS, Cut.AFTER)
    bench.proxy.cut("GET", TASKS[:-1], Cut.STATUS, status=500, times=99)
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
    assert "cannot look for this task later" in bench.notes[0]
    # With a key that would be a promise that cannot be kept.
    with pytest.raises(RebyteError, match=r"cannot|not a folder"):
        bench.create(history=nowhere, key="k")
    assert len(bench.on_server()) == 1


def stopped(_seconds: float) -> None:
    raise KeyboardInterrupt


def test_an_interrupt_during_the_search_says_what_is_known(bench: Bench) -> None:
    bench.proxy.cut("POST", TASKS, Cut.BEFORE)
    with pytest.raises(Interrupted) as caught:
        bench.create(sleep=stopped)
    assert caught.value.exit_status == 130
    assert "outcome is unknown" in str(caught.value.hint)
    # The next attempt looks for that one first; cut short there, nothing was sent by it.
    with pytest.raises(Interrupted) as caught:
        bench.create(sleep=stopped)
    assert "Nothing was sent yet" in str(caught.value.hint)
    assert bench.proxy.count("POST") == 1


def test_an_empty_key_is_a_mistake(bench: Bench) -> None:
    with pytest.raises(BadUsage):
        bench.create(key=" ")
    assert bench.proxy.seen == []


# What an attempt leaves in the history, and how the next one uses it


def left_open(bench: Bench) -> list[str]:
    """States of attempts whose end is not known."""
    return [intent.state for intent in bench.memory().intents.unsettled(digest_of(PROMPT))]


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
    # No search: nothing was lost. With a key, each attempt asks for the newest task first.
    assert bench.proxy.count("GET", LIST) == (0 if key is None else 3)


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


def test_a_lost_request_stays_open(bench: Bench) -> None:
    bench.proxy.cut("POST", TASKS, Cut.BEFORE)
    with pytest.raises(OutcomeUnknown):
        bench.create(key="k")
    assert left_open(bench) == ["unknown"]
    assert any("looking for the result" in note for note in bench.notes)


def test_a_failed_search_is_repeated(bench: Bench) -> None:
    bench.proxy.cut("POST", TASKS, Cut.AFTER)
    bench.proxy.cut("GET", LIST, Cut.STATUS, status=500)
    created = bench.create()
    assert bench.on_server() == [created["id"]]


def test_a_rejected_key_ends_the_search(bench: Bench) -> None:
    at = Time()
    bench.proxy.cut("POST", TASKS, Cut.AFTER)
    bench.proxy.cut("GET", LIST, Cut.STATUS, status=401, times=99)
    with pytest.raises(OutcomeUnknown, match="401"):
        bench.create(deadline=Deadline(clock=at.clock), sleep=at.sleep)
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

    def full(self: Intents, *_: Any, **__: Any) -> None:
        raise RebyteError("cannot write the history: No space left on device")

    monkeypatch.setattr(Intents, "open", full)
    with pytest.raises(RebyteError, match="No space left"):
        bench.create(key="k")
    assert bench.proxy.count("POST") == 0
    assert bench.on_server() == []


# Interrupted attempts


def test_two_that_died_may_have_made_one_task_which_is_taken(bench: Bench) -> None:
    bench.cut_off(owner="gone 1")
    bench.cut_off(owner="gone 2")
    made = bench.direct.create_task(PROMPT)
    assert bench.create()["id"] == made["id"]
    assert bench.on_server() == [made["id"]]
    assert any("looking for its result" in note for note in bench.notes)


def test_the_task_of_one_that_is_at_work_is_not_taken(bench: Bench) -> None:
    """Of two attempts one died and one lives: the task may be of the one that lives."""
    bench.cut_off(owner="gone")
    bench.cut_off(owner="alive")
    made = bench.direct.create_task(PROMPT)
    held, done = threading.Event(), threading.Event()

    def live() -> None:
        with bench.memory().intents.hold("alive"):
            held.set()
            done.wait(20)

    other = threading.Thread(target=live)
    other.start()
    assert held.wait(20)
    try:
        with pytest.raises(OutcomeUnknown) as caught:
            bench.create()
    finally:
        done.set()
        other.join()
    assert [task["id"] for task in caught.value.candidates] == [made["id"]]


def test_an_attempt_with_another_request_is_not_resumed(bench: Bench) -> None:
    """The same prompt for another executor: its task is not what this call asks for."""
    bench.cut_off(owner="gone", executor="gemini")
    made = bench.direct.create_task(PROMPT, executor="gemini")
    assert bench.create()["id"] != made["id"]
    assert bench.notes == []
    assert bench.proxy.count("GET") == 0


# `--once`, across processes


@pytest.fixture
def start(home: Path, bench: Bench) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts the command against the proxy, in a separate process.

    Its last scan after Ctrl-C waits for a service on a busy machine too.
    """
    started = []

    def run(*arguments: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [*paced_command(PATIENT), *arguments, "-o", "id"],
            env={**os.environ, "REBYTE_API_URL": bench.proxy.base_url, "REBYTE_API_KEY": LOCAL_KEY},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield run
    for process in started:
        process.kill()
        process.communicate()


Start = Callable[..., "subprocess.Popen[str]"]


@pytest.mark.slow
@pytest.mark.parametrize("once_key", [["--once", "nightly"], []])
def test_case_38_killed_between_the_post_and_its_answer_then_again(
    bench: Bench, start: Start, once_key: list[str]
) -> None:
    done = threading.Event()
    bench.proxy.cut("POST", TASKS, Cut.MUTE, then=done.set)
    first = start("create", PROMPT, *once_key)
    assert done.wait(60)
    first.send_signal(signal.SIGKILL)
    first.wait(60)
    out, err = start("create", PROMPT, *once_key).communicate(timeout=60)
    assert bench.on_server() == [out.strip()], err
    assert "was lost" in err
    out, err = start("get", "@last").communicate(timeout=60)
    assert bench.on_server() == [out.strip()], err


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupt_says_which_task_exists(
    bench: Bench, start: Start, number: signal.Signals, status: int
) -> None:
    done = threading.Event()
    bench.proxy.cut("POST", TASKS, Cut.MUTE, then=done.set)
    process = start("create", PROMPT)
    assert done.wait(60)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == status, err
    (task_id,) = bench.on_server()
    assert f"task {task_id}" in err
    assert f"rebyte cancel {task_id}" in err


def test_an_interrupt_before_the_server_heard_says_that_nothing_is_known(
    bench: Bench, start: Start
) -> None:
    bench.proxy.cut("POST", TASKS, Cut.HELD)
    process = start("create", PROMPT, "--once", "k")
    eventually(lambda: bench.proxy.count("POST"))
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "outcome is unknown" in err
    assert "run the same command again" in err


def test_a_key_whose_attempt_made_nothing_is_not_sent_again_too_soon(bench: Bench) -> None:
    bench.cut_off("k", ago=timedelta(minutes=14))
    with pytest.raises(OutcomeUnknown):
        bench.create(key="k")
    assert bench.proxy.count("POST") == 0


def test_a_key_whose_attempt_made_nothing_is_sent_again_after_a_quarter_of_an_hour(
    bench: Bench,
) -> None:
    bench.cut_off("k", ago=timedelta(minutes=16))
    created = bench.create(key="k")
    assert bench.on_server() == [created["id"]]
    assert bench.create(key="k") == created


def test_a_task_in_other_words_may_be_that_of_the_key(bench: Bench) -> None:
    bench.direct.create_task("Something else")
    bench.cut_off("k", ago=timedelta(minutes=16))
    with pytest.raises(OutcomeUnknown) as caught:
        bench.create(key="k")
    assert [task["id"] for task in caught.value.candidates] == bench.on_server()


def test_a_killed_create_is_searched_for_until_a_late_list_shows_it(bench: Bench) -> None:
    bench.cut_off(ago=timedelta(seconds=5))
    at = Time()
    at.at[60.0] = lambda: bench.direct.create_task(PROMPT)  # it shows now
    created = bench.create(deadline=at.deadline(), sleep=at.sleep)
    assert bench.on_server() == [created["id"]]
    (told,) = re.findall(r"for up to (\d+) s", "\n".join(bench.notes))
    assert 60 <= int(told) <= 85  # counted from the attempt, by a real clock


@pytest.mark.parametrize("stop", [KeyboardInterrupt(), Interrupted(143)])
def test_an_interrupted_create_is_searched_for_as_long(bench: Bench, stop: BaseException) -> None:
    bench.proxy.cut("POST", TASKS, Cut.BEFORE)
    stopped = Stop(stop)
    with pytest.raises(Interrupted):
        bench.create(deadline=Deadline(clock=stopped.clock), sleep=stopped.sleep)
    at = Time()
    at.at[60.0] = lambda: bench.direct.create_task(PROMPT)  # it shows now
    created = bench.create(deadline=at.deadline(), sleep=at.sleep)
    assert bench.on_server() == [created["id"]]


def test_a_killed_create_that_left_nothing_is_reported_before_it_is_sent_again(
    bench: Bench,
) -> None:
    """Without a baseline nothing proves that it made no task."""
    bench.cut_off()
    with pytest.raises(OutcomeUnknown, match="outcome is unknown"):
        bench.create()
    assert bench.proxy.count("POST") == 0
    created = bench.create()
    assert bench.on_server() == [created["id"]]


def test_one_that_waited_for_a_search_does_not_repeat_it(bench: Bench) -> None:
    """27 of them would take 20 seconds each, one after the other."""
    bench.cut_off("k", ago=timedelta(minutes=1))
    holder = History(bench.history.path, origin=bench.history.origin)
    (earlier,) = [holder.intents.of("k")]
    assert earlier is not None
    at = Time()
    holding = holder.intents.hold("k")
    holding.__enter__()

    def sleep(seconds: float) -> None:
        at.sleep(seconds)
        if earlier.id not in ended:  # the holder has searched in vain
            ended.append(earlier.id)
            holder.intents.settle(earlier.id, state="unknown")
            holding.__exit__(None, None, None)

    ended: list[int] = []
    begun = at.now
    with pytest.raises(OutcomeUnknown):
        bench.create(key="k", deadline=at.deadline(), sleep=sleep)
    assert at.now - begun < 1
    assert bench.proxy.count("GET", LIST) <= 2  # one scan


@pytest.mark.parametrize("made", [20, 80])
def test_an_old_attempt_is_not_sent_again_while_its_task_may_be_there(
    tmp_path: Path, made: int
) -> None:
    """The attempt says it is 50 minutes old; its clock was wrong by half an hour at the time."""
    now = time.time()
    at = [now - made * 60]
    with (
        Service(tmp_path / "service", clock=lambda: at[0]) as service,
        CuttingProxy(service.base_url) as proxy,
    ):
        bench = Bench(tmp_path, service, proxy)
        bench.direct.create_task(PROMPT)
        at[0] = now
        # Of another boot, so that no clock can tell how old it really is.
        said = (datetime.now(UTC) - timedelta(minutes=50)).isoformat(timespec="milliseconds")
        bench.cut_off("k", started_at=f"{said}[boot=another][up=1.0]")
        with pytest.raises(OutcomeUnknown) as caught:
            bench.create(key="k")
        assert [task["id"] for task in caught.value.candidates] == bench.on_server()


def test_a_failing_list_is_no_reason_to_send_again(bench: Bench) -> None:
    bench.cut_off("k", ago=timedelta(hours=2))
    bench.proxy.cut("GET", TASKS[:-1], Cut.STATUS, status=500, times=99)
    with pytest.raises(OutcomeUnknown, match="500"):
        bench.create(key="k")
    assert bench.proxy.count("POST") == 0


def test_a_key_is_for_one_prompt(bench: Bench) -> None:
    created = bench.create(key="k")
    with pytest.raises(BadUsage, match="key 'k' is that of another prompt, so nothing was sent"):
        bench.create("Something else", key="k")
    assert bench.on_server() == [created["id"]]
    assert create.created_before(bench.history, "k") == created
    assert create.created_before(bench.history, "other") is None


def test_a_forgotten_key_makes_another_task(bench: Bench) -> None:
    first = bench.create(key="k")
    assert bench.history.intents.forget("k")
    assert not bench.history.intents.forget("k")
    assert bench.create(key="k") != first


def test_a_key_works_with_the_history_off(bench: Bench) -> None:
    def off() -> History:
        return History(bench.folder / "history.db", origin="test", enabled=False)

    first = bench.create(key="k", history=off())
    assert bench.create(key="k", history=off()) == first
    assert bench.memory().tasks() == []


def test_two_processes_with_one_key_make_one_task(bench: Bench) -> None:
    gate, waiting = threading.Event(), threading.Event()
    bench.proxy.cut("POST", TASKS, Cut.SLOW, then=lambda: gate.wait(20))
    made = []
    first = threading.Thread(
        target=lambda: made.append(bench.create(key="k", history=bench.memory()))
    )
    first.start()
    eventually(lambda: bench.proxy.forwarded)

    def second_waits(_seconds: float) -> None:
        waiting.set()
        gate.set()
        time.sleep(0.01)

    made.append(bench.create(key="k", history=bench.memory(), sleep=second_waits))
    first.join(20)
    assert waiting.is_set()
    assert made[0] == made[1]
    assert len(bench.on_server()) == 1


def test_a_twin_in_flight_is_waited_for_before_a_match_is_believed(bench: Bench) -> None:
    """Two processes, one prompt, two tasks: each ends with its own, also when one must look."""
    gate, made = threading.Event(), threading.Event()

    def hold_back() -> None:
        made.set()
        gate.wait(20)

    bench.proxy.cut("POST", TASKS, Cut.SLOW, then=hold_back)
    twin = []
    other = threading.Thread(target=lambda: twin.append(bench.create(history=bench.memory())))
    other.start()
    assert made.wait(20)
    bench.proxy.cut("POST", TASKS, Cut.AFTER)

    def sleep(_seconds: float) -> None:
        gate.set()
        other.join(20)

    mine = bench.create(sleep=sleep)
    assert [twin[0]["id"], mine["id"]] == bench.on_server()


def test_a_task_claimed_by_a_twin_during_the_search_is_not_taken(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The twin ends between our look and our question who else is at work."""
    theirs = bench.direct.create_task(PROMPT)
    history = bench.memory()
    look = history.intents.rivals

    def rivals(owner: str, target: str | None = None) -> list[Intent]:
        bench.memory().add_tasks([NewTask(theirs, prompt=PROMPT)])
        return look(owner, target)

    monkeypatch.setattr(history.intents, "rivals", rivals)
    request = TaskRequest(bench.client, history, {"prompt": PROMPT}, PROMPT)
    operation = Operation(request, bench.notes.append, pace=AT_ONCE, repeated=lambda _key: {})
    written = timestamp()
    own = history.intents.open(
        None, digest=request.digest, body_digest="b", started_at=written, owner="me"
    )
    found = operation.search(LostRequest(digest_of(PROMPT), written), own)
    assert ([*found.verdict.same], found.failure) == ([], None)


def test_the_task_of_a_twin_that_died_is_not_taken(bench: Bench) -> None:
    bench.cut_off("other")
    bench.proxy.cut("POST", TASKS, Cut.AFTER)
    with pytest.raises(OutcomeUnknown) as caught:
        bench.create()
    assert [task["id"] for task in caught.value.candidates] == bench.on_server()


def test_asked_again_without_a_key_what_was_lost_is_found(bench: Bench) -> None:
    bench.proxy.cut("POST", TASKS, Cut.AFTER)
    bench.proxy.cut("GET", TASKS[:-1], Cut.STATUS, status=500, times=99)
    with pytest.raises(OutcomeUnknown):
        bench.create()
    again = Bench(bench.folder, Service(bench.folder / "service").start(), bench.proxy)
    bench.proxy._rules.clear()
    created = again.create()
    assert bench.on_server() == [created["id"]]
    # That one is settled: the next is a new task.
    assert again.create()["id"] != created["id"]
    assert len(bench.on_server()) == 2


@pytest.mark.parametrize("key", ["k", None])
def test_the_attempt_that_made_a_task_is_told(bench: Bench, key: str | None) -> None:
    """Of a repeated key, and of a lost request that another call finds."""
    told: list[tuple[str, bool]] = []

    def create(bench: Bench) -> str:
        return str(bench.create(key=key, on_attempt=lambda *each: told.append(each))["id"])

    bench.proxy.cut("POST", TASKS, Cut.AFTER)
    bench.proxy.cut("GET", TASKS[:-1], Cut.STATUS, status=500, times=99)
    with pytest.raises(OutcomeUnknown):
        create(bench)
    again = Bench(bench.folder, Service(bench.folder / "service").start(), bench.proxy)
    bench.proxy._rules.clear()
    assert bench.on_server() == [create(again)]
    create(again)
    (first, _), *_ = told
    if key:
        assert told == [(first, True), (first, False), (first, False)]
    else:
        (other, _) = told[-1]
        assert told == [(first, True), (first, False), (other, True)]
        assert first != other


def test_asked_again_without_a_key_what_was_never_made_is_made(bench: Bench) -> None:
    bench.proxy.cut("POST", TASKS, Cut.BEFORE)
    with pytest.raises(OutcomeUnknown):
        bench.create()
    assert bench.create()["id"] == bench.on_server()[0]
    assert AGAIN in bench.notes


# Interrupts during the search for a lost answer: one last scan, then a report


class Stop(Time):
    """A clock whose first sleep is interrupted; with `twice`, so is the look at it after that."""

    def __init__(self, stop: BaseException, *, twice: bool = False) -> None:
        super().__init__()
        self._stop, self._twice = stop, twice
        self.stopped = 0

    def clock(self) -> float:
        if self._twice and self.stopped:
            raise self._stop
        return super().clock()

    def sleep(self, seconds: float) -> None:
        self.stopped += 1
        raise self._stop


@pytest.mark.parametrize("stop", [KeyboardInterrupt(), Interrupted(143)])
def test_a_glance_finds_the_task(bench: Bench, stop: BaseException) -> None:
    def no_list() -> None:
        bench.proxy.cut("GET", LIST, Cut.STATUS, status=500)

    bench.proxy.cut("POST", TASKS, Cut.AFTER, then=no_list)
    at = Stop(stop)
    with pytest.raises(Interrupted) as caught:
        bench.create(key="k", deadline=Deadline(clock=at.clock), sleep=at.sleep)
    assert caught.value.exit_status == (143 if isinstance(stop, Interrupted) else 130)
    (task_id,) = bench.on_server()
    assert task_id in str(caught.value.hint)
    assert f"rebyte cancel {task_id}" in str(caught.value.hint)
    # It is remembered, and the key is settled.
    assert [task["id"] for task in bench.history.tasks()] == [task_id]
    asked = bench.proxy.count("GET")
    assert bench.create(key="k")["id"] == task_id
    assert bench.proxy.count("GET") == asked


def test_an_interrupt_leaves_time_for_one_scan(bench: Bench) -> None:
    bench.proxy.cut("POST", TASKS, Cut.BEFORE)
    at = Stop(KeyboardInterrupt())
    with pytest.raises(Interrupted, match=r".") as caught:
        bench.create(deadline=Deadline(clock=at.clock), sleep=at.sleep)
    assert "outcome is unknown" in str(caught.value.hint)
    assert at.stopped == 1
    assert bench.proxy.count("GET", LIST) == 2


def test_a_second_interrupt_cuts_the_glance_short(bench: Bench) -> None:
    bench.proxy.cut("POST", TASKS, Cut.AFTER)
    bench.proxy.cut("GET", LIST, Cut.STATUS, status=500)
    at = Stop(KeyboardInterrupt(), twice=True)
    with pytest.raises(Interrupted) as caught:
        bench.create(deadline=Deadline(clock=at.clock), sleep=at.sleep)
    assert "outcome is unknown" in str(caught.value.hint)
    assert bench.proxy.count("GET", LIST) == 1


def test_a_list_that_fails_in_the_glance_is_not_known(bench: Bench) -> None:
    bench.proxy.cut("POST", TASKS, Cut.AFTER)
    bench.proxy.cut("GET", LIST, Cut.STATUS, status=500, times=9)
    at = Stop(Interrupted(143))
    with pytest.raises(Interrupted) as caught:
        bench.create(deadline=Deadline(clock=at.clock), sleep=at.sleep)
    assert caught.value.exit_status == 143
    assert "outcome is unknown" in str(caught.value.hint)


def test_the_shortest_look_waits_for_an_answer_that_is_a_little_slow(bench: Bench) -> None:
    late = threading.Event()
    bench.proxy.cut("POST", TASKS, Cut.AFTER)
    bench.proxy.cut("GET", "/content", Cut.SLOW, times=9, then=lambda: late.wait(0.3))
    assert bench.create(pace=AT_ONCE)["id"] == bench.on_server()[0]


def test_an_outcome_left_unknown_without_a_search_says_so(bench: Bench) -> None:
    bench.proxy.cut("POST", TASKS, Cut.BEFORE)
    with pytest.raises(OutcomeUnknown, match="outcome is unknown"):
        bench.create(pace=AT_ONCE)
    assert bench.proxy.count("GET", LIST) == 1


# Repeating a command after an interrupted attempt


def open_ends(bench: Bench) -> int:
    return len(bench.memory().intents.unsettled(digest_of(PROMPT)))


# With a key


def test_a_found_task_is_reported_and_not_searched_for_twice(bench: Bench) -> None:
    bench.cut_off("k")
    made = bench.direct.create_task(PROMPT)
    created = bench.create(key="k")
    assert created["id"] == made["id"]
    assert "'k'" in bench.notes[0]
    assert "looking for its result" in bench.notes[0]
    assert made["id"] in bench.notes[1]
    assert "was found" in bench.notes[1]
    looks = bench.proxy.count("GET")
    assert create.created_before(bench.history, "k") == created
    assert bench.create(key="k") == created
    assert bench.proxy.count("GET") == looks


def test_sending_again_after_a_fruitless_search_is_noted(bench: Bench) -> None:
    bench.cut_off("k", ago=timedelta(minutes=16))
    bench.create(key="k")
    assert bench.notes[-1] == "It created nothing; sending the request again"


def test_a_lost_key_is_for_one_prompt_too(bench: Bench) -> None:
    lost = "Mend the logout page, and nothing else"
    bench.cut_off("k", prompt=lost)
    made = bench.direct.create_task(lost)
    with pytest.raises(BadUsage, match="that of another prompt"):
        bench.create(key="k")
    assert bench.create(lost, key="k")["id"] == made["id"]


def test_a_resumed_create_keeps_the_options_of_the_lost_one(bench: Bench) -> None:
    bench.cut_off("k", executor="gemini")
    made = bench.direct.create_task(PROMPT, executor="gemini")
    assert bench.create(key="k", body={"executor": "claude"})["id"] == made["id"]


def test_another_executor_than_the_lost_one_asked_for_is_doubtful(bench: Bench) -> None:
    bench.cut_off("k", executor="claude")
    made = bench.direct.create_task(PROMPT, executor="gemini")
    with pytest.raises(OutcomeUnknown) as caught:
        bench.create(key="k", body={"executor": "claude"})
    assert [task["id"] for task in caught.value.candidates] == [made["id"]]


# Without a key


def test_an_attempt_with_a_key_is_resumed_only_with_it(bench: Bench) -> None:
    bench.cut_off("k")
    made = bench.direct.create_task(PROMPT)
    assert bench.create()["id"] != made["id"]
    assert bench.proxy.count("GET", LIST) == 0


def test_two_equal_tasks_are_both_named(bench: Bench) -> None:
    bench.cut_off()
    made = [bench.direct.create_task(PROMPT)["id"] for _ in range(2)]
    with pytest.raises(OutcomeUnknown) as caught:
        bench.create()
    assert sorted(task["id"] for task in caught.value.candidates) == sorted(made)
    assert bench.proxy.count("POST") == 0


def test_an_old_intent_is_not_searched_for(bench: Bench) -> None:
    bench.direct.list_tasks()
    bench.cut_off(ago=timedelta(minutes=16))
    bench.create()
    assert bench.notes == []
    assert bench.proxy.count("GET", LIST) == 0
    assert open_ends(bench) == 1  # its task may be there, and is no other request's


def test_an_interrupted_create_is_not_sent_again_before_its_outcome_is_shown(bench: Bench) -> None:
    """A crash told no one; who repeats the command after being told means it."""
    bench.cut_off()
    bench.proxy.cut("GET", LIST, Cut.STATUS, status=500, times=99)
    with pytest.raises(OutcomeUnknown, match="500"):
        bench.create()
    assert bench.proxy.count("POST") == 0
    created = bench.create()
    assert bench.on_server() == [created["id"]]
    assert any("500" in note and "sending the request again" in note for note in bench.notes)


def test_a_lost_follow_up_is_found_when_it_is_asked_again(bench: Bench) -> None:
    task = str(bench.direct.create_task("The first prompt")["id"])
    bench.proxy.cut("POST", "/prompts$", Cut.AFTER)
    bench.proxy.cut("GET", "/content", Cut.STATUS, status=500, times=4)
    bench.proxy.cut("GET", f"{TASKS[:-1]}/", Cut.STATUS, status=500)
    with pytest.raises(OutcomeUnknown):
        bench.follow_up(task, pace=AT_ONCE)
    bench.proxy._rules.clear()
    sent = bench.follow_up(task)
    assert [sent["promptId"]] == [one["id"] for one in bench.direct.get_task(task)["prompts"][1:]]
    assert bench.proxy.count("POST") == 1


def test_the_same_files_uploaded_again_are_the_same_request(bench: Bench) -> None:
    """Each upload gives them new names; how many there are is what can be told."""
    bench.proxy.cut("POST", TASKS, Cut.BEFORE)
    with pytest.raises(OutcomeUnknown):
        bench.create(body={"files": [{"id": "1", "filename": "a"}]}, pace=AT_ONCE)
    bench.create(body={"files": []})
    assert AGAIN not in bench.notes
    with suppress(APIError):  # the service knows no such upload
        bench.create(body={"files": [{"id": "2", "filename": "a"}]})
    assert AGAIN in bench.notes


# Notes on a task that was found


def test_a_task_is_taken_although_its_status_cannot_be_had(bench: Bench) -> None:
    bench.proxy.cut("POST", TASKS, Cut.AFTER)
    bench.proxy.cut("GET", r"/v1/tasks/[^/]*$", Cut.STATUS, status=500)
    created = bench.create(f"{PROMPT} [[run=1h]]")
    assert (created["id"], created["status"]) == (bench.on_server()[0], "running")
    assert created["createdAt"]


def test_candidates_are_shown_with_what_tells_them_apart(bench: Bench) -> None:
    bench.proxy.cut("POST", TASKS, Cut.AFTER, then=lambda: bench.direct.create_task(PROMPT))
    with pytest.raises(OutcomeUnknown) as caught:
        bench.create()
    rows = bench.direct.list_tasks()["data"]
    for candidate, row in zip(caught.value.candidates, rows, strict=True):
        assert candidate.keys() == {"id", "url", "createdAt", "title"}
        assert row.items() >= {**candidate, "title": row["title"]}.items()
        # The service tells the title of a new task a moment later.
        assert candidate["title"] in (None, row["title"])


def test_a_task_made_with_the_history_off_is_known_as_taken(bench: Bench) -> None:
    def off() -> History:
        return History(bench.folder / "history.db", origin="test", enabled=False)

    bench.create(history=off())
    bench.proxy.cut("POST", TASKS, Cut.BEFORE)
    with pytest.raises(OutcomeUnknown) as caught:
        bench.create(history=off(), pace=AT_ONCE)
    assert caught.value.candidates == []
