"""What is different on a Mac, run here with what Python says and lacks there.

No Mac was at hand. What is played: `sys.platform`, functions. What cannot be played: file systems,
process creation.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import sys
from pathlib import Path

import pytest

from rebyte_cli.batch import journal
from rebyte_cli.config.paths import config_dir, state_dir
from rebyte_cli.local.agents.cluster import launcher
from rebyte_cli.local.agents.sandbox import jail
from rebyte_cli.local.gateway.request_record import RequestEntry, RequestRecord, read

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "rebyte_cli"
# Where the code asks for the platform, and how often. What is new here needs a test below, or in
# completion/test_install.py, which the functions of `install` take as an argument.
BRANCHES = {
    "__main__.py": 1,
    "api/transfer.py": 1,
    "batch/journal.py": 1,
    "completion/install.py": 2,
    "config/paths.py": 1,
    "local/agents/agent_files.py": 1,
    "local/agents/cluster/launcher.py": 1,
    "local/agents/sandbox/jail.py": 1,
    "local/agents/sandbox/jailed_program.py": 1,
    "local/agents/sandbox/login_copies.py": 1,
    "local/agents/sandbox/seal.py": 1,
    "local/agents/sandbox/stand_in.py": 1,
    "local/gateway/request_record.py": 1,
    "system/git.py": 1,
    "system/process_identity.py": 1,
    "system/python_process.py": 1,
}


def test_every_branch_is_known() -> None:
    asked = r"sys\.platform|os\.name\b|supports_dir_fd|(?:has|get)attr\((?:os|signal|status), \""
    found = {}
    for path in PACKAGE.rglob("*.py"):
        lines = path.read_text(encoding="utf-8").splitlines()
        if count := sum(bool(re.search(asked, line)) for line in lines):
            found[path.relative_to(PACKAGE).as_posix()] = count
    assert found == BRANCHES


def test_folders_of_a_mac(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    support = tmp_path / "Library" / "Application Support" / "rebyte"
    assert config_dir({"HOME": str(tmp_path), "XDG_CONFIG_HOME": "/x"}) == support
    assert state_dir({"HOME": str(tmp_path)}) == support / "state"


def test_a_mac_syncs_to_the_platter(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """`fsync` there stops at the cache of the disk; some file systems have nothing better."""
    calls: list[object] = []

    def full(handle: int, command: int) -> int:
        calls.append(command)
        if len(calls) > 1:
            raise OSError(errno.ENOTSUP, "Operation not supported")
        return 0

    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(fcntl, "F_FULLFSYNC", 51, raising=False)
    monkeypatch.setattr(fcntl, "fcntl", full)
    monkeypatch.setattr(os, "fsync", lambda handle: calls.append("fsync"))
    journal.sync(7)
    assert calls == [51]
    journal.sync(7)
    assert calls == [51, 51, "fsync"]


def test_the_jail_is_of_linux(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    check = jail.probe(tmp_path / "jail")
    assert (check.works, check.reason) == (False, "bubblewrap runs on Linux only")


def test_the_types_fit_both_platforms() -> None:
    """`make check` runs mypy for a Mac as well."""
    assert "--platform darwin" in (ROOT / "Makefile").read_text(encoding="utf-8")


def test_a_launcher_needs_linux(monkeypatch: pytest.MonkeyPatch) -> None:
    assert launcher.why_missing(["sh"]) == ""
    monkeypatch.setattr(sys, "platform", "darwin")
    assert launcher.why_missing(["sh"]) == "[local] launcher needs Linux"
    assert launcher.why_missing([]) == ""


def test_a_record_of_requests_keeps_no_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    file = tmp_path / "record"
    record = RequestRecord(str(file))
    assert record.keep_room()
    assert file.stat().st_size == 0
    assert record.add(RequestEntry(1, "h", 443, "GET", "/", 200), was_kept=True)
    assert read(file)
