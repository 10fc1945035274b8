"""Starting the process that looks after a run."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NoReturn

from ....system import python_process
from ... import service_log
from ..limits import usage_limit

RUN_QUEUE = "rebyte_cli.local.agents.supervision.run_queue"


def start(
    state_dir: Path,
    prompt_id: str,
    lock: int,
    options: Mapping[str, Any] | None,
    before: Iterable[Path] = (),
    login: Mapping[str, str] | None = None,
) -> None:
    """Start the supervisor of a recorded run, detached, and hand it the run's lock.

    It waits for its turn, by the `options` of the run (see run_queue.py). Without them, the run has
    lost its supervisor, and only what that left undone is done. `before` are the lock files of
    earlier runs to wait for, `login` the variables that have the login of the clone. The lock's
    descriptor is closed here.
    Raises OSError when no process can be made.
    """
    given = arguments(state_dir, prompt_id, lock, options, before)
    words = python_process.command(RUN_QUEUE, *given)
    try:
        with service_log.opened(state_dir) as log:
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
    options: Mapping[str, Any],
    before: Iterable[Path],
) -> NoReturn:
    """Become the process that `start` starts: a supervisor that waits for its turn once more.

    It has no slot any more. Raises OSError.
    """
    os.set_inheritable(lock, True)
    given = arguments(state_dir, prompt_id, lock, options, before)
    words = python_process.command(RUN_QUEUE, *given)
    os.execv(words[0], words)  # noqa: S606 - the words are ours


def arguments(
    state_dir: Path,
    prompt_id: str,
    lock: int,
    options: Mapping[str, Any] | None,
    before: Iterable[Path],
) -> list[object]:
    """What run_queue.py is told."""
    if options is None:
        return [state_dir, prompt_id, lock, 0, "-"]
    account = usage_limit.waited_for(options) or "-"
    return [state_dir, prompt_id, lock, options["parallel"], account, *before]
