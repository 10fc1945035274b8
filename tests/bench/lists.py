"""The list: one call, ten thousand rows as they arrive, ten thousand rows as a table."""

from __future__ import annotations

import os
import pty
import select
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.servers import Answer, Line, RawServer, Request, json_reply

from .environment import PYTHON, REBYTE, variables
from .measure import Row, Run, drain, finished, growth, ratio, run
from .rendering import COUNT, task

ENDED = "2026-02-09T10:15:00.000Z"


class Pages:
    """The list of ten thousand tasks; looks whether `out` has something when page two is asked.

    One task in three is running, or with `running` all or none. Each answer takes `delay` seconds.
    """

    def __init__(self, *, running: bool | None = None, delay: float = 0.0) -> None:
        self.out: Any = None  # a pipe that is not read before `asked`
        self.early = False
        self.asked = threading.Event()
        self.times: list[float] = []  # when requests came in
        self._running = running
        self._delay = delay

    def __call__(self, request: Request) -> Answer:
        self.times.append(time.monotonic())
        answer = self._answer(request)

        def later(line: Line) -> None:
            line.wait(self._delay)
            line.send(answer)

        return later if self._delay else answer

    def _answer(self, request: Request) -> bytes:
        path = urlsplit(request.path).path
        if path.endswith("/content"):
            return json_reply({"prompts": [{"id": "p1", "status": "running", "events": []}]})
        if (number := path.rpartition("-")[2]).isdigit():
            found = self._task(int(number))
            return json_reply(
                {**found, "status": "completed" if found["completedAt"] else "running"}
            )
        query = {
            name: int(found[0]) for name, found in parse_qs(urlsplit(request.path).query).items()
        }
        limit, offset = query["limit"], query["offset"]
        if offset and self.out is not None and not self.asked.is_set():
            self.early = bool(select.select([self.out], [], [], 0)[0])
            self.asked.set()
        found = [self._task(number) for number in range(offset, min(offset + limit, COUNT))]
        return json_reply({"data": found, "total": COUNT, "limit": limit, "offset": offset})

    def _task(self, number: int) -> dict[str, Any]:
        found = task(number)
        ends = found["completedAt"] is not None if self._running is None else not self._running
        return {**found, "completedAt": ENDED if ends else None}


def rows(home: Path) -> Iterator[Row]:
    """One row per way to list."""
    listing = [REBYTE, "list", "-o", "json"]
    with RawServer(Pages(running=False)) as server:
        env = variables(home, REBYTE_API_KEY="rbk_bench", REBYTE_API_URL=server.base_url)
        yield Row("rebyte list -o json (HTTP, key in a variable)", ratio(listing, env), "9.8 x")
        yield from _peers(env, f"{server.base_url}/tasks?limit=50&offset=0")
        at_terminal = ratio([REBYTE, "list"], env, terminal=True)
        yield Row("the same as a table on a terminal", at_terminal, "13.5 x")
    pages = Pages()
    with RawServer(pages) as server:
        env = variables(home, REBYTE_API_KEY="rbk_bench", REBYTE_API_URL=server.base_url)
        yield Row("the same while 17 of 50 tasks run", ratio(listing, env))
        yield from _all(env, pages)
    yield from _round_trips(home)
    yield from _watch(home)
    yield Row("10,000 rows as a table: rendering", f"{_seconds('rebyte', env):.3f} s", "0.1 s")
    yield Row("  rich.table", f"{_seconds('rich', env):.3f} s")


def _peers(env: dict[str, str], url: str) -> Iterator[Row]:
    """The same GET by others. A vendor's client is often argparse, urllib and json."""
    urllib = [PYTHON, str(Path(__file__).with_name("urllib_list.py")), "list", "--limit", "50"]
    yield Row("  argparse, urllib and json", ratio(urllib, env))
    for words in (["curl", "-s", url], ["http", "--ignore-stdin", "GET", url]):
        if shutil.which(words[0]):
            yield Row(f"  {words[0]}, the same GET", ratio(words, env, 7))


def _round_trips(home: Path) -> Iterator[Row]:
    """How many answers of a list come one after the other."""
    delay = 0.5
    pages = Pages(running=False, delay=delay)
    with RawServer(pages) as server:
        env = variables(home / "trips", REBYTE_API_KEY="rbk_bench", REBYTE_API_URL=server.base_url)
        for what, target in (("the first list of 50 ended tasks", "8"), ("  again", "1")):
            pages.times.clear()
            run([REBYTE, "list"], env)
            trips = round((max(pages.times) - min(pages.times)) / delay) + 1
            figure = f"{trips} round trips, {len(pages.times)} requests"
            yield Row(what, figure, target)


def _watch(home: Path) -> Iterator[Row]:
    """What `--watch` of a hundred runs costs in a long run: two runs, less the shorter one."""
    pages = Pages(running=True)
    with RawServer(pages) as server:
        env = variables(home, REBYTE_API_KEY="rbk_bench", REBYTE_API_URL=server.base_url)
        short, few = _watched(env, pages, 3)
        long, many = _watched(env, pages, 13)
    figure = f"{(many - few) / 10:.1f} requests a second"
    yield Row("rebyte list --watch on 100 running tasks", figure, "2")
    yield Row("  CPU time", f"{10 * (long.cpu - short.cpu):.1f} % of a core", "5 %")


def _watched(env: dict[str, str], pages: Pages, seconds: float) -> tuple[Run, int]:
    """A watch that is interrupted so many seconds after its first request, and its requests."""
    pages.times.clear()
    leader, follower = pty.openpty()
    begun = time.perf_counter()
    watch = [REBYTE, "list", "--watch"]
    process = subprocess.Popen(watch, env=env, stdin=follower, stdout=follower, stderr=follower)
    os.close(follower)
    threading.Thread(target=drain, args=(leader,), daemon=True).start()
    while not pages.times:
        time.sleep(0.01)
    time.sleep(seconds)
    process.send_signal(signal.SIGINT)
    return finished(process, begun, status=130), len(pages.times)


def _all(env: dict[str, str], pages: Pages) -> Iterator[Row]:
    one = [run([REBYTE, "list", "--limit", "100", "-o", "jsonl"], env) for _ in range(3)]
    begun = time.perf_counter()
    command = [REBYTE, "list", "--all", "-o", "jsonl"]
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        pages.out = process.stdout
        pages.asked.wait(60)
        count = sum(1 for _ in process.stdout)
        whole = finished(process, begun)
    assert count == COUNT
    figure = f"{growth(one, whole)}  {whole.seconds:.1f} s"
    yield Row("rebyte list --all -o jsonl, 10,000 rows: over 100", figure, "8 MiB")
    yield Row(
        "  first line out before page two is asked for", "yes" if pages.early else "no", "yes"
    )


def _seconds(function: str, env: dict[str, str]) -> float:
    """What a function of `rendering` measures in the measured environment."""
    root = str(Path(__file__).parents[2])
    # At the end of the path: the package is to come from the wheel.
    code = f"import sys; sys.path.append({root!r})\n"
    code += f"from tests.bench import rendering; print(rendering.{function}())"
    done = subprocess.run([PYTHON, "-c", code], env=env, cwd="/", check=True, capture_output=True)
    return float(done.stdout)
