"""`make bench`: what rebyte costs here, beside what it is to reach and what others take.

    N x    CPU time (user and system) of the whole process, as a multiple of what `python -c pass`
           of the same environment takes: the median of the ratios of paired runs. That holds
           from machine to machine and while others use this one; milliseconds, which stand
           beside it, do not.
    MiB    the most memory that the process had, as the system reports it

The wheel is built and installed into a clean environment under .venv/bench. Servers are threads
of this process on loopback. Programs beside it are measured in the same run where they are
installed. Nothing fails when a target is missed; tests/test_imports.py keeps what makes most of
the difference.
"""

from __future__ import annotations

import multiprocessing
import platform
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from types import ModuleType

from . import agents, environment, gateway, history, lists, many, service, start, uploads
from .measure import NOTHING, run

WIDTH = 52
_fork = multiprocessing.get_context("fork")


def main() -> None:
    """Print the table, row by row as it is measured."""
    begun = time.monotonic()
    environment.ready()
    print((__doc__ or "").partition("\n\n")[2])
    with tempfile.TemporaryDirectory() as folder:
        env = environment.variables(Path(folder))
        bare = median(run(NOTHING, env).cpu for _ in range(15))
        print(f"Python {platform.python_version()}, `python -c pass`: {1000 * bare:.1f} ms of CPU")
        print(f"\n{'':{WIDTH}}{'measured':28}to reach", flush=True)
        for section in (start, history, uploads, lists, service, agents, gateway, many):
            home = Path(folder) / section.__name__  # so that none meets the history of another
            home.mkdir()
            # Memory is measured only above what the measuring process has used itself.
            process = _fork.Process(target=_print, args=(section, home))
            process.start()
            process.join()
            if process.exitcode:
                sys.exit(1)
    print(f"\nin {time.monotonic() - begun:.0f} s")


def _print(section: ModuleType, home: Path) -> None:
    for row in section.rows(home):
        line = f"{row.what:{WIDTH}}{row.figure:28}{row.target:10}{row.beside}"
        print(line.rstrip(), flush=True)


if __name__ == "__main__":
    main()
