"""Runs while another process holds the database: late is not lost."""

from __future__ import annotations

import errno
import os
import signal
import sqlite3
import time
from pathlib import Path
from typing import Any

import pytest

from rebyte_cli.local.agents.supervision import outbox, recovery, spawn
from tests.waiting import eventually

from .bench import NAP, Bench, gone, kinds


class Lock:
    """The database in the hands of another process, as a backup or a debugger has it."""

    def __init__(self, bench: Bench) -> None:
        self._db = sqlite3.connect(bench.store.file, isolation_level=None, timeout=60)
        self._db.execute("BEGIN IMMEDIATE")
        self._began = time.monotonic()

    def is_old(self) -> bool:
        """Whether it is held for longer than a supervisor waits at one time."""
        return time.monotonic() - self._began > 3 * outbox.ATTEMPT_SECONDS

    def release(self) -> None:
        self._db.execute("ROLLBACK")
        self._db.close()


def kept(bench: Bench, prompt: str) -> str:
    """What waits to be recorded."""
    file = bench.run_folder(prompt) / outbox.FILE
    return file.read_text() if file.exists() else ""


def printing(bench: Bench) -> str:
    """An agent that prints `one`, and `two` and its answer when `go` is there."""
    lines = "echo one; until [ -e go ]; do sleep 0.02; done; echo two; echo work > made"
    prompt = bench.start(["sh", "-c", lines])
    eventually(lambda: bench.said(prompt) == "one")
    return prompt


def go(bench: Bench) -> None:
    (bench.workspace().code / "go").touch()


@pytest.mark.slow
def test_a_locked_database_does_not_end_an_agent_that_prints(bench: Bench) -> None:
    lines = "echo one; until [ -e go ]; do sleep 0.02; done; echo two; "
    prompt = bench.start(["sh", "-c", f"{lines} until [ -e on ]; do sleep 0.02; done; echo three"])
    eventually(lambda: bench.said(prompt) == "one")
    lock = Lock(bench)
    go(bench)
    eventually(lambda: "two" in kept(bench, prompt) and lock.is_old())
    assert bench.said(prompt) == "one"
    lock.release()
    # Late, and before the agent says anything else.
    eventually(lambda: bench.said(prompt) == "one\ntwo")
    (bench.workspace().code / "on").touch()
    run = bench.wait(prompt)
    assert (run.outcome, run.answer) == ("succeeded", "one\ntwo\nthree")
    assert [event.order for event in bench.events(prompt)] == [0, 1, 2, 3]
    assert kept(bench, prompt) == ""


@pytest.mark.slow
def test_a_run_that_ends_while_the_database_is_locked_keeps_its_answer(bench: Bench) -> None:
    prompt = printing(bench)
    lock = Lock(bench)
    go(bench)
    eventually(lambda: '"end"' in kept(bench, prompt) and lock.is_old())
    assert bench.look(prompt).ended is None
    lock.release()
    run = bench.wait(prompt)
    assert (run.outcome, run.answer) == ("succeeded", "one\ntwo")
    assert bench.artifact("answer.md") == "one\ntwo\n"
    assert "+work" in (bench.artifact("changes.patch") or "")
    assert kinds(bench.events(prompt)) == ["text", "text", "result"]


@pytest.mark.slow
def test_a_supervisor_killed_while_the_database_is_locked_has_lost_nothing(bench: Bench) -> None:
    prompt = printing(bench)
    process = bench.supervisor(prompt)
    lock = Lock(bench)
    go(bench)
    eventually(lambda: '"end"' in kept(bench, prompt))
    os.kill(process, signal.SIGKILL)
    assert gone(prompt)
    lock.release()
    run = bench.wait(prompt)
    assert (run.outcome, run.answer) == ("succeeded", "one\ntwo")
    assert "+work" in (bench.artifact("changes.patch") or "")
    assert kinds(bench.events(prompt)) == ["text", "text", "result"]


@pytest.mark.slow
def test_what_a_killed_run_printed_is_there(bench: Bench) -> None:
    lines = f"echo one; until [ -e go ]; do sleep 0.02; done; echo two; sleep {NAP}161"
    prompt = bench.start(["sh", "-c", lines])
    eventually(lambda: bench.said(prompt) == "one")
    lock = Lock(bench)
    go(bench)
    eventually(lambda: "two" in kept(bench, prompt))
    os.kill(bench.supervisor(prompt), signal.SIGKILL)
    assert gone(prompt)
    lock.release()
    assert bench.wait(prompt).answer == recovery.VANISHED
    assert bench.said(prompt) == "one\ntwo"
    assert gone(f"{NAP}161")


@pytest.mark.slow
def test_a_run_starts_when_the_database_is_free(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, locks = spawn.start, list[Lock]()

    def start(*arguments: Any) -> None:
        locks.append(Lock(bench))
        real(*arguments)

    monkeypatch.setattr(spawn, "start", start)
    prompt = bench.start(["echo", "hello"])
    eventually(locks[0].is_old)
    assert bench.look(prompt).started is None
    locks[0].release()
    assert bench.wait(prompt).answer == "hello"


def test_what_was_cut_off_by_a_full_disk_is_left_out(tmp_path: Path) -> None:
    taken: list[list[Any]] = []
    waiting = outbox.Outbox(tmp_path / outbox.FILE, taken.extend)
    (tmp_path / outbox.FILE).write_text('["event", 0, 1, "te')
    waiting.add([["session", "é\ud83d"]])
    assert taken == [["session", "é\ud83d"]]
    (tmp_path / outbox.FILE).write_text('["event", 0, 1, "te\n["session", "x"]\n')
    assert outbox.left_behind(tmp_path) == [["session", "x"]]


def test_the_end_of_a_run_waits_for_room_for_its_artifacts(tmp_path: Path) -> None:
    attempts = iter([errno.ENOSPC, errno.EDQUOT, 0])
    taken: list[list[Any]] = []

    def write(records: list[outbox.Record]) -> None:
        if problem := next(attempts):
            raise OSError(problem, os.strerror(problem))
        taken.extend(records)

    waiting = outbox.Outbox(tmp_path / outbox.FILE, write)
    with pytest.raises(OSError, match="No space left"):
        waiting.add([["session", "x"]])
    waiting.finish()
    assert taken == [["session", "x"]]
    with pytest.raises(PermissionError):
        outbox.patiently(lambda: (_ for _ in ()).throw(PermissionError()))
