"""What a user's type checker finds in code that uses the library: a wrong key, and nothing else."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import need_tool

USER_CODE = """\
from collections.abc import Iterator
from rebyte_cli import OutcomeUnknown, QuestionAsked, RebyteClient, StreamEvent, Task, WaitTimeout

client = RebyteClient("rbk_x")
task = client.get_task("t1")
print(task["id"].upper(), task.get("title"), task["status"])
print(task["idd"])  # wrong
for row in client.iter_tasks():
    print(row["id"], row.get("createdAt"))
    print(row["status"])  # wrong: rows of a list have none
print(client.create_task("p")["id"], client.follow_up("t", "p")["promptId"])
print(client.create_task("p")["taskId"])  # wrong
print(client.list_webhooks()[0]["urls"])  # wrong
print(client.upload_file("a")["filename"], client.credits().get("balance"))
print(client.create_task("p", files=[client.upload_file("a")])["id"])
print(client.wait_for_task("t1")["status"], client.get_computer("c")["id"])
def finished(task: Task) -> Task:
    events: Iterator[StreamEvent] = client.stream_events(task["id"], timeout=60)
    print([event.name for event in events])
    try:
        return client.wait_for_task(task["id"], on_question="raise")
    except QuestionAsked as asked:
        print(asked.question["options"], asked.hint, asked.task["id"])
    except WaitTimeout as late:
        print(late.pending)
    except OutcomeUnknown as unknown:
        print(unknown.candidates)
    return client.wait_for_task(task["id"], on_question="ask")  # wrong
"""
WRONG = [number for number, line in enumerate(USER_CODE.splitlines(), 1) if "# wrong" in line]

pytestmark = pytest.mark.slow  # whole type checkers run


def errors(command: list[str], folder: Path) -> list[int]:
    """The lines that a type checker complains about."""
    (folder / "user_code.py").write_text(USER_CODE)
    done = subprocess.run(
        [*command, "user_code.py"], cwd=folder, capture_output=True, text=True, timeout=100
    )
    found = re.findall(r"user_code\.py:(\d+)(?::\d+)?(?:: | - )error", done.stdout)
    assert found, done.stdout + done.stderr
    return sorted({int(number) for number in found})


def test_mypy_finds_a_wrong_key(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file=", "--cache-dir", ".cache"]
    assert errors(command, tmp_path) == WRONG


def test_pyright_finds_a_wrong_key(tmp_path: Path) -> None:
    pyright = need_tool(str(Path(sys.executable).with_name("basedpyright")))
    command = [pyright, "--level", "error", "--pythonpath", sys.executable]
    assert errors(command, tmp_path) == WRONG
