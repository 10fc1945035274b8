"""What a repository asks for before an agent works on it: its `setup`, run in a new workspace.

The command runs in a jail like the agent's, between the clone and the agent: with the hosts of the
run, but without its models, keys and logins, and with a HOME that is thrown away.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ...gateway import request_record
from .. import agent_files
from ..adapters.model_access import AgentAccess
from ..exposed import Mount
from ..sandbox import jail, user_tools
from ..sandbox.egress import egress_for, refused_hosts
from ..sandbox.jailed_program import prepare
from . import tryout
from .tryout import TryoutEnd
from .workspace_folder import Workspace

LOG, RECORD = "setup.log", "setup"  # of the folder of a run
SECONDS = 1800.0  # the run's own limit may be shorter


def run(
    workspace: Workspace,
    command: str,
    options: Mapping[str, Any],
    folder: Path,
    *,
    held: Callable[[bool], None],
    problem: Callable[[], str],
) -> TryoutEnd:
    """Run `sh -c COMMAND` in the jail; what it prints is in LOG of the run's `folder`.

    `held` is told when a signal has to wait, and when it may come: between, the jail starts.
    `problem` is asked a few times a second why it has to end. Everything that it started is dead
    at the end. Raises OSError.
    """
    limit = min(options["limit"] or SECONDS, SECONDS)
    record = folder / RECORD
    record.mkdir(mode=0o700, exist_ok=True)
    with (
        agent_files.new_folder(workspace.folder, "setup-home.") as home,
        egress_for(options, AgentAccess(), os.environ, record) as egress,
        (folder / LOG).open("wb", buffering=0) as log,
    ):
        layout = jail.layout_of(workspace.folder, jailed=True)
        layout = layout._replace(home=Mount(home, jail.HOME))
        words = ["sh", "-c", command]
        own = user_tools.own_folders(options.get("configDir"), workspace.state_dir)
        program = prepare(
            layout, words, egress, options, os.environ, own=own, variables={"CI": "true"}
        )
        return tryout.until_end(program, log, limit, lambda: egress.problem() or problem(), held)


def refused(folder: Path) -> list[str]:
    """What the setup of a run was refused of the network, a line for each host."""
    return refused_hosts(folder / RECORD / request_record.FILE)


def tail(folder: Path) -> str:
    """The last lines that the setup of a run printed."""
    return tryout.last_lines(folder / LOG)
