"""The agents that this program knows."""

from __future__ import annotations

from .adapter import Adapter
from .claude import Claude
from .codex import Codex
from .gemini import Gemini
from .opencode import OpenCode

BUILT_IN: tuple[type[Adapter], ...] = (OpenCode, Claude, Gemini, Codex)
# What stays in a private HOME between runs, whichever agents work in the workspace.
SESSIONS = tuple(name for agent in BUILT_IN for name in agent.sessions)
# Below HOME.
LOGINS = tuple(name for agent in BUILT_IN for name in agent.logins)
