"""Asked again after an attempt that was cut off: what is taken for its task, and what is said."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from rebyte_cli.errors import APIError, OutcomeUnknown
from rebyte_cli.history.history import History
from rebyte_cli.local.server import Service
from rebyte_cli.tasks import create
from rebyte_cli.tasks.create import CreateOperation
from rebyte_cli.tasks.search import digest_of
from tests.cutting_proxy import Cut, CuttingProxy
from tests.once_bench import PROMPT, TASKS, Bench

LIST = r"/v1/tasks\?"


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with Service(tmp_path / "service") as service, CuttingProxy(service.base_url) as proxy:
        yield Bench(tmp_path, service, proxy)


def cut_off(
    bench: Bench,
    key: str | None = None,
    *,
    prompt: str = PROMPT,
    ago: timedelta = timedelta(0),
    **more: str,
) -> None:
    """An attempt whose process died after it wrote its intent."""
    body = {"prompt": prompt, **more}
    history = bench.memory()
    history.open_intent(
        key,
        digest=digest_of(prompt),
        body_digest=CreateOperation(bench.client, bench.history, body, prompt).body_digest,
        started_at=(datetime.now(UTC) - ago).isoformat(),
        owner="gone",
    )
    history.close()


def open_ends(bench: Bench) -> int:
    return len(bench.memory().unsettled(digest_of(PROMPT)))


# -- with a key --------------------------------------------------------------------------------


def test_what_is_found_is_told_and_not_looked_for_twice(bench: Bench) -> None:
    cut_off(bench, "k")
    made = bench.direct.create_task(PROMPT)
    created = bench.create(key="k")
    assert created["id"] == made["id"]
    assert "'k'" in bench.notes[0]
    assert "looking for its task" in bench.notes[0]
    assert made["id"] in bench.notes[1]
    assert "was found" in bench.notes[1]
    looks = bench.proxy.count("GET")
    assert create.made_before(bench.history, "k") == created
    assert bench.create(key="k") == created
    assert bench.proxy.count("GET") == looks


def test_what_is_not_found_and_sent_again_is_told(bench: Bench) -> None:
    cut_off(bench, "k", ago=timedelta(minutes=16))
    bench.create(key="k")
    assert "sending it again" in bench.notes[-1]


def test_the_prompt_that_was_lost_is_looked_for_and_not_the_new_one(bench: Bench) -> None:
    lost = "Mend the logout page, and nothing else"
    cut_off(bench, "k", prompt=lost)
    bench.direct.create_task(PROMPT)
    made = bench.direct.create_task(lost)
    assert bench.create(key="k")["id"] == made["id"]
    # What it was asked is not known here: only its digest was kept.
    remembered = bench.history.task(made["id"])
    assert remembered is not None
    assert not remembered["prompt"]


def test_what_was_asked_for_beside_the_prompt_is_that_of_the_lost_one(bench: Bench) -> None:
    cut_off(bench, "k", executor="gemini")
    made = bench.direct.create_task(PROMPT, executor="gemini")
    assert bench.create(key="k", body={"executor": "claude"})["id"] == made["id"]


def test_another_executor_than_the_lost_one_asked_for_is_doubtful(bench: Bench) -> None:
    cut_off(bench, "k", executor="claude")
    made = bench.direct.create_task(PROMPT, executor="gemini")
    with pytest.raises(OutcomeUnknown) as caught:
        bench.create(key="k", body={"executor": "claude"})
    assert [task["id"] for task in caught.value.candidates] == [made["id"]]


# -- without a key -----------------------------------------------------------------------------


def test_one_that_has_a_key_is_left_to_its_key(bench: Bench) -> None:
    cut_off(bench, "k")
    made = bench.direct.create_task(PROMPT)
    assert bench.create()["id"] != made["id"]
    assert bench.proxy.count("GET", LIST) == 0


def test_two_equal_tasks_are_both_named(bench: Bench) -> None:
    cut_off(bench)
    made = [bench.direct.create_task(PROMPT)["id"] for _ in range(2)]
    with pytest.raises(OutcomeUnknown) as caught:
        bench.create()
    assert sorted(task["id"] for task in caught.value.candidates) == sorted(made)
    assert bench.proxy.count("POST") == 0


def test_one_of_long_ago_is_not_looked_for(bench: Bench) -> None:
    bench.direct.list_tasks()
    cut_off(bench, ago=timedelta(minutes=16))
    bench.create()
    assert bench.notes == []
    assert bench.proxy.count("GET", LIST) == 0
    assert open_ends(bench) == 0


def test_a_look_that_fails_keeps_nobody_from_sending(bench: Bench) -> None:
    cut_off(bench)
    bench.proxy.cut("GET", LIST, Cut.STATUS, status=500, times=20)
    created = bench.create()
    assert bench.on_server() == [created["id"]]
    assert any("500" in note and "sending anew" in note for note in bench.notes)


def test_a_lost_follow_up_is_found_when_it_is_asked_again(bench: Bench) -> None:
    task = str(bench.direct.create_task("The first prompt")["id"])
    bench.proxy.cut("POST", "/prompts$", Cut.AFTER)
    bench.proxy.cut("GET", "/content", Cut.STATUS, status=500, times=4)
    bench.proxy.cut("GET", f"{TASKS[:-1]}/", Cut.STATUS, status=500)
    with pytest.raises(OutcomeUnknown):
        bench.follow_up(task, look_for=0)
    bench.proxy._rules.clear()
    sent = bench.follow_up(task)
    assert [sent["promptId"]] == [one["id"] for one in bench.direct.get_task(task)["prompts"][1:]]
    assert bench.proxy.count("POST") == 1


def test_the_same_files_uploaded_again_are_the_same_request(bench: Bench) -> None:
    """Each upload gives them new names; how many there are is what can be told."""
    bench.proxy.cut("POST", TASKS, Cut.BEFORE)
    with pytest.raises(OutcomeUnknown):
        bench.create(body={"files": [{"id": "1", "filename": "a"}]}, look_for=0)
    bench.create(body={"files": []})
    assert "Sending anew" not in bench.notes
    with suppress(APIError):  # the service knows no such upload
        bench.create(body={"files": [{"id": "2", "filename": "a"}]})
    assert "Sending anew" in bench.notes


# -- what is told of a task that was found -----------------------------------------------------


def test_a_task_is_taken_although_its_status_cannot_be_had(bench: Bench) -> None:
    bench.proxy.cut("POST", TASKS, Cut.AFTER)
    bench.proxy.cut("GET", r"/v1/tasks/[^/]*$", Cut.STATUS, status=500)
    created = bench.create()
    assert (created["id"], created["status"]) == (bench.on_server()[0], "running")
    assert created["createdAt"]


def test_candidates_are_shown_with_what_tells_them_apart(bench: Bench) -> None:
    bench.proxy.cut("POST", TASKS, Cut.AFTER, then=lambda: bench.direct.create_task(PROMPT))
    with pytest.raises(OutcomeUnknown) as caught:
        bench.create()
    rows = bench.direct.list_tasks()["data"]
    assert caught.value.candidates == [
        {name: row[name] for name in ("id", "url", "createdAt", "title")} for row in rows
    ]


def test_a_task_made_with_the_history_off_is_known_as_taken(bench: Bench) -> None:
    def off() -> History:
        return History(bench.folder / "history.db", origin="test", enabled=False)

    bench.create(history=off())
    bench.proxy.cut("POST", TASKS, Cut.BEFORE)
    with pytest.raises(OutcomeUnknown) as caught:
        bench.create(history=off(), look_for=0)
    assert caught.value.candidates == []
