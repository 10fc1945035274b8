"""What `-v` and `--debug` receive: one record per attempt, without secrets."""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from rebyte_cli import RebyteClient
from rebyte_cli.api.body import Request as Sent
from rebyte_cli.api.log import HIDDEN, LONGEST_BODY, CallLog, Redactor
from rebyte_cli.api.retry import RetryPolicy
from rebyte_cli.errors import APIError, RebyteError
from tests.conftest import need_tool
from tests.servers import (
    KEY,
    RawServer,
    Request,
    error_reply,
    json_reply,
    reply,
    reset,
    stall,
    transport_to,
)

pytestmark = pytest.mark.usefixtures("home")


def test_each_attempt_is_one_record() -> None:
    told: list[CallLog] = []
    with RawServer([reset, reply(503), json_reply({"id": "a"})]) as server:
        RebyteClient(transport=transport_to(server, log=told.append)).get_task("a")
    seen = [(call.method, call.path, call.status, call.retry) for call in told]
    assert seen == [
        ("GET", "/tasks/a", None, 0),
        ("GET", "/tasks/a", 503, 1),
        ("GET", "/tasks/a", 200, 2),
    ]
    assert "closed the connection" in str(told[0].error)
    assert told[2].error is None
    assert 0 <= told[2].seconds < 60


def test_a_record_has_what_was_said() -> None:
    told: list[CallLog] = []
    with RawServer(json_reply({"id": "t1"}, 201, {"X-Request-Id": "r7"})) as server:
        RebyteClient(transport=transport_to(server, log=told.append)).create_task("Say hé")
    (call,) = told
    assert json.loads(str(call.request_body)) == {"prompt": "Say hé"}
    assert call.response_headers["X-Request-Id"] == "r7"
    assert call.response_body == '{"id": "t1"}'
    assert call.request_headers["API_KEY"] == "[hidden]"


def test_the_query_of_our_own_calls_is_shown() -> None:
    told: list[CallLog] = []
    with RawServer(json_reply({"data": []})) as server:
        RebyteClient(transport=transport_to(server, log=told.append)).list_tasks(5)
    assert told[0].path == "/tasks?limit=5&offset=0"


def test_a_key_that_was_pasted_as_an_id_is_hidden() -> None:
    told: list[CallLog] = []
    with RawServer(error_reply(404, "not_found", "No such task")) as server:
        client = RebyteClient(transport=transport_to(server, log=told.append))
        for pasted in (KEY, "rbk_of_another_account"):
            with pytest.raises(APIError):
                client.get_task(pasted)
    assert [call.path for call in told] == ["/tasks/[hidden]", "/tasks/rbk_…"]


def test_the_curl_line_does_the_same(tmp_path: Path) -> None:
    curl = need_tool("curl")
    told: list[CallLog] = []
    with RawServer(json_reply({"id": "t1", "data": []}, 201)) as server:
        client = RebyteClient(transport=transport_to(server, log=told.append))
        client.create_task('it\'s $(touch planted) "quoted"\n')
        client.list_tasks(1)
        for call in told:
            line = str(call.curl)
            assert KEY not in line
            assert "$REBYTE_API_KEY" in line
            subprocess.run(
                ["sh", "-c", line.replace("curl", f"{curl} -s --noproxy '*'", 1)],
                env={**os.environ, "REBYTE_API_KEY": KEY},
                cwd=tmp_path,
                check=True,
                timeout=20,
            )
    first, second, third, fourth = server.requests
    for ours, theirs in ((first, third), (second, fourth)):
        assert (ours.method, ours.path, ours.body) == (theirs.method, theirs.path, theirs.body)
        for name in ("api_key", "accept", "content-type"):
            assert ours.headers.get(name) == theirs.headers.get(name)
    assert list(tmp_path.glob("planted")) == []


class Leaky:
    """An API that tells secrets in every way, and echoes the key back."""

    def __call__(self, request: Request) -> Any:
        if request.method == "PUT":
            return reply(403, f"<Error>{request.path}</Error>")
        url = f"http://{request.headers['host']}/b?k=v&X-Signature=SIGNATURE"
        if request.path.endswith("/files"):
            slot = {"id": "f1", "filename": "a", "uploadUrl": url}
            return json_reply(slot, 201, {"Set-Cookie": "session=COOKIE"})
        if request.path.endswith("/agent-computers/c1"):
            body = '{"id": "c1", "sandboxApiKey" : "SANDBOX\\"SECRET", "url": '
            return reply(
                200, body + json.dumps(url).replace("/", "\\/").replace("&", "\\u0026") + "}"
            )
        return error_reply(400, KEY, f"bad key {request.headers['api_key']}")


CALL_FIELDS = (
    "method", "path", "status", "seconds", "retry", "error", "request_headers", "request_body",
    "response_headers", "response_body", "curl",
)  # fmt: skip
SECRETS = (KEY, "SIGNATURE", "COOKIE", "SANDBOX", "SECRET", "hook-secret")


def test_case_15_nothing_secret_is_told(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"x")
    told: list[CallLog] = []
    errors: list[RebyteError] = []
    with RawServer(Leaky()) as server:
        client = RebyteClient(transport=transport_to(server, log=told.append))
        client.get_computer("c1")
        for act in (
            lambda: client.upload_file(path),
            lambda: client.get_task("a"),
            lambda: client.create_task("x"),
            lambda: client.create_webhook("https://h", ["task.completed"], secret="hook-secret"),
        ):
            with pytest.raises(APIError) as caught:
                act()
            errors.append(caught.value)
    shown = [f"{error}{error!r}{error.as_dict()}{error.response}" for error in errors]  # type: ignore[attr-defined]  # they are APIErrors
    shown += [str([getattr(call, name) for name in CALL_FIELDS]) for call in told]
    assert len(told) == 8
    for text in shown:
        for secret in SECRETS:
            assert secret not in text


def test_case_15_no_key_of_another_service_is_told() -> None:
    """A prompt may hold one, and so may what an agent says."""
    told: list[CallLog] = []
    other = "ghp_0123456789abcdefABCDEF"
    with RawServer(json_reply({"id": "t1", "title": f"Use {other}"}, 201)) as server:
        RebyteClient(transport=transport_to(server, log=told.append)).create_task(f"Use {other}")
    (call,) = told
    shown = [call.request_body, call.response_body, call.curl]
    assert not [text for text in shown if other in str(text)]
    assert all("ghp_…" in str(text) for text in shown)


@pytest.mark.slow
def test_case_15_no_fault_tells_the_key_even_in_a_traceback(tmp_path: Path) -> None:
    # A separate process, so that the traceback is the one that Python prints.
    import sys

    script = """
import sys
from rebyte_cli.api.transport import Transport
from rebyte_cli.api.retry import RetryPolicy
url, key = sys.argv[1:]
Transport(url, key, timeout=0.3).send("GET", "/tasks", repeat=RetryPolicy.SAFE)
"""
    for answer in (reset, stall, reply(200, "<html>"), error_reply(400, "x", f"key {KEY}")):
        with RawServer(lambda request, answer=answer: answer) as server:  # type: ignore[misc]  # a default argument binds it
            done = subprocess.run(
                [sys.executable, "-c", script, server.base_url, KEY],
                capture_output=True,
                text=True,
                check=False,
                timeout=60,
            )
        assert done.returncode == 1
        assert "Traceback" in done.stderr
        assert KEY not in done.stderr


def test_a_header_that_cannot_be_parsed_prints_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    with RawServer(b"HTTP/1.1 200 X\r\nContent-Length: 2\r\nno colon\r\n\r\n{}") as server:
        transport_to(server).raw("GET", "/tasks/a", repeat=RetryPolicy.SAFE)
    assert capfd.readouterr() == ("", "")


LEAKS = [
    "HTTPS://store/x?sig=SIGNATURE", "see //store/x?sig=SIGNATURE now", "(https://store/?SIGNATURE)",
    "'https://store/x?a='SIGNATURE'", '"https://store/x?a=\\"SIGNATURE\\""', "ftp://u:SIGNATURE@h/",
    "https://u:SIGNATURE@h/x?a", "https:\\/\\/store\\/x?sig=SIGNATURE\\u0026b",
    "https://a/b https://c/d?SIGNATURE",
    "https://store/s/SIGNATURE0123456789ab/file.txt", "https://store/sig=SIGNATURE0123456789ab/a",
    "https:\\/\\/store\\/SIGNATURE0123456789ab\\/x", "//store/x/SIGNATURE0123456789ab",
    "https://store/SIGNATURE0123456789ab",
]  # fmt: skip


@pytest.mark.parametrize("text", LEAKS)
def test_case_65_a_signature_is_hidden_however_its_url_is_written(text: str) -> None:
    shown = Redactor().text(text)
    assert "SIGNATURE" not in shown
    assert HIDDEN in shown


def test_case_65_a_path_without_a_signature_is_shown() -> None:
    """Ids are UUIDs; a name is not as long, or has no digits."""
    for text in (
        "https://app.example/run/2d645376-bdaa-4fca-a509-017bb6a75c3c/files/a-long-name-of-a-file.txt",
        "https://github.com/an-organisation-name/a-repository.git",
    ):
        assert Redactor().text(text) == text


@pytest.mark.parametrize("fault", [503, 403, 301, 0])
def test_case_65_a_signature_in_a_path_is_told_nowhere(tmp_path: Path, fault: int) -> None:
    """Not by `-v`, by `--debug`, by the line for curl, or by an error."""
    path = tmp_path / "a"
    path.write_bytes(b"x")
    told: list[CallLog] = []
    signature = "c2lnbmF0dXJl0123456789-_abc"

    def answer(request: Request) -> Any:
        if request.method == "PUT":
            return reply(fault, f"<Error>{request.path} is busy</Error>") if fault else reset
        url = f"http://{request.headers['host']}/signed/{signature}/a"
        return json_reply({"id": "f1", "filename": "a", "uploadUrl": url}, 201)

    with RawServer(answer) as server:
        client = RebyteClient(transport=transport_to(server, log=told.append))
        with pytest.raises(APIError) as caught:
            client.upload_file(path)
    assert {call.method for call in told} == {"POST", "PUT"}
    shown = [str([getattr(call, name) for name in CALL_FIELDS]) for call in told]
    for text in (*shown, str(caught.value), str(caught.value.hint)):
        assert signature not in text


@pytest.mark.parametrize("name", ["Location", "content-location", "Link", "Refresh"])
def test_case_65_a_header_with_a_url_shows_no_query(name: str) -> None:
    shown = Redactor().headers({name: "/x?sig=SIGNATURE&a=b"})
    assert shown == {name: "/x?" + HIDDEN}


@pytest.mark.parametrize(
    "piece",
    ["http://", "//", "?", "https://a?", r"\/\/", "@", '"apiKey" ', '"secret":"', "\\", "//a/b1="],
)
def test_case_65_hiding_takes_linear_time(piece: str) -> None:
    def seconds(size: int) -> float:
        text = piece * (size // len(piece))
        begun = time.thread_time()
        Redactor("rbk_some_key").text(text)
        return time.thread_time() - begun

    # One of five: a busy machine takes its caches away.
    assert any(seconds(1 << 17) < max(12 * seconds(1 << 15), 0.1) for _ in range(5))


def test_v_looks_at_no_body() -> None:
    """What `-v` shows is there without a look at what was sent or came."""

    class Body(bytes):
        def __getitem__(self, _key: Any) -> Any:
            raise AssertionError("it was looked at")

        decode = __getitem__

    request = Sent("POST", "/tasks", "https://h/v1/tasks", headers={"API_KEY": KEY},
                   body=Body(b"x"), repeat=RetryPolicy.SAFE, seconds=1)  # fmt: skip
    call = CallLog(request, 0, 0.0, Redactor(KEY))
    call.body, call.seconds = Body(b"y"), 1.5
    assert [getattr(call, name) for name in CALL_FIELDS[:6]] == [
        "POST",
        "/tasks",
        None,
        1.5,
        0,
        None,
    ]
    with pytest.raises(AssertionError):
        _ = call.response_body


def test_a_long_body_is_shown_in_part() -> None:
    shown = str(Redactor().body(b"x" * (LONGEST_BODY + 7)))
    assert shown.endswith("x\n(7 more bytes)")
