"""`.rebyte.toml`: what commands take from it, once the user trusts it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from ..app import App
from ..errors import Next, NotFound

if TYPE_CHECKING:
    from ..system.repository_file import RepositoryFile

CHECKS = ("check", "protect")  # what a check uses


class RepositorySays:
    """The files of the repositories that a command works on, each told of once."""

    def __init__(self, app: App, wanted: Sequence[str] = CHECKS, *, no_jail: bool = False) -> None:
        """`wanted` are the settings that the command would use; without a jail, it uses none."""
        self._app = app
        self._wanted = wanted
        self._no_jail = no_jail
        self._told: set[str] = set()

    def at(self, folder: str, commit: str) -> RepositoryFile | None:
        """What the repository at `folder` says at a commit, if the user trusts it.

        stderr says what is used, or how to trust it, or why the file cannot be understood.
        """
        from shlex import quote

        from ..system import repository_file, trust
        from ..system.git import GitFailed
        from ..tasks.patch import own_repository

        try:
            found = repository_file.read(folder, commit, own_repository())
            key = trust.key_of(folder, own_repository())
        except (GitFailed, repository_file.RepositoryFileError) as error:
            self._app.note(f"Not used: {error.message}")
            return None
        if found is None:
            return None
        is_trusted = trust.Trust(self._app.local_folder()).covers(key, found.content)
        return self._told_of(found, is_trusted, Next("local", "trust", quote(folder)))

    def of_body(self, body: Mapping[str, Any], commit: str) -> RepositoryFile | None:
        """As `at`, for the repository here that a task with this body starts from."""
        from ..system import git

        return self.at(str(body.get("localRepository") or git.top_level(".")), commit)

    def may_check(self, body: Mapping[str, Any] | None) -> bool:
        """Whether the user trusts a check of the repository that a task with this body starts from.

        It may be any for None, and if a folder that the body names is no longer there.
        """
        from ..system import trust
        from ..system.git import GitFailed
        from ..tasks.patch import own_repository

        # Without `local_folder`, which makes it: most users trust nothing.
        records = trust.Trust(self._app.state_dir / "local").records()
        trusted = {one.repository for one in records if "check `" in one.asks}
        if body is None or not trusted:
            return bool(trusted)
        names = [str(body[name]) for name in ("localRepository", "githubUrl") if body.get(name)]
        try:
            return any(trust.key_of(name, own_repository()) in trusted for name in names)
        except GitFailed:
            return bool(trusted)

    def of_workspace(self, task: Mapping[str, Any]) -> RepositoryFile | None:
        """As `at`, for the commit that the workspace of a local task started from.

        None also if there is no workspace.
        """
        from ..local.agents import of_workspace_id
        from ..system.git import GitFailed
        from ..system.repository_file import RepositoryFileError

        workspace = self._app.known.located(task).get("workspaceId")
        if not workspace:
            return None
        try:
            asked = of_workspace_id(self._app.local_folder(), workspace)
        except (GitFailed, RepositoryFileError) as error:
            self._app.note(f"Not used: {error.message}")
            return None
        if asked is None:
            return None
        return self._told_of(asked.file, asked.is_trusted, Next("local", "trust", str(task["id"])))

    def _told_of(self, found: RepositoryFile, is_trusted: bool, how: Next) -> RepositoryFile | None:
        described = found.described(self._wanted)
        is_used = is_trusted and not self._no_jail
        if described and described not in self._told:
            self._told.add(described)
            if is_used:
                self._app.note(f"From {found.name}: {described}")
            elif is_trusted:
                self._app.note(f"Not without a sandbox, of {found.name}: {described}")
            else:
                self._app.note(
                    f"This repository's {found.name} asks for: {described}\n"
                    "It is not obeyed until you trust it: " + how
                )
        return found if is_used else None


class TrustQuestion(NamedTuple):
    """What a user may trust: a file, and the names under which its repository is trusted.

    `missing` says why there is no file.
    """

    repositories: tuple[str, ...]
    file: RepositoryFile | None
    missing: str


def in_folder(folder: str, revision: str | None) -> TrustQuestion:
    """What the repository at `folder` says at a revision, and that its `origin` is the same one.

    Without a revision, only which repository it is.

    Raises BadUsage outside a repository, NotFound for no such revision, and RepositoryFileError.
    """
    from ..system import git, repository_file, trust
    from ..system.git import GitFailed
    from ..tasks.patch import own_repository
    from ..tasks.repository import places

    root = places(folder)[0]
    variables = own_repository()
    keys = [trust.key_of(root, variables)]
    with suppress(GitFailed):
        url = git.run(["remote", "get-url", "origin"], root, variables).decode().strip()
        if not url.startswith((".", "/", "file:")):
            keys.append(trust.key_of(url))
    if revision is None:
        return TrustQuestion(tuple(keys), None, "")
    if not git.has(root, f"{revision}^{{commit}}"):
        raise NotFound(f"the repository {root} has no commit {revision}")
    file = repository_file.read(root, revision, variables)
    return TrustQuestion(tuple(keys), file, f"{root} has no .rebyte.toml at {revision}")


def in_workspace(app: App, task_id: str) -> TrustQuestion:
    """What the repository says that the workspace of a local task was made from.

    Raises NotFound if there is none, and RepositoryFileError.
    """
    from ..local.agents import of_workspace_id

    workspace = app.known.workspace_of(task_id)
    asked = of_workspace_id(app.local_folder(), workspace) if workspace else None
    if asked is None:
        raise NotFound(f"task {task_id} has no workspace here whose repository asks for anything")
    return TrustQuestion((asked.repository,), asked.file, "")
