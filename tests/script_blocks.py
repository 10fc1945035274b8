"""The command blocks of a document, run as a user would paste them."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

from tests.conftest import need_tool

_FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(markdown: str, *languages: str) -> list[str]:
    """The text inside each fence of those languages, in order; a shell's when none is given."""
    wanted = languages or ("", "sh")
    return [text for language, text in _FENCE.findall(markdown) if language in wanted]


def run(script: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a block in its own shell, in `folder`, with `rebyte` the command under test.

    The shell stops at the first command that fails.
    """
    programs = folder / "bin"
    # Written by the shell: a file that a thread here has open for writing can be inherited by the
    # child of another thread, and is then "busy" when it should run.
    program = f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m rebyte_cli "$@"\n'
    setup = (
        f"[ -e bin/rebyte ] || {{ mkdir -p bin; printf %s {shlex.quote(program)} > bin/rebyte; "
        "chmod +x bin/rebyte; }"
    )
    return subprocess.run(
        [need_tool("bash"), "-euo", "pipefail", "-c", f"{setup}\n{script}"],
        cwd=folder,
        env={
            **os.environ,
            **environment,
            "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        },
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=60,
        check=False,
    )
