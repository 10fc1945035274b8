"""What a status or an exception becomes: the class, the words, the hint, and whom it is about."""

from __future__ import annotations

import ssl
from typing import Any

import pytest

from rebyte_cli.api.failures import explain, lost, one_line, refusal
from rebyte_cli.errors import (
    APIError,
    KeyRejected,
    OutcomeUnknown,
    Redirected,
    ResourceNotFound,
    ServerFault,
)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (302, Redirected),
        (400, APIError),
        (401, KeyRejected),
        (403, KeyRejected),
        (404, ResourceNotFound),
        (409, APIError),
        (410, ResourceNotFound),
        (429, APIError),
        (499, APIError),
        (500, ServerFault),
        (599, ServerFault),
    ],
)
def test_each_status_has_its_class(status: int, kind: type[APIError]) -> None:
    error = refusal("GET", "/tasks/t1", status, None)
    assert type(error) is kind
    assert error.status_code == status
    assert str(status) in error.message
    assert type(refusal("POST", "/tasks", status, None, unknown=status >= 500)) in (
        kind,
        OutcomeUnknown,
    )


def test_a_rejected_key_says_what_to_do_about_it() -> None:
    assert "rebyte auth login" in str(refusal("GET", "/tasks/t1", 401, None).hint)
    reading, writing = (refusal(method, "/tasks/t1", 403, None).hint for method in ("GET", "POST"))
    assert "`tasks:read`" in str(reading)
    assert "allows changes" in str(writing)


@pytest.mark.parametrize("status", [404, 410])
def test_an_api_without_tasks_is_another_one(status: int) -> None:
    gone = refusal("GET", "/tasks", status, None)
    assert gone.message.startswith(f"this API has no /tasks ({status})")
    assert type(gone) is ResourceNotFound
    assert "this API has no" not in refusal("GET", "/tasks/t1", status, None).message
    page = refusal("POST", "/tasks", status, None, html=True)
    assert page.message.startswith(f"this API has no /tasks ({status})")


def test_a_create_may_name_what_does_not_exist() -> None:
    body = {"error": {"code": "not_found", "message": "Workspace not found"}}
    assert refusal("POST", "/tasks", 404, body).message == "Workspace not found"


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (410, "Gone"),
        (400, "The public API was retired; use /v1/sessions"),
        (403, "This API is no longer available"),
    ],
)
def test_an_api_that_was_retired_says_so(status: int, said: str) -> None:
    for method in ("GET", "POST"):
        gone = refusal(method, "/tasks", status, {"message": said})
        assert gone.message == (
            f"this API has no /tasks ({status}: {said}):"
            " the base URL is wrong or the API was retired"
        )
        assert "rebyte profile show" in str(gone.hint)
    if status != 410:
        assert (
            "this API has no" not in refusal("GET", "/tasks/t1", status, {"message": said}).message
        )


@pytest.mark.parametrize(
    ("path", "subject"),
    [
        ("/tasks/t1", "t1"),
        ("/tasks/t1/prompts/p1/events", "t1"),
        ("/workspaces/w1/artifacts", "w1"),
        ("/workspaces/w1/artifacts/a%20b.txt", "a b.txt"),
        ("/workspaces/w1/artifacts/a/b", "w1"),
        ("/workspaces/w1/other/x", "w1"),
        ("/agent-computers/c1", "c1"),
        ("/webhooks/h1", "h1"),
        ("/webhooks", None),
        ("/files", None),
        ("/billing/credits", None),
    ],
)
def test_an_error_knows_whom_it_is_about(path: str, subject: str | None) -> None:
    assert refusal("GET", path, 404, None).subject == subject
    assert refusal("GET", path, 410, None).subject == subject


@pytest.mark.parametrize(
    ("path", "message", "said"),
    [
        ("/tasks/a", "Task not found", "a: task not found"),
        ("/tasks/not", "Task not found", "not: task not found"),
        ("/tasks/t1", "Task t10 not found", "t1: task t10 not found"),
        ("/tasks/t1", "Task t1 not found", "Task t1 not found"),
        ("/tasks/abc", "Task not found: abc", "Task not found: abc"),
        ("/tasks/abc", "abc: task not found", "abc: task not found"),
        ("/tasks/abc", None, "GET /tasks/abc was answered 500"),
        ("/workspaces/w1/artifacts/a%20b.txt", "No artifact 'a b.txt'", "No artifact 'a b.txt'"),
    ],
)
def test_a_refusal_names_what_it_is_about_once(path: str, message: str | None, said: str) -> None:
    body = message and {"error": {"message": message}}
    assert refusal("GET", path, 500, body).sentence == said


def test_one_of_several_errors_says_which() -> None:
    refused = refusal("GET", "/tasks/t1", 404, {"error": {"message": "Task not found"}})
    assert refused.about("t1").sentence == "t1: task not found"
    assert refused.about("a.txt").sentence == "a.txt: task not found"
    unreachable = lost("POST", "/tasks/t1/prompts", "it broke")
    assert unreachable.about("t1").sentence == unreachable.message
    assert unreachable.about("t2").sentence == f"t2: {unreachable.message}"


@pytest.mark.parametrize(
    ("body", "message", "code"),
    [
        ({"error": {"code": "limit_exceeded", "message": "No more"}}, "No more", "limit_exceeded"),
        ({"error": {"code": "limit_exceeded"}}, "limit_exceeded", "limit_exceeded"),
        ({"error": {"code": "x" * 64, "message": "m"}}, "m", "x" * 64),
        ({"error": {"code": "x" * 65, "message": "m"}}, "m", "api_error"),
        ({"error": {"code": "", "message": "m"}}, "m", "api_error"),
        ({"error": {"code": 7, "message": "m"}}, "m", "api_error"),
        ({"error": "plain words"}, "plain words", "api_error"),
        ({"message": "at the top"}, "at the top", "api_error"),
        ({"realMessage": "the real one"}, "the real one", "api_error"),
        ({"error": {"message": " \n"}, "message": "second"}, "second", "api_error"),
        ([], "POST /x was answered 400", "api_error"),
        (None, "POST /x was answered 400", "api_error"),
        ({"error": {"message": "many\n  lines\tof it"}}, "many lines of it", "api_error"),
    ],
)
def test_the_message_is_found_in_any_envelope(body: Any, message: str, code: str) -> None:
    error = refusal("POST", "/x", 400, body)
    assert (error.message, error.code) == (message, code)
    assert error.response == body


def test_words_of_the_server_are_one_line_of_at_most_three_hundred() -> None:
    assert one_line("x" * 300) == "x" * 300
    assert one_line("x" * 301) == "x" * 299 + "…"
    assert one_line("a\r\n\u2028b") == "a b"


def test_a_proxy_that_wants_a_password_says_where_it_goes() -> None:
    wants = explain(
        OSError("Tunnel connection failed: 407 Proxy Authentication Required"),
        host="api.example",
        proxy="proxy.example",
        sent=False,
    )
    assert wants.why == "proxy proxy.example refused to connect (407)"
    assert "HTTPS_PROXY" in str(wants.hint)
    assert wants.futile
    other = explain(
        OSError("Tunnel connection failed: 502 Bad Gateway"), host="a", proxy="p", sent=False
    )
    assert (other.hint, other.futile) == (None, False)


class NameResolutionError(Exception):
    """Named as the one of urllib3, which hides the system's own reason."""


class ReadTimeoutError(Exception):
    """As well."""


class RemoteDisconnected(Exception):
    """As well, of the standard library."""


@pytest.mark.parametrize(
    ("error", "sent", "why"),
    [
        (NameResolutionError(), False, "no such host: h"),
        (ReadTimeoutError(), True, "timed out"),
        (ReadTimeoutError(), False, "timed out connecting to h"),
        (RemoteDisconnected(), True, "h closed the connection"),
        (ssl.SSLError(1, "bad record"), True, "TLS with h failed"),
        (OSError(113, "No route to host"), False, "h cannot be reached (No route to host)"),
        (OSError(), False, "h cannot be reached"),
    ],
)
def test_reasons_are_found_however_deep_they_lie(error: Exception, sent: bool, why: str) -> None:
    by_argument = Exception("outer", Exception(error))
    by_reason = Exception("outer")
    by_reason.reason = error  # type: ignore[attr-defined]  # where urllib3 keeps it
    error.__context__ = by_reason  # a circle, as retries of urllib3 may make one
    for wrapped in (error, by_argument, by_reason):
        assert explain(wrapped, host="h", proxy=None, sent=sent).why == why
