"""Requests and responses of the local service, at the edges that its endpoints never reach."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from rebyte_cli.local.wsgi import HttpRequest, HttpResponse


def request(**environ: Any) -> HttpRequest:
    """A request with these WSGI variables."""
    return HttpRequest({"REQUEST_METHOD": "GET", "PATH_INFO": "/", "QUERY_STRING": "", **environ})


@pytest.mark.parametrize(
    ("raw", "path"),
    [("//v1/tasks", "/v1/tasks"), ("/a/\xc3\xa4", "/a/\xe4"), ("/a/\xff", "/a/\ufffd")],
)
def test_a_path_is_decoded(raw: str, path: str) -> None:
    assert request(PATH_INFO=raw).path == path


def test_of_a_name_that_is_given_twice_the_first_value_counts() -> None:
    assert request(QUERY_STRING="limit=1&limit=2&empty=&x").args == {
        "limit": "1", "empty": "", "x": "",
    }  # fmt: skip


def test_headers_are_found_in_any_case() -> None:
    found = request(CONTENT_TYPE="Application/JSON; charset=utf-8", HTTP_COOKIE="a=1; b = x=y;c")
    assert found.header("content-TYPE") == "Application/JSON; charset=utf-8"
    assert found.header("Origin") is None
    assert found.mimetype == "application/json"
    assert found.cookies == {"a": "1", "b": "x=y", "c": ""}
    assert request().cookies == {"": ""}


def test_the_length_of_a_chunked_body_is_not_known() -> None:
    assert request(CONTENT_LENGTH="5").content_length == 5
    assert request(CONTENT_LENGTH="5", HTTP_TRANSFER_ENCODING="Chunked").content_length is None
    assert request().content_length is None


def test_an_answer_to_head_has_no_body_and_closes_what_would_give_it() -> None:
    closed = []

    def body() -> Iterator[bytes]:
        try:
            yield b"x"
            raise AssertionError("the body was read on")
        finally:
            closed.append(True)

    stream = body()
    next(stream)
    told: list[Any] = []
    answer = HttpResponse(stream)
    assert list(answer({"REQUEST_METHOD": "HEAD"}, lambda *head: told.append(head))) == []
    assert closed == [True]
    assert told == [("200 OK", [("Content-Type", "text/plain; charset=utf-8")])]
    assert HttpResponse("h\ud800").headers["Content-Length"] == "2"
