"""The note `local service`: once per shell session, and never with REBYTE_LOCAL_QUIET."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from rebyte_cli.local.shell_session import FORGET_AFTER, is_first_use
from tests.conftest import COMMAND, Done


@pytest.mark.slow
def test_each_shell_session_is_told_once(home: Path) -> None:
    command = f"{shlex.join(COMMAND)} -P local list -o id"

    def session() -> list[str]:
        done = subprocess.run(
            ["/bin/sh", "-c", f"{command}; {command}"],
            cwd=home,
            capture_output=True,
            text=True,
            check=True,
            start_new_session=True,
        )
        return done.stderr.splitlines()

    assert [session(), session()] == [["local service"]] * 2


def test_a_variable_or_a_quiet_command_says_nothing_and_marks_nothing(
    inside: Callable[..., Done],
) -> None:
    command = ("-P", "local", "list", "-o", "id")
    assert inside(*command, env={"REBYTE_LOCAL_QUIET": "1"}).err == ""
    assert inside(*command, "-q").err == ""
    assert inside(*command).err == "local service\n"
    assert inside(*command).err == ""


def test_an_idle_session_and_an_unusable_folder_count_as_new(tmp_path: Path) -> None:
    folder = tmp_path / "shells"
    assert is_first_use(folder)
    assert not is_first_use(folder)
    (marker,) = folder.iterdir()
    old = marker.stat().st_mtime - FORGET_AFTER - 10
    os.utime(marker, (old, old))
    (folder / "0").touch()
    os.utime(folder / "0", (old, old))
    assert is_first_use(folder)
    assert not is_first_use(folder)
    marker.unlink()
    assert is_first_use(folder)
    assert list(folder.iterdir()) == [marker]  # what others left long ago is gone
    blocked = tmp_path / "file"
    blocked.touch()
    assert is_first_use(blocked)
    assert is_first_use(blocked)
