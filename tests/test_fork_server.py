"""The forked command of the tests is like the real one where they rely on it."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

import pytest

from tests.conftest import COMMAND
from tests.fork_server import commands


@pytest.mark.parametrize("command", [[str(commands() / "rebyte")], COMMAND], ids=["fork", "real"])
def test_streams_folder_and_status(home: Path, command: list[str]) -> None:
    (home / "t.txt").write_text("Grüße\n")
    for words, status, out, err in (
        (["-P", "local", "batch", "t.txt", "--text", "--dry-run"], 0, "Grüße", ""),
        (["-P", "local", "create", "-", "--dry-run", "-o", "json"], 0, "von stdin", ""),
        (["get"], 2, "", "missing argument"),
    ):
        done = subprocess.run(
            [*command, *words],
            input="von stdin",
            cwd=home,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == status, done.stderr
        assert out in done.stdout
        assert err in done.stderr


def test_a_signal_is_passed_on(home: Path) -> None:
    words = ["-P", "local", "create", "Work [[run=1h]]", "--wait"]
    with subprocess.Popen(
        [commands() / "rebyte", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        while "Created task" not in process.stderr.readline():
            pass
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 143
