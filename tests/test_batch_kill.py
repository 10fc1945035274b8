"""kill -9 at random moments, again and again: every line still makes exactly one task."""

from __future__ import annotations

import json
import os
import random
import subprocess
import time
from pathlib import Path

import pytest

from .conftest import COMMAND
from .farm import Farm, lines_of

# The suite has a taste of it; REBYTE_TEST_KILLS=20 is the whole of it.
RUNS = int(os.environ.get("REBYTE_TEST_KILLS", "1"))
LINES = 200 if RUNS > 1 else 60
KILLS = 3


@pytest.mark.parametrize("run", range(RUNS))
def test_case_50_kill_9_and_run_again_until_done(run: int, home: Path) -> None:
    file = home / "tasks.jsonl"
    file.write_text("".join(f'{{"prompt": "Task {n}", "key": "k{n}"}}\n' for n in range(LINES)))
    luck = random.Random(run)
    # The farm has a task at once or never, so a second is long enough to know that there is none.
    again = [*COMMAND, "batch", str(file), "--jobs", "8", "--resend-after", "1s"]
    with Farm(delay=0.05, cuts=0.02, run=0.3) as farm:
        environment = {**os.environ, **farm.env}
        for _ in range(KILLS):
            before = sum(farm.made.values())
            with subprocess.Popen(
                again, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            ) as process:
                # At any moment from the first import to some way into the work.
                time.sleep(luck.uniform(0.05, 1.2) if luck.random() < 0.7 else 0.0)
                process.kill()
            assert before <= sum(farm.made.values()) <= LINES
        for _ in range(4):  # a lost create may need another run
            done = subprocess.run(again, env=environment, capture_output=True, check=False)
            if done.returncode != 6:
                break
        assert done.returncode == 0, done.stderr.decode()
        rows = lines_of(done.stdout.decode())
        assert sorted(row["key"] for row in rows) == sorted(f"k{n}" for n in range(LINES))
        assert {row["status"] for row in rows} == {"completed"}
        assert len({row["id"] for row in rows}) == LINES
        for row in rows:  # each line has its own task, not that of another
            assert farm.tasks[row["id"]]["prompt"] == f"Task {row['key'][1:]}"
        assert dict(farm.made) == {f"Task {n}": 1 for n in range(LINES)}
        journal = (home / "tasks.jsonl.journal").read_text()
        assert all(json.loads(line) for line in journal.splitlines())
