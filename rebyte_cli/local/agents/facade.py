"""What the service's endpoints ask of real agents.

It imports what runs an agent only when one runs: most commands need none of it.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ...system.git import GitFailed
from .. import http
from ..http import Caller, Context, JsonObject, Refusal
from ..store import Store
from ..task_store import TaskRecord
from ..wsgi import HttpRequest

SWEPT = "swept"  # the moment of the last sweep, in milliseconds
HOUR_MS = 3_600_000

if TYPE_CHECKING:
    from .supervision.admission import AdmittedRun
    from .supervision.runs import RunRecord


def executor(context: Context, body: JsonObject, built_in: tuple[str, ...]) -> str | None:
    """The `executor` of a body: one that is built in, or a program that config.toml names."""
    given = http.optional_text(body, "executor", most=1000)
    if given is None or given in built_in:
        return given
    from .supervision.admission import executors

    return http.optional_choice(body, "executor", executors(context.config_file))


def keep_free(context: Context) -> int:
    """The bytes of the disk that what is uploaded has to leave free."""
    from .config import keep_free

    return keep_free(context.config_file)


def earlier(db: sqlite3.Connection, task: TaskRecord) -> tuple[str, JsonObject] | None:
    """Agent and options of the task's last real run; None when all of it is simulated."""
    if task.is_simulated:
        return None
    from .supervision import runs

    return runs.last_options(db, task.id)


def admit(
    context: Context,
    request: HttpRequest,
    wanted: str | None,
    body: JsonObject,
    before: tuple[str, JsonObject] | None = None,
) -> AdmittedRun | None:
    """The run of a real agent that a prompt starts; None when it is simulated.

    `wanted` is the executor that was asked for, `before` what `earlier` knows of the task.
    Raises Refusal when that agent cannot run here.
    """
    agent, options = before or (None, None)
    agent = wanted or agent
    key = request.environ.get("rebyte.key")
    if agent is None or not context.permission.granted(key):
        return None
    if context.permission.belongs_elsewhere(key):
        raise Refusal(421, "misdirected_request", "A command starts agents in its own process")
    from .supervision.admission import Admission

    return Admission(context.store, context.config_file).admit(agent, body, options)


def end_runs(db: sqlite3.Connection, column: str, value: str, now: int) -> list[RunRecord]:
    """Record the active runs of a `task` or a `workspace` (`column`) as canceled.

    Returns them, after those that ended before and of which something is left to do.
    """
    known = db.execute(
        f"SELECT 1 FROM runs WHERE {column} = ? AND (ended IS NULL OR counted = 0)",  # noqa: S608
        (value,),
    ).fetchone()
    if known is None:
        return []
    from .supervision import runs

    unfinished = [run for run in runs.unfinished(db) if getattr(run, column) == value]
    return unfinished + runs.cancel(db, now, column, value)


def stop_runs(context: Context, found: list[RunRecord]) -> None:
    """Kill the agents of runs that `end_runs` found. Raises Refusal if one may still be at work."""
    if found:
        from .supervision import recovery

        if problem := recovery.stop_all(context.store.folder, found):
            raise _still_at_work(problem)


def _still_at_work(problem: str) -> Refusal:
    # No status that says that the task had ended.
    return Refusal(500, "job_stays", f"An agent may still be at work: {problem}")


def wait_for_results(context: Context, caller: Caller, workspace: str) -> None:
    """Wait until the artifacts of a workspace hold what a run changed that was canceled or killed.

    Its end is told as soon as the agent is dead, and git may take a while for the patch.
    Nothing is waited for that the caller may not see.
    """
    with context.store.read() as db:
        # Of those that had begun: runs of a workspace take turns, so no other can be at work.
        row = db.execute(
            "SELECT prompt, outcome, counted FROM runs WHERE workspace = ? AND started IS NOT NULL"
            " ORDER BY seq DESC LIMIT 1",
            (workspace,),
        ).fetchone()
        is_whole = row is None or (row["outcome"] == "succeeded" and row["counted"])
        if is_whole or not caller.sees(db, workspace):
            return
        from .supervision import run_lock, runs

        (last,) = runs.load(db, [row["prompt"]]).values()
    if last.ended is not None:
        run_lock.wait_until_collected(context.store.folder, last)


def patch_of_runs(context: Context, task: TaskRecord, wanted: Sequence[str]) -> bytes | None:
    """What these of a task's runs changed (all of them if none is named); None if none has worked.

    Raises Refusal when it is too much, or cannot be told from what other tasks changed there, or
    when the last of them that has worked left no patch: the rest would be an older state.
    """
    own = [run.prompt.id for run in task.runs]
    with context.store.read() as db:
        rows = db.execute(
            "SELECT prompt, options, started IS NOT NULL AND ended IS NOT NULL AS has_worked"
            " FROM runs WHERE workspace = ? ORDER BY seq",
            (task.workspace,),
        ).fetchall()
    from .workspaces.changes import of_runs
    from .workspaces.workspace_folder import Workspace

    workspace = Workspace(context.store.folder, task.workspace)
    if not rows or not workspace.base.exists():
        return None
    jailed = any(json.loads(row["options"])["jail"] for row in rows)
    order = [row["prompt"] for row in rows]
    chosen = {one for one in wanted or own if one in own}
    worked = [row["prompt"] for row in rows if row["has_worked"] and row["prompt"] in chosen]
    if not worked:
        return None
    why = workspace.why_no_patch(worked[-1])
    try:
        found = None if why else of_runs(workspace, order, worked, jailed=jailed)
    except GitFailed as error:
        if set(order) <= set(own):
            problem = f"The changes of task {task.id} cannot be read: {error}"
            raise Refusal(409, "conflict", problem) from None
        raise Refusal(
            409,
            "conflict",
            f"The changes of task {task.id} cannot be told from those of other tasks in its"
            f" workspace: {error}",
            "The artifact changes.patch of the workspace has what all of them changed",
        ) from None
    if found is None:
        raise Refusal(404, "no_patch", "Patch not found", _why_no_patch(why))
    return found


def why_no_patch(context: Context, db: sqlite3.Connection, workspace: str) -> str:
    """Why the last of a workspace's runs that has worked left no patch."""
    from .supervision import runs
    from .workspaces.workspace_folder import Workspace

    last = runs.find(db, "workspace = ? AND started IS NOT NULL", workspace)[-1]
    return _why_no_patch(Workspace(context.store.folder, workspace).why_no_patch(last.prompt))


def _why_no_patch(noted: str) -> str:
    return f"It could not be made: {noted or 'see the transcript'}"


def base_commit(context: Context, task: TaskRecord) -> str:
    """The commit that the changes of a task's runs are compared with; empty if there is none."""
    from .workspaces.workspace_folder import Workspace

    return Workspace(context.store.folder, task.workspace).started_from()


def requests_of_runs(
    context: Context, task: TaskRecord, *, only_refused: bool = False
) -> list[JsonObject]:
    """What went through the gateways of a task's runs, and what they refused, oldest first."""
    if task.is_simulated:
        return []
    from ..gateway import request_record
    from .workspaces.workspace_folder import Workspace

    workspace = Workspace(context.store.folder, task.workspace)
    read = request_record.refused if only_refused else request_record.read
    return [
        {**entry._asdict(), "time": http.stamp(entry.time), "promptId": run.prompt.id}
        for run in task.runs
        for entry in read(workspace.run_folder(run.prompt.id) / request_record.FILE)
    ]


def delete_workspace(context: Context, caller: Caller, workspace: str) -> bool:
    """Stop the runs of a workspace and delete its folder; whether it had one.

    `workspace` must be an id of ours: it is the folder's name. Raises Refusal, and deletes nothing,
    if an agent may still be at work.
    """
    if not (caller.is_own and (context.store.folder / "workspaces" / workspace).exists()):
        return False
    from .cluster.launcher import JobStays
    from .supervision import runs
    from .workspaces.workspace_folder import Workspace

    with context.store.write() as db:
        found = end_runs(db, "workspace", workspace, context.store.now())
    stop_runs(context, found)
    try:
        runs.count_use(context.store, workspace)
    except JobStays as error:
        raise _still_at_work(str(error)) from None
    Workspace(context.store.folder, workspace).remove()
    return True


def restart_waiting_runs(store: Store) -> None:
    """Give runs another process that waited for a usage limit and lost theirs. Raises nothing."""
    if not (store.folder / "limits").is_dir():  # none has waited yet
        return
    with contextlib.suppress(OSError, sqlite3.Error, ValueError):
        recover(store)


def recover(store: Store, task: str | None = None) -> None:
    """See `recovery.recover`: before each answer that depends on what real agents do."""
    with store.read() as db:
        row = db.execute(
            "SELECT EXISTS (SELECT 1 FROM runs WHERE ended IS NULL) OR EXISTS (SELECT 1 FROM runs"
            " WHERE started IS NOT NULL AND ended IS NOT NULL AND counted = 0)"
        ).fetchone()
    if row[0]:
        from .supervision import recovery

        recovery.recover(store, task)


def sweep_hourly(context: Context) -> None:
    """Remove what no task needs any more, if that was not done within the last hour.

    Raises nothing. Other commands may not run an agent for days.
    """
    store = context.store
    if not (store.folder / "workspaces").exists():  # no agent has run yet
        return
    with contextlib.suppress(OSError, sqlite3.Error, ValueError):
        now = store.now()
        if not 0 <= now - int(store.recall(SWEPT) or -HOUR_MS) < HOUR_MS:
            store.remember(SWEPT, str(now))
            from .supervision.disk_space import sweep

            sweep(store)
