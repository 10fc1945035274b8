"""Signals that come to a batch in ways of their own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from rebyte_cli.api import retry
from rebyte_cli.batch import journal as journal_module
from rebyte_cli.batch import runner, throttle
from rebyte_cli.history.history import History
from tests.conftest import COMMAND
from tests.farm import Farm, lines_of
from tests.inside import inside
from tests.servers import Answer, Request, closed_port, reset


def test_a_signal_that_another_thread_takes_is_heard(home: Path) -> None:
    """Of two that come at one moment the system may hand both to a thread that only works."""
    (home / "t.txt").write_text("Task <run 4>\n")
    sent: list[str] = []

    def hook(request: Request) -> None:
        quiet = farm.at and time.monotonic() - farm.at[0] > 0.6  # nothing but looks at the task
        if quiet and not sent:
            sent.append(request.path)
            signal.pthread_kill(threading.get_ident(), signal.SIGINT)

    with Farm(hook=hook) as farm:
        done = inside("batch", "t.txt", "--text", cwd=home, env=farm.env)
    assert sent
    assert done.status == 130
    assert [row["status"] for row in lines_of(done.out)] == ["running"]


def test_afterwards_signals_are_whose_they_were_before(home: Path) -> None:
    (home / "t.txt").write_text("Task\n")
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with Farm() as farm:
        assert inside("batch", "t.txt", "--text", cwd=home, env=farm.env).status == 0
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


# -- A batch that is stopped: by Ctrl-C, SIGTERM, a lost network, a reader that goes away.

PROMPTS = [f"Task {number}" for number in range(40)]


@contextmanager
def started(home: Path, farm: Farm, *options: str) -> Iterator[subprocess.Popen[bytes]]:
    (home / "t.txt").write_text("".join(f"{prompt}\n" for prompt in PROMPTS))
    with subprocess.Popen(
        [*COMMAND, "batch", "t.txt", "--text", "--jobs", "2", *options],
        cwd=home,
        env={**os.environ, **farm.env},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end, "it did not happen in 20 s"
        time.sleep(0.01)


def finish(home: Path, farm: Farm) -> None:
    """Run it again to its end: each line has one task."""
    farm.delay = 0.0
    done = inside("batch", "t.txt", "--text", "--resend-after", "0.1", cwd=home, env=farm.env)
    assert done.status == 0, done.err
    assert sorted(row["line"] for row in lines_of(done.out)) == list(range(1, 41))
    assert dict(farm.made) == dict.fromkeys(PROMPTS, 1)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_one_signal_waits_for_creates_under_way_and_says_how_to_go_on(
    home: Path, number: signal.Signals, status: int
) -> None:
    with Farm(delay=0.25) as farm:
        with started(home, farm) as process:
            wait_until(lambda: sum(farm.made.values()) >= 3)
            process.send_signal(number)
            out, err = process.communicate(timeout=20)
        assert process.returncode == status
        made = sum(farm.made.values())
        assert made <= 4
        rows = lines_of(out.decode())
        assert len([row for row in rows if row["id"]]) == made
        assert len(rows) == 40
        assert b"Stopping: waiting for " in err
        assert b"Resume with `rebyte batch t.txt --text --jobs 2`" in err
        finish(home, farm)


def test_a_second_signal_leaves_at_once_and_nothing_is_lost(home: Path) -> None:
    with Farm(delay=8) as farm:
        with started(home, farm) as process:
            wait_until(lambda: sum(farm.made.values()) >= 2)
            begun = time.monotonic()
            process.send_signal(signal.SIGINT)
            assert process.stderr is not None
            while b"Stopping" not in process.stderr.readline():
                pass
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=20)
            assert time.monotonic() - begun < 3
        assert process.returncode == 130
        finish(home, farm)


def test_a_second_signal_is_heard_wherever_it_comes(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here while the history is told, which goes on past its own troubles."""
    (home / "t.txt").write_text("One\nTwo\n")

    def twice(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    def hook(request: Request) -> Answer | None:
        is_second = request.method == "POST" and request.json["prompt"] == "Two"
        return (lambda line: line.wait(20)) if is_second else None

    monkeypatch.setattr(History, "add_tasks", twice)
    with Farm(hook=hook) as farm:
        begun = time.monotonic()
        done = inside("batch", "t.txt", "--text", "--jobs", "2", cwd=home, env=farm.env)
        assert done.status == 130
        assert time.monotonic() - begun < 10


def test_a_create_that_outlasts_the_patience_of_a_stop_is_called_unknown(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not pending: it was sent, and may have made its task."""
    (home / "t.txt").write_text("One\nTwo\n")

    def hook(request: Request) -> Answer | None:
        if request.method != "POST":
            return None
        os.kill(os.getpid(), signal.SIGINT)
        return lambda line: line.wait(20)

    monkeypatch.setitem(runner.GRACE, signal.SIGINT, 0.1)
    with Farm(hook=hook) as farm:
        done = inside("batch", "t.txt", "--text", "--jobs", "1", cwd=home, env=farm.env)
        assert done.status == 130
        assert [row["status"] for row in lines_of(done.out)] == ["unknown", "pending"]
        assert "Stopping: waiting for 1 create under way; once more leaves at once" in done.err


def test_a_lost_network_pauses_it_and_it_goes_on(
    home: Path, monkeypatch: pytest.MonkeyPatch, one_clock: None
) -> None:
    # Tries come soon, for the test's speed; how they go on is tested elsewhere.
    monkeypatch.setattr(throttle, "PROBE_FIRST", 0.1)
    monkeypatch.setattr(retry, "FIRST_PAUSE", 0.1)
    (home / "t.txt").write_text("".join(f"{prompt}\n" for prompt in PROMPTS))

    def hook(_request: Request) -> Answer | None:
        """Gone from the fourth task on, until the pause has been told."""
        is_down = len(farm.tasks) >= 4 and "Paused: " not in getattr(sys.stderr, "text", "")
        return reset if is_down else None

    with Farm(delay=0.05, hook=hook) as farm:
        command = ("batch", "t.txt", "--text", "--jobs", "2", "--resend-after", "0.1")
        done = inside(*command, cwd=home, env=farm.env)
        assert done.status == 0, done.err
        assert done.err.index("Paused: ") < done.err.index("The network is back")
        assert len(lines_of(done.out)) == 40
        assert dict(farm.made) == dict.fromkeys(PROMPTS, 1)


def test_a_service_that_was_never_there_ends_it(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retry, "FIRST_PAUSE", 0.1)  # as above
    (home / "t.txt").write_text("One\nTwo\n")
    env = {"REBYTE_API_URL": f"http://127.0.0.1:{closed_port()}/v1", "REBYTE_API_KEY": "rbk_x"}
    done = inside("batch", "t.txt", "--text", cwd=home, env=env)
    assert done.status == 5
    assert {row["status"] for row in lines_of(done.out)} == {"pending"}
    assert "refused the connection" in done.err


def test_a_reader_that_goes_away_ends_it_quietly(home: Path) -> None:
    with Farm() as farm:
        with started(home, farm) as process:
            assert process.stdout is not None
            process.stdout.readline()
            process.stdout.close()
            assert process.wait(timeout=20) == 141
            assert process.stderr is not None
            assert b"Traceback" not in process.stderr.read()
        finish(home, farm)


def test_a_disk_that_is_full_after_the_last_create_is_told(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A patch, since no limit of the system comes at a moment: of the sync, as elsewhere."""
    (home / "t.txt").write_text("One <run 0.3>\n")

    def sync(_handle: int) -> None:
        if farm.tasks:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(journal_module, "sync", sync)
    with Farm() as farm:
        done = inside("batch", "t.txt", "--text", cwd=home, env=farm.env)
    assert done.status == 1
    assert done.err.count("cannot write the journal t.txt.journal: No space left on device") == 1
    assert [row["status"] for row in lines_of(done.out)] == ["completed"]
