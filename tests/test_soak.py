"""An hour of 250 tasks with a service that fails one call in five: nothing doubled, nothing lost.

The hour is simulated, so it takes seconds (see `simulated_hour.py`). Two patches make the modules
live in it: they find its `time`, and a socket waits 50 ms at most, however much of the hour a call
may take.
"""

from __future__ import annotations

import gc
import importlib
import os
import threading
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from rebyte_cli import RebyteClient
from rebyte_cli.api.connection import AttemptState
from rebyte_cli.api.transport import Transport
from rebyte_cli.batch.input import Input, make_plan, read_input
from rebyte_cli.batch.journal import Journal
from rebyte_cli.batch.line_fields import LineChecker, LineFields
from rebyte_cli.batch.place import BatchOptions, BatchPlace, OpenPlace, RunParts
from rebyte_cli.batch.results import LineProblem
from rebyte_cli.batch.runner import Runner
from rebyte_cli.batch.state import LineTable
from rebyte_cli.batch.throttle import Throttle
from rebyte_cli.errors import TaskFailed
from rebyte_cli.history.history import History
from rebyte_cli.once.ledger import Ledger
from rebyte_cli.system.deadline import Deadline
from rebyte_cli.tasks.wait import WaitTarget, patient, watch
from tests.servers import KEY
from tests.simulated_hour import FaultyService, SimulatedHour
from tests.task_board import Time

TASKS = 250
LONGEST = 3000  # seconds that a task runs
MOST_GROWN = 24  # MB; 15 of them are what 70 threads set aside for their next allocations
PROMPTS = [
    f"Task {n} [{n * LONGEST // TASKS}]" + ("!" if n % 10 == 3 else "") for n in range(TASKS)
]
FAILED = {prompt for prompt in PROMPTS if prompt.endswith("!")}

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts in /proc"),
]


@pytest.fixture(autouse=True)
def _short_of_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    left = AttemptState.left
    monkeypatch.setattr(AttemptState, "left", lambda self: min(left(self), 0.05))


@pytest.fixture(autouse=True)
def _nothing_left_open(home: Path) -> Iterator[None]:
    gc.collect()
    before, others = open_files(), set(threading.enumerate())
    yield
    gc.collect()
    assert open_files() <= before
    working = ("create-", "watch", "search", "journal", "rebyte-wait")
    left = set(threading.enumerate()) - others
    assert not [thread.name for thread in left if thread.name.startswith(working)]


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def memory() -> float:
    """MB of this process that are in use now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE") / 1e6


def client_of(service: FaultyService, clock: Any, sleep: Any) -> RebyteClient:
    return RebyteClient(
        transport=Transport(
            service.server.base_url, KEY, pool=40, retry_after_cap=300, clock=clock, sleep=sleep
        )
    )


def lines() -> Input:
    source = BytesIO("".join(f"{prompt}\n" for prompt in PROMPTS).encode())
    checker = LineChecker(LineFields({}), workspace_per_line=False, find_files=lambda path: [path])
    return read_input(source, "t", form="text", template=None, checker=checker)


def test_a_batch(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    batch = lines()
    with SimulatedHour() as hour, FaultyService(hour) as service:
        for name in (
            "batch.runner",
            "batch.workers",
            "batch.lost_lines",
            "batch.poller",
            "once.scan",
        ):
            module = importlib.import_module(f"rebyte_cli.{name}")
            for word, stand_in in hour.modules().items():
                # The creators' own queue is never waited for with a limit.
                if hasattr(module, word) and (name, word) != ("batch.workers", "threading"):
                    monkeypatch.setattr(module, word, stand_in)
        for name in ("api.calls.since_boot", "once.server_clock.awake_since_boot"):
            monkeypatch.setattr(f"rebyte_cli.{name}", hour.clock)
        throttle = Throttle(clock=hour.clock, wait=hour.wait)
        client = client_of(service, hour.clock, throttle.sleep)
        history = History(tmp_path / "history.db", origin=service.server.origin)
        journal = Journal(tmp_path / "journal", {"lines": TASKS}, run={})
        options, ledger = BatchOptions(jobs=16), Ledger(history, "batch", journal.sync)
        place = OpenPlace(
            BatchPlace("default", service.server.origin, lambda: client, history),
            client, batch, throttle, options, ledger,
        )  # fmt: skip
        lines_by_index = LineTable(range(TASKS), place.name)
        run = Runner(
            [place], RunParts(batch, make_plan(batch.lines, "t"), lines_by_index, journal, options)
        )
        rows = []
        at_first = 0.0
        for row in run.run():
            told = row.record if isinstance(row, LineProblem) else row
            assert isinstance(told, dict), told  # not an error of the whole batch
            rows.append(told)
            at_first = at_first or memory()
        grown = memory() - at_first
        client.close()
        history.close()

    lost = [row for row in rows if row["status"] not in ("completed", "failed")]
    assert not lost, [(r["line"], r["status"], r["error"]) for r in lost]
    assert hour.now >= LONGEST
    assert set(service.failed) == set(FaultyService.KINDS)
    assert sum(service.failed.values()) > service.calls / 7
    assert dict(service.made) == dict.fromkeys(PROMPTS, 1), "each line has made one task"
    assert sorted(row["line"] for row in rows) == list(range(1, TASKS + 1)), "each is told once"
    for row in rows:
        prompt = PROMPTS[row["line"] - 1]
        assert service.tasks[row["id"]]["prompt"] == prompt
        assert row["status"] == ("failed" if prompt in FAILED else "completed"), row
    assert grown < MOST_GROWN, f"{grown:.1f} MB more at the end than after the first row"


def test_a_wait() -> None:
    time = Time()
    with FaultyService(Passing(time)) as service:
        ids = [service.add(prompt)["id"] for prompt in PROMPTS]
        client = client_of(service, time.clock, time.sleep)
        seen: dict[str, float] = {}
        counts = []
        at_first = 0.0
        for outcome in watch(
            client,
            [WaitTarget(task_id) for task_id in ids],
            patience=patient(client, Deadline(clock=time.clock)),
            pause=lambda seconds, _: time.sleep(seconds) or {},
            progress=lambda done, total: counts.append((done, total)),
        ):
            task = outcome.task if isinstance(outcome, TaskFailed) else outcome
            assert isinstance(task, dict)
            assert task["id"] not in seen, "told twice"
            seen[task["id"]] = time.now
            expected = service.status(service.tasks[task["id"]])
            assert task["status"] == expected != "running"
            assert isinstance(outcome, TaskFailed) == (expected == "failed")
            at_first = at_first or memory()
        grown = memory() - at_first
        client.close()

    assert sorted(seen) == sorted(ids)
    assert counts == [(n, TASKS) for n in range(TASKS + 1)]
    assert set(service.failed) == set(FaultyService.KINDS)
    late = [seen[task_id] - at * LONGEST / TASKS for at, task_id in enumerate(ids)]
    assert max(late) < 120, "an end is noticed at the next round, faults and all"
    assert grown < MOST_GROWN, f"{grown:.1f} MB more at the end than after the first end"


class Passing:
    """The hour of a wait: one thread sleeps, and the clock moves when it does."""

    under_way, last_request = 0, 0.0

    def __init__(self, time: Time) -> None:
        self._time = time

    def wall(self) -> float:
        return 1_770_633_000.0 + self._time.now
