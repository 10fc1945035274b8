"""`rebyte api`: any endpoint, the body as it came."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pexpect
import pytest

from tests.conftest import COMMAND, Done
from tests.servers import (
    KEY,
    RawServer,
    drip,
    error_reply,
    json_reply,
    reply,
    then_close,
    then_stall,
)
from tests.waiting import with_time

Run = Callable[..., Done]


Aim = Callable[[Any], Any]


def test_the_body_comes_out_as_it_came(inside: Run, aim: Aim) -> None:
    body = '{"b" : 1,\n "a":"\\u001b[2J"}'
    with RawServer(reply(200, body, {"Content-Type": "application/json"})) as server:
        aim(server)
        done = inside("api", "GET", "/odd/path", "--query", "q=a b&c", "--query", "q=2")
    assert (done.status, done.out, done.err) == (0, body + "\n", "")
    assert server.requests[0].path == "/v1/odd/path?q=a+b%26c&q=2"
    assert server.requests[0].headers["api_key"] == KEY


def test_the_method_is_get_and_post_with_a_body(inside_local: Run) -> None:
    made = inside_local("api", "/tasks", "-d", '{"prompt": "Say hello"}')
    assert made.json["status"] == "running"
    assert inside_local("api", "/tasks").json["total"] == 1


@pytest.mark.parametrize("words", [(), ("GET",), ("post", "-d", "{}")])
def test_a_path_is_required(inside: Run, words: tuple[str, ...]) -> None:
    done = inside("api", *words)
    assert done.status == 2
    assert "missing argument: PATH" in done.err
    assert "`rebyte api /tasks`" in done.err


@pytest.mark.parametrize("path", ["/tasks?limit=1", "tasks?limit=1", "/v1/tasks?limit=1"])
def test_paths_as_people_write_them(inside_local: Run, path: str) -> None:
    assert inside_local("api", "get", path).json["limit"] == 1


@pytest.mark.parametrize(
    "path",
    ["https://evil.example/x", "http://127.0.0.1/x", "//evil.example/x", "/../x", "/a/%2E%2e/x",
     "/a/./b", "/a\\b", "/a b", "/a\tb", "/a#b", "/a/..%2fb", "/a%2F%2e%2E"],
)  # fmt: skip
def test_a_path_never_leads_elsewhere(inside: Run, aim: Aim, path: str) -> None:
    with RawServer(json_reply({})) as server:
        aim(server)
        assert inside("api", "GET", path).status == 2
    assert server.requests == []


@pytest.mark.parametrize(
    ("status", "exit_status"),
    [(400, 1), (401, 3), (403, 3), (404, 4), (409, 1), (410, 4), (422, 1), (302, 5), (500, 5)],
)
def test_a_refusal_is_printed_and_told(
    inside: Run, aim: Aim, status: int, exit_status: int
) -> None:
    with RawServer(error_reply(status, "some_code", "Said by the server")) as server:
        aim(server)
        done = inside("api", "GET", "/tasks/x")
    assert done.status == exit_status
    assert done.json == {"error": {"code": "some_code", "message": "Said by the server"}}
    assert json.loads(done.err)["error"]["status"] == status


def test_data_comes_from_the_argument_a_file_or_stdin(inside: Run, aim: Aim, home: Path) -> None:
    (home / "body.json").write_text('\ufeff{"from": "file"}')
    with RawServer(json_reply({})) as server:
        aim(server)
        inside("api", "POST", "/x", "-d", '{"from": "argument"}')
        inside("api", "POST", "/x", "-d", "@body.json")
        inside("api", "POST", "/x", "-d", "-", stdin='{"from": "stdin"}')
        inside("api", "POST", "/x")
    *with_data, without = server.requests
    assert [request.json["from"] for request in with_data] == ["argument", "file", "stdin"]
    assert with_data[0].headers["content-type"] == "application/json"
    assert without.body == b""
    assert "content-type" not in without.headers


@pytest.mark.parametrize(
    ("data", "status"),
    [("{", 2), ("", 2), ("{'a': 1}", 2), ("@missing.json", 4), ("@.", 2), ("[" * 100_000, 2)],
)
def test_data_is_looked_at_before_it_is_sent(inside: Run, aim: Aim, data: str, status: int) -> None:
    with RawServer(json_reply({})) as server:
        aim(server)
        assert inside("api", "POST", "/x", "-d", data).status == status
    assert server.requests == []


def test_get_is_tried_again_and_post_is_not(inside: Run, aim: Aim) -> None:
    with RawServer([reply(503), json_reply({"a": 1})]) as server:
        aim(server)
        assert inside("api", "GET", "/x").json == {"a": 1}
        assert len(server.requests) == 2
    for method in ("POST", "PATCH"):
        with RawServer([reply(503), json_reply({"a": 1})]) as server:
            aim(server)
            done = inside("api", method, "/x", "-d", "{}")
            assert done.status == 6
            assert len(server.requests) == 1


def test_include_shows_status_and_headers(inside: Run, aim: Aim) -> None:
    with RawServer(json_reply({"a": 1}, 201, {"X-Odd": "a\x1b[2Jb"})) as server:
        aim(server)
        done = inside("api", "POST", "/x", "-i")
    head, _, body = done.out.partition("\n\n")
    assert head.startswith("HTTP/1.1 201 Created\n")
    assert "X-Odd: " in head
    assert json.loads(body) == {"a": 1}


def test_on_a_terminal_nothing_of_the_server_is_raw(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = b'{"a": "\x1b]0;pwned\x07", "b": "\xc2\x9b2J", "c": "\xff"}'
    with RawServer(reply(200, text, {"X-Odd": "\x1b[2J"})) as server:
        monkeypatch.setenv("REBYTE_API_URL", server.base_url)
        monkeypatch.setenv("REBYTE_API_KEY", KEY)
        child = pexpect.spawn(COMMAND[0], [*COMMAND[1:], "api", "GET", "/x", "-i"], timeout=60)
        shown = child.read().decode()
        child.wait()
        child.close()
    assert child.exitstatus == 0
    assert "\\x1b]0;pwned\\x07" in shown
    assert "\x1b]0" not in shown
    assert "\x9b" not in shown


def test_paginate_walks_every_page(inside_local: Run) -> None:
    for number in range(5):
        inside_local("create", f"{number} [[run=1ms]]")
    done = inside_local("api", "GET", "/tasks?limit=2", "--paginate")
    pages = done.documents
    assert [len(page["data"]) for page in pages] == [2, 2, 1]
    assert len({row["id"] for page in pages for row in page["data"]}) == 5
    assert len(inside_local("api", "GET", "/tasks", "--paginate").documents) == 1
    assert inside_local("api", "POST", "/tasks", "--paginate").status == 2


def test_paginate_takes_a_list_without_pages_as_one(
    inside_local: Run, inside: Run, aim: Aim
) -> None:
    inside_local("workspace", "create")
    for path, name in (("/agent-computers", "data"), ("/webhooks", "webhooks")):
        done = inside_local("api", "GET", path, "--paginate")
        assert (done.status, len(done.documents)) == (0, 1), path
        assert name in done.json
    with RawServer(json_reply([{"id": "a"}])) as server:
        aim(server)
        assert inside("api", "GET", "/x", "--paginate").status == 0
    assert inside_local("api", "GET", "/billing/credits", "--paginate").status == 5


def test_paginate_does_not_go_on_for_ever(inside: Run, aim: Aim) -> None:
    with RawServer(json_reply({"data": [{"id": n} for n in range(100)]})) as server:
        aim(server)
        done = inside("api", "GET", "/x", "--paginate")
    assert done.status == 5
    assert "twice" in done.err
    assert len(server.requests) == 2


def test_a_path_that_git_bash_rewrote_is_explained(inside: Run) -> None:
    done = inside("api", "C:/Program Files/Git/tasks")
    assert done.status == 2
    assert "Leave out the first slash: rebyte api tasks" in done.err


def test_a_mistyped_method_is_answered_with_the_nearest(inside: Run) -> None:
    done = inside("api", "GTE", "/tasks")
    assert done.status == 2
    assert "GET" in json.loads(done.err)["error"]["hint"]


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


def test_a_stream_is_printed_as_it_comes_and_ctrl_c_ends_it(key: Any) -> None:
    with RawServer(then_stall(HEAD + EVENT)) as server:
        key(server)
        command = [*COMMAND, "api", "GET", PATH, "-i"]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            shown = [process.stdout.readline() for _ in range(4)]
            process.send_signal(signal.SIGINT)
            assert process.wait(60) == 130
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
        child = pexpect.spawn(COMMAND[0], [*COMMAND[1:], "api", "GET", PATH], timeout=60)
        shown = child.read().decode()
        child.wait()
        child.close()
    assert child.exitstatus == 0
    assert '{"a": "\\x1b]0;pwned\\x07é"}' in shown
    assert "\x1b]0" not in shown


def test_a_stream_may_last_but_not_stay_silent(
    inside: Run, aim: Aim, monkeypatch: pytest.MonkeyPatch
) -> None:
    def check(limit: float) -> None:
        def slowly(line: Any) -> None:
            line.send(HEAD)
            drip(EVENT * 5, 0.4 * limit, size=len(EVENT))(line)
            line.wait()

        monkeypatch.setenv("REBYTE_REQUEST_TIMEOUT", str(limit))
        with RawServer(lambda _request: slowly) as server:
            aim(server)
            done = inside("api", "GET", PATH)
        assert done.status == 5
        assert done.out.encode() == EVENT * 5
        assert f"nothing came for {limit:g} s" in done.err

    with_time(check)


def test_a_stream_that_breaks_off_is_a_fault(inside: Run, aim: Aim) -> None:
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
