"""The list: one call, ten thousand rows as they arrive, ten thousand rows as a table."""

from __future__ import annotations

import select
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.servers import RawServer, Request, json_reply

from .environment import PYTHON, REBYTE, variables
from .measure import Row, finished, growth, ratio, run
from .rendering import COUNT, task


class Pages:
    """The list of ten thousand tasks; looks whether `out` has something when page two is asked."""

    def __init__(self) -> None:
        self.out: Any = None  # a pipe that is not read before `asked`
        self.early = False
        self.asked = threading.Event()

    def __call__(self, request: Request) -> bytes:
        if (number := urlsplit(request.path).path.rpartition("-")[2]).isdigit():
            return json_reply({**task(int(number)), "status": "completed"})
        query = {
            name: int(found[0]) for name, found in parse_qs(urlsplit(request.path).query).items()
        }
        limit, offset = query["limit"], query["offset"]
        if offset and self.out is not None and not self.asked.is_set():
            self.early = bool(select.select([self.out], [], [], 0)[0])
            self.asked.set()
        found = [task(number) for number in range(offset, min(offset + limit, COUNT))]
        return json_reply({"data": found, "total": COUNT, "limit": limit, "offset": offset})


def rows(home: Path) -> Iterator[Row]:
    """One row per way to list."""
    pages = Pages()
    with RawServer(pages) as server:
        env = variables(home, REBYTE_API_KEY="rbk_bench", REBYTE_API_URL=server.base_url)
        listing = [REBYTE, "list", "-o", "json"]
        yield Row("rebyte list -o json (HTTP, key in a variable)", ratio(listing, env), "11 x")
        url = f"{server.base_url}/tasks?limit=50&offset=0"
        for words in (["curl", "-s", url], ["http", "--ignore-stdin", "GET", url]):
            if shutil.which(words[0]):
                yield Row(f"  {words[0]}, the same GET", ratio(words, env, 7))
        at_terminal = ratio([REBYTE, "list"], env, terminal=True)
        yield Row("the same as a table on a terminal", at_terminal, "13.5 x")
        yield from _all(env, pages)
    yield Row("10,000 rows as a table: rendering", f"{_seconds('rebyte', env):.3f} s", "0.1 s")
    yield Row("  rich.table", f"{_seconds('rich', env):.3f} s")


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
