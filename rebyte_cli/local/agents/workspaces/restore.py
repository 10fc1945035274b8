"""Making `code/` of a pruned workspace again, with the files that its last run left.

All of it is in `base.git`. git writes the files in the jail, since an agent chose them. The
repository is a new one: the agent's own commits and settings are gone.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterable
from functools import partial

from ....system import git
from ....system.permissions import make_folder
from .. import agent_files
from ..exposed import Mount
from ..sandbox import jail
from ..sources import lenders
from . import changes
from .sync import PLAN
from .workspace_folder import (
    CLONED,
    LARGEST_SHALLOW,
    MAKING,
    ORIGIN_FILE,
    SHALLOW,
    Workspace,
    WorkspaceSource,
)

LONGEST_ORIGIN = 1 << 20  # bytes
SCRIPT = r"""set -e
tree=$1; shift
GIT_INDEX_FILE="$SCRATCH/new" exec "$@" read-tree --reset -u "$tree"
"""
GONE = (
    "ignored and uploaded files, what a setup made (it is not run again), the agent's own commits"
    " and its memory of the session are gone."
)


def restore(
    workspace: Workspace,
    source: WorkspaceSource,
    begun: Iterable[str],
    run: str = "",
    *,
    jailed: bool,
    watch: Callable[[], str],
) -> str:
    """Make `code/` again if the workspace was pruned; what the transcript says of that.

    `begun` are the runs that have begun there, newest first, and `run` is the one that needs it, if
    any: whatever happens to that, it has left at least what there was. If this fails or is killed,
    the workspace is as before. `watch` gives a reason to stop. Raises GitFailed and OSError.
    """
    if workspace.code.is_dir() or not workspace.base.is_dir():
        return ""
    trees = [f"refs/{kind}/{each}" for each in begun if each != run for kind in ("after", "runs")]
    own = git.bare(workspace.base)
    tree = next((each for each in trees if git.has(workspace.base, each, own)), "refs/heads/base")
    if run:
        git.run(["update-ref", f"refs/runs/{run}", f"{tree}^{{tree}}"], extra=own)
    (workspace.folder / PLAN).unlink(missing_ok=True)  # it was for the files that are gone
    make_folder(workspace.home)
    making = copy.copy(workspace)
    with agent_files.new_folder(workspace.folder, MAKING) as making.code:
        with git.watched(watch):
            if source.repository is not None:
                _make_repository(making)
        with changes.scratch_of(workspace) as scratch:
            layout = jail.layout_of(workspace.folder, jailed=jailed)
            inside = layout.code.inside if jailed else str(making.code)
            layout = layout._replace(code=Mount(making.code, inside))
            words = changes.git_of(layout, workspace, inside)
            line = ["sh", "-c", SCRIPT, "sh", tree, *words]
            changes.output(layout, line, workspace, scratch, watch)
        changes.keep_forced(workspace)
        os.replace(making.code, workspace.code)
    if run:  # until there is a patch: what it leaves may fill the disk
        workspace.note_patch(run, "the run did not end")
    is_last = tree in trees[:2] or not trees
    what = "as the last run left them" if is_last else "older: the last run left none to keep"
    return f"The workspace was pruned: its files are {what}; {GONE}"


def _make_repository(making: Workspace) -> None:
    """Make the repository of a clone whose files are still to come, on the branch it was on."""
    code, repository = making.code, making.code / ".git"
    base = partial(git.line, folder=making.base, extra=git.bare(making.base))
    hashes = base(["rev-parse", "--show-object-format"])
    git.run(["init", "--quiet", "--template=", f"--object-format={hashes}", str(code)])
    if origin := agent_files.read(making.folder, ORIGIN_FILE, LONGEST_ORIGIN):
        git.run(["remote", "add", "--", "origin", os.fsdecode(origin)], code)
    making.share_exclude()
    name = base(["for-each-ref", "--format=%(refname)", CLONED]).removeprefix(CLONED)
    name = name or ("HEAD" if making.started_from() else "")
    if lenders.shown(making.base):
        lenders.lend(repository, [making.base])
        if shallow := agent_files.read(making.base, SHALLOW, LARGEST_SHALLOW):
            agent_files.write(repository, SHALLOW, shallow)
    elif name:
        git.run(["fetch", "--quiet", "--depth=1", str(making.base), "refs/heads/base"], code)
    if name:  # otherwise there was no commit
        if name != "HEAD":
            git.run(["symbolic-ref", "HEAD", name], code)
        commit = base(["rev-parse", "refs/heads/base"])
        to = [] if name != "HEAD" else ["--no-deref"]
        git.run(["update-ref", *to, "HEAD", commit], code)
        git.run(["read-tree", "HEAD"], code)
