"""What a user runs by hand where an agent works. No run is at work meanwhile."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from ....system import process_identity
from ....system.git import GitFailed
from ....system.repository_file import RepositoryFileError
from ...gateway import request_record
from ...http import Refusal
from ...store import Store
from .. import config
from ..adapters import programs
from ..adapters.model_access import AgentAccess
from ..sandbox import jail, relay, stand_in, user_tools
from ..sandbox.egress import egress_for
from ..sandbox.jailed_program import prepare
from ..sources.source import local_path
from ..workspaces.restore import restore
from ..workspaces.sync import bring, complete_merge
from ..workspaces.workspace_folder import Workspace
from . import recovery, repository_asks, run_lock, run_results, runs
from .admission import JAIL_CACHE, readable_config

PRUNED = "`local prune` removed the folder of the workspace: a follow-up makes it again"


def run_by_hand(
    state_dir: Path,
    workspace: str,
    words: Sequence[str],
    announce: Callable[[str], None],
    *,
    settings: Path | None,
) -> int:
    """Run a command in the jail of a workspace's runs, with the terminal or streams here.

    Returns its exit status. What it reaches is what a follow-up would, by config.toml, `settings`.
    What it changed counts as the last run's; `announce` is told what it was refused of the network,
    and what the patch lacks. Raises Refusal when a run is at work or no jail can be made.
    """
    notes: list[str] = []  # told without the lock: a frozen terminal would keep it
    try:
        with Store(state_dir) as store:
            last, options = last_run(store, workspace)
            _check_jail(store, last, options)
            options["hosts"] = _hosts(store, last, options, settings)
            with _alone(store, last, notes.append):
                return _in_jail(Workspace(state_dir, workspace), options, words, notes.append)
    finally:
        for note in notes:
            announce(note)


def renew_patch(state_dir: Path, workspace: str, announce: Callable[[str], object]) -> None:
    """Make the patch of the last run again, as after `run_by_hand`.

    `announce` is told what it lacks. A run that is at work, or waits, makes one itself.
    """
    notes = list[str]()
    with suppress(Refusal), Store(state_dir) as store:
        last, _ = last_run(store, workspace)
        with _alone(store, last, notes.append):
            pass
    for note in notes:
        announce(note)


def bring_commits(
    state_dir: Path, task: str, applied: Callable[[str], Mapping[str, str]]
) -> Path | None:
    """Bring new commits of the repository here into the workspace of a task (see sync.py).

    `applied` tells which of its runs were applied in a folder, each with the commit there then.
    Returns the repository; None if it has no new ones. Raises Refusal, or GitFailed for a conflict.
    """
    with Store(state_dir) as store:
        with store.read() as db:
            rows = db.execute(
                "SELECT workspace, prompt FROM runs WHERE task = ? ORDER BY seq", (task,)
            ).fetchall()
            made_from = runs.source(db, rows[0][0]) if rows else None
        if made_from is None:
            raise Refusal(409, "cannot_sync", f"task {task} is simulated: it has no workspace here")
        place = local_path(made_from.repository or "")
        if place is None:
            where = made_from.repository or "no repository"
            raise Refusal(409, "cannot_sync", f"its workspace was made from {where}, not from here")
        if made_from.with_changes:
            why = (
                "its workspace began with uncommitted changes, which may be in your commits or not"
            )
            raise Refusal(409, "cannot_sync", why)
        last, options = last_run(store, rows[0][0])
        _check_jail(store, last, options)
        workspace, order = Workspace(state_dir, last.workspace), [row[1] for row in rows]
        with _alone(store, last, lambda _: None):  # the run that follows tells it
            heads = applied(os.path.realpath(place))
            known = {run: heads[run] for run in order if run in heads}
            full = partial(workspace.full_disk, options)
            with store.read() as db:
                begun = runs.begun(db, last.workspace)
            if note := restore(workspace, made_from, begun, jailed=True, watch=full):
                with store.write() as db:
                    runs.append(db, last.prompt, store.now(), "text", {"content": note})
            found = bring(workspace, place, made_from.branch, last.prompt, known, full)
        return place if found else None


def _hosts(
    store: Store, last: runs.RunRecord, options: dict[str, Any], settings: Path | None
) -> list[str]:
    """The hosts of the user's settings, of the task, and of its repository if that is trusted."""
    with readable_config():
        found = [*config.load(settings, store.folder).allow, *options.get("allow", ())]
    with store.read() as db:
        made_from = runs.source(db, last.workspace)
    repository = made_from.repository if made_from else None
    with suppress(RepositoryFileError, GitFailed):
        asks = repository_asks.of_workspace(Workspace(store.folder, last.workspace), repository)
        found += asks.file.allow if asks and asks.is_trusted else ()
    return list(dict.fromkeys(found))


def _check_jail(store: Store, last: runs.RunRecord, options: dict[str, Any]) -> None:
    if not options["jail"]:
        why = f"the runs in workspace {last.workspace} are not in a sandbox"
        raise Refusal(409, "no_jail", why)
    check = jail.probe(store.folder / JAIL_CACHE)
    if not check.works:
        raise Refusal(409, "jail_unavailable", check.reason, check.fix)


def _in_jail(
    workspace: Workspace,
    options: dict[str, Any],
    words: Sequence[str],
    announce: Callable[[str], None],
) -> int:
    agent = programs.find(config.adapter_of(options["adapter"]), os.environ)
    layout = jail.layout_of(workspace.folder, jailed=True)
    full = partial(workspace.full_disk, options)
    if not workspace.is_there:  # a moment ago it was
        raise Refusal(409, "workspace_gone", PRUNED)
    if reason := full():
        raise Refusal(500, "disk_full", f"{words[0]} was not started: {reason}")
    complete_merge(workspace, full)
    workspace.begin()
    (workspace.folder / request_record.FILE).unlink(missing_ok=True)
    with egress_for(options, AgentAccess(), os.environ, workspace.folder) as egress:
        needs = [*(agent.own if agent else ()), *egress.needs]
        own = user_tools.own_folders(options.get("configDir"), workspace.state_dir)
        if problem := user_tools.why_not_all(needs, own):
            raise Refusal(409, "jail_unavailable", f"the sandbox cannot be made: {problem}")
        program = prepare(
            layout,
            # Not by itself, so that a command which is not there ends with 127.
            ["sh", "-c", 'exec "$@"', "sh", *words],
            egress,
            options,
            os.environ,
            program=agent,
            own=own,
            variables={},
            terminal=stand_in.on_terminal(),
        )
        status, reason = relay.lend(program, lambda: egress.problem() or full())
        code = "gateway_failed" if egress.problem() else "disk_full" if full() else "stopped"
    for note in egress.refused():
        announce(f"{note} of `follow-up`" if "; allow it with" in note else note)
    if reason:
        raise Refusal(500, code, f"{words[0]} was stopped: {reason}")
    return status


def last_run(store: Store, workspace: str) -> tuple[runs.RunRecord, dict[str, Any]]:
    """The last run of a workspace that began, and its options. None may wait or be at work."""
    recovery.recover(store)
    with store.read() as db:
        unended = runs.unended(db, "workspace", workspace)
        begun = runs.find(db, "workspace = ? AND started IS NOT NULL", workspace)
        if runs.is_gone(db, store.folder, workspace):
            raise Refusal(409, "workspace_gone", runs.GONE, runs.GONE_HINT)
    if unended or not begun or not run_lock.wait_until_free(store.folder, workspace):
        raise busy(workspace)
    with store.read() as db:
        return begun[-1], runs.options_of(db, begun[-1])


@contextmanager
def _alone(store: Store, last: runs.RunRecord, announce: Callable[[str], None]) -> Iterator[None]:
    """Hold the lock of the last run, for which later ones wait; end as a run does.

    `announce` is told what the patch lacks then, or why there is none.

    If this process is killed, the next command does what is left to do of the run.
    """
    with run_lock.claimed(store.folder, last) as lock:
        with store.write() as db:  # whatever is queued after this sees the lock
            unended = runs.unended(db, "workspace", last.workspace)
            if lock is None or unended:
                raise busy(last.workspace)
            runs.leave_unfinished(db, last.prompt)
        run_lock.say(lock, process_identity.identity(os.getpid()))
        try:
            yield
        finally:
            run_lock.say(lock, run_lock.AGENT_IS_GONE)
            if problem := run_results.finish(str(store.folder), last.prompt):
                announce(problem)


def busy(workspace: str) -> Refusal:
    """The refusal of what would be second at work in a workspace."""
    return Refusal(409, "run_at_work", f"an agent or a command is at work in workspace {workspace}")
