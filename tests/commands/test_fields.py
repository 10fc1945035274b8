"""Formats and `--fields`: each format with no, one and many records; what is refused in time."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Done

Run = Callable[..., Done]
COLUMNS = ["id", "workspaceId", "url", "title", "executor", "model"]
COLUMNS += ["createdAt", "completedAt", "status"]


def read(form: str, out: str) -> list[dict[str, Any]]:
    """The records of what a format printed, as a program would read them."""
    if form == "json":
        found: list[dict[str, Any]] = json.loads(out)["data"]
        return found
    if form == "jsonl":
        return [json.loads(line) for line in out.splitlines()]
    if form == "id":
        return [{"id": line} for line in out.splitlines()]
    dialect = "excel" if form == "csv" else "excel-tab"
    return list(csv.DictReader(io.StringIO(out, newline=""), dialect=dialect))


@pytest.mark.parametrize("count", [0, 1, 3])
def test_every_format_of_a_list(inside_local: Run, count: int) -> None:
    made = [inside_local("create", f"Task {n}").json["id"] for n in range(count)][::-1]
    for form in ("json", "jsonl", "csv", "tsv", "id"):
        for words in (["list"], ["list", "--all"], ["list", "--fields", "id"]):
            done = inside_local(*words, "-o", form)
            assert (done.status, done.err) == (0, ""), (form, words)
            assert [row["id"] for row in read(form, done.out)] == made, (form, words)
    table = inside_local("list", "-o", "table")
    assert [line.split()[0] for line in table.out.splitlines()[1:]] == made
    assert table.err == ("" if count else "no tasks\n")


@pytest.mark.parametrize("count", [0, 1, 3])
def test_every_format_of_several_tasks(inside_local: Run, count: int) -> None:
    """One document after another; no reference at all is no record and no error."""
    made = [inside_local("create", f"Task {n}").json["id"] for n in range(count)]
    ids = "".join(f"{task}\n" for task in made)
    assert [task["id"] for task in inside_local("get", "-", stdin=ids).documents] == made
    for form in ("jsonl", "csv", "tsv", "id"):
        done = inside_local("get", "-", "-o", form, stdin=ids)
        assert done.status == 0
        assert [row["id"] for row in read(form, done.out)] == made, form
        picked = inside_local("get", "-", "-o", form, "--fields", "status,id", stdin=ids)
        assert [row["id"] for row in read(form, picked.out)] == made, form


def test_an_empty_list_still_has_its_header(inside_local: Run) -> None:
    assert inside_local("list", "-o", "csv").out == ",".join(COLUMNS) + "\n"
    assert inside_local("list", "-o", "tsv").out == "\t".join(COLUMNS) + "\n"
    assert inside_local("list", "-o", "csv", "--fields", "title,id").out == "title,id\n"


def test_fields_pick_and_order(inside_local: Run) -> None:
    task = inside_local("create", "Say, hello\tthere [[run=1h]]").json["id"]
    asked = ["--fields", "title,finalResult,id"]
    row = json.loads(inside_local("get", task, "-o", "jsonl", *asked).out)
    assert list(row.items()) == [("title", row["title"]), ("finalResult", None), ("id", task)]
    assert inside_local("get", task, "-o", "csv", *asked).out.splitlines()[0] == (
        "title,finalResult,id"
    )
    assert inside_local("get", task, "-o", "id", *asked).out == task + "\n"


def test_the_output_variable_and_profile_are_beaten_by_the_option(
    inside_local: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = inside_local("create", "x").json["id"]
    inside_local("profile", "set", "default", "output=tsv")
    assert inside_local("list", "--fields", "id").out == f"id\n{task}\n"
    monkeypatch.setenv("REBYTE_OUTPUT", "id")
    assert inside_local("list").out == f"{task}\n"
    assert inside_local("list", "-o", "jsonl", "--fields", "id").out == f'{{"id":"{task}"}}\n'
    assert inside_local("list", "-o", "auto").json["data"][0]["id"] == task
    monkeypatch.setenv("REBYTE_OUTPUT", "xml")
    refused = inside_local("list")
    assert refused.status == 2
    assert "REBYTE_OUTPUT" in refused.err
    assert inside_local("list", "-o", "id").status == 0


@pytest.mark.parametrize(
    "words",
    [
        ["create", "x", "--fields", "nope"],
        ["create", "x", "--wait", "--fields", "nope"],
        ["create", "x", "--stream", "--fields", "id"],
        ["create", "x", "--stream", "-o", "jsonl", "--fields", "title"],
        ["create", "x", "--stream", "-o", "json", "--fields", "seq"],
        ["follow-up", "@1", "x", "--fields", "id"],
        ["follow-up", "@1", "x", "--wait", "--fields", "promptId"],
        ["follow-up", "@1", "x", "--stream", "--fields", "promptId"],
        ["cancel", "@1", "--fields", "nope"],
        ["cancel", "@1", "-o", "id", "--fields", "status"],
        ["create", "x", "-o", "id", "--fields", "status,title"],
        ["delete", "@1", "--fields", "status"],
        ["result", "@1", "--wait", "--fields", "id"],
        ["workspace", "create", "--fields", "nope"],
    ],
)
def test_fields_that_cannot_be_printed_are_refused_before_anything_happens(
    inside_local: Run, words: list[str]
) -> None:
    before = inside_local("create", "One", "--wait").json
    refused = inside_local(*words)
    assert (refused.status, refused.out) == (2, ""), refused.err
    assert "--fields" in refused.err
    assert inside_local("list").json["total"] == 1
    assert inside_local("get", "@1").json == before
    assert len(inside_local("workspace", "list").json["data"]) == 1


def test_fields_without_the_id_are_refused_for_ids_from_the_environment(
    inside_local: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REBYTE_OUTPUT", "id")
    assert inside_local("create", "x", "--fields", "status").status == 2
    assert inside_local("list", "-o", "json").json["total"] == 0


def test_fields_of_what_is_streamed(inside_local: Run) -> None:
    events = inside_local("create", "x", "--stream", "-o", "jsonl", "--fields", "seq,eventType").out
    first = json.loads(events.splitlines()[0])
    assert first == {"seq": 0, "eventType": "init"}
    whole = inside_local("create", "x", "--stream", "-o", "json", "--fields", "id,status")
    assert whole.json["status"] == "completed"
    logs = inside_local("logs", "@1", "-o", "json", "--fields", "id,status")
    assert logs.json == whole.json
    assert inside_local("logs", "@1", "-o", "id").out == whole.json["id"] + "\n"
    seqs = inside_local("logs", "@1", "-o", "jsonl", "--fields", "seq").out
    assert json.loads(seqs.splitlines()[0]) == {"seq": 0}


def test_fields_of_a_request_body(inside: Run) -> None:
    words = ["create", "x", "--dry-run", "-m", "lite"]
    assert inside(*words, "--fields", "model,prompt").json == {"model": "lite", "prompt": "x"}
    unknown = inside(*words, "--fields", "title")
    assert unknown.status == 2
    assert "model" in unknown.err


@pytest.mark.parametrize("form", ["csv", "tsv", "id"])
@pytest.mark.parametrize(
    "words",
    [
        ["create", "x", "--dry-run"],
        ["follow-up", "11111111-2222-3333-4444-555555555555", "x", "--dry-run"],
        ["batch", "lines.txt", "--text", "--dry-run"],
        ["schema"],
        ["schema", "--results"],
        ["schema", "--config"],
    ],
)
def test_a_document_is_json_or_refused(
    inside: Callable[..., Done], home: Path, words: list[str], form: str
) -> None:
    (home / "lines.txt").write_text("x\n")
    refused = inside(*words, "-o", form)
    assert (refused.status, refused.out) == (2, "")
    assert f"-o {form} cannot show a JSON document" in refused.err
    by_setting = inside(*words, env={"REBYTE_OUTPUT": form})
    assert (by_setting.status, by_setting.json != {}) == (0, True)
