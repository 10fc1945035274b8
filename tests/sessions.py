"""Console sessions in documents: run them on a terminal, compare, or rewrite them.

A block that starts with ```console holds lines that begin with `$ ` and what they print. The
blocks of one document are one story: they share a home, in order. `python -m tests.sessions FILE…`
replaces what the commands print by what they print now, where that differs by more than ids and
times: a document that is still true stays as it is, byte for byte.
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
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import NamedTuple

from tests.fork_server import commands

BLOCK = re.compile(r"^```console(?P<info>[^\n]*)\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL)
ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
CHANGING = (
    (ID, "<id>"),
    (re.compile(r"\b[0-9a-f]{8}\b"), "<id>"),  # as tables on a terminal show them
    (re.compile(r"\d{4}-\d\d-\d\dT[\d:.]+Z"), "<time>"),
    (re.compile(r"\b(now|\d+[smhd] ago)\b *"), "<ago>"),
    (re.compile(r"127\.0\.0\.1:\d+"), "<loopback>"),
    (re.compile(r"/tmp/[\w./-]+?/(?=home/)"), ""),
    # Said when the keyring takes over a second, as a loaded machine makes it do.
    (re.compile(r"^Waiting for the keyring.*\n", re.MULTILINE), ""),
    (re.compile(r"[ \t]+$", re.MULTILINE), ""),
)

COLUMNS = 100
PAGE_COLUMNS = 66  # what fits on a manual page on a terminal of 80


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
    """The commands of a block; a backslash continues a line."""
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


def on_a_terminal(command: str, env: Mapping[str, str], cwd: Path, columns: int) -> str:
    """Everything that `bash -c COMMAND` shows on a terminal of that width, within three minutes."""
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    process = subprocess.Popen(
        # `:` keeps the shell from becoming the command, which would have a separate session then.
        ["bash", "-c", f"{command}\n:"],
        stdin=follower,
        stdout=follower,
        stderr=follower,
        env=dict(env),
        cwd=cwd,
        start_new_session=True,
    )
    os.close(follower)
    shown, deadline = b"", time.monotonic() + 180
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
CD = re.compile(r"cd (?P<folder>\S+)")


def run_step(step: Step, env: dict[str, str], cwd: Path, columns: int = COLUMNS) -> str:
    """What the step shows on a terminal.

    An `export` stays in `env` for the steps after it, and so does a `cd`, as PWD. A service of
    ours that plays the real one is shown by the real one's name.
    """
    assignment = EXPORT.fullmatch(step.command)
    if assignment:
        env[assignment["name"]] = assignment["value"]
        return ""
    here = Path(env.get("PWD", cwd))
    moved = CD.fullmatch(step.command)
    if moved:
        env["PWD"] = str(here / moved["folder"])
        return ""
    shown = on_a_terminal(step.command, env, here, columns)
    playing = env.get("REBYTE_API_URL", "").removesuffix("/v1")
    return shown.replace(playing, "https://api.rebyte.ai") if playing else shown


def environment(home: Path) -> dict[str, str]:
    """The variables of a newcomer: a home, this `rebyte` on PATH, and nothing of ours."""
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "LC_ALL") if name in os.environ}
    kept["PATH"] = f"{commands()}:{Path(sys.executable).parent}:{kept['PATH']}"
    kept.update(HOME=str(home), TERM="dumb", NO_COLOR="1", LC_ALL="C.UTF-8", USER="me")
    return kept


@contextmanager
def with_account(home: Path, state: Path) -> Iterator[dict[str, str]]:
    """The environment of a user with an account: a keyring, and a service elsewhere.

    The service is a local one whose links look like the real one's; `key.txt` holds a key.
    """
    from rebyte_cli.local.local_service import Service
    from tests.keyring_daemon import keyring_daemon

    (home / "key.txt").write_text("rbk_example\n")
    with (
        keyring_daemon(home) as keyring,
        Service(state, public_url="https://app.rebyte.ai") as service,
    ):
        yield environment(home) | keyring.env | {"REBYTE_API_URL": service.base_url}


def play(block: str, env: dict[str, str], home: Path, columns: int) -> str:
    """The block with what its commands print now."""
    return "".join(
        f"$ {step.command}\n{run_step(step, env, home, columns)}" for step in steps(block)
    )


def played(text: str, columns: int = COLUMNS) -> Iterator[tuple[str, str]]:
    """Each block of a document, in order, as it stands and as it is now.

    Blocks marked `real` have an account, the others a service of their own.
    """
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "home"
        home.mkdir()
        found = list(BLOCK.finditer(text))
        accounts = any(match["info"].strip() == "real" for match in found)
        served = with_account(home, Path(folder) / "served") if accounts else nullcontext({})
        with served as real:
            envs = {"": environment(home), "real": real}
            for match in found:
                env = envs[match["info"].strip()]
                yield match["body"], play(match["body"], env, home, columns)


def columns_of(document: Path) -> int:
    """How wide the terminal of a document's sessions is."""
    return PAGE_COLUMNS if document.parent.name == "pages" else COLUMNS


def update(document: Path) -> None:
    """Write into the document what its commands print now."""
    text = document.read_text()
    for before, after in list(played(text, columns_of(document))):
        if stable(before) != stable(after):
            text = text.replace(before, after)
    document.write_text(text)


if __name__ == "__main__":
    for name in sys.argv[1:]:
        update(Path(name))
