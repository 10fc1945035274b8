"""Sandboxes that are left when rebyte and the guard around them are killed, as for want of memory.

A program written to keep its sandbox alive would live on, and could fill the disk: so the next
command ends it before it opens the database. It removes the tree of a check as well, which a guard
leaves. Files alone say what there is to end.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from .agents.sandbox import RECORDS

# Below the state folder: where the folders are that each have sandboxes.
WORKSPACES, CHECKS = "local/workspaces", "checks"
SECONDS = 1.0  # for one to end, so that none that cannot be ended holds up each command for long


def end(state: Path) -> None:
    """Kill what is left in sandboxes of a state folder that no process looks after any more, and
    remove the trees of checks that were killed.

    Raises nothing: what stays keeps its record, and no run starts beside it.
    """
    for above in (WORKSPACES, CHECKS):
        with suppress(OSError):
            for place in os.scandir(state / above):
                with suppress(OSError):
                    _end_in(Path(place.path))
    with suppress(OSError):
        for tree in (state / CHECKS).glob("tree-*"):
            with suppress(OSError):
                _remove(tree)


def _end_in(place: Path) -> None:
    if os.listdir(place / RECORDS):
        from .agents.sandbox.jail_group import end_rest  # only now, since it takes long to import

        end_rest(place, seconds=SECONDS)


def _remove(tree: Path) -> None:
    if not any((tree / RECORDS).glob("*")):
        from .agents.workspaces.tryout import remove_unused

        remove_unused(tree)
