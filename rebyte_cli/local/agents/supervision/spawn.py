"""Starting the process that looks after a run."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NoReturn

from ....system import python_process

ONLY_FINISH = 0  # slots, for what a supervisor left undone


def start(
    state_dir: Path,
    prompt_id: str,
    lock: int,
    slots: int,
    before: Iterable[Path] = (),
    login: Mapping[str, str] | None = None,
    account: str = "",
) -> None:
    """Start the supervisor of a recorded run, detached, and hand it the run's lock.

    It waits for one of the `slots` (see run_queue.py); with ONLY_FINISH, the run has lost its
    supervisor, and only what that left undone is done. `before` are the lock files of earlier runs
    to wait for, `login` the variables that have the login of the clone, `account` that whose usage
    limit it waits for. The lock's descriptor is closed here.
    Raises OSError when no process can be made.
    """
    words = _words(state_dir, prompt_id, lock, slots, account, before)
    try:
        with (state_dir / "supervisors.log").open("ab") as log:
            # Through a shell that ends at once, so that `local serve` has no children to reap.
            subprocess.run(
                ["sh", "-c", '"$@" &', "sh", *words],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **(login or {})},
                pass_fds=(lock,),
                start_new_session=True,
                cwd="/",
                check=False,
            )
    finally:
        os.close(lock)


def begin_again(
    state_dir: Path,
    prompt_id: str,
    lock: int,
    slots: int,
    before: Iterable[Path] = (),
    account: str = "",
) -> NoReturn:
    """Become the process that `start` starts: a supervisor that waits for its turn once more.

    It has no slot any more. Raises OSError.
    """
    os.set_inheritable(lock, True)
    words = _words(state_dir, prompt_id, lock, slots, account, before)
    os.execv(words[0], words)  # noqa: S606 - the words are ours


def _words(
    state_dir: Path, prompt_id: str, lock: int, slots: int, account: str, before: Iterable[Path]
) -> list[str]:
    arguments = [state_dir, prompt_id, lock, slots, account or "-", *before]
    return python_process.command("rebyte_cli.local.agents.supervision.run_queue", *arguments)
