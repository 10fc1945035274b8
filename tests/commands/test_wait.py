"""`rebyte wait --exec` and `--notify`: what happens when a task ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rebyte_cli.tasks.hook import HookCommand
from tests.conftest import COMMAND, Done
from tests.terminals import Session
from tests.waiting import eventually, is_running, with_time

Run = Callable[..., Done]


def created(run: Run, prompt: str) -> str:
    done = run("create", prompt, "-o", "id")
    assert done.status == 0, done.err
    return done.out.strip()


def test_a_command_gets_each_ended_task_once(inside_local: Run, home: Path) -> None:
    good, bad = created(inside_local, "Good"), created(inside_local, "Bad [[fail]]")
    command = f"cat >> {home}/seen; echo printed"
    done = inside_local("wait", good, bad, good, "--exec", command, "-o", "json")
    assert done.status == 10
    assert {task["id"] for task in done.documents} == {good, bad}
    seen = [json.loads(line) for line in (home / "seen").read_text().splitlines()]
    assert {task["id"]: task["status"] for task in seen} == {good: "completed", bad: "failed"}
    assert len(seen) == 2


def test_the_end_of_the_time_limit_ranks_below_what_was_printed_before(
    inside_local: Run,
) -> None:
    bad = created(inside_local, "Bad [[fail]] [[run=1ms]]")
    slow = created(inside_local, "Slow [[run=1h]]")

    def check(limit: float) -> None:
        assert inside_local("wait", bad, slow, "--timeout", str(limit)).status == 10
        assert inside_local("wait", "nosuch99", slow, "--timeout", str(limit)).status == 4

    with_time(check, 0.1)


def test_the_hint_of_each_error_names_the_profile(inside_local: Run) -> None:
    """Without `-P local`, the suggested command would act on another account."""
    done = inside_local("-P", "local", "get", "0123abcd-nosuch", "4567abcd-nosuch")
    lines = [line for line in done.err.splitlines() if line.startswith("{")]
    errors = [json.loads(line)["error"] for line in lines]
    assert [error["hint"] for error in errors] == ["See `rebyte -P local list`"] * 2


@pytest.mark.slow
def test_output_of_the_hook_is_not_data(local: Run, home: Path) -> None:
    good = created(local, "Good")
    done = local("wait", good, "--exec", "echo printed", "-o", "id")
    assert (done.status, done.out) == (0, f"{good}\n")
    assert "printed" in done.err


@pytest.mark.parametrize(
    ("command", "how"),
    [
        ("exit 3", "exited with status 3"),
        ("no-such-program-here", "exited with status 127"),
        ("kill -9 $$", "was killed by signal 9"),
    ],
)
def test_a_command_that_fails_is_reported_and_the_wait_continues(
    inside_local: Run, command: str, how: str
) -> None:
    one, two = created(inside_local, "One"), created(inside_local, "Two")
    done = inside_local("wait", one, two, "--exec", command, "-o", "json")
    assert done.status == 1
    assert {task["id"] for task in done.documents} == {one, two}
    for task in (one, two):
        assert f"{command} {how} for task {task}" in done.err


def test_a_task_that_cannot_be_read_runs_no_command(inside_local: Run, home: Path) -> None:
    done = inside_local("wait", "nosuch99", "--exec", f"touch {home}/ran")
    assert done.status == 4
    assert not (home / "ran").exists()
    assert inside_local("wait", "nosuch99", "--exec", " ").status == 2


def test_an_interrupt_ends_the_command_too(service: Any, inside_local: Run, home: Path) -> None:
    good = created(inside_local, "Good")
    # The subshell keeps the child in the command's process group.
    command = f"(sleep 60 & echo $! > {home}/pid; wait); true"
    process = subprocess.Popen([*COMMAND, "wait", good, "--exec", command], stderr=subprocess.PIPE)
    eventually(lambda: (home / "pid").exists() and (home / "pid").read_text())
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130
    pid = int((home / "pid").read_text())
    eventually(lambda: not is_running(pid))


def test_the_time_limit_ends_the_command_and_what_it_started(
    service: Any, inside_local: Run, home: Path
) -> None:
    good = created(inside_local, "Good")
    command = f"(sleep 60 & echo $! > {home}/pid; wait); true"
    done = inside_local("wait", good, "--exec", command, "--timeout", "1.5", "-o", "id")
    assert (done.status, done.out) == (124, f"{good}\n")
    assert "was still running after 1.5 s" in done.err
    pid = int((home / "pid").read_text())
    eventually(lambda: not is_running(pid))


def test_an_interrupt_while_the_command_is_being_started_ends_it(tmp_path: Path) -> None:
    """A signal in the moment in which the process is there, and Python does not know it yet."""

    def interrupt(_frame: Any, event: str, called: Any) -> None:
        if event == "c_return" and called.__name__ == "fork_exec":
            os.kill(os.getpid(), signal.SIGINT)

    hook = HookCommand(f"echo $$ > {tmp_path}/made; mv {tmp_path}/made {tmp_path}/pid; sleep 60")
    threading.setprofile(interrupt)
    sys.setprofile(interrupt)
    try:
        with pytest.raises(KeyboardInterrupt):
            hook.run({})
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    time.sleep(0.3)  # a process that was not ended would have written by now
    pid = tmp_path / "pid"
    eventually(lambda: not pid.exists() or not is_running(int(pid.read_text())), what="its end")


def test_what_ignores_the_request_to_end_is_ended_too(tmp_path: Path) -> None:
    """Its shell obeys, and is gone long before."""
    script = f"trap '' TERM; echo $$ > {tmp_path}/made; mv {tmp_path}/made {tmp_path}/pid; sleep 60"
    (tmp_path / "stubborn").write_text(f"{script}; true\n")
    hook = HookCommand(f"sh {tmp_path}/stubborn & wait")
    run = threading.Thread(target=hook.run, args=({},))
    run.start()
    eventually((tmp_path / "pid").exists)
    hook.stop()
    run.join(60)
    eventually(lambda: not is_running(int((tmp_path / "pid").read_text())))


def on_a_terminal(*words: str, **environment: str) -> tuple[int, str]:
    session = Session([*COMMAND, *words], **environment)
    return session.finish(), session.raw


@pytest.mark.slow
def test_a_notice_says_how_the_wait_ended(inside_local: Run) -> None:
    good, bad = created(inside_local, "Say \x1b]0;hello"), created(inside_local, "Bad [[fail]]")
    slow = created(inside_local, "Slow [[run=1h]]")
    status, raw = on_a_terminal("wait", good, "--notify")
    assert status == 0
    assert raw.count("\a") == 1
    assert "\a\x1b]9;rebyte: Say \\x1b]0;hello: completed\x1b\\" in raw
    _, raw = on_a_terminal("wait", good, bad, "--notify", "-q")
    assert "rebyte: 1 completed, 1 failed\x1b\\" in raw or "rebyte: 1 failed, 1 completed" in raw

    def check(limit: float) -> None:
        status, raw = on_a_terminal("wait", slow, "--timeout", str(limit), "--notify")
        assert status == 124
        assert f"\x1b]9;rebyte: task {slow} is still running after {limit:g} s\x1b\\" in raw

    with_time(check, 0.3)
    status, raw = on_a_terminal("wait", good, "--notify", TERM="dumb")
    assert (raw.count("\a"), "\x1b]9" in raw) == (1, False)
    assert on_a_terminal("wait", good)[1].count("\a") == 0


@pytest.mark.slow
def test_a_create_that_waits_gives_a_notice_too(inside_local: Run) -> None:
    _, raw = on_a_terminal("create", "Say hello", "--wait", "--notify", TMUX="/tmp/tmux,1,0")
    assert "\a\x1bPtmux;\x1b\x1b]9;rebyte: Say hello: completed\x1b\x1b\\\x1b\\" in raw
    status, raw = on_a_terminal("follow-up", "@last", "Bad [[fail]]", "--stream", "--notify")
    assert (status, raw.count("\a")) == (10, 1)
    assert "\x1b]9;rebyte: Say hello: failed\x1b\\" in raw


def test_no_notice_where_there_is_no_terminal(inside_local: Run) -> None:
    good = created(inside_local, "Good")
    done = inside_local("wait", good, "--notify", "-o", "id")
    assert (done.out, "\a" in done.err) == (f"{good}\n", False)


def test_a_question_ends_the_wait_with_a_notice(inside_local: Run) -> None:
    asks = created(inside_local, "Ask [[ask]]")
    status, raw = on_a_terminal("wait", asks, "--notify", "--on-question", "stop")
    assert status == 12
    assert "waiting for an answer\x1b\\" in raw


def test_the_output_of_a_command_stays_below_the_spinner(inside_local: Run) -> None:
    good, slow = created(inside_local, "Good"), created(inside_local, "Slow [[run=2s]]")
    session = Session([*COMMAND, "wait", good, slow, "--exec", "echo one; sleep 0.5; echo two"])
    assert session.finish() == 0
    lines = session.everything
    assert lines.count("one") == lines.count("two") == 2
    assert [lines[at + 1] for at, line in enumerate(lines) if line == "one"] == ["two", "two"]


@pytest.mark.parametrize("words", ["--timeout 1m", "--notify", "--attempts 2"])
def test_an_option_about_the_wait_has_a_create_wait(inside_local: Run, words: str) -> None:
    done = inside_local("create", "Say hello", *words.split())
    assert done.json["status"] == "completed"
