"""`rebyte diff`, `rebyte apply` and the other commands for agents on this machine."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from rebyte_cli.app import App
from rebyte_cli.errors import NotFound
from rebyte_cli.local.agents import workspace_access
from rebyte_cli.tasks.patch import can_be_here
from rebyte_cli.tasks.prepared_patch import prepared
from rebyte_cli.tasks.risks import risks_between
from tests.conftest import Done, need_tool
from tests.patch_farm import PatchFarm
from tests.repositories import git, introduce
from tests.script_agent import ASK_REFUSED
from tests.waiting import eventually

Local = Callable[..., Done]


@pytest.fixture
def repository(home: Path) -> Path:
    """A repository without a remote, of a user whom git knows."""
    introduce(home)
    folder = home / "repository"
    folder.mkdir()
    (folder / "code.txt").write_text("".join(f"line {number}\n" for number in range(20)))
    (folder / "old.txt").write_text("old\n")
    (folder / "run.sh").write_text("#!/bin/sh\n")
    git(folder, "init", "-q", "-b", "main")
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "-m", "Start")
    return folder


WORK = r"""
sed -i 's/line 3$/LINE 3/' code.txt
rm old.txt
chmod +x run.sh
printf '\0\1\2' > data.bin
mkdir -p src; echo new > 'src/né w.txt'
"""


def work(agents: Local, repository: Path, script: str = WORK, *more: str) -> Done:
    """Run the agent on the repository; its task is @last then."""
    words = ("create", script, "-x", "mine", "-g", ".", "--wait", "-o", "json", *more)
    done = agents(*words, cwd=repository)
    assert done.status == 0, done
    return done


@pytest.fixture
def farmed(
    inside: Local, home: Path, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Local]:
    """The command for a service whose tasks do what their prompts say, without an agent of ours."""

    def changed(body: dict[str, Any]) -> bytes:
        place = shutil.copytree(repository, home / f"of {len(farm.tasks)}", symlinks=True)
        subprocess.run(["sh", "-ec", body["prompt"]], cwd=place, check=True)
        git(place, "add", "-A")
        words = ["git", "diff", "--cached", "--binary", "--full-index", "HEAD"]
        return subprocess.run(words, cwd=place, capture_output=True, check=True).stdout

    with PatchFarm(changed) as farm:
        for name, value in farm.env.items():
            monkeypatch.setenv(name, value)
        yield inside


def left(farmed: Local, script: str = WORK) -> None:
    """Have a task, which is @last then, leave what a script changes."""
    done = farmed("create", script, "--wait", "-o", "json")
    assert done.status == 0, done


@pytest.mark.slow
def test_from_a_prompt_to_an_applied_patch_in_two_commands(agents: Local, repository: Path) -> None:
    created = work(agents, repository)
    assert created.json["finalResult"] == "Done."
    assert "mine runs in a sandbox (bubblewrap)" in created.err
    done = agents("apply", "@last", "--yes", "-o", "json", cwd=repository)
    assert done.status == 0, done
    assert [(row["path"], row["status"], row["additions"]) for row in done.json["data"]] == [
        ("code.txt", "modified", 1),
        ("data.bin", "added", None),
        ("old.txt", "deleted", 0),
        ("run.sh", "modified", 0),
        ("src/né w.txt", "added", 1),
    ]
    status = git(repository, "status", "--porcelain", "-z").split("\0")
    assert sorted(filter(None, status)) == [
        "A  data.bin", "A  src/né w.txt", "D  old.txt", "M  code.txt", "M  run.sh"
    ]  # fmt: skip
    assert os.access(repository / "run.sh", os.X_OK)
    assert "LINE 3" in (repository / "code.txt").read_text()


@pytest.mark.slow
def test_diff_in_a_pipe_is_the_patch_itself(agents: Local, repository: Path) -> None:
    work(agents, repository)
    done = agents("diff", "@last", env={"NO_COLOR": "", "FORCE_COLOR": "1"})
    assert done.status == 0
    assert done.out.startswith("diff --git a/code.txt b/code.txt\n")
    patch = repository.parent / "x.patch"
    patch.write_text(done.out)
    git(repository, "apply", "--check", str(patch))


def test_diff_in_colour_shows_no_control_characters(farmed: Local, repository: Path) -> None:
    left(farmed, r"printf 'a\033[31mb\n' > code.txt")
    done = farmed("diff", "@last", "--color", "always", env={"NO_COLOR": ""})
    assert "\x1b[32m+a\\x1b[31mb\x1b[m\n" in done.out


@pytest.mark.slow
def test_on_a_terminal(agents: Local, repository: Path) -> None:
    """The patch in colour; apply lists what tools run, and asks."""
    work(agents, repository, "echo x > Makefile; printf 'a\\033[31mb\\n' > code.txt")
    shown = on_terminal(["-P", "local", "diff", "@last", "--color", "always"], repository, "")
    assert "\x1b[32m+a\\x1b[31mb\x1b[m" in shown
    refused = on_terminal(["-P", "local", "apply", "@last"], repository, "n\n")
    assert "Makefile" in refused
    assert "Nothing was changed" in refused
    assert git(repository, "status", "--porcelain") == ""
    applied = on_terminal(["-P", "local", "apply", "@last"], repository, "y\n")
    assert "Applied the changes to 2 files" in applied
    assert "A  Makefile" in git(repository, "status", "--porcelain")


def on_terminal(words: list[str], folder: Path, answer: str) -> str:
    """What the command prints on a new terminal, where `answer` is typed."""
    command = shlex.join([sys.executable, "-m", "rebyte_cli", *words])
    done = subprocess.run(
        [need_tool("script"), "-qec", command, "/dev/null"],
        cwd=folder,
        input=answer,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.stdout


def test_the_repository_moved_on(farmed: Local, repository: Path) -> None:
    left(farmed)
    text = (repository / "code.txt").read_text()
    (repository / "code.txt").write_text("first\n" + text.replace("line 15", "LINE 15"))
    git(repository, "commit", "-q", "-a", "-m", "Meanwhile")
    assert farmed("apply", "@last", "--yes", cwd=repository).status == 0
    merged = (repository / "code.txt").read_text()
    assert merged.startswith("first\n")
    assert "LINE 3" in merged
    assert "LINE 15" in merged


def test_a_conflict_is_named(farmed: Local, repository: Path) -> None:
    left(farmed)
    text = (repository / "code.txt").read_text().replace("line 3\n", "other 3\n")
    (repository / "code.txt").write_text(text)
    git(repository, "commit", "-q", "-a", "-m", "Meanwhile")
    done = farmed("apply", "@last", "--yes", "-o", "table", cwd=repository)
    assert done.status == 1
    assert "1 file has conflicts: code.txt" in done.err
    assert "<<<<<<<" in (repository / "code.txt").read_text()
    found = re.search("`(git [^`]+)` undoes everything", done.err)
    assert found, done.err
    git(repository, *found[1].split()[1:])
    assert git(repository, "status", "--porcelain") == ""


def test_after_a_conflict_in_a_dirty_tree_no_hint_loses_what_is_not_committed(
    farmed: Local, repository: Path
) -> None:
    left(farmed)
    text = (repository / "code.txt").read_text().replace("line 3\n", "other 3\n")
    (repository / "code.txt").write_text(text)
    (repository / "mine.txt").write_text("mine\n")
    git(repository, "add", "-A")
    git(repository, "commit", "-q", "-m", "Meanwhile")
    (repository / "mine.txt").write_text("not committed\n")
    done = farmed("apply", "@last", "--yes", "--force", "-o", "table", cwd=repository)
    assert done.status == 1
    assert "1 file has conflicts: code.txt" in done.err
    assert "undoes" not in done.err


def test_a_patch_that_does_not_apply_changes_nothing(farmed: Local, repository: Path) -> None:
    left(farmed)
    git(repository, "rm", "-q", "code.txt")
    git(repository, "commit", "-q", "-m", "Gone")
    other = repository.parent / "other"
    other.mkdir()
    git(other, "init", "-q")
    done = farmed("apply", "@last", "--yes", cwd=other)
    assert done.status == 1
    assert "does not apply" in done.err
    assert sorted(path.name for path in other.iterdir()) == [".git"]


def test_a_file_in_the_way_is_named(farmed: Local, repository: Path) -> None:
    left(farmed)
    (repository / "data.bin").write_text("mine")
    done = farmed("apply", "@last", "--yes", "-o", "table", cwd=repository)
    assert done.status == 1
    assert "does not apply: data.bin already exists in the working tree" in done.err
    assert git(repository, "status", "--porcelain") == "?? data.bin\n"


def test_a_dirty_tree_is_refused(farmed: Local, repository: Path) -> None:
    left(farmed)
    (repository / "run.sh").write_text("#!/bin/sh\necho mine\n")
    done = farmed("apply", "@last", "--yes", "-o", "table", cwd=repository)
    assert done.status == 2
    assert "there are uncommitted changes: run.sh" in done.err
    assert "--force" in done.err
    done = farmed("apply", "@last", "--yes", "--force", cwd=repository)
    assert done.status == 0, done
    assert (repository / "run.sh").read_text() == "#!/bin/sh\necho mine\n"
    assert "LINE 3" in (repository / "code.txt").read_text()


def test_files_that_tools_run_by_themselves_are_named(farmed: Local, repository: Path) -> None:
    script = "mkdir -p .github/workflows; echo x > .github/workflows/ci.yml; echo x > Makefile"
    left(farmed, f"{script}; chmod +x run.sh; echo x > harmless.txt")
    done = farmed("apply", "@last", cwd=repository)
    assert done.status == 0
    for name in (".github/workflows/ci.yml", "Makefile", "run.sh (executable)"):
        assert name in done.err
    assert "harmless.txt" not in done.err


def test_apply_in_a_folder_below_the_root_applies_everything(
    farmed: Local, repository: Path
) -> None:
    left(farmed, "echo new > code.txt; echo x > Makefile; mkdir src; echo x > src/a")
    below = repository / "src"
    below.mkdir()
    done = farmed("apply", "@last", cwd=below)
    assert [row["path"] for row in done.json["data"]] == ["Makefile", "code.txt", "src/a"]
    assert "by themselves:\n  Makefile" in done.err
    assert (repository / "code.txt").read_text() == "new\n"


def test_odd_names_hide_no_executable_file(farmed: Local, repository: Path) -> None:
    script = """
    mv old.txt moved.txt; chmod +x moved.txt
    for name in 'two
lines' '"quoted"' 'back\\slash'; do printf x > "$name"; chmod +x "$name"; done
    """
    left(farmed, script)
    done = farmed("apply", "@last", cwd=repository)
    rows = {row["path"]: row for row in done.json["data"]}
    added = {"two\nlines", '"quoted"', "back\\slash"}
    assert {path: row["status"] for path, row in rows.items()} == {
        "moved.txt": "renamed", **dict.fromkeys(added, "added")
    }  # fmt: skip
    assert all(row["executable"] for row in rows.values())


MOVES = """
git mv code.txt 'new name.txt'; sed -i 's/line 3$/LINE 3/' 'new name.txt'
git mv old.txt "$(printf 'n\\377"q.txt')"; chmod +x run.sh; ln -s /etc/passwd link
git -c core.fsmonitor= rm -q --cached run.sh
"""


@pytest.mark.slow
def test_applied_twice_is_applied_once(agents: Local, repository: Path) -> None:
    """Deleted, renamed and odd names included; also when it was committed meanwhile."""
    work(agents, repository, MOVES + "printf '\\0\\1' > data.bin; mkdir -p e; : > e/empty")
    first = agents("apply", "@last", "--yes", "-o", "json", cwd=repository)
    assert first.status == 0, first
    rows = {row["path"]: (row["oldPath"], row["status"]) for row in first.json["data"]}
    assert rows == {
        "new name.txt": ("code.txt", "renamed"), 'n\\xff"q.txt': ("old.txt", "renamed"),
        "run.sh": (None, "modified"), "link": (None, "added"), "data.bin": (None, "added"),
        "e/empty": (None, "added"),
    }  # fmt: skip
    for committed in (False, True):
        if committed:
            git(repository, "commit", "-q", "-m", "Applied")
        before = git(repository, "status", "--porcelain")
        again = agents("apply", "@last", "--yes", cwd=repository)
        assert (again.status, again.json) == (0, {"data": []})
        assert "Nothing to apply" in again.err
        assert git(repository, "status", "--porcelain") == before
    (repository / "new name.txt").write_text((repository / "new name.txt").read_text() + "mine\n")
    git(repository, "commit", "-q", "-a", "-m", "More")
    (repository / "data.bin").unlink()
    assert "data.bin" in agents("apply", "@last", "--all", "-o", "table", cwd=repository).err


def text(repository: Path) -> str:
    return (repository / "code.txt").read_text()


@pytest.mark.slow
def test_the_review_loop_does_not_conflict_with_itself(agents: Local, repository: Path) -> None:
    """Applied, reviewed, committed, followed up in the same lines, applied again."""
    work(agents, repository, "sed -i 's/line 3$/first/' code.txt; echo x > new.txt")
    assert agents("apply", "@last", "--yes", cwd=repository).status == 0
    (repository / "code.txt").write_text(text(repository).replace("line 9\n", "mine\n"))
    git(repository, "commit", "-q", "-a", "-m", "Reviewed")
    second = "sed -i 's/first/second/' code.txt; rm new.txt"
    assert agents("follow-up", "@last", second, "--wait", cwd=repository).status == 0
    done = agents("apply", "@last", "--yes", "-o", "json", cwd=repository)
    assert (done.status, [row["path"] for row in done.json["data"]]) == (0, ["code.txt", "new.txt"])
    assert "second\n" in text(repository)
    assert "mine\n" in text(repository)
    git(repository, "commit", "-q", "-a", "-m", "Again")
    again = agents("apply", "@last", "-o", "table", cwd=repository)
    assert (again.status, "all of it was applied here before; --all" in again.err) == (0, True)
    # What was thrown away is new again, and so it is in another clone.
    git(repository, "reset", "-q", "--hard", "HEAD~2")
    assert agents("apply", "@last", "--yes", cwd=repository).status == 0
    assert "second\n" in text(repository)
    clone = repository.parent / "clone"
    git(repository.parent, "clone", "-q", str(repository), str(clone))
    assert agents("apply", "@last", "--yes", cwd=clone).status == 0
    assert "second\n" in text(clone)


@pytest.mark.slow
def test_what_was_thrown_away_is_new_again_whatever_else_has_changed(
    agents: Local, repository: Path
) -> None:
    def applied() -> list[str]:
        done = agents("apply", "@last", "--yes", "--force", "-o", "json", cwd=repository)
        assert done.status == 0, done
        assert done.json["data"] or "all of it was applied here before" in done.err
        return [row["path"] for row in done.json["data"]]

    work(agents, repository, "echo first > first.txt")
    assert applied() == ["first.txt"]
    git(repository, "reset", "-q", "--hard")
    (repository / "old.txt").write_text("mine\n")
    (repository / "other.txt").write_text("mine, too\n")
    assert applied() == ["first.txt"]
    git(repository, "rm", "-q", "-f", "first.txt")
    agents("follow-up", "@last", "echo second > second.txt", "--wait", cwd=repository)
    assert applied() == ["first.txt", "second.txt"]
    # What is there counts, although edited and not staged, and ignored.
    git(repository, "reset", "-q", "--", "first.txt", "second.txt")
    (repository / "second.txt").unlink()
    (repository / "first.txt").write_text("edited\n")
    assert applied() == []
    git(repository, "checkout", "-q", "--", "old.txt")
    (repository / ".git/info/exclude").write_text("*.txt\n")
    assert applied() == []
    (repository / "first.txt").unlink()
    assert applied() == ["first.txt", "second.txt"]


def test_where_the_patch_is_gone_every_change_counts(repository: Path) -> None:
    def gone() -> bytes:
        raise NotFound("it has no changes.patch")

    now = git(repository, "rev-parse", "HEAD").strip()
    assert not can_be_here(now, repository, gone)
    (repository / "old.txt").write_text("mine\n")
    assert can_be_here(now, repository, gone)


@pytest.mark.slow
def test_a_conflict_counts_as_applied(agents: Local, repository: Path) -> None:
    work(agents, repository, "sed -i 's/line 3$/theirs/' code.txt")
    (repository / "code.txt").write_text(text(repository).replace("line 3\n", "ours\n"))
    git(repository, "commit", "-q", "-a", "-m", "Ours")
    assert agents("apply", "@last", "--yes", cwd=repository).status == 1
    (repository / "code.txt").write_text("".join(f"line {n}\n" for n in range(20)) + "both\n")
    git(repository, "commit", "-q", "-a", "-m", "Both")
    agents("follow-up", "@last", "echo more > more.txt", "--wait", cwd=repository)
    done = agents("apply", "@last", "--yes", "-o", "json", cwd=repository)
    assert [row["path"] for row in done.json["data"]] == ["more.txt"], done


@pytest.mark.slow
def test_one_run_and_all_of_them(agents: Local, repository: Path) -> None:
    work(agents, repository, "echo 1 > one; echo 1 > both")
    agents("follow-up", "@last", "echo 2 > two; echo 2 > both", "--wait", cwd=repository)
    assert names(agents("diff", "@last", "--run").out) == ["both", "two"]
    assert "-1\n+2" in agents("diff", "@last", "--run").out
    assert names(agents("diff", "@last").out) == ["both", "one", "two"]
    agents("follow-up", "@last", "true", "--wait", cwd=repository)
    assert agents("diff", "@last", "--run").out == ""
    agents("apply", "@last", "--yes", cwd=repository)
    git(repository, "commit", "-q", "-m", "Applied")
    git(repository, "rm", "-q", "one")
    git(repository, "commit", "-q", "-m", "Not wanted")
    assert agents("apply", "@last", cwd=repository).json == {"data": []}
    done = agents("apply", "@last", "--all", "--yes", cwd=repository)
    assert (done.status, (repository / "one").read_text()) == (0, "1\n")


def names(patch: str) -> list[str]:
    """The files in a patch."""
    return [line.split(" b/")[1] for line in patch.splitlines() if line.startswith("diff --git")]


@pytest.mark.slow
def test_telling_runs_apart_obeys_nothing_of_the_agent(agents: Local, repository: Path) -> None:
    work(
        agents,
        repository,
        """
        for name in diff.evil.textconv diff.evil.command filter.evil.clean; do
            git config $name 'touch /code/ran; cat'
        done
        echo '* diff=evil filter=evil' > .gitattributes; echo 1 > x
        mkdir -p .git/hooks; cp .git/config .git/info/; printf '#!/bin/sh\ntouch /code/ran\n' \
            > .git/hooks/post-index-change; chmod +x .git/hooks/post-index-change
        """,
    )
    agents("follow-up", "@last", "echo 2 > x", "--wait", cwd=repository)
    assert "-1\n+2" in agents("diff", "@last", "--run").out
    folder = Path(agents("workspace", "path", "@last").out.strip())
    assert not (folder / "ran").exists()


@pytest.mark.slow
def test_a_branch_is_made_at_the_commit_that_the_run_started_from(
    agents: Local, repository: Path
) -> None:
    """Whatever happened here since; below uncommitted changes that came along; after a sync."""
    start = git(repository, "rev-parse", "HEAD").strip()
    plain = work(agents, repository).json
    assert agents("get", plain["id"], "-o", "json").json["baseCommit"] == start
    (repository / "extra.txt").write_text("not committed\n")
    changed = work(agents, repository, "echo x > one.txt", "--with-changes").json
    git(repository, "add", "-A")
    git(repository, "commit", "-q", "-m", "Meanwhile")
    head = git(repository, "rev-parse", "HEAD").strip()
    for name, task in (("plain", plain), ("changed", changed)):
        done = agents("apply", task["id"], "--branch", name, cwd=repository)
        assert done.status == 0, done
        assert git(repository, "rev-parse", f"{name}~").strip() == start
    assert git(repository, "diff", "--name-only", start, "changed") == "one.txt\n"
    assert git(repository, "status", "--porcelain") == ""
    synced = agents("follow-up", plain["id"], "echo 2 > two", "--sync", "--wait", cwd=repository)
    assert synced.status == 0, synced
    assert agents("apply", plain["id"], "--branch", "synced", cwd=repository).status == 0
    assert git(repository, "rev-parse", "synced~").strip() == head
    assert "\ntwo\n" in git(repository, "diff", "--name-only", "main", "synced")


def test_only_some_paths(farmed: Local, repository: Path) -> None:
    left(farmed, WORK + "ln -s code.txt link; mv run.sh src/'a b.sh'")
    below = repository / "src"
    below.mkdir()
    nothing = farmed("apply", "@last", "--", "../code.txt", "none", "-o", cwd=below)
    assert (nothing.status, nothing.out) == (2, "")
    assert "the changes have nothing at none, -o" in nothing.err
    some = ("apply", "@last", "--yes", "-o", "json", "--", ".", "../link")
    crossing = farmed(*some, cwd=below)
    assert (crossing.status, crossing.out) == (2, "")
    assert "run.sh becomes src/a b.sh, and only one of them is at these paths" in crossing.err
    done = farmed(*some, "../run.sh", cwd=below)
    assert [row["path"] for row in done.json["data"]] == ["link", "src/a b.sh", "src/né w.txt"]
    assert not (repository / "run.sh").exists()
    git(repository, "commit", "-q", "-m", "Some")
    rest = farmed("apply", "@last", "--yes", "-o", "json", cwd=repository)
    assert rest.status == 0, rest
    assert [row["path"] for row in rest.json["data"]] == ["code.txt", "data.bin", "old.txt"]


@pytest.mark.slow
def test_two_tasks_in_one_workspace_have_their_own_changes(agents: Local, repository: Path) -> None:
    first = work(agents, repository, "echo 1 > one; sed -i 's/line 3$/first/' code.txt").json
    second = work(
        agents, repository, "echo 2 > two; sed -i 's/line 15$/second/' code.txt",
        "-w", first["workspaceId"],
    ).json  # fmt: skip
    follow_up = "echo 3 > three; sed -i 's/first/third/' code.txt"
    agents("follow-up", first["id"], follow_up, "--wait", cwd=repository)
    assert names(agents("diff", first["id"]).out) == ["code.txt", "one", "three"]
    assert "second" not in agents("diff", first["id"]).out
    assert names(agents("diff", second["id"]).out) == ["code.txt", "two"]
    for task in (second, first):
        assert agents("apply", task["id"], "--yes", cwd=repository).status == 0
        git(repository, "commit", "-q", "-m", "Applied")
    assert "third\n" in text(repository)
    assert "second\n" in text(repository)
    entangled = work(
        agents, repository, "sed -i 's/third/x/' code.txt", "-w", first["workspaceId"]
    ).json
    agents("follow-up", first["id"], "sed -i 's/^x$/y/' code.txt", "--wait", cwd=repository)
    refused = agents("diff", first["id"], "-o", "table")
    assert refused.status == 1
    assert f"changes of task {first['id']} cannot be told from those of other tasks" in refused.err
    assert "+x\n" in agents("diff", entangled["id"]).out
    assert "-x\n+y\n" in agents("diff", first["id"], "--run").out


@pytest.mark.slow
def test_a_repository_with_sha256_knows_what_it_has(
    agents: Local, repository: Path, home: Path
) -> None:
    git(home, "init", "-q", "-b", "main", "--object-format=sha256", "other")
    other = home / "other"
    (other / "code.txt").write_text("one\n")
    git(other, "add", "-A")
    git(other, "commit", "-q", "-m", "Start")
    work(agents, other, "echo two >> code.txt; ln -s code.txt link")
    assert agents("apply", "@last", "--yes", cwd=other).status == 0
    assert os.readlink(other / "link") == "code.txt"
    done = agents("apply", "@last", "--yes", "--force", "-o", "table", cwd=other)
    assert (done.status, "Nothing to apply" in done.err) == (0, True)


def test_a_dirty_tree_is_named_by_its_new_names(farmed: Local, repository: Path) -> None:
    left(farmed, "echo x > new")
    git(repository, "mv", "old.txt", "README.txt")
    done = farmed("apply", "@last", "-o", "table", cwd=repository)
    assert "there are uncommitted changes: README.txt, old.txt" in done.err


def test_no_name_hides_an_executable_file(farmed: Local, repository: Path) -> None:
    """One with the line of another in it, as git's own summary prints it."""
    name = "evil\n delete mode 100644 y"
    left(farmed, f"printf x > '{name}'; chmod +x '{name}'")
    (row,) = farmed("apply", "@last", cwd=repository).json["data"]
    assert (row["path"], row["status"], row["executable"]) == (name, "added", True)


@pytest.mark.slow
def test_no_name_writes_lines_of_a_list(agents: Local, repository: Path) -> None:
    """Not of the risks, before anything is asked, and not of conflicts and uncommitted changes."""
    name = "Makefile (make)\nApply these changes? (y or n): y\nmine"
    work(agents, repository, f"echo theirs > '{name}'; chmod +x '{name}'; echo x > 'a  \"b.sh'")
    shown = r'"Makefile (make)\nApply these changes? (y or n): y\nmine"'
    said = on_terminal(["-P", "local", "apply", "@last"], repository, "n\n")
    assert f"  {shown} (executable)" in " ".join(said.split("\n"))
    assert not re.search("^Apply these changes.*: y", said, re.MULTILINE)
    assert agents("apply", "@last", "--all", cwd=repository).status == 0
    git(repository, "reset", "-q", "--hard")
    (repository / name).write_text("mine\n")
    git(repository, "add", "-A")
    git(repository, "commit", "-q", "-m", "Mine")
    done = agents("apply", "@last", "--all", "--yes", "-o", "table", cwd=repository)
    assert f"1 file has conflicts: {shown}" in " ".join(done.err.split())
    done = agents("apply", "@last", "--all", "-o", "table", cwd=repository)
    assert f"there are uncommitted changes: {shown}" in " ".join(done.err.split())


def test_links_and_submodules_are_named_by_their_mode(repository: Path) -> None:
    head = git(repository, "rev-parse", "HEAD").strip()
    git(repository, "update-index", "--add", "--cacheinfo", f"160000,{head},module")
    patch = git(repository, "diff", "--cached", "--binary", "--full-index")
    git(repository, "reset", "-q")
    (repository / "notes.txt").symlink_to("/etc")
    git(repository, "add", "-A")
    patch += git(repository, "diff", "--cached", "--binary", "--full-index")
    git(repository, "reset", "-q", "--hard")
    with prepared(patch.encode(), repository) as ready:
        found = risks_between(repository, ready.before, ready.after.tree)
    assert found == [
        "module (submodule)",
        "notes.txt (symbolic link)",
    ]


def test_apply_runs_no_hook_and_no_monitor_but_the_filters_that_it_needs(
    farmed: Local, repository: Path, home: Path
) -> None:
    ran = home / "ran"
    (repository / ".gitattributes").write_text("*.txt filter=upper\n")
    git(repository, "add", "-A")
    git(repository, "commit", "-q", "-m", "Attributes")
    left(farmed, "echo made > made.txt; sed -i 's/line 3$/LINE 3/' code.txt")
    for name, value in (
        ("core.fsmonitor", f"touch {ran}; false"), ("core.hooksPath", str(home / "hooks")),
        ("filter.upper.smudge", "tr m M"), ("filter.upper.clean", "tr M m"),
    ):  # fmt: skip
        git(repository, "config", name, value)
    (home / "hooks").mkdir()
    for name in ("post-index-change", "reference-transaction", "post-checkout"):
        (home / "hooks" / name).write_text(f"#!/bin/sh\ntouch {ran}\n")
        (home / "hooks" / name).chmod(0o755)
    done = farmed("apply", "@last", cwd=repository)
    assert done.status == 0, done
    assert not ran.exists()
    assert (repository / "made.txt").read_text() == "Made\n", "as a checkout would write it"
    assert "LINE 3" in (repository / "code.txt").read_text()


def stopped_apply(
    repository: Path,
    home: Path,
    number: signal.Signals,
    then: str = 'exec git "$@"',
    during: str = "read-tree -m",
    words: Sequence[str] = ("-P", "local", "apply"),
) -> tuple[int, str]:
    """The status and stderr of an `apply` that gets a signal while git works."""
    slow = home / "slow"
    slow.mkdir()
    (slow / "git").write_text(
        f"""#!/bin/sh
PATH={os.environ["PATH"]}
case "$*" in *"{during}"*)
    touch {slow}/started; until [ -e {slow}/go ]; do sleep 0.02; done; {then} ;;
esac
exec git "$@"
"""
    )
    (slow / "git").chmod(0o755)
    command = [sys.executable, "-m", "rebyte_cli", *words, "@last", "--yes"]
    process = subprocess.Popen(
        command,
        cwd=repository,
        env={**os.environ, "PATH": f"{slow}:{os.environ['PATH']}"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    eventually((slow / "started").exists)
    os.killpg(process.pid, number)
    (slow / "go").touch()
    _, errors = process.communicate(timeout=60)
    return process.returncode, errors


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_signal_leaves_no_lock_and_no_half_of_a_patch(
    agents: Local, repository: Path, home: Path, number: signal.Signals
) -> None:
    work(agents, repository)
    status, errors = stopped_apply(repository, home, number)
    assert status == (-9 if number == signal.SIGKILL else 128 + number)
    assert number == signal.SIGKILL or "The changes were applied" in errors
    # A status that locks the index to refresh it would get in the way of the git that is observed.
    looking = ("--no-optional-locks", "status", "--porcelain")
    # What is killed no longer stages what git writes to the end.
    staged = number != signal.SIGKILL
    eventually(lambda: ("D  old.txt" if staged else " D old.txt") in git(repository, *looking))
    eventually(lambda: not (repository / ".git/index.lock").exists())
    eventually(lambda: ("A  data.bin" if staged else "?? data.bin") in git(repository, *looking))


@pytest.mark.slow
def test_a_signal_says_that_nothing_was_committed(
    farmed: Local, repository: Path, home: Path
) -> None:
    left(farmed, "echo x > new.txt")
    words = ("apply", "--commit")
    status, errors = stopped_apply(repository, home, signal.SIGINT, words=words)
    assert (status, git(repository, "status", "--porcelain")) == (130, "A  new.txt\n")
    assert "The changes were applied, but not committed" in errors


@pytest.mark.slow
def test_a_signal_says_that_nothing_was_applied(
    agents: Local, repository: Path, home: Path
) -> None:
    work(agents, repository)
    status, errors = stopped_apply(repository, home, signal.SIGINT, then="exit 1")
    assert (status, git(repository, "status", "--porcelain")) == (130, "")
    assert "Nothing was applied" in errors


@pytest.mark.slow
@pytest.mark.parametrize(
    "during", ["rev-parse --show-toplevel", "apply --numstat", "apply --cached"]
)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_before_anything_is_applied_says_so(
    agents: Local, repository: Path, home: Path, number: signal.Signals, during: str
) -> None:
    work(agents, repository)
    status, errors = stopped_apply(repository, home, number, during=during)
    assert (status, git(repository, "status", "--porcelain")) == (128 + number, ""), errors
    assert errors.count("Nothing was applied") == 1


@pytest.mark.slow
def test_a_signal_says_that_there_are_conflicts(
    agents: Local, repository: Path, home: Path
) -> None:
    work(agents, repository, "sed -i 's/line 3$/LINE 3/' code.txt")
    code = repository / "code.txt"
    code.write_text(code.read_text().replace("line 3\n", "line three\n"))
    git(repository, "commit", "-q", "-a", "-m", "Mine")
    status, errors = stopped_apply(repository, home, signal.SIGINT)
    assert status == 130
    assert "The changes were applied, with conflicts in code.txt" in errors


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(
    ("words", "during", "told"),
    [
        (["apply", "--commit"], "update-ref -m", "The changes were applied and committed"),
        (["apply", "--branch", "new"], "update-ref --no-deref", "Branch new was made"),
    ],
    ids=["commit", "branch"],
)
def test_a_signal_says_what_was_committed(
    farmed: Local,
    repository: Path,
    home: Path,
    number: signal.Signals,
    words: list[str],
    during: str,
    told: str,
) -> None:
    left(farmed, "echo x > new.txt")
    status, errors = stopped_apply(repository, home, number, during=during, words=words)
    assert (status, told in errors, "Nothing" in errors) == (128 + number, True, False), errors
    made = "new" if "--branch" in words else "main"
    assert git(repository, "ls-tree", "--name-only", made, "new.txt") == "new.txt\n"


@pytest.mark.parametrize(
    ("words", "told"),
    [([], "The changes were applied"), (["--commit"], "The changes were applied, but not commi")],
)
def test_a_signal_between_the_files_and_the_commit_says_so(
    farmed: Local,
    repository: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    told: str,
) -> None:
    note = App.note

    def interrupted(app: App, message: str) -> None:
        if message.startswith("Applied"):
            raise KeyboardInterrupt
        note(app, message)

    left(farmed, "echo x > new.txt")
    monkeypatch.setattr(App, "note", interrupted)
    done = farmed("apply", "@last", "--yes", *words, "-o", "table", cwd=repository)
    assert (done.status, told in done.err, "Nothing" in done.err) == (130, True, False), done
    assert git(repository, "status", "--porcelain") == "A  new.txt\n"


def test_a_branch_that_cannot_be_moved_says_what_was_applied(
    farmed: Local, repository: Path
) -> None:
    left(farmed, "echo x > new.txt")
    (repository / ".git/refs/heads/main.lock").touch()
    done = farmed("apply", "@last", "--yes", "--commit", "-o", "table", cwd=repository)
    assert (done.status, "main.lock" in done.err) == (1, True), done
    assert "The changes were applied, but not committed" in done.err
    assert git(repository, "status", "--porcelain") == "A  new.txt\n"


@pytest.mark.slow
def test_nothing_to_apply(agents: Local, repository: Path) -> None:
    work(agents, repository, "true")
    done = agents("apply", "@last", cwd=repository)
    assert (done.status, done.json) == (0, {"data": []})
    assert "changed nothing" in done.err
    (repository / "run.sh").write_text("#!/bin/sh\necho mine\n")
    done = agents("apply", "@last", cwd=repository)
    assert done.status == 0, "a tree need not be clean for nothing"
    assert "changed nothing" in done.err


def test_a_simulated_task_has_no_patch(local_inside: Local, repository: Path) -> None:
    local_inside("create", "Say hello", "--wait")
    done = local_inside("diff", "@last", "-o", "table")
    assert done.status == 4
    assert "has no changes.patch" in done.err
    for words in (("diff",), ("diff", "--run"), ("apply",), ("workspace", "path")):
        said = local_inside(*words, "@last", "-o", "table", cwd=repository).err
        assert "No agent was started: a run without -x is simulated" in said


@pytest.mark.slow
def test_no_older_state_is_delivered_if_the_last_patch_could_not_be_made(
    agents: Local, repository: Path
) -> None:
    task = work(agents, repository, "echo good > good").json["id"]
    script = "mv good bad; head -c 1048577 /dev/zero > .gitattributes"
    assert agents("follow-up", task, script, "--wait").status == 0
    for words in (("diff",), ("diff", "--run"), ("apply", "--yes")):
        done = agents(*words, task, "-o", "table", cwd=repository)
        assert (done.status, done.out) == (4, ""), words
        assert "has no changes.patch" in done.err
        assert "It could not be made: ./.gitattributes is larger than 1 MiB" in done.err
    landed = agents("land", task, "--branch", "b", "--check", "test -f good", cwd=repository)
    assert (landed.status, git(repository, "diff", "main", "b")) == (10, "")
    assert agents("follow-up", task, "rm .gitattributes", "--wait").status == 0
    assert "b/bad" in agents("diff", task).out


def test_outside_of_a_repository(farmed: Local, repository: Path, home: Path) -> None:
    left(farmed)
    done = farmed("apply", "@last", "-o", "table", cwd=home)
    assert done.status == 2
    assert "not inside a git repository" in done.err
    git(home, "clone", "-q", "--bare", str(repository), "bare.git")
    done = farmed("apply", "@last", "-o", "table", cwd=home / "bare.git")
    assert done.status == 2
    assert "not inside a work tree" in done.err


@pytest.mark.slow
def test_uncommitted_changes_come_along(agents: Local, repository: Path) -> None:
    (repository / "untracked").write_text("x")
    created = work(agents, repository, "ls > seen; cat seen", "--with-changes")
    assert "untracked" in created.json["finalResult"]
    assert "untracked" not in agents("diff", "@last").out.split("+++")[0]


@pytest.mark.slow
def test_line_ends_of_the_user_are_staged_by_nothing(
    agents: Local, repository: Path, home: Path
) -> None:
    (home / ".gitconfig").write_text("[core]\n\tautocrlf = true\n")
    (repository / "code.txt").unlink()
    git(repository, "checkout", "-q", "--", ".")
    assert "line 3\r\n" in (repository / "code.txt").read_bytes().decode()
    work(agents, repository)
    done = agents("apply", "@last", "--yes", cwd=repository)
    assert done.status == 0, done
    assert git(repository, "diff", "--cached", "--numstat", "--", "code.txt").startswith("1\t1\t")
    assert "\r" not in git(repository, "show", ":code.txt", ":src/né w.txt")
    assert "LINE 3\r\n" in (repository / "code.txt").read_bytes().decode()


@pytest.mark.slow
def test_the_folder_of_a_workspace(agents: Local, repository: Path, home: Path) -> None:
    work(agents, repository)
    done = agents("workspace", "path", "@last")
    folder = Path(done.out.strip())
    assert (folder / "data.bin").read_bytes() == b"\0\1\2"
    assert agents("workspace", "delete", "@last", "--yes").status == 0
    assert not folder.exists()
    assert agents("workspace", "path", str(folder.parent.name)).status == 4


@pytest.mark.slow
def test_why_there_is_no_patch_or_folder(
    agents: Local, inside: Local, repository: Path, home: Path
) -> None:
    with (repository.parent / ".config/rebyte/config.toml").open("a") as file:
        file.write("[local]\nparallel = 1\n")
    gone = agents("create", "x", "-x", "mine", "-g", "https://0.invalid/a/b", "--wait")
    assert gone.status == 10
    none = agents("workspace", "path", "@1").err
    assert "It could not be made; see why with `rebyte -P local logs" in none
    wait = "echo begun; until [ -e go ]; do sleep 0.02; done"
    first = agents("create", wait, "-x", "mine", "-g", ".", "-o", "json", cwd=repository).json
    second = agents("create", "true", "-x", "mine", "-g", ".", "-o", "json", cwd=repository).json
    eventually(lambda: "begun" in agents("logs", first["id"]).out)
    (state,) = home.glob(".local/state/*/local")
    hint = workspace_access.why_no_folder(state, second["workspaceId"])
    assert hint == ("Its run waits for its turn; wait with ", ("wait", second["id"]))
    for command in ("diff", "apply"):
        unfinished = agents(command, first["id"], "-o", "table", cwd=repository)
        assert unfinished.status == 4
        assert "It has not ended: `rebyte -P local wait" in unfinished.err
    folder = Path(agents("workspace", "path", first["id"], "--running").out.strip())
    (folder / "go").touch()
    assert agents("wait", first["id"], second["id"]).status == 0
    agents("workspace", "delete", first["id"], "--yes")
    assert "It was deleted" in agents("workspace", "path", first["workspaceId"]).err
    other = inside("-P", "default", "workspace", "path", first["workspaceId"])
    assert "-P local has those here" in other.err


@pytest.mark.slow
def test_git_of_a_workspace_runs_in_a_jail(agents: Local, repository: Path, home: Path) -> None:
    commit = "git commit -q -a -m Work; git config alias.log2 '!touch %s/ran /code/ran'"
    work(agents, repository, "echo x > code.txt; " + commit % home)
    assert agents("workspace", "git", "@last", "--", "log", "--format=%s").out == "Work\nStart\n"
    agents("workspace", "git", "@last", "--", "config", "alias.log2", f"!touch {home}/ran")
    assert agents("workspace", "git", "@last", "--", "log2").status == 1
    assert not (home / "ran").exists()
    failed = agents("workspace", "git", "@last", "-o", "table", "--", "log", "nothing")
    assert (failed.status, failed.out) == (1, "")
    assert "ambiguous argument 'nothing'" in failed.err


@pytest.mark.slow
def test_the_folder_is_not_for_git_while_an_agent_works(agents: Local, repository: Path) -> None:
    wait = "touch started; until [ -e go ]; do sleep 0.02; done"
    words = ("create", wait, "-x", "mine", "-g", ".", "-o", "id")
    assert agents(*words, cwd=repository).status == 0
    folder = Path(agents("workspace", "path", "@last", "--running").out.strip())
    eventually((folder / "started").exists)
    done = agents("workspace", "path", "@last", "-o", "table")
    assert (done.status, done.out) == (1, "")
    assert "an agent is working in workspace" in done.err
    assert agents("workspace", "git", "@last", "--", "status", "--short").out == "?? started\n"
    (folder / "go").touch()
    assert agents("wait", "@last").status == 0
    assert agents("workspace", "path", "@last").out == f"{folder}\n"


def test_no_jail_is_for_no_other_service(inside: Local) -> None:
    done = inside("create", "x", "--no-jail", "-o", "table", env={"REBYTE_API_KEY": "rbk_x"})
    assert done.status == 2
    assert "--no-jail requires -P local" in done.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("create", "x", "--allow", "pypi.org"), "--allow requires -P local"),
        (("create", "x", "--network", "host"), "--network requires -P local"),
        (("create", "x", "--allow", "https://pypi.org"), "is not a host such as pypi.org"),
        (("create", "x", "--allow", "a", "--network", "none"), "cannot be used together"),
        (("create", "x", "--allow", "a", "--no-jail"), "cannot be used together"),
        (("follow-up", "t", "x", "--allow", "pypi.org"), "--allow requires -P local"),
        (("logs", "t", "--network"), "--network requires -P local"),
        (("logs", "t", "--network", "-f"), "--network and -f cannot be used together"),
    ],
)
def test_options_for_the_network_of_agents_here(
    inside: Local, words: tuple[str, ...], said: str
) -> None:
    done = inside(*words, "-o", "table", env={"REBYTE_API_KEY": "rbk_x"})
    assert done.status == 2
    assert said in done.err


def test_what_is_sent_about_the_network(agents: Local, home: Path) -> None:
    words = ("--allow", "pypi.org", "--allow", "*.example.com", "--dry-run")
    for command in (("create", "x"), ("follow-up", "t", "x")):
        sent = agents(*command, *words, "-o", "json").json
        assert sent["allow"] == ["pypi.org", "*.example.com"]
    file = home / "tasks.jsonl"
    file.write_text('{"prompt": "x"}\n')
    sent = agents("batch", str(file), "--network", "none", "--dry-run").json["body"]
    assert sent["network"] == "none"


@pytest.mark.slow
def test_what_a_run_was_refused_is_shown(agents: Local, home: Path) -> None:
    line = "1 request to a.example was refused; allow it with --allow a.example"
    done = agents("create", f"bash <<'END'\n{ASK_REFUSED}\nEND", "-x", "mine", "--stream")
    assert done.status == 0
    assert line in done.out
    assert line in agents("logs", "@last").out
    (row,) = agents("logs", "@last", "--network", "-o", "json").json["data"]
    assert (row["host"], row["port"], row["method"], row["status"]) == (
        "a.example", 443, "CONNECT", 403
    )  # fmt: skip
    assert row["option"] == "--allow a.example"
    again = agents("rerun", "@last", "--allow", "a.example", "--wait")
    assert again.status == 0
    assert line not in agents("logs", "@last").out
    done = agents("workspace", "run", "@last", "--", "bash", "-c", ASK_REFUSED)
    assert "403" not in done.out
    assert line not in done.err


def test_agents_and_key(agents: Local, home: Path) -> None:
    rows = {row["name"]: row for row in agents("local", "agents", "-o", "json").json["data"]}
    assert rows["mine"]["usable"]
    assert rows["mine"]["program"] == str(home / "agent")
    key = agents("local", "key").out
    assert key.startswith("rbk_local_")
    assert agents("local", "key").out == key
    status = agents("local", "status", "-o", "json").json
    assert (status["agentsRunning"], status["agentsQueued"]) == (0, 0)


def test_a_bad_table_of_agents_is_named(agents: Local, home: Path) -> None:
    config = home / ".config/rebyte/config.toml"
    config.write_text("[local.agents.mine]\ncommand = 1\n")
    done = agents("local", "agents", "-o", "table")
    assert done.status == 2
    assert f"{config}: [local.agents.mine]" in done.err


@pytest.mark.slow
def test_the_default_executor_of_the_profile(agents: Local) -> None:
    assert agents("profile", "set", "local", "executor=mine").status == 0
    done = agents("create", "echo hi", "--wait", "-o", "json")
    assert done.json["finalResult"] == "hi\nDone."


def test_skills_are_listed_and_completed(agents: Local, home: Path) -> None:
    folder = home / ".claude/skills/pdf"
    folder.mkdir(parents=True)
    (folder / "SKILL.md").write_text("---\nname: pdf\ndescription: Reads PDF files\n---\n")
    (row,) = agents("skill", "list", "-o", "json").json["data"]
    assert (row["name"], row["description"]) == ("pdf", "Reads PDF files")
    from rebyte_cli.completion import values

    app = App(dict(os.environ))
    app.set_option("profile", "local")
    assert ("pdf", "Reads PDF files") in list(values.skills(app))
    assert ("mine", "a program of config.toml") in list(values.executors(app))


@pytest.mark.slow
def test_a_line_of_a_batch_with_its_own_repository(
    agents: Local, repository: Path, home: Path
) -> None:
    other = home / "other"
    subprocess.run(["git", "clone", "-q", str(repository), str(other)], check=True)
    (other / "theirs").write_text("x")
    git(other, "add", "-A")
    git(other, "commit", "-q", "-m", "More")
    lines = [
        {"key": "here", "prompt": "ls"},
        {"key": "there", "prompt": "ls", "githubUrl": str(other)},
        {"key": "none", "prompt": "ls", "githubUrl": None},
    ]
    (repository / "tasks.jsonl").write_text("\n".join(map(json.dumps, lines)))
    done = agents("batch", "tasks.jsonl", "-x", "mine", "-g", ".", "-o", "jsonl", cwd=repository)
    assert done.status == 0, done
    answers = {row["key"]: agents("result", row["id"]).out.split() for row in done.documents}
    assert "theirs" not in answers["here"]
    assert "code.txt" in answers["here"]
    assert "theirs" in answers["there"]
    assert answers["none"] == ["Done."]


@pytest.mark.slow
def test_a_batch_over_one_repository(agents: Local, repository: Path) -> None:
    lines = [
        {"key": str(n), "prompt": f"echo {n} > file{n}; echo {n}", "executor": "mine"}
        for n in range(3)
    ]
    (repository / "tasks.jsonl").write_text("\n".join(map(json.dumps, lines)))
    done = agents("batch", "tasks.jsonl", "-g", ".", "-o", "jsonl", cwd=repository)
    assert done.status == 0, done
    rows: list[dict[str, Any]] = done.documents
    assert sorted(row["status"] for row in rows) == ["completed"] * 3
    for row in rows:
        assert f"file{row['key']}" in agents("diff", row["id"]).out
