"""`rebyte api GET /tasks/ID/events`: an event stream is passed on as it comes."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Callable
from typing import Any

import pexpect
import pytest

from tests.conftest import COMMAND, Done
from tests.servers import KEY, RawServer, drip, error_reply, reply, then_close, then_stall

Run = Callable[..., Done]
Aim = Callable[[Any], Any]
PATH = "/tasks/abcd1234/events"
HEAD = b"HTTP/1.1 200 X\r\nContent-Type: text/event-stream; charset=utf-8\r\n\r\n"
EVENT = b'data: {"seq": 0}\n\n'


@pytest.fixture
def key(monkeypatch: pytest.MonkeyPatch, home: Any) -> Callable[[RawServer], None]:
    """The environment of a command that talks to a server."""
    del home

    def point(server: RawServer) -> None:
        monkeypatch.setenv("REBYTE_API_URL", server.base_url)
        monkeypatch.setenv("REBYTE_API_KEY", KEY)

    return point


def test_what_has_come_is_out_before_the_end_and_ctrl_c_ends_it(key: Any) -> None:
    with RawServer(then_stall(HEAD + EVENT)) as server:
        key(server)
        command = [*COMMAND, "api", "GET", PATH, "-i"]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            shown = [process.stdout.readline() for _ in range(4)]
            process.send_signal(signal.SIGINT)
            assert process.wait(10) == 130
    assert shown[0] == b"HTTP/1.1 200 OK\n"
    assert shown[-1] == EVENT[:-1]
    assert "text/event-stream" in server.requests[0].headers["accept"]


def test_control_characters_are_visible_on_a_terminal_alone(
    key: Any, inside: Run, aim: Aim
) -> None:
    hostile = 'data: {"a": "\x1b]0;pwned\x07é"}\n\n'.encode()
    with RawServer(then_close(HEAD + hostile)) as server:
        aim(server)
        assert inside("api", "GET", PATH).out.encode() == hostile
        child = pexpect.spawn(COMMAND[0], [*COMMAND[1:], "api", "GET", PATH], timeout=20)
        shown = child.read().decode()
        child.close()
    assert child.exitstatus == 0
    assert '{"a": "\\x1b]0;pwned\\x07é"}' in shown
    assert "\x1b]0" not in shown


def test_it_may_take_longer_than_a_call_but_not_be_silent_for_so_long(
    inside: Run, aim: Aim, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REBYTE_REQUEST_TIMEOUT", "0.6")

    def slowly(line: Any) -> None:
        line.send(HEAD)
        drip(EVENT * 5, 0.25, size=len(EVENT))(line)
        line.wait()

    with RawServer(lambda _request: slowly) as server:
        aim(server)
        done = inside("api", "GET", PATH)
    assert done.status == 5
    assert done.out.encode() == EVENT * 5
    assert "nothing came for 0.6 s" in done.err


def test_one_that_breaks_off_is_a_fault_and_a_refusal_is_none_of_it(inside: Run, aim: Aim) -> None:
    cut = HEAD.replace(b"\r\n\r\n", b"\r\nTransfer-Encoding: chunked\r\n\r\n")
    cut += b"%x\r\n%s\r\n" % (len(EVENT), EVENT)
    with RawServer(then_close(cut)) as server:
        aim(server)
        done = inside("api", "GET", PATH)
        assert (done.status, done.out.encode()) == (5, EVENT)
    with RawServer(error_reply(404, "not_found", "No")) as server:
        aim(server)
        done = inside("api", "GET", PATH)
        assert (done.status, done.json["error"]["code"]) == (4, "not_found")


def test_with_paginate_or_head_it_is_no_stream(inside: Run, aim: Aim) -> None:
    kind = {"Content-Type": "text/event-stream"}
    with RawServer(reply(200, EVENT, kind)) as server:
        aim(server)
        assert inside("api", "GET", PATH, "--paginate").status == 5
    with RawServer(reply(200, b"", kind)) as server:
        aim(server)
        assert inside("api", "HEAD", PATH).status == 0


def test_the_local_service_streams_a_run(inside_local: Run) -> None:
    task = inside_local("create", "Say hello [[run=300ms]] [[events=4]]", "-o", "id").out.strip()
    done = inside_local("api", "GET", f"/tasks/{task}/events")
    assert done.status == 0
    events = [json.loads(line[5:]) for line in done.out.splitlines() if line.startswith("data:")]
    assert [event["seq"] for event in events[:-1]] == [0, 1, 2, 3]
