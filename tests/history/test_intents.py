"""Intents: written before the request, held by one process, readable after its death."""

from __future__ import annotations

import signal
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from threading import Thread
from typing import Literal

import pytest

from rebyte_cli.history.history import History
from rebyte_cli.history.intents import LATEST_INTENTS, IntentHeld
from rebyte_cli.history.rows import Intent, Reservation

Ending = Literal["refused", "unsent", "unknown", "done"]

HOLDER = """
import sys, time
from pathlib import Path
from rebyte_cli.history.history import History
history = History(Path(sys.argv[1]), origin="o")
with history.intents.hold("key"):
    history.intents.open("key", digest="d", body_digest="b", started_at="then", owner="holder")
    print("open", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "history.db"


def start(
    history: History,
    key: str | None = "key",
    digest: str = "d",
    replaces: Intent | None = None,
    is_held: bool = False,
) -> Intent:
    """Open an intent, holding its key for as long as that takes, unless the caller does."""
    with nullcontext() if key is None or is_held else history.intents.hold(key):
        return history.intents.open(
            key, digest=digest, body_digest="b", started_at="now", owner="me", replaces=replaces
        )


def test_an_intent_is_on_the_disk_before_anything_is_sent(path: Path) -> None:
    made = start(History(path, origin="o"))
    assert made == Intent(made.id, "key", "open", "d", "b", "now", "me")
    assert History(path, origin="o").intents.of("key") == made
    assert History(path, origin="elsewhere").intents.of("key") is None


def test_a_key_whose_task_exists_is_not_opened_again(path: Path) -> None:
    history = History(path, origin="o")
    task = {"id": "t", "workspaceId": "w", "url": "u", "status": "running", "x": 1}
    history.intents.settle(start(history).id, state="done", task_id="t", task=task)
    again = start(History(path, origin="o"), digest="another")
    assert (again.state, again.task_id, again.task, again.digest) == ("done", "t", task, "d")


@pytest.mark.parametrize("state", ["refused", "unsent", "unknown"])
def test_any_other_attempt_makes_room_for_the_next(path: Path, state: Ending) -> None:
    history = History(path, origin="o")
    first = start(history)
    history.intents.settle(first.id, state=state)
    settled = history.intents.of("key")
    assert settled is not None
    assert settled.state == state
    if state == "unknown":  # it may have a task, unless the caller has proof that there is none
        with pytest.raises(IntentHeld):
            start(history, digest="new", replaces=first)
    second = start(history, digest="new", replaces=settled)
    assert (second.state, second.digest, second.id != first.id) == ("open", "new", True)


def test_a_key_is_held_until_the_block_ends(path: Path) -> None:
    one, two = History(path, origin="o"), History(path, origin="o")
    with one.intents.hold("key"):
        made = start(one, is_held=True)
        with pytest.raises(IntentHeld, match="another `rebyte` is creating the task for 'key'"):
            start(two)
        with pytest.raises(IntentHeld):
            two.intents.forget("key")
        start(two, "another key")
        start(History(path, origin="elsewhere"))
        one.intents.settle(made.id, state="unsent")
    start(two)


def test_a_key_that_is_not_held_by_this_thread_is_not_opened(path: Path) -> None:
    one, two = History(path, origin="o"), History(path, origin="o")
    with one.intents.hold("key"), pytest.raises(RuntimeError):
        start(two, is_held=True)
    assert two.intents.of("key") is None


def test_a_hold_spans_reading_deciding_and_sending(path: Path) -> None:
    one, two = History(path, origin="o"), History(path, origin="o")
    with one.intents.hold("key"):
        made = start(one, is_held=True)
        one.intents.settle(made.id, state="unknown")
        with pytest.raises(IntentHeld):
            start(two)
        again = start(one, replaces=one.intents.of("key"), is_held=True)
        one.intents.settle(again.id, state="done", task_id="t")
        with pytest.raises(IntentHeld), two.intents.hold("key"):
            pass
    assert start(two).state == "done"


def test_two_threads_of_one_process_are_two(path: Path) -> None:
    history = History(path, origin="o")
    caught: list[BaseException] = []

    def other() -> None:
        try:
            start(history)
        except IntentHeld as problem:
            caught.append(problem)

    with history.intents.hold("key"):
        thread = Thread(target=other)
        thread.start()
        thread.join()
    assert len(caught) == 1


def test_a_process_that_was_killed_holds_nothing_and_left_its_intent(path: Path) -> None:
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, path], stdout=subprocess.PIPE)
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"open\n"
    history = History(path, origin="o")
    with pytest.raises(IntentHeld), history.intents.hold("key"):
        pass
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    holder.stdout.close()
    with history.intents.hold("key"):
        left = history.intents.of("key")
    assert left is not None
    assert (left.state, left.owner) == ("open", "holder")


def test_a_key_can_be_dropped_by_hand(path: Path) -> None:
    history = History(path, origin="o")
    assert history.intents.forget("key") is False
    history.intents.settle(start(history).id, state="done", task_id="t")
    assert history.intents.forget("key") is True
    assert start(history).state == "open"


def test_without_a_key_only_an_unknown_end_is_kept(path: Path) -> None:
    history = History(path, origin="o")
    states: tuple[Ending, ...] = ("done", "refused", "unsent", "unknown")
    for state in states:
        history.intents.settle(start(history, None).id, state=state)
    rows = history.database.rows("SELECT state FROM intents")
    assert [row["state"] for row in rows] == ["unknown"]


def test_a_key_whose_task_exists_stays_held_by_its_holder(path: Path) -> None:
    one, two = History(path, origin="o"), History(path, origin="o")
    one.intents.settle(start(one).id, state="done", task_id="t")
    with one.intents.hold("key"):
        assert start(one, is_held=True).state == "done"
        with pytest.raises(IntentHeld), two.intents.hold("key"):
            pass


def test_no_more_is_kept_of_a_task_than_the_history_may_know(path: Path) -> None:
    answer = {"id": "t", "workspaceId": "w", "url": "u", "status": "running", "createdAt": "c"}
    task = {**answer, "title": "Fix it", "prompts": [{"id": "p1"}], "finalResult": "It is 4."}
    for enabled in (True, False):
        history = History(path, origin="o", enabled=enabled)
        history.intents.settle(
            start(history, f"{enabled}").id, state="done", task_id="t", task=task
        )
        kept = history.intents.of(f"{enabled}")
        assert kept is not None
        assert kept.task == ({**answer, "title": "Fix it"} if enabled else answer)


def test_records_of_a_task_survive_a_power_cut(path: Path) -> None:
    """Each step is synced: what a cut of the power does cannot be tried here."""
    history = History(path, origin="o")

    def is_synced() -> bool:
        ((level,),) = history.database.rows("PRAGMA synchronous")
        return bool(level == 2)

    made = start(history)
    assert is_synced()
    history.intents.reserve("batch", [])  # needs none
    assert not is_synced()
    history.intents.settle(made.id, state="done", task_id="t")
    assert is_synced()
    history.intents.reserve("batch", [])
    history.intents.forget("key")
    assert is_synced()


@pytest.mark.parametrize("key", ["a/../b", "x" * 5000, "naïve ☃", "\n", "with space"])
def test_a_key_may_be_any_text(path: Path, key: str) -> None:
    history = History(path, origin="o")
    with history.intents.hold(key), pytest.raises(IntentHeld):
        start(History(path, origin="o"), key)


def test_attempts_without_a_key_are_dropped_after_a_month_and_others_never(path: Path) -> None:
    """Unless they are among the latest thousand."""
    history = History(path, origin="o")
    for key, started_at in (
        (None, "2026-01-01T00:00:00.000Z"),
        ("key", "2026-01-01T00:00:00.000Z"),
        (None, "2026-01-20T00:00:00+00:00"),
    ):
        with nullcontext() if key is None else history.intents.hold(key):
            history.intents.open(key, digest="d", body_digest="", started_at=started_at, owner="")
    now = "2026-02-10T00:00:00.000Z[boot=1][up=1.0]"
    others = [Reservation(number, "other", now) for number in range(LATEST_INTENTS)]
    history.intents.reserve("batch", others)
    history.intents.open(None, digest="d", body_digest="", started_at=now, owner="")
    left = [(intent.key, intent.started_at[:10]) for intent in history.intents.unsettled("d")]
    assert left == [("key", "2026-01-01"), (None, "2026-01-20"), (None, "2026-02-10")]


def test_a_clock_that_was_put_right_drops_nothing(path: Path) -> None:
    """An attempt of a minute ago, from before the clock was set, must still be found."""
    history = History(path, origin="o")
    for started_at in ("1970-01-01T00:00:10.000+00:00", "2026-02-10T00:00:00.000Z"):
        history.intents.open(None, digest="d", body_digest="", started_at=started_at, owner="")
    assert len(history.intents.unsettled("d")) == 2
