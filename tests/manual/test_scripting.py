"""A script as a user would write it, under the strictest settings of two shells."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

from rebyte_cli.local.server import LOCAL_KEY, Service
from tests.conftest import need_tool

SCRIPT = Path(__file__).parents[1] / "scripts" / "forty_lines.sh"
SHELLS = {"bash": ["bash", "-euo", "pipefail"], "dash": ["dash", "-eu"]}


def test_the_script_is_what_it_says() -> None:
    text = SCRIPT.read_text(encoding="utf-8")
    assert len(text.splitlines()) == 40
    code = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
    for word in ("sleep", "grep", "sed", "awk", "cut", "python", "curl"):
        assert word not in code.split()


def test_forty_lines_do_the_whole_job(home: Path) -> None:
    """Both shells at once, each with its own running service."""
    for tool in ("jq", *SHELLS):
        need_tool(tool)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    with ExitStack() as stack:
        running = {}
        for name, shell in SHELLS.items():
            service = stack.enter_context(Service(home / name / "served"))
            running[name] = subprocess.Popen(
                [*shell, str(SCRIPT), str(home / name / "work")],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env={
                    **os.environ,
                    "PATH": path,
                    "REBYTE_API_URL": service.base_url,
                    "REBYTE_API_KEY": LOCAL_KEY,
                    "REBYTE_STATE_DIR": str(home / name / "state"),
                },
            )
        for name, process in running.items():
            out, err = process.communicate(timeout=120)
            assert (process.returncode, out, err) == (0, "", ""), name
            check(home / name / "work")


def check(folder: Path) -> None:
    """What the script left: ten results, the two that failed mended, nothing on the service."""

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
