"""`rebyte follow-up --sync`: new commits of the repository here, below what the agent did."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import COMMAND, Done
from tests.repositories import git, name_bare_ones
from tests.waiting import kill_supervisor

from .conftest import Run

LINES = "".join(f"line {number}\n" for number in range(20))


@pytest.fixture
def run(with_agents: Callable[[str], Run]) -> Run:
    """The command, with an agent that runs its prompt as a script, in a jail."""
    return with_agents('[local.agents.mine]\ncommand = ["sh", "-es"]\n')


@pytest.fixture
def repository(home: Path) -> Path:
    folder = home / "repository"
    folder.mkdir()
    (folder / "code.txt").write_text(LINES)
    git(folder, "init", "-q", "-b", "main")
    commit(folder, "Start")
    return folder


def commit(repository: Path, message: str) -> None:
    git(repository, "add", "-A")
    git(repository, "commit", "-q", "-m", message)


def change(repository: Path, before: str, after: str) -> None:
    """Change a line and commit it."""
    text = (repository / "code.txt").read_text()
    assert before in text
    (repository / "code.txt").write_text(text.replace(before, after))
    commit(repository, after.strip())


@pytest.fixture
def task(run: Run, repository: Path) -> str:
    """A task that has changed the third line, and not committed it."""
    return create(run, repository, "sed -i 's/line 3$/LINE 3/' code.txt; echo a > added.txt")


def create(run: Run, repository: Path, prompt: str, *more: str) -> str:
    done = run("create", prompt, "-x", "mine", "-g", str(repository), "--wait", "-o", "id", *more)
    assert done.status == 0, done.err
    return done.out.strip()


def follow_up(run: Run, prompt: str, status: int = 0) -> Done:
    done = run("follow-up", "@last", prompt, "--sync", "--wait")
    assert done.status == status, done.err
    return done


@pytest.mark.slow
def test_the_agent_has_the_commits_and_the_patch_has_not(
    run: Run, repository: Path, task: str
) -> None:
    change(repository, "line 15\n", "LINE 15\n")
    (repository / "new.txt").write_text("new\n")
    commit(repository, "A new file")
    done = follow_up(run, "cat new.txt; git status --short; sed -i 's/line 9$/LINE 9/' code.txt")
    assert f"Merged the new commits of {repository}" in done.err
    assert run("result", task).out == "new\n M code.txt\n?? added.txt\n"
    log = run("workspace", "git", task, "--", "log", "--format=%s").out.splitlines()
    assert log == ["A new file", "LINE 15", "Start"]
    patch = run("diff", task).out
    assert "+LINE 3\n" in patch
    assert "+LINE 9\n" in patch
    assert "+++ b/added.txt" in patch
    assert "+LINE 15" not in patch
    assert "new.txt" not in patch
    alone = run("diff", task, "--run").out
    assert "+LINE 9\n" in alone
    assert "+LINE 3\n" not in alone
    artifact = run("artifact", "get", task, "changes.patch", "-O", "-").out
    assert "new.txt" not in artifact
    assert "+LINE 3\n" in artifact
    assert run("apply", task, "--yes", cwd=repository).status == 0
    text = (repository / "code.txt").read_text()
    assert all(line in text for line in ("LINE 3\n", "LINE 9\n", "LINE 15\n"))


@pytest.mark.slow
def test_what_was_applied_and_edited_comes_back(run: Run, repository: Path, task: str) -> None:
    assert run("apply", task, "--yes", cwd=repository).status == 0
    change(repository, "LINE 3\n", "LINE THREE\n")
    follow_up(run, "sed -i 's/LINE THREE/LINE 3 again/' code.txt")
    patch = run("diff", task).out
    assert "-LINE THREE\n+LINE 3 again\n" in patch
    assert "added.txt" not in patch
    assert run("apply", task, "--yes", cwd=repository).status == 0
    assert "LINE 3 again\n" in (repository / "code.txt").read_text()


@pytest.mark.slow
def test_what_was_applied_and_is_not_committed_yet_stays(
    run: Run, repository: Path, task: str
) -> None:
    """Whatever else is in conflict."""
    assert run("apply", task, "--yes", cwd=repository).status == 0
    git(repository, "reset", "-q")
    text = (repository / "code.txt").read_text()
    (repository / "code.txt").write_text(text.replace("LINE 3\n", "LINE THREE\n"))
    git(repository, "commit", "-q", "-m", "Edited", "code.txt")
    follow_up(run, "cat code.txt added.txt")
    assert "LINE THREE\n" in run("result", task).out
    patch = run("diff", task).out
    assert "+++ b/added.txt" in patch
    assert "code.txt" not in patch


@pytest.mark.slow
def test_again_and_again(run: Run, repository: Path, task: str) -> None:
    for number in (10, 12, 14):
        change(repository, f"line {number}\n", f"LINE {number}\n")
        follow_up(run, f"echo {number} >> added.txt")
    assert "There are no new commits" in follow_up(run, "echo end >> added.txt").err
    patch = run("diff", task).out
    assert "+LINE 3\n" in patch
    assert "+a\n+10\n+12\n+14\n+end\n" in patch
    assert "LINE 1" not in patch


@pytest.mark.slow
def test_a_conflict_is_named_and_changes_nothing(run: Run, repository: Path, task: str) -> None:
    before = run("diff", task).out
    (repository / "new.txt").write_text("new\n")
    change(repository, "line 3\n", "mine\n")
    done = run("follow-up", task, "true", "--sync", "--wait")
    assert done.status == 1
    assert "the new commits cannot be merged: conflicts in code.txt" in done.err
    assert run("diff", task).out == before
    assert len(run("get", task).json["prompts"]) == 1
    status = run("workspace", "git", task, "--", "status", "--short").out
    assert status == " M code.txt\n?? added.txt\n"
    done = run("follow-up", task, "git checkout code.txt", "--wait")
    assert done.status == 0, done.err
    follow_up(run, "sed -n 4p code.txt")
    assert run("result", task).out == "mine\n"


@pytest.mark.slow
@pytest.mark.parametrize("then", ["true", "git add -A; git commit -qm Mine"])
def test_the_users_attributes_say_how_it_is_merged(run: Run, repository: Path, then: str) -> None:
    union = "* merge=union\n"
    script = "echo '* merge=union' > .gitattributes; sed -i 's/line 3$/LINE 3/' code.txt; "
    task = create(run, repository, script + then)
    change(repository, "line 3\n", "mine\n")
    done = run("follow-up", task, "true", "--sync", "--wait")
    assert done.status == 1
    assert "conflicts in code.txt" in done.err
    (repository / ".gitattributes").write_text(union)
    commit(repository, "Attributes")
    follow_up(run, "cat code.txt; git show HEAD:code.txt | grep -c mine")
    said = run("result", task).out
    assert ("LINE 3\n" in said, "mine\n" in said) == (True, True)
    assert said.endswith("\n1\n")


@pytest.mark.slow
def test_an_ignored_file_in_the_way_is_kept(run: Run, repository: Path) -> None:
    create(run, repository, "echo new.txt > .gitignore; echo theirs > new.txt")
    (repository / "new.txt").write_text("new\n")
    commit(repository, "New")
    done = run("follow-up", "@last", "true", "--sync", "--wait")
    assert done.status == 1
    assert "new.txt" in done.err
    assert run("follow-up", "@last", "cat new.txt", "--wait").status == 0
    assert run("result", "@last").out == "theirs\n"


@pytest.mark.slow
@pytest.mark.parametrize("made", ["echo theirs > out", "ln -s /tmp out", "mkfifo out"])
def test_an_ignored_file_in_place_of_a_folder_is_kept(
    run: Run, repository: Path, made: str
) -> None:
    create(run, repository, f"echo out > .gitignore; {made}; ls -l out")
    (repository / "out").mkdir()
    (repository / "out/new.txt").write_text("mine\n")
    commit(repository, "A new folder")
    done = run("follow-up", "@last", "true", "--sync", "--wait")
    assert done.status == 1
    assert "ignored files or submodules are where they have others: out" in done.err


@pytest.mark.slow
def test_a_file_of_the_repository_becomes_a_folder(run: Run, repository: Path) -> None:
    create(run, repository, "echo theirs > added.txt")
    (repository / "code.txt").unlink()
    (repository / "code.txt").mkdir()
    (repository / "code.txt/new.txt").write_text("mine\n")
    commit(repository, "A folder")
    follow_up(run, "cat code.txt/new.txt added.txt")
    assert run("result", "@last").out == "mine\ntheirs\n"


@pytest.mark.slow
def test_a_tag_that_was_moved_is_brought(run: Run, repository: Path) -> None:
    git(repository, "tag", "-a", "-m", "One", "v1")
    create(run, repository, "echo theirs > added.txt", "-b", "v1")
    change(repository, "line 15\n", "LINE 15\n")
    git(repository, "tag", "-f", "-a", "-m", "Two", "v1")
    follow_up(run, "grep LINE code.txt; cat added.txt; git log --format=%s")
    assert run("result", "@last").out == "LINE 15\ntheirs\nLINE 15\nStart\n"
    assert "LINE 15" not in run("diff", "@last").out


@pytest.mark.slow
def test_a_tag_with_the_name_of_the_branch_is_not_brought(run: Run, repository: Path) -> None:
    git(repository, "checkout", "-q", "-b", "other")
    change(repository, "line 9\n", "tagged\n")
    git(repository, "tag", "main")
    git(repository, "checkout", "-q", "main")
    create(run, repository, "cat code.txt", "-b", "main")
    assert "tagged" not in run("result", "@last").out
    change(repository, "line 15\n", "LINE 15\n")
    follow_up(run, "cat code.txt")
    said = run("result", "@last").out
    assert ("LINE 15\n" in said, "tagged\n" in said) == (True, False)


@pytest.mark.slow
def test_commits_of_the_agent_are_merged(run: Run, repository: Path) -> None:
    task = create(run, repository, "sed -i 's/line 3$/LINE 3/' code.txt; git commit -qam Mine")
    change(repository, "line 15\n", "LINE 15\n")
    follow_up(run, "git status --short; git log --format=%s")
    said = run("result", task).out.splitlines()
    assert said[0] == "Merge new commits"
    assert {"LINE 15", "Mine", "Start"} == set(said[1:])
    patch = run("diff", task).out
    assert "+LINE 3\n" in patch
    assert "LINE 15\n+" not in patch
    assert "+LINE 15" not in patch


@pytest.mark.slow
def test_rewritten_commits(run: Run, repository: Path, task: str) -> None:
    (repository / "code.txt").write_text(LINES.replace("line 18\n", "LINE 18\n"))
    git(repository, "add", "-A")
    git(repository, "commit", "-q", "--amend", "-m", "Start again")
    follow_up(run, "git status --short; tail -2 code.txt")
    assert run("result", task).out.endswith("LINE 18\nline 19\n")
    assert "LINE 18" not in run("diff", task).out.replace(" LINE 18", "")


@pytest.mark.slow
def test_other_tasks_of_the_workspace(run: Run, repository: Path, task: str) -> None:
    words = ("sed -i 's/line 6$/LINE 6/' code.txt", "-x", "mine", "-w", task, "--wait", "-o", "id")
    other = run("create", *words).out.strip()
    change(repository, "line 15\n", "LINE 15\n")
    assert run("follow-up", task, "echo b >> added.txt", "--sync", "--wait").status == 0
    first, second = run("diff", task).out, run("diff", other).out
    assert ("+LINE 3\n" in first, "+LINE 6\n" in first, "+b\n" in first) == (True, False, True)
    assert ("+LINE 3\n" in second, "+LINE 6\n" in second) == (False, True)
    assert "+LINE 15" not in first + second


@pytest.mark.slow
def test_nothing_of_the_agents_runs_outside(run: Run, repository: Path, home: Path) -> None:
    trap = home / "trap"
    script = f"""
        mkdir -p .git/hooks
        printf '#!/bin/sh\\ntouch {trap} /code/inside\\n' > .git/hooks/reference-transaction
        chmod +x .git/hooks/*
        git config core.fsmonitor "touch {trap}"
        git config merge.mine.driver "touch {trap}"
        git config filter.mine.smudge "touch {trap}"
        echo '* merge=mine filter=mine' > .gitattributes
        sed -i 's/line 3$/LINE 3/' code.txt
    """
    create(run, repository, script)
    change(repository, "line 15\n", "LINE 15\n")
    follow_up(run, "ls")
    assert not trap.exists()
    assert "inside" not in run("result", "@last").out


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("-x", "mine"), "made from no repository"),
        (("-x", "mine", "-g", ".", "--with-changes"), "began with uncommitted changes"),
        (("-x", "mine", "-g", ".", "--no-jail"), "are not in a sandbox"),
        ((), "is simulated"),
    ],
)
def test_what_cannot_be_synced(
    run: Run, repository: Path, words: tuple[str, ...], said: str
) -> None:
    assert run("create", "true", *words, "--wait", cwd=repository).status == 0
    change(repository, "line 15\n", "LINE 15\n")
    done = run("follow-up", "@last", "true", "--sync")
    assert done.status == 1
    assert f"--sync: {said}" in done.err or said in done.err
    assert len(run("get", "@last").json["prompts"]) == 1


@pytest.mark.slow
def test_while_a_run_is_at_work(run: Run, repository: Path, task: str) -> None:
    change(repository, "line 15\n", "LINE 15\n")
    run("follow-up", task, "until [ -e end ]; do sleep 0.05; done")
    done = run("follow-up", task, "true", "--sync")
    assert done.status == 1
    assert "is at work in workspace" in done.err
    code = Path(run("workspace", "path", task, "--running").out.strip())
    (code / "end").touch()
    assert run("wait", task).status == 0


@pytest.mark.parametrize("then", ["follow-up", pytest.param("diff", marks=pytest.mark.slow)])
def test_killed_in_the_merge(run: Run, repository: Path, task: str, then: str) -> None:
    """Whatever command is next completes it: the user's commits never are the agent's change."""
    (repository / "many").mkdir()
    for number in range(3000):
        (repository / f"many/{number}").write_text(f"{number}\n")
    change(repository, "line 15\n", "LINE 15\n")
    code = Path(run("workspace", "path", task).out.strip())
    with subprocess.Popen([*COMMAND, "follow-up", task, "true", "--sync"]) as process:
        while not (code / "many/0").exists():
            assert process.poll() is None
        process.kill()
    if then == "follow-up":
        assert run("follow-up", task, "ls many | wc -l; git status -s", "--wait").status == 0
        assert run("result", task).out.split() == ["3000", "M", "code.txt", "??", "added.txt"]
    for patch in (
        run("diff", task).out,
        run("artifact", "get", task, "changes.patch", "-O", "-").out,
    ):
        assert "+LINE 3\n" in patch
        assert "+LINE 15" not in patch
        assert "many" not in patch
    assert len(list((code / "many").iterdir())) == 3000
    assert "There are no new commits" in follow_up(run, "true").err


@pytest.mark.slow
def test_killed_in_the_run_after_the_merge(
    run: Run, repository: Path, home: Path, task: str
) -> None:
    change(repository, "line 15\n", "LINE 15\n")
    script = "echo b > added.txt; echo ready; sleep 99"
    done = run("follow-up", task, script, "--sync", "-o", "id")
    assert done.status == 0, done.err
    code = Path(run("workspace", "path", task, "--running").out.strip())
    while (code / "added.txt").read_text() != "b\n":
        assert run("get", task).json["status"] == "running"
    kill_supervisor(code.parent / "runs" / done.out.strip() / "lock")
    assert run("wait", task).status == 10
    patch = run("diff", task).out
    assert "+LINE 3\n" in patch
    assert "+b\n" in patch
    assert "+LINE 15" not in patch


@pytest.mark.slow
def test_git_that_takes_only_named_repositories_for_bare(
    run: Run, repository: Path, home: Path
) -> None:
    """Those of a workspace are bare."""
    (repository / ".rebyte.toml").write_text('check = "grep LINE code.txt"\n')
    commit(repository, "Checks")
    name_bare_ones(home)
    create(run, repository, "sed -i 's/line 3$/LINE 3/' code.txt")
    change(repository, "line 17\n", "line seventeen\n")
    done = follow_up(run, "grep seventeen code.txt; sed -i 's/line 5$/LINE 5/' code.txt")
    assert "Not used" not in done.err
    assert run("check", "@last", "grep -r 'LINE 5' .").status == 0
    assert "seventeen" not in run("diff", "@last").out
    change(repository, "line 18\n", "line eighteen\n")
    follow_up(run, "sed -i 's/line 6$/LINE 6/' code.txt")
    assert "+LINE 5\n+LINE 6\n" in run("diff", "@last").out


def test_the_reason_for_a_bare_repository_that_git_does_not_take(run: Run, home: Path) -> None:
    git(home, "init", "-q", "--bare", "bare.git")
    name_bare_ones(home)
    done = run("create", "x", "-x", "mine", "-g", str(home / "bare.git"))
    assert (done.status, "safe.bareRepository" in done.err) == (2, True), done
