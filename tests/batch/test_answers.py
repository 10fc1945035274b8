"""The answers in the report of a batch: read when the tasks have ended, and not at any price."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rebyte_cli.batch.report import read_answers
from rebyte_cli.errors import NetworkError
from tests.conftest import Done
from tests.farm import Farm


class Answering:
    """A client whose task `bad` cannot be read, and whose task `lost` meets a network fault."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.transport = self

    def limit(self) -> float:
        """The usual time limit of a call, in seconds."""
        return 60.0

    def get_task(self, task_id: str, timeout: float | None = None) -> dict[str, Any]:
        self.asked.append(task_id)
        if task_id == "lost":
            raise NetworkError("no route")
        status = "running" if task_id == "bad" else "completed"
        return {"id": task_id, "status": status, "finalResult": f"Answer {task_id}"}


def read(client: Answering, *ids: str | None) -> tuple[list[str | None], list[str]]:
    notes: list[str] = []
    answers = list(read_answers(client, ids, notes.append))  # type: ignore[arg-type]
    return answers, notes


def test_answers_come_in_the_order_of_the_lines() -> None:
    answers, notes = read(Answering(), "a", None, "bad", "b", None)
    assert answers == ["Answer a", None, None, "Answer b", None]
    assert notes == []


def test_a_fault_of_the_network_ends_the_reading() -> None:
    client = Answering()
    answers, notes = read(client, "a", "lost", None, *(f"t{n}" for n in range(100)))
    assert answers == ["Answer a", *([None] * 102)]
    assert notes == ["The report lacks answers: lost: no route"]
    assert len(client.asked) < 50


def test_a_report_holds_prompts_and_answers(inside_local: Callable[..., Done], home: Path) -> None:
    lines = [{"prompt": "Say one [[run=0s]]", "key": "a"}, {"prompt": "Say two [[run=0s]]"}]
    (home / "t.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    done = inside_local("-P", "local", "batch", "t.jsonl", "--report", "r.html")
    assert done.status == 0
    report = (home / "r.html").read_text()
    assert report.count("<h3>Prompt</h3>") == report.count("<h3>Answer</h3>") == 2
    assert "a: Say one" in report
    assert "This is a simulation" in report


def test_the_report_of_status_asks_the_service_nothing(
    inside: Callable[..., Done], home: Path
) -> None:
    (home / "t.txt").write_text("Say one\n")
    with Farm() as farm:
        inside("batch", "t.txt", "--text", "-q", env=farm.env)
        calls = farm.calls.total()
        inside("batch", "t.txt", "--text", "--status", "--report", "r.md", env=farm.env)
        assert farm.calls.total() == calls
    assert "```text\nSay one\n```" in (home / "r.md").read_text()
