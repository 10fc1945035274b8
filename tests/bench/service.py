"""The local service: inside each command, beside a served one, and for many commands at once."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .environment import REBYTE, variables
from .measure import Row, ratio, run

LOCAL = (REBYTE, "-P", "local")
LISTING = (*LOCAL, "list", "-o", "json")
CREATING = (*LOCAL, "create", "Say hello [[run=1ms]]")
AT_ONCE = 200


def rows(home: Path) -> Iterator[Row]:
    """A list and a create with each kind of service, then creates at once."""
    env = variables(home / "carried")
    yield Row("rebyte -P local list -o json", ratio(LISTING, env), "13.5 x")
    yield Row("rebyte -P local create", ratio(CREATING, env), "13.5 x")
    yield from _at_once(env)
    env = variables(home / "served")
    with served(env):
        yield Row("beside a local serve: list -o json", ratio(LISTING, env), "10.8 x")
        yield Row("  create", ratio(CREATING, env), "10.8 x")
        yield from _curls(home, env)


@contextmanager
def served(env: dict[str, str]) -> Iterator[None]:
    """A `local serve` on a free port, while the block runs."""
    words = [REBYTE, "local", "serve", "--port", "0"]
    # Its first line says that it answers.
    with subprocess.Popen(words, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as one:
        assert one.stdout is not None
        one.stdout.readline()
        try:
            yield
        finally:
            one.send_signal(signal.SIGTERM)


def _at_once(env: dict[str, str]) -> Iterator[Row]:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    begun = time.perf_counter()
    creates = [
        subprocess.Popen(CREATING, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for _ in range(AT_ONCE)
    ]
    failed = sum(create.wait() != 0 for create in creates)
    seconds = time.perf_counter() - begun
    now = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = now.ru_utime + now.ru_stime - used.ru_utime - used.ru_stime
    figure = f"{seconds:.1f} s  {1000 * cpu / AT_ONCE:.0f} ms of CPU each"
    target = "20 s" if os.cpu_count() == 2 else ""
    yield Row(f"{AT_ONCE} of these creates at once", figure, target, f"{failed} failed")


def _curls(home: Path, env: dict[str, str]) -> Iterator[Row]:
    """As many creates by curl, which keeps no record and cannot be repeated safely."""
    if not shutil.which("xargs") or not shutil.which("curl"):
        return
    status = [REBYTE, "local", "status", "-o", "json"]
    found = json.loads(subprocess.run(status, env=env, check=True, capture_output=True).stdout)
    numbers = home / "numbers"
    numbers.write_text("".join(f"{number}\n" for number in range(AT_ONCE)))
    curl = ["curl", "-sS", "-o", os.devnull, "-H", "API_KEY: rbk_bench", "--json"]
    curl += ['{"prompt": "Say hello N [[run=1ms]]"}', f"{found['serving']}/tasks"]
    xargs = ["xargs", "-P", str(AT_ONCE), "-I", "N", *curl]
    other = run(xargs, env, stdin=numbers)
    figure = f"{other.seconds:.1f} s  {1000 * other.cpu / AT_ONCE:.0f} ms of CPU each"
    yield Row(f"  xargs -P {AT_ONCE} with curl", figure)
