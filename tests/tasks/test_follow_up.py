"""A follow-up whose answer was lost: found in the task, never sent again (case 39)."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest

from rebyte_cli import RebyteClient
from rebyte_cli.errors import OutcomeUnknown
from rebyte_cli.history.history import History
from rebyte_cli.history.rows import NewTask
from rebyte_cli.local.local_service import Service
from rebyte_cli.once.request_kinds import PromptRequest
from rebyte_cli.tasks import create
from tests.create_bench import PROMPT, Bench, timestamp
from tests.cutting_proxy import Cut, CuttingProxy
from tests.servers import RawServer, Request, json_reply
from tests.task_board import Time

PROMPTS = "/prompts$"


@pytest.fixture
def task(bench: Bench) -> str:
    return str(bench.direct.create_task("The first prompt")["id"])


def prompts(bench: Bench, task: str) -> list[str]:
    return [prompt["id"] for prompt in bench.direct.get_task(task)["prompts"]]


def test_an_answer_is_returned(bench: Bench, task: str) -> None:
    assert bench.follow_up(task) == {"promptId": prompts(bench, task)[1]}


@pytest.mark.parametrize("cut", [Cut.AFTER, Cut.MIDWAY, Cut.STATUS])
def test_case_39_a_lost_follow_up_is_found_and_not_repeated(
    bench: Bench, task: str, cut: Cut
) -> None:
    bench.proxy.cut("POST", PROMPTS, cut)
    sent = bench.follow_up(task)
    assert bench.proxy.count("POST") == 1
    assert [sent["promptId"]] == prompts(bench, task)[1:]
    assert "was lost" in bench.notes[-1]


def test_case_39_one_that_never_arrived_is_unknown_and_not_repeated(
    bench: Bench, task: str
) -> None:
    bench.proxy.cut("POST", PROMPTS, Cut.BEFORE)
    with pytest.raises(OutcomeUnknown) as caught:
        bench.follow_up(task)
    assert caught.value.exit_status == 6
    assert caught.value.candidates == []
    assert bench.proxy.count("POST") == 1
    assert len(prompts(bench, task)) == 1


def test_two_equal_prompts_are_both_named(bench: Bench, task: str) -> None:
    bench.proxy.cut("POST", PROMPTS, Cut.AFTER, then=lambda: bench.direct.follow_up(task, PROMPT))
    with pytest.raises(OutcomeUnknown) as caught:
        bench.follow_up(task)
    assert [one["promptId"] for one in caught.value.candidates] == prompts(bench, task)[1:]


def test_an_equal_prompt_of_an_hour_ago_is_not_taken(tmp_path: Path) -> None:
    time = [1_780_000_000.0]
    with (
        Service(tmp_path / "service", clock=lambda: time[0]) as service,
        CuttingProxy(service.base_url) as proxy,
    ):
        bench = Bench(tmp_path, service, proxy)
        task = str(bench.direct.create_task(PROMPT)["id"])
        time[0] += 3600
        bench.proxy.cut("POST", PROMPTS, Cut.BEFORE)
        with pytest.raises(OutcomeUnknown) as caught:
            bench.follow_up(task)
        assert caught.value.candidates == []


def test_without_content_it_stays_unknown(bench: Bench, task: str) -> None:
    bench.proxy.cut("POST", PROMPTS, Cut.AFTER)
    bench.proxy.cut("GET", "/content", Cut.STATUS, status=404, times=99)
    with pytest.raises(OutcomeUnknown) as caught:
        bench.follow_up(task)
    assert bench.proxy.count("POST") == 1
    assert prompts(bench, task)[1] in [one["promptId"] for one in caught.value.candidates]


def test_the_same_text_to_another_task_is_another_follow_up(bench: Bench, task: str) -> None:
    bench.proxy.cut("POST", PROMPTS, Cut.BEFORE)
    with pytest.raises(OutcomeUnknown):
        bench.follow_up(task)
    other = str(bench.direct.create_task("The first prompt")["id"])
    notes = len(bench.notes)
    bench.follow_up(other)
    assert bench.notes[notes:] == []


def test_a_finished_task_is_remembered_as_running_again(bench: Bench, task: str) -> None:
    done = {"id": task, "status": "completed", "completedAt": "2026-02-09T10:00:00Z"}
    bench.history.add_tasks([NewTask(done, prompt="The first prompt")])
    bench.follow_up(task)
    remembered = bench.history.task(task)
    assert remembered is not None
    assert (remembered["status"], remembered.get("completedAt")) == ("running", None)


def test_candidates_are_named_with_their_times(bench: Bench, task: str) -> None:
    bench.proxy.cut("POST", PROMPTS, Cut.AFTER, then=lambda: bench.direct.follow_up(task, PROMPT))
    with pytest.raises(OutcomeUnknown) as caught:
        bench.follow_up(task)
    made = bench.direct.get_task(task)["prompts"][1:]
    assert caught.value.candidates == [
        {"id": task, "promptId": one["id"], "createdAt": one["submittedAt"]} for one in made
    ]
    assert all(one["id"] in caught.value.message for one in made)


# Services that show prompts wrongly, after an attempt that was killed


class Thread:
    """One task, its prompts, and what becomes of the two documents that show them.

    `made` are the prompts that were created; `skew` is by how much `submittedAt` is behind `Date`.
    """

    def __init__(self, skew: float = 0.0) -> None:
        self.skew = skew
        self.made: list[dict[str, Any]] = []
        self.content: Callable[[dict[str, Any]], Any] = lambda document: document
        self.task: Callable[[dict[str, Any]], Any] = lambda document: document
        self.add("The first prompt")

    def add(self, text: str) -> dict[str, Any]:
        moment = datetime.now(UTC) - timedelta(seconds=self.skew)
        written = moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        prompt = {"id": f"p{len(self.made)}", "userPrompt": text, "submittedAt": written}
        self.made.append(prompt)
        return prompt

    def answer(self, request: Request) -> bytes:
        if request.method == "POST":
            return self.reply({"promptId": self.add(request.json["prompt"])["id"]}, 201)
        if request.path.endswith("/content"):
            return self.reply(self.content({"id": "t1", "prompts": list(self.made)}))
        plain = [{"id": one["id"], "status": "running"} for one in self.made]
        return self.reply(self.task({"id": "t1", "status": "running", "prompts": plain}))

    def reply(self, document: Any, status: int = 200) -> bytes:
        return json_reply(document, status, {"Date": formatdate(usegmt=True)})


def after_a_kill(folder: Path, thread: Thread) -> dict[str, Any]:
    """What a follow-up returns whose first attempt was killed after it had made its prompt."""
    with RawServer(thread.answer) as server:
        client = RebyteClient("rbk_test", base_url=server.base_url)
        history = History(folder / "history.db", origin="test")
        request = PromptRequest(client, history, "t1", {"prompt": PROMPT})
        history.intents.open(
            None,
            digest=request.digest,
            body_digest=request.body_digest,
            started_at=timestamp(),
            owner="gone",
        )
        thread.add(PROMPT)
        at, body = Time(), {"prompt": PROMPT}
        return create.follow_up(
            client, history, "t1", body, note=print, deadline=at.deadline(), sleep=at.sleep
        )


def test_the_prompt_of_a_killed_attempt_is_found(tmp_path: Path) -> None:
    thread = Thread()
    assert after_a_kill(tmp_path, thread) == {"promptId": "p1"}
    assert len(thread.made) == 2


def without(number: int) -> Callable[[dict[str, Any]], Any]:
    return lambda document: {**document, "prompts": document["prompts"][:number]}


SHOWN_WRONGLY: dict[str, Callable[[dict[str, Any]], Any]] = {
    "none": without(0),
    "only the first": without(1),
    "no list": lambda document: {**document, "prompts": None},
    "a list of texts": lambda document: {**document, "prompts": ["x", "y"]},
    "another task": lambda document: {
        "id": "t2",
        "prompts": [{**document["prompts"][0], "id": "q1"}],
    },
    "the same twice": lambda document: {**document, "prompts": document["prompts"][:1] * 2},
    "other ids": lambda document: {
        **document,
        "prompts": [
            {**one, "id": f"q{one['id']}", "userPrompt": "Something else entirely"}
            for one in document["prompts"][:1]
        ],
    },
    "cut short": lambda document: {
        **document,
        "prompts": [
            {**one, "userPrompt": one["userPrompt"][:22] + "…"} for one in document["prompts"]
        ],
    },
    "masked": lambda document: {
        **document,
        "prompts": [{**one, "userPrompt": "[redacted]"} for one in document["prompts"]],
    },
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SHOWN_WRONGLY)
def test_a_prompt_that_is_not_shown_is_not_sent_again(tmp_path: Path, name: str) -> None:
    thread = Thread()
    thread.content = SHOWN_WRONGLY[name]
    with pytest.raises(OutcomeUnknown):
        after_a_kill(tmp_path, thread)
    assert len(thread.made) == 2


@pytest.mark.slow
@pytest.mark.parametrize("skew", [3.0, -5.0, 1000.0, 8 * 3600.0, -8 * 3600.0])
def test_submitted_at_and_date_may_differ(tmp_path: Path, skew: float) -> None:
    thread = Thread(skew)
    with suppress(OutcomeUnknown):
        after_a_kill(tmp_path, thread)
    assert len(thread.made) == 2
