"""Repositories that lead elsewhere, or to a command, when `rebyte` reads them."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from rebyte_cli.local.agents.workspaces.workspace_folder import Workspace, WorkspaceSource
from rebyte_cli.system.git import (
    IN_PYTHON,
    MEMORY,
    GitFailed,
    check_parts,
    check_place,
    check_repository,
    commit_of,
    filters_off,
    only_settings,
    own_index,
    portions,
    run,
    settings_of,
    top_level,
    watched,
)
from rebyte_cli.tasks import checkout
from tests import newer_git
from tests.repositories import FORGE, Repository, git
from tests.servers import Line, RawServer, Request, reply


@pytest.fixture
def private(home: Path) -> Repository:
    """A repository of the user that a download must not reach."""
    (home / "private").mkdir()
    repository = Repository(home / "private")
    repository.write("secret", "the user's secret\n")
    repository.commit("Secret")
    return repository


def dot_git_file(folder: Path, there: Path) -> None:
    (folder / ".git").write_text(f"gitdir: {there}\n")


def dot_git_link(folder: Path, there: Path) -> None:
    (folder / ".git").symlink_to(there)


def common_folder(folder: Path, there: Path) -> None:
    git(folder, "init", "-q", "-b", "main")
    (folder / ".git/commondir").write_text(f"{there}\n")


def linked_parts(folder: Path, there: Path) -> None:
    git(folder, "init", "-q", "-b", "main")
    for name in ("objects", "refs"):
        subprocess.run(["rm", "-r", folder / ".git" / name], check=True)
        (folder / ".git" / name).symlink_to(there / name)


def forged_worktree(folder: Path, there: Path) -> None:
    """It names the folder, as that of a linked working tree does."""
    forged = folder / "forged"
    forged.mkdir()
    (forged / "HEAD").write_text("ref: refs/heads/main\n")
    (forged / "commondir").write_text(f"{there}\n")
    (forged / "gitdir").write_text(f"{folder}/.git\n")
    (folder / ".git").write_text("gitdir: forged\n")


def two_names(folder: Path, there: Path) -> None:
    """A repository whose name, over two lines, looks like the names of two others."""
    innocent = folder / "d/worktrees/a"
    for path in (innocent, folder / "d/objects", folder / "d/refs"):
        path.mkdir(parents=True)
    (folder / "d/HEAD").write_text("ref: refs/heads/main\n")
    (innocent / "gitdir").write_text("../../../.git\n")
    forged = folder / "d/worktrees/a\nd"
    forged.mkdir()
    (forged / "HEAD").write_text("ref: refs/heads/main\n")
    (forged / "commondir").write_text(f"{there}\n")
    (folder / ".git").write_text("gitdir: d/worktrees/a\nd\n")


def borrowed_objects(folder: Path, there: Path) -> None:
    """With a commit that it knows of."""
    git(folder, "init", "-q", "-b", "main")
    (folder / ".git/objects/info/alternates").write_text(f"# x\n{there}/objects\n")
    (folder / ".git/refs/heads/main").write_text((there / "refs/heads/main").read_text())


def linked_branch(folder: Path, there: Path) -> None:
    """And each object on its own."""
    git(folder, "init", "-q", "-b", "main")
    (folder / ".git/refs/heads/main").symlink_to(there / "refs/heads/main")
    for path in (there / "objects").glob("??/*"):
        place = folder / ".git/objects" / path.relative_to(there / "objects")
        place.parent.mkdir(exist_ok=True)
        place.symlink_to(path)


def linked_folders(folder: Path, there: Path) -> None:
    """By way of a folder inside, which leads out."""
    git(folder, "init", "-q", "-b", "main")
    (folder / ".git/refs/heads").rmdir()
    (folder / ".git/refs/heads").symlink_to("../way")
    (folder / ".git/way").symlink_to(there / "refs/heads")
    for path in (there / "objects").glob("??"):
        (folder / ".git/objects" / path.name).symlink_to(path)


@pytest.mark.slow
@pytest.mark.parametrize(
    "make",
    [
        dot_git_file, dot_git_link, common_folder, linked_parts, forged_worktree, two_names,
        borrowed_objects, linked_branch, linked_folders,
    ],
)  # fmt: skip
def test_a_download_cannot_name_a_repository_of_the_user(
    home: Path, private: Repository, make: Callable[[Path, Path], None]
) -> None:
    folder = home / "download"
    folder.mkdir()
    make(folder, private.path / ".git")
    assert "Secret" in git(folder, "log", "--format=%s"), "git itself is fooled"
    for read in (
        lambda: top_level(str(folder)),
        lambda: checkout.write_patch(str(folder), home / "patch"),
        lambda: Workspace(home, "ws").prepare(WorkspaceSource(str(folder), None, False), ()),
    ):
        with pytest.raises(Exception, match="elsewhere"):
            read()
    assert not (home / "workspaces/ws/code/secret").exists()


@pytest.mark.slow
def test_working_trees_that_git_itself_made_elsewhere_are_read(
    home: Path, private: Repository
) -> None:
    linked, module, apart = home / "linked", private.path / "module", home / "apart"
    private("worktree", "add", "-q", str(linked))
    private(
        "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(private.origin),
        "module",
    )  # fmt: skip
    for folder in (linked, module, private.path):
        assert top_level(str(folder)) == str(folder)
    git(home, "clone", "-q", "--separate-git-dir", str(home / "kept"), str(private.origin), "apart")
    with pytest.raises(GitFailed, match="elsewhere") as error:
        top_level(str(apart))
    command = str(error.value.hint).partition(": ")[2].split(" ")[1:]
    git(home, *command)
    assert top_level(str(apart)) == str(apart)
    bare = Workspace(home, "ws")
    bare.prepare(WorkspaceSource(str(private.origin), None, False), ())
    assert (bare.code / "a.txt").exists()


def test_a_link_inside_the_repository_is_followed(private: Repository) -> None:
    (private.path / ".git/refs/heads/alias").symlink_to("main")
    (private.path / ".git/HEAD").unlink()
    (private.path / ".git/HEAD").symlink_to("refs/heads/main")
    assert top_level(str(private.path)) == str(private.path)


def test_the_command_for_a_repository_that_is_elsewhere_is_quoted(private: Repository) -> None:
    """A download can give the folder that has the repository any name."""
    there = private.path / "x;id>y"
    (private.path / ".git").rename(there)
    (private.path / ".git").write_text(f"gitdir: {there}\n")
    with pytest.raises(GitFailed) as error:
        check_repository(str(private.path))
    assert f"git --git-dir '{there}' config core.worktree " in str(error.value.hint)


def test_a_very_deep_repository_is_read(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q")
    deep = tmp_path / ".git/refs" / "/".join("a" * 1200)  # more than Python takes calls
    subprocess.run(["mkdir", "-p", deep], check=True)
    try:
        check_repository(str(tmp_path))
        (tmp_path / ".git/refs/a/a/link").symlink_to("/etc")
        with pytest.raises(GitFailed, match="a part of the repository is elsewhere"):
            check_repository(str(tmp_path))
    finally:  # pytest itself cannot remove it
        subprocess.run(["rm", "-rf", tmp_path / ".git"], check=True)


@pytest.mark.slow
def test_a_repository_that_borrows_objects_can_be_made_whole(
    home: Path, private: Repository
) -> None:
    shared = home / "it's shared"
    git(home, "clone", "-q", "--shared", str(private.path), str(shared))
    with pytest.raises(GitFailed, match="elsewhere") as error:
        top_level(str(shared))
    subprocess.run(
        ["sh", "-ec", str(error.value.hint).partition(": ")[2]], capture_output=True, check=True
    )
    workspace = Workspace(home, "ws")
    workspace.prepare(WorkspaceSource(str(shared), None, True), ())
    assert (workspace.code / "secret").exists()


def test_a_partial_clone_fetches_nothing_by_its_own_command(private: Repository) -> None:
    """Whatever is asked of it."""
    mark = private.path.parent / "ran"
    private("config", "extensions.partialClone", "origin")
    private("config", "remote.origin.promisor", "true")
    private("config", "remote.origin.uploadpack", f"touch {mark}; false")
    blob = private("rev-parse", "HEAD:secret").strip()
    (private.path / ".git/objects" / blob[:2] / blob[2:]).unlink()
    (private.path / ".git/index").unlink()
    subprocess.run(["git", "checkout", "-f"], cwd=private.path, capture_output=True, check=False)
    assert mark.exists(), "git itself runs it"
    mark.unlink()
    for words in (["read-tree", "HEAD"], ["cat-file", "-p", blob], ["checkout", "-f"]):
        with contextlib.suppress(GitFailed):
            run(words, private.path)
    place = Workspace(private.path.parent, "ws")
    with pytest.raises(GitFailed):
        place.prepare(WorkspaceSource(str(private.path), None, True), ())
    assert not mark.exists()


def test_a_command_that_the_repository_gives_git_lfs_is_not_run(
    private: Repository, tmp_path: Path
) -> None:
    """git-lfs is the user's own filter, and stays; it runs what `lfs.extension.*` names."""
    ran = private.path.parent / "ran"
    lfs = private.path.parent / "lfs"
    lfs.write_text('#!/bin/sh\nsh -c "$(git config lfs.extension.evil.clean)"; cat\n')
    lfs.chmod(0o755)
    subprocess.run(["git", "config", "--global", "filter.lfs.clean", lfs], check=True)
    private.write(".gitattributes", "* filter=lfs\n")
    private.write("secret", "the user's SECRET\n")
    os.utime(private.path / "secret", (2**31, 2**31))
    assert filters_off(str(private.path)) == IN_PYTHON
    private("config", "lfs.extension.evil.clean", f"touch {ran}")
    for read in (
        lambda: checkout.look(str(private.path)),
        lambda: checkout.write_patch(str(private.path), tmp_path / "patch"),
        lambda: Workspace(tmp_path, "ws").prepare(
            WorkspaceSource(str(private.path), None, True), ()
        ),
    ):
        with pytest.raises(GitFailed, match=r"lfs\.extension\.evil\.clean") as error:
            read()
    assert "git config --global" in str(error.value.hint) or "cannot copy" in error.value.message
    assert not ran.exists()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["./nested", "x/../nested", ".//nested", "{root}/f", "a/.GIT/x"])
def test_an_index_that_leads_out_of_the_repository_is_refused(
    private: Repository, tmp_path: Path, name: str
) -> None:
    """Git reads such entries without a check: the last file, and the filters of a module."""
    entry = f"{name.format(root=tmp_path)}|100644|content"
    words = [sys.executable, "-c", FORGE, ".git/index", entry]
    subprocess.run(words, cwd=private.path, check=True)
    with pytest.raises(GitFailed, match="a file that it cannot have"):
        checkout.write_patch(str(private.path), tmp_path / "patch")


@pytest.mark.parametrize("setting", ["GIT_ASKPASS", "SSH_ASKPASS", "core.askPass"])
def test_no_dialog_asks_for_a_password(
    home: Path, monkeypatch: pytest.MonkeyPatch, setting: str
) -> None:
    mark, program = home / "asked", home / "ask"
    program.write_text(f"#!/bin/sh\ntouch '{mark}'\necho x\n")
    program.chmod(0o755)
    if setting == "core.askPass":
        git(home, "config", "--global", setting, str(program))
    else:
        monkeypatch.setenv(setting, str(program))
    refusal = reply(401, headers={"WWW-Authenticate": 'Basic realm="x"'})
    with RawServer(refusal) as server, pytest.raises(GitFailed, match="could not read Username"):
        run(["clone", "--quiet", f"{server.origin}/a/b.git", str(home / "clone")])
    assert not mark.exists()


def test_no_dialog_of_ssh_asks_either(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a command of the user's own for ssh, which may lack `BatchMode`."""
    monkeypatch.setenv("SSH_ASKPASS", "dialog")
    monkeypatch.setenv("GIT_SSH_COMMAND", f"env > '{home}/seen'; false")
    with pytest.raises(GitFailed):
        run(["ls-remote", "git@example.com:a/b.git"])
    seen = (home / "seen").read_text().splitlines()
    assert "SSH_ASKPASS=false" in seen
    assert "SSH_ASKPASS_REQUIRE=never" in seen


def test_a_git_that_gives_no_answer_has_not_said_no(
    private: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert commit_of(private.path, "refs/heads/none") == ""
    program = tmp_path / "git"
    program.write_text("#!/bin/sh\nkill -9 $$\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    with pytest.raises(GitFailed, match="ended by signal 9"):
        commit_of(private.path, "refs/heads/main")
    program.chmod(0o644)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(GitFailed, match="not installed"):
        commit_of(private.path, "refs/heads/main")


def test_of_what_git_says_the_end_is_kept(home: Path) -> None:
    """A server may never stop to say things, which git passes on."""
    say = "head -c 30000000 /dev/zero | tr '\\0' 'x' >&2; printf '\\nfatal: the end' >&2; exit 3"
    with pytest.raises(GitFailed, match=r"^the end$") as error:
        run(["-c", f"alias.x=!{say}", "x"])
    assert len(error.value.said) <= 1 << 16


def test_a_server_that_never_ends_ends_git_not_the_machine(home: Path) -> None:
    def packet(text: str) -> bytes:
        return f"{len(text) + 4:04x}{text}".encode()

    def script(request: Request) -> Callable[[Line], None]:
        kind = "application/x-git-upload-pack-advertisement"
        head = reply(200, headers={"Content-Type": kind, "Content-Length": str(1 << 50)})
        first = packet("# service=git-upload-pack\n") + b"0000"
        names = b"".join(packet(f"{1:040x} refs/heads/{'x' * 900}{n}\n") for n in range(1000))

        def answer(line: Line) -> None:
            line.send(head + first)
            while True:
                line.send(names)

        return answer

    with RawServer(script) as server, pytest.raises(GitFailed, match=r"0\.2 GiB of memory"):
        run(["ls-remote", f"{server.origin}/a.git"], memory=200 * 1024**2)


LIMIT = ("-c", "alias.limit=!ulimit -d", "limit")  # in KiB


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has such a limit")
def test_each_git_that_may_be_ended_has_a_limit_of_memory() -> None:
    """A few bytes of a repository, such as `core.attributesFile=/dev/zero`, can ask for all."""
    assert run(LIMIT) == b"%d\n" % (MEMORY // 1024)
    assert run(LIMIT, to_end=True) == subprocess.check_output(["sh", "-c", "ulimit -d"])


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has such a limit")
def test_a_lower_limit_of_memory_stays() -> None:
    """One that may not be raised; a user other than root has to keep to it."""
    words = ["/usr/bin/setpriv", "--bounding-set=-sys_resource"] if os.getuid() == 0 else []
    script = f"from rebyte_cli.system.git import run; print(run({LIMIT!r}))"
    limited = ["sh", "-c", 'ulimit -d 2000000 && exec "$@"', "sh", *words, sys.executable]
    assert subprocess.check_output([*limited, "-c", script]) == b"b'2000000\\n'\n"


def test_an_index_that_is_large_only_in_a_copy_is_refused(
    private: Repository, tmp_path: Path
) -> None:
    """A sparse file takes no room on the disk."""
    os.truncate(private.path / ".git/index", (1 << 30) + 1)
    with pytest.raises(GitFailed, match="the index of the repository is larger than 1 GiB"):
        own_index(str(private.path), tmp_path)
    assert not (tmp_path / "index").exists()


def test_the_copy_of_an_index_does_not_fill_the_disk(private: Repository, tmp_path: Path) -> None:
    os.truncate(private.path / ".git/index", 48 << 20)
    with watched(lambda: "the disk is full"), pytest.raises(GitFailed, match="the disk is full"):
        own_index(str(private.path), tmp_path)
    assert (tmp_path / "index").stat().st_size < 48 << 20


@pytest.mark.slow
def test_a_change_in_the_second_of_an_index_is_seen(private: Repository, tmp_path: Path) -> None:
    """git knows files by size and second, and looks into those that are as new as its index."""
    file = private.path / "file"
    for _ in range(50):  # of a busy machine
        time.sleep(1 - time.time() % 1)
        file.write_text("a\n")
        git(private.path, "add", "file")
        before = file.stat()
        file.write_text("b\n")
        if int(file.stat().st_ctime) == int(before.st_ctime):
            break
    time.sleep(1 - time.time() % 1)
    variables = own_index(str(private.path), tmp_path)
    run(["add", "-A"], private.path, variables)
    assert run(["show", ":file"], private.path, variables) == b"b\n"


@pytest.mark.slow
def test_what_git_prints_ends_git_not_the_machine(private: Repository, tmp_path: Path) -> None:
    """Folders in folders: a few objects stand for any number of names."""
    endless = ["-c", "alias.x=!exec yes", "x"]
    with pytest.raises(GitFailed, match="printed more than 4 MiB"):
        run(endless, most=4 << 20)
    file = (tmp_path / "patch").open("wb")
    with file, pytest.raises(GitFailed, match="printed more than 4 MiB"):
        run(endless, output=file.fileno(), most=4 << 20)
    assert run(["ls-files"], private.path, most=100)
    with pytest.raises(GitFailed, match="git ls-files printed more"):
        run(["ls-files"], private.path, most=5)


def test_a_pipe_in_a_repository_is_not_waited_for_for_ever(
    private: Repository, tmp_path: Path
) -> None:
    (private.path / ".git/logs/refs/heads").mkdir(parents=True, exist_ok=True)
    os.mkfifo(private.path / ".git/logs/refs/heads/new")
    head = private("rev-parse", "HEAD").strip()
    with pytest.raises(GitFailed, match="git update-ref took longer than 1 s"):
        run(["update-ref", "refs/heads/new", head], private.path, to_end=True, timeout=1)
    linked = tmp_path / "linked"
    private("worktree", "add", "-q", str(linked))
    place = private.path / ".git/worktrees/linked/gitdir"
    place.unlink()
    os.mkfifo(place)
    with pytest.raises(GitFailed, match="elsewhere"):
        top_level(str(linked))


@pytest.mark.parametrize(
    "name",
    [
        "MERGE_RR", "index", "logs", "logs/HEAD", "logs/refs/heads/new", "refs/heads",
        "refs/remotes/x/y", "objects", "objects/ab", "objects/ab/cd", "info/sparse-checkout",
        "worktrees/x/logs/HEAD", "modules/m/HEAD", "x/hooks",
    ],
)  # fmt: skip
def test_a_repository_with_a_link_that_leads_out_or_a_pipe_is_refused(
    private: Repository, tmp_path: Path, name: str
) -> None:
    """git writes through the link, even to a file that is missing, and waits for the pipe."""
    repository = private.path / ".git"
    check_parts(repository)
    path = repository / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists():
        path.rename(tmp_path / "kept")
    for target in (tmp_path / "kept", tmp_path / "missing", Path("/dev/tty"), tmp_path):
        path.symlink_to(target)
        with pytest.raises(GitFailed, match=r"elsewhere: .* is a link"):
            check_parts(repository)
        path.unlink()
    os.mkfifo(path)
    with pytest.raises(GitFailed, match="no file"):
        check_parts(repository)


def test_links_that_git_does_not_write_through_are_allowed(
    private: Repository, tmp_path: Path
) -> None:
    """Hooks, what git-annex, `git rerere` and editors keep, patterns of the user, and a socket."""
    place = private.path / ".git"
    if (place / "hooks").exists():
        (place / "hooks").rename(tmp_path / "hooks")
    (tmp_path / "hooks").mkdir(exist_ok=True)
    (place / "hooks").symlink_to(tmp_path / "hooks")
    for name in (
        "annex/objects",
        "rr-cache/1",
        "modules/a/hooks",
        "modules/b/modules/c/annex",
        "info",
    ):
        (place / name).mkdir(parents=True, exist_ok=True)
        (place / name / "exclude").unlink(missing_ok=True)
        (place / name / "exclude").symlink_to(tmp_path / "exclude")
    (tmp_path / "exclude").write_text("*.o\n")
    (place / ".#config").symlink_to("ada@host.1234:5678")
    with contextlib.chdir(place), socket.socket(socket.AF_UNIX) as monitor:
        monitor.bind("fsmonitor--daemon.ipc")
        assert top_level(str(private.path)) == str(private.path)
    (tmp_path / "exclude").unlink()
    check_place(str(private.path))
    os.mkfifo(tmp_path / "exclude")
    with pytest.raises(GitFailed, match="info/exclude is a link"):
        check_place(str(private.path))
    (place / "info/exclude").unlink()
    os.mkfifo(place / "annex/objects/pipe")
    check_place(str(private.path))
    (place / "MERGE_RR").symlink_to("annex/objects/pipe")
    with pytest.raises(GitFailed, match="MERGE_RR is a link"):
        check_place(str(private.path))


def test_a_branch_cannot_be_outside_of_the_references(private: Repository, home: Path) -> None:
    """By way of a linked folder of hooks, git would write a branch of any repository."""
    victim = home / "victim"
    git(home, "clone", "-q", str(private.path), str(victim))
    place = private.path / ".git"
    subprocess.run(["rm", "-rf", place / "hooks"], check=True)
    (place / "hooks").symlink_to(victim / ".git/refs/heads")
    (place / "refs/heads/main").write_text("ref: hooks/main\n")
    git(private.path, "commit", "-q", "--allow-empty", "-m", "Into the other one")
    new = git(private.path, "rev-parse", "HEAD")
    assert (victim / ".git/refs/heads/main").read_text() == new, "git itself writes it"
    with pytest.raises(GitFailed, match="refs/heads/main"):
        check_place(str(private.path))
    (place / "refs/heads/main").write_text("ref:\trefs/heads/other\n")
    check_place(str(private.path))
    (place / "worktrees/w/refs/bisect").mkdir(parents=True)
    (place / "worktrees/w/refs/bisect/bad").write_text("ref:\n annex/x\n")
    with pytest.raises(GitFailed, match="refs/bisect/bad"):
        check_place(str(private.path))


def test_a_folder_of_a_repository_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    """git reaches it by a shorter path, and would write through a link in it."""
    git(tmp_path, "init", "-q")
    (tmp_path / ".git/logs").mkdir()
    with contextlib.chdir(tmp_path / ".git/logs"):
        os.makedirs("/".join(["a" * 254] * 16))
    try:
        with pytest.raises(GitFailed, match="cannot be read"):
            check_place(str(tmp_path))
    finally:
        subprocess.run(["rm", "-rf", tmp_path / ".git"], check=True)


@pytest.mark.slow
def test_long_names_fill_no_command_line(private: Repository) -> None:
    names = ["/".join(["x" * 200] * 20) + str(number) for number in range(1000)]
    assert [name for some in portions(names) for name in some] == names
    for some in portions(names):
        assert run(["check-attr", "text", "--", *some], private.path)
    with pytest.raises(GitFailed, match="Argument list too long"):
        run(["check-attr", "text", "--", "x" * 200_000], private.path)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("diff.context", "0"), ("diff.interHunkContext", "100"), ("diff.orderFile", "/dev/zero"),
        ("GIT_DIFF_OPTS", "-u0"), ("GIT_LITERAL_PATHSPECS", "1"), ("GIT_EXTERNAL_DIFF", "false"),
    ],
)  # fmt: skip
def test_a_patch_is_the_same_with_any_settings(
    private: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    private.write("lines", "".join(f"{number}\n" for number in range(40)))
    private.commit("Lines")
    text = (private.path / "lines").read_text()
    private.write("lines", text.replace("20\n", "20\nnew\n"))
    git(private.path, "init", "-q", "inner")  # which is left out by a pathspec
    checkout.write_patch(str(private.path), tmp_path / "before")
    if name.startswith("GIT_"):
        monkeypatch.setenv(name, value)
    else:
        private("config", name, value)
    checkout.write_patch(str(private.path), tmp_path / "after")
    assert (tmp_path / "after").read_bytes() == (tmp_path / "before").read_bytes()
    assert b"+new" in (tmp_path / "after").read_bytes()


def test_changes_are_those_to_what_a_clone_has(private: Repository, tmp_path: Path) -> None:
    """`git replace` shows another commit in the place of one, which no clone gets."""
    real = private("rev-parse", "HEAD").strip()
    private.write("secret", "changed\n")
    private.commit("Other")
    private("replace", real, private("rev-parse", "HEAD").strip())
    private("reset", "-q", "--soft", real)
    checkout.write_patch(str(private.path), tmp_path / "patch")
    assert b"+changed" in (tmp_path / "patch").read_bytes()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="/proc shows how large the file is")
def test_what_git_says_that_is_left_to_finish_does_not_fill_the_disk() -> None:
    """A file with attributes can have thousands of mistakes, and a path of thousands of bytes."""
    size = "$(stat -Lc %s /proc/self/fd/2)"
    say = "for n in 1 2 3; do head -c 9000000 /dev/zero >&2; i=0;"
    say += f" while [ $i -lt 100 ] && [ {size} != 0 ]; do i=$((i + 1)); sleep 0.1; done;"
    say += f" echo {size}; done; echo the end >&2"
    assert run(["-c", f"alias.x=!{say}", "x"], to_end=True).split() == [b"0"] * 3
    with pytest.raises(GitFailed) as error:
        run(["-c", f"alias.x=!{say}; exit 3", "x"], to_end=True)
    assert error.value.said.endswith("\0the end\n")
    assert len(error.value.said) == 1 << 16


HUNG_UP = """
import os, signal, sys
from rebyte_cli.system.git import signals_later
signal.signal(signal.SIGHUP, getattr(signal, sys.argv[1]))
with signals_later(), signals_later():
    os.kill(os.getpid(), signal.SIGHUP)
    print("end", flush=True)
print("after", flush=True)
"""


@pytest.mark.parametrize(
    ("action", "status", "said"),
    [("SIG_DFL", -1, "end\n"), ("SIG_IGN", 0, "end\nafter\n")],  # the second as under nohup
)
def test_a_closed_terminal_ends_nothing_in_the_middle(action: str, status: int, said: str) -> None:
    words = [sys.executable, "-c", HUNG_UP, action]
    done = subprocess.run(words, stdout=subprocess.PIPE, text=True)
    assert (done.returncode, done.stdout) == (status, said)


def test_settings_count_more_than_all_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (
        ("PARAMETERS", "'x.y.z'='one' 'x.other=two'"),
        ("COUNT", "1"), ("KEY_0", "x.y.z"), ("VALUE_0", "three"),
    ):  # fmt: skip
        monkeypatch.setenv(f"GIT_CONFIG_{name}", value)
    settings = [("x.y.z", "it's $ \n!\\"), ("x.e=q'.z", "")]
    variables = settings_of(settings)
    for name, value in [*settings, ("x.other", "two")]:
        assert run(["config", "-z", name], extra=variables).decode() == f"{value}\0"


@pytest.mark.slow
def test_no_hook_that_settings_name_is_run(
    home: Path, private: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    """git does so since 2.54, whatever `core.hooksPath` is."""
    log, mark = newer_git.install(home / "newer"), home / "mark"
    commit = private("rev-parse", "HEAD").strip()
    for name in ("x", "", "x.enabled=true", 'Ä "b\\'):
        newer_git.name_hook(private.path / ".git", name, mark)
    (private.path / ".git/config").write_bytes(
        (private.path / ".git/config").read_bytes() + b"[include]\n\tpath = ../settings\n"
    )
    newer_git.name_hook(private.path, "included", mark, file="settings")
    newer_git.name_hook(home, "user", mark, file=".gitconfig")
    other = {"GIT_DIR": str(private.path / ".git")}
    monkeypatch.setenv("PATH", f"{home / 'newer'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("GIT_CONFIG_PARAMETERS", "'hook.x.enabled=true'")
    only = only_settings(home / "none") | other
    for number, (folder, extra, options) in enumerate((
        (private.path, {}, []),
        (None, other, []),
        (None, settings_of([("user.name", "x")]) | other, ["-c", "user.email=y"]),
        (None, {}, ["--git-dir", other["GIT_DIR"]]),
        (None, only, []),
    )):  # fmt: skip
        for to_end in (False, True):
            # As a patch can change what is included.
            newer_git.name_hook(private.path, f"{number}{to_end}", mark, file="settings")
            ref = f"refs/heads/{number}{to_end}"
            run([*options, "update-ref", ref, commit], folder, extra, to_end=to_end)
    assert not log.exists(), log.read_text()
    assert not mark.exists()


def test_more_hooks_than_fit_into_a_command_line_fail(
    home: Path, private: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    newer_git.install(home / "newer")
    newer_git.name_hook(private.path / ".git", "x" * 200_000, home / "mark")
    monkeypatch.setenv("PATH", f"{home / 'newer'}{os.pathsep}{os.environ['PATH']}")
    for to_end in (False, True):
        with pytest.raises(GitFailed, match="Argument list too long"):
            run(["update-ref", "refs/heads/x", "HEAD"], private.path, to_end=to_end)


@pytest.mark.parametrize("value", ["files://{there}", "reftable://../x", "/x", ""])
def test_references_cannot_be_kept_elsewhere(
    home: Path, private: Repository, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    """A setting says so to git since 2.54, which writes them there; earlier ones know none such."""
    newer_git.install(home / "newer")
    monkeypatch.setenv("PATH", f"{home / 'newer'}{os.pathsep}{os.environ['PATH']}")
    private("config", "extensions.refStorage", "files")
    check_parts(private.path / ".git")
    # Of several, the last one counts for git.
    settings = f'[extensions]\n\trefStorage = "{value.format(there=home)}"\n\trefStorage = files\n'
    with (private.path / ".git/config").open("a") as config:
        config.write(settings)
    with pytest.raises(GitFailed, match="its references are"):
        check_parts(private.path / ".git")


def test_a_variable_does_not_say_where_references_are(
    private: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hook of git has it, of the repository of the hook."""
    monkeypatch.setenv("GIT_REFERENCE_BACKEND", "files:///nowhere")
    alias = "alias.x=!echo ${GIT_REFERENCE_BACKEND-unset}"
    assert run(["-c", alias, "x"], private.path) == b"unset\n"
