"""Many creates at once, each in a separate process with a separate service."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from rebyte_cli import cli
from tests.conftest import Done
from tests.forks import run_forks

COUNT = int(os.environ.get("REBYTE_TEST_CREATES", "40"))


def create(number: int) -> None:
    """Run the command; fails unless it succeeds."""
    words = ["-P", "local", "create", f"Task {number}", "-q", "-o", "id"]
    status = cli.run(words)
    assert status == 0, status


@pytest.mark.slow
def test_many_creates_at_once(home: Path, local: Callable[..., Done]) -> None:
    done = run_forks(create, COUNT)
    assert (done.returncode, done.stderr) == (0, "")
    ids = done.stdout.split()
    assert len(set(ids)) == len(ids) == COUNT
    listed = local("list", "--all", "-o", "id", "-q").out.split()
    assert sorted(listed) == sorted(ids)
    # The history lost none either: the oldest answers, and there is none before it.
    assert local("get", f"@{COUNT}", "-o", "id", "-q").out.strip() in ids
    assert local("get", f"@{COUNT + 1}", "-q").status == 4
