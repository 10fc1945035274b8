"""Console sessions in documents: run them on a terminal, compare, or write them anew.

A block that starts with ```console holds lines that begin with `$ ` and what they print. The
blocks of one document are one story: they share a home, in order. `python -m tests.sessions FILE`
replaces what the commands print by what they print now.
"""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

BLOCK = re.compile(r"^```console(?P<info>[^\n]*)\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL)
ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
CHANGING = (
    (ID, "<id>"),
    (re.compile(r"\d{4}-\d\d-\d\dT[\d:.]+Z"), "<time>"),
    (re.compile(r"\b(now|\d+[smhd] ago)\b *"), "<ago>"),
    (re.compile(r"127\.0\.0\.1:\d+"), "<loopback>"),
    (re.compile(r"/tmp/[\w./-]+?/(?=home/)"), ""),
    (re.compile(r"[ \t]+$", re.MULTILINE), ""),
)


class Step(NamedTuple):
    """One command and what the document says that it prints."""

    command: str
    output: str


def stable(text: str) -> str:
    """The text with what differs from run to run (ids, times, ports) replaced."""
    for pattern, placeholder in CHANGING:
        text = pattern.sub(placeholder, text)
    return text.strip("\n")


def steps(block: str) -> Iterator[Step]:
    """The commands of a block; a line that ends with a backslash goes on."""
    command, output = "", ""
    for line in block.splitlines():
        if command.endswith("\\") and not output:
            command += "\n" + line
        elif line.startswith("$ "):
            if command:
                yield Step(command, output)
            command, output = line[2:], ""
        else:
            output += line + "\n"
    if command:
        yield Step(command, output)


def on_a_terminal(command: str, env: Mapping[str, str], cwd: Path, columns: int = 100) -> str:
    """Everything that `bash -c COMMAND` shows on a terminal of that width, within a minute."""
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    process = subprocess.Popen(
        ["bash", "-c", command],
        stdin=follower,
        stdout=follower,
        stderr=follower,
        env=dict(env),
        cwd=cwd,
        start_new_session=True,
    )
    os.close(follower)
    shown, deadline = b"", time.monotonic() + 60
    while time.monotonic() < deadline:
        if not select.select([leader], [], [], 1)[0]:
            continue
        try:
            chunk = os.read(leader, 65536)
        except OSError:  # how Linux says that the other side was closed
            break
        if not chunk:
            break
        shown += chunk
    else:
        process.kill()
    process.wait()
    os.close(leader)
    return shown.decode().replace("\r\n", "\n")


EXPORT = re.compile(r"export (?P<name>\w+)=(?P<value>\S*)")


def run_step(step: Step, env: dict[str, str], cwd: Path) -> str:
    """What the step shows on a terminal; an `export` stays in `env` for the steps after it.

    A service of ours that plays the real one is shown by the real one's name.
    """
    assignment = EXPORT.fullmatch(step.command)
    if assignment:
        env[assignment["name"]] = assignment["value"]
        return ""
    shown = on_a_terminal(step.command, env, cwd)
    playing = env.get("REBYTE_API_URL", "").removesuffix("/v1")
    return shown.replace(playing, "https://api.rebyte.ai") if playing else shown


def environment(home: Path) -> dict[str, str]:
    """The variables of a newcomer: a home, this `rebyte` on PATH, and nothing of ours."""
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "LC_ALL") if name in os.environ}
    kept["PATH"] = f"{Path(sys.executable).parent}:{kept['PATH']}"
    kept.update(HOME=str(home), TERM="dumb", NO_COLOR="1", LC_ALL="C.UTF-8", USER="me")
    return kept


@contextmanager
def with_account(home: Path, state: Path) -> Iterator[dict[str, str]]:
    """The environment of somebody with an account: a keyring, and a service elsewhere.

    The service is a local one whose links look like the real one's; `key.txt` holds a key.
    """
    from rebyte_cli.local.server import Service
    from tests.keyring_daemon import keyring_daemon

    (home / "key.txt").write_text("rbk_example\n")
    with (
        keyring_daemon(home) as keyring,
        Service(state, public_url="https://app.rebyte.ai") as service,
    ):
        yield environment(home) | keyring.env | {"REBYTE_API_URL": service.base_url}


def update(document: Path) -> None:
    """Replace the output of each command in the document by what it is now."""
    folder = Path(tempfile.mkdtemp())
    home = folder / "home"
    home.mkdir()

    def rewrite(match: re.Match[str]) -> str:
        lines = [
            f"$ {step.command}\n{run_step(step, envs[match['info'].strip()], home)}"
            for step in steps(match["body"])
        ]
        return f"```console{match['info']}\n{''.join(lines)}```"

    with with_account(home, folder / "served") as real:
        envs = {"": environment(home), "real": real}
        document.write_text(BLOCK.sub(rewrite, document.read_text()))


if __name__ == "__main__":
    update(Path(sys.argv[1]))
