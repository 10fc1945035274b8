"""Whole processes, measured from outside by what the operating system booked for them."""

from __future__ import annotations

import os
import pty
import resource
import select
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from .environment import PYTHON

NOTHING = (PYTHON, "-c", "pass")
MIB = 1 << 20
_UNIT = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss


class Run(NamedTuple):
    """One finished process. `seconds` by the wall, `cpu` seconds with those of its children,
    `peak` bytes of memory; None where the system would report this process's own."""

    seconds: float
    cpu: float
    peak: int | None


def run(
    command: Sequence[str],
    env: Mapping[str, str],
    *,
    stdin: Path | None = None,
    terminal: bool = False,
) -> Run:
    """Run a command to its end; RuntimeError when it fails. Its output is thrown away."""
    leader, follower = pty.openpty() if terminal else (-1, subprocess.DEVNULL)
    begun = time.perf_counter()
    with open(stdin or os.devnull, "rb") as source:
        process = subprocess.Popen(
            list(command),
            env=dict(env),
            stdin=follower if terminal else source,
            stdout=follower,
            stderr=follower,
        )
    if terminal:
        os.close(follower)
        drain(leader)
    return finished(process, begun)


def finished(process: subprocess.Popen[Any], begun: float, *, status: int = 0) -> Run:
    """Wait for a process that began at `begun` (perf_counter), and read what it used.

    RuntimeError when it ends with another exit status than `status`.
    """
    _, ended, used = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - begun
    process.returncode = os.waitstatus_to_exitcode(ended)
    if process.returncode != status:
        raise RuntimeError(f"status {process.returncode}: {process.args!r}")
    # A process starts with the peak of the one that started it, so a smaller one is not known.
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    peak = used.ru_maxrss * _UNIT if used.ru_maxrss > own else None
    return Run(seconds, used.ru_utime + used.ru_stime, peak)


def run_together(command: Sequence[str], env: Mapping[str, str]) -> Run:
    """As `run`, with the peak of the memory of the process and its children, looked at often.

    What they share is counted once; None where the system does not tell.
    """
    begun, peak = time.perf_counter(), 0
    process = subprocess.Popen(list(command), env=dict(env), stdout=subprocess.DEVNULL)
    while os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        threads = Path(f"/proc/{process.pid}/task").glob("*/children")
        children = " ".join(map(_text, threads)).split()
        peak = max(peak, sum(map(_memory, [str(process.pid), *children])))
        time.sleep(0.1)
    return finished(process, begun)._replace(peak=peak or None)


def _memory(process: str) -> int:
    """Bytes of memory of a process, with its part of what it shares; 0 if it is gone."""
    text = _text(Path(f"/proc/{process}/smaps_rollup"))
    return sum(1024 * int(line.split()[1]) for line in text.splitlines() if line[:4] == "Pss:")


def _text(path: Path) -> str:
    """What the system tells about a process or a thread; nothing if it has just ended."""
    try:
        return path.read_text()
    except OSError:
        return ""


def drain(leader: int) -> None:
    """Read a terminal to its end, and close it."""
    while select.select([leader], [], [], 60)[0]:
        try:
            if not os.read(leader, 65536):
                break
        except OSError:  # how Linux says that the other side was closed
            break
    os.close(leader)


def ratio(command: Sequence[str], env: Mapping[str, str], rounds: int = 15, **how: Any) -> str:
    """`N x`: the median, pair by pair, of the CPU time of a command to that of a bare Python."""
    run(command, env, **how)  # once for the caches
    pairs = [(run(NOTHING, env).cpu, run(command, env, **how)) for _ in range(rounds)]
    times = median(one.cpu / bare for bare, one in pairs)
    wall = median(one.seconds for _, one in pairs)
    return f"{times:5.2f} x  {1000 * wall:4.0f} ms"


def growth(small: Sequence[Run], large: Run) -> str:
    """By how much a large run needs more memory than the small ones."""
    peaks = [one.peak for one in small if one.peak is not None]
    if large.peak is None or not peaks:
        return "?"
    return f"{(large.peak - median(peaks)) / MIB:.1f} MiB"


class Row(NamedTuple):
    """A line of the table: what was done, the figure, what is to be reached, others beside it."""

    what: str
    figure: str
    target: str = ""
    beside: str = ""
