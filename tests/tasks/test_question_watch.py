"""Questions during a wait: how often rebyte looks for them, and what each policy does."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from rebyte_cli.api.views import EventView, Question
from rebyte_cli.errors import APIError, NeedsAnswer, ServerFault
from rebyte_cli.system.deadline import Deadline
from rebyte_cli.tasks.question_watch import QuestionWatcher
from rebyte_cli.tasks.questions import ItemAnswer
from tests.task_board import Time

SAID = {"eventType": "text", "payload": {"content": "Working."}}


def asks(message: str) -> dict[str, Any]:
    return {
        "eventType": "ask_user_question",
        "payload": {
            "actionId": "7",
            "messageId": message,
            "question": f"Which, {message}?",
            "options": [{"label": "a"}, {"label": "b"}],
        },
    }


class Service:
    """Tasks by id with their events; `looks` are the ids whose events were read, in order."""

    def __init__(self, at: Time, **tasks: list[dict[str, Any]]) -> None:
        self.at = at
        self.tasks = tasks
        self.looks: list[str] = []
        self.answers: list[tuple[str, Any]] = []
        self.limits: list[float | None] = []  # in seconds, of each answer
        self.refusals: list[APIError] = []
        self.is_down = False

    def task_content(self, task_id: str, **_: Any) -> dict[str, Any]:
        self.looks.append(task_id)
        if self.is_down:
            raise ServerFault("down")
        return {"prompts": [{"status": "running", "events": self.tasks[task_id]}]}

    def get_task(self, task_id: str, **_: Any) -> dict[str, Any]:
        return {"id": task_id, "status": "running"}

    def answer(self, task_id: str, given: Any, *, timeout: float | None) -> dict[str, Any]:
        self.limits.append(timeout)
        if self.refusals:
            raise self.refusals.pop()
        self.answers.append((task_id, given["answer"]))
        self.tasks[task_id].append(SAID)
        return {}


class User:
    """Someone at the terminal who gives these answers; "" takes a second, None is Ctrl-D."""

    def __init__(self, at: Time, *says: str | None) -> None:
        self.at = at
        self.says = list(says)
        self.seen: list[str] = []
        self.is_there = True

    def begin(self, task_id: str, question: Question) -> bool:
        if self.is_there:
            self.seen.append(f"{task_id}: {question.items[0].text}")
        return self.is_there

    def listen(self, seconds: float) -> Sequence[ItemAnswer] | None:
        said = self.says.pop(0) if self.says else ""
        if said is None:
            raise EOFError
        if said == "":
            self.at.sleep(min(1.0, seconds))
            return None
        return [ItemAnswer(text=said)]

    def withdraw(self, why: str) -> None:
        self.seen.append(why)


class Bench:
    """A watcher with its own clock, in pauses of one second."""

    def __init__(
        self,
        at: Time,
        service: Any,
        policy: Any,
        user: User | None = None,
        seconds: float | None = None,
    ) -> None:
        self.at = at
        self.notes: list[str] = []
        self.answered: set[str] = set()
        history: Any = SimpleNamespace(
            was_answered=self.answered.__contains__, remember_answered=self.answered.add
        )
        self.watcher = QuestionWatcher(
            service,
            history,
            policy,
            note=self.notes.append,
            dialog=user,
            deadline=Deadline(seconds, clock=at.clock),
            sleep=at.sleep,
        )

    def wait(self, seconds: int, *pending: str) -> dict[str, Any]:
        end = self.at.now + seconds
        while self.at.now < end:
            over = self.watcher.pause(1.0, pending)
            if over:
                return dict(over)
        return {}


@pytest.fixture
def at() -> Time:
    return Time()


def test_a_short_wait_checks_for_no_question(at: Time) -> None:
    service = Service(at, t=[SAID])
    Bench(at, service, "stop").wait(2, "t")
    assert service.looks == []


def test_a_question_at_the_end_of_the_time_limit_is_found(at: Time) -> None:
    service = Service(at, a=[SAID], b=[asks("m")], c=[SAID])
    given_up = Bench(at, service, "stop", seconds=2).wait(2, "a", "b", "c")
    assert list(given_up) == ["b"]
    assert isinstance(given_up["b"], NeedsAnswer)
    assert given_up["b"].task == {"id": "b", "status": "running", "question": True}
    asked = Bench(at, service, "ask", User(at), seconds=2).wait(2, "a", "b", "c")
    assert list(asked) == ["b"]
    bench = Bench(at, service, "wait", seconds=2)
    assert bench.wait(2, "b") == {}
    assert bench.notes == [
        "Task b is waiting for an answer: Which, m?\nAnswer with `rebyte answer b`"
    ]


def test_the_last_look_takes_two_seconds_at_most(at: Time) -> None:
    tasks = {f"t{number}": [SAID] for number in range(40)}
    service = Service(at, **tasks)
    read = service.task_content

    def slow(task_id: str, **more: Any) -> dict[str, Any]:
        at.sleep(0.5)
        return read(task_id, **more)

    service.task_content = slow  # type: ignore[method-assign]  # a slow service
    Bench(at, service, "stop", seconds=1).wait(1, *tasks)
    assert len(service.looks) == 4
    assert at.now <= 3


def test_one_task_is_checked_every_ten_seconds_in_the_end(at: Time) -> None:
    service = Service(at, t=[SAID])
    Bench(at, service, "wait").wait(120, "t")
    assert 12 <= len(service.looks) <= 16


def test_many_tasks_share_one_check_a_second(at: Time) -> None:
    tasks = {f"t{number}": [SAID] for number in range(40)}
    service = Service(at, **tasks)
    Bench(at, service, "stop").wait(100, *tasks)
    assert 90 <= len(service.looks) <= 103
    assert set(service.looks) == set(tasks)
    counts = [service.looks.count(task) for task in tasks]
    assert max(counts) - min(counts) <= 1


def test_the_time_is_spent_to_the_second_in_any_case(at: Time) -> None:
    bench = Bench(at, Service(at, t=[SAID, asks("q")]), "wait")
    bench.wait(30, "t")
    assert at.now == 30


def test_a_question_is_noted_once_and_waited_for_if_told_so(at: Time) -> None:
    bench = Bench(at, Service(at, t=[SAID, asks("q")]), "wait")
    assert bench.wait(60, "t") == {}
    assert bench.notes == [
        "Task t is waiting for an answer: Which, q?\nAnswer with `rebyte answer t`"
    ]


def test_a_question_that_something_follows_is_none(at: Time) -> None:
    assert Bench(at, Service(at, t=[asks("q"), SAID]), "stop").wait(60, "t") == {}


def test_a_question_ends_an_unattended_wait(at: Time) -> None:
    bench = Bench(at, Service(at, t=[asks("q")]), "stop")
    error = bench.wait(60, "t")["t"]
    assert isinstance(error, NeedsAnswer)
    assert error.exit_status == 12
    assert error.task == {"id": "t", "status": "running", "question": True}
    assert "1. a" in str(error.hint)
    assert "`rebyte answer t --option N`" in str(error.hint)
    assert bench.notes == []  # the error says it all


def test_the_others_are_waited_for_first(at: Time) -> None:
    service = Service(at, t=[asks("q")], u=[SAID], v=[SAID])
    bench = Bench(at, service, "stop")
    assert bench.wait(60, "t", "u", "v") == {}
    assert len(bench.notes) == 1
    service.tasks["u"].append(asks("r"))
    assert bench.wait(60, "t", "u", "v") == {}
    assert sorted(bench.wait(60, "t", "u")) == ["t", "u"]


def test_an_answer_from_elsewhere_is_noticed(at: Time) -> None:
    service = Service(at, t=[asks("q")], u=[SAID])
    bench = Bench(at, service, "stop")
    bench.wait(30, "t", "u")
    service.tasks["t"].append(SAID)
    assert bench.wait(60, "t") == {}


def test_the_answer_of_the_user_is_sent(at: Time) -> None:
    service, user = Service(at, t=[asks("q")]), User(at, "", "", "both")
    bench = Bench(at, service, "ask", user)
    assert bench.wait(30, "t") == {}
    assert service.answers == [("t", {"selectedOptions": [], "customResponse": "both"})]
    assert user.seen == ["t: Which, q?"]
    assert bench.notes == []


def test_sending_an_answer_ends_with_the_wait(at: Time) -> None:
    service, user = Service(at, t=[asks("q")]), User(at, "", "", "both")
    bench = Bench(at, service, "ask", user, seconds=30)
    bench.wait(30, "t")
    assert service.limits[0] is not None
    assert 2 <= service.limits[0] <= 30


def test_questions_of_several_tasks_are_asked_one_after_another(at: Time) -> None:
    service = Service(at, t=[asks("q")], u=[asks("r")])
    user = User(at, "", "one", "", "two")
    Bench(at, service, "ask", user).wait(30, "t", "u")
    assert user.seen == ["t: Which, q?", "u: Which, r?"]
    assert [task for task, _ in service.answers] == ["t", "u"]


def test_a_question_that_the_service_still_shows_is_not_asked_again(at: Time) -> None:
    """What follows the answer may become readable late."""
    service, user = Service(at, t=[asks("q")]), User(at, "one")
    bench = Bench(at, service, "ask", user)
    bench.wait(5, "t")
    service.tasks["t"].pop()
    bench.wait(60, "t")
    assert user.seen == ["t: Which, q?"]
    service.tasks["t"].append(asks("r"))
    bench.wait(30, "t")
    assert user.seen == ["t: Which, q?", "t: Which, r?"]


def test_a_question_that_is_answered_elsewhere_is_withdrawn(at: Time) -> None:
    service, user = Service(at, t=[asks("q")], u=[SAID]), User(at)
    bench = Bench(at, service, "ask", user)
    bench.wait(10, "t", "u")
    service.tasks["t"].append(SAID)
    bench.wait(20, "t", "u")
    assert user.seen == ["t: Which, q?", "Task t no longer waits for an answer"]


def test_the_question_of_a_task_that_ended_is_withdrawn(at: Time) -> None:
    service, user = Service(at, t=[asks("q")], u=[SAID]), User(at)
    bench = Bench(at, service, "ask", user)
    bench.wait(10, "t", "u")
    bench.wait(1, "u")
    assert len(user.seen) == 2


def test_a_declined_question_ends_the_wait_after_the_other_tasks(at: Time) -> None:
    service, user = Service(at, t=[asks("q")], u=[SAID]), User(at, None)
    bench = Bench(at, service, "ask", user)
    assert bench.wait(30, "t", "u") == {}
    assert isinstance(bench.wait(30, "t")["t"], NeedsAnswer)
    assert user.seen == ["t: Which, q?"]


def test_an_answer_that_is_lost_is_asked_for_again(at: Time) -> None:
    service, user = Service(at, t=[asks("q")]), User(at, "one", "two")
    service.refusals = [ServerFault("down")]
    bench = Bench(at, service, "ask", user)
    bench.wait(10, "t")
    assert bench.notes == ["Could not send the answer: down"]
    assert [given["customResponse"] for _, given in service.answers] == ["two"]


def test_an_answer_that_nothing_waits_for_is_over(at: Time) -> None:
    service, user = Service(at, t=[asks("q")]), User(at, "one")
    service.refusals = [APIError("No question", status_code=409)]
    bench = Bench(at, service, "ask", user)
    assert bench.wait(30, "t") == {}
    assert "no longer waits" in bench.notes[0]
    assert user.seen == ["t: Which, q?"]


def test_a_process_in_the_background_notes_the_question_and_asks_later(at: Time) -> None:
    service, user = Service(at, t=[asks("q")]), User(at, "one")
    user.is_there = False
    bench = Bench(at, service, "ask", user)
    assert bench.wait(20, "t") == {}
    assert len(bench.notes) == 1
    user.is_there = True
    bench.wait(5, "t")
    assert len(service.answers) == 1


def test_a_fault_never_ends_the_wait(at: Time) -> None:
    service = Service(at, t=[asks("q")])
    service.is_down = True
    bench = Bench(at, service, "stop")
    assert bench.wait(60, "t") == {}
    service.is_down = False
    assert "t" in bench.wait(60, "t")


def test_a_question_from_a_stream_is_settled_before_it_continues(at: Time) -> None:
    service, user = Service(at, t=[SAID]), User(at, "", "", "", "one")
    question = EventView(asks("q")).question
    assert question is not None
    watcher = Bench(at, service, "ask", user).watcher
    watcher.react("t", question)  # which the content does not show yet
    assert len(service.answers) == 1
    watcher.react("t", question)  # a replay
    assert len(service.answers) == 1
    with pytest.raises(NeedsAnswer):
        Bench(at, service, "stop").watcher.react("t", question)
    bench = Bench(at, service, "wait")
    bench.watcher.react("t", question)
    assert len(bench.notes) == 1
