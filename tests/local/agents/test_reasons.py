"""Why a run of a program failed, as its user sees it: from the program's stderr to the terminal."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import COMMAND, Done
from tests.terminals import Session

CONFIG = """
[local]
jail = "off"

[local.agents.check]
command = ["sh", "-c", "echo begun; echo 'no key: run check login' >&2; exit 1"]
"""
REASON = "check exited with status 1: no key: run check login"
Run = Callable[..., Done]


@pytest.fixture
def check(rebyte: Run, home: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """The command, with a program that fails as `-x check`."""
    monkeypatch.delenv("REBYTE_LOCAL_AGENTS")
    monkeypatch.setenv("REBYTE_PROFILE", "local")
    (home / ".config/rebyte").mkdir(parents=True)
    (home / ".config/rebyte/config.toml").write_text(CONFIG)
    return rebyte


def error_of(done: Done) -> dict[str, Any]:
    """The last error on stderr, which is JSON."""
    return dict(json.loads(done.err.splitlines()[-1])["error"])


@pytest.mark.slow
def test_each_command_that_waits_says_why(check: Run) -> None:
    created = check("create", "Go", "-x", "check", "--wait", "-o", "json")
    failed = f"task {created.json['id']} failed: {REASON}"
    told = {"code": "task_failed", "message": failed, "status": None, "hint": None, "exit": 10}
    assert (created.status, error_of(created)) == (10, told)
    for words in (
        ["wait", "@last", "-o", "id"],
        ["follow-up", "@last", "Again", "--wait", "--fields", "status", "-o", "csv"],
        ["follow-up", "@last", "Again", "--stream"],
        ["result", "@last", "--wait"],
    ):
        done = check(*words)
        assert done.status == 10, words
        assert f"Error: {failed}" in done.err.splitlines(), words


@pytest.mark.slow
def test_a_batch_says_it_for_each_line_and_once_for_all(check: Run, home: Path) -> None:
    """In a table of 80 columns too, which has no room for the id twice."""
    (home / "t.txt").write_text("One\nTwo\n")
    words = ["batch", str(home / "t.txt"), "--text", "-x", "check"]
    session = Session([*COMMAND, *words])
    assert session.finish() == 10
    table = [line for line in session.everything if "  failed  " in line]
    assert len(table) == 2
    assert all("  check exited with status 1" in line for line in table)
    assert f"2 lines failed: {REASON}" in " ".join(" ".join(session.everything).split())
    rows = [json.loads(line) for line in check(*words).out.splitlines()]
    assert [row["error"]["message"] for row in rows] == [
        f"task {row['id']} failed: {REASON}" for row in rows
    ]


@pytest.mark.slow
@pytest.mark.parametrize(
    "printed",
    [
        r"\033[31mno key: run check login\033[0m",
        r"no key: \033]8;;https://x.example\007run check login\033]8;;\007\n\033[0m",
        r"\033[2K\033[1Gno key: run check \033(Blogin\n\033[?25h",
    ],
)
def test_a_reason_has_no_colours(check: Run, home: Path, printed: str) -> None:
    """Several agents colour what they print on stderr, into a pipe too."""
    command = json.dumps(["sh", "-c", f"printf '{printed}' >&2; exit 1"])
    config = home / ".config/rebyte/config.toml"
    config.write_text(f'[local]\njail = "off"\n\n[local.agents.check]\ncommand = {command}\n')
    done = check("create", "Go", "-x", "check", "--wait", "-o", "json")
    assert error_of(done)["message"] == f"task {done.json['id']} failed: {REASON}"
    assert check("get", "@last").json["finalResult"] == REASON
