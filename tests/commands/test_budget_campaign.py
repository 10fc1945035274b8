"""No crash resets a budget: those of a task, a batch and a day, while everything is killed.

At most one request for each run under way passes the limit. What was served and not counted is at
most an answer that was under way when its run was killed.

One trial of each kind by default; REBYTE_TEST_BUDGETS=10 makes ten, and REBYTE_TEST_SEED moves on
to others.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import COMMAND, Done
from tests.local.agents.test_run_meter import CountingModel
from tests.waiting import eventually

from .test_task_budget import asking as asking
from .test_task_budget import configure
from .test_task_budget import model as model
from .test_usage_campaign import processes

TRIALS = int(os.environ.get("REBYTE_TEST_BUDGETS", "1"))
FIRST = int(os.environ.get("REBYTE_TEST_SEED", "0"))
LOG = os.environ.get("REBYTE_TEST_LOG")
EACH = 1000  # tokens of an answer
AT_ONCE = 2
ROUNDS = 8
ASKS = "while True: ask(); time.sleep(0.02)"
ACTIVE = ("running", "queued", "pending")
Run = Callable[..., Done]


class Trial:
    """One seed: a limit in requests, and when everything is killed."""

    def __init__(self, seed: int, run: Run, home: Path, model: CountingModel) -> None:
        self.luck = random.Random(seed)
        self.limit = self.luck.randint(4, 15)
        self.run, self.home, self.model = run, home, model
        self.cut = 0  # answers that may have been under way when their runs were killed

    @property
    def budget(self) -> str:
        return f"{self.limit * EACH}tok"

    def local(self, *words: str) -> Done:
        return self.run("-P", "local", *words, cwd=self.home)

    def tasks(self) -> list[Any]:
        done = self.local("list", "--all", "-o", "json")
        assert done.status == 0, done.err
        found: list[Any] = done.json["data"]
        return found

    def some_requests(self, ended: Callable[[], bool]) -> None:
        """Wait for a few requests more, or for the end of what makes them."""
        enough = self.model.served + self.luck.randint(1, 4)
        eventually(lambda: self.model.served >= enough or ended())

    def kill_everything(self) -> None:
        """Every process of every run, in any order, and wait until their ends are recorded."""
        runs = list((self.home / ".local/state/rebyte/local/workspaces").glob("*/runs/*"))
        found = [pid for folder in runs for pid in processes(folder).values()]
        self.luck.shuffle(found)
        self.cut += AT_ONCE if found else 0
        for pid in found:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.until_ended()

    def until_ended(self) -> None:
        eventually(lambda: not any(task["status"] in ACTIVE for task in self.tasks()))

    def check(self) -> str:
        """Compare what is recorded with the limit, and with what was served."""
        usages = [task.get("usage") or {} for task in self.tasks()]
        counted = sum(usage.get("requests", 0) for usage in usages)
        # An answer that a kill cut off counts for more than these budgets have.
        cut = sum(usage.get("uncountedRequests", 0) for usage in usages)
        assert cut <= self.cut
        assert (1 if cut else self.limit) <= counted <= self.limit + AT_ONCE, self.limit
        assert counted - cut <= self.model.served <= counted + self.cut
        tokens = sum(usage.get("inputTokens", 0) + usage.get("outputTokens", 0) for usage in usages)
        assert tokens == EACH * (counted - cut)
        return f"limit {self.limit}, counted {counted}, served {self.model.served}"


def of_a_day(trial: Trial) -> None:
    """Runs of several tasks, until none can be created."""
    configure(trial.home, f'[local]\nparallel = {AT_ONCE}\nbudget_per_day = "{trial.budget}"\n')
    for turn in range(99):
        created = [trial.local("create", ASKS, "-x", "mine") for _ in range(AT_ONCE)]
        if all(done.status == 13 for done in created):
            return
        if turn < ROUNDS:
            trial.some_requests(lambda: not any(t["status"] in ACTIVE for t in trial.tasks()))
            trial.kill_everything()
        trial.until_ended()


def of_a_task(trial: Trial) -> None:
    """A run and follow-ups of one task, until one ends for the budget before it has asked."""
    trial.local("create", ASKS, "-x", "mine", "--budget", trial.budget)
    for turn in range(99):
        if turn < ROUNDS:
            trial.some_requests(lambda: trial.tasks()[0]["status"] not in ACTIVE)
            trial.kill_everything()
        trial.until_ended()
        before = trial.model.served
        done = trial.local("follow-up", trial.tasks()[0]["id"], ASKS, "--wait")
        if done.status == 13 and trial.model.served == before:
            return


def of_a_batch(trial: Trial) -> None:
    """Lines of one batch, which is killed as well and run again."""
    (trial.home / "in.txt").write_text(f"{ASKS}\n" * 40)
    words = ["-P", "local", "batch", "in.txt", "--text", "-o", "jsonl", "-x", "mine"]
    words += ["--max-running", str(AT_ONCE), "--budget", trial.budget]
    for _ in range(ROUNDS):
        with subprocess.Popen(
            [*COMMAND, *words],
            cwd=trial.home,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as batch:
            trial.some_requests(lambda batch=batch: batch.poll() is not None)  # type: ignore[misc]
            batch.kill()
        if trial.luck.random() < 0.5:
            trial.kill_everything()
    assert trial.run(*words, cwd=trial.home).status == 13
    trial.until_ended()


@pytest.mark.slow
@pytest.mark.parametrize("kind", [of_a_day, of_a_task, of_a_batch])
@pytest.mark.parametrize("seed", range(FIRST, FIRST + TRIALS))
def test_no_kill_resets_a_budget(
    asking: Run, home: Path, model: CountingModel, kind: Callable[[Trial], None], seed: int
) -> None:
    trial = Trial(seed, asking, home, model)
    kind(trial)
    said = trial.check()
    if LOG:
        with open(LOG, "a") as log:
            log.write(f"{kind.__name__} {seed}: {said}\n")
