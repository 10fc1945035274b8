"""`local/agents/workspace_access.py`: where the agents of a workspace work."""

from __future__ import annotations

import os
from pathlib import Path

from rebyte_cli.local.agents import workspace_access
from rebyte_cli.local.agents.supervision import run_lock
from rebyte_cli.local.agents.workspaces.workspace_folder import Workspace


def test_a_folder_that_is_still_being_made_is_waited_for(tmp_path: Path) -> None:
    place = Workspace(tmp_path, "w")
    lock = run_lock.take_new(tmp_path, "w", "p")
    pauses: list[float] = []

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 3:
            place.code.mkdir()

    assert workspace_access.folder_of(tmp_path, "w", sleep) == place.code
    assert len(pauses) == 3
    os.close(lock)


def test_what_a_workspace_holds_is_told_by_no_program_in_it(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path, "ws")
    repository = workspace.code / "a/.git/modules/b"
    for name in ("refs/heads/logs", "logs/refs/heads/x", "objects/x", "HEAD"):
        (repository / name).parent.mkdir(parents=True, exist_ok=True)
        (repository / name).touch()
    state = workspace.state()
    assert state[32:] != workspace.state()[32:]  # with another key
    key = bytes.fromhex(state[:32].decode())
    for name in ("logs/refs/heads/x", "objects/x"):
        (repository / name).write_text("x")
    assert workspace.state(key) == state
    for name in ("refs/heads/logs", "HEAD"):
        (repository / name).write_text("x")
        assert workspace.state(key) != state
        state = workspace.state(key)


def test_a_folder_that_is_never_made_is_not_waited_for_long(tmp_path: Path) -> None:
    pauses: list[float] = []
    assert workspace_access.folder_of(tmp_path, "w", pauses.append) is None
    assert pauses == []
    lock = run_lock.take_new(tmp_path, "w", "p")
    assert workspace_access.folder_of(tmp_path, "w", pauses.append) is None
    assert 5 < sum(pauses) <= 10.1
    os.close(lock)
    pauses.clear()
    assert workspace_access.folder_of(tmp_path, "w", pauses.append) is None
    assert pauses == [], "its run has ended"
