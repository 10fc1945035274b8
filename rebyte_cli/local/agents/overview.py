"""What commands ask of real agents beside runs: programs, sandbox, workspaces, disk space."""

from __future__ import annotations

import os
import shlex
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from ...system import git
from ...system.git import GitFailed
from ...system.permissions import make_folder
from .. import http
from ..artifact_store import NO_AGENT
from ..store import Store
from . import agent_files, config
from .adapters import programs
from .adapters.adapter import Adapter, User
from .adapters.model_access import LoginExpired
from .cluster import launcher
from .limits import account_limit
from .sandbox import egress, jail
from .sandbox.jail_group import JailGroup
from .sources import lenders, skills
from .supervision import recovery, run_lock, runs, sweep
from .supervision.admission import JAIL_CACHE
from .workspaces import setup_cache, sharing
from .workspaces.disarm import disarm
from .workspaces.workspace_folder import Workspace, disk_usage

STDERR_READ = 20_000


def every_agent(state_dir: Path | None, config_file: Path | None) -> list[dict[str, Any]]:
    """Every agent that `-x` can name, found or not.

    `name`, `program` (None when it is not found), `version`, `tested` (whether it is in the range
    of tested versions, None for an unknown version or a program of the user's own), `login` (the
    login file or the variable with a key, None without either), `jail` (`on`, `off`,
    `unavailable`), `jailGaps` (what a jail of this machine leaves open), `network` (what runs reach
    unless they say otherwise: `list`, `none`, `host`), `credential` (where the key or the login is:
    `outside`, `key inside`, `login inside`, None without either), `launcher` (the command that
    starts runs elsewhere, as a shell takes it), `usable`, `problem` (why it is not, with what to
    do), and `unused` (settings of the agent that are not).
    Nothing is written when `state_dir` is None. Raises config.ConfigError.
    """
    settings = config.load(config_file, state_dir)
    if state_dir is not None:
        make_folder(state_dir)
    check = jail.probe(None if state_dir is None else state_dir / JAIL_CACHE)
    options = {"jail": settings.jail, "network": settings.network}
    network = egress.network_of(options)
    gaps = jail.gaps(network=network == egress.HOST) if settings.jail and check.works else ""
    confined = ("on" if check.works else "unavailable") if settings.jail else "off"
    adapters = list(settings.agents.values())
    # Each starts a program that may take a second to say its version.
    with ThreadPoolExecutor(max_workers=max(1, len(adapters))) as pool:
        rows = list(pool.map(partial(_agent, options), adapters))
    for row in rows:
        row["jail"], row["jailGaps"], row["network"] = confined, gaps or None, network
        if confined == "unavailable" and row["problem"] is None:
            what_to_do = check.fix or jail.NO_SANDBOX
            row["problem"] = f"{check.reason}. {what_to_do}"
        row["launcher"] = shlex.join(settings.launcher) or None
        row["problem"] = row["problem"] or launcher.why_missing(settings.launcher) or None
        row["usable"] = row["problem"] is None
    return rows


def _agent(options: Mapping[str, Any], adapter: Adapter) -> dict[str, Any]:
    program = programs.find(adapter, os.environ)
    user = adapter.surroundings(User(os.environ, Path.home()))
    has_gateway = egress.network_of(options) != egress.HOST
    row: dict[str, Any] = {
        "name": adapter.title,
        "program": None if program is None else program.path,
        "version": None,
        "tested": None,
        "login": adapter.found_login(user),
        "jail": None,
        "jailGaps": None,
        "network": None,
        "credential": None,
        "launcher": None,
        "usable": False,
        "problem": None,
        "unused": ", ".join(adapter.unused_settings(user.home, has_gateway=has_gateway)) or None,
    }
    if row["login"] is not None:
        try:
            inside = egress.access_of(adapter, options, user).inside
            row["credential"] = f"{inside} inside" if inside else "outside"
        except LoginExpired as error:
            row["credential"], row["problem"] = "outside", str(error)
    if program is None:
        how = f": {adapter.install}" if adapter.install else ""
        row["problem"] = f"{programs.why_missing(adapter)}{how}"
    elif adapter.tested:  # a program of the user's own need not know --version
        version = programs.version(program, os.environ)
        if isinstance(version, programs.NoVersion):
            row["problem"] = f"`{adapter.program} --version` fails: {version.reason}"
        elif version is not None:
            row["version"], row["tested"] = version, programs.is_between(version, adapter.tested)
    if row["problem"] is None and adapter.log_in and row["login"] is None:
        row["problem"] = f"no login and no key was found: {adapter.log_in}"
    return row


def going(store: Store) -> dict[str, int]:
    """How many runs of real agents work, and how many wait for a slot or a usage limit."""
    with store.read() as db:
        found = runs.unended(db)
    running = sum(run.started is not None and run.parked is None for run in found)
    return {"running": running, "queued": len(found) - running}


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
        made_from = {name: runs.source(db, name) or [None] for name in names}
    return {
        name: {"repository": source[0], "size": Workspace(state_dir, name).size()}
        for name, source in made_from.items()
    }


def prune(state_dir: Path, seconds: float, *, dry_run: bool) -> tuple[list[dict[str, Any]], int]:
    """As `sweep.prune`: rows with `id`, `repository`, `size`, `lastUsedAt`, and all bytes freed.

    Raises StateError and OSError.
    """
    with Store(state_dir) as store:
        found, shared = sweep.prune(store, seconds, dry_run=dry_run)
    rows = [
        {"id": one.workspace, "repository": one.repository, "size": one.size,
         "lastUsedAt": http.stamp(one.ended)}
        for one in found
    ]  # fmt: skip
    return rows, shared + sum(one.size for one in found)


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
        if place.code.is_dir() or not run_lock.at_work(state_dir, workspace, sleep):
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
        what = "It was deleted, with its last task, or by `workspace delete` or `local prune`"
        return what, ()
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
    if run_lock.at_work(state_dir, workspace):
        return False
    place = Workspace(state_dir, workspace)
    disarm(place, tell)
    if complete:
        lenders.complete(place.code, place.base)
    return True


def git_inside(state_dir: Path, workspace: str, words: Sequence[str]) -> Iterator[bytes]:
    """What `git WORDS` prints, line by line, when it runs in a jail around the workspace.

    Nothing that the agent wrote can have an effect outside: what git runs in the jail may arm the
    repository again, and the agent's home is not there. A run that ends meanwhile waits for git, or
    ends it. Raises GitFailed when git fails or is ended, and where no jail can be made.
    """
    check = jail.probe(state_dir / JAIL_CACHE)
    if not check.works:
        raise GitFailed(f"{check.reason}. {check.fix}")
    folder = Workspace(state_dir, workspace).folder
    layout = jail.layout_of(folder, jailed=True)
    # Of the folders, only the code. The home has the login of a run that may be at work.
    layout = layout._replace(home=layout.code)
    variables = jail.environment(layout, os.environ)
    variables |= git.IN_JAIL | {"HOME": "/tmp"}  # noqa: S108 - the jail's own
    try:
        with (
            tempfile.TemporaryFile() as errors,
            sharing.Visit(folder) as visit,
            JailGroup(
                layout,
                jail.command(layout, ["git", *words], network=False),
                folder="/",
                variables=variables,
                stdout=subprocess.PIPE,
                stderr=errors,
            ) as group,
            visit.by(group),
        ):
            assert group.process.stdout is not None
            yield from group.process.stdout
            status = group.process.wait()
            if visit.was_ended:
                raise GitFailed("git was ended: the folder is needed by another command or a run")
            if status:
                errors.seek(0)
                said = errors.read(STDERR_READ).decode("utf-8", "replace").strip()
                raise GitFailed(said or f"git exited with status {status}")
    finally:
        try:
            disarmed(state_dir, workspace)
        except OSError as error:
            raise GitFailed(f"the folder cannot be made safe again: {error}") from None


def known_skills(config_dir: Path, here: Path | None) -> list[dict[str, str]]:
    """The skills that `-s` can name: `name`, `description`, `folder`."""
    found = skills.known(skills.folders(config_dir, here))
    return [
        {"name": slug, "description": skill.description, "folder": str(skill.folder)}
        for slug, skill in sorted(found.items())
    ]


def stop_all(store: Store) -> None:
    """Cancel every active run and delete the folder of every workspace."""
    recovery.recover(store)
    with store.write() as db:
        found = runs.unended(db)
        now = store.now()
        found = [run for run in found if runs.end(db, run.prompt, now, "canceled", "")]
    for run in found:
        recovery.stop(store.folder, run)
    for folder in (store.folder / "workspaces").glob("*"):
        Workspace(store.folder, folder.name).remove()
    for name in (lenders.FOLDER, account_limit.FOLDER, setup_cache.FOLDER):
        agent_files.remove_tree(store.folder / name)


def make_room(state_dir: Path) -> None:
    """Delete the folders of workspaces without an agent at work, which no database has to allow."""
    for folder in (state_dir / "workspaces").glob("*"):
        if not run_lock.has_agent(state_dir, folder.name):
            Workspace(state_dir, folder.name).remove()
