"""`make agents` on a machine that lacks something: it says so, and fails only in CI."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.tools import run_with_tools


@pytest.mark.parametrize(("ci", "status", "word"), [("", 0, "skipped"), ("true", 1, "FAILED")])
def test_without_npm(tmp_path: Path, ci: str, status: int, word: str) -> None:
    git = shutil.which("git")
    assert git is not None
    (tmp_path / "git").symlink_to(git)
    done = run_with_tools(tmp_path, "tests.agents", ci=ci)
    assert done.returncode == status
    assert done.stderr == f"make agents: {word}, not installed: npm, node, bwrap, strace\n"
