"""A task that another request may have created is never taken, however the service shows prompts.

The other request is that of another process: its intent, or its reservation, is all that is known.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from rebyte_cli import RebyteClient
from rebyte_cli.errors import OutcomeUnknown
from rebyte_cli.history.history import History
from rebyte_cli.history.rows import Reservation, beginning_of, body_digest_of, digest_of
from rebyte_cli.tasks import create as engine
from tests.conftest import Done
from tests.farm import Farm
from tests.inside import inside
from tests.servers import Answer, Line, Request, json_reply, reset
from tests.task_board import Time
from tests.test_never_twice import first_line

SHORT, LONG = "Review", "Review\nthe login test, then mend it"


class Place:
    """A service that may show first lines only, and the history of this machine."""

    def __init__(self, home: Path, farm: Farm) -> None:
        self.home, self.farm = home, farm
        self.client = RebyteClient("rbk_farm", base_url=farm.server.base_url)
        self.client.list_tasks()
        self.warnings: list[str] = []
        self.makes: str | None = SHORT  # the prompt of what is created when a create is lost
        self.sent: list[str] = []

    def history(self) -> History:
        path = self.home / ".local" / "state" / "rebyte" / "history.db"
        return History(path, origin=self.farm.server.origin)

    def lose(self, request: Request) -> Answer | None:
        if request.method != "POST" or self.sent:
            return None
        self.sent.append(request.json["prompt"])
        if self.makes is not None:
            self.farm._make({"prompt": self.makes})
        return reset

    def create(self, prompt: str = SHORT, **more: Any) -> dict[str, Any]:
        at = Time()
        return engine.create(
            self.client,
            self.history(),
            {"prompt": prompt},
            prompt=prompt,
            note=lambda _text: None,
            warn=self.warnings.append,
            deadline=at.deadline(),
            sleep=at.sleep,
            **more,
        )

    def other_create(self, prompt: str = LONG) -> None:
        self.history().intents.open(
            None,
            digest=digest_of(prompt),
            body_digest=body_digest_of({"prompt": prompt}),
            started_at=datetime.now(UTC).isoformat(),
            owner=f"attempt {prompt}",
            begins=beginning_of(prompt),
        )

    def other_line(self, prompt: str = LONG) -> None:
        now = datetime.now(UTC).isoformat()
        wanted = Reservation(1, digest_of(prompt), now, beginning_of(prompt))
        self.history().intents.reserve("batch other", [wanted])

    def batch(self, *prompts: str, **options: str) -> Done:
        lines = [json.dumps({"prompt": prompt}) + "\n" for prompt in prompts]
        (self.home / "t.jsonl").write_text("".join(lines))
        words = [word for name, value in options.items() for word in (f"--{name}", value)]
        return inside("batch", "t.jsonl", *words, cwd=self.home, env=self.farm.env)


@pytest.fixture
def place(home: Path, pace: Callable[..., None]) -> Iterator[Place]:
    pace()
    with Farm() as farm:
        place = Place(home, farm)
        farm.hook = place.lose
        yield place


Begin = Callable[[Place], None]


@pytest.mark.parametrize("begin", [Place.other_create, Place.other_line])
def test_a_create_does_not_take_what_another_request_may_be_shown_as(
    place: Place, begin: Begin
) -> None:
    begin(place)
    place.farm.shows, place.makes = first_line, LONG
    with pytest.raises(OutcomeUnknown) as caught:
        place.create()
    assert [task["id"] for task in caught.value.candidates] == list(place.farm.tasks)


@pytest.mark.parametrize("begin", [Place.other_create, Place.other_line])
def test_a_line_does_not_take_what_another_request_may_be_shown_as(
    place: Place, begin: Begin
) -> None:
    begin(place)
    place.farm.shows, place.makes = first_line, LONG
    done = place.batch(SHORT)
    assert (done.status, json.loads(done.out)["status"]) == (6, "unknown")


def test_the_killed_attempt_at_another_prompt_counts_too(place: Place) -> None:
    """Both were killed: the one that is repeated must not take the other one's task."""
    place.other_create(SHORT)
    place.other_create(LONG)
    place.farm.shows = first_line
    place.farm._make({"prompt": LONG})
    with pytest.raises(OutcomeUnknown):
        place.create()
    assert place.sent == []


def test_another_request_that_cannot_be_shown_so_leaves_no_doubt(place: Place) -> None:
    place.other_create("Something else")
    place.farm.shows = first_line
    assert place.farm.tasks[place.create()["id"]]["prompt"] == SHORT


def test_a_line_of_another_shard_may_be_shown_so(place: Place) -> None:
    place.farm.shows, place.makes = first_line, LONG
    done = place.batch(SHORT, LONG, shard="1/2")
    assert (done.status, json.loads(done.out)["status"]) == (6, "unknown")


# What a search took and a later answer gives to another request


def test_an_answer_that_names_what_a_key_took_sets_the_key_back(place: Place) -> None:
    taken = place.create(key="k")
    assert place.history().intents.of("k") is not None

    def hook(request: Request) -> Answer | None:
        return json_reply(taken, 201) if request.method == "POST" else None

    place.farm.hook = hook
    assert place.create("Another")["id"] == taken["id"]
    (warning,) = place.warnings
    assert f"task {taken['id']}" in warning
    assert "'k'" in warning
    intent = place.history().intents.of("k")
    assert intent is not None
    assert (intent.state, intent.task_id) == ("unknown", None)
    with pytest.raises(OutcomeUnknown):
        place.create(key="k")


def test_an_answer_that_names_an_answered_task_warns_only(place: Place) -> None:
    place.farm.hook = lambda _request: None
    known = place.create(key="k")

    def hook(request: Request) -> Answer | None:
        return json_reply(known, 201) if request.method == "POST" else None

    place.farm.hook = hook
    assert place.create("Another")["id"] == known["id"]
    assert len(place.warnings) == 1
    intent = place.history().intents.of("k")
    assert intent is not None
    assert intent.state == "done"


def test_an_answer_that_names_what_a_line_took_sets_the_line_back(place: Place) -> None:
    journal = place.home / "t.jsonl.journal"

    def answer_late(line: Line) -> None:
        while '"found":true' not in journal.read_text() and not line.stopped.is_set():
            line.wait(0.01)
        (task,) = place.farm.tasks.values()
        line.send(json_reply({"id": task["id"], "createdAt": task["createdAt"]}, 201))

    def hook(request: Request) -> Answer | None:
        if request.method != "POST":
            return None
        return place.lose(request) or answer_late

    place.farm.hook = hook
    done = place.batch(SHORT, "Else", jobs="1")
    rows = [json.loads(line) for line in done.out.splitlines()]
    assert done.status == 6, done.err
    assert "which line 1 has from a search" in done.err
    assert {row["line"]: row["status"] for row in rows} == {1: "unknown", 2: "completed"}


# Candidates of an earlier run


def test_a_key_remembers_what_its_first_run_found_possible(place: Place) -> None:
    place.farm.silent = True
    with pytest.raises(OutcomeUnknown) as first:
        place.create(key="k")
    (candidate,) = [task["id"] for task in first.value.candidates]
    hidden = place.farm.tasks.copy()
    place.farm.tasks.clear()
    for _ in range(2):
        with pytest.raises(OutcomeUnknown) as later:
            place.create(key="k")
        assert [task["id"] for task in later.value.candidates] == [candidate]
        assert candidate in later.value.message
    place.farm.tasks.update(hidden)
    place.farm.silent = False
    assert place.create(key="k")["id"] == candidate
