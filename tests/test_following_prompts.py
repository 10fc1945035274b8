"""Whose events are shown, where a task has several prompts and its stream names none of them."""

from __future__ import annotations

from typing import Any

import pytest

from .servers import Answer, Request, json_reply, reply
from .test_following import Run, contents, done, stream, text

pytestmark = pytest.mark.usefixtures("home")


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
