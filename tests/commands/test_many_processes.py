"""Many creates at once, each in a separate process with a separate service."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from tests.conftest import Done

COUNT = int(os.environ.get("REBYTE_TEST_CREATES", "60"))
# The processes are forked from one that has imported everything, which saves that many
# starts of Python and makes them meet all the more closely.
FORKS = f"""
import gc, importlib, os, pkgutil, sys
import requests, sqlite3, werkzeug.serving, werkzeug.wrappers, werkzeug.routing
import rebyte_cli
for module in pkgutil.walk_packages(rebyte_cli.__path__, "rebyte_cli."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
gc.freeze()
children = []
for number in range({COUNT}):
    child = os.fork()
    if child == 0:
        words = ["-P", "local", "create", f"Task {{number}}", "-q", "-o", "id"]
        status = rebyte_cli.cli.run(words)
        sys.stdout.flush()
        os._exit(status)
    children.append(child)
statuses = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
sys.exit(sum(1 for status in statuses if status))
"""


def test_many_creates_at_once(home: Path, local: Callable[..., Done]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FORKS],
        capture_output=True,
        text=True,
        env=os.environ,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    ids = done.stdout.split()
    assert len(set(ids)) == len(ids) == COUNT
    listed = local("list", "--all", "-o", "id", "-q").out.split()
    assert sorted(listed) == sorted(ids)
    # The history lost none either: the oldest answers, and there is none before it.
    assert local("get", f"@{COUNT}", "-o", "id", "-q").out.strip() in ids
    assert local("get", f"@{COUNT + 1}", "-q").status == 4
