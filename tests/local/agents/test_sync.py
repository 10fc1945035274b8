"""Merging new commits of the user's repository into a workspace."""

from __future__ import annotations

from pathlib import Path

import pytest

from rebyte_cli.local.agents.workspaces.sync import bring
from rebyte_cli.local.agents.workspaces.workspace_folder import Workspace, WorkspaceSource
from rebyte_cli.system.git import GitFailed
from tests.repositories import git

from .bench import need_jail


def test_a_full_disk_ends_the_merge_and_changes_nothing(tmp_path: Path) -> None:
    need_jail()
    source = tmp_path / "source"
    source.mkdir()
    git(source, "init", "-q", "-b", "main")
    git(source, "commit", "-q", "--allow-empty", "-m", "Start")
    workspace = Workspace(tmp_path / "state", "ws")
    workspace.prepare(WorkspaceSource(str(source), None, False), ())
    (source / "new").write_text("new\n")
    git(source, "add", "-A")
    git(source, "commit", "-q", "-m", "More")
    with pytest.raises(GitFailed, match="the disk is full"):
        bring(workspace, source, None, "run", {}, lambda: "the disk is full")
    assert git(workspace.code, "log", "--format=%s") == "Start\n"
    assert not (workspace.code / "new").exists()
    (workspace.base / "shallow.lock").touch()  # of a fetch that was killed
    assert bring(workspace, source, None, "run", {}, str)
    assert (workspace.code / "new").read_text() == "new\n"
