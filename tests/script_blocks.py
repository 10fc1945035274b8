"""The command blocks of a document, run as a user would paste them."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

from tests.conftest import need_tool
from tests.fork_server import commands

_FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(markdown: str, *languages: str) -> list[str]:
    """The text inside each fence of those languages, in order; a shell's when none is given."""
    wanted = languages or ("", "sh")
    return [text for language, text in _FENCE.findall(markdown) if language in wanted]


def run(script: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a block in its own shell, in `folder`, with `rebyte` the command under test.

    Programs in `folder/bin` come before it. The shell stops at the first command that fails.
    """
    return subprocess.run(
        [need_tool("bash"), "-euo", "pipefail", "-c", script],
        cwd=folder,
        env={
            **os.environ,
            **environment,
            "PATH": os.pathsep.join((str(folder / "bin"), str(commands()), os.environ["PATH"])),
        },
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=300,
        check=False,
    )
