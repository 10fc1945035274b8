"""The values that TAB offers for options and arguments, from files on this machine.

Each list takes the App and gives (value, description) pairs, the likeliest first. None of them
opens a connection or a keyring.
"""

from __future__ import annotations

import os

from ..config import EXECUTORS, FORMATS

TYPE_CHECKING = False  # importing typing would cost as much as all the rest of an answer
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import Any

    from ..app import App

    Pairs = Iterator[tuple[str, str]]

NEWEST = 200  # tasks offered at most
NUMBERED = 9  # of them as @1, @2, …
_PATIENCE = 2.0  # seconds that git may take while a shell waits for TAB
_BRANCHES = {"refs/heads/": "", "refs/remotes/origin/": "of origin"}


def tasks(app: App) -> Pairs:
    """Task ids, newest first, then what the newest are also called."""
    known = [task for task in app.history.tasks(NEWEST) if _usable(str(task["id"]))]
    for task in known:
        yield str(task["id"]), _about(task)
    if known:
        yield "@last", _about(known[0])
    for number in range(1, NUMBERED + 1):
        numbered = app.history.nth(number)
        if numbered is not None and not numbered["deleted"] and _usable(str(numbered["id"])):
            yield f"@{number}", _about(numbered)


def workspaces(app: App) -> Pairs:
    """Aliases, then ids, the last used first."""
    known = app.history.workspaces()
    for workspace in known:
        if workspace.get("name"):
            yield str(workspace["name"]), _tasks(workspace)
    for workspace in known:
        yield str(workspace["id"]), str(workspace.get("name") or "") or _tasks(workspace)
    if known:
        yield "@last", str(known[0].get("name") or known[0]["id"])


def repositories(app: App) -> Pairs:
    """Repositories that tasks ran on, the last one first."""
    for task in app.history.tasks(NEWEST):
        if task.get("githubUrl"):
            yield str(task["githubUrl"]), "used before"


def profiles(app: App) -> Pairs:
    """Every profile, with its base URL."""
    for name in app.config.names():
        table: Mapping[str, Any] = app.config.profiles.get(name) or {}
        about = "the service on this machine" if name == "local" else table.get("base_url")
        yield name, str(about or "")


def own_profiles(app: App) -> Pairs:
    """The profiles that can be changed: all but the built-in one."""
    return (pair for pair in profiles(app) if pair[0] != "local")


def skills(app: App) -> Pairs:
    """Skills used before; with -P local also those that agents on this machine can have."""
    yield from _words(app, "skills")
    if not app.settings.is_local:
        return
    from ..local.agents.sources.skills import folders, known

    for slug, skill in sorted(known(folders(app.config_path.parent, None)).items()):
        yield slug, skill.description


def labels(app: App) -> Pairs:
    """Labels that tasks have."""
    for name, value, count in app.history.labels.counts():
        yield f"{name}={value}", _count(count)


def branches(_app: App) -> Pairs:
    """The branches of the repository here: its own, then those that its `origin` had last."""
    from ..errors import RebyteError
    from ..system import git

    words = ["for-each-ref", "--format=%(refname)"]
    try:
        said = git.run([*words, *_BRANCHES], os.curdir, timeout=_PATIENCE)
    except RebyteError:  # no repository here, or no git
        return
    for name in said.decode("utf-8", "replace").splitlines():
        for place, about in _BRANCHES.items():
            branch = name.removeprefix(place)
            if branch not in (name, "HEAD"):
                yield branch, about


def models(app: App) -> Pairs:
    """Models used before."""
    return _words(app, "model")


def executors(app: App) -> Pairs:
    """Executors used before; with -P local those that are installed, and the user's own.

    The four known ones stand in the table.
    """
    yield from _words(app, "executor")
    if not app.settings.is_local:
        return
    from shutil import which

    for name in EXECUTORS:
        if which(name, path=app.environment.get("PATH")):
            yield name, "installed here"
    for name in app.config.local_agents():
        if name not in EXECUTORS:
            yield name, "a program of config.toml"


LISTS: dict[str, Callable[[App], Pairs]] = {
    "tasks": tasks,
    "workspaces": workspaces,
    "repositories": repositories,
    "places": profiles,
    "profiles": profiles,
    "own_profiles": own_profiles,
    "skills": skills,
    "models": models,
    "labels": labels,
    "branches": branches,
    "executors": executors,
}
# `file`, `dir`: the shell completes them. `data`: a file after `@`. `fields`: of the command.
# `commands`: their names. `settings`: `NAME=` and then a value. `words`: those of the table, with
# commas between several.
KINDS = (*LISTS, "file", "dir", "data", "fields", "commands", "settings", "words")
# What stands behind `NAME=`, as in a table. Any other setting is for the user to type.
SETTINGS = {
    "executor": f"executors={','.join(EXECUTORS)}",
    "model": "models",
    "skills": "skills",
    "output": f"={','.join(FORMATS)}",
    "ca_bundle": "file",
    "history": "=true,false",
}


def _words(app: App, field: Any) -> Pairs:
    for word in app.history.words(field):
        yield word, "used before"


def _about(task: Mapping[str, Any]) -> str:
    text = str(task.get("title") or task.get("prompt") or "")
    return f"{task.get('status') or 'unknown'}, {text}" if text else str(task.get("status") or "")


def _tasks(workspace: Mapping[str, Any]) -> str:
    return _count(workspace.get("tasks") or 0)


def _count(tasks: int) -> str:
    return f"{tasks} task{'' if tasks == 1 else 's'}"


def _usable(task_id: str) -> bool:
    """Whether a command takes it: an id goes into a path, so it is made of few characters."""
    return task_id.isascii() and task_id.replace("-", "").replace("_", "").isalnum()
