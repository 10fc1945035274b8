"""Real agents on this machine: each run is a jailed program with a detached supervisor.

Commands know of this package only the names below. Each is imported from its module when it is
asked for: most need all that a run needs, which takes long to import.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .agent_list import every_agent as every_agent
    from .agent_list import known_skills as known_skills
    from .agent_permission import machine_key as machine_key
    from .config import ConfigError as ConfigError
    from .sandbox.stand_in import leave_stand_in as leave_stand_in
    from .sandbox.stand_in import on_terminal as on_terminal
    from .supervision.admission import usable_agent as usable_agent
    from .supervision.by_hand import bring_commits as bring_commits
    from .supervision.by_hand import run_by_hand as run_by_hand
    from .supervision.disk_space import left_behind as left_behind
    from .supervision.disk_space import prune as prune
    from .supervision.disk_space import sizes_of_workspaces as sizes_of_workspaces
    from .supervision.repository_asks import of_workspace_id as of_workspace_id
    from .supervision.screen_run import attach as attach
    from .workspace_access import disarmed as disarmed
    from .workspace_access import folder_of as folder_of
    from .workspace_access import git_inside as git_inside
    from .workspace_access import why_no_folder as why_no_folder
    from .workspaces.setup_cache import empty_cache as empty_cache

_NAMES = {
    "supervision.by_hand": "bring_commits run_by_hand",
    "config": "ConfigError",
    "agent_permission": "machine_key",
    "supervision.admission": "usable_agent",
    "agent_list": "every_agent known_skills",
    "supervision.disk_space": "left_behind prune sizes_of_workspaces",
    "workspace_access": "disarmed folder_of git_inside why_no_folder",
    "sandbox.stand_in": "leave_stand_in on_terminal",
    "supervision.repository_asks": "of_workspace_id",
    "supervision.screen_run": "attach",
    "workspaces.setup_cache": "empty_cache",
}


def __getattr__(name: str) -> Any:
    for home, names in _NAMES.items():
        if name in names.split():
            from importlib import import_module

            return getattr(import_module(f"{__name__}.{home}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
