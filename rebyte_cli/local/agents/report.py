"""Reports about real agents: programs, sandbox, active runs, disk space."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ...system.git import GitFailed
from ...system.process_group import ProcessGroup
from ..database import Store, make_folder
from . import config, jail, programs, runs, skills
from .adapter import Adapter
from .disarm import disarm
from .launch import JAIL_CACHE
from .workspace import Workspace, disk_usage

STDERR_READ = 20_000


def agents(state_dir: Path | None, config_file: Path | None) -> list[dict[str, Any]]:
    """Every agent that `-x` can name, found or not.

    `name`, `program` (None when it is not found), `version`, `tested` (whether this version was,
    None for an unknown version or a program of the user's own), `jail` (`on`, `off`,
    `unavailable`), `jailGaps` (what a jail of this machine leaves open), `usable`, and
    `problem`: why it is not, with what to do.
    Nothing is written when `state_dir` is None. Raises config.ConfigError.
    """
    settings = config.load(config_file)
    if state_dir is not None:
        make_folder(state_dir)
    check = jail.probe(None if state_dir is None else state_dir / JAIL_CACHE)
    gaps = jail.gaps() if settings.jail and check.works else ""
    confined = ("on" if check.works else "unavailable") if settings.jail else "off"
    adapters = list(settings.agents.values())
    # Each starts a program that may take a second to say its version.
    with ThreadPoolExecutor(max_workers=max(1, len(adapters))) as pool:
        rows = list(pool.map(_agent, adapters))
    for row in rows:
        row["jail"], row["jailGaps"] = confined, gaps or None
        if confined == "unavailable" and row["problem"] is None:
            what_to_do = check.fix or jail.UNCONFINED
            row["problem"] = f"{check.reason}. {what_to_do}"
        row["usable"] = row["problem"] is None
    return rows


def _agent(adapter: Adapter) -> dict[str, Any]:
    program = programs.find(adapter, os.environ)
    row: dict[str, Any] = {
        "name": adapter.title,
        "program": None if program is None else program.path,
        "version": None,
        "tested": None,
        "jail": None,
        "jailGaps": None,
        "usable": False,
        "problem": None,
    }
    if program is None:
        how = f": {adapter.install}" if adapter.install else ""
        row["problem"] = f"{programs.why_missing(adapter)}{how}"
    elif adapter.tested:  # a program of the user's own need not know --version
        version = programs.version(program, os.environ)
        if isinstance(version, programs.NoVersion):
            row["problem"] = f"`{adapter.program} --version` fails: {version.reason}"
        elif version is not None:
            row["version"], row["tested"] = version, version in adapter.tested
    return row


def going(db: sqlite3.Connection) -> dict[str, int]:
    """How many runs of real agents work, and how many wait for a slot."""
    found = runs.unended(db)
    running = sum(run.started is not None for run in found)
    return {"running": running, "queued": len(found) - running}


def disk(state_dir: Path) -> int:
    """The bytes on disk that all workspaces take."""
    return disk_usage(state_dir / "workspaces")


def folder(
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
        if place.code.is_dir():
            return place.code
        if not place.folder.is_dir():
            break
        sleep(0.05)
    return None


def disarmed(state_dir: Path, workspace: str) -> bool:
    """Make the folder of a workspace safe for git outside the jail; False while an agent works.

    Raises OSError or GitFailed when that cannot be done.
    """
    if runs.at_work(state_dir, workspace):
        return False
    disarm(Workspace(state_dir, workspace))
    return True


def git_inside(state_dir: Path, workspace: str, words: Sequence[str]) -> Iterator[bytes]:
    """What `git WORDS` prints, line by line, when it runs in a jail around the workspace.

    Nothing that the agent wrote can have an effect outside. Raises GitFailed when git fails, and
    where no jail can be made.
    """
    check = jail.probe(state_dir / JAIL_CACHE)
    if not check.works:
        raise GitFailed(f"{check.reason}. {check.fix}")
    confinement = jail.confine(Workspace(state_dir, workspace).folder, jailed=True)
    with (
        tempfile.TemporaryFile() as errors,
        ProcessGroup(
            jail.command(confinement, ["git", *words], network=False),
            folder="/",
            variables=jail.environment(confinement, os.environ),
            stdout=subprocess.PIPE,
            stderr=errors,
        ) as group,
    ):
        assert group.process.stdout is not None
        yield from group.process.stdout
        if group.process.wait():
            errors.seek(0)
            said = errors.read(STDERR_READ).decode("utf-8", "replace").strip()
            raise GitFailed(said or f"git exited with status {group.process.returncode}")


def known_skills(config_dir: Path, here: Path | None) -> list[dict[str, str]]:
    """The skills that `-s` can name: `name`, `description`, `folder`."""
    found = skills.known(skills.folders(config_dir, here))
    return [
        {"name": slug, "description": skill.description, "folder": str(skill.folder)}
        for slug, skill in sorted(found.items())
    ]


def stop_all(store: Store) -> None:
    """Cancel every active run and delete the folder of every workspace."""
    with store.read() as db:
        found = runs.unended(db)
    with store.write() as db:
        now = store.now()
        found = [run for run in found if runs.end(db, run.prompt, now, "canceled", "")]
    for run in found:
        runs.stop(store.folder, run)
    for folder in (store.folder / "workspaces").glob("*"):
        Workspace(store.folder, folder.name).remove()
