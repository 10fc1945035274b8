"""The connection between the service's endpoints and real agents.

It imports what runs an agent only when one runs: most commands need none of it.
"""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING

from .. import http
from ..access import Caller
from ..http import Context, JsonObject, Refusal
from ..messages import HttpRequest
from ..records import TaskRecord
from ..simulation import SimulatedRun

if TYPE_CHECKING:
    from .launch import Launch
    from .runs import RunRecord


def executor(context: Context, body: JsonObject, built_in: tuple[str, ...]) -> str | None:
    """The `executor` of a body: one that is built in, or a program that config.toml names."""
    given = http.optional_text(body, "executor", most=1000)
    if given is None or given in built_in:
        return given
    from .launch import executors

    return http.optional_choice(body, "executor", executors(context.config_file))


def earlier(db: sqlite3.Connection, task: TaskRecord) -> tuple[str, JsonObject] | None:
    """Agent and options of the task's last real run; None when all of it is simulated."""
    if all(isinstance(run, SimulatedRun) for run in task.runs):
        return None
    from .launch import earlier_options

    return earlier_options(db, task.id)


def launch(
    context: Context,
    request: HttpRequest,
    wanted: str | None,
    body: JsonObject,
    before: tuple[str, JsonObject] | None = None,
) -> Launch | None:
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
    from .launch import Launcher

    return Launcher(context.store, context.config_file).prepare(agent, body, options)


def end_runs(db: sqlite3.Connection, column: str, value: str, now: int) -> list[RunRecord]:
    """Record the active runs of a `task` or a `workspace` (`column`) as canceled; return them."""
    known = db.execute(
        f"SELECT 1 FROM runs WHERE {column} = ? AND ended IS NULL",  # noqa: S608 - our own names
        (value,),
    ).fetchone()
    if known is None:
        return []
    from . import runs

    return runs.cancel(db, column, value, now)


def stop_runs(context: Context, canceled: list[RunRecord]) -> None:
    """Kill the agents of runs whose end is recorded."""
    if canceled:
        from . import runs

        for run in canceled:
            runs.stop(context.store.folder, run)


def wait_for_results(context: Context, caller: Caller, workspace: str) -> None:
    """Wait until the artifacts of a workspace hold what its canceled run changed.

    A cancel is answered as soon as the agent is dead, and git may take a while for the patch.
    Nothing is waited for that the caller may not see.
    """
    with context.store.read() as db:
        # Of those that had begun: runs of a workspace take turns, so no other can be at work.
        row = db.execute(
            "SELECT prompt FROM runs WHERE workspace = ? AND outcome = 'canceled'"
            " AND started IS NOT NULL ORDER BY seq DESC LIMIT 1",
            (workspace,),
        ).fetchone()
        if row is None or not caller.sees(db, workspace):
            return
        from . import runs

        (canceled,) = runs.load(db, [row[0]]).values()
    runs.wait_for_results(context.store.folder, canceled)


def delete_workspace(context: Context, caller: Caller, workspace: str) -> bool:
    """Stop the runs of a workspace and delete its folder; whether it had one.

    `workspace` must be an id of ours: it is the folder's name.
    """
    if not caller.is_own:
        return False
    if not (context.store.folder / "workspaces" / workspace).exists():
        return False
    from .workspace import Workspace

    with context.store.write() as db:
        canceled = end_runs(db, "workspace", workspace, context.store.now())
    stop_runs(context, canceled)
    Workspace(context.store.folder, workspace).remove()
    return True
