"""The user manager of systemd with separate control groups, whatever has started this machine."""

from __future__ import annotations

import os
import shlex
import subprocess
from pathlib import Path
from types import TracebackType

import pytest

from tests.conftest import need_tool
from tests.waiting import eventually

PROGRAM = Path("/lib/systemd/systemd")
PATIENCE = 60
# In a mount namespace: a manager wants to see that systemd runs, and nothing but control groups v2.
GROUPS = "umount -R /sys/fs/cgroup; mount -t cgroup2 none /sys/fs/cgroup"
START = f"""
{GROUPS}
mount -t tmpfs none /run && mkdir -p /run/systemd/system
mkdir "$1" && echo $$ > "$1/cgroup.procs" && echo > "$2"
{PROGRAM} --user --unit=basic.target
exit
"""
CLEAN = f'{GROUPS}; find "$1" -depth -type d -exec rmdir {{}} ";"'


class UserManager:
    """It ends with the block, and everything that it has started.

    `inside` are the words in front of a client's command, `environment` their variables.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {"XDG_RUNTIME_DIR": str(folder), "SYSTEMD_LOG_TARGET": "console"}
        self.inside: list[str] = []
        self._group = f"/sys/fs/cgroup/rebyte-test-{os.getpid()}"

    def __enter__(self) -> UserManager:
        if os.geteuid() != 0 or not PROGRAM.exists():  # in CI, tests are run as a user
            pytest.skip("systemd and root are needed for a user manager")
        need_tool("systemd-run")
        self.folder.mkdir(mode=0o700)
        there = self.folder / "there"
        words = ["--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                ["unshare", *words, "sh", "-c", START, "sh", self._group, there],
                env={**os.environ, **self.environment, "HOME": str(self.folder)},
                stdout=log,
                stderr=log,
            )
        try:
            eventually(there.exists, seconds=PATIENCE, told=self._log)
            pid = self._process.pid
            (child,) = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
            self.inside = ["nsenter", f"--target={child}", "--mount", "--pid", "--"]
            private = self.folder / "systemd/private"
            eventually(private.exists, seconds=PATIENCE, told=self._log)
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: object, trace: TracebackType | None
    ) -> None:
        self._stop()

    def _log(self) -> str:
        return (self.folder / "log").read_text(errors="replace")

    def _stop(self) -> None:
        self._process.kill()
        self._process.wait(PATIENCE)
        words = ["unshare", "--mount", "sh", "-c", CLEAN, "sh", self._group]
        eventually(lambda: subprocess.run(words, capture_output=True, check=False).returncode == 0)

    def client(self, name: str) -> str:
        """What a shell script does that is `name` for this manager."""
        return f'exec {shlex.join([*self.inside, need_tool(name)])} "$@"\n'
