"""The forked command of the tests is like the real one where they rely on it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import COMMAND
from tests.fork_server import commands
from tests.forked_command import run_forked
from tests.terminals import Session


@pytest.mark.slow
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


@pytest.mark.slow
def test_a_terminal_is_that_of_the_forked_command(home: Path) -> None:
    session = Session([*COMMAND, "-P", "local", "create", "Work [[run=1h]]", "--wait"], columns=200)
    session.until(lambda lines: "Waiting for the task to end" in str(lines))
    session.child.sendintr()
    assert session.finish() == 130
    assert "Resume with" in str(session.lines)


def test_input_is_written_and_a_limit_ends_the_command(home: Path) -> None:
    given: dict[str, Any] = {"environment": os.environ, "folder": home}
    prompt = "x" * 90_000  # more than a pipe holds
    words = ("-P", "local", "create", "-", "--dry-run", "-o", "json")
    done = run_forked(words, stdin=prompt.encode(), timeout=60, **given)
    assert json.loads(done.stdout)["prompt"] == prompt
    with pytest.raises(subprocess.TimeoutExpired):
        run_forked(("-P", "local", "local", "serve", "--port", "0"), stdin=b"", timeout=1, **given)
