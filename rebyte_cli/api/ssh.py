"""Connections to the service of a user on another machine, through the ssh of this one.

Each connection is a process `ssh TARGET rebyte local connect`, which speaks HTTP on its standard
streams. ssh has its own configuration, agent and prompts; it is only told to share one connection
to the host, behind a socket in a private folder, and to notice when the network is gone.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import socket
import subprocess
import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from ..errors import Next, RebyteError
from ..system.deadline import Deadline
from ..system.permissions import make_folder
from .failures import AttemptFailed

PROTOCOL = 1
BASE_URL = "http://127.0.0.1:1/v1"  # what the service calls itself; see local/connect.py
PORTS = (1, 2)  # of the API, and of the object store
KEY = "rbk_ssh"  # no key goes over the wire: the login is what counts
GREETING = re.compile(rb"^rebyte-connect (\d+) (\S+)\n", re.M)
MOST_BEFORE = 1 << 16  # bytes that a shell may print before the first line of rebyte
GREETING_SECONDS = 60.0  # where the caller has no limit
STAY_SECONDS = 60  # that the shared connection outlives the last command
LONGEST_FOLDER = 45  # bytes, of the folder of a socket whose name ssh makes of 58 more
LINES_KEPT = 20  # of what ssh says
LONGEST_LINE = 4096  # bytes; of a longer one, the rest is dropped
END_SECONDS = 2.0
# Codes of errors that say that there is no service at the other end.
NO_SERVICE = frozenset({"no_rebyte_there", "other_version"})
NO_SUCH_COMMAND, SSH_FAILED = 127, 255  # exit statuses of a shell, and of ssh itself
# What ssh says when another attempt cannot help. It has no exit statuses for it.
_FUTILE = re.compile(
    r"Permission denied|Host key verification failed|IDENTIFICATION HAS CHANGED|Bad configuration"
    r"|Could not resolve hostname|Too many authentication failures",
)


class SshConnector:
    """Connections to `target`, as ssh understands it (`user@host`, or a name of its configuration).

    `command` starts rebyte there. `folders` are private ones, of which the first that is short
    enough gets the socket of the shared connection. `interactive`: ssh may ask for a password.
    `note` is told each line that ssh, or rebyte there, says. Thread-safe.
    """

    base_url = BASE_URL
    key = KEY

    def __init__(
        self,
        target: str,
        command: Sequence[str],
        *,
        folders: Sequence[Path],
        interactive: bool,
        note: Callable[[str], None],
    ) -> None:
        self.target = target
        self._command = command
        self._folder = next((one for one in folders if len(bytes(one)) <= LONGEST_FOLDER), None)
        self._interactive = interactive
        self._note = note
        self._first = threading.Lock()
        self._is_shared = False
        self._guard = threading.Lock()
        self._running: list[subprocess.Popen[bytes]] = []

    def connect(self, address: tuple[str, int], timeout: float | None) -> socket.socket:
        """A connection for an `address` of the service.

        Raises AttemptFailed for any other address, to which the other machine must not direct this
        one, and when ssh cannot connect, and RebyteError when there is no rebyte at the
        other end that this one can talk to.
        """
        if address[0] != "127.0.0.1" or address[1] not in PORTS:
            why = f"{self.target} names an address of this machine or of the network"
            raise AttemptFailed(why, futile=True)
        with self._first:  # the others share the connection of the first
            if not self._is_shared:
                found = self._open(timeout)
                self._is_shared = True
                return found
        return self._open(timeout)

    def decline(self) -> bool:
        """There is no other way to the service."""
        return False

    def stop(self) -> None:
        """End every connection. The one that they share stays for a minute."""
        with self._guard:
            running, self._running = self._running, []
        for process in running:
            process.terminate()
        for process in running:
            with suppress(subprocess.TimeoutExpired):
                process.wait(END_SECONDS)

    def words(self) -> list[str]:
        """The command line of ssh."""
        program = shutil.which("ssh")
        if program is None:
            raise RebyteError("ssh is not installed", code="no_ssh")
        options = {"ServerAliveInterval": "15", "ServerAliveCountMax": "3"}
        if self._folder is not None:
            options["ControlMaster"] = "auto"
            options["ControlPath"] = str(self._folder).replace("%", "%%") + "/%C"
            options["ControlPersist"] = str(STAY_SECONDS)
        if not self._interactive:
            options["BatchMode"] = "yes"
        given = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
        # A `~` is for the shell at the other end.
        remote = " ".join(
            word if re.fullmatch(r"~?[\w./+@%:-]+", word) else shlex.quote(word)
            for word in (*self._command, "local", "connect")
        )
        return [program, "-T", *given, "--", self.target, remote]

    def _open(self, timeout: float | None) -> socket.socket:
        if self._folder is not None:
            make_folder(self._folder)
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                process = subprocess.Popen(
                    self.words(),
                    stdin=theirs.fileno(),
                    stdout=theirs.fileno(),
                    stderr=subprocess.PIPE,
                )
            with self._guard:
                self._running = [one for one in self._running if one.poll() is None]
                self._running.append(process)
            said = _Said(process, lambda line: self._note(f"{self.target}: {line}"))
            self._greet(ours, process, said, timeout)
        except BaseException:
            ours.close()
            raise
        return ours

    def _greet(
        self,
        ours: socket.socket,
        process: subprocess.Popen[bytes],
        said: _Said,
        timeout: float | None,
    ) -> None:
        """Read up to the first line of rebyte. Raises as `connect`."""
        seconds = GREETING_SECONDS if timeout is None or self._interactive else timeout
        deadline, data = Deadline(seconds), b""
        while (found := GREETING.search(data)) is None:
            ours.settimeout(max(0.001, deadline.left()))
            try:
                piece = ours.recv(4096)
            except TimeoutError:
                process.kill()
                raise
            if not piece or len(data) > MOST_BEFORE:
                raise self._failure(process, said)
            data += piece
        protocol, version = found[1].decode(), found[2].decode("ascii", "replace")
        if protocol != str(PROTOCOL):
            raise RebyteError(
                f"{self.target} has rebyte {version}, which speaks protocol {protocol} and not"
                f" {PROTOCOL}",
                hint="Install the same version of rebyte on both machines",
                code="other_version",
            )
        said.begin()
        ours.settimeout(None)

    def _failure(self, process: subprocess.Popen[bytes], said: _Said) -> Exception:
        """Why there is no rebyte at the other end."""
        try:
            status = process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            status = process.wait()
        text = said.last()
        if status == SSH_FAILED:
            why = f"ssh {self.target}: {text or 'the connection was lost'}"
            return AttemptFailed(why, futile=bool(_FUTILE.search(said.all())))
        if status == NO_SUCH_COMMAND:
            return RebyteError(
                f"{self.target} has no {self._command[0]}" + (f" ({text})" if text else ""),
                hint="Install rebyte there, or name it with "
                + Next("profile", "set", "NAME", "remote_command=~/.local/bin/rebyte"),
                code="no_rebyte_there",
            )
        return RebyteError(
            f"rebyte on {self.target} ended with status {status}" + (f": {text}" if text else ""),
            hint="Try " + f"`ssh {shlex.quote(self.target)} rebyte local status`",
            code="no_rebyte_there",
        )


class _Said:
    """What a process writes on standard error, line by line."""

    def __init__(self, process: subprocess.Popen[bytes], tell: Callable[[str], None]) -> None:
        self._lines: deque[str] = deque(maxlen=LINES_KEPT)
        self._tell = tell
        self._has_begun = False
        self._stream = process.stderr
        self._thread = threading.Thread(target=self._read, daemon=True, name="rebyte-ssh")
        self._thread.start()

    def begin(self) -> None:
        """From here on, each line is told."""
        self._has_begun = True

    def all(self) -> str:
        """All that was said before the end, or the last lines of it."""
        self._thread.join(END_SECONDS)
        return "\n".join(self._lines)

    def last(self) -> str:
        """The last line."""
        self.all()
        return self._lines[-1] if self._lines else ""

    def _read(self) -> None:
        assert self._stream is not None
        with self._stream:
            is_rest = False
            while line := self._stream.readline(LONGEST_LINE):
                is_rest, is_dropped = not line.endswith(b"\n"), is_rest
                if is_dropped:
                    continue
                text = line.decode("utf-8", "replace").strip()
                if not text:
                    continue
                self._lines.append(text)
                if self._has_begun:
                    self._tell(text)


def control_folders(state_dir: Path) -> list[Path]:
    """Where the socket of the shared connection may be: private, and with a short name."""
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    return [*([Path(runtime) / "rebyte"] if runtime else []), state_dir / "ssh"]
