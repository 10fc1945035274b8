"""The disk space that workspaces take, and how it is given back."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

from ..store import Store
from . import agent_files
from .cluster.launcher import JobStays
from .limits import account_limit
from .sources import lenders
from .supervision import recovery, run_lock, runs
from .workspaces import setup_cache
from .workspaces.workspace_folder import Workspace, WorkspaceSource, disk_usage


def disk(state_dir: Path) -> int:
    """The bytes on disk that all workspaces take, with what they share."""
    return sum(disk_usage(state_dir / name) for name in ("workspaces", lenders.FOLDER))


def sizes_of_workspaces(state_dir: Path) -> dict[str, dict[str, Any]]:
    """What the table of workspaces shows of those here: `repository` and `size`, by id.

    The size was measured when the last run ended; None until then. Raises StateError.
    """
    names = [path.name for path in (state_dir / "workspaces").glob("*")]
    if not names:
        return {}
    with Store(state_dir) as store, store.read() as db:
        made_from = {name: runs.source(db, name) or WorkspaceSource() for name in names}
    return {
        name: {"repository": source.repository, "size": Workspace(state_dir, name).size()}
        for name, source in made_from.items()
    }


def remove_all(store: Store) -> None:
    """Cancel every active run and delete the folder of every workspace.

    Raises JobStays, and deletes nothing, if an agent may still be at work.
    """
    recovery.recover(store)
    with store.write() as db:
        found = runs.cancel(db, store.now())
    recovery.stop_all(store.folder, found)
    end_jobs(store.folder)
    for folder in (store.folder / "workspaces").glob("*"):
        Workspace(store.folder, folder.name).remove()
    for name in (lenders.FOLDER, account_limit.FOLDER, setup_cache.FOLDER):
        agent_files.remove_tree(store.folder / name)


def end_jobs(state_dir: Path) -> None:
    """End the jobs that launchers have started. Raises JobStays for the first that stays."""
    stays = None
    for folder in (state_dir / "workspaces").glob("*"):
        try:
            Workspace(state_dir, folder.name).end_jobs()
        except JobStays as error:
            stays = stays or error
    if stays:
        raise stays


def remove_idle(state_dir: Path) -> None:
    """Delete the folders of workspaces without an agent at work, which no database has to allow."""
    for folder in (state_dir / "workspaces").glob("*"):
        if not run_lock.has_agent(state_dir, folder.name):
            workspace = Workspace(state_dir, folder.name)
            with suppress(JobStays):
                workspace.end_jobs()
                workspace.remove()
