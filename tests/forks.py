"""Many processes that do the same at the same moment, forked from one that has the imports.

`run_forks` starts `python -m tests.forks MODULE FUNCTION COUNT [ARGUMENT…]`, and each child calls
`FUNCTION(number, *arguments)`. Starting Python for each child would cost more and spread them out.
"""

from __future__ import annotations

import gc
import importlib
import os
import pkgutil
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import rebyte_cli

ROOT = Path(__file__).parents[1]


def run_forks(
    function: Callable[..., object], count: int, *arguments: str | Path
) -> subprocess.CompletedProcess[str]:
    """Call a function of a module in `count` processes; the status is how many of them failed."""
    where = (function.__module__, function.__name__, str(count), *map(str, arguments))
    return subprocess.run(
        [sys.executable, "-m", "tests.forks", *where],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def main(module: str, name: str, count: str, *arguments: str) -> int:
    function = getattr(importlib.import_module(module), name)
    # What the children would import lazily, each for itself.
    for found in pkgutil.walk_packages(rebyte_cli.__path__, "rebyte_cli."):
        if not found.name.endswith("__main__") and ".mcp" not in found.name:
            importlib.import_module(found.name)
    importlib.import_module("requests")
    gc.freeze()
    waiting, go = os.pipe()
    children = [_child(function, number, arguments, waiting, go) for number in range(int(count))]
    os.close(go)  # all start together
    statuses = [os.waitpid(child, 0)[1] for child in children]
    return sum(1 for status in statuses if status)


def _child(
    function: Callable[..., object], number: int, arguments: tuple[str, ...], waiting: int, go: int
) -> int:
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        os.close(go)
        os.read(waiting, 1)
        function(number, *arguments)
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
