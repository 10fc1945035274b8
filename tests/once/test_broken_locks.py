"""Locks that do not lock: a file system that refuses them, and one that grants each of them.

In real processes, whose `flock` is replaced before the command starts.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.conftest import Done
from tests.farm import Farm
from tests.fork_server import CHANGES, commands
from tests.waiting import eventually

SHIM = """
import errno, fcntl, os
kind, flock = os.environ.get("BROKEN_LOCKS", ""), fcntl.flock

def broken(handle, flags):
    if kind in ("ENOLCK", "ENOSYS", "EOPNOTSUPP"):
        number = getattr(errno, kind)
        raise OSError(number, os.strerror(number))
    name = os.readlink(f"/proc/self/fd/{handle if isinstance(handle, int) else handle.fileno()}")
    # Between machines: each sees its own locks, so that a look at one machine finds them sound.
    if kind == "each machine for itself" and ".lock-" in name:
        return flock(handle, flags)

if kind:
    fcntl.flock = broken
"""
# A run of each race by default, one for 50 trials of REBYTE_TEST_DOUBLES.
RUNS = range(max(1, int(os.environ.get("REBYTE_TEST_DOUBLES", "0")) // 50))
REFUSING = ["ENOLCK", "ENOSYS", "EOPNOTSUPP", "yes"]
Start = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def start(home: Path, tmp_path: Path) -> Start:
    def run(farm: Farm, kind: str, *words: str, state: str = "state") -> subprocess.Popen[bytes]:
        more = {"BROKEN_LOCKS": kind, CHANGES: SHIM}
        return subprocess.Popen(
            [commands() / "rebyte", *words],
            cwd=home,
            env={**os.environ, **farm.env, **more, "REBYTE_STATE_DIR": str(tmp_path / state)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    return run


def ended(process: subprocess.Popen[bytes]) -> Done:
    out, err = process.communicate(timeout=120)
    return Done(process.returncode, out.decode(), err.decode())


@pytest.mark.slow
@pytest.mark.parametrize("kind", REFUSING)
def test_a_key_is_refused_with_the_reason(start: Start, kind: str) -> None:
    with Farm() as farm:
        done = ended(start(farm, kind, "create", "Say hello", "--once", "k"))
        assert farm.tried == {}
        assert done.status == 1
        assert "locks do not work in" in done.err
        assert "REBYTE_STATE_DIR" in done.err
        assert ended(start(farm, "", "create", "Say hello", "--once", "k")).status == 0


@pytest.mark.parametrize("kind", REFUSING)
def test_a_create_without_a_key_says_what_it_cannot_do(start: Start, kind: str) -> None:
    with Farm() as farm:
        done = ended(start(farm, kind, "create", "Say hello"))
        assert (done.status, farm.tried) == (0, {"Say hello": 1})
    assert "locks do not work in" in done.err


@pytest.mark.parametrize("kind", REFUSING)
def test_a_batch_is_refused_with_the_reason(start: Start, home: Path, kind: str) -> None:
    (home / "t.txt").write_text("Say hello\n")
    with Farm() as farm:
        done = ended(start(farm, kind, "batch", "t.txt", "--text"))
        assert farm.tried == {}
    assert done.status != 0
    assert "locks do not work in" in done.err
    assert not (home / "t.txt.journal").exists()


@pytest.mark.slow
@pytest.mark.parametrize("run", RUNS)
def test_two_runs_on_one_journal_notice_each_other(start: Start, home: Path, run: int) -> None:
    """Two machines, each with its own state folder and locks. One of them stops, or both."""
    prompts = [f"Line {number}" for number in range(40)]
    (home / "t.txt").write_text("".join(f"{prompt}\n" for prompt in prompts))
    kind, words = "each machine for itself", ("batch", "t.txt", "--text", "--jobs", "4")
    with Farm(delay=0.4) as farm:
        first = start(farm, kind, *words, state="one")
        eventually(lambda: len(farm.tasks) > 4)
        ends = [ended(start(farm, kind, *words, state="two")), ended(first)]
        assert any("another run is" in done.err for done in ends), ends
        assert any(done.status for done in ends)
        assert max(farm.tried.values()) == 1


@pytest.mark.slow
@pytest.mark.parametrize("run", RUNS)
def test_two_runs_that_start_together_send_no_line_twice(
    start: Start, home: Path, run: int
) -> None:
    (home / "t.jsonl").write_text("".join(json.dumps({"prompt": f"L{n}"}) + "\n" for n in range(8)))
    with Farm(delay=0.05) as farm:
        both = [
            start(farm, "each machine for itself", "batch", "t.jsonl", state=state)
            for state in ("one", "two")
        ]
        ends = [ended(process) for process in both]
        assert all(count == 1 for count in farm.made.values())
    # On a busy machine the second may begin when the first has ended, and find it all done.
    assert any(done.status for done in ends) or len(farm.made) == 8


@pytest.mark.slow
@pytest.mark.parametrize("run", RUNS)
def test_one_key_in_many_processes_whose_locks_do_not_lock(start: Start, run: int) -> None:
    """They share the database, whose key is unique."""
    with ExitStack() as stack:
        farm = stack.enter_context(Farm(delay=0.5))
        all_ = [
            start(farm, "each machine for itself", "create", "Say hello", "--once", "k")
            for _ in range(6)
        ]
        ends = [ended(process) for process in all_]
        assert farm.tried == {"Say hello": 1}
        assert 0 in {done.status for done in ends}
