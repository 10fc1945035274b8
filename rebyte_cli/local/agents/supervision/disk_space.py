"""The disk space that workspaces take, and how it is given back."""

from __future__ import annotations

import contextlib
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ...http import stamp
from ...store import Store
from .. import agent_files
from ..cluster.launcher import JobStays
from ..limits import account_limit
from ..sources import lenders
from ..workspaces import setup_cache, sharing
from ..workspaces.workspace_folder import TRASH, Workspace, WorkspaceSource, disk_usage
from . import recovery, run_lock, runs

# Time to think again: a deleted task's files can be saved with `workspace path` until then.
GRACE_MS = 3_600_000
UNUSED = """
SELECT DISTINCT workspace FROM runs WHERE ended IS NOT NULL
AND NOT EXISTS (SELECT 1 FROM computers WHERE computers.id = runs.workspace)
AND NOT EXISTS (SELECT 1 FROM tasks WHERE tasks.workspace = runs.workspace
  AND (tasks.deleted IS NULL OR tasks.deleted > ?))
AND NOT EXISTS (SELECT 1 FROM runs AS other WHERE other.workspace = runs.workspace
  AND other.ended IS NULL)
"""

# What agents told in tasks that were deleted before a moment.
FORGOTTEN = """
SELECT runs.prompt FROM runs JOIN tasks ON tasks.id = runs.task WHERE tasks.deleted <= ?
AND EXISTS (SELECT 1 FROM run_events WHERE run_events.prompt = runs.prompt)
"""

# Workspaces without a run that waits or works, whose last one ended before a moment.
OLD = """
SELECT workspace, max(ended) AS ended FROM runs GROUP BY workspace
HAVING count(*) = count(ended) AND max(ended) < ? ORDER BY max(ended)
"""


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


def prune(
    state_dir: Path, seconds: float, *, dry_run: bool, warn: Callable[[str], object]
) -> tuple[list[dict[str, Any]], int]:
    """Remove what takes space of workspaces whose last run ended so long ago, oldest first.

    With `dry_run` it stays. Returns a row for each, with `id`, `repository`, `size` (the bytes of
    that) and `lastUsedAt`, and all the bytes, with those that only they shared. A workspace where a
    run waits or anything is at work stays, and so does the only copy of what a run left, of which
    `warn` is told. Raises StateError and OSError.
    """
    with Store(state_dir) as store:
        recovery.recover(store)  # what a killed run has left there may be in no patch yet
        rows = list(_pruned(store, seconds, dry_run=dry_run, warn=warn))
        freed = sum(row["size"] for row in rows)
        if not dry_run:
            store.shrink()
            for folder in lenders.sweep(store.folder, store.folder / TRASH):
                freed += disk_usage(folder)
                agent_files.remove_tree(folder)
    return rows, freed


def _pruned(
    store: Store, seconds: float, *, dry_run: bool, warn: Callable[[str], object]
) -> Iterator[dict[str, Any]]:
    """The rows of the workspaces that are pruned, or would be."""
    with store.read() as db:
        old = db.execute(OLD, (store.now() - int(seconds * 1000),)).fetchall()
    for row in old:
        place = Workspace(store.folder, row["workspace"])
        if not (spare := place.spare()):
            continue
        with store.read() as db:
            last = runs.newest(db, row["workspace"])
            made_from = runs.source(db, row["workspace"]) or WorkspaceSource()
        if last is None or run_lock.is_held(store.folder, last):
            continue
        if place.is_only_copy:
            warn(
                f"workspace {row['workspace']} stays: no patch has all that is there;"
                " `rebyte workspace delete` removes it"
            )
            continue
        size = sum(map(disk_usage, spare))
        if dry_run or _removed(store, place, last):
            yield {
                "id": row["workspace"],
                "repository": made_from.repository,
                "size": size,
                "lastUsedAt": stamp(row["ended"]),
            }


def _removed(store: Store, place: Workspace, last: runs.RunRecord) -> bool:
    """Remove what is spare in a workspace unless something is at work there, or about to be."""
    try:
        runs.count_use(store, last.workspace)
    except JobStays:  # which is in the log
        return False
    aside, is_pruned = list[Path](), False
    with (
        contextlib.suppress(BlockingIOError, FileNotFoundError),  # at work; gone
        # Later runs wait for this lock, and are recorded in a transaction that makes their folder.
        run_lock.claimed(store.folder, last) as lock,
        sharing.alone(place.folder, None),
    ):
        if lock is None or place.is_only_copy:  # since a command by hand, a moment ago
            return False
        with store.write() as db:
            newest = runs.newest(db, last.workspace)
            if newest is None or newest.prompt != last.prompt:
                return False
            aside = place.set_aside(*place.spare())
            is_pruned = not place.spare()
            with contextlib.suppress(OSError):
                place.measure()
    for each in aside:
        agent_files.remove(each.parent, each.name)
    return is_pruned


def sweep(store: Store) -> None:
    """Remove the folders of workspaces whose tasks were all deleted more than an hour ago, and
    the lenders that none needs; also the transcripts of these tasks.

    They are moved aside at once; a separate process deletes them, which can take a while.
    Raises nothing: what stays behind is removed the next time.
    """
    root, trash = store.folder / "workspaces", store.folder / TRASH
    with contextlib.suppress(OSError, sqlite3.Error):
        if not root.exists():
            return
        with store.read() as db:
            rows = db.execute(UNUSED, (store.now() - GRACE_MS,)).fetchall()
            forgotten = db.execute(FORGOTTEN, (store.now() - GRACE_MS,)).fetchall()
        if forgotten:
            with store.write() as db:
                db.executemany("DELETE FROM run_events WHERE prompt = ?", map(tuple, forgotten))
        store.shrink()
        for (name,) in rows:
            workspace = Workspace(store.folder, name)
            with store.read() as db:
                last = runs.newest(db, name)
            if not workspace.folder.exists() or workspace.has_jobs():
                continue
            if last and not run_lock.is_held(store.folder, last):
                runs.count_use(store, name)
                workspace.set_aside(workspace.folder)
        lenders.sweep(store.folder, trash)
        if trash.exists() and any(trash.iterdir()):
            # An agent may have left folders that even their owner cannot write to.
            script = 'chmod -R u+rwx -- "$1" 2>/dev/null; rm -rf -- "$1"/*'
            subprocess.Popen(
                ["sh", "-c", script, "sh", str(trash)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
                cwd="/",
            )


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
    for left in (store.folder / TRASH).glob("*"):
        agent_files.remove(left.parent, left.name)


def left_behind(state_dir: Path, workspace: str = "*") -> list[Path]:
    """The folders with files of a deleted workspace, or of any, that could not be removed."""
    return [*(state_dir / TRASH).glob(f"{workspace}.*")]


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
            with contextlib.suppress(JobStays):
                workspace.end_jobs()
                workspace.remove()
