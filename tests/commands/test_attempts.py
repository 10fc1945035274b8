"""`create --attempts`: several tasks for one prompt, of which the first success counts."""

from __future__ import annotations

import json
import os
import re
import signal
import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest

from tests.conftest import COMMAND, Done
from tests.servers import Answer, Line, RawServer, Request, error_reply, json_reply, reset, stall
from tests.terminals import Session
from tests.waiting import eventually, with_time

Run = Callable[..., Done]


class Contest:
    """A service whose tasks end as their executor says: `wins`, `fails`, `runs` until canceled.

    `lost` creates a task without an answer, `hangs` never answers, `refused` creates none. A create
    for `late-runs`, `late-wins` or `late-lost` is answered once `released` is set. The list cannot
    be read if `listed` is false: then the search for a lost task ends at once.
    """

    def __init__(self) -> None:
        self.statuses: dict[str, str] = {}
        self.bodies: list[dict[str, Any]] = []
        self.server = RawServer(self._answer)
        self.cancel: Answer | None = None
        self.listed = True
        self.released = threading.Event()
        self.release_on_read = False  # of a task: the wait has begun
        self._lock = threading.Lock()

    def _answer(self, request: Request) -> Answer:
        if request.method == "POST" and request.path == "/v1/tasks":
            return self._create(request.json)
        parts = request.path.split("/")
        if request.path.startswith("/v1/tasks?"):
            if not self.listed:
                return error_reply(403, "insufficient_scopes", "The key may not list")
            return json_reply({"data": [], "total": 0, "limit": 100, "offset": 0})
        task_id = parts[3]
        if request.method == "GET" and self.release_on_read:
            self.released.set()
        if parts[-1] == "cancel":
            if self.cancel is not None:
                return self.cancel
            if self.statuses[task_id] == "running":
                self.statuses[task_id] = "canceled"
        return json_reply({"id": task_id, "status": self.statuses[task_id], "title": "Fix"})

    def _create(self, body: dict[str, Any]) -> Answer:
        executor = body.get("executor", "wins")
        with self._lock:
            number = len(self.bodies) + 1
            self.bodies.append(body)
        if executor.startswith("late-"):
            return partial(self._answer_late, executor.removeprefix("late-"), number)
        return self._created(executor, number)

    def _answer_late(self, executor: str, number: int, line: Line) -> None:
        assert self.released.wait(60)
        answer = self._created(executor, number)
        line.send(answer) if isinstance(answer, bytes) else answer(line)

    def _created(self, executor: str, number: int) -> Answer:
        if executor == "refused":
            return error_reply(400, "validation_error", "No such executor")
        if executor == "lost":
            return reset
        if executor == "hangs":
            return stall
        task_id = f"{executor}-{number}"
        ends = {"wins": "completed", "fails": "failed"}
        self.statuses[task_id] = ends.get(executor, "running")
        return json_reply({"id": task_id, "workspaceId": f"ws-{number}", "status": "running"}, 201)


@pytest.fixture
def contest(aim: Callable[[Any], Any]) -> Iterator[Contest]:
    made = Contest()
    with made.server as server:
        aim(server)
        yield made


def attempt(
    run: Run, *executors: str, count: int | None = None, timeout: float | None = None
) -> Done:
    """Each prompt is another: after a lost answer, the same one would be searched for first."""
    words = [word for executor in executors for word in ("-x", executor)]
    words += ["--attempts", str(count or len(executors)), "--wait", "-o", "json"]
    if timeout is not None:
        words += ["--timeout", str(timeout)]
    return run("create", "Fix" if timeout is None else f"Fix in {timeout} s", *words)


def test_the_first_success_is_printed_and_the_others_are_canceled(
    contest: Contest, inside: Run
) -> None:
    done = attempt(inside, "runs", "wins", "fails")
    assert done.status == 0, done.err
    (task,) = done.documents
    assert task["id"].startswith("wins-")
    assert task["workspaceId"].startswith("ws-")
    states = {task.split("-")[0]: status for task, status in contest.statuses.items()}
    assert states == {"runs": "canceled", "wins": "completed", "fails": "failed"}
    assert f"Task {task['id']} completed first" in done.err
    assert "canceled runs-" in done.err.lower()  # in a separate note if it was created later
    assert "(attempt 1 of 3, runs)" in done.err


def test_executors_take_turns(contest: Contest, inside: Run) -> None:
    assert attempt(inside, "wins", "fails", count=5).status == 0
    assert sorted(body["executor"] for body in contest.bodies) == ["fails"] * 2 + ["wins"] * 3
    contest.bodies.clear()
    done = inside("create", "Fix", "-x", "wins", "-x", "fails", "--attempts", "3", "--dry-run")
    assert done.json == {"prompt": "Fix", "executor": "wins"}
    assert "This is the first of 3 attempts; executors take turns" in done.err
    assert attempt(inside, count=2).status == 0
    assert contest.bodies == [{"prompt": "Fix"}] * 2


def test_a_late_task_joins_the_wait(contest: Contest, inside: Run) -> None:
    contest.release_on_read = True
    done = attempt(inside, "runs", "late-wins")
    assert done.status == 0, done.err
    assert re.search(r"Task wins-. completed first; canceled runs-.", done.err)


@pytest.mark.slow
def test_a_create_that_hangs_does_not_hold_back_the_first_success(contest: Contest) -> None:
    """Its task is canceled when it turns up."""
    words = ("create", "Fix", "-x", "wins", "-x", "late-runs", "--attempts", "2", "--wait")
    session = Session([*COMMAND, *words], columns=200)
    session.until(lambda lines: any("Waiting for 1 create to end" in line for line in lines))
    shown = " ".join(session.lines)
    assert "completed first" in shown
    assert "Status" in shown
    contest.released.set()
    assert session.finish() == 0
    assert sorted(contest.statuses.values()) == ["canceled", "completed"]
    assert "Canceled runs-" in " ".join(session.everything)


def test_a_late_create_with_an_unknown_outcome_ends_in_6(contest: Contest, inside: Run) -> None:
    contest.release_on_read, contest.listed = True, False
    done = attempt(inside, "wins", "late-lost")
    assert (done.status, done.json["status"]) == (6, "completed")


def test_when_the_others_have_failed_a_late_create_is_waited_for(
    contest: Contest, inside: Run
) -> None:
    contest.release_on_read = True
    done = attempt(inside, "fails", "late-wins")
    assert (done.status, done.json["status"]) == (0, "completed")


def test_the_end_of_the_time_limit_names_late_tasks(contest: Contest, inside: Run) -> None:
    contest.release_on_read = True

    def check(limit: float) -> None:
        contest.released.clear()
        done = attempt(inside, "runs", "late-runs", timeout=limit)
        assert done.status == 124
        assert re.search("Resume with `rebyte wait runs-. runs-. --first-success`", done.err)

    with_time(check)


def test_without_a_success_every_attempt_is_printed(contest: Contest, inside: Run) -> None:
    done = attempt(inside, "fails", count=2)
    assert done.status == 10
    assert [task["status"] for task in done.documents] == ["failed", "failed"]


def test_an_attempt_that_is_refused_does_not_stop_the_others(contest: Contest, inside: Run) -> None:
    done = attempt(inside, "refused", "wins")
    assert done.status == 0
    assert "Attempt 1 was not created: No such executor" in done.err
    done = attempt(inside, "refused", count=2)
    assert (done.status, done.out) == (1, "")
    assert json.loads(done.err.splitlines()[-1])["error"]["message"] == "No such executor"


def test_an_attempt_with_an_unknown_outcome_is_not_sent_again_and_ends_in_6(
    contest: Contest, inside: Run
) -> None:
    contest.listed = False
    done = attempt(inside, "lost", "wins")
    assert done.status == 6, done.err
    assert done.json["id"].startswith("wins-")
    assert [body["executor"] for body in contest.bodies].count("lost") == 1


def test_a_time_limit_does_not_hide_an_attempt_with_an_unknown_outcome(
    contest: Contest, inside: Run
) -> None:
    contest.listed = False

    def check(limit: float) -> None:
        done = attempt(inside, "lost", "runs", timeout=limit)
        errors = [line for line in done.err.splitlines() if line[0] == "{"]
        codes = [json.loads(line)["error"]["code"] for line in errors]
        assert (done.status, codes) == (6, ["outcome_unknown", "timeout"])

    with_time(check)


def test_an_attempt_without_a_thread_is_not_sent(
    contest: Contest, inside: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An executor of threads would send it later, and its task would not be known here."""
    start = threading.Thread.start

    def one_only(thread: threading.Thread) -> None:
        if thread.name == "attempt-2":
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", one_only)
    done = attempt(inside, "wins", count=2)
    assert done.status == 0
    assert "Attempt 2 was not created: cannot start another thread" in done.err
    assert len(contest.bodies) == 1


def test_a_task_that_cannot_be_canceled_is_named(contest: Contest, inside: Run) -> None:
    contest.cancel = error_reply(400, "validation_error", "Not now")
    done = attempt(inside, "wins", "runs")
    assert done.status == 0
    assert "Could not cancel task runs-" in done.err
    assert ": Not now; try again with `rebyte cancel runs-" in done.err


def test_a_key_that_cannot_cancel_does_not_cost_the_result(contest: Contest, inside: Run) -> None:
    contest.cancel = error_reply(403, "insufficient_scopes", "The key may not cancel")
    done = attempt(inside, "wins", "runs", "runs")
    assert (done.status, done.documents[0]["status"]) == (0, "completed")
    assert "Could not cancel the other attempts: " in done.err
    assert "try again with `rebyte cancel runs-" in done.err


def test_an_interrupt_while_the_others_are_canceled_names_the_winner(contest: Contest) -> None:
    contest.cancel = stall
    words = ("create", "Fix", "-x", "wins", "-x", "runs", "--attempts", "3", "--wait")
    session = Session([*COMMAND, *words], columns=200)
    session.until(lambda lines: any("Canceling the other attempts" in line for line in lines))
    session.child.sendintr()
    assert session.finish() == 130
    shown = " ".join(session.everything)
    assert " completed; stop the others with `rebyte cancel " in shown


def test_a_time_limit_leaves_the_attempts_running_and_says_how_to_resume(
    contest: Contest, inside: Run
) -> None:
    def check(limit: float) -> None:
        contest.statuses.clear()
        done = attempt(inside, "runs", count=2, timeout=limit)
        assert done.status == 124
        assert list(contest.statuses.values()) == ["running", "running"]
        hint = json.loads(done.err.splitlines()[-1])["error"]["hint"]
        words = hint.removeprefix("Resume with `rebyte wait ")
        assert sorted(words.removesuffix(" --first-success`").split()) == sorted(contest.statuses)

    with_time(check)


def test_an_interrupt_says_what_exists_and_what_is_unknown(contest: Contest) -> None:
    executors = ("-x", "runs", "-x", "hangs", "-x", "hangs")
    words = ("create", "Fix", *executors, "--attempts", "3", "--wait")
    session = Session([*COMMAND, *words], columns=200)
    session.until(lambda lines: any("Waiting for the task to end" in line for line in lines))
    eventually(lambda: len(contest.bodies) == 3)
    os.kill(session.child.pid, signal.SIGTERM)
    assert session.finish() == 143
    shown = " ".join(session.everything)
    (task,) = contest.statuses
    assert f"The task keeps running. Resume with `rebyte wait {task} --first-success`" in shown
    assert "The outcome of 2 creates is unknown; see `rebyte list`" in shown


def test_an_interrupted_wait_says_how_to_resume(contest: Contest) -> None:
    words = ("create", "Fix", "-x", "runs", "--attempts", "2", "--wait")
    session = Session([*COMMAND, *words], columns=200)
    session.until(lambda lines: any("Waiting: 0" in line for line in lines))
    session.child.sendintr()
    assert session.finish() == 130
    shown = " ".join(session.everything)
    assert "The tasks keep running. Resume with `rebyte wait runs-" in shown
    assert "--first-success`" in shown


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ("--attempts 2 --wait --once k", "--attempts and --once cannot be used together"),
        ("--attempts 2 --wait --stream", "--attempts and --stream cannot be used together"),
        ("--attempts 2 --wait -w abcd", "--attempts needs a workspace for each attempt"),
        ("-x claude -x codex --wait", "2 executors require --attempts 2 or more"),
        ("--attempts 0 --wait", "0 is not between 1 and 20"),
        ("--attempts 21 --wait", "21 is not between 1 and 20"),
    ],
)
def test_options_for_a_single_task_are_refused(
    contest: Contest, inside: Run, words: str, problem: str
) -> None:
    done = inside("create", "Fix", *words.split())
    assert (done.status, problem in done.err) == (2, True), done.err
    assert contest.bodies == []
