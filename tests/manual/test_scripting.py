"""A script as a user would write it, under the strictest settings of bash, and portable to sh."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from rebyte_cli.config.credentials import LOCAL_KEY
from rebyte_cli.local.local_service import Service
from tests.conftest import need_tool
from tests.fork_server import commands

SCRIPT = Path(__file__).parents[1] / "scripts" / "forty_lines.sh"


def test_the_script_has_forty_lines_and_no_other_tools() -> None:
    text = SCRIPT.read_text(encoding="utf-8")
    assert len(text.splitlines()) == 40
    code = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
    for word in ("sleep", "grep", "sed", "awk", "cut", "python", "curl"):
        assert word not in code.split()


def test_any_shell_can_read_the_script() -> None:
    """What it does is shown under bash; nothing in it is peculiar to bash."""
    for checker in (["dash", "-n"], ["shellcheck", "--shell=dash"]):
        need_tool(checker[0])
        done = subprocess.run([*checker, SCRIPT], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.slow
def test_forty_lines_do_the_whole_job(home: Path) -> None:
    for tool in ("jq", "bash"):
        need_tool(tool)
    path = f"{commands()}{os.pathsep}{os.environ['PATH']}"
    with Service(home / "served") as service:
        done = subprocess.run(
            ["bash", "-euo", "pipefail", str(SCRIPT), str(home / "work")],
            capture_output=True,
            text=True,
            env={
                **os.environ,
                "PATH": path,
                "REBYTE_API_URL": service.base_url,
                "REBYTE_API_KEY": LOCAL_KEY,
                "REBYTE_STATE_DIR": str(home / "state"),
            },
            timeout=300,
            check=False,
        )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    check(home / "work")


def check(folder: Path) -> None:
    """Check what the script left: ten results, two of them repaired, and an empty service."""

    def lines(name: str) -> list[str]:
        return (folder / name).read_text(encoding="utf-8").splitlines()

    ids = lines("ids")
    assert len(set(ids)) == 10
    assert lines("status") == ["10"]
    assert sorted(lines("failed")) == sorted([ids[3], ids[7]])
    assert len(lines("errors")) == 2
    mended = [json.loads(line) for line in lines("second.jsonl")]
    assert {task["id"] for task in mended} == {ids[3], ids[7]}
    for task in mended:
        assert [prompt["status"] for prompt in task["prompts"]] == ["failed", "succeeded"]
    assert sorted(file.stem for file in (folder / "results").iterdir()) == sorted(ids)
    assert "chapter 4" in (folder / "results" / f"{ids[4]}.txt").read_text(encoding="utf-8")
    assert "do not fail" in (folder / "results" / f"{ids[3]}.txt").read_text(encoding="utf-8")
    assert sorted(lines("deleted")) == sorted(ids)
    assert lines("empty") == ["true"]
