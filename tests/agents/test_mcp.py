"""`rebyte mcp --install`: each agent lists the server, from the file where it is written."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

from ..conftest import Done
from .scripted_model import Model


def test_the_agent_lists_the_server(
    agent: str, model: Model, rebyte: Callable[..., Done], repository: Path
) -> None:
    """Beside the settings that its file has already."""
    assert rebyte("mcp", "--install", agent, "-P", "local", cwd=repository).status == 0
    listed = subprocess.run(
        [agent, "mcp", "list"],
        cwd=repository,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
        check=True,
    )
    (line,) = [line for line in listed.stdout.splitlines() if "mcp -P local" in line]
    assert "rebyte" in listed.stdout
    assert "fail" not in line.lower()
