"""The folder of a workspace, for commands that show it or run git there."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from ...system import git
from ...system.git import GitFailed
from ..artifact_store import NO_AGENT
from ..store import Store
from .sandbox import jail
from .sandbox.jail_group import JailGroup
from .sources import lenders
from .supervision import recovery, run_lock, runs
from .supervision.admission import JAIL_CACHE
from .supervision.by_hand import PRUNED, renew_patch
from .workspaces import sharing
from .workspaces.disarm import disarm
from .workspaces.workspace_folder import Workspace

PORTION = 1 << 16  # bytes
LOOK = ("-c", "diff.autoRefreshIndex=false")  # a look at files changes no index


def folder_of(
    state_dir: Path, workspace: str, sleep: Callable[[float], None] = time.sleep
) -> Path | None:
    """The folder where the agents of a workspace work; None when there is none.

    The supervisor of the first run makes it, shortly after the task was created: up to ten seconds
    are left to it.
    """
    place = Workspace(state_dir, workspace)
    if "/" in workspace:
        return None
    for _ in range(200):
        if place.code.is_dir() or run_lock.wait_until_free(state_dir, workspace, sleep):
            break
        sleep(0.05)
    return place.code if place.code.is_dir() else None


def why_no_folder(state_dir: Path, workspace: str) -> tuple[str, tuple[str, ...]]:
    """What explains that `folder` finds none, and the words of the command to type next.

    There may be no such command. Raises StateError.
    """
    with Store(state_dir) as store:
        recovery.recover(store)
        with store.read() as db:
            last = runs.newest(db, workspace)
    if last is None:
        return NO_AGENT, ()
    if last.ended is None and last.started is None:
        return "Its run waits for its turn; wait with ", ("wait", last.task)
    if not Workspace(state_dir, workspace).folder.exists():
        return "It was deleted, with its last task, or by `workspace delete`", ()
    if Workspace(state_dir, workspace).base.is_dir():
        return "`local prune` removed it: a follow-up makes it again", ()
    return "It could not be made; see why with ", ("logs", last.task)


def disarmed(
    state_dir: Path,
    workspace: str,
    tell: Callable[[str], object] = lambda _: None,
    *,
    complete: bool = False,
) -> bool:
    """Make the folder of a workspace safe for git outside the jail; False while an agent works.

    `tell` is told what is waited for. With `complete`, the clone there no longer borrows objects,
    so that it can be copied and outlive the workspace. Raises OSError or GitFailed when that
    cannot be done.
    """
    if not run_lock.wait_until_free(state_dir, workspace):
        return False
    place = Workspace(state_dir, workspace)
    disarm(place, tell)
    if complete:
        lenders.complete(place.code, place.base)
    return True


def git_inside(
    state_dir: Path,
    workspace: str,
    words: Sequence[str],
    tell: Callable[[str], object] = lambda _: None,
) -> Iterator[bytes]:
    """What `git WORDS` prints, portion by portion, when it runs in a jail around the workspace.

    Nothing that the agent wrote can have an effect outside: what git runs in the jail may arm the
    repository again, and the agent's home is not there. A run that ends meanwhile waits for git, or
    ends it; so does a full disk. What it changed counts as the last run's, and `tell` is told what
    the patch lacks. Raises GitFailed when git fails or is ended, and where no jail can be made, and
    StateError.
    """
    check = jail.probe(state_dir / JAIL_CACHE)
    if not check.works:
        raise GitFailed(f"{check.reason}. {check.fix}")
    place = Workspace(state_dir, workspace)
    folder = place.folder
    with Store(state_dir) as store, store.read() as db:
        last = runs.newest(db, workspace)
        options = runs.options_of(db, last) if last else {}
    layout = jail.layout_of(folder, jailed=True)
    # Of the folders, only the code. The home has the login of a run that may be at work.
    layout = layout._replace(home=layout.code)
    variables = jail.environment(layout, os.environ)
    variables |= git.IN_JAIL | {"HOME": "/tmp"}  # noqa: S108 - the jail's own
    variables["GIT_OPTIONAL_LOCKS"] = "0"  # as LOOK
    stamp = place.index_stamp()
    try:
        with git.Pipe(git.LONGEST_STDERR) as errors, sharing.Visit(folder) as visit:
            if not place.code.is_dir():  # a moment ago it was there
                raise GitFailed(PRUNED)
            with (
                JailGroup(
                    layout,
                    jail.command(layout, ["git", *LOOK, *words], network=False),
                    folder="/",
                    variables=variables,
                    stdout=subprocess.PIPE,
                    stderr=errors.into,
                ) as group,
                visit.by(group, lambda: place.full_disk(options) or group.overdue()),
            ):
                errors.start()
                assert group.process.stdout is not None
                while portion := os.read(group.process.stdout.fileno(), PORTION):
                    yield portion
                status = group.process.wait()
        if visit.why_ended:
            raise GitFailed(f"git was ended: {visit.why_ended}")
        if status:
            said = errors.kept.decode("utf-8", "replace").strip()
            raise GitFailed(said or f"git exited with status {status}")
    finally:
        is_stale = stamp != place.index_stamp()
        try:
            is_free = disarmed(state_dir, workspace)
        except OSError as error:
            raise GitFailed(f"the folder cannot be made safe again: {error}") from None
        if is_free and (is_stale or not place.is_saved()):
            renew_patch(state_dir, workspace, tell)
