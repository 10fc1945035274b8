"""A batch and a `create` beside it that ask for the same: neither takes the other's task."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from rebyte_cli import RebyteClient
from rebyte_cli.errors import OutcomeUnknown
from rebyte_cli.history.history import History
from rebyte_cli.history.rows import NewTask, Reservation, digest_of
from rebyte_cli.once.search import Pace
from rebyte_cli.tasks import create
from tests.conftest import COMMAND
from tests.farm import Farm, lines_of
from tests.inside import inside
from tests.servers import Answer, Request, reset
from tests.task_board import Time
from tests.waiting import eventually

SAME = "Fix the login test"


class Place:
    """A farm, a file of one line, and the history that both commands share."""

    def __init__(self, home: Path, farm: Farm) -> None:
        self.home, self.farm = home, farm
        self.client = RebyteClient("rbk_farm", base_url=farm.server.base_url)
        self.client.list_tasks()
        self.off = {"REBYTE_HISTORY": "off"}
        (home / "t.txt").write_text(f"{SAME}\n")

    def history(self, *, enabled: bool = True) -> History:
        """Opened as another process opens it."""
        path = self.home / ".local" / "state" / "rebyte" / "history.db"
        return History(path, origin=self.farm.server.origin, enabled=enabled)

    @contextmanager
    def batch(self, **env: str) -> Iterator[subprocess.Popen[bytes]]:
        """A run in a process, whose task is made and whose answer is not there yet."""
        with subprocess.Popen(
            [*COMMAND, "batch", "t.txt", "--text"],
            cwd=self.home,
            env={**os.environ, **self.farm.env, **env},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        ) as process:
            try:
                eventually(lambda: self.farm.made[SAME] == 1)
                yield process
            finally:
                process.kill()

    def again(self, *options: str, **env: str) -> list[dict[str, Any]]:
        """The rows of a further run."""
        words = ("batch", "t.txt", "--text", *options)
        return lines_of(inside(*words, cwd=self.home, env={**self.farm.env, **env}).out)

    def create(self, *, hears: bool = False, enabled: bool = True) -> dict[str, Any]:
        """A `create` of the same, whose request is lost before the service hears of it."""
        before, at = self.farm.hook, Time()
        if not hears:
            self.farm.hook = lambda request: reset if request.method == "POST" else None
        try:
            return create.create(
                self.client,
                self.history(enabled=enabled),
                {"prompt": SAME},
                prompt=SAME,
                note=lambda _text: None,
                deadline=at.deadline(),
                sleep=at.sleep,
                pace=Pace(skew=60.0),
            )
        finally:
            self.farm.hook = before

    def begin_create(self) -> int:
        """A `create` of the same that is under way in another process; its intent."""
        return (
            self.history()
            .intents.open(
                None,
                digest=digest_of(SAME),
                body_digest="b",
                started_at=datetime.now(UTC).isoformat(),
                owner="other",
            )
            .id
        )

    def unsettled(self) -> int:
        return len(self.history().intents.unsettled(digest_of(SAME)))


@pytest.fixture
def place(home: Path, pace: Callable[..., None]) -> Iterator[Place]:
    # A busy machine takes longer from one step to the next than clocks differ.
    pace(skew=60.0)
    with Farm() as farm:
        yield Place(home, farm)


def test_a_create_does_not_take_the_task_of_a_line_under_way(place: Place) -> None:
    place.farm.delay = 30
    with place.batch(), pytest.raises(OutcomeUnknown) as caught:
        place.create()
    assert [task["id"] for task in caught.value.candidates] == list(place.farm.tasks)


def test_a_create_does_not_take_the_task_of_a_killed_batch(place: Place) -> None:
    place.farm.delay = 30
    with place.batch() as process:
        process.kill()
        process.wait()
    for _ in range(2):  # the second time it has its own earlier attempt to pick up
        with pytest.raises(OutcomeUnknown):
            place.create()
    place.farm.delay = 0
    created = place.create(hears=True)
    assert created["id"] == "task-00002"
    # And what it gave up may be what the line sees.
    (row,) = place.again()
    assert (row["status"], row["id"]) == ("unknown", None)


def test_a_journal_of_a_killed_batch_that_lost_all_its_lines(place: Place) -> None:
    """The history was told of no task yet: only the reservations say that lines may be sent."""
    lines = ["First", "Second", "Third"]
    (place.home / "t.txt").write_text("".join(f"{line}\n" for line in lines))
    words = [*COMMAND, "batch", "t.txt", "--text", "--jobs", "1"]
    env, running = {**os.environ, **place.farm.env}, list[subprocess.Popen[bytes]]()

    def kill_at_the_third(request: Request) -> Answer | None:
        if request.method == "POST" and request.json["prompt"] == "Third" and running:
            running.pop().kill()
            return reset
        return None

    place.farm.hook = kill_at_the_third
    with subprocess.Popen(words, cwd=place.home, env=env, stderr=subprocess.DEVNULL) as process:
        running.append(process)
        process.wait()
    assert place.farm.made == {"First": 1, "Second": 1}
    journal = place.home / "t.txt.journal"
    kept = journal.read_bytes().splitlines(keepends=True)[:2]  # the header and the run
    journal.write_bytes(b"".join(kept))
    place.farm.hook = lambda _request: None
    again = inside(
        "batch", "t.txt", "--text", "--timeout", "20", cwd=place.home, env=place.farm.env
    )
    assert again.status == 6, again.err
    assert place.farm.made == {"First": 1, "Second": 1}


def test_a_create_does_not_take_a_task_that_reached_the_history_late(place: Place) -> None:
    """Killed after its journal had the task and before its history had it."""
    place.farm.run = 60
    place.again("--no-wait")
    records = [json.loads(line) for line in (place.home / "t.txt.journal").open()]
    history = place.history()
    history.forget_task("task-00001")
    wanted = Reservation(1, digest_of(SAME), datetime.now(UTC).isoformat())
    history.intents.reserve(f"batch {records[1]['run']['journal']}", [wanted])
    place.again("--no-wait")
    assert history.knows(["task-00001"]) == {"task-00001"}
    assert place.unsettled() == 0
    with pytest.raises(OutcomeUnknown) as caught:
        place.create()
    assert caught.value.candidates == []


@pytest.mark.parametrize("history", ["on", "off"])
def test_a_create_does_not_take_the_task_of_an_answered_line(place: Place, history: str) -> None:
    env = place.off if history == "off" else {}
    place.again(**env)
    with pytest.raises(OutcomeUnknown) as caught:
        place.create(enabled=history == "on")
    assert caught.value.candidates == []


def test_a_line_does_not_take_the_task_of_a_create_under_way(place: Place) -> None:
    intent = place.begin_create()
    place.farm.hook = cut_first(place.farm)
    (row,) = place.again()
    (made,) = place.farm.tasks.values()
    assert row["status"] == "unknown"
    assert f"it could be {made['id']}" in row["error"]["message"]
    # It was not the create's after all, so it can only be the line's.
    place.history().intents.settle(intent, state="unsent")
    # And what it gave up may be what the line sees.
    (row,) = place.again()
    assert (row["status"], row["id"]) == ("completed", made["id"])


@pytest.mark.parametrize("history", ["on", "off"])
def test_a_line_does_not_take_the_task_of_an_answered_create(place: Place, history: str) -> None:
    intent, earlier = place.begin_create(), place.history(enabled=history == "on")
    lose = cut_first(place.farm)

    def hook(request: Request) -> Answer | None:
        answer = lose(request)
        for made in place.farm.tasks.values() if answer else ():
            earlier.add_tasks([NewTask(made, prompt=SAME, sent={"prompt": SAME})])
            earlier.intents.settle(intent, state="done", task_id=made["id"], task=made)
        return answer

    place.farm.hook = hook
    (row,) = place.again(**(place.off if history == "off" else {}))
    (made,) = place.farm.tasks.values()
    assert row["status"] == "unknown"
    assert f"it could be {made['id']}" in row["error"]["message"]


def test_a_create_of_long_before_casts_no_doubt(place: Place) -> None:
    place.history().intents.open(
        None, digest=digest_of(SAME), body_digest="b", started_at="2026-01-01T00:00:00Z", owner="x"
    )
    place.farm.hook = cut_first(place.farm)
    (row,) = place.again()
    assert row["status"] == "completed"


def cut_first(farm: Farm) -> Callable[[Request], Answer | None]:
    def hook(request: Request) -> Answer | None:
        if request.method == "POST" and not farm.tasks:
            farm._make(request.json)
            return reset
        return None

    return hook


def test_a_batch_is_no_rival_of_itself_in_whatever_run_and_folder(place: Place) -> None:
    place.farm.silent = True
    place.farm.hook = cut_first(place.farm)
    assert place.again()[0]["status"] == "unknown"
    assert place.unsettled() == 1
    place.farm.silent = False
    (place.home / "t.txt.journal").rename(place.home / "moved")
    assert place.again("--journal", "moved")[0]["status"] == "completed"
    assert place.unsettled() == 0


def test_two_batches_with_the_same_line(place: Place) -> None:
    place.farm.delay = 30
    with place.batch():
        place.farm.hook = lambda request: reset if request.method == "POST" else None
        (place.home / "t2.txt").write_text(f"{SAME}\n")
        done = inside("batch", "t2.txt", "--text", cwd=place.home, env=place.farm.env)
        (row,) = lines_of(done.out)
    assert row["status"] == "unknown"


@pytest.mark.parametrize("word", ["<400>", "<429>", ""])
def test_a_settled_create_leaves_no_reservation(place: Place, word: str) -> None:
    (place.home / "t.txt").write_text(f"{SAME} {word}\n")
    place.again()
    path = place.history().path
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT COUNT(*) FROM intents").fetchone() == (0,)


def test_a_create_that_was_never_sent_leaves_no_reservation(place: Place) -> None:
    """The lines that come next are reserved with the first."""
    (place.home / "t.txt").write_text("One <400>\nTwo\nThree\n")
    place.again("--fail-fast", "--rate", "0.02", "--jobs", "1")
    assert place.farm.made == {}
    assert place.history().database.rows("SELECT * FROM intents") == []


def test_a_line_that_is_refused_keeps_no_create_waiting_until_the_batch_ends(place: Place) -> None:
    (place.home / "t.txt").write_text(f"{SAME} <400>\nOther <run 60>\n")
    history, reserved = place.history(), []

    def hook(request: Request) -> None:
        reserved.append(len(history.intents.unsettled(digest_of(f"{SAME} <400>"))))
        if place.farm.tasks and max(reserved) == 1 and reserved[-1] == 0:
            place.farm.tasks["task-00001"]["ends"] = 0.0

    place.farm.hook = hook
    (refused, ended) = place.again("--jobs", "1", "--timeout", "45")
    assert (max(reserved), reserved[-1]) == (1, 0)
    assert (refused["status"], ended["status"]) == ("refused", "completed")


def test_a_line_refused_by_a_fault_stays_claimed(place: Place) -> None:
    """A 500 does not say whether it made a task."""
    (place.home / "t.txt").write_text(f"{SAME} <500>\n")
    place.again()
    assert len(place.history().intents.unsettled(digest_of(f"{SAME} <500>"))) == 1


def test_a_history_that_cannot_be_written_costs_a_word_and_no_more(place: Place) -> None:
    folder = place.home / ".local" / "state"
    folder.mkdir(parents=True)
    (folder / "rebyte").write_text("")
    done = inside("batch", "t.txt", "--text", cwd=place.home, env=place.farm.env)
    assert done.status == 0
    assert done.err.count("continuing without the history") == 1


def test_a_second_signal_leaves_the_reservation(place: Place) -> None:
    place.farm.delay = 30
    with place.batch() as process:
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGINT)
        assert process.wait(30) in (130, 143)
    assert place.unsettled() == 1


THEN = "2026-02-09T10:30:00Z"


def test_a_history_that_cannot_be_written_reserves_nothing_and_warns(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("")
    told: list[str] = []
    history = History(tmp_path / "state" / "history.db", origin="o", warn=told.append)
    assert history.intents.reserve("batch", [Reservation(1, "d", THEN)]) == {}
    assert len(told) == 1
    assert told[0].endswith("continuing without the history")


@pytest.mark.parametrize("enabled", [True, False])
def test_a_reservation_keeps_its_task_only_with_the_history_off(
    tmp_path: Path, enabled: bool
) -> None:
    history = History(tmp_path / "history.db", origin="o", enabled=enabled)
    ids = history.intents.reserve("batch", [Reservation(1, "d", THEN), Reservation(2, "d", THEN)])
    history.intents.release({ids[1]: "task-1", ids[2]: None})
    rows = history.database.rows("SELECT state, task_id FROM intents")
    assert [tuple(row) for row in rows] == ([] if enabled else [("done", "task-1")])
    assert history.intents.reservations_of("batch") == {}
