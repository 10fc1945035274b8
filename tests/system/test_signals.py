"""Signals and broken streams, on the real command: what it says, what it leaves, how it ends."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pexpect
import pytest

from tests.conftest import COMMAND, Done, need_tool
from tests.servers import RawServer, json_reply
from tests.terminals import finish

Rebyte = Callable[..., Done]
SHOWN, HIDDEN = "\x1b[?25h", "\x1b[?25l"


def create(rebyte: Rebyte, prompt: str) -> str:
    done = rebyte("create", prompt, "-o", "id")
    assert done.status == 0, done
    return done.out.strip()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["ctrl-c", "term"]
)
def test_case_46_a_signal_in_a_wait(
    rebyte: Rebyte, service: Any, number: signal.Signals, status: int
) -> None:
    over = create(rebyte, "Say hi [[run=1ms]]")
    runs = create(rebyte, "Take long [[run=1h]]")
    child = pexpect.spawn(
        COMMAND[0],
        [*COMMAND[1:], "wait", over, runs, "-o", "id"],
        env=dict(os.environ),
        encoding="utf-8",
        codec_errors="replace",  # Ctrl-C cuts what was written and not yet read
        timeout=60,
    )
    log = io.StringIO()
    child.logfile_read = log
    child.expect_exact(over)  # what has ended is out before the rest has
    child.expect("1.*2")  # ... and something on the terminal moves
    if number is signal.SIGINT:
        child.sendintr()
    else:
        child.kill(number)
    ended = finish(child)
    shown = log.getvalue()
    assert ended == status, shown
    assert shown.rindex(SHOWN) > shown.rindex(HIDDEN) if HIDDEN in shown else True
    assert "Traceback" not in shown
    assert f"rebyte wait {over} {runs}" in shown
    assert rebyte("get", runs, "--fields", "status").json["status"] == "running"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["ctrl-c", "term"]
)
def test_case_46_in_a_script_what_has_ended_is_out(
    rebyte: Rebyte, service: Any, number: signal.Signals, status: int
) -> None:
    over = create(rebyte, "Say hi [[run=1ms]]")
    runs = create(rebyte, "Take long [[run=1h]]")
    with subprocess.Popen(
        [*COMMAND, "wait", over, runs, "-o", "id", "-v"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == f"{over}\n"
        seen = 0
        while seen < 2:  # the second round is on: it waits, and prints nothing
            seen += f"/tasks/{runs}" in process.stderr.readline()
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (status, "")
    assert "Resume with `rebyte wait" in err
    assert "Traceback" not in err


def piped(line: str, server: RawServer) -> tuple[int, str, str]:
    """`line` in a real shell with `"$@"` for the command; the command's own status."""
    done = subprocess.run(
        [need_tool("bash"), "-c", f"{line}; exit ${{PIPESTATUS[0]}}", "bash", *COMMAND],
        env={**os.environ, "REBYTE_API_URL": server.base_url, "REBYTE_API_KEY": "rbk_pipe"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    return done.returncode, done.stdout, done.stderr


# Ended, so that no task is asked about.
ROWS = [
    {"id": f"task-{n:03d}", "title": "x" * 500, "status": "completed", "completedAt": "2026-01-01"}
    for n in range(100)
]


@pytest.mark.slow
@pytest.mark.usefixtures("home")
@pytest.mark.parametrize("form", ["jsonl", "id", "csv", "json", "table"])
def test_case_45_a_list_whose_reader_goes_away_asks_for_nothing_more(form: str) -> None:
    # A table is laid out from all its rows, so there must be an end; it has to outgrow a pipe.
    total = 2_000 if form == "table" else 100_000

    def page(request: Any) -> bytes:
        offset = int(dict(parse_qsl(urlsplit(request.path).query))["offset"])
        # Each line is long: a pipe that is not read yet takes few of the pages.
        long = f"{offset:0500}"
        rows = [{**row, "id": f"{row['id']}-{long}"} for row in ROWS if offset < total]
        return json_reply({"data": rows, "total": total, "limit": 100, "offset": offset})

    with RawServer(page) as server:
        status, out, err = piped(f'"$@" list --all -o {form} | head -1', server)
        assert (status, err) == (141, "")
        assert out.count("\n") == 1
        assert len(server.requests) < 50


@pytest.mark.slow
@pytest.mark.usefixtures("home")
@pytest.mark.parametrize("command", ["list", "get task-001", "api GET /tasks", "schema", "--help"])
def test_case_45_a_full_disk_never_ends_in_0(command: str) -> None:
    answer = json_reply({"data": ROWS, "total": 100, "id": "task-001", "status": "completed"})
    with RawServer(answer) as server:
        status, _, err = piped(f'"$@" {command} > /dev/full', server)
    assert status == 1
    assert "No space left on device" in err
    assert len(err.splitlines()) == 1
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["ctrl-c", "term"]
)
def test_a_signal_that_python_forgets_arrives_once_more(
    number: signal.Signals, status: int
) -> None:
    """In a callback for an object that is gone, as imports have them."""
    code = f"""
import os, sys, time, weakref
from rebyte_cli.errors import Interrupted
from rebyte_cli.system.signals import raising

class Thing:
    pass

thing, calls = Thing(), []

def arrived(_):
    calls.append(os.getpid())
    os.kill(os.getpid(), {int(number)})
    for _ in range(1000):
        pass

gone = weakref.ref(thing, arrived)
try:
    with raising():
        del thing
        time.sleep(60)
except (Interrupted, KeyboardInterrupt) as stop:
    assert calls
    sys.exit(Interrupted.of(stop).exit_status)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=50, check=False
    )
    assert (done.returncode, done.stderr) == (status, "")
