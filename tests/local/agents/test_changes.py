"""What a patch is made of."""

from __future__ import annotations

import time
from pathlib import Path

from rebyte_cli.local.agents.workspaces import changes
from rebyte_cli.local.agents.workspaces.workspace_folder import Workspace, WorkspaceSource
from tests.repositories import git


def test_a_change_in_the_second_of_the_last_patch_is_kept(tmp_path: Path) -> None:
    """git knows files by size and second, and looks into those that are as new as its index."""
    workspace = Workspace(tmp_path, "ws")
    workspace.prepare(WorkspaceSource(None, None, False), ())
    file = workspace.code / "file"
    for number in range(50):  # a busy machine may need more than a second for a patch
        time.sleep(1 - time.time() % 1)
        file.write_text("a\n")
        changes.patch(workspace, f"run{number}", jailed=False)
        before = file.stat()
        file.write_text("b\n")
        if int(file.stat().st_ctime) == int(before.st_ctime):
            break
    else:
        raise AssertionError("each patch took longer than a second")
    time.sleep(1 - time.time() % 1)
    changes.patch(workspace, "last", jailed=False)
    assert git(workspace.base, "show", "refs/runs/last:file") == "b\n"
