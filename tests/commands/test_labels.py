"""`--label`: given to tasks when they are created, and what it selects later."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Done
from tests.farm import Farm

Run = Callable[..., Done]


def created(run: Run, prompt: str, *words: str) -> str:
    done = run("create", prompt, "-o", "id", *words)
    assert done.status == 0, done.err
    return done.out.strip()


def test_a_label_selects_the_tasks_of_every_command_that_takes_several(inside_local: Run) -> None:
    one = created(inside_local, "One", "--label", "team=search", "--label", "run=7")
    two = created(inside_local, "Two", "--label", "team=search")
    slow = created(inside_local, "Slow [[run=60s]]", "--label", "run=8")
    created(inside_local, "Other")
    assert inside_local("list", "--label", "team=search", "-o", "id").out == f"{two}\n{one}\n"
    both = ("--label", "team=search", "--label", "run=7")
    assert inside_local("list", *both, "-o", "id").out == f"{one}\n"
    done = inside_local("wait", "--label", "team=search", "-o", "id")
    assert (done.status, sorted(done.out.split())) == (0, sorted([one, two]))
    done = inside_local("cancel", "--label", "run=8", "-o", "json")
    assert (done.json["id"], done.json["status"]) == (slow, "canceled")
    assert inside_local("delete", *both, "-o", "id").out == f"{one}\n"
    assert inside_local("list", "--label", "team=search", "-o", "id").out == f"{two}\n"


def test_a_label_without_tasks_is_an_error_except_in_a_list(inside_local: Run) -> None:
    for command in ("wait", "cancel", "delete"):
        done = inside_local(command, "--label", "run=9")
        assert done.status == 4
        assert "no task created on this machine has the label run=9" in done.err
    assert inside_local("list", "--label", "run=9").json["data"] == []


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ("create x --label run", "--label 'run' is not NAME=VALUE"),
        ("create x --label run=", "--label: run: the value is empty"),
        ("create x --label =7", "'' is not a label name"),
        ("create x --label a=1 --label a=2", "a has two values, '1' and '2'"),
        ("wait abcd --label a=1", "--label cannot be used together with TASK"),
        ("wait", "missing argument: TASK… (or --label)"),
        ("delete", "missing argument: TASK… (or --label)"),
    ],
)
def test_invalid_labels_are_refused_before_anything_is_sent(
    inside: Run, words: str, problem: str
) -> None:
    done = inside(*words.split())
    assert done.status == 2
    assert problem in done.err


def test_lines_of_a_batch_have_labels_which_are_not_sent(inside: Run, home: Path) -> None:
    lines = [
        {"prompt": "One", "labels": {"team": "search"}},
        {"prompt": "Two", "labels": {"run": "8"}},
        {"prompt": "Three"},
        {"prompt": "Four", "labels": None},
    ]
    (home / "t.jsonl").write_text("\n".join(map(json.dumps, lines)))
    with Farm() as farm:
        done = inside("batch", "t.jsonl", "--label", "run=7", "--no-wait", env=farm.env)
        assert done.status == 0, done.err
        ids = {row["line"]: row["id"] for row in done.documents}
        assert [body for body in farm.bodies if "labels" in body] == []
        for labels, wanted in (("run=7", {1, 3}), ("run=8", {2}), ("team=search", {1})):
            out = inside("list", "--label", labels, "-o", "id", env=farm.env).out
            assert set(out.split()) == {ids[line] for line in wanted}


def test_labels_of_a_csv_and_of_data_for_a_template(inside: Run, home: Path) -> None:
    (home / "t.csv").write_text('prompt,labels\nOne,"team=search,run=1"\nTwo,\n')
    (home / "letter.txt").write_text("Fix {{title}}, labeled {{labels}}")
    (home / "issues.jsonl").write_text('{"title": "it", "labels": [{"name": "bug"}]}')
    with Farm() as farm:
        assert inside("batch", "t.csv", "--no-wait", env=farm.env).status == 0
        listed = inside("list", "--label", "team=search", "--label", "run=1", env=farm.env)
        (found,) = listed.json["data"]
        assert farm.tasks[found["id"]]["prompt"] == "One"
        done = inside("batch", "issues.jsonl", "--template", "letter.txt", "--dry-run")
        assert done.json["body"]["prompt"] == 'Fix it, labeled [{"name": "bug"}]'
    (home / "bad.jsonl").write_text('{"prompt": "x", "labels": {"run": 7}}')
    done = inside("batch", "bad.jsonl")
    assert done.status == 2
    assert "line 1: labels: run: the value must be a string" in done.err


def test_labels_are_set_and_removed_later_and_shown(inside_local: Run) -> None:
    one = created(inside_local, "One", "--label", "team=search")
    two = created(inside_local, "Two")
    done = inside_local("label", one, two, "run=7", "team-", "-o", "jsonl")
    assert [row["labels"] for row in done.documents] == [{"run": "7"}, {"run": "7"}], done.err
    inside_local("label", one, "run=8")
    rows = inside_local("list", "--fields", "id,labels,labels.run").json["data"]
    assert rows == [
        {"id": two, "labels": {"run": "7"}, "labels.run": "7"},
        {"id": one, "labels": {"run": "8"}, "labels.run": "8"},
    ]
    assert inside_local("get", one).json["labels"] == {"run": "8"}
    assert "run=8" in inside_local("list", "--fields", "title,labels", "-o", "table").out
    listed = inside_local("label", "--list", "-o", "csv").out
    assert listed == "name,value,tasks\nrun,7,1\nrun,8,1\n"
    assert inside_local("list", "-o", "id").out.split() == [two, one]
    assert inside_local("label", "-", "run-", stdin=f"{one}\n{two}\n").status == 0
    assert inside_local("label", "--list").json["data"] == []
    assert "labels" not in inside_local("get", one).json


@pytest.mark.parametrize(
    ("words", "status", "problem"),
    [
        ("label", 2, "missing argument: TASK… (or --list)"),
        ("label a=1", 2, "missing argument: TASK… (or --list)"),
        ("label abcd a=1 a-", 2, "a is both set and removed"),
        ("label abcd a=", 2, "label: a: the value is empty"),
        ("label abcd --list", 2, "--list cannot be used together with TASK"),
        ("label 00000000-0000-4000-8000-000000000000 a=1", 4, "task not found"),
    ],
)
def test_a_label_that_cannot_be_given(
    inside_local: Run, words: str, status: int, problem: str
) -> None:
    done = inside_local(*words.split())
    assert done.status == status
    assert problem in done.err
    assert inside_local("label", "--list").json["data"] == []
