"""What a patch is made of."""

from __future__ import annotations

import hashlib
import mmap
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from rebyte_cli.local.agents import agent_files
from rebyte_cli.local.agents.sandbox import jail
from rebyte_cli.local.agents.workspaces import changes
from rebyte_cli.local.agents.workspaces.restore import restore
from rebyte_cli.local.agents.workspaces.workspace_folder import Workspace, WorkspaceSource
from rebyte_cli.system.git import MEMORY, GitFailed
from tests.local.agents.bench import script
from tests.repositories import git, introduce
from tests.tools import need_jail


def test_git_reads_every_file_whatever_it_knows_of_it(tmp_path: Path) -> None:
    """A program can change a file without a trace in its times."""
    workspace = Workspace(tmp_path, "ws")
    workspace.prepare(WorkspaceSource(None, None, False), ())
    for name in ("known", "other"):
        (workspace.code / name).write_text(name)
        os.utime(workspace.code / name, (1, 1))
    changes.patch(workspace, "first", jailed=False)
    # As if the file had the content of another when git read it.
    index = workspace.base / "index"
    known, other = (
        bytes.fromhex(git(workspace.base, "rev-parse", f"refs/runs/first:{name}").strip())
        for name in ("known", "other")
    )
    content = index.read_bytes()[:-20].replace(known, other)
    index.write_bytes(content + hashlib.sha1(content).digest())
    changes.patch(workspace, "last", jailed=False)
    assert git(workspace.base, "show", "refs/runs/last:known") == "known"


SHM = Path("/dev/shm")


@pytest.mark.skipif(not os.path.ismount(SHM), reason="/dev/shm is not in memory")
def test_a_change_through_memory_is_kept_where_it_leaves_no_time() -> None:
    """On tmpfs, writing to a mapped page that was read before changes no time of its file."""
    with tempfile.TemporaryDirectory(dir=SHM) as folder:
        workspace = Workspace(Path(folder), "ws")
        workspace.prepare(WorkspaceSource(None, None, False), ())
        file = workspace.code / "file"
        file.write_text("a\n")
        os.utime(file, (1, 1))  # older than the index, so that git need not look into it
        (workspace.code / "ignored").touch()
        changes.patch(workspace, "first", jailed=False)
        with file.open("r+b") as opened, mmap.mmap(opened.fileno(), 0) as memory:
            assert memory[0] == ord("a")
            memory[0] = ord("b")
        (workspace.code / ".gitignore").write_text("ignored\n")
        assert b"b/ignored" in changes.patch(workspace, "last", jailed=False)
        assert git(workspace.base, "show", "refs/runs/last:file") == "b\n"


PATCH = """
import sys
from pathlib import Path
from rebyte_cli.local.agents.workspaces import changes
from rebyte_cli.local.agents.workspaces.workspace_folder import Workspace
workspace = Workspace(Path(sys.argv[1]), "ws")
for folder in (workspace.code, workspace.home):
    folder.chmod(0)
print(changes.patch(workspace, "run", jailed=sys.argv[2] == "True").decode())
"""


@pytest.mark.parametrize("jailed", [False, True])
def test_an_agent_cannot_keep_its_folders_closed(tmp_path: Path, jailed: bool) -> None:
    if jailed:
        need_jail()
    workspace = Workspace(tmp_path, "ws")
    workspace.prepare(WorkspaceSource(None, None, False), ())
    (workspace.code / "work").write_text("of the agent")
    like_a_user = ["/usr/bin/setpriv", "--bounding-set=-dac_override,-dac_read_search"]
    words = [sys.executable, "-c", PATCH, str(tmp_path), str(jailed)]
    words = words if os.getuid() else [*like_a_user, *words]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert "+of the agent" in done.stdout, done.stderr


def test_a_name_that_git_does_not_allow_is_told(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path, "ws")
    workspace.prepare(WorkspaceSource(None, None, False), ())
    (workspace.code / "x").mkdir()
    (workspace.code / "x/.GIT").touch()
    with pytest.raises(GitFailed, match=r"^invalid path 'x/\.GIT'$"):
        changes.patch(workspace, "run", jailed=False)


def test_no_older_state_stands_for_a_run_without_a_tree(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path, "ws")
    workspace.prepare(WorkspaceSource(None, None, False), ())
    (workspace.code / "first").touch()
    changes.patch(workspace, "first", jailed=False)
    (workspace.code / ".gitattributes").write_bytes(b"#" * 1_048_577)
    with pytest.raises(GitFailed, match="larger than 1 MiB"):
        changes.patch(workspace, "last", jailed=False)

    def of(*wanted: str) -> bytes | None:
        return changes.of_runs(workspace, ["first", "last"], wanted, jailed=False)

    assert (of("first", "last"), of("last")) == (None, None)
    assert b"b/first" in (of("first") or b"")


def test_no_older_state_stands_for_a_run_of_which_a_full_disk_keeps_no_note(
    tmp_path: Path,
) -> None:
    """What there was is kept for it when a workspace that was pruned is made again."""
    resource = pytest.importorskip("resource")
    workspace, source = Workspace(tmp_path, "ws"), WorkspaceSource(None, None, False)
    workspace.prepare(source, ())
    (workspace.code / "first").touch()
    changes.patch(workspace, "first", jailed=False)
    agent_files.remove_tree(workspace.code)
    workspace.run_folder("last").mkdir(parents=True)
    assert restore(workspace, source, ["last", "first"], "last", jailed=False, watch=str)
    assert b"b/first" in (changes.of_runs(workspace, ["last"], ["last"], jailed=False) or b"")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        workspace.note_patch("last", "the disk is full")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert workspace.why_no_patch("last") == "the run did not end"
    workspace.note_patch("last")
    assert workspace.why_no_patch("last") == ""


def test_attributes_of_the_agent_hide_no_lines_of_a_patch(tmp_path: Path) -> None:
    """Ignored, they would not even be in the patch themselves."""
    workspace = Workspace(tmp_path, "ws")
    workspace.prepare(WorkspaceSource(None, None, False), ())
    (workspace.code / ".gitignore").write_text(".gitattributes\n")
    (workspace.code / ".gitattributes").write_text("*.py -diff\n")
    (workspace.code / "a.py").write_text("evil\n")
    assert b"\n+evil\n" in changes.patch(workspace, "only", jailed=False)


@pytest.mark.parametrize("is_split", [False, True])
def test_a_patch_has_ignored_files_that_the_agent_tracks(tmp_path: Path, is_split: bool) -> None:
    """After `git mv` into an ignored folder, it would have a deletion alone."""
    workspace = Workspace(tmp_path, "ws")
    workspace.prepare(WorkspaceSource(None, None, False), ())
    code = workspace.code
    (code / ".gitignore").write_text("build/\n*.log\n")
    for name in ("src/tool.py", "here/in.log", "there/in.log", "pipe.log", "none.log", "[n].log"):
        (code / name).parent.mkdir(exist_ok=True)
        (code / name).write_text(name)
    changes.patch(workspace, "first", jailed=False)
    (code / "build").mkdir()
    (code / "build/other").write_text("not tracked")
    git(code, "init", "-q")
    git(code, "add", "-f", "src", "here", "there", "pipe.log", "none.log", ":(literal)[n].log")
    git(code, "mv", "src/tool.py", "build/tool.py")
    if is_split:
        git(code, "update-index", "--split-index")
    # What is no file any more, or behind a link, is gone for git, too.
    (code / "pipe.log").unlink()
    os.mkfifo(code / "pipe.log")
    (code / "none.log").unlink()
    shutil.rmtree(code / "there")
    (code / "there").symlink_to("here")
    for run in ("second", "last"):
        changes.patch(workspace, run, jailed=False)
        names = git(workspace.base, "ls-tree", "-r", "--name-only", f"refs/runs/{run}")
        assert names.splitlines() == [
            ".gitignore", "[n].log", "build/tool.py", "here/in.log", "there",
        ]  # fmt: skip


def test_a_file_that_the_agent_tracks_no_longer_leaves_the_patch(tmp_path: Path) -> None:
    """One that was in the patch before git ignored it stays."""
    workspace = with_file_and_link(tmp_path)
    code = workspace.code
    steps = {
        "new": (
            "echo made > made; echo .env > .gitignore; echo s > .env; git add -f .env",
            "+made",
        ),
        "kept": ("echo made >> .gitignore; echo more >> .env", "+more"),
        "again": ("git rm -qf --cached .env", "+made"),
        "back": ("git add -f .env", "+more"),
        "odd": ("rm .git/index; mkdir .git/index", "+more"),
        "gone": ("rm -r .git", "+more"),
    }
    for run, (edit, added) in steps.items():
        subprocess.run(["sh", "-ec", edit], cwd=code, check=True)
        patch = changes.patch(workspace, run, jailed=False).decode()
        assert f"\n{added}\n" in patch
        assert "\n+made\n" in patch
        assert (".env\n" in patch.replace("+.env\n", "")) == (run != "again")


def test_what_only_the_agents_git_tracked_stays_when_a_workspace_is_made_again(
    tmp_path: Path,
) -> None:
    """The new repository knows nothing of it."""
    workspace = with_file_and_link(tmp_path)
    subprocess.run(
        ["sh", "-ec", "echo .env > .gitignore; echo s > .env; git add -f .env"],
        cwd=workspace.code,
        check=True,
    )
    changes.patch(workspace, "first", jailed=False)
    agent_files.remove_tree(workspace.code)
    source = WorkspaceSource(str(tmp_path / "source"), None, False)
    assert restore(workspace, source, ["first"], jailed=False, watch=str)
    assert b"b/.env" in changes.patch(workspace, "next", jailed=False)


UNREADABLE = {
    "a pipe for an index": "rm .git/index; mkfifo .git/index",
    "a pipe for settings": "rm .git/config; mkfifo .git/config",
    "a pipe for a branch": "cd .git; head=$(git symbolic-ref HEAD); rm $head; mkfifo $head",
    "a pipe": "rm -r .git; mkfifo .git",
    "a format of the future": "git config core.repositoryFormatVersion 9",
    "an index cut off": "head -c 20 .git/index > i; mv i .git/index",
    "a link to nowhere": "rm -r .git; ln -s nowhere .git",
    "a branch that is damaged": "git rev-parse HEAD | tr 0-9a-f 1-9a-f0 > .git/refs/heads/a",
}


@pytest.mark.slow
@pytest.mark.parametrize("edit", UNREADABLE.values(), ids=UNREADABLE)
def test_a_repository_that_git_cannot_read_is_named_and_the_patch_is_made(
    tmp_path: Path, edit: str
) -> None:
    workspace = with_file_and_link(tmp_path)
    subprocess.run(["sh", "-ec", f"echo work > work; {edit}"], cwd=workspace.code, check=True)
    said: list[str] = []
    patch = changes.patch(workspace, "only", jailed=False, tell=said.append)
    assert b"\n+work\n" in patch
    assert said == [
        "changes.patch leaves out commits and ignored files of a repository that git cannot read:"
        " .git"
    ]


ELSEWHERE = {
    "on another branch": ("git checkout -qb fix; C; git checkout -q main", "fix"),
    "on a branch with an odd name": ("git checkout -qb ü/-x; C; git checkout -q -", "ü/-x"),
    "below HEAD": ("C; git checkout -q --detach HEAD~1", "main"),
    "in a stash": ("echo 2 > file; git stash -q", "a stash"),
    "in two places": (
        "git checkout -qb fix; C; git checkout -q main; echo 2 > file; git stash -q",
        "fix, a stash",
    ),
    "in a work tree elsewhere": (
        "git worktree add -q --detach ../home/t; cd ../home/t; C",
        "COMMIT",
    ),
    "left while HEAD was detached": (
        "git checkout -q --detach; C; git rev-parse HEAD > ../home/left; git checkout -q main",
        "LEFT",
    ),
    "on the branch of one": ("git worktree add -q -b b ../home/t; cd ../home/t; C", "b"),
    "on a branch of no other commit": (
        "git checkout -q --orphan new; C; git checkout -qf main; rm -f new",
        "new",
    ),
    "on many branches": (
        "for n in 1 2 3 4 5 6; do git checkout -qb b$n main; C; done; git checkout -q main",
        "b1, b2, b3, b4, b5, …",
    ),
}
COMMIT = "C() { date +%N >> new; git add new; git commit -qm new; }\n"


@pytest.mark.parametrize(("edit", "names"), ELSEWHERE.values(), ids=ELSEWHERE)
def test_commits_that_the_result_does_not_have_are_named(
    tmp_path: Path, edit: str, names: str
) -> None:
    workspace = with_file_and_link(tmp_path)
    in_repository(workspace, edit)
    said: list[str] = []
    assert changes.patch(workspace, "only", jailed=False, tell=said.append) == b""
    if names == "COMMIT":
        names = git(workspace.home / "t", "rev-parse", "HEAD").strip()
    elif names == "LEFT":
        names = (workspace.home / "left").read_text().strip()
    assert said == [f"changes.patch leaves out commits that HEAD does not have: {names}"]


HERE = {
    "on the branch": "C; C; git reset -q --hard HEAD~1; C",
    "on another branch, which is checked out": "git checkout -qb fix; C",
    "on no branch": "git checkout -q --detach; C",
    "merged": "git checkout -qb fix; C; git checkout -q main; C; git merge -q -X ours fix",
    "merged as one": "git checkout -qb fix; C; C; git checkout -q main; git merge -q --squash fix",
    "without a commit": "git checkout -qb fix; C; git reset -q --soft main; git checkout -q main",
    "a stash that came back": "echo 2 > file; git stash -q; git stash apply -q",
    "of a remote": "git checkout -qb other origin/other; git checkout -q main",
    "thrown away": "git checkout -qb fix; C; git checkout -q main; git branch -qD fix",
    "before any commit": "git checkout -q --orphan new; git branch -qD main; git rm -rqf .",
    "in a repository begun again": "rm -rf .git; git init -q -b main; git add .; git commit -qm 1",
}


@pytest.mark.parametrize("edit", HERE.values(), ids=HERE)
def test_commits_whose_work_is_in_the_result_are_not_named(tmp_path: Path, edit: str) -> None:
    workspace = with_file_and_link(tmp_path)
    theirs = "git checkout -qb away; C; git update-ref refs/remotes/origin/other HEAD"
    in_repository(workspace, f"{theirs}; git checkout -q main; git branch -qD away; {edit}")
    said: list[str] = []
    changes.patch(workspace, "only", jailed=False, tell=said.append)
    assert said == []


def test_a_pipe_where_git_ignores_what_it_tracked_costs_no_patch(tmp_path: Path) -> None:
    workspace = with_file_and_link(tmp_path, f"100644,{FILE},lib/l")
    edit = "rm -rf lib; mkfifo lib; echo /lib > .gitignore; echo work > work"
    subprocess.run(["sh", "-ec", edit], cwd=workspace.code, check=True)
    said: list[str] = []
    assert b"\n+work\n" in changes.patch(workspace, "only", jailed=False, tell=said.append)
    assert said == ["changes.patch leaves out what became a pipe, a socket or a device: lib/l"]


def test_a_linked_work_tree_is_named_instead_of_a_second_copy(tmp_path: Path) -> None:
    """Those of the repository itself, whatever was in their place; others are ordinary folders."""
    workspace = with_file_and_link(tmp_path, f"160000,{'1' * 40},sub")
    places = ["a/w t", ".hidden/n\nl", "file", "ignored/it", "sub/below"]
    in_repository(workspace, "rm file; echo made > made; echo ignored > .gitignore")
    begin_repository(workspace.code / "other", has_commit=True)
    git(workspace.code / "other", "worktree", "add", "-q", "linked")
    changes.patch(workspace, "before", jailed=False)
    for number, place in enumerate(places):
        git(workspace.code, "worktree", "add", "-q", "-b", str(number), place)
        begin_repository(workspace.code / place / "deeper", has_commit=False)
    gitfile = workspace.code / "a/w t/.git"
    gitfile.write_text(f"gitdir: ../../.git/worktrees/{Path(gitfile.read_text()).name}")
    for run in ("first", "next"):
        said: list[str] = []
        patch = changes.patch(workspace, run, jailed=False, tell=said.append).decode()
        found = set(re.findall("^diff --git a/(.*) b/", patch, re.MULTILINE))
        assert found == {".gitignore", "file", "made", "other/work", "other/linked/work"}
        assert said[0] == "changes.patch leaves out what is in the submodules: sub"
        told = said[1].removeprefix("changes.patch leaves out what is in the linked work trees: ")
        names = ["a/w t", '".hidden/n\\nl"', *places[2:]]
        assert sorted(told.split(", ")) == sorted(names)
        assert len(said) == 2


def in_repository(workspace: Workspace, edit: str) -> None:
    """Run a shell script in `code/`; `C` there makes a commit of the file `new`."""
    introduce(Path(os.environ["HOME"]))
    words = ["sh", "-ec", f"git branch -qM main\n{COMMIT}{edit}"]
    subprocess.run(words, cwd=workspace.code, check=True, capture_output=True)


def test_a_patch_holds_what_git_stores_whenever_the_files_were_written(tmp_path: Path) -> None:
    """Where git knows a file as unchanged, it may read that instead of what it stored."""
    workspace = Workspace(tmp_path, "ws")
    workspace.prepare(WorkspaceSource(None, None, False), ())
    (workspace.code / ".gitattributes").write_text("* text\n")
    (workspace.code / "file").write_bytes(b"one\r\n")
    os.utime(workspace.code / "file", (1, 1))
    assert b"\n+one\n" in changes.patch(workspace, "only", jailed=False)


def test_attributes_of_a_run_do_not_merge_those_after_it(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path, "ws")
    workspace.prepare(WorkspaceSource(None, None, False), ())
    (workspace.code / ".gitattributes").write_text("* merge=union -diff\n")
    for run in ("first", "between", "last"):
        (workspace.code / "file").write_text(f"{run}\n")
        changes.patch(workspace, run, jailed=False)

    def of(*wanted: str) -> bytes:
        runs = ["first", "between", "last"]
        return changes.of_runs(workspace, runs, wanted, jailed=False) or b""

    assert b"\n-between\n+last\n" in of("last")
    assert b"\n+last\n" in of("first", "between", "last")
    with pytest.raises(GitFailed):  # what it changes is the work of a run that is not wanted
        of("first", "last")


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["index", "patch", "index.lock", "objects/info/alternates", ".gitattributes"]
)
def test_files_of_runs_are_not_those_that_git_uses(tmp_path: Path, name: str) -> None:
    workspace = Workspace(tmp_path, "ws")
    workspace.prepare(WorkspaceSource(None, None, False), ())
    file = workspace.code / name
    file.parent.mkdir(parents=True, exist_ok=True)
    one, two = "* -diff\n", "* -diff -text\n"
    runs = {"a": one, "x": None, "b": one, "c": two, "y": None, "d": two}
    for run, text in runs.items():
        if text is None:
            file.unlink()
        else:
            file.write_text(text)
        (workspace.code / f"of-{run}").write_text(f"{run}\n")
        changes.patch(workspace, run, jailed=False)
    found = changes.of_runs(workspace, runs, "abcd", jailed=False) or b""
    assert "".join(run for run in runs if f"\n+{run}\n".encode() in found) == "abcd"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has such a limit")
@pytest.mark.parametrize("jailed", [True, False])
def test_git_that_reads_the_files_of_an_agent_has_a_limit_of_memory(
    tmp_path: Path, jailed: bool
) -> None:
    if jailed:
        need_jail()
    workspace = Workspace(tmp_path, "ws")
    workspace.prepare(WorkspaceSource(None, None, False), ())
    layout = jail.layout_of(workspace.folder, jailed=jailed)
    with changes.scratch_of(workspace) as scratch:
        words = ["sh", "-c", "ulimit -d"]
        assert changes.output(layout, words, workspace, scratch, lambda: "") == b"%d\n" % (
            MEMORY // 1024
        )
        words = ["sh", "-c", "echo fatal: Out of memory, malloc failed >&2; exit 128"]
        with pytest.raises(GitFailed, match="needed more than 4 GiB of memory"):
            changes.output(layout, words, workspace, scratch, lambda: "")


@pytest.mark.slow
def test_the_changes_between_runs_do_not_fill_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An agent may link to one large file as often as it likes."""
    workspace = Workspace(tmp_path / "state", "ws")
    workspace.prepare(WorkspaceSource(None, None, False), ())
    for run in ("first", "other"):
        (workspace.code / run).write_text(run)
        changes.patch(workspace, run, jailed=False)
    (workspace.code / "large").write_bytes(os.urandom(10_000_000))
    for number in range(40):
        os.link(workspace.code / "large", workspace.code / str(number))
    with pytest.raises(GitFailed, match="larger than 64 MiB"):
        changes.patch(workspace, "last", jailed=False)
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    is_over, sizes = threading.Event(), [0]

    def look() -> None:
        while not is_over.wait(0.02):
            for path in (tmp_path / "tmp").glob("*/patch"):
                with suppress(OSError):
                    sizes.append(path.stat().st_size)

    looking = threading.Thread(target=look)
    looking.start()
    try:
        with pytest.raises(GitFailed, match="larger than 64 MiB"):
            changes.of_runs(workspace, ["first", "other", "last"], ["first", "last"], jailed=False)
    finally:
        is_over.set()
        looking.join()
    assert 0 < max(sizes) < 250_000_000


REPOSITORIES = {
    "in the place of a file": ["file"],
    "in the place of a link": ["link"],
    "below the place of a file": ["file/b/c"],
    "below the place of a link": ["link/b"],
    "one in another": ["n", "n/-", "n/-/-"],
    "below one in the place of a file": ["file", "file/-"],
}


@pytest.mark.parametrize("has_commit", [True, False])
@pytest.mark.parametrize("places", REPOSITORIES.values(), ids=REPOSITORIES)
def test_the_work_in_a_repository_of_the_agent_is_kept(
    tmp_path: Path, places: list[str], has_commit: bool
) -> None:
    """Wherever it was begun. git would keep no more of it than the name of its commit."""
    workspace = with_file_and_link(tmp_path)
    for name in {place.split("/")[0] for place in places}:
        (workspace.code / name).unlink(missing_ok=True)
    for place in places:
        begin_repository(workspace.code / place, has_commit=has_commit)
    said: list[str] = []
    for run in ("first", "next"):
        patch = changes.patch(workspace, run, jailed=False, tell=said.append).decode()
        for place in places:
            assert f"+++ b/{place}/work\n" in patch
            assert git(workspace.base, "show", f"refs/runs/{run}:{place}/work") == "work\n"
        files = git(workspace.base, "ls-tree", "-r", "--name-only", f"refs/runs/{run}").split()
        kept = {"file", "link"} - {place.split("/")[0] for place in places}
        assert sorted(files) == sorted([*kept, *(f"{place}/work" for place in places)])
    assert said == []


def test_a_repository_in_a_submodule_does_not_take_its_place(tmp_path: Path) -> None:
    commit = "0123456789" * 4
    names = ["sub", "a möd", 'q"\ts']
    workspace = with_file_and_link(tmp_path, *(f"160000,{commit},{name}" for name in names))
    for name in names:
        begin_repository(workspace.code / name, has_commit=False)
        begin_repository(workspace.code / name / "deeper", has_commit=True)
    said: list[str] = []
    assert changes.patch(workspace, "only", jailed=False, tell=said.append) == b""
    for name in names:
        found = git(workspace.base, "ls-tree", "-r", "-z", "refs/runs/only", name)
        assert found == f"160000 commit {commit}\t{name}\0"
    assert said == ['changes.patch leaves out what is in the submodules: a möd, "q\\"\\ts", sub']


WITHOUT_FOLDER = {
    "removed": "rm -r p/q",
    "removed, with what is above": "rm -r p",
    "a file": "rm -r p/q; echo file > p/q",
    "a link": "rm -r p/q; ln -s ../full p/q",
    "a link above": "rm -r p; ln -s full p",
    "a link above to one of that name": "rm -r p; mkdir -p full/q; ln -s full p",
    "a file above": "rm -r p; echo file > p",
}


@pytest.mark.parametrize("edit", WITHOUT_FOLDER.values(), ids=WITHOUT_FOLDER)
def test_a_submodule_without_a_folder_is_gone(tmp_path: Path, edit: str) -> None:
    """As it is for `git status`. What is in its place is in the patch, and so is the rest."""
    workspace = with_file_and_link(tmp_path, f"160000,{'1' * 40},p/q")
    for run, more in (("first", edit), ("next", ":")):
        script = f"{more}; mkdir -p full; echo {run} > full/work"
        subprocess.run(["sh", "-ec", script], cwd=workspace.code, check=True)
        said: list[str] = []
        patch = changes.patch(workspace, run, jailed=False, tell=said.append)
        assert changes.of_runs(workspace, ["first", "next"], [run], jailed=False)
        copy = tmp_path / run
        git(tmp_path, "clone", "-q", str(tmp_path / "source"), str(copy))
        subprocess.run(["git", "apply", "--index"], input=patch, cwd=copy, check=True)
        assert seen(copy) == seen(workspace.code)
        assert git(copy, "write-tree") == git(workspace.base, "rev-parse", f"refs/runs/{run}")
        assert "160000" not in git(copy, "ls-files", "--stage")
        assert said == []
    agent_files.remove(workspace.code, "p")
    (workspace.code / "p/q").mkdir(parents=True)
    assert b"p/q" not in changes.patch(workspace, "last", jailed=False), "it is back"


def seen(folder: Path) -> dict[str, str]:
    """The files and links below a folder but git's, with what they say."""
    return {
        str(path.relative_to(folder)): str(path.readlink())
        if path.is_symlink()
        else path.read_text()
        for path in folder.rglob("*")
        if (path.is_file() or path.is_symlink()) and ".git" not in path.parts
    }


def test_a_submodule_that_was_moved_is_named_if_it_is_left_out(tmp_path: Path) -> None:
    workspace = with_file_and_link(tmp_path, *(f"160000,{'1' * 40},{name}" for name in "abc"))
    places = ["a", "moved", "filled", "missing", "../b", "/proc/sys", 'a "tab"\t']
    for name in ("moved", "filled", "included", places[-1]):
        (workspace.code / name).mkdir()
    (workspace.code / "filled/work").touch()
    (workspace.code / "b").rmdir()
    for number, place in enumerate(places):
        words = ("config", "--file", ".gitmodules", f"submodule.{number}.path", place)
        git(workspace.code, *words)
    included = tmp_path / "included"
    git(tmp_path, "config", "--file", str(included), "submodule.x.path", "included")
    git(workspace.code, "config", "--file", ".gitmodules", "include.path", str(included))
    said: list[str] = []
    patch = changes.patch(workspace, "only", jailed=False, tell=said.append).decode()
    assert set(re.findall("^diff --git a/(.*) b/", patch, re.MULTILINE)) == {
        ".gitmodules", "b", "filled/work"
    }  # fmt: skip
    left = 'moved, "a \\"tab\\"\\t"'
    assert said == [f"changes.patch leaves out the submodules that were moved or added: {left}"]


def test_a_repository_of_which_git_keeps_the_commit_alone_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Should git not take it for an ordinary folder after all."""
    workspace = with_file_and_link(tmp_path)
    begin_repository(workspace.code / "n", has_commit=True)
    real = shutil.which("git")
    refusing = 'case "$*" in *--add*--cacheinfo*) exit 1;; esac'
    script(tmp_path / "bin", "git", f'{refusing}\nexec {real} "$@"\n')
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    for run in ("first", "next"):
        said: list[str] = []
        changes.patch(workspace, run, jailed=False, tell=said.append)
        assert said == ["changes.patch leaves out what is in the submodules: n"]


FILE = hashlib.sha1(b"blob 5\0file\n").hexdigest()


def with_file_and_link(folder: Path, *entries: str) -> Workspace:
    """A workspace whose base commit has a `file`, a `link` and the `entries` of an index."""
    source = folder / "source"
    source.mkdir()
    (source / "file").write_text("file\n")
    (source / "link").symlink_to("file")
    git(source, "init", "-q")
    git(source, "add", "-A")
    for entry in entries:
        git(source, "update-index", "--add", "--cacheinfo", entry)
    git(source, "commit", "-q", "-m", "Start")
    workspace = Workspace(folder / "state", "ws")
    workspace.prepare(WorkspaceSource(str(source), None, False), ())
    return workspace


def begin_repository(folder: Path, *, has_commit: bool) -> None:
    """Begin a repository with the file `work`."""
    folder.mkdir(parents=True, exist_ok=True)
    git(folder, "init", "-q")
    (folder / "work").write_text("work\n")
    if has_commit:
        git(folder, "add", "work")
        git(folder, "commit", "-q", "-m", "Own")
