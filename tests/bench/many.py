"""Many tasks: waiting for a thousand, and making a thousand."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

from tests.farm import Farm

from .environment import REBYTE, variables
from .measure import MIB, Row, finished, run, run_together

COUNT = 1000
LOCAL_COUNT = 10_000
DELAY, JOBS = 0.05, 32
IDEAL = -(-COUNT // JOBS) * DELAY  # seconds: so many times as many as can be under way


def rows(home: Path) -> Iterator[Row]:
    """Waiting, then creating."""
    yield from _wait(home)
    yield from _batch(home)
    yield from _local_batch(home)


def _wait(home: Path) -> Iterator[Row]:
    with Farm() as farm:
        begun = time.time()
        for number in range(COUNT):
            name = f"task-{number:05d}"
            # One in ten ends in the first seconds, one after the other; the rest when that was.
            farm.tasks[name] = {
                "id": name,
                "url": f"https://app.example/run/{name}",
                "prompt": "Wait for it",
                "createdAt": "2026-02-09T10:05:00.000Z",
                "ends": begun + (8 if number % 10 else 2 + number / 250),
            }
        late: dict[str, float] = {}
        command = [REBYTE, "wait", "-o", "jsonl", "-q", *farm.tasks]
        env = variables(home, **farm.env)
        with subprocess.Popen(command, env=env, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            for line in process.stdout:
                name = json.loads(line)["id"]
                late[name] = time.time() - farm.tasks[name]["ends"]
            finished(process, time.perf_counter())
        paths = [request.path for request in farm.server.requests]
    assert len(late) == COUNT
    rounds = sum("offset=0" in path for path in paths)
    # Each task is read once when it has ended, whatever else is asked.
    figure = f"{(len(paths) - COUNT) / rounds:.1f} a round"
    yield Row("rebyte wait on 1,000 tasks: requests", figure, "12", "1,000 when asked one by one")
    latest = max(list(late.values())[: COUNT // 10])
    yield Row("  the end of one is noticed after at most", f"{latest:.2f} s", "1 s")


def _batch(home: Path) -> Iterator[Row]:
    lines = home / "prompts.txt"
    lines.write_text("".join(f"Fix bug number {number}\n" for number in range(COUNT)))
    words = ["batch", str(lines), "--text", "--no-wait", "--jobs", str(JOBS), "-q"]
    runs = []
    for _ in range(5):
        (home / "prompts.txt.journal").unlink(missing_ok=True)
        with Farm(delay=DELAY) as farm:
            runs.append(run([REBYTE, *words], variables(home, **farm.env)))
            assert len(farm.made) == COUNT
    wall = median(one.seconds for one in runs)
    peaks = [one.peak / MIB for one in runs if one.peak is not None]
    what = f"rebyte batch, 1,000 lines of 50 ms, --jobs {JOBS}"
    yield Row(what, f"{wall / IDEAL:5.2f} x ideal  {wall:.2f} s", "1.1 x")
    yield Row("  CPU time", f"{median(one.cpu for one in runs):.2f} s", "0.85 s")
    yield Row("  memory", f"{median(peaks):.0f} MiB" if peaks else "?", "70 MiB")
    if shutil.which("xargs") and shutil.which("curl"):
        yield from _xargs(home)


def _local_batch(home: Path) -> Iterator[Row]:
    """Client and service are two processes, so both cores are busy."""
    lines = home / "many.txt"
    lines.write_text("".join(f"Fix bug number {n} [[run=0s]]\n" for n in range(LOCAL_COUNT)))
    words = ["-P", "local", "batch", str(lines), "--text", "--jobs", str(JOBS), "-q"]
    one = run_together([REBYTE, *words], variables(home))
    what = f"rebyte -P local batch, {LOCAL_COUNT:,} lines"
    yield Row(what, f"{one.seconds:.1f} s  ({one.cpu:.1f} s CPU)", "20 s")
    yield Row("  memory of both", f"{one.peak / MIB:.0f} MiB" if one.peak else "?", "80 MiB")


def _xargs(home: Path) -> Iterator[Row]:
    numbers = home / "numbers"
    numbers.write_text("".join(f"{number}\n" for number in range(COUNT)))
    with Farm(delay=DELAY) as farm:
        curl = ["curl", "-sS", "-o", str(home / "answer"), "-H", "API_KEY: rbk_bench"]
        curl += ["--json", '{"prompt": "Fix bug number N"}', f"{farm.server.base_url}/tasks"]
        xargs = ["xargs", "-P", str(JOBS), "-I", "N", *curl]
        other = run(xargs, variables(home), stdin=numbers)
        assert len(farm.made) == COUNT
    figure = f"{other.seconds / IDEAL:5.2f} x ideal  {other.seconds:.2f} s"
    yield Row("  xargs -P 32 with curl", figure, "", f"{other.cpu:.1f} s of CPU time")
