"""`rebyte apply --branch` and `--commit`: commits of what a task changed, in real repositories."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rebyte_cli.system.git import GitFailed
from rebyte_cli.tasks.push import push_branch
from tests import newer_git
from tests.conftest import Done
from tests.patch_farm import PatchFarm, patch_of
from tests.repositories import git, introduce, snapshot

Run = Callable[..., Done]
CODE = "".join(f"line {number}\n" for number in range(20))


@pytest.fixture
def farm(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[PatchFarm]:
    introduce(home)
    with PatchFarm() as farm:
        farm.shift = 5  # commits have whole seconds, and the task must be later than those here
        for name, value in farm.env.items():
            monkeypatch.setenv(name, value)
        yield farm


@pytest.fixture(params=["sha1", "sha256"])
def repository(home: Path, request: pytest.FixtureRequest) -> Path:
    return make(home / "repository", request.param)


def make(folder: Path, hashes: str = "sha1") -> Path:
    """A repository with three files and one commit."""
    folder.mkdir()
    git(folder, "init", "-q", "-b", "main", f"--object-format={hashes}")
    (folder / "code.txt").write_text(CODE)
    (folder / "old.txt").write_text("old\n" * 9)
    (folder / "run.sh").write_text("#!/bin/sh\n")
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "-m", "Start")
    return folder


def everything(repository: Path) -> Callable[[], None]:
    """A change of every kind: binary, rename, mode, link, deletion, a name that git quotes."""

    def change() -> None:
        (repository / "code.txt").write_text(CODE.replace("line 3\n", "LINE 3\n"))
        (repository / "old.txt").rename(repository / "n\xe9w 1.txt")
        (repository / "run.sh").chmod(0o755)
        (repository / "data.bin").write_bytes(bytes(range(256)))
        (repository / "link").symlink_to("code.txt")

    return change


def test_a_branch_has_one_commit_at_the_base(
    farm: PatchFarm, inside: Run, repository: Path
) -> None:
    base = git(repository, "rev-parse", "HEAD").strip()
    patch = patch_of(repository, everything(repository))
    (repository / "code.txt").write_text("mine, not committed\n")
    before = snapshot(repository)
    task = farm.add("Shout\nat\x1b[31m the\u202e third line " + "x" * 80, patch, baseCommit=base)
    done = inside("apply", task, "--branch", "feature/3", "-o", "json", cwd=repository)
    assert done.status == 0, done
    assert snapshot(repository) == before
    commit = git(repository, "rev-parse", "feature/3").strip()
    assert {row["commit"] for row in done.json["data"]} == {commit}
    assert "run.sh (executable)" in done.err
    assert git(repository, "rev-list", "--parents", "-1", commit).split() == [commit, base]
    subject, *rest = git(repository, "show", "-s", "--format=%B", commit).rstrip().split("\n")
    assert subject == "Shout at [31m the third line " + "x" * 42 + "…"
    assert rest == ["", f"Rebyte-Task: {task}", "Rebyte-Executor: claude"]
    people = git(repository, "show", "-s", "--format=%an %ae %cn %ce %G?", commit)
    assert people == "Ada ada@example.com Ada ada@example.com N\n"
    made = subprocess.run(
        ["git", "diff", "--binary", "--full-index", base, commit],
        cwd=repository,
        capture_output=True,
        check=True,
    ).stdout
    assert made == patch


@pytest.mark.slow
def test_a_branch_that_exists_is_replaced_by_force_only(
    farm: PatchFarm, inside: Run, repository: Path, home: Path
) -> None:
    patch = patch_of(repository, lambda: (repository / "new").write_text("x"))
    task = farm.add("Add it", patch)
    git(repository, "branch", "taken")
    words = ("apply", task, "-o", "table", "--branch")
    refused = inside(*words, "taken", cwd=repository)
    assert (refused.status, "the branch taken exists" in refused.err) == (2, True)
    assert inside(*words, "taken", "--force", cwd=repository).status == 0
    assert git(repository, "ls-tree", "--name-only", "taken", "new") == "new\n"
    git(repository, "worktree", "add", "-q", str(home / "linked"), "-b", "linked")
    for name in ("main", "linked"):  # checked out, here or elsewhere
        refused = inside(*words, name, "--force", cwd=repository)
        assert (refused.status, "is checked out" in refused.err) == (2, True)
    for name in ("a..b", "-x", "@{-1}", "", "a b", "taken/below"):
        assert inside(*words, name, "--force", cwd=repository).status in (1, 2)
    # From the linked working tree, it is the same repository.
    assert inside(*words, "other", cwd=home / "linked").status == 0
    assert git(repository, "ls-tree", "--name-only", "other", "new") == "new\n"
    assert git(home / "linked", "status", "--porcelain") == ""


@pytest.mark.parametrize("stands_for", ["main", "gone"])
@pytest.mark.parametrize("words", [("apply",), ("land", "--no-check")], ids=" ".join)
def test_a_branch_that_stands_for_another_one_is_refused(
    farm: PatchFarm, inside: Run, home: Path, words: tuple[str, ...], stands_for: str
) -> None:
    """git would move that one, which may be the one that is checked out."""
    repository = make(home / "repository")
    task = farm.add("Work", patch_of(repository, lambda: (repository / "new").write_text("x")))
    git(repository, "symbolic-ref", "refs/heads/x", f"refs/heads/{stands_for}")
    before = snapshot(repository)
    done = inside(*words, task, "--branch", "x", "--force", "-o", "table", cwd=repository)
    assert (done.status, f"x stands for refs/heads/{stands_for}" in done.err) == (2, True), done
    assert snapshot(repository) == before


@pytest.mark.slow
def test_the_base_is_found_by_its_files(farm: PatchFarm, inside: Run, repository: Path) -> None:
    """Where the service does not tell it: the newest commit from before that the patch fits."""
    first = git(repository, "rev-parse", "HEAD").strip()
    (repository / "other.txt").write_text("x")
    git(repository, "add", "-A")
    git(repository, "commit", "-q", "-m", "Elsewhere")
    wanted = git(repository, "rev-parse", "HEAD").strip()
    patch = patch_of(repository, everything(repository))
    task = farm.add("Work", patch)
    (repository / "code.txt").write_text("all new\n")
    git(repository, "commit", "-q", "-a", "-m", "Meanwhile")
    assert inside("apply", task, "--branch", "found", cwd=repository).status == 0
    assert git(repository, "rev-parse", "found~").strip() == wanted
    # What is only on another branch is found there.
    git(repository, "branch", "other")
    git(repository, "reset", "-q", "--hard", first)
    (repository / "code.txt").write_text("all other\n")
    git(repository, "commit", "-q", "-a", "--amend", "-m", "Begin again")
    assert inside("apply", task, "--branch", "again", cwd=repository).status == 0
    assert git(repository, "rev-parse", "again~").strip() == wanted


def test_a_base_that_is_not_here_is_named(
    farm: PatchFarm, inside: Run, repository: Path, home: Path
) -> None:
    patch = patch_of(repository, everything(repository))
    told = farm.add("Told", patch, baseCommit="1" * 40)
    done = inside("apply", told, "--branch", "x", "-o", "table", cwd=repository)
    assert (done.status, f"does not have commit {'1' * 40}" in " ".join(done.err.split())) == (
        4,
        True,
    )
    other = make(home / "other", "sha1")
    (other / "code.txt").write_text("other\n")
    git(other, "commit", "-q", "-a", "--amend", "-m", "Other")
    unknown = farm.add("Unknown", patch)
    done = inside("apply", unknown, "--branch", "x", "-o", "table", cwd=other)
    assert (done.status, "no commit here has the files" in done.err) == (4, True)
    assert git(other, "branch", "--list", "x") == ""


@pytest.mark.parametrize("name", ["draft", "HEAD", "{commit}~0", "{short}"])
def test_a_service_names_no_commit_but_by_its_id(
    farm: PatchFarm, inside: Run, home: Path, name: str
) -> None:
    """A branch of the user's that was never sent would be a part of the new one."""
    repository = make(home / "repository")
    patch = patch_of(repository, everything(repository))
    git(repository, "checkout", "-q", "-b", "draft")
    git(repository, "commit", "-q", "--allow-empty", "-m", "Private")
    commit = git(repository, "rev-parse", "HEAD").strip()
    told = farm.add("Told", patch, baseCommit=name.format(commit=commit, short=commit[:39]))
    done = inside("apply", told, "--branch", "x", "-o", "table", cwd=repository)
    assert (done.status, "does not have commit" in done.err) == (4, True), done
    assert git(repository, "branch", "--list", "x") == ""


@pytest.mark.slow
def test_a_commit_is_what_was_applied_and_nothing_else(
    farm: PatchFarm, inside: Run, repository: Path
) -> None:
    patch = patch_of(repository, everything(repository))
    task = farm.add("Work", patch)
    (repository / "mine.txt").write_text("mine\n")
    git(repository, "add", "mine.txt")
    refused = inside("apply", task, "--commit", "--yes", cwd=repository)
    assert refused.status == 2
    words = ("apply", task, "--commit", "--yes", "--force", "-m")
    done = inside(*words, "Mine\n\nWhy.\n\nSigned-off-by: Ada", "-o", "json", cwd=repository)
    assert done.status == 0, done
    assert git(repository, "status", "--porcelain") == "A  mine.txt\n"
    assert git(repository, "show", "-s", "--format=%B").rstrip() == (
        f"Mine\n\nWhy.\n\nSigned-off-by: Ada\nRebyte-Task: {task}\nRebyte-Executor: claude"
    )
    commit = git(repository, "rev-parse", "main").strip()
    assert {row["commit"] for row in done.json["data"]} == {commit}
    assert "mine.txt" not in git(repository, "ls-tree", "-r", "--name-only", "HEAD")
    again = inside(*words, "x", cwd=repository)
    assert (again.status, again.json) == (0, {"data": []})
    assert git(repository, "rev-parse", "main").strip() == commit


def test_a_file_with_changes_of_ones_own_is_not_committed(
    farm: PatchFarm, inside: Run, repository: Path
) -> None:
    task = farm.add("Work", patch_of(repository, everything(repository)))
    (repository / "code.txt").write_text(CODE + "mine\n")
    before = snapshot(repository)
    done = inside("apply", task, "--commit", "--force", "-o", "table", cwd=repository)
    assert (done.status, "uncommitted changes: code.txt" in done.err) == (2, True)
    assert snapshot(repository) == before


def test_a_conflict_is_left_to_be_resolved_and_nothing_is_committed(
    farm: PatchFarm, inside: Run, repository: Path
) -> None:
    task = farm.add("Work", patch_of(repository, everything(repository)))
    (repository / "code.txt").write_text(CODE.replace("line 3\n", "three\n"))
    git(repository, "commit", "-q", "-a", "-m", "Meanwhile")
    head = git(repository, "rev-parse", "HEAD")
    done = inside("apply", task, "--commit", "-o", "table", cwd=repository)
    assert (done.status, "1 file has conflicts: code.txt" in done.err) == (1, True)
    assert git(repository, "rev-parse", "HEAD") == head
    assert "UU code.txt" in git(repository, "status", "--porcelain")


@pytest.mark.slow
def test_a_detached_head_and_an_unborn_one(
    farm: PatchFarm, inside: Run, repository: Path, home: Path
) -> None:
    patch = patch_of(repository, lambda: (repository / "new").write_text("x"))
    task = farm.add("Work", patch)
    git(repository, "checkout", "-q", "--detach")
    assert inside("apply", task, "--commit", cwd=repository).status == 0
    assert git(repository, "ls-tree", "--name-only", "HEAD", "new") == "new\n"
    assert git(repository, "ls-tree", "--name-only", "main", "new") == ""
    assert git(repository, "status", "--porcelain") == ""
    hashes = git(repository, "rev-parse", "--show-object-format").strip()
    empty = home / "empty"
    git(home, "init", "-q", "-b", "begin", f"--object-format={hashes}", str(empty))
    refused = inside("apply", task, "--branch", "begin", cwd=empty)
    assert refused.status == 2, "it would not be unborn any more"
    assert inside("apply", task, "--commit", cwd=empty).status == 0
    assert git(empty, "log", "--format=%s") == "Work\n"
    assert git(empty, "status", "--porcelain") == ""


def test_a_merge_under_way_is_not_ended(farm: PatchFarm, inside: Run, repository: Path) -> None:
    task = farm.add("Work", patch_of(repository, lambda: (repository / "new").write_text("x")))
    git(repository, "checkout", "-q", "-b", "side")
    git(repository, "commit", "-q", "--allow-empty", "-m", "Side")
    git(repository, "checkout", "-q", "main")
    git(repository, "merge", "-q", "--no-ff", "--no-commit", "side")
    done = inside("apply", task, "--commit", "-o", "table", cwd=repository)
    assert (done.status, "a merge is under way" in done.err) == (2, True)


@pytest.mark.slow
def test_no_hook_runs_and_a_signature_only_if_git_signs(
    farm: PatchFarm, inside: Run, repository: Path, home: Path
) -> None:
    ran = home / "ran"
    for hook in ("pre-commit", "commit-msg", "post-commit", "reference-transaction"):
        (repository / ".git/hooks" / hook).write_text(f"#!/bin/sh\ntouch {ran}; exit 1\n")
        (repository / ".git/hooks" / hook).chmod(0o755)
    (home / "gpg").write_text(
        "#!/bin/sh\ncat > /dev/null; echo '[GNUPG:] SIG_CREATED ' >&2\n"
        "printf -- '-----BEGIN PGP SIGNATURE-----\\nx\\n-----END PGP SIGNATURE-----\\n'\n"
    )
    (home / "gpg").chmod(0o755)
    first = farm.add("One", patch_of_new(repository, "one"))
    second = farm.add("Two", patch_of_new(repository, "two"))
    git(repository, "config", "--global", "gpg.program", str(home / "gpg"))
    assert inside("apply", first, "--commit", cwd=repository).status == 0
    assert "gpgsig" not in git(repository, "cat-file", "commit", "HEAD")
    git(repository, "config", "commit.gpgSign", "yes")
    assert inside("apply", second, "--commit", cwd=repository).status == 0
    assert "gpgsig" in git(repository, "cat-file", "commit", "HEAD")
    git(repository, "config", "--global", "gpg.program", str(home / "gone"))
    third = farm.add("Three", patch_of_new(repository, "three"))
    before = snapshot(repository)
    assert inside("apply", third, "--commit", cwd=repository).status == 1
    assert snapshot(repository) == before, "what cannot be signed is not applied"
    assert not ran.exists()


# What a downloaded repository can name, each a program that leaves a mark.
PROGRAMS = {
    "signature": {"commit.gpgSign": "yes", "gpg.program": "RUN"},
    "openpgp": {"commit.gpgSign": "yes", "gpg.openpgp.program": "RUN"},
    "ssh": {
        "commit.gpgSign": "yes",
        "gpg.format": "ssh",
        "gpg.ssh.program": "RUN",
        "gpg.ssh.defaultKeyCommand": "RUN",
    },
    "x509": {"commit.gpgSign": "yes", "gpg.format": "x509", "gpg.x509.program": "RUN"},
    "merge": {"merge.default": "evil", "merge.evil.driver": "RUN"},
    "fetch": {
        "extensions.partialClone": "origin",
        "remote.origin.promisor": "true",
        "remote.origin.url": ".",
        "remote.origin.uploadpack": "RUN",
    },
    "ext": {
        "extensions.partialClone": "origin",
        "remote.origin.promisor": "true",
        "remote.origin.url": "ext::RUN",
        "protocol.ext.allow": "always",
    },
}


@pytest.mark.parametrize("way", [(), ("--commit",), ("--branch", "new")], ids=" ".join)
@pytest.mark.parametrize("kind", PROGRAMS)
def test_no_program_that_the_repository_names_runs(
    farm: PatchFarm, inside: Run, home: Path, kind: str, way: tuple[str, ...]
) -> None:
    """What signs, merges or fetches is what the user's own configuration says, or git's own."""
    repository = make(home / "repository")
    change = CODE.replace("line 3\n", "LINE 3\n")
    task = farm.add(
        "Work", patch_of(repository, lambda: (repository / "code.txt").write_text(change))
    )
    (repository / "code.txt").write_text(CODE.replace("line 17\n", "LINE 17\n"))
    git(repository, "commit", "-q", "-a", "-m", "Moved on")
    if kind in ("fetch", "ext"):  # the blob from which the merge begins
        blob = git(repository, "rev-parse", "HEAD~1:code.txt").strip()
        (repository / ".git/objects" / blob[:2] / blob[2:]).unlink()
    mark, program = home / "mark", home / "program"
    program.write_text(f"#!/bin/sh\ntouch {mark}\nexit 1\n")
    program.chmod(0o755)
    for name, value in PROGRAMS[kind].items():
        git(repository, "config", name, value.replace("RUN", str(program)))
    inside("apply", task, *way, "--yes", cwd=repository)
    assert not mark.exists()


@pytest.mark.slow
def test_a_partial_clone_says_how_to_fetch_what_it_lacks(
    farm: PatchFarm, inside: Run, home: Path
) -> None:
    """It merges what it has, and fetches nothing by itself."""
    origin, partial = make(home / "repository"), home / "partial"
    change = CODE.replace("line 3\n", "LINE 3\n")
    old = farm.add("Old", patch_of(origin, lambda: (origin / "code.txt").write_text(change)))
    (origin / "code.txt").write_text(CODE.replace("line 3\n", "moved\nline 3\n"))
    git(origin, "commit", "-q", "-a", "-m", "Moved on")
    new = farm.add("New", patch_of(origin, lambda: (origin / "new").write_text("new\n")))
    git(origin, "config", "uploadpack.allowFilter", "true")
    git(origin, "config", "uploadpack.allowAnySHA1InWant", "true")
    git(home, "clone", "-q", "--filter=blob:none", f"file://{origin}", str(partial))
    for command, status in (("apply", 1), ("land", 10)):
        words = (
            ("--yes",) if command == "apply" else ("--branch", "x", "--no-check", "--rerun", "0")
        )
        done = inside(command, old, *words, "-o", "table", cwd=partial)
        assert done.status == status, done
        assert "git fetch --refetch --no-filter" in done.err + done.out, done
    words = ["rev-list", "--objects", "--missing=print", "--all"]
    assert "\n?" in git(partial, *words)
    assert inside("apply", new, "--branch", "fix", cwd=partial).status == 0
    push_branch(partial, "fix", "origin")
    assert git(origin, "rev-parse", "fix") == git(partial, "rev-parse", "fix")
    assert "\n?" in git(partial, *words), "nothing was fetched"
    git(partial, "fetch", "--refetch", "--no-filter")
    assert "\n?" not in git(partial, *words)
    done = inside("apply", old, "--yes", cwd=partial)
    assert "conflicts: code.txt" in done.err


def test_the_users_own_merge_driver_runs(
    farm: PatchFarm, inside: Run, repository: Path, home: Path
) -> None:
    change = CODE.replace("line 3\n", "LINE 3\n")
    task = farm.add(
        "Work", patch_of(repository, lambda: (repository / "code.txt").write_text(change))
    )
    (repository / "code.txt").write_text(CODE.replace("line 17\n", "LINE 17\n"))
    git(repository, "commit", "-q", "-a", "-m", "Moved on")
    git(repository, "config", "--global", "merge.own.driver", "echo merged > %A")
    git(repository, "config", "merge.own.driver", "false")
    (repository / ".git/info/attributes").write_text("* merge=own\n")
    assert inside("apply", task, "--yes", cwd=repository).status == 0
    assert (repository / "code.txt").read_text() == "merged\n"
    git(repository, "config", "--global", "--unset", "merge.own.driver")
    git(repository, "reset", "-q", "--hard")
    assert inside("apply", task, "--yes", cwd=repository).status == 0
    assert (repository / "code.txt").read_text() == change.replace("line 17\n", "LINE 17\n")


def test_a_repository_that_is_elsewhere_is_refused(
    farm: PatchFarm, inside: Run, repository: Path, home: Path
) -> None:
    task = farm.add("Work", patch_of(repository, lambda: (repository / "new").write_text("x")))
    (home / "download").mkdir()
    (home / "download/.git").write_text(f"gitdir: {repository}/.git\n")
    before = snapshot(repository)
    for command in (
        ("apply", task, "--branch", "x"),
        ("land", task, "--branch", "x", "--no-check"),
    ):
        done = inside(*command, "-o", "table", cwd=home / "download")
        assert (done.status, "is elsewhere" in done.err) == (1, True), done
    assert snapshot(repository) == before


@pytest.mark.parametrize("tree", ["..", "{inner}"])
@pytest.mark.parametrize("more", [{}, {"GIT_COMMON_DIR": "../.git"}], ids=["", "common"])
def test_a_repository_that_is_named_from_a_folder_below_is_the_one(
    farm: PatchFarm,
    inside: Run,
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
    tree: str,
    more: dict[str, str],
) -> None:
    """From the top of its work tree, the same names would be those of the repository around it."""
    outer = make(home / "outer")
    inner = make(outer / "inner")
    (inner / "sub").mkdir()
    patch = patch_of(inner, lambda: (inner / "code.txt").write_text(CODE + "more\n"))
    task = farm.add("Work", patch, baseCommit=git(inner, "rev-parse", "HEAD").strip())
    before = snapshot(outer)[:3], git(outer, "for-each-ref")
    with monkeypatch.context() as here:
        named = {"GIT_DIR": "../.git", "GIT_WORK_TREE": tree.format(inner=inner), **more}
        for name, value in named.items():
            here.setenv(name, value)
        for words in (["--branch", "new"], ["--yes"]):
            done = inside("apply", task, *words, "-o", "table", cwd=inner / "sub")
            assert done.status == 0, done
    assert git(inner, "status", "--porcelain") == "M  code.txt\n"
    assert git(inner, "diff", "main", "new") == git(inner, "diff", "--cached")
    assert (snapshot(outer)[:3], git(outer, "for-each-ref")) == before
    assert (outer / "code.txt").read_text() == CODE


@pytest.mark.parametrize("command", ["apply", "land"])
@pytest.mark.parametrize("named", [False, True])
def test_nothing_is_written_through_a_link_of_the_repository(
    farm: PatchFarm,
    inside: Run,
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
    command: str,
    named: bool,
) -> None:
    """The lines of a reflog hold the name of the user, which the repository gives: shell code."""
    repository = make(home / "repository")
    task = farm.add("Work", patch_of(repository, lambda: (repository / "new").write_text("x")))
    shell = home / ".bashrc"
    shell.write_text("# mine\n")
    (repository / ".git/logs/refs/heads/x").symlink_to(shell)
    if named:  # as an alias of git does
        monkeypatch.setenv("GIT_PREFIX", "")
    options = ["--no-check"] if command == "land" else []
    done = inside(command, task, "--branch", "x", *options, "-o", "table", cwd=repository)
    assert (done.status, "logs/refs/heads/x is a link" in done.err) == (1, True), done
    assert shell.read_text() == "# mine\n"


@pytest.mark.parametrize("way", [(), ("--commit",)], ids=" ".join)
def test_a_recorded_resolution_of_the_repository_is_not_applied(
    farm: PatchFarm, inside: Run, repository: Path, home: Path, way: tuple[str, ...]
) -> None:
    """It would put lines into a file that are not in the patch that was shown.

    And git would write the conflict through a link, into any file.
    """
    patch = patch_of(repository, everything(repository))
    task = farm.add("Work", patch)
    (repository / "code.txt").write_text(CODE.replace("line 3\n", "three\n"))
    git(repository, "commit", "-q", "-a", "-m", "Meanwhile")
    git(repository, "config", "rerere.enabled", "true")
    git(repository, "config", "rerere.autoUpdate", "true")
    words = ["git", "apply", "--3way", "-"]
    subprocess.run(words, input=patch, cwd=repository, capture_output=True, check=False)
    (recorded,) = (repository / ".git/rr-cache").iterdir()
    (recorded / "postimage").write_text("not in the patch\n")
    (home / "shell").write_text("# mine\n")
    (recorded / "thisimage").unlink(missing_ok=True)
    (recorded / "thisimage").symlink_to(home / "shell")
    git(repository, "reset", "-q", "--hard")
    git(repository, "clean", "-fdq")
    done = inside("apply", task, *way, "--yes", cwd=repository)
    assert (done.status, "conflicts: code.txt" in done.err) == (1, True), done
    assert "<<<<<<<" in (repository / "code.txt").read_text()
    assert (home / "shell").read_text() == "# mine\n"


NAMED = "its bytes are not those shown: ISO-2022-JP"
ATTRIBUTES = "*.sh working-tree-encoding=ISO-2022-JP\n"
# In that encoding, the same bytes are a harmless character or a quote and a semicolon.
SCRIPT = "MSG='\u6328'\n".encode("iso2022_jp")


@pytest.mark.parametrize("command", ["apply", "land"])
def test_a_file_that_is_written_in_another_encoding_is_named(
    farm: PatchFarm, inside: Run, repository: Path, command: str
) -> None:
    """Whatever is checked out here."""
    git(repository, "checkout", "-q", "-b", "other")
    git(repository, "checkout", "-q", "main")
    (repository / ".gitattributes").write_text(ATTRIBUTES)
    git(repository, "add", "-A")
    git(repository, "commit", "-q", "-m", "Attributes")
    task = farm.add(
        "Work", patch_of(repository, lambda: (repository / "run.sh").write_bytes(SCRIPT))
    )
    more: tuple[str, ...] = ()
    if command == "land":
        more = ("--no-check", "--onto", "main")
        git(repository, "checkout", "-q", "other")
    done = inside(command, task, "--branch", "x", *more, "-o", "table", cwd=repository)
    assert done.status == 0, done
    assert NAMED in " ".join(done.err.split())


@pytest.mark.parametrize("words", [("apply", "--branch", "x"), ("land", "--branch", "x")])
def test_a_patch_that_brings_the_encoding_names_the_files(
    farm: PatchFarm, inside: Run, repository: Path, words: tuple[str, ...]
) -> None:
    def both() -> None:
        (repository / ".gitattributes").write_text(ATTRIBUTES)
        (repository / "run.sh").write_bytes(SCRIPT)

    task = farm.add("Work", patch_of(repository, both))
    more = ("--no-check",) if words[0] == "land" else ()
    done = inside(words[0], task, *words[1:], *more, "-o", "table", cwd=repository)
    assert done.status == 0, done
    assert NAMED in " ".join(done.err.split())


def test_with_conflicts_too_a_patch_that_brings_the_encoding_names_the_files(
    farm: PatchFarm, inside: Run, repository: Path
) -> None:
    def both() -> None:
        (repository / ".gitattributes").write_text(ATTRIBUTES)
        (repository / "run.sh").write_bytes(SCRIPT)
        (repository / "old.txt").write_text("theirs\n")

    task = farm.add("Work", patch_of(repository, both))
    (repository / "old.txt").write_text("mine\n")
    git(repository, "commit", "-q", "-a", "-m", "Mine")
    done = inside("apply", task, "-o", "table", cwd=repository)
    assert done.status == 1, done
    assert "conflicts: old.txt" in done.err
    assert f"run.sh (executable, {NAMED})" in " ".join(done.err.split()) or NAMED in done.err


def test_attributes_that_are_in_no_commit_are_obeyed_and_named(
    farm: PatchFarm, inside: Run, repository: Path
) -> None:
    shown = "MSG='\u6328'\n"
    task = farm.add("Work", patch_of(repository, lambda: (repository / "run.sh").write_text(shown)))
    (repository / ".gitattributes").write_text(ATTRIBUTES)
    (repository / ".git/info/exclude").write_text(".gitattributes\n")
    done = inside("apply", task, "-o", "table", cwd=repository)
    assert done.status == 0, done
    assert (repository / "run.sh").read_bytes() == SCRIPT
    assert f"run.sh ({NAMED})" in " ".join(done.err.split())


@pytest.mark.parametrize("way", ["", "--commit", "--yes"])
@pytest.mark.parametrize("moved", [False, True])
def test_attributes_that_the_patch_changes_are_obeyed_as_it_has_them(
    farm: PatchFarm, inside: Run, repository: Path, way: str, *, moved: bool
) -> None:
    (repository / ".gitattributes").write_text(ATTRIBUTES)
    git(repository, "add", "-A")
    git(repository, "commit", "-q", "-m", "Attributes")
    shown = "MSG='\u6328'\n"

    def both() -> None:
        if moved:
            (repository / ".gitattributes").rename(repository / "attributes")
        else:
            (repository / ".gitattributes").write_text("# none\n")
        (repository / "new.sh").write_text(shown)

    task = farm.add("Work", patch_of(repository, both))
    done = inside("apply", task, *filter(None, [way]), "-o", "table", cwd=repository)
    assert done.status == 0, done
    assert (repository / "new.sh").read_text() == shown
    assert git(repository, "diff", "--name-only") == ""
    assert ".gitattributes (git)" in " ".join(done.err.split()) or way == "--yes"


@pytest.mark.slow
def test_a_patch_with_attributes_is_applied_or_refused_without_the_index_too(
    farm: PatchFarm, inside: Run, repository: Path
) -> None:
    """git crashes there if it is to take the attributes from a tree."""

    def both() -> None:
        (repository / ".gitattributes").write_text("*.x text\n")
        (repository / "code.txt").write_text(CODE.replace("line 3\n", "LINE 3\n"))

    made = patch_of(repository, both)
    unknown = re.sub(rb"^index [^0].*\n", b"", made, flags=re.MULTILINE)
    fits, other = farm.add("Work", made), farm.add("Other", unknown.replace(b"-line 3", b"-line"))
    done = inside("apply", other, "--yes", cwd=repository)
    assert (done.status, "code.txt: patch does not apply" in done.err) == (1, True), done
    git(repository, "update-index", "--assume-unchanged", "code.txt")
    (repository / "code.txt").write_text(CODE + "mine\n")
    done = inside("apply", fits, "--yes", "--force", cwd=repository)
    assert done.status == 0, done
    changed = CODE.replace("line 3\n", "LINE 3\n")
    assert (repository / "code.txt").read_text() == f"{changed}mine\n"


def test_attributes_of_the_patch_do_not_merge_it_with_what_is_staged(
    farm: PatchFarm, inside: Run, repository: Path
) -> None:
    def both() -> None:
        (repository / ".gitattributes").write_text("* merge=union\n")
        (repository / "code.txt").write_text(CODE.replace("line 3\n", "theirs\n"))

    task = farm.add("Work", patch_of(repository, both))
    (repository / "code.txt").write_text(CODE.replace("line 3\n", "mine\n"))
    git(repository, "add", "-A")
    done = inside("apply", task, "--force", "--yes", "-o", "table", cwd=repository)
    assert done.status == 1, done
    assert "1 file has conflicts: code.txt" in done.err


@pytest.mark.slow
def test_the_encoding_of_one_task_and_the_file_of_another_are_named(
    farm: PatchFarm, inside: Run, repository: Path
) -> None:
    """In either order: a file that has landed before is written again at a checkout, too."""
    attributes = patch_of(
        repository, lambda: (repository / ".gitattributes").write_text(ATTRIBUTES)
    )
    script = patch_of(repository, lambda: (repository / "run.sh").write_text("MSG='\u6328'\n"))
    first, second = farm.add("Attributes", attributes), farm.add("Script", script)
    for tasks, branch in (([first, second], "one"), ([second, first], "two")):
        done = inside(
            "land", *tasks, "--branch", branch, "--no-check", "-o", "table", cwd=repository
        )
        assert done.status == 0, done
        assert f"run.sh ({NAMED})" in " ".join(done.err.split())


@pytest.mark.slow
def test_what_lands_first_does_not_say_how_the_rest_is_merged(
    farm: PatchFarm, inside: Run, repository: Path
) -> None:
    def change(text: str, *attributes: str) -> Callable[[], None]:
        def write() -> None:
            (repository / "code.txt").write_text(CODE.replace("line 3\n", text))
            for line in attributes:
                (repository / ".gitattributes").write_text(line)

        return write

    first = farm.add("One", patch_of(repository, change("THREE\n", "* merge=union\n")))
    second = farm.add("Two", patch_of(repository, change("three\n")))
    words = ("--branch", "b", "--no-check", "-o", "jsonl")
    done = inside("land", first, second, *words, cwd=repository)
    assert [row["status"] for row in done.documents] == ["landed", "left out"], done
    assert git(repository, "show", "b:code.txt") == CODE.replace("line 3\n", "THREE\n")


def test_land_asks_which_one_is_meant_of_a_branch_and_a_tag(
    farm: PatchFarm, inside: Run, repository: Path
) -> None:
    """Any remote can send a tag of that name, which git would take."""
    task = farm.add("Work", patch_of(repository, lambda: (repository / "new").write_text("x")))
    old = git(repository, "rev-parse", "HEAD").strip()
    git(repository, "commit", "-q", "--allow-empty", "-m", "Second")
    git(repository, "tag", "main", old)
    words = ("land", task, "--branch", "x", "--no-check", "-o", "table", "--onto")
    for name in ("main", "main~0"):
        done = inside(*words, name, cwd=repository)
        assert done.status == 1, done
        assert "refs/heads/main, refs/tags/main" in " ".join(done.err.split())
    assert inside(*words, "refs/heads/main", cwd=repository).status == 0
    assert git(repository, "log", "--format=%s", "x").split() == ["Work", "Second", "Start"]


def test_land_names_what_tools_run_in_notes_rows_and_the_report(
    farm: PatchFarm, inside: Run, repository: Path, home: Path
) -> None:
    def all_of_it() -> None:
        (repository / ".envrc").write_text("id\n")
        (repository / "ordinary.txt").write_text("x\n")
        (repository / "tool").write_text("#!/bin/sh\n")
        (repository / "tool").chmod(0o755)
        (repository / "passwords").symlink_to("/etc/passwd")

    task = farm.add("Work", patch_of(repository, all_of_it))
    words = ("land", task, "--branch", "x", "--no-check", "--report", str(home / "report.md"))
    named = [".envrc (direnv)", "passwords (symbolic link)", "tool (executable)"]
    done = inside(*words, "-o", "json", cwd=repository)
    assert [row["risks"] for row in done.documents] == [named]
    assert "Work: files that tools run or read by themselves:\n  .envrc (direnv)\n" in done.err
    again = inside(*words, "-o", "json", cwd=repository)
    assert again.documents == done.documents
    assert "direnv" not in again.err  # it has been said
    report = (home / "report.md").read_text()
    assert "## Files that tools run or read by themselves" in report
    assert all(f"- 1: {one}\n".replace("_", "\\_") in report for one in named)


def test_what_is_moved_away_is_named_in_a_conflict_too(
    farm: PatchFarm, inside: Run, home: Path
) -> None:
    """The patch itself can bring the conflict about, where no tree shows what it does."""
    repository = make(home / "repository")
    (repository / ".npmrc").write_text("ignore-scripts=true\n")
    (repository / "login").symlink_to("old.txt")
    git(repository, "add", "-A")
    git(repository, "commit", "-q", "-m", "Settings")

    def move() -> None:
        (repository / ".npmrc").rename(repository / "notes")
        (repository / "login").rename(repository / "way")
        (repository / "run.sh").rename(repository / "run")
        (repository / "code.txt").write_text(CODE.replace("line 3\n", "LINE 3\n"))

    task = farm.add("Work", patch_of(repository, move))
    (repository / "code.txt").write_text(CODE.replace("line 3\n", "line three\n"))
    git(repository, "commit", "-q", "-a", "-m", "Moved on")
    done = inside("apply", task, "-o", "table", cwd=repository)
    assert (done.status, "1 file has conflicts: code.txt" in done.err) == (1, True), done
    named = [".npmrc (npm)", "login (symbolic link)", "way (symbolic link)"]
    assert sorted(re.findall(r"^  (.*)$", done.err, re.MULTILINE)) == named


@pytest.mark.slow
@pytest.mark.parametrize("said_by", ["tree", "configuration"])
def test_a_new_commit_of_a_submodule_is_named_and_checked_whatever_git_is_to_ignore(
    farm: PatchFarm, inside: Run, home: Path, said_by: str
) -> None:
    """A download says so in `.gitmodules` or `.git/config`."""
    repository = make(home / "repository")
    (repository / ".gitmodules").write_text('[submodule "s"]\n\tpath = sub\n\turl = ../s\n')
    file = ".gitmodules" if said_by == "tree" else ".git/config"
    git(repository, "config", "--file", file, "submodule.s.ignore", "all")
    (repository / "sub").mkdir()
    git(repository, "add", ".gitmodules")
    old, new = "1" * 40, "2" * 40
    git(repository, "update-index", "--add", "--cacheinfo", f"160000,{old},sub")
    git(repository, "commit", "-q", "-m", "Submodule")
    patch = (
        f"diff --git a/sub b/sub\nindex {old}..{new} 160000\n--- a/sub\n+++ b/sub\n"
        f"@@ -1 +1 @@\n-Subproject commit {old}\n+Subproject commit {new}\n"
    )
    task = farm.add("Work", patch.encode(), baseCommit=git(repository, "rev-parse", "HEAD").strip())
    done = inside("apply", task, "--branch", "x", "-o", "table", cwd=repository)
    assert (done.status, "sub (submodule)" in done.err) == (0, True), done
    check = ("--no-jail", "--check", f"git ls-files --stage | grep {new}")
    done = inside("land", task, "--branch", "y", *check, "-o", "json", cwd=repository)
    assert [(row["status"], row["risks"]) for row in done.documents] == [
        ("landed", ["sub (submodule)"])
    ], done


def patch_of_new(repository: Path, name: str) -> bytes:
    """The patch that adds a file, made where no hook is."""
    other = repository.parent / f"for-{name}"
    git(repository.parent, "clone", "-q", "-b", "main", str(repository), str(other))
    return patch_of(other, lambda: (other / name).write_text(name))


def test_a_user_without_a_name_changes_nothing(
    farm: PatchFarm, inside: Run, repository: Path, home: Path
) -> None:
    task = farm.add("Work", patch_of(repository, lambda: (repository / "new").write_text("x")))
    (home / ".gitconfig").write_text("[user]\n\tuseConfigOnly = true\n")
    before = snapshot(repository)
    for words in (("--commit",), ("--branch", "x")):
        done = inside("apply", task, *words, "-o", "table", cwd=repository)
        assert (done.status, "no email was given" in done.err) == (1, True), done
    assert snapshot(repository) == before
    assert not (repository / "new").exists()


BARE = "diff --git a/old.txt b/old.txt\n"
HUNK = "--- a/old.txt\n+++ b/old.txt\n@@ -1,3 +1,3 @@\n-old\n+new\n old\n old\n"


@pytest.mark.parametrize("index", ["", "index 1..{}\n"])
def test_a_patch_that_does_not_name_contents_is_applied(
    farm: PatchFarm, inside: Run, repository: Path, index: str
) -> None:
    """As Mercurial writes it, or people; an id of one character says as little."""
    now = git(repository, "rev-parse", "HEAD:old.txt")
    task = farm.add("Work", (BARE + index.format(now[0]) + HUNK).encode())
    done = inside("apply", task, "--yes", "-o", "table", cwd=repository)
    assert done.status == 0, done
    assert "Nothing to apply" not in done.err
    assert (repository / "old.txt").read_text() == "new\n" + "old\n" * 8
    again = inside("apply", task, "--yes", "--force", "-o", "table", cwd=repository)
    assert (again.status, "has these changes already" in again.err) == (0, True)


@pytest.mark.parametrize("command", ["apply", "branch", "conflict"])
@pytest.mark.parametrize("copied", [False, True])
def test_what_is_executable_here_is_named_whatever_the_patch_says(
    farm: PatchFarm, inside: Run, repository: Path, command: str, *, copied: bool
) -> None:
    """git keeps the mode of the file here, also of one that is copied."""
    script = patch_of(repository, lambda: (repository / "run.sh").write_text("evil\n"))
    assert b" 100644\n" in script
    if copied:
        copy = b"diff --git a/run.sh b/more.sh\nsimilarity index 50%\n"
        copy += b"copy from run.sh\ncopy to more.sh\nindex "
        script = copy + script.partition(b"\nindex ")[2].replace(b"+++ b/run.sh", b"+++ b/more.sh")
    code = patch_of(repository, lambda: (repository / "code.txt").write_text("theirs\n"))
    (repository / "run.sh").chmod(0o755)
    if command == "conflict":
        (repository / "code.txt").write_text("ours\n")
    git(repository, "commit", "-q", "-a", "-m", "Executable")
    task = farm.add("Work", script + code)
    words = ("--branch", "x") if command == "branch" else ()
    if words:  # what counts is the commit that the branch has, whatever is checked out here
        base = git(repository, "rev-parse", "HEAD").strip()
        farm.fields[task]["baseCommit"] = base
        git(repository, "checkout", "-q", "HEAD~")
    done = inside("apply", task, *words, "-o", "table", cwd=repository)
    assert done.status == (1 if command == "conflict" else 0), done
    assert f"  {'more' if copied else 'run'}.sh (executable)\n" in done.err


@pytest.mark.parametrize("way", [(), ("--commit",), ("--branch", "x")], ids=" ".join)
def test_rows_are_what_changes_here(
    farm: PatchFarm, inside: Run, repository: Path, way: tuple[str, ...]
) -> None:
    """Not what the patch says: a file has that mode, and a copied one can be run."""
    code = patch_of(repository, lambda: (repository / "code.txt").write_text("theirs\n"))
    (repository / "run.sh").chmod(0o755)
    git(repository, "commit", "-q", "-a", "-m", "Executable")
    mode = b"diff --git a/old.txt b/old.txt\nold mode 100755\nnew mode 100644\n"
    copy = b"diff --git a/run.sh b/more.sh\nsimilarity index 100%\n"
    copy += b"copy from run.sh\ncopy to more.sh\n"
    task = farm.add("Work", code + mode + copy)
    farm.fields[task]["baseCommit"] = git(repository, "rev-parse", "HEAD").strip()
    done = inside("apply", task, *way, "-o", "json", cwd=repository)
    assert done.status == 0, done
    rows = [(row["path"], row["status"], row["executable"]) for row in done.json["data"]]
    assert rows == [("code.txt", "modified", False), ("more.sh", "added", True)]


def test_only_some_paths_and_options_that_do_not_go_together(
    farm: PatchFarm, inside: Run, repository: Path
) -> None:
    task = farm.add("Work", patch_of(repository, everything(repository)))
    assert inside("apply", task, "--branch", "some", "--", "data.bin", cwd=repository).status == 0
    assert git(repository, "diff", "--name-only", "main", "some") == "data.bin\n"
    for words in (("--branch", "x", "--commit"), ("-m", "x")):
        assert inside("apply", task, *words, cwd=repository).status == 2
    empty = farm.add("Nothing", b"")
    done = inside("apply", empty, "--branch", "none", cwd=repository)
    assert (done.status, done.json) == (0, {"data": []})
    assert git(repository, "branch", "--list", "none") == ""


@pytest.mark.parametrize(
    "settings",
    [
        {"remote.origin.receivepack": "RUN"},
        {"remote.origin.url": "ext::RUN", "protocol.ext.allow": "always"},
        {"remote.origin.url": "RUN", "remote.origin.vcs": "ext", "protocol.allow": "always"},
        {"push.gpgSign": "if-asked", "gpg.program": "RUN"},
        {"core.gitProxy": "RUN", "remote.origin.url": "git://127.0.0.1:1/x"},
        {"core.sshCommand": "RUN", "remote.origin.url": "ssh://127.0.0.1:1/x"},
    ],
    ids=lambda settings: next(iter(settings)),
)
def test_a_push_runs_no_program_that_the_repository_names(
    home: Path, settings: dict[str, str]
) -> None:
    repository = make(home / "repository")
    git(home, "init", "-q", "--bare", "remote.git")
    git(repository, "remote", "add", "origin", str(home / "remote.git"))
    mark, program = home / "mark", home / "program"
    program.write_text(f"#!/bin/sh\ntouch {mark}\nexit 1\n")
    program.chmod(0o755)
    for name, value in settings.items():
        git(repository, "config", name, value.replace("RUN", str(program)))
    with contextlib.suppress(GitFailed):
        push_branch(repository, "main", "origin")
    assert not mark.exists()
    if "remote.origin.url" not in settings:
        assert git(home / "remote.git", "rev-parse", "main") == git(repository, "rev-parse", "main")


@pytest.mark.slow
@pytest.mark.parametrize("command", ["apply", "diff"])
def test_a_patch_that_is_too_large_is_not_kept(
    farm: PatchFarm, inside: Run, home: Path, command: str
) -> None:
    """An agent elsewhere can leave any file of that name."""
    done = inside(command, farm.add("Add much", bytes(257 << 20)), cwd=make(home / "repository"))
    assert done.status == 1
    assert "the patch is larger than 256 MiB" in done.err


@pytest.mark.slow
def test_no_hook_that_settings_name_is_run(
    home: Path, farm: PatchFarm, inside: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """git does so since 2.54. Not even one that the patch itself adds to what is included."""
    repository, mark = make(home / "repository"), home / "mark"
    newer_git.name_hook(repository, "new", mark, file="added")
    hook = (repository / "added").read_text()
    (repository / "added").unlink()
    task = farm.add("A", patch_of(repository, lambda: (repository / "settings").write_text(hook)))
    git(repository, "config", "include.path", "../settings")
    newer_git.name_hook(repository / ".git", "theirs", mark)
    log = newer_git.install(home / "newer")
    monkeypatch.setenv("PATH", f"{home / 'newer'}{os.pathsep}{os.environ['PATH']}")
    for words in (
        ("apply", task, "--branch", "one"),
        ("land", task, "--branch", "two", "--no-check"),
        ("apply", task, "--yes", "--commit"),
    ):
        assert inside(*words, cwd=repository).status == 0
        assert not log.exists(), log.read_text()
    assert not mark.exists()
    assert (repository / "settings").read_text() == hook
