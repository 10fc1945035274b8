"""An agent `mine` on this machine, whose prompt is the shell script that it runs."""

from __future__ import annotations

from pathlib import Path

AGENT = """#!/bin/sh
# The prompt is what this agent does.
sh -e; echo Done.
"""
# Lines for bash that ask the gateway in the sandbox for a host that is on no list.
ASK_REFUSED = r"""exec 3<>/dev/tcp/127.0.0.1/29170
printf 'CONNECT a.example:443 HTTP/1.1\r\nHost: a.example:443\r\n\r\n' >&3
head -1 <&3"""


def install(home: Path) -> None:
    """Name the agent in the `config.toml` of a HOME that has none."""
    program = home / "agent"
    program.write_text(AGENT)
    program.chmod(0o755)
    config = home / ".config/rebyte/config.toml"
    config.parent.mkdir(parents=True)
    config.write_text(f'[local.agents.mine]\ncommand = ["{program}"]\n')
