"""What is said about a task or a prompt that was found, and about one that is not certain."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rebyte_cli import RebyteClient
from rebyte_cli.history.history import History
from rebyte_cli.once.request_kinds import PromptRequest, TaskRequest
from rebyte_cli.once.scan import LostRequest
from rebyte_cli.system.deadline import NO_LIMIT
from tests.servers import Answer, RawServer, error_reply, json_reply, transport_to

ROW = {"id": "t1", "url": "https://x/", "createdAt": "c", "title": "Fix it"}
TASK = {"id": "t1", "workspaceId": "w1", "status": "completed", "prompts": []}


@pytest.fixture
def answers() -> list[Answer]:
    return [json_reply(TASK)]


@pytest.fixture
def client(answers: list[Answer]) -> Iterator[RebyteClient]:
    with (
        RawServer(lambda _request: answers[-1]) as server,
        RebyteClient(transport=transport_to(server)) as client,
    ):
        yield client


@pytest.fixture
def history(tmp_path: Path) -> History:
    return History(tmp_path / "history.db", origin="o")


def test_a_task_that_was_found_is_told_as_one_that_was_answered(
    client: RebyteClient, history: History, answers: list[Answer]
) -> None:
    create = TaskRequest(client, history, {"prompt": "Hi"}, "Hi")
    found = {"id": "t1", "url": "https://x/", "createdAt": "c"}
    assert create.answer_from(ROW) == {**found, "workspaceId": "w1", "status": "completed"}
    answers.append(error_reply(400, "odd", "Not this one"))
    assert create.answer_from(ROW) == {**found, "status": "running"}


def test_a_task_is_named_with_its_link_if_it_has_one(
    client: RebyteClient, history: History
) -> None:
    create = TaskRequest(client, history, {"prompt": "Hi"}, "Hi")
    assert create.describe(ROW) == "task t1 (https://x/)"
    assert create.describe({"id": "t1"}) == "task t1"


@pytest.mark.parametrize(
    ("rows", "why", "says"),
    [
        ([], None, "{0}"),
        ([], "no list", "{0}; looking for it failed: no list"),
        ([{"id": "1"}, {"id": "2"}], "no list", "{0}; it may be {1}1 or 2"),
    ],
)
def test_an_unknown_outcome_names_its_candidates_and_the_reason(
    client: RebyteClient, history: History, rows: list[dict[str, Any]], why: str, says: str
) -> None:
    create = TaskRequest(client, history, {"prompt": "Hi"}, "Hi")
    assert create.unknown(rows, None, why).message.endswith(
        says.format("its outcome is unknown", "")
    )
    follow_up = PromptRequest(client, history, "t1", {"prompt": "Hi"})
    assert follow_up.unknown(rows, None, why).message.endswith(
        says.format("its outcome is unknown", "prompt ")
    )


def test_only_with_a_key_the_same_command_is_safe(client: RebyteClient, history: History) -> None:
    create = TaskRequest(client, history, {"prompt": "Hi"}, "Hi")
    assert "rebyte list" in str(create.unknown([], None, None).hint)
    assert str(create.unknown([], "key", None).hint).startswith("run the same command again")


def test_the_history_keeps_the_prompt_of_what_was_made_from_it(
    client: RebyteClient, history: History
) -> None:
    create = TaskRequest(client, history, {"prompt": "Hi"}, "Hi")
    assert create.remember({"id": "t1"}) == "t1"
    assert (history.task("t1") or {}).get("prompt") == "Hi"


def test_a_body_is_the_same_in_whatever_order(client: RebyteClient, history: History) -> None:
    bodies: list[dict[str, Any]] = [
        {"prompt": "Hi", "model": "big"},
        {"model": "big", "prompt": "Hi"},
        {"prompt": "Hi", "model": "small"},
    ]
    first, same, other = (TaskRequest(client, history, body, "Hi").body_digest for body in bodies)
    assert first == same != other


PROMPT, CREATED = "Add a test", "2026-02-09T10:00:00.000Z"


def prompts(*told: tuple[str, str]) -> dict[str, Any]:
    """A task with these prompts after its first one, each `name` and `text`."""
    rows = [{"id": "first", "userPrompt": PROMPT, "submittedAt": CREATED}]
    rows += [{"id": name, "userPrompt": text, "submittedAt": CREATED} for name, text in told]
    return {"id": "t1", "status": "running", "prompts": rows}


@pytest.mark.parametrize(
    ("before", "told", "expected"),
    [
        ([], [], "none"),
        ([], [("p1", PROMPT)], "p1"),
        ([], [("p1", "Rewritten")], "doubt"),
        ([], [("p1", "")], "doubt"),
        ([], [("p1", PROMPT), ("p2", PROMPT)], "doubt"),
        ([], [("known", PROMPT)], "none"),
        ([("p1", "Earlier")], [("p1", "Earlier")], "none"),
        ([("p1", "Earlier")], [("p1", "Earlier"), ("p2", PROMPT)], "p2"),
        ([("p1", "Earlier")], [("p2", PROMPT)], "p2"),
        ([("p1", "Earlier")], [], "doubt"),  # shorter than it was
        ([("p1", "Earlier")], [("p0", "Other"), ("p1", "Earlier")], "doubt"),
        ([("p1", PROMPT)], [("p1", PROMPT)], "doubt"),  # by another clock it may be ours
        (None, [], "doubt"),
        (None, [("p1", PROMPT)], "p1"),
        (None, [("p1", "Rewritten")], "doubt"),
    ],
)
def test_what_a_lost_follow_up_made(
    client: RebyteClient,
    history: History,
    answers: list[Answer],
    before: list[tuple[str, str]] | None,
    told: list[tuple[str, str]],
    expected: str,
) -> None:
    with history.intents.hold("other"):
        other = history.intents.open(
            "other", digest="d", body_digest="b", started_at=CREATED, owner="o", target="t1"
        )
        history.intents.settle(other.id, state="done", task_id="known")
    request = PromptRequest(client, history, "t1", {"prompt": PROMPT})
    answers.append(json_reply(prompts(*before or [])))
    baseline = None if before is None else request.baseline(NO_LIMIT)
    written = CREATED + "[" + request.server_clock.timestamp(baseline).partition("[")[2]
    answers.append(json_reply(prompts(*told)))
    (found,) = request.scan([LostRequest(request.prompt_digest, written)], NO_LIMIT)
    shown = "none" if found.shows_none else "doubt"
    assert (found.task["id"] if found.task else shown) == expected
