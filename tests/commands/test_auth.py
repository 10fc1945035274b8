"""`rebyte auth`: the key on its way in, and what is said of it."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from uuid import uuid4

import pexpect
import pytest

from ..conftest import COMMAND, Done
from ..servers import RawServer, error_reply
from ..waiting import eventually

Rebyte = Callable[..., Done]
KEY = "rbk_0123456789abcdef"
FILE = "file credentials.json"


@pytest.fixture
def rebyte(inside: Rebyte) -> Rebyte:
    """The command, without a process for each call."""
    return inside


@pytest.fixture
def other() -> Iterator[Any]:
    """Another service, which records every header that it receives."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            server.seen.append(str(self.headers))  # type: ignore[attr-defined] # set below
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b'{"data": [], "total": 0, "limit": 1, "offset": 0}')

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.seen = []  # type: ignore[attr-defined] # read by the test
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def login(rebyte: Rebyte, *options: str, key: str | bytes = KEY, **rest: Any) -> Done:
    return rebyte(*options, "auth", "login", "--with-key", "--insecure-storage", stdin=key, **rest)


@pytest.mark.parametrize("end", ["\r\n", " \n\n"])
def test_case_12_what_trails_a_key_is_trimmed(rebyte: Rebyte, url: str, end: str) -> None:
    done = login(rebyte, key=KEY + end)
    assert (done.status, done.json["accepted"]) == (0, True)
    assert rebyte("list").status == 0


@pytest.mark.parametrize(
    "key", ["rbk_first\nrbk_second", "rbk_first second", "rbk_firsté", b"rbk_first\xff", "", "\n"]
)
def test_case_13_a_key_that_cannot_be_sent_is_refused(
    rebyte: Rebyte, url: str, home: Path, key: str | bytes
) -> None:
    done = login(rebyte, key=key)
    assert (done.status, done.out) == (3, "")
    assert "first" not in done.err
    assert "second" not in done.err
    assert not (home / ".config" / "rebyte" / "credentials.json").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_case_14_a_key_typed_at_a_terminal_is_neither_shown_nor_on_a_command_line(
    url: str, home: Path
) -> None:
    import pexpect

    key = f"rbk_{uuid4().hex}"  # on the command line of no other test that runs now

    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    child = pexpect.spawn(
        COMMAND[0],
        [*COMMAND[1:], "auth", "login", "--insecure-storage"],
        env=environment,
        cwd=str(home),
        encoding="utf-8",
        timeout=60,
    )
    child.expect_exact("API key: ")
    child.waitnoecho(timeout=60)
    assert not child.getecho()
    child.send(key[:20])
    lines = b"".join(map(_command_line, Path("/proc").glob("[0-9]*/cmdline")))
    assert b"--insecure-storage" in lines
    assert key[:20].encode() not in lines
    child.sendline(key[20:])
    child.expect(pexpect.EOF)
    child.wait()
    child.close()
    shown = str(child.before)
    assert (child.exitstatus, f"…{key[-4:]}" in shown) == (0, True)
    assert key not in shown
    assert key[:20] not in shown


def _command_line(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # it ended meanwhile
        return b""


def test_an_interrupt_at_the_question_is_130_and_stores_nothing(url: str, home: Path) -> None:
    import pexpect

    child = pexpect.spawn(
        COMMAND[0],
        [*COMMAND[1:], "auth", "login", "--insecure-storage"],
        env=dict(os.environ),
        timeout=60,
    )
    child.expect_exact("API key: ")
    child.waitnoecho(timeout=60)
    assert not child.getecho()
    child.sendintr()
    child.expect(pexpect.EOF)
    child.wait()
    child.close()
    assert child.exitstatus == 130
    assert not (home / ".config" / "rebyte" / "credentials.json").exists()


def test_a_key_is_not_an_argument(rebyte: Rebyte, url: str) -> None:
    assert rebyte("auth", "login", KEY).status == 2
    assert rebyte("auth", "login", "--with-key", KEY).status == 2


def test_login_does_not_ask_without_a_terminal(rebyte: Rebyte, url: str) -> None:
    done = rebyte("auth", "login", "--insecure-storage", stdin=KEY)
    assert done.status == 2
    assert "--with-key" in done.err


def test_a_rejected_key_is_not_stored(rebyte: Rebyte, url: str, home: Path) -> None:
    done = login(rebyte, key="rbk_invalid")
    assert (done.status, done.out) == (3, "")
    assert json.loads(done.err)["error"]["code"] == "invalid_api_key"
    assert not (home / ".config" / "rebyte" / "credentials.json").exists()


def test_a_service_that_cannot_be_reached_stores_nothing(rebyte: Rebyte, home: Path) -> None:
    unreachable = {"REBYTE_API_URL": "http://127.0.0.1:1/v1", "REBYTE_REQUEST_TIMEOUT": "1"}
    assert login(rebyte, env=unreachable).status == 5
    assert not (home / ".config" / "rebyte" / "credentials.json").exists()


def test_status_tells_the_source_and_never_the_key(rebyte: Rebyte, url: str) -> None:
    stored = login(rebyte)
    done = rebyte("auth", "status")
    assert json.loads(stored.out)["source"] == json.loads(done.out)["source"]
    assert done.status == 0
    assert done.json == {
        "profile": "default",
        "baseUrl": url,
        "origin": url.removesuffix("/v1"),
        "source": FILE,
        "keyEnding": "…cdef",
        "accepted": True,
        "error": None,
    }
    table = rebyte("auth", "status", "-o", "table")
    assert FILE in table.out
    assert KEY not in done.out + done.err + table.out + table.err


def test_status_of_a_rejected_key_is_3_with_the_record_on_stdout(rebyte: Rebyte, url: str) -> None:
    done = rebyte("auth", "status", env={"REBYTE_API_KEY": "rbk_invalid"})
    assert done.status == 3
    assert (done.json["source"], done.json["accepted"]) == ("REBYTE_API_KEY", False)
    assert done.json["error"]["code"] == "invalid_api_key"
    assert json.loads(done.err)["error"]["exit"] == 3


def test_status_says_a_problem_once(rebyte: Rebyte, url: str) -> None:
    done = rebyte("auth", "status", "-o", "table", env={"REBYTE_API_KEY": "rbk_invalid"})
    problem = done.err.splitlines()[0].removeprefix("Error: ")
    assert (done.out + done.err).count(problem) == 1
    listed = rebyte("auth", "status", "-o", "table", "--fields", "error")
    assert listed.out.startswith("Error  ")


def test_status_without_a_key(rebyte: Rebyte, home: Path) -> None:
    done = rebyte("auth", "status")
    assert done.status == 3
    assert (done.json["source"], done.json["accepted"]) == (None, None)
    assert done.json["error"]["code"] == "missing_key"


def test_status_when_the_service_is_away(rebyte: Rebyte, home: Path) -> None:
    away = {"REBYTE_API_URL": "http://127.0.0.1:1/v1", "REBYTE_REQUEST_TIMEOUT": "1"}
    done = rebyte("auth", "status", env={**away, "REBYTE_API_KEY": KEY})
    assert (done.status, done.json["accepted"]) == (5, None)


def test_status_of_local(rebyte: Rebyte) -> None:
    done = rebyte("-P", "local", "auth", "status")
    assert (done.status, done.json["source"], done.json["accepted"]) == (0, "built in", True)


def test_login_says_when_the_key_will_not_be_used(rebyte: Rebyte, url: str) -> None:
    done = login(rebyte, env={"REBYTE_API_KEY": "rbk_other"})
    assert done.status == 0
    assert "the key comes from REBYTE_API_KEY" in done.err
    done = rebyte("auth", "logout", env={"REBYTE_API_KEY": "rbk_other"})
    assert "REBYTE_API_KEY is still set" in done.err


def test_case_11_a_base_url_that_moved_takes_no_key_along(
    rebyte: Rebyte, url: str, other: Any
) -> None:
    rebyte("profile", "create", "work", f"base_url={url}")
    login(rebyte, "-P", "work")
    assert rebyte("-P", "work", "list").status == 0
    there = f"http://127.0.0.1:{other.server_port}"
    moved = rebyte("profile", "set", "work", f"base_url={there}/v1")
    assert f"is not sent to {there}" in moved.err
    done = rebyte("-P", "work", "list", env={"REBYTE_API_KEY": "rbk_variable"})
    assert (done.status, other.seen) == (3, [])
    # The server is one that a key can be stored for: then it gets that one.
    login(rebyte, "-P", "work", key="rbk_its_own")
    assert rebyte("-P", "work", "list").status == 0
    assert all("rbk_its_own" in headers for headers in other.seen)
    assert KEY not in "".join(other.seen)
    logout = rebyte("-P", "work", "auth", "logout")
    assert logout.err.count("Removed the key of profile work") == 2


def test_local_needs_no_key(rebyte: Rebyte) -> None:
    done = rebyte("-P", "local", "auth", "login", "--with-key", stdin=KEY)
    assert done.status == 2
    assert "needs no key" in done.err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_case_69_a_login_that_is_cut_short_leaves_the_echo_on(
    rebyte: Rebyte, home: Path, url: str, number: int
) -> None:
    command = [*COMMAND[1:], "auth", "login", "--insecure-storage"]
    child = pexpect.spawn(COMMAND[0], command, env=dict(os.environ), timeout=60)
    child.expect_exact("API key: ")
    assert child.waitnoecho(60)

    def has_ended() -> bool:
        """Python misses a signal between its last look and the read that waits: press again."""
        child.kill(number)
        return child.expect([pexpect.EOF, pexpect.TIMEOUT], timeout=6) == 0

    eventually(has_ended, seconds=60)
    assert child.getecho()
    child.wait()
    child.close()
    assert child.exitstatus == 128 + number


@pytest.mark.parametrize("words", ["list", "get t1", "auth status", "doctor"])
def test_the_hint_for_a_rejected_key_fits_where_it_came_from(
    rebyte: Rebyte,
    home: Path,
    aim: Callable[[Any], Any],
    monkeypatch: pytest.MonkeyPatch,
    words: str,
) -> None:
    """`auth login` replaces a stored key; REBYTE_API_KEY and a key_command would override it."""
    with RawServer(error_reply(401, "invalid_api_key", "Invalid API key")) as server:
        aim(server)
        monkeypatch.setenv("REBYTE_API_KEY", KEY)

        def output(*options: str) -> str:
            done = rebyte(*options, *words.split())
            assert done.status in (1, 3)
            return done.out + done.err

        variable = output()
        assert "auth login" not in variable
        assert "Set REBYTE_API_KEY to another key, or unset it; create a key at" in variable
        url = f"base_url={server.base_url}"
        rebyte("profile", "create", "work", url, f"key_command=echo {KEY}")
        command = output("-P", "work")
        assert "auth login" not in command
        assert "It comes from key_command of profile work: change it there" in command
        rebyte("profile", "create", "stored", url)
        keys = {"stored": {server.base_url.removesuffix("/v1"): {"store": "file", "key": KEY}}}
        stored = home / ".config/rebyte/credentials.json"
        stored.write_text(json.dumps({"keys": keys}))
        stored.chmod(0o600)
        assert "`rebyte -P stored auth login`" in output("-P", "stored")


def test_a_typed_key_that_is_rejected_is_not_to_be_typed_again(
    rebyte: Rebyte, aim: Callable[[Any], Any]
) -> None:
    with RawServer(error_reply(401, "invalid_api_key", "Invalid API key")) as server:
        aim(server)
        done = login(rebyte)
    assert done.status == 3
    assert "create a key at https://" in done.err
    assert "auth login" not in done.err
