"""`make bare` where it cannot run, and that it knows the tools of the tests."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests import bare, surroundings
from tests.tools import run_with_tools

ROOT = Path(__file__).parents[1]
ESSENTIAL = {"bash", "dash", "sh", "xargs"}  # every Debian has them


@pytest.mark.slow
@pytest.mark.parametrize(("ci", "status", "word"), [("", 0, "skipped"), ("true", 1, "FAILED")])
def test_without_what_it_needs(tmp_path: Path, ci: str, status: int, word: str) -> None:
    done = run_with_tools(tmp_path, "tests.bare", ci=ci)
    assert done.returncode == status
    assert done.stderr.startswith(f"make bare: {word}, ")
    assert len(done.stderr.splitlines()) == 1


def test_each_tool_that_a_test_needs_can_be_seen_and_can_be_broken() -> None:
    """A tool that `PROGRAMS` leaves out would be missing everywhere, and its tests skipped."""
    needed = {
        name
        for path in (ROOT / "tests").rglob("*.py")
        for name in re.findall(r'need_tool\("([\w-]+)"\)', path.read_text(encoding="utf-8"))
    }
    assert len(needed) > 15
    assert needed <= set(surroundings.PROGRAMS.split())
    assert needed <= {*bare.FAILING, *bare.USELESS, *ESSENTIAL}
