"""Supervisors of agents, forked by the server of fork_server.py instead of started by a shell.

A new interpreter needs a tenth of a second to import what looks after a run; the suite has hundreds
of runs. `install` replaces `spawn.start` in this process; in the children of the server, which run
the command, the server has done that. A command that starts by itself, and a run that begins again,
have supervisors with an interpreter of their own. So has a test that uses `real_supervisors`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from rebyte_cli.local.agents.supervision import spawn
from tests.fork_client import needs_an_interpreter, start

REAL = spawn.start
AS_REAL = "REAL_SUPERVISORS"  # in the environment of what starts one


def install(address: str | Callable[[], str]) -> None:
    """Have this process ask the server at a socket for its supervisors."""

    def ask(
        state_dir: Path,
        prompt_id: str,
        lock: int,
        options: Mapping[str, Any] | None,
        before: Iterable[Path] = (),
        login: Mapping[str, str] | None = None,
    ) -> None:
        environment = {**os.environ, **(login or {})}
        socket = address if isinstance(address, str) else address()
        as_real = AS_REAL in environment or needs_an_interpreter(environment)
        if as_real or not os.path.exists(socket):
            REAL(state_dir, prompt_id, lock, options, before, login)
            return
        given = spawn.arguments(state_dir, prompt_id, 3, options, before)
        try:
            with open(os.devnull) as nothing, (state_dir / "service.log").open("ab") as log:
                connection = start(
                    socket,
                    [os.fsencode(str(word)) for word in given],
                    {os.fsencode(name): os.fsencode(text) for name, text in environment.items()},
                    b"/",
                    umask_of_this_process(),
                    (nothing.fileno(), log.fileno(), log.fileno(), lock),
                    kind="supervisor",
                )
            connection.recv(8)  # until it has been forked
            connection.close()
        finally:
            os.close(lock)

    spawn.start = ask


def umask_of_this_process() -> int:
    """`os.umask` would change it for the other threads meanwhile."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(status.partition("Umask:")[2].split()[0], 8)
