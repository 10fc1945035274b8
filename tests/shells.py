"""Real shells on a real terminal: keys go in, what the command line became comes out."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path

import pexpect

from tests.conftest import need_tool

START = {
    "bash": ["--norc", "--noprofile", "-i"],
    "zsh": ["-f", "-i"],
    "fish": ["--no-config", "-i"],
}
# zsh completes nothing before this; the flags spare it a file and a question.
READY = {"zsh": "autoload -Uz compinit && compinit -u -D"}


class Shell:
    """One interactive shell in which `rebyte` and `rebyte-cli` are the command under test.

    `folder` is its home, and gets a `bin/` with the command and with `args`, which notes its
    arguments.
    `arguments` are the shell's own, by default those that make it read no start file.
    """

    def __init__(self, name: str, folder: Path, arguments: list[str] | None = None) -> None:
        path = need_tool(name)
        self.name = name
        self.folder = folder
        self._noted = folder / ".arguments"
        programs = folder / "bin"
        programs.mkdir(exist_ok=True)
        python = shlex.quote(sys.executable)
        run = "from rebyte_cli.__main__ import main; main()"
        # Without site-packages: TAB is to need nothing but this package and the standard library.
        for command in ("rebyte", "rebyte-cli"):
            self._program(programs / command, f'exec {python} -S -c "{run}" "$@"')
        noted = shlex.quote(str(self._noted))
        self._program(programs / "args", f"printf '%s\\0' \"$@\" > {noted}; echo noted")
        environment = {
            "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
            "HOME": str(folder),
            "LC_ALL": "C.UTF-8",
            "PYTHONPATH": str(Path(__file__).parents[1]),
            "PS1": "READY> ",
            "TERM": "xterm",
        }
        self._child = pexpect.spawn(
            path,
            START[name] if arguments is None else arguments,
            env=environment,
            cwd=str(folder),
            encoding="utf-8",
            dimensions=(50, 120),
            timeout=60,
        )
        if name == "fish":
            self.run("function fish_prompt; echo 'READY> '; end")
        if arguments is None:
            self.run(READY.get(name, ":"))

    def run(self, line: str) -> None:
        """Run a line and wait until the shell is ready for the next one."""
        self._child.sendline(f"{line}; echo do''ne")
        self._child.expect_exact("done\r")
        self._child.expect_exact("READY> ")

    def completed(self, line: str, tabs: int = 1, then: str = "") -> list[str]:
        """The words that the shell makes of `line` after TAB, with `then` typed after it.

        The command line is not run: `args` is put in front of it.
        """
        self._child.send(line + "\t" * tabs + then + "\x01args \r")
        self._child.expect_exact("noted\r\n")
        self._child.expect_exact("READY> ")
        return self._noted.read_text(encoding="utf-8").split("\0")[:-1]

    def shown(self, line: str, last: str, tabs: int = 1) -> str:
        """What appears on the terminal after TAB, up to and with the text `last`."""
        self._child.send(line + "\t" * tabs)
        self._child.expect_exact(last)
        text = f"{self._child.before}{self._child.after}"
        self._child.send("\x03")
        return text

    def close(self) -> None:
        """End the shell."""
        self._child.close(force=True)

    @staticmethod
    def _program(path: Path, text: str) -> None:
        path.write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
        path.chmod(0o755)
