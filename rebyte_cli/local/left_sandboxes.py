"""Sandboxes that are left when rebyte and the guard around them are killed, as for want of memory.

A program written to keep its sandbox alive would live on, and could fill the disk: so the next
command ends it before it opens the database. Files alone say what there is to end.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from .agents.sandbox import RECORDS

# Below the state folder: where the folders are that each have sandboxes.
ABOVE = ("local/workspaces", "checks")
SECONDS = 1.0  # for one to end, so that none that cannot be ended holds up each command for long


def end(state: Path) -> None:
    """Kill what is left in sandboxes of a state folder that no process looks after any more.

    Raises nothing: what stays keeps its record, and no run starts beside it.
    """
    for above in ABOVE:
        with suppress(OSError):
            for place in os.scandir(state / above):
                with suppress(OSError):
                    if os.listdir(os.path.join(place.path, RECORDS)):
                        # Only now, since it takes long to import.
                        from .agents.sandbox.jail_group import end_rest

                        end_rest(Path(place.path), seconds=SECONDS)
