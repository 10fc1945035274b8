"""What the repository of a workspace asks for, and whether the user trusts that.

It is read in `base.git`, at the commit of the repository that the workspace started from: not from
`code/`, which the agent writes to, and not from uncommitted changes that came along.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from ....system import git, repository_file, trust
from ....system.repository_file import RepositoryFile
from ...store import Store
from ..workspaces.workspace_folder import Workspace
from . import runs


class RepositoryAsks(NamedTuple):
    """What a repository asks for at a commit; `repository` is what trust in it is noted under."""

    repository: str
    file: RepositoryFile
    is_trusted: bool


def of_workspace(workspace: Workspace, repository: str | None) -> RepositoryAsks | None:
    """What the repository says that a workspace was made from; None if it says nothing.

    Raises RepositoryFileError for a file that cannot be understood, and GitFailed.
    """
    commit, base = workspace.started_from() if repository is not None else "", workspace.base
    file = repository_file.read(base, commit, git.bare(base)) if commit else None
    if file is None or repository is None:
        return None
    try:
        key = trust.key_of(repository)
    except git.GitFailed:  # the folder is gone
        return RepositoryAsks(repository, file, is_trusted=False)
    return RepositoryAsks(key, file, trust.Trust(workspace.state_dir).covers(key, file.content))


def of_workspace_id(state_dir: Path, workspace_id: str) -> RepositoryAsks | None:
    """As `of_workspace`, for a workspace of the service whose folder is `state_dir`.

    None also if there is no such workspace. Raises StateError, too.
    """
    workspace = Workspace(state_dir, workspace_id)
    if "/" in workspace_id or not workspace.base.is_dir():
        return None
    with Store(state_dir) as store, store.read() as db, store.readable():
        made_from = runs.source(db, workspace_id)
    return of_workspace(workspace, made_from.repository if made_from else None)
