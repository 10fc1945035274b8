"""Another machine, which is reached over ssh: an sshd on loopback, and a home."""

from __future__ import annotations

import os
import shlex
import signal
import socket
import subprocess
import tempfile
from pathlib import Path

from tests.conftest import need_tool
from tests.fork_server import commands
from tests.waiting import eventually

NAME = "box"
PRIVILEGES = Path("/run/sshd")  # which the unit of the system makes


class SshHost:
    """The machine `box`: `env` is what a command needs to reach it, `home` its user's home."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.home = folder / "box"
        self.home.mkdir(parents=True)
        for name in ("host", "user"):
            words = [need_tool("ssh-keygen"), "-q", "-t", "ed25519", "-N", "", "-f", folder / name]
            subprocess.run(words, check=True)
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        bin_folder = folder / "bin"
        bin_folder.mkdir()
        program = bin_folder / "ssh"
        config = folder / "ssh_config"
        program.write_text(
            f'#!/bin/sh\nexec {need_tool("ssh")} -F {shlex.quote(str(config))} "$@"\n'
        )
        program.chmod(0o755)
        config.write_text(f"""\
            Host {NAME}
              HostName 127.0.0.1
              Port {self.port}
              IdentityFile {folder}/user
              IdentitiesOnly yes
              UserKnownHostsFile {folder}/known_hosts
              StrictHostKeyChecking accept-new
            """)
        # Short, because a socket's path may have 107 characters at most.
        self._runtime = tempfile.TemporaryDirectory(prefix="rb")
        self.env = {
            "PATH": f"{bin_folder}:{os.environ['PATH']}",
            "XDG_RUNTIME_DIR": self._runtime.name,
        }
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Answer, from now on."""
        if os.geteuid() == 0:
            PRIVILEGES.mkdir(mode=0o755, exist_ok=True)
        environment = {
            "PATH": f"{commands()}:{os.environ['PATH']}",
            "HOME": str(self.home),
            "XDG_STATE_HOME": str(self.home / "state"),
            "XDG_CONFIG_HOME": str(self.home / "config"),
        }
        words = " ".join(f"{name}={shlex.quote(text)}" for name, text in environment.items())
        script = self.folder / "session"
        script.write_text(f'#!/bin/sh\ncd ~\nexec env -i {words} sh -c "$SSH_ORIGINAL_COMMAND"\n')
        script.chmod(0o755)
        config = self.folder / "sshd_config"
        config.write_text(f"""\
            ListenAddress 127.0.0.1
            Port {self.port}
            HostKey {self.folder}/host
            AuthorizedKeysFile {self.folder}/user.pub
            StrictModes no
            UsePAM no
            PidFile none
            PermitRootLogin yes
            MaxStartups 100
            ForceCommand {script}
            """)
        program = os.path.realpath(need_tool("sshd"))
        self._process = subprocess.Popen(
            [program, "-D", "-e", "-f", str(config)],
            stderr=(self.folder / "sshd.log").open("ab"),
            start_new_session=True,
        )
        eventually(self._answers, what="sshd")

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self.folder / "sshd.log").read_text()
        try:
            socket.create_connection(("127.0.0.1", self.port), 1).close()
        except OSError:
            return False
        return True

    def masters(self) -> list[int]:
        """The processes of the user's side that hold a connection to this machine."""
        found = []
        for each in Path("/proc").glob("[0-9]*"):
            try:
                words = (each / "cmdline").read_bytes()
            except OSError:
                continue
            if words.startswith(b"ssh: ") and self._runtime.name.encode() in words:
                found.append(int(each.name))
        return found

    def cut(self) -> int:
        """Kill the connections that commands share; how many there were."""
        cut = 0
        for number in self.masters():
            try:
                os.kill(number, signal.SIGKILL)
                cut += 1
            except ProcessLookupError:
                continue
        return cut

    def stop(self) -> None:
        """Answer no more, and let the connections go."""
        self.cut()
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._runtime.cleanup()
