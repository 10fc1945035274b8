"""Runs that wait for a usage limit and lost their process: the next command gives them another."""

from __future__ import annotations

import os
from pathlib import Path


def restart_waiting_runs(folder: Path) -> None:
    """Do so for the state folder of the local service, if an account's limit is reached there.

    Most commands have nothing to do with that service, so this looks for a file first. Raises
    OSError.
    """
    if all(name.endswith(".probe") for name in os.listdir(folder / "limits")):
        return
    from .agents import facade
    from .store import Store

    with Store(folder) as store:
        facade.restart_waiting_runs(store)
