"""Find the git repository that a task should work on: what `-g` names, or the current one."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable

from ..errors import BadUsage
from ..system import git
from . import checkout

# owner/repo out of https://host/owner/repo.git, ssh://git@host:22/owner/repo and
# git@host:owner/repo. The API takes owner/repo (seed document).
_REMOTE = re.compile(
    r"^(?:(?i:https?|ssh|git)://(?:[^@/]+@)?(?P<host>[^/:]+)(?::\d+)?/"
    r"|[^@/\s]+@(?P<there>[^:/\s]+):)"
    r"(?P<repo>[^/\s]+/[^/\s]+?)(?:\.git)?/?$"
)
_PLAIN = re.compile(r"^[A-Za-z0-9_.-]+/[A-Za-z0-9_.-]+$")


def repository(
    given: str, branch: str | None, *, note: Callable[[str], None]
) -> tuple[str, str | None]:
    """`owner/repo` and the branch: `branch`, or for `.` without one the current branch.

    `given` is `owner/repo`, a clone URL (https, ssh, git@host:), or `.` for the repository of
    the working directory: its `origin` (or only remote) and its checked-out branch. `note` is
    called when a host other than GitHub's is dropped. Raises BadUsage when it is none of these,
    and for a detached HEAD when no branch was named.
    """
    if given != ".":
        return _owner_repo(given, note), branch
    remote = _remote()
    url = _git("remote", "get-url", remote, problem=f"cannot read the remote {remote}")
    branch = branch or _git(
        "symbolic-ref",
        "--quiet",
        "--short",
        "HEAD",
        problem="HEAD is detached, so the current branch is unknown",
        hint="Check out a branch, or name one with -b",
    )
    return _owner_repo(url, note), branch


def _remote() -> str:
    """The remote of the repository here: `origin`, or the only one. BadUsage for none."""
    remotes = _git("remote", problem="not inside a git repository").split()
    if not remotes:
        raise BadUsage("the repository here has no remote", hint="Use -g owner/repo")
    if "origin" not in remotes and len(remotes) > 1:
        raise BadUsage(
            f"the repository here has no remote called origin, but {', '.join(remotes)}",
            hint="Use -g owner/repo",
        )
    return "origin" if "origin" in remotes else remotes[0]


def source(
    given: str | None,
    branch: str | None,
    *,
    is_local: bool,
    with_changes: bool = False,
    note: Callable[[str], None],
) -> dict[str, str | None]:
    """The fields of POST /tasks for a repository and a branch, as `repository` understands them.

    `is_local` says that the task runs on this machine: see `local_source`. For `.`, `note` is
    called with what the working tree has that the task will not see; `with_changes` says that its
    uncommitted changes come along. Raises BadUsage for a branch of no repository, for one that
    the remote cannot have, and as those do.
    """
    if not given:
        if branch:
            raise BadUsage("--branch requires --github-url")
        return {"githubUrl": None, "branchName": None}
    if is_local:
        return local_source(given, branch, with_changes=with_changes, note=note)
    plain, wanted = repository(given, branch, note=note)
    if given == ".":
        is_named = branch is not None
        for line in checkout.check(
            ".", _remote(), str(wanted), is_named=is_named, with_changes=with_changes
        ):
            note(line)
    return {"githubUrl": plain, "branchName": wanted}


def local_source(
    given: str,
    branch: str | None = None,
    *,
    with_changes: bool = False,
    note: Callable[[str], None],
) -> dict[str, str | None]:
    """What a real agent on this machine is to work on, as fields of POST /tasks.

    `localRepository`, which the local service alone understands, is a folder or a URL of any
    host, and is left out when `githubUrl` says it all. The other two are as `repository` gives
    them, for a simulated run and the history. Commits that were not pushed are in the clone.
    Raises BadUsage as that does, but takes folders, a repository without a remote and a detached
    HEAD; and for a branch that a folder does not have.
    """
    if given != "." and not is_folder(given):
        plain, branch = repository(given, branch, note=lambda _text: None)
        source = None if _PLAIN.match(given) else given
        return {"githubUrl": plain, "branchName": branch, "localRepository": source}
    folder = os.path.abspath(os.path.expanduser(given))
    _git("-C", folder, "rev-parse", problem=f"{given} is not inside a git repository")
    root = checkout.top_level(folder)
    if branch is not None:
        checkout.check_local_branch(root, branch)
    plain = root
    for line in checkout.left_out(root, with_changes=with_changes):
        note(line)
    if given == ".":
        # Without a remote or a branch the clone is made from here all the same.
        with contextlib.suppress(BadUsage):
            plain, branch = repository(given, branch, note=note)
    return {"githubUrl": plain, "branchName": branch, "localRepository": root}


def is_folder(given: str) -> bool:
    """Whether `given` is spelled as a folder other than `.`, which takes the branch from there."""
    return given.startswith(("/", "./", "../", "~"))


def places(folder: str) -> list[str]:
    """Where the repository at `folder` has its working tree and what it was cloned with.

    `.git` may be a file that names any other repository. Raises BadUsage outside a repository.
    """
    problem = f"{folder} is not inside a git repository"
    words = ("rev-parse", "--path-format=absolute", "--show-toplevel", "--git-common-dir")
    return _git("-C", folder, *words, problem=problem).splitlines()


def _owner_repo(given: str, note: Callable[[str], None]) -> str:
    if _PLAIN.match(given) and not given.startswith("."):
        return given.removesuffix(".git")
    match = _REMOTE.match(given)
    if match is None:
        shown = re.sub(r"//[^@/]*@", "//", given)
        raise BadUsage(
            f"{shown!r} is not a repository",
            hint="-g takes owner/repo, a clone URL, or . for the repository here",
        )
    host = (match["host"] or match["there"]).lower()
    if host != "github.com" and not host.endswith(".github.com"):
        note(f"the API only accepts owner/repo, so {match['repo']} is sent without {host}")
    return match["repo"]


def _git(*arguments: str, problem: str, hint: str | None = None) -> str:
    try:
        return git.run(arguments, ".").decode("utf-8", "replace").strip()
    except git.GitUnusable as error:
        raise BadUsage(error.message, hint="-g owner/repo works without git") from None
    except git.GitFailed as error:
        if "dubious ownership" in error.message:  # of another user: git says what to do
            raise BadUsage(error.message) from None
        raise BadUsage(problem, hint=hint) from None
