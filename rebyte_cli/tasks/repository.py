"""Find the git repository that a task should work on: what `-g` names, or the current one."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import unquote

from ..errors import BadUsage, Term
from ..system import git
from . import checkout

# owner/repo out of https://host/owner/repo.git, ssh://git@host:22/owner/repo and
# git@host:owner/repo. The API takes owner/repo (seed document).
_HOST = (
    r"^(?:(?i:https?|ssh|git)://(?:[^@/]+@)?(?P<host>[^/:]+)(?::\d+)?/"
    r"|[^@/\s]+@(?P<there>[^:/\s]+):)"
)
_ADDRESS = re.compile(_HOST + r"[^\s?#]*[^\s?#/]/*$")
_REMOTE = re.compile(_HOST + r"(?P<repo>[^/\s]+/[^/\s]+?)(?:\.git)?/?$")
_PLAIN = re.compile(r"^[A-Za-z0-9_.-]+/[A-Za-z0-9_.-]+$")
_REPOSITORY = Term("-g owner/repo", "a `repository` such as owner/repo")


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
    # Not `--short`: if a tag has that name, too, git would say `heads/NAME`.
    branch = branch or _git(
        "symbolic-ref",
        "--quiet",
        "HEAD",
        problem="HEAD is detached, so the current branch is unknown",
        hint="Check out a branch, or name one with " + checkout.BRANCH,
    ).removeprefix("refs/heads/")
    return _owner_repo(url, note), branch


def _remote() -> str:
    """The remote of the repository here: `origin`, or the only one. BadUsage for none."""
    remotes = _git("remote", problem="not inside a git repository").split()
    if not remotes:
        raise BadUsage("the repository here has no remote", hint="Use " + _REPOSITORY)
    if "origin" not in remotes and len(remotes) > 1:
        raise BadUsage(
            f"the repository here has no remote called origin, but {', '.join(remotes)}",
            hint="Use " + _REPOSITORY,
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
            raise BadUsage(
                Term("--branch", "`branch`") + " requires " + Term("--github-url", "`repository`")
            )
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
    folder = "." if given == "." else folder_of(given)
    if folder is None:
        if _ADDRESS.match(given) and not _REMOTE.match(given):  # of no owner/repo
            plain = re.sub(r"//[^@/]*@", "//", given)
        else:
            plain, branch = repository(given, branch, note=lambda _text: None)
        source = None if _PLAIN.match(given) else given
        return {"githubUrl": plain, "branchName": branch, "localRepository": source}
    if _is_bare(folder):
        root = _git("-C", folder, "rev-parse", "--absolute-git-dir", problem=f"cannot read {given}")
        if with_changes:
            raise BadUsage(f"{root} is a bare repository: it has no uncommitted changes")
    else:
        root = checkout.top_level(folder)
        for line in checkout.left_out(root, with_changes=with_changes):
            note(line)
    if branch is not None:
        checkout.check_local_branch(root, branch)
    plain = root
    if given == "." and (branch is not None or git.has(root, "HEAD")):
        # Without a remote or a branch the clone is made from here all the same.
        with contextlib.suppress(BadUsage):
            plain, branch = repository(given, branch, note=note)
    return {"githubUrl": plain, "branchName": branch, "localRepository": root}


def base_commit(given: str | None, fields: Mapping[str, Any]) -> str | None:
    """The commit that a task with these fields of POST /tasks starts from, if it is known here.

    For `.` as the repository that was `given`, that is what the remote's branch was at the last
    fetch; on this machine, what the branch of the folder is.
    """
    folder, branch = fields.get("localRepository"), fields.get("branchName")
    if folder is not None and folder_of(str(folder)):
        names = [f"refs/heads/{branch}", f"refs/tags/{branch}"] if branch else ["HEAD"]
    elif given == "." and branch:
        folder, names = ".", [f"refs/remotes/{_remote()}/{branch}"]
    else:
        return None
    return next(filter(None, (git.commit_of(folder, name) for name in names)), None)


def folder_of(given: str) -> str | None:
    """The folder that `given` is spelled as, absolute, or None; `.` takes the branch from there."""
    if given.startswith("file:///"):
        return os.path.abspath(unquote(given.removeprefix("file://")))
    if given.startswith(("/", "./", "../", "~")):
        return os.path.abspath(os.path.expanduser(given))
    return None


def _is_bare(folder: str) -> bool:
    problem = f"{folder} is not inside a git repository"
    return _git("-C", folder, "rev-parse", "--is-bare-repository", problem=problem) == "true"


def places(folder: str) -> list[str]:
    """Where the repository at `folder` has its working tree and what it was cloned with.

    `.git` may be a file that names any other repository. Raises BadUsage outside a repository.
    """
    problem = f"{folder} is not inside a git repository"
    top = "--absolute-git-dir" if _is_bare(folder) else "--show-toplevel"
    words = ("-C", folder, "rev-parse", "--path-format=absolute")
    return [_git(*words, place, problem=problem) for place in (top, "--git-common-dir")]


def _owner_repo(given: str, note: Callable[[str], None]) -> str:
    if _PLAIN.match(given) and not given.startswith("."):
        return given.removesuffix(".git")
    if folder_of(given) is not None:
        raise BadUsage(
            f"{given} is on this machine, where the service cannot read it",
            hint="Use "
            + Term("-g . there", "`repository` . there")
            + " to name its remote, or "
            + Term("-P local", "the profile local")
            + ", whose agents get a clone of it",
        )
    match = _REMOTE.match(given)
    if match is None:
        shown = re.sub(r"//[^@/]*@", "//", given)
        raise BadUsage(
            f"{shown!r} is not a repository",
            hint=Term("-g", "`repository`")
            + " takes owner/repo, a clone URL, or . for the repository here",
        )
    host = (match["host"] or match["there"]).lower()
    if host != "github.com" and not host.endswith(".github.com"):
        note(f"the API only accepts owner/repo, so {match['repo']} is sent without {host}")
    return match["repo"]


def _git(*arguments: str, problem: str, hint: str | None = None) -> str:
    try:
        return git.run(arguments, ".").decode("utf-8", "replace").removesuffix("\n")
    except git.GitUnusable as error:
        raise BadUsage(error.message, hint=_REPOSITORY + " works without git") from None
    except git.GitFailed as error:
        # Of another user, where git says what to do, or bare, if the user wants these to be named.
        if re.search("dubious ownership|safe.bareRepository", error.said):
            raise BadUsage(error.message) from None
        raise BadUsage(problem, hint=hint) from None
