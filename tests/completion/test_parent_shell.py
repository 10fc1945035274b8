"""The shell that `rebyte completion` is for: the one it was typed into."""

from __future__ import annotations

import os
import shlex
from functools import partial
from pathlib import Path

import pytest

from rebyte_cli.commands.completion import SHELLS
from rebyte_cli.completion.install import ProcessEntry, parent_shell, process_entry
from tests.conftest import COMMAND, need_tool
from tests.shells import Shell

LOGIN = {"bash": "zsh", "zsh": "fish", "fish": "bash"}


@pytest.mark.slow
@pytest.mark.parametrize("name", LOGIN)
def test_the_shell_at_work_comes_before_the_login_shell(name: str, home: Path) -> None:
    """A script in between, which is not of that shell, changes nothing."""
    shell = Shell(name, home)
    script = home / "install.sh"
    script.write_text(f"#!/bin/bash\n{shlex.join(COMMAND)} completion > script.txt\n")
    script.chmod(0o755)
    environment = f"env SHELL=/bin/{LOGIN[name]}"
    shell.run(f"{environment} {shlex.join(COMMAND)} completion > direct.txt")
    shell.run(f"{environment} ./install.sh")
    shell.close()
    for file in ("direct.txt", "script.txt"):
        assert f"Printed by `rebyte completion {name}`" in (home / file).read_text(), file


def above(*entries: tuple[str, int]) -> str | None:
    """What is found below processes, each with a name and a group, the nearest first."""
    first = os.getpid() + 1
    processes = {os.getpid(): ProcessEntry(first, 1, "rebyte")}
    for number, (name, group) in enumerate(entries, first):
        processes[number] = ProcessEntry(number + 1, group, name)
    processes[first + len(entries)] = ProcessEntry(0, 0, "init")
    return parent_shell(SHELLS, processes.__getitem__)


@pytest.mark.parametrize(
    ("entries", "found"),
    [
        ([("zsh", 2)], "zsh"),
        ([("uvx", 1), ("fish", 2)], "fish"),
        ([("bash", 1), ("zsh", 2)], "zsh"),  # a script in bash
        ([("tcsh", 2)], None),
        ([("bash", 1)], None),
        ([("cron", 2)], None),
    ],
)
def test_the_nearest_interactive_shell(entries: list[tuple[str, int]], found: str | None) -> None:
    assert above(*entries) == found


def test_a_process_is_read_from_ps_where_there_is_no_proc(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a Mac, where the name of a login shell begins with a dash."""
    here = process_entry(os.getpid())
    assert (here.parent, here.group) == (os.getppid(), os.getpgrp())
    ps = tmp_path / "ps"
    ps.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/asked\necho "  {here.parent} 77 -/bin/zsh"\n')
    ps.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    assert process_entry(os.getpid(), tmp_path) == ProcessEntry(here.parent, 77, "zsh")
    assert (tmp_path / "asked").read_text() == f"-o ppid=,pgid=,comm= -p {os.getpid()}\n"


def test_without_proc_and_ps_there_is_no_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert parent_shell(SHELLS, partial(process_entry, proc=tmp_path)) is None


def test_the_real_ps_gives_the_same(tmp_path: Path) -> None:
    need_tool("ps")
    assert process_entry(os.getpid(), tmp_path) == process_entry(os.getpid())
