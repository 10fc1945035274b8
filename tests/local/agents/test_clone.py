"""What a workspace begins with: clones of repositories of every kind, whatever git is set to."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import pytest

from rebyte_cli.local.agents.sources.source import (
    PASSWORD,
    USER,
    login,
    split_login,
    without_secrets,
)
from rebyte_cli.local.agents.workspaces.workspace_folder import (
    Workspace,
    WorkspaceSource,
    copy_uncommitted,
    disk_usage,
)
from rebyte_cli.system import git as safe_git
from tests.repositories import git

from .bench import Bench

WORK = ["sh", "-c", "echo more >> a.txt; mkdir __pycache__; echo x > __pycache__/a.pyc; git status"]


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository with a commit and a file that git does not know."""
    return begun(tmp_path / "here")


def begun(folder: Path, *options: str) -> Path:
    folder.mkdir()
    git(folder, "init", "-q", "-b", "main", *options)
    (folder / "a.txt").write_bytes(b"one\ntwo\n")
    (folder / "b.txt").write_bytes(b"one\ntwo\n")
    git(folder, "-c", "core.autocrlf=false", "add", "-A")
    git(folder, "commit", "-q", "-m", "Start")
    (folder / "new.txt").write_bytes(b"new\n")
    return folder


def changed(bench: Bench) -> list[str]:
    """The files in the patch."""
    patch = bench.artifact("changes.patch") or ""
    lines = (line for line in patch.splitlines() if line.startswith("diff --git "))
    return [line.rpartition(" b/")[2] for line in lines]


@pytest.mark.slow
@pytest.mark.parametrize("with_changes", [False, True])
def test_the_users_line_ends_do_not_change_the_files(
    bench: Bench, repository: Path, user_home: Path, with_changes: bool
) -> None:
    (user_home / ".gitconfig").write_text("[core]\n\tautocrlf = true\n\teol = crlf\n")
    git(repository, "checkout", "-q", "--", ".")
    if with_changes:
        (repository / "b.txt").write_bytes(b"one\r\ntwo\r\nmine\r\n")
    run = bench.run(WORK, source=[str(repository), None, with_changes])
    assert run.outcome == "succeeded", run
    assert changed(bench) == ["__pycache__/a.pyc", "a.txt"]
    assert b"\r" not in b"".join(path.read_bytes() for path in bench.workspace().code.glob("*.txt"))


@pytest.mark.parametrize("with_changes", [False, True])
def test_no_filter_of_the_user_runs_in_a_clone(
    bench: Bench, repository: Path, user_home: Path, with_changes: bool
) -> None:
    """It may run what is there; and the jail, which has none, would see changes in each file."""
    git(repository, "checkout", "-q", "-b", "topic")
    (repository / ".gitattributes").write_text("*.txt filter=upper\n")
    git(repository, "add", "-A")
    git(repository, "commit", "-q", "-m", "Attributes")
    ran = user_home / "ran"
    for name, word in (("clean", "tr A-Z a-z"), ("smudge", "tr a-z A-Z")):
        git(repository, "config", "--global", f"filter.upper.{name}", f"pwd >> '{ran}'; {word}")
    git(repository, "config", "--global", "filter.upper.required", "true")
    if with_changes:
        (repository / "b.txt").write_text("ONE\nTWO\nMINE\n")
    run = bench.run(WORK, source=[str(repository), "topic", with_changes])
    assert run.outcome == "succeeded", run
    assert changed(bench) == ["__pycache__/a.pyc", "a.txt"]
    code = bench.workspace().code
    assert (code / "b.txt").read_text() == f"one\ntwo\n{'mine' * with_changes}".rstrip() + "\n"
    places = set(ran.read_text().splitlines()) if ran.exists() else set()
    assert places == ({str(repository)} if with_changes else set())


@pytest.mark.slow
def test_uncommitted_changes_that_are_large_end_git_not_the_machine(
    tmp_path: Path, repository: Path
) -> None:
    """A sparse file takes no room on the disk."""
    clone = tmp_path / "clone"
    git(tmp_path, "clone", "-q", str(repository), str(clone))
    with (repository / "large").open("wb") as file:
        file.truncate(128 * 1024**2)
    with pytest.raises(safe_git.GitFailed, match=r"uncommitted changes: .* GiB of memory"):
        copy_uncommitted(repository, clone, memory=96 * 1024**2)
    assert git(clone, "status", "--porcelain") == ""
    copy_uncommitted(repository, clone)
    assert (clone / "large").stat().st_size == 128 * 1024**2


@pytest.mark.parametrize("hashes", ["sha1", "sha256"])
@pytest.mark.parametrize("default", ["sha1", "sha256"])
@pytest.mark.parametrize("share", [False, True])
def test_the_hashes_of_a_clone_are_those_of_its_repository(
    tmp_path: Path, user_home: Path, hashes: str, default: str, share: bool
) -> None:
    place = begun(tmp_path / "there", f"--object-format={hashes}")
    git(tmp_path, "config", "--global", "init.defaultObjectFormat", default)
    workspace = Workspace(tmp_path / "state", "w")
    workspace.prepare(WorkspaceSource(str(place), None, False), (), share=share)
    assert workspace.started_from() == git(place, "rev-parse", "HEAD").strip()


def test_no_git_stays_behind_in_a_clone_that_an_agent_gets(
    tmp_path: Path, repository: Path, user_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the background, it would run what the agent writes into the clone's settings."""
    git(tmp_path, "config", "--global", "gc.auto", "1")
    clone, trace = tmp_path / "clone", tmp_path / "trace"
    git(tmp_path, "clone", "-q", str(repository), str(clone))
    monkeypatch.setenv("GIT_TRACE", str(trace))
    copy_uncommitted(repository, clone)
    assert "Uncommitted changes" in git(clone, "log", "--format=%s")
    assert not [line for line in trace.read_text().splitlines() if "git maintenance" in line]


def put_skill(folder: Path, size: int = 0) -> None:
    """A folder with a skill; git keeps its large file in few bytes."""
    folder.mkdir(parents=True)
    (folder / "SKILL.md").write_text("skill")
    (folder / "zeros").write_bytes(bytes(size))


def linked(repository: Path, links: int) -> None:
    """Commit so many skills that are links to one folder."""
    (repository / ".agents/skills").mkdir(parents=True, exist_ok=True)
    for number in range(links):
        (repository / f".agents/skills/s{number:02}").symlink_to("../../big")
    git(repository, "add", "-A")
    git(repository, "commit", "-q", "-m", "Skills")


@pytest.mark.slow
def test_skills_that_are_links_to_one_folder_do_not_fill_the_disk(
    bench: Bench, repository: Path
) -> None:
    put_skill(repository / "big", 10_000_000)
    put_skill(repository / ".agents/skills/first")
    linked(repository, 30)
    run = bench.run(["sh", "-c", "ls ~/.agents/skills"], source=[str(repository), None, False])
    assert run.answer.split() == ["first", *(f"s{number:02}" for number in range(9))]
    assert "from s09 on: those of a run may have 100 MB in 10,000 files" in bench.said(run.prompt)
    assert disk_usage(bench.workspace().folder) < 400e6
    assert not list(bench.workspace().folder.glob("skills/*/*/s09"))


@pytest.mark.slow
def test_a_very_deep_skill_is_left_out(bench: Bench, repository: Path) -> None:
    put_skill(repository / "big")
    deep = repository / "big" / "/".join("a" * 1200)
    subprocess.run(["mkdir", "-p", deep], check=True)
    (deep / "file").touch()
    linked(repository, 1)
    put_skill(repository / "user/deep")
    subprocess.run(["mv", repository / "big/a", repository / "user/deep/a"], check=True)
    try:
        source = [str(repository), None, False]
        run = bench.run(["sh", "-c", "ls -d ~/.agents*; ls big"], source=source)
        assert (run.outcome, run.answer.split()) == ("succeeded", ["SKILL.md", "a", "zeros"])
        assert "from s00 on" in bench.said(run.prompt)
        chosen = bench.run(["true"], skills=[str(repository / "user/deep")])
        assert "from deep on" in (chosen.answer or "")
    finally:  # pytest itself cannot remove what is left of it
        subprocess.run(["rm", "-rf", repository, bench.workspace().folder], check=True)


def test_nothing_is_left_of_a_workspace_that_could_not_be_made(
    tmp_path: Path, user_home: Path, repository: Path
) -> None:
    put_skill(repository / "big")
    linked(repository, 1)
    workspace = Workspace(tmp_path / "state", "ws")
    workspace.folder.mkdir(parents=True)
    workspace.base.symlink_to("missing")  # the last step fails: no folder takes its place
    with pytest.raises(NotADirectoryError):
        workspace.prepare(WorkspaceSource(str(repository), None, False), ())
    left = {path.name for path in workspace.folder.iterdir()}
    assert left == {"home", "base.git", "fresh"}
    workspace.base.unlink()
    workspace.prepare(WorkspaceSource(str(repository), None, False), ())
    assert [Path(skill).name for skill in workspace.skills(())] == ["s00"]


@pytest.mark.slow
def test_an_agent_commits_in_the_name_of_the_user_whatever_it_is(
    bench: Bench, repository: Path, user_home: Path
) -> None:
    (user_home / ".gitconfig").write_text(
        '[user]\n\tname = "André \\"A\\" \\\\ \u200bSmith\\t"\n\temail = a@example.com\n'
    )
    script = "git commit -q --allow-empty -m x && git log -1 --format='%an <%ae>'"
    run = bench.run(["sh", "-c", script], source=[str(repository), None, False])
    assert run.answer == 'André "A" \\ Smith <a@example.com>'


def test_a_repository_that_borrows_objects_is_refused(
    bench: Bench, repository: Path, tmp_path: Path
) -> None:
    git(tmp_path, "clone", "-q", "--shared", str(repository), "shared")
    run = bench.run(["git", "log"], source=[str(tmp_path / "shared"), None, False])
    assert run.outcome == "failed"
    assert "objects/info/alternates" in (run.answer or "")


@pytest.mark.slow
def test_what_the_user_ignores_is_in_no_patch(
    bench: Bench, repository: Path, user_home: Path
) -> None:
    """In their own file, wherever it is, and in that of the repository, which can re-include."""
    (user_home / "patterns").write_bytes(b"*.pyc\n*.\xff\n*.log\n")
    (user_home / "linked").symlink_to("patterns")
    (user_home / ".gitconfig").write_text("[core]\n\texcludesFile = ~/linked\n")
    (repository / ".git/info/exclude").write_text("/scratch\n!keep.log")
    work = [*WORK[:2], f"{WORK[2]}; touch scratch x.log keep.log; git status --short"]
    upload = user_home / "upload"
    upload.write_text("x")
    run = bench.run(
        work, source=[str(repository), None, False], uploads=[["data.csv", str(upload), "data.csv"]]
    )
    assert changed(bench) == ["a.txt", "keep.log"]
    assert "pycache" not in (run.answer or "")
    assert "scratch" not in (run.answer or "")
    (user_home / ".gitconfig").unlink()
    (user_home / ".config/git").mkdir(parents=True)
    (user_home / ".config/git/ignore").write_text("__pycache__\n")
    bench.run(WORK, source=[str(repository), None, False], workspace="other")
    assert "pycache" not in (bench.artifact("changes.patch", "other") or "")


@pytest.mark.slow
def test_a_repository_cannot_name_a_file_of_the_user_as_patterns(
    bench: Bench, repository: Path, user_home: Path
) -> None:
    (user_home / "secret").write_text("secret\n")
    git(repository, "config", "core.excludesFile", str(user_home / "secret"))
    (repository / ".git/info/exclude").unlink()
    (repository / ".git/info/exclude").symlink_to(user_home / "secret")
    run = bench.run(
        ["sh", "-c", "grep -r secret .git || echo none"], source=[str(repository), None, False]
    )
    assert run.answer == "none"
    (repository / ".git/info").rename(repository / ".git/unused")
    (user_home / "exclude").write_text("secret\n")
    (repository / ".git/info").symlink_to(user_home)
    run = bench.run(["true"], source=[str(repository), None, False], workspace="other")
    assert ".git/info is a link" in str(run.answer)


@pytest.mark.slow
def test_patterns_that_are_no_file_hold_nothing_up(bench: Bench, repository: Path) -> None:
    place = repository / ".git/info/exclude"
    place.unlink()
    os.mkfifo(place)
    run = bench.run(["echo", "here"], source=[str(repository), None, False])
    assert "a part of the repository is no file" in str(run.answer)
    place.unlink()
    with place.open("wb") as file:
        file.truncate(3 << 30)
    run = bench.run(["echo", "here"], source=[str(repository), None, False], workspace="other")
    assert run.answer == "here"


@pytest.mark.slow
def test_empty_submodules_are_named(bench: Bench, repository: Path, tmp_path: Path) -> None:
    source = begun(tmp_path / "library")
    add = ("-c", "protocol.file.allow=always", "submodule", "add", "-q", str(source))
    git(repository, *add, "libs/one")
    git(repository, "commit", "-q", "-m", "Add a submodule")
    prompt = bench.start(["ls", "libs/one"], source=[str(repository), None, False])
    bench.wait(prompt)
    assert "Submodules are not cloned; these folders are empty: libs/one" in bench.said(prompt)


@pytest.mark.slow
@pytest.mark.parametrize("with_changes", [False, True])
def test_a_repository_with_sha256(bench: Bench, tmp_path: Path, with_changes: bool) -> None:
    repository = begun(tmp_path / "here", "--object-format=sha256")
    run = bench.run(WORK, source=[str(repository), None, with_changes])
    assert run.outcome == "succeeded", run
    assert changed(bench) == ["__pycache__/a.pyc", "a.txt"]
    assert (bench.workspace().code / "new.txt").exists() == with_changes


@pytest.mark.slow
@pytest.mark.parametrize("options", [(), ("--object-format=sha256",)])
def test_uncommitted_changes_before_the_first_commit(
    bench: Bench, tmp_path: Path, options: tuple[str, ...]
) -> None:
    repository = tmp_path / "here"
    git(tmp_path, "init", "-q", "-b", "main", *options, str(repository))
    (repository / "a.txt").write_text("one\n")
    run = bench.run(WORK, source=[str(repository), None, True])
    assert run.outcome == "succeeded", run
    assert "+more" in (bench.artifact("changes.patch") or "")
    assert "+one" not in (bench.artifact("changes.patch") or "")


@pytest.mark.slow
@pytest.mark.parametrize("url", ["{}", "file://{}"])
def test_a_bare_repository_and_a_url_of_a_folder(
    bench: Bench, repository: Path, tmp_path: Path, url: str
) -> None:
    bare = tmp_path / "bare repository.git"
    git(tmp_path, "clone", "-q", "--bare", str(repository), str(bare))
    place = url.format(str(bare) if url == "{}" else str(bare).replace(" ", "%20"))
    run = bench.run(["cat", "a.txt"], source=[place, "main", False])
    assert (run.outcome, run.answer) == ("succeeded", "one\ntwo")


def origin(place: Path, folder: Path) -> str:
    """The address that a clone of the repository at `place` has for an agent."""
    workspace = Workspace(folder / "state", place.name)
    workspace.prepare(WorkspaceSource(str(place), None, False), ())
    return git(workspace.code, "config", "remote.origin.url").strip()


def test_the_origin_is_not_that_of_another_repository_of_the_user(
    tmp_path: Path, repository: Path, user_home: Path
) -> None:
    """Which the settings of a downloaded one can include."""
    other = begun(user_home / "other")
    git(other, "config", "remote.origin.url", "https://example.com/secret.git?token=s3cret")
    with (repository / ".git/config").open("a") as file:
        file.write("[include]\n\tpath = ~/other/.git/config\n")
    assert git(repository, "remote", "get-url", "origin").strip().endswith("s3cret")
    assert origin(repository, tmp_path) == str(repository)


def test_the_origin_of_a_linked_working_tree_is_that_of_its_repository(
    tmp_path: Path, repository: Path, user_home: Path
) -> None:
    """As the user's git spells it; the first of several, from which git fetches."""
    (user_home / ".gitconfig").write_text('[url "https://example.com/"]\n\tinsteadOf = ex:\n')
    git(repository, "config", "remote.origin.url", "ex:a.git")
    git(repository, "config", "--add", "remote.origin.url", "ex:b.git")
    git(repository, "worktree", "add", "-q", str(tmp_path / "tree"))
    assert origin(tmp_path / "tree", tmp_path) == "https://example.com/a.git"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://u:p@example.com/a.git?token=p#p", "https://example.com/a.git"),
        ("HTTP://p@example.com:8/a@b.git", "HTTP://example.com:8/a@b.git"),
        ("ftps://u:p@example.com/a", "ftps://example.com/a"),
        ("https://u:p@[x/", "https://[x/"),
        ("https://u:p@[x?p@/", "https:///"),
        ("git@example.com:a/b?c.git", "git@example.com:a/b?c.git"),
        ("ssh://git@example.com/a/b.git", "ssh://git@example.com/a/b.git"),
    ],
)
def test_an_origin_holds_no_secret_whatever_it_is(
    tmp_path: Path, repository: Path, user_home: Path, url: str, shown: str
) -> None:
    git(repository, "config", "remote.origin.url", url)
    assert origin(repository, tmp_path) == shown


@pytest.mark.parametrize(
    ("given", "plain", "found"),
    [
        ("https://u%40:p#w@h/x?q", "https://h/x?q", ("u@", "p#w")),
        ("https://h/a@b", "https://h/a@b", None),
        ("ssh://deploy:p@h/x", "ssh://deploy@h/x", None),
        ("ssh://h:22/x@y", "ssh://h:22/x@y", None),
        ("git+https://u:p@h/x", "git+https://h/x", None),
        ("git@h:a/b", "git@h:a/b", None),
    ],
)
def test_the_login_of_an_address_is_apart(
    given: str, plain: str, found: tuple[str, str] | None
) -> None:
    variables = {} if found is None else dict(zip((USER, PASSWORD), found, strict=True))
    assert split_login(given) == (plain, variables)
    assert without_secrets(given) == plain.partition("?")[0]


def test_an_address_that_is_none_is_told_without_its_password(bench: Bench) -> None:
    run = bench.run(["true"], source=["https://u:s3cret@[x/", None, False])
    assert run.outcome == "failed"
    assert "cannot clone https://[x/: " in (run.answer or "")
    assert "s3cret" not in (run.answer or "")


def test_a_clone_that_fails_is_told_without_what_the_address_asks(bench: Bench) -> None:
    run = bench.run(["true"], source=["http://127.0.0.1:1/a.git?token=s3cret", None, False])
    assert run.outcome == "failed"
    assert "'http://127.0.0.1:1/a.git/'" in (run.answer or "")
    assert "s3cret" not in (run.answer or "")


def test_an_address_that_is_none_has_no_login() -> None:
    assert split_login("https://u:p@[x/") == ("https://[x/", {})
    assert login("https://[x/", {USER: "u", PASSWORD: "p"}) == {}


@pytest.mark.slow
def test_the_users_name_for_a_remote_is_no_problem(
    bench: Bench, repository: Path, user_home: Path
) -> None:
    (user_home / ".gitconfig").write_text("[clone]\n\tdefaultRemoteName = upstream\n")
    run = bench.run(["git", "remote"], source=[str(repository), None, False])
    assert run.answer == "origin"


def bomb(folder: Path) -> Path:
    """A repository of a few hundred kilobytes with 1.6 GB of files."""
    begun(folder)
    (folder / "large").write_bytes(bytes(1 << 26))
    git(folder, "add", "large")
    blob = git(folder, "rev-parse", ":large").strip()
    for number in range(24):
        git(folder, "update-index", "--add", "--cacheinfo", f"100644,{blob},large{number}")
    git(folder, "commit", "-q", "-m", "Large")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("jailed", [True, False])
def test_a_clone_that_fills_the_disk_is_ended_and_removed(
    bench: Bench, tmp_path: Path, jailed: bool
) -> None:
    place = bomb(tmp_path / "here")
    source = [str(place), None, False]
    run = bench.run(["true"], source=source, keep_free=10**18, jail=jailed)
    assert run.outcome == "failed"
    assert f"cannot clone {place}: the disk has only " in (run.answer or "")
    workspace = bench.workspace()
    assert not workspace.code.exists()
    assert disk_usage(workspace.folder) < 1 << 22


@pytest.mark.slow
def test_many_files_are_counted_in_little_memory(tmp_path: Path) -> None:
    for folder in ("a", "b/c"):
        (tmp_path / folder).mkdir(parents=True)
        for number in range(4_000):
            (tmp_path / folder / f"{number}").touch()
    (tmp_path / "a/large").write_bytes(b"x" * 100_000)
    os.link(tmp_path / "a/large", tmp_path / "b/again")
    tracemalloc.start()
    try:
        assert 100_000 <= disk_usage(tmp_path) < 200_000 + 3 * 2**18
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 500_000


# What a supervisor does, in a process of its kind.
PREPARE = """
import sys
from pathlib import Path
from rebyte_cli.local.agents.workspaces.workspace_folder import Workspace, WorkspaceSource
Workspace(Path(sys.argv[1]), "ws").prepare(WorkspaceSource(sys.argv[2]), ())
"""
# In place of ssh: the first server is slow.
SLOW = """#!/bin/sh
if mkdir first 2>/dev/null; then echo $PPID > git; until [ -e go ]; do sleep 0.02; done; fi
exec git upload-pack here
"""


def children(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return list(map(int, text.split()))


def cmdline(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()


@pytest.mark.parametrize("share", [False, True])
def test_a_git_that_outlives_its_supervisor_does_not_work_where_an_agent_does(
    tmp_path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch, share: bool
) -> None:
    """It does if the guard of git's group is killed, too."""
    ssh = tmp_path / "ssh"
    ssh.write_text(SLOW)
    ssh.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_SSH_COMMAND", str(ssh))
    monkeypatch.setenv("GIT_SSH_VARIANT", "ssh")
    url = "ssh://git@slow.example/here"
    with subprocess.Popen([sys.executable, "-c", PREPARE, str(tmp_path), url]) as supervisor:
        while not (tmp_path / "git").exists() or not (tmp_path / "git").read_text():
            assert supervisor.poll() is None
            time.sleep(0.02)
        clone = int((tmp_path / "git").read_text())
        (group,) = children(supervisor.pid)
        (guard,) = (each for each in children(group) if b"read -r _" in cmdline(each))
        supervisor.kill()
        os.kill(guard, signal.SIGKILL)
    workspace = Workspace(tmp_path, "ws")
    workspace.prepare(WorkspaceSource(url), (), share=share)
    (workspace.code / "work").write_text("of the agent")
    before = sorted(workspace.folder.rglob("*"))
    (tmp_path / "go").touch()
    while Path(f"/proc/{clone}").exists():
        time.sleep(0.02)
    assert sorted(workspace.folder.rglob("*")) == before
    assert git(workspace.code, "status", "--porcelain").split() == ["??", "work"]
