"""The user's editor, run on a file."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Mapping
from pathlib import Path

from ..errors import BadUsage, Interrupted
from ..system.signals import handled

# Tried in this order without VISUAL and EDITOR; the first is Debian's choice of the user.
USUAL = ("sensible-editor", "editor", "nano", "vim", "vi")
_WAIT, _BLOCK, _NO_FORK = ("--wait", "-w"), ("--block", "-b"), ("--nofork", "-f")
# Editors that open a window and return at once, with the option that makes them wait.
WINDOWED = {
    **dict.fromkeys(("code", "code-insiders", "codium", "cursor", "windsurf", "zed"), _WAIT),
    **dict.fromkeys(("subl", "mate", "bbedit", "atom", "gedit"), _WAIT),
    "kate": _BLOCK,
    **dict.fromkeys(("gvim", "mvim"), _NO_FORK),
}
SHELL_SIGNS = frozenset("|&;<>()$`\\\"'*?[#~=%")
STOP_SECONDS = 2.0


def find(environment: Mapping[str, str]) -> str:
    """The editor's command line: VISUAL, EDITOR, or what is installed. BadUsage without one."""
    for name in ("VISUAL", "EDITOR"):
        if environment.get(name, "").strip():
            return environment[name].strip()
    if program := usual(environment):
        return program
    raise BadUsage(
        "no editor found for the prompt",
        hint="Set EDITOR, or pass the prompt as an argument or with --prompt-file FILE",
    )


def usual(environment: Mapping[str, str]) -> str | None:
    """The editor without VISUAL and EDITOR; None where nothing is installed."""
    path = environment.get("PATH")
    return next((program for program in USUAL if shutil.which(program, path=path)), None)


def waiting_option(editor: str) -> str | None:
    """The option that an editor with windows lacks to wait for its window; None for others."""
    words = editor.split()
    spellings = WINDOWED.get(os.path.basename(words[0]).removesuffix(".exe")) if words else None
    if spellings is None or not set(spellings).isdisjoint(words[1:]):
        return None
    return spellings[0]


def edit(editor: str, path: Path) -> int:
    """Run the editor on a file and return its exit status; 127 if there is no such program.

    A command line with quotes, variables and the like is run by the shell, as git does it. Ctrl-C
    belongs to the editor while it runs; SIGTERM ends it too.
    """
    command = [*editor.split(), str(path)]
    if SHELL_SIGNS.intersection(editor):
        command = ["/bin/sh", "-c", f'{editor} "$@"', "sh", str(path)]
    is_main = threading.current_thread() is threading.main_thread()
    # A handler that does nothing, rather than SIG_IGN, which the editor would inherit.
    with handled({signal.SIGINT: lambda *_: None} if is_main else {}):
        try:
            process = subprocess.Popen(command)
        except FileNotFoundError:
            return 127
        except OSError as problem:
            raise BadUsage(f"cannot start the editor {editor!r}: {problem.strerror}") from None
        try:
            return process.wait()
        except Interrupted:
            process.terminate()
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
            raise
