"""An agent `mine` on this machine, whose prompt is the shell script that it runs."""

from __future__ import annotations

from pathlib import Path

AGENT = """#!/bin/sh
# The prompt is what this agent does.
sh -e; echo Done.
"""


def install(home: Path) -> None:
    """Name the agent in the `config.toml` of a HOME that has none."""
    program = home / "agent"
    program.write_text(AGENT)
    program.chmod(0o755)
    config = home / ".config/rebyte/config.toml"
    config.parent.mkdir(parents=True)
    config.write_text(f'[local.agents.mine]\ncommand = ["{program}"]\n')
