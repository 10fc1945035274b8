"""The agents and the skills that `rebyte local agents` and TAB list, found or not."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from ...system.permissions import make_folder
from . import config
from .adapters import programs
from .adapters.adapter import Adapter, User
from .adapters.model_access import LoginExpired
from .cluster import launcher
from .sandbox import egress, jail
from .sources import skills
from .supervision.admission import JAIL_CACHE


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


def known_skills(config_dir: Path, here: Path | None) -> list[dict[str, str]]:
    """The skills that `-s` can name: `name`, `description`, `folder`."""
    found = skills.known(skills.folders(config_dir, here))
    return [
        {"name": slug, "description": skill.description, "folder": str(skill.folder)}
        for slug, skill in sorted(found.items())
    ]
