"""`rebyte land`: the changes of many tasks on one branch."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Done
from tests.land_bench import BUILD, LandBench
from tests.repositories import git, snapshot
from tests.servers import Answer, Request, error_reply
from tests.tools import need_jail

Run = Callable[..., Done]
PUSH = ("--push", "origin", "-o", "jsonl")


@pytest.fixture
def land(bench: LandBench, inside: Run) -> Run:
    """The command in the repository of the bench."""

    def run(*words: str, **more: object) -> Done:
        return inside("land", *words, cwd=bench.repository, **more)

    return run


@pytest.mark.slow
def test_forty_tasks_of_which_twelve_conflict(bench: LandBench, land: Run) -> None:
    prompts = [f"add {n}" for n in range(27)] + [f"count {n}" for n in range(13)]
    random.Random(1).shuffle(prompts)
    tasks = bench.create(*prompts)
    before = snapshot(bench.repository)
    done = land(*tasks, "--branch", "all", "--report", "all.md", *PUSH)
    assert done.status == 0, done
    assert [row["status"] for row in done.documents] == ["landed"] * 40
    assert sum(row["reruns"] for row in done.documents) == 12
    assert [subject for subject, _, _ in bench.commits("all")] == prompts
    assert [task for _, _, task in bench.commits("all")] == [
        row["landedTask"] for row in done.documents
    ]
    assert bench.builds("all") == [True] * 40
    assert git(bench.repository, "show", "all:total.txt").startswith("13 by ")
    report = bench.repository / "all.md"
    assert "40 tasks: 40 landed" in report.read_text()
    report.unlink()
    assert snapshot(bench.repository) == before
    again = land(*tasks, "--branch", "all", *PUSH)
    assert (again.status, again.documents) == (0, done.documents)
    assert land("--branch", "all", "--status", "-o", "jsonl").documents == done.documents


@pytest.mark.slow
def test_what_does_not_land_is_named(bench: LandBench, land: Run) -> None:
    prompts = ("count 1", "count 2", "nothing", "none", "fail <fail>", "add x", "add x")
    tasks = bench.create(*prompts)
    done = land(*tasks, "task-99999", "--branch", "b", "--report", "b.md", "-o", "jsonl")
    assert done.status == 10
    rows = done.documents
    assert [row["status"] for row in rows] == [
        "landed", "left out", "empty", "left out", "left out", "landed", "empty", "left out"
    ]  # fmt: skip
    assert [(row["error"] or {}).get("code") for row in rows if row["status"] == "left out"] == [
        "conflict", "not_found", "task_failed", "not_found"
    ]  # fmt: skip
    assert f"{tasks[1]} (count 2): left out: 1 file has conflicts: total.txt" in done.err
    assert [subject for subject, _, _ in bench.commits("b")] == ["count 1", "add x"]
    report = (bench.repository / "b.md").read_text()
    assert "8 tasks: 4 left out, 2 landed, 2 empty" in report
    assert "## count 2\n\n```text\n1 file has conflicts: total.txt\n```" in report


def test_a_commit_is_that_of_the_user_at_the_end_of_the_task(bench: LandBench, land: Run) -> None:
    (task,) = bench.create("add x")
    bench.farm.tasks[task]["ends"] = 1_700_000_000.0
    assert land(task, "--branch", "b").status == 0
    shown = git(bench.repository, "show", "-s", "--format=%an %cn %at%n%B", "b").strip()
    assert shown == f"Ada Ada 1700000000\nadd x\n\nRebyte-Task: {task}\nRebyte-Executor: claude"


@pytest.mark.slow
def test_the_results_of_a_batch(bench: LandBench, land: Run) -> None:
    first, second, failed = bench.create("add 1", "add 2", "fail <fail>")
    rows = [
        {"key": "b", "line": 2, "id": second, "status": "completed", "title": "Second"},
        {"key": "c", "line": 3, "id": failed, "status": "failed", "title": "Third"},
        {"key": "d", "line": 4, "id": None, "status": "pending", "title": "Fourth"},
        {"key": "a", "line": 1, "id": first, "status": "completed", "title": "First"},
        {"key": "e", "line": 5, "id": "x", "status": "completed", "title": "Fifth", "place": "box"},
    ]
    file = bench.repository.parent / "results.jsonl"
    file.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    done = land("--results", str(file), "--branch", "b", "-o", "jsonl")
    assert done.status == 10
    assert [(row["title"], row["status"]) for row in done.documents] == [
        ("First", "landed"), ("Second", "landed"), ("Third", "left out"), ("Fourth", "left out"),
        ("Fifth", "left out"),
    ]  # fmt: skip
    assert "(Fifth): left out: it is at box, so only -P box can land it" in " ".join(
        done.err.split()
    )
    assert "(Fourth): left out: its line of the batch is pending" in " ".join(done.err.split())
    file.write_text("{}\n")
    assert land("--results", str(file), "--branch", "c").status == 2


@pytest.mark.slow
def test_tasks_are_added_at_the_end_and_a_branch_that_moved_is_refused(
    bench: LandBench, land: Run
) -> None:
    first, second, third = bench.create("add 1", "add 2", "add 3")
    assert land(first, "--branch", "b").status == 0
    assert land(second, "--branch", "b").status == 2, "other tasks"
    assert land("-", "--branch", "b", stdin=f"{first}\n{second}\n").status == 0
    assert [subject for subject, _, _ in bench.commits("b")] == ["add 1", "add 2"]
    git(bench.repository, "branch", "-f", "b", "b~")
    git(bench.repository, "branch", "-f", "b", "main")
    done = land(first, second, third, "--branch", "b", "-o", "table")
    assert (done.status, "was moved" in done.err) == (2, True)
    git(bench.repository, "branch", "-D", "b")  # a branch that is gone begins again
    assert land(third, "--branch", "b").status == 0
    assert land(second, first, "--branch", "b", "--force").status == 0
    assert [subject for subject, _, _ in bench.commits("b")] == ["add 2", "add 1"]
    git(bench.repository, "branch", "other")
    for name in ("other", "main"):
        assert land(first, "--branch", name).status == 2


@pytest.mark.slow
def test_what_merges_but_does_not_pass_the_check(bench: LandBench, land: Run, home: Path) -> None:
    """Two patches that git merges, of which the second makes the number wrong."""
    need_jail()
    tasks = bench.create("tally 1", "add x", "tally 2", "count 3")
    words = ("--check", BUILD, "--report", "b.md")
    left = land(*tasks, "--branch", "a", "--rerun", "0", *words, *PUSH)
    assert left.status == 10
    assert [row["status"] for row in left.documents] == ["landed", "landed", "left out", "left out"]
    failed = left.documents[2]
    assert (failed["error"]["code"], failed["check"]["exit"]) == ("check_failed", 1)
    assert "exited with status 1" in (bench.repository / "b.md").read_text()
    done = land(*tasks, "--branch", "b", *words, *PUSH)
    assert done.status == 0, done
    assert [row["reruns"] for row in done.documents] == [0, 0, 1, 1]
    assert [row["check"]["status"] for row in done.documents] == ["passed"] * 4
    assert bench.builds("b") == [True] * 4


@pytest.mark.slow
def test_a_task_cannot_weaken_the_check_of_the_next(
    bench: LandBench, land: Run, home: Path
) -> None:
    """Every task is checked with the protected files that the branch began with."""
    need_jail()
    tasks = bench.create("weaken", "tally 1", "tally 2")
    words = ("--rerun", "0", "--check", BUILD, "--report", "b.md", "-o", "jsonl")
    done = land(*tasks, "--branch", "b", *words)
    assert [row["status"] for row in done.documents] == ["landed", "landed", "left out"]
    assert [row["check"]["restored"] for row in done.documents] == [["build.sh"]] * 3
    assert git(bench.repository, "show", "b:build.sh") == "exit 0\n"
    report = (bench.repository / "b.md").read_text()
    assert "## Protected paths with changes" in report
    assert "- build.sh\n" in report


@pytest.mark.slow
def test_two_tasks_that_add_the_same_file(bench: LandBench, land: Run) -> None:
    """git merges them with what it checks out, which must not be in the user's working tree."""
    tasks = bench.create("new one", "new two")
    before = snapshot(bench.repository)
    done = land(*tasks, "--branch", "b", *PUSH)
    assert (done.status, [row["reruns"] for row in done.documents]) == (0, [0, 1]), done
    assert git(bench.repository, "show", "b:src/new.txt") == "two\n"
    assert snapshot(bench.repository) == before
    assert git(bench.repository, "status", "--short") == " M total.txt\n"


def test_a_check_that_cannot_run_decides_nothing(bench: LandBench, land: Run) -> None:
    (task,) = bench.create("add x")
    for words in (("--check", " "), ("--protect", "x")):
        assert land(task, "--branch", "b", *words).status == 2
    assert git(bench.repository, "branch", "--list", "b") == ""


@pytest.mark.slow
def test_how_often_a_task_runs_again(bench: LandBench, land: Run) -> None:
    """The agent does not see the tip: it works on `main`, and conflicts each time."""
    first, second = bench.create("count 1", "count 2")
    agent = bench.farm.agent
    bench.farm.agent = lambda body: agent({**body, "branchName": "main"})
    done = land(first, second, "--branch", "b", "--rerun", "3", *PUSH)
    assert done.status == 10
    assert [(row["status"], row["reruns"]) for row in done.documents] == [
        ("landed", 0), ("left out", 3)
    ]  # fmt: skip
    assert bench.farm.made["count 2"] == 4


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_random_patches_in_random_order(bench: LandBench, land: Run, seed: int) -> None:
    """All of them land, and the branch is what they make one after the other."""
    luck = random.Random(seed)
    prompts = [
        luck.choice([f"add {n}", f"count {n}", f"set key{luck.randrange(12)} {n}", f"set key3 {n}"])
        for n in range(1, 9)
    ]
    tasks = bench.create(*prompts)
    before = snapshot(bench.repository)
    done = land(*tasks, "--branch", "b", *PUSH)
    assert done.status == 0, done
    assert snapshot(bench.repository) == before
    assert [subject for subject, _, _ in bench.commits("b")] == prompts
    values = {}
    for order, *words in map(str.split, prompts):
        if order == "set":
            values[words[0]] = words[1]
    keys = dict(
        line.split(" = ")
        for line in git(bench.repository, "show", "b:keys.txt").splitlines()
        if " = " in line
    )
    assert {key: value for key, value in keys.items() if value != "0"} == values
    assert all(bench.builds("b"))


@pytest.mark.slow
def test_a_task_whose_names_or_time_no_commit_can_have_stops_no_other(
    bench: LandBench, land: Run
) -> None:
    deep = "/".join(["x" * 200] * 80)
    head = "diff --git a/{0} b/{0}\nnew file mode 100644\n--- /dev/null\n+++ b/{0}\n"
    tasks = bench.create("add deep", "add early", "add good")
    names = (deep, ".gitattributes")
    patch = "".join(f"{head.format(name)}@@ -0,0 +1 @@\n+x\n" for name in names).encode()
    bench.farm.patches[bench.farm.tasks[tasks[0]]["workspaceId"]] = patch
    bench.farm.tasks[tasks[1]]["ends"] = -60_000_000_000.0
    done = land(*tasks, "--branch", "b", "--rerun", "0", "-o", "jsonl")
    assert [row["status"] for row in done.documents] == ["left out", "landed", "landed"], done
    assert "too long for any system" in done.documents[0]["error"]["message"]


@pytest.mark.slow
def test_changes_that_no_file_system_takes_stop_no_other(bench: LandBench, land: Run) -> None:
    need_jail()
    tasks = bench.create("add long", "add good")
    name = "x" * 300
    patch = f"diff --git a/{name} b/{name}\nnew file mode 100644\n--- /dev/null\n+++ b/{name}\n"
    place = bench.farm.tasks[tasks[0]]["workspaceId"]
    bench.farm.patches[place] = f"{patch}@@ -0,0 +1 @@\n+x\n".encode()
    words = ("--branch", "b", "--check", "true", "--rerun", "0", "--report", "b.md", "-o", "jsonl")
    done = land(*tasks, *words)
    assert [row["status"] for row in done.documents] == ["left out", "landed"], done
    assert done.documents[0]["error"]["code"] == "check_failed"
    assert "File name too long" in (bench.repository / "b.md").read_text()


@pytest.mark.slow
def test_a_patch_whose_copies_fill_the_memory_is_left_out(bench: LandBench, land: Run) -> None:
    """A thousand lines of a patch that stand for a gigabyte are one task's problem."""
    need_jail()
    large = bench.repository / "large.txt"
    large.write_text(f"{'x' * 99}\n" * 10_000)
    git(bench.repository, "add", "large.txt")
    git(bench.repository, "commit", "-q", "-m", "Large")
    git(bench.repository, "push", "-q", "origin", "HEAD:main")
    copies = "".join(
        f"diff --git a/large.txt b/c{number}\nsimilarity index 100%\n"
        f"copy from large.txt\ncopy to c{number}\n"
        for number in range(300)
    )
    hostile, good = bench.create("add evil", "add good")
    bench.farm.patches[bench.farm.tasks[hostile]["workspaceId"]] = copies.encode()
    done = land(hostile, good, "--branch", "b", "--check", "true", "--rerun", "0", "-o", "jsonl")
    assert [row["status"] for row in done.documents] == ["left out", "landed"], done
    assert "printed more than 256 MiB" in done.documents[0]["error"]["message"]


# A git for which the disk is full in one of its commands, for as long as a file is there.
FULL = """#!/bin/sh
PATH={path}
case " $* " in *" {word} "*)
    if [ -e {mark} ]; then echo 'fatal: sha1 file write error. Out of diskspace' >&2; exit 128; fi
esac
exec git "$@"
"""


@pytest.mark.slow
@pytest.mark.parametrize("word", ["apply", "read-tree", "check-attr"])
def test_a_failure_of_this_machine_runs_nothing_again(
    bench: LandBench, land: Run, home: Path, monkeypatch: pytest.MonkeyPatch, word: str
) -> None:
    """It stops the landing, which the same command resumes."""
    tasks = bench.create("add x", "add y")
    program, mark, path = home / "full/git", home / "mark", os.environ["PATH"]
    program.parent.mkdir()
    program.write_text(FULL.format(path=path, mark=mark, word=word))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{path}")
    mark.touch()
    done = land(*tasks, "--branch", "b", *PUSH)
    assert (done.status, "Out of diskspace" in done.err) == (1, True), done
    assert done.documents == []
    mark.unlink()
    done = land(*tasks, "--branch", "b", *PUSH)
    assert [row["status"] for row in done.documents] == ["landed"] * 2, done
    assert bench.farm.made == {"add x": 1, "add y": 1}


@pytest.mark.slow
def test_a_patch_that_nothing_can_be_made_of_stops_no_other_and_runs_once(
    bench: LandBench, land: Run
) -> None:
    no_patch, large, good = bench.create("add evil", "add much", "add good")
    bench.farm.patches[bench.farm.tasks[no_patch]["workspaceId"]] = b"no patch"
    bench.farm.patches[bench.farm.tasks[large]["workspaceId"]] = bytes(257 << 20)
    done = land(no_patch, large, good, "--branch", "b", *PUSH)
    assert [(row["status"], row["reruns"]) for row in done.documents] == [
        ("left out", 0), ("left out", 0), ("landed", 0)
    ]  # fmt: skip
    assert "No valid patches" in done.documents[0]["error"]["message"]
    assert done.documents[1]["error"]["code"] == "too_large"
    assert bench.farm.made["add evil"] == bench.farm.made["add much"] == 1


@pytest.mark.slow
@pytest.mark.usefixtures("quick_retries")
@pytest.mark.parametrize(("refused", "ends"), [(400, 10), (409, 10), (429, 1)])
def test_a_rerun_that_the_service_refuses(
    bench: LandBench, land: Run, refused: int, ends: int
) -> None:
    """That is final, and the row says so each time; but it may have only been asked too often."""
    tasks, hook = bench.create("count 1", "count 2"), bench.farm.hook

    def refuse(request: Request) -> Answer | None:
        is_create = request.method == "POST" and request.path == "/v1/tasks"
        return error_reply(refused, "no", "No way") if is_create else hook(request)

    bench.farm.hook = refuse
    done = land(*tasks, "--branch", "b", *PUSH)
    assert (done.status, "No way" in done.err) == (ends, True), done
    bench.farm.hook = hook
    again = land(*tasks, "--branch", "b", *PUSH)
    if ends == 10:
        assert (again.status, again.documents) == (10, done.documents)
        assert [row["status"] for row in again.documents] == ["landed", "left out"]
        assert bench.farm.made["count 2"] == 1
    else:
        assert [row["status"] for row in again.documents] == ["landed"] * 2, again
        assert bench.farm.made["count 2"] == 2
