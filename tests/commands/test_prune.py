"""`rebyte local prune` and the sizes in `rebyte workspace list`: what agents here take up."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rebyte_cli.local.store import Store
from tests.conftest import COMMAND
from tests.repositories import git, introduce, small_repository
from tests.script_agent import ASK_REFUSED
from tests.waiting import eventually

from .conftest import SCRIPT, Run


@pytest.fixture
def run(home: Path, with_agents: Callable[[str], Run]) -> Run:
    """The command, with an agent that runs its prompt as a script."""
    small_repository(home / "repository")
    return with_agents(SCRIPT)


@pytest.fixture
def folders(home: Path) -> Callable[[], list[str]]:
    root = home / ".local/state/rebyte/local/workspaces"
    return lambda: sorted(path.name for path in root.glob("*"))


def create(run: Run, home: Path, script: str, *words: str) -> dict[str, str]:
    done = run("create", script, "-x", "mine", "-g", str(home / "repository"), *words)
    assert done.status == 0, done.err
    return dict(done.json)


@pytest.fixture
def waiting(run: Run, home: Path) -> Iterator[dict[str, str]]:
    """A task whose agent is at work."""
    task = create(run, home, "echo begun > begun; until test -e end; do sleep 0.1; done")
    yield task
    run("cancel", task["id"])


@pytest.mark.slow
def test_what_takes_space_is_removed_where_it_was_not_used_for_long(
    run: Run, home: Path, waiting: dict[str, str]
) -> None:
    root = home / ".local/state/rebyte/local/workspaces"
    old = create(run, home, "echo work >> code.txt", "--wait")
    assert run("local", "prune", "--older", "1h").json["data"] == []
    planned = run("local", "prune", "--older", "0", "--dry-run")
    row = planned.json["data"][0]
    assert (row["id"], row["repository"]) == (old["workspaceId"], str(home / "repository"))
    assert row["size"] > 4096
    assert "Would free " in planned.err
    assert (root / old["workspaceId"] / "code").is_dir()
    done = run("local", "prune", "--older", "0")
    assert done.json["data"] == planned.json["data"]
    assert "Freed " in done.err
    assert not (root / old["workspaceId"] / "code").exists()
    assert (root / waiting["workspaceId"] / "code").is_dir(), "one at work stays"
    assert not list((home / ".local/state/rebyte/local/trash").iterdir())
    assert run("local", "prune", "--older", "0").json["data"] == [], "it is pruned already"
    # What the task brought about is still there, and it can go on.
    assert "+work" in run("diff", old["id"]).out
    assert "local prune" in run("workspace", "path", old["id"]).err


def prune(run: Run, task: str) -> None:
    """Prune the workspace of a task, and only that."""
    done = run("local", "prune", "--older", "0")
    workspace = run("get", task).json["workspaceId"]
    assert [row["id"] for row in done.json["data"]] == [workspace], done.err


@pytest.mark.slow
def test_a_follow_up_has_the_files_that_the_last_run_left(run: Run, home: Path) -> None:
    """And the branch that the workspace was cloned from, whatever is checked out now."""
    repository = home / "repository"
    git(repository, "checkout", "-q", "-b", "topic")
    git(repository, "commit", "-q", "--allow-empty", "-m", "Topic")
    script = "echo work >> code.txt; echo a > added; ln -s added link; git commit -qam Own"
    task = create(run, home, script, "--wait")["id"]
    git(repository, "checkout", "-q", "-")
    before = run("diff", task).out
    prune(run, task)
    assert run("diff", task).out == before
    script = "git status -s -b; git log -1 --format=%s; git remote get-url origin; cat code.txt"
    assert run("follow-up", task, f"{script}; echo b > more", "--wait").status == 0
    seen = ["## topic", " M code.txt", "?? added", "?? link", "Topic", str(repository)]
    assert run("result", task).out.splitlines() == [*seen, "one", "work"]
    assert "The workspace was pruned: its files are as the last run left them" in (
        run("logs", task).out
    )
    after = run("diff", task).out
    assert after.startswith(before)
    assert after.endswith("+b\n")
    assert run("artifact", "get", task, "changes.patch", "-O", "-").out == after


FAILS = "head -c 1048577 /dev/zero > .gitignore"  # there is no patch with that


@pytest.mark.slow
@pytest.mark.parametrize(
    "case",
    ["no patch", "in a submodule", "after a prune, on a full disk", "by hand, on a full disk"],
)
def test_the_only_copy_of_what_a_run_left_stays(run: Run, home: Path, case: str) -> None:
    """On a full disk, that there is no patch cannot be noted."""
    root, script = home / ".local/state/rebyte/local/workspaces", "echo second > second"
    if case == "in a submodule":
        link = f"160000,{'1' * 40},lib"
        git(home / "repository", "update-index", "--add", "--cacheinfo", link)
        git(home / "repository", "commit", "-q", "-m", "A submodule")
    task = create(run, home, "echo first > first", "--wait")
    place, words = root / task["workspaceId"], ("follow-up", task["id"])
    if case == "in a submodule":
        assert run(*words, f"{script}; ln second lib", "--wait").status == 0
    elif case == "by hand, on a full disk":
        assert (
            run("workspace", "run", task["id"], "--", "sh", "-c", f"{script}; {FAILS}").status == 0
        )
    else:
        if case == "after a prune, on a full disk":
            prune(run, task["id"])
        assert run(*words, f"{script}; {FAILS}", "--wait").status == 0
    if case.endswith("full disk"):
        (noted,) = place.glob("runs/*/no-patch")
        noted.unlink()
    for more in (["--dry-run"], [], ["-q"]):
        done = run("local", "prune", "--older", "0", *more)
        assert (done.status, done.json["data"]) == (0, [])
        warning = f"workspace {task['workspaceId']} stays: no patch has all that is there"
        assert warning in done.err
        assert "workspace delete" in done.err
    assert (place / "code/second").read_text() == "second\n"
    assert run(*words, "rm -rf .gitignore lib/*", "--wait").status == 0
    prune(run, task["id"])
    assert run(*words, "cat second", "--wait").status == 0
    assert run("result", task["id"]).out.split() == ["second"]


@pytest.mark.slow
def test_the_record_of_requests_stays(run: Run, home: Path) -> None:
    task = create(run, home, f"bash <<'END'\n{ASK_REFUSED}\nEND", "--wait")["id"]
    words = ("logs", task, "--network", "-o", "json")
    before = run(*words).json["data"]
    assert [row["host"] for row in before] == ["a.example"]
    prune(run, task)
    assert run(*words).json["data"] == before
    assert run("local", "prune", "--older", "0").json["data"] == [], "it is pruned already"


@pytest.mark.slow
def test_without_a_sandbox_it_is_the_same(run: Run, home: Path) -> None:
    task = create(run, home, "echo work >> code.txt", "--wait", "--no-jail")["id"]
    prune(run, task)
    assert "+work" in run("diff", task).out
    run("follow-up", task, "git status --short; git log --format=%s", "--wait")
    assert run("result", task).out.splitlines()[0] == " M code.txt"


@pytest.mark.slow
def test_the_patch_stays_when_the_files_cannot_be_made_again(run: Run, home: Path) -> None:
    task = create(run, home, "echo work >> code.txt", "--wait")
    before = run("diff", task["id"]).out
    prune(run, task["id"])
    in_the_way = home / ".local/state/rebyte/local/workspaces" / task["workspaceId"] / "code"
    in_the_way.write_text("")
    assert run("follow-up", task["id"], "true", "--wait").status == 10
    assert run("diff", task["id"]).out == before
    assert run("artifact", "get", task["id"], "changes.patch", "-O", "-").out == before
    in_the_way.unlink()
    assert run("follow-up", task["id"], "cat code.txt", "--wait").status == 0
    assert run("result", task["id"]).out.split() == ["one", "work"]


@pytest.mark.slow
def test_no_run_begins_where_only_the_patch_is_left(run: Run, home: Path) -> None:
    """As after a `prune` of an older version: a new clone, and its patch, would replace that."""
    task = create(run, home, "echo work >> code.txt", "--wait")
    shutil.rmtree(home / ".local/state/rebyte/local/workspaces" / task["workspaceId"])
    for words in (
        ("follow-up", task["id"], "echo more > more"),
        ("follow-up", task["id"], "echo more > more", "--sync"),
        ("create", "echo more > more", "-x", "mine", "-w", task["workspaceId"]),
    ):
        done = run(*words, "--wait")
        assert done.status not in (0, 10), done.out
        assert "its artifacts are kept" in done.err
        assert "rebyte apply" in done.err
    assert "+work" in run("diff", task["id"]).out
    assert "more" not in run("diff", task["id"]).out


@pytest.mark.slow
def test_checks_and_branches_begin_where_the_workspace_does(run: Run, home: Path) -> None:
    repository = home / "repository"
    introduce(home)
    task = create(run, home, "echo work > work", "--wait")["id"]
    (repository / "code.txt").write_text("two\n")
    git(repository, "commit", "-q", "-a", "-m", "Two")
    assert run("follow-up", task, "true", "--sync", "--wait").status == 0
    (repository / "code.txt").write_text("three\n")
    dirty = create(run, home, "echo work > work", "--wait", "--with-changes")["id"]
    assert len(run("local", "prune", "--older", "0").json["data"]) == 2
    assert run("check", task, "grep two code.txt").status == 0
    assert run("check", dirty, "grep three code.txt").status == 0
    assert run("apply", task, "--branch", "done", "--yes", cwd=repository).status == 0
    assert git(repository, "show", "done:code.txt") == "two\n"


@pytest.mark.slow
def test_tasks_that_share_a_workspace_keep_their_changes_apart(run: Run, home: Path) -> None:
    first = create(run, home, "echo 1 > first", "--wait")
    words = ("-x", "mine", "-w", first["workspaceId"], "--wait")
    second = run("create", "echo 2 > second", *words).json["id"]
    run("follow-up", second, "echo 3 > third", "--wait")
    asked = [("diff", first["id"]), ("diff", second), ("diff", "--run", second)]
    before = [run(*words).out for words in asked]
    assert "+++ b/third" in before[2]
    assert "second" not in before[2]
    prune(run, second)
    assert [run(*words).out for words in asked] == before


@pytest.mark.slow
def test_new_commits_are_brought_into_it(run: Run, home: Path) -> None:
    task = create(run, home, "echo work > work", "--wait")["id"]
    (home / "repository/new.txt").write_text("new\n")
    git(home / "repository", "add", "-A")
    git(home / "repository", "commit", "-q", "-m", "New")
    prune(run, task)
    done = run("follow-up", task, "cat new.txt work", "--sync", "--wait")
    assert done.status == 0, done.err
    assert run("result", task).out.split() == ["new", "work"]
    prune(run, task)
    assert "new.txt" not in run("diff", task).out
    run("follow-up", task, "git status --short; git log --format=%s", "--wait")
    assert run("result", task).out.splitlines()[:2] == ["?? work", "New"]


@pytest.mark.slow
def test_a_batch_that_is_resumed_makes_the_check_that_is_trusted(run: Run, home: Path) -> None:
    repository, lines = home / "repository", home / "lines.jsonl"
    (repository / ".rebyte.toml").write_text('check = "test -f good"\n')
    git(repository, "add", "-A")
    git(repository, "commit", "-q", "-m", "Check")
    assert run("local", "trust", "--yes", cwd=repository).status == 0
    script = "echo begun > begun; until test -e end; do sleep 0.1; done"
    line = {"key": "a", "prompt": script, "githubUrl": str(repository)}
    lines.write_text(json.dumps(line) + "\n")
    words = ("batch", str(lines), "-x", "mine", "--tries", "1")
    root = home / ".local/state/rebyte/local/workspaces"
    with subprocess.Popen(
        [*COMMAND, "-P", "local", *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        (begun,) = eventually(lambda: [*root.glob("*/code/begun")])
        process.kill()
    begun.with_name("end").touch()
    task = eventually(lambda: run("list", "-o", "id").out.strip())
    assert run("wait", task).status == 0
    prune(run, task)
    done = run(*words)
    assert done.status == 10
    assert "`test -f good` exited with status 1" in done.err


@pytest.mark.slow
def test_the_list_shows_repository_and_size(run: Run, home: Path) -> None:
    create(run, home, "head -c 300000 /dev/zero > large", "--wait")

    def size() -> int:
        (row,) = run("workspace", "list", "--search", "repository").json["data"]
        assert row["repository"] == str(home / "repository")
        return int(row["size"] or 0)

    assert 300_000 < eventually(size) < 3_000_000
    head = run("workspace", "list", "-o", "table").out.splitlines()[0].split()
    assert head[2:4] == ["REPOSITORY", "SIZE"]


@pytest.mark.slow
def test_a_list_of_tasks_removes_what_no_task_needs(
    run: Run, home: Path, folders: Callable[[], list[str]]
) -> None:
    """Within the hour, without another run."""
    task = create(run, home, "true", "--wait")
    run("list")
    run("delete", task["id"], "--yes")
    store = Store(home / ".local/state/rebyte/local")
    with store.write() as db:
        db.execute("UPDATE tasks SET deleted = 0")
    run("list")
    assert folders() == [task["workspaceId"]], "that was done a moment ago"
    store.remember("swept", "0")
    store.close()
    run("list")
    assert folders() == []


def fill_disk(home: Path, *, full: bool = True) -> None:
    """Let runs need more room than there is."""
    with Store(home / ".local/state/rebyte/local") as store, store.write() as db:
        sql = "UPDATE runs SET options = json_set(options, '$.keep_free', ?)"
        db.execute(sql, (1 << 60 if full else 0,))


@pytest.mark.slow
@pytest.mark.parametrize("whose", ["git", "hand", "ref"])
def test_what_was_changed_in_the_folder_is_in_the_patch_or_stays(
    run: Run, home: Path, whose: str
) -> None:
    """By `workspace git`, at once; by hand, with the next of its commands."""
    task = create(run, home, "echo work > work", "--wait")["id"]
    folder = Path(run("workspace", "path", task).out.strip())
    if whose == "git":
        assert run("workspace", "git", task, "--", "clean", "-fq").status == 0
        assert run("diff", task).out == ""
        assert run("check", task, "test -e work").status != 0
    else:
        if whose == "ref":
            git(folder, "commit", "-q", "--allow-empty", "-m", "mine")
        else:
            (folder / "work").write_text("hand\n")
        for more in (["--dry-run"], []):
            done = run("local", "prune", "--older", "0", *more)
            assert done.json["data"] == []
            assert "stays: no patch has all that is there" in done.err
        assert run("workspace", "git", task, "--", "log").status == 0
        assert ("+hand" in run("diff", task).out) is (whose == "hand")
    prune(run, task)


@pytest.mark.slow
def test_what_git_is_told_to_track_is_in_the_patch(run: Run, home: Path) -> None:
    """And what it is told not to track is not: nothing but the index says so."""
    script = "echo ignored > .gitignore; echo secret > ignored; git add .gitignore"
    task = create(run, home, script, "--wait")["id"]
    for words, is_tracked in ((["add", "-f"], True), (["rm", "-q", "--cached"], False)):
        assert run("workspace", "git", task, "--", *words, "ignored").status == 0
        assert ("+secret" in run("diff", task).out) is is_tracked
    prune(run, task)


@pytest.mark.slow
def test_a_look_makes_no_patch_again(run: Run, home: Path) -> None:
    task = create(run, home, "echo work > work; git add work; touch work", "--wait")["id"]
    run("workspace", "path", task)
    (index,) = (home / ".local/state/rebyte/local/workspaces").glob("*/base.git/index")
    before = index.stat().st_ino
    for words in (["status"], ["diff", "HEAD"], ["log"]):
        assert run("workspace", "git", task, "--", *words).status == 0
    assert index.stat().st_ino == before
    prune(run, task)


@pytest.mark.slow
def test_a_workspace_stays_while_git_is_at_work(run: Run, home: Path) -> None:
    task = create(run, home, "echo work > work", "--wait")["id"]
    folder = Path(run("workspace", "path", task).out.strip())
    script = "touch begun; timeout 20 sh -c 'until test -e end; do sleep 0.1; done'; rm end"
    script += "; echo late > late"
    words = ("workspace", "git", task, "--", "-c", f"alias.x=!{script}", "x")
    with subprocess.Popen([*COMMAND, "-P", "local", *words]) as process:
        eventually((folder / "begun").exists)
        (folder / "begun").unlink()
        assert run("local", "prune", "--older", "0").json["data"] == []
        (folder / "end").touch()
    assert process.returncode == 0
    assert "+late" in run("diff", task).out
    prune(run, task)


@pytest.mark.slow
@pytest.mark.parametrize(
    "words", [("workspace", "run", "TASK", "--", "true"), ("follow-up", "TASK", "true", "--sync")]
)
def test_a_full_disk_takes_no_patch_away(run: Run, home: Path, words: tuple[str, ...]) -> None:
    task = create(run, home, "echo work > work", "--wait")["id"]
    (home / "repository/new.txt").write_text("new\n")
    git(home / "repository", "add", "-A")
    git(home / "repository", "commit", "-q", "-m", "New")
    before = run("diff", task).out
    fill_disk(home)
    done = run(*(task if word == "TASK" else word for word in words))
    assert done.status not in (0, 10), done.out
    fill_disk(home, full=False)
    assert run("diff", task).out == before
    assert run("artifact", "get", task, "changes.patch", "-O", "-").out == before
    prune(run, task)
