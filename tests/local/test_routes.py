"""What the local service refuses: keys, bodies, queries, paths. Always in the error envelope."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.witness import KEY, Caller, document, serving


@pytest.mark.parametrize(
    ("key", "status", "code"),
    [
        (None, 401, "missing_api_key"),
        ("", 401, "missing_api_key"),
        ("sk-something", 401, "invalid_api_key"),
        ("rbk_invalid", 401, "invalid_api_key"),
        ("rbk_readonly", 200, ""),
        ("rbk_anything", 200, ""),
    ],
)
def test_keys(tmp_path: Path, key: str | None, status: int, code: str) -> None:
    with serving(tmp_path) as caller:
        caller.key = key
        answer = caller.call("GET", "/tasks")
    assert answer.status == status
    assert not code or answer.code == code


@pytest.mark.parametrize("name", ["API_KEY", "api_key", "Api-Key", "X-API-KEY", "x_api_key"])
def test_spellings_of_the_key_header(tmp_path: Path, name: str) -> None:
    with serving(tmp_path) as caller:
        caller.key = None
        assert caller.call("GET", "/tasks", headers={name: KEY}).status == 200


def test_readonly_key_may_not_write(tmp_path: Path) -> None:
    with serving(tmp_path) as caller:
        task_id = caller.create()["id"]
        caller.key = "rbk_readonly"
        assert caller.task(task_id)["id"] == task_id
        for method, path, body in (
            ("POST", "/tasks", {"prompt": "x"}),
            ("DELETE", f"/tasks/{task_id}", None),
            ("PATCH", f"/tasks/{task_id}/visibility", {"visibility": "public"}),
            ("POST", f"/tasks/{task_id}/cancel", None),
            ("POST", "/files", {"filename": "a"}),
            ("POST", "/webhooks", {}),
            ("POST", "/agent-computers", {}),
        ):
            answer = caller.call(method, path, body)
            assert (answer.status, answer.code) == (403, "insufficient_scopes"), path


BAD_TASKS: list[tuple[Any, str]] = [
    ({}, "prompt is required"),
    ({"prompt": ""}, "prompt must not be empty"),
    ({"prompt": " \n"}, "prompt must not be empty"),
    ({"prompt": 7}, "prompt must be a string"),
    ({"prompt": None}, "prompt must be a string"),
    ({"prompt": "x" * 100_001}, "prompt must be at most 100000 characters, and has 100001"),
    ({"prompt": "x", "executor": "gpt"}, "executor must be one of opencode, claude, gemini, codex"),
    ({"prompt": "x", "model": 4}, "model must be a string"),
    ({"prompt": "x", "skills": "pdf"}, "skills must be a list of non-empty strings"),
    ({"prompt": "x", "skills": [1]}, "skills must be a list of non-empty strings"),
    ({"prompt": "x", "githubUrl": {}}, "githubUrl must be a string"),
    ({"prompt": "x", "workspaceId": []}, "workspaceId must be a string"),
    ({"prompt": "x", "files": {}}, "files must be a list of objects"),
    ({"prompt": "x", "files": ["a"]}, "files must be a list of objects"),
    ({"prompt": "x", "files": [{"id": "a"}]}, "files[0].filename must be a string"),
    ({"prompt": "[[run=soon]]"}, "prompt: [[run]] needs a duration"),
    ([], "The body must be a JSON object"),
    ("text", "The body must be a JSON object"),
]


def test_bad_task_bodies_are_named(tmp_path: Path) -> None:
    with serving(tmp_path) as caller:
        for body, message in BAD_TASKS:
            answer = caller.call("POST", "/tasks", body)
            assert (answer.status, answer.code) == (400, "validation_error"), body
            assert answer.message.startswith(message)
        assert caller.call("GET", "/tasks").document["total"] == 0
        assert caller.create("x" * 100_000)["status"] == "running"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b'{"prompt": NaN}',
        b'{"prompt": "\\ud800"}',
        b"[" * 100_000,
        b'{"prompt": ' + b"9" * 5000 + b"}",
        json.dumps({"prompt": "x"}).encode() + b"}",
    ],
)
def test_broken_json_is_400_never_500(tmp_path: Path, data: bytes) -> None:
    with serving(tmp_path) as caller:
        headers = {"Content-Type": "application/json"}
        for path in ("/tasks", "/files", "/webhooks", "/agent-computers"):
            answer = caller.call("POST", path, data=data, headers=headers)
            assert (answer.status, answer.code) == (400, "validation_error")
            assert "Traceback" not in answer.message
        assert caller.call("GET", "/tasks").status == 200


def test_body_must_say_that_it_is_json(tmp_path: Path) -> None:
    with serving(tmp_path) as caller:
        form = {"Content-Type": "application/x-www-form-urlencoded"}
        answer = caller.call("POST", "/tasks", data=b'{"prompt": "x"}', headers=form)
    assert (answer.status, answer.code) == (400, "validation_error")
    assert "Content-Type: application/json" in answer.message


NASTY: list[Any] = [
    None, True, 0, -1, 1.5, 10**300, "", "\0", "\u202e" * 300, [], [[]], [None], [{}], [{"id": []}],
    "\ud800", 2**64, 1e300, json.loads("[" * 900 + "]" * 900), {"\udfff": 1},
    {}, {"a": {"b": 1}}, {"selectedOptions": [10**30]}, {"answers": [1]},
]  # fmt: skip
FIELDS = {
    ("POST", "/tasks"): (
        "prompt executor model skills files githubUrl branchName workspaceId actor"
    ),
    ("POST", "/tasks/{task}/prompts"): "prompt executor model skills files actor",
    ("PATCH", "/tasks/{task}/visibility"): "visibility",
    ("POST", "/tasks/{task}/answer"): "messageId actionId answer",
    ("POST", "/files"): "filename contentType",
    ("POST", "/workspaces/{workspace}/artifacts/upload-url"): "files",
    ("POST", "/agent-computers"): "name icon",
    ("PATCH", "/agent-computers/{computer}"): "agent_instructions views",
    ("POST", "/webhooks"): "url events description secret",
}
VALID = {
    "prompt": "x", "visibility": "public", "messageId": "am_1", "actionId": 1,
    "answer": {"selectedOptions": [0]}, "filename": "a", "files": [], "name": "n",
    "url": "https://a.example", "events": ["task.created"],
}  # fmt: skip


@pytest.mark.slow
def test_no_value_of_any_field_is_a_server_error(tmp_path: Path) -> None:
    with serving(tmp_path) as caller:
        task = caller.create()
        computer = caller.call("POST", "/agent-computers", {}).document["id"]
        for (method, pattern), names in FIELDS.items():
            path = pattern.format(task=task["id"], workspace=task["workspaceId"], computer=computer)
            fields = names.split()
            valid = {name: VALID[name] for name in fields if name in VALID and name != "files"}
            for name in fields:
                for value in NASTY:
                    answer = caller.call(method, path, {**valid, name: value})
                    assert answer.status < 500, (path, name, value)


@pytest.mark.parametrize("path", ["/tasks", "/agent-computers"])
def test_bad_pages(tmp_path: Path, path: str) -> None:
    with serving(tmp_path) as caller:
        for query in (
            {"limit": 0}, {"limit": 101}, {"limit": "ten"}, {"limit": -1}, {"limit": ""},
            {"offset": -1}, {"offset": "1.5"}, {"limit": "9" * 400},
        ):  # fmt: skip
            answer = caller.call("GET", path, query=query)
            assert (answer.status, answer.code) == (400, "validation_error"), query
        far = caller.call("GET", path, query={"limit": 100, "offset": "9" * 400})
        assert (far.status, far.document["data"]) == (200, [])


def test_unknown_paths_and_methods(tmp_path: Path) -> None:
    with serving(tmp_path) as caller:
        assert caller.call("GET", "/tasks/", check=False).status == 200
        for path in (
            "/nothing",
            "/tasks//events",
            "/tasks/x/result",
            "/tasks/a/b/c",
            "/tasks/%2e%2e",
            "/",
        ):
            answer = caller.call("GET", path, check=False)
            assert (answer.status, answer.code) == (404, "not_found"), path
        wrong = caller.call("PUT", "/tasks", check=False)
        assert (wrong.status, wrong.code) == (405, "method_not_allowed")
        assert wrong.headers["allow"] == "GET, HEAD, POST"
        for path, allowed in (  # a path without parameters has only its own methods
            ("/webhooks/public_key", "GET, HEAD"),
            ("/webhooks/x", "DELETE, GET, HEAD"),
            ("/workspaces/x/artifacts/upload-url", "POST"),
            ("/workspaces/x/artifacts/a/b.png", "DELETE, GET, HEAD"),
        ):
            wrong = caller.call("OPTIONS", path, check=False)
            assert (wrong.status, wrong.headers["allow"]) == (405, allowed), path
        assert caller.call("DELETE", "/webhooks/public_key", check=False).status == 405
        caller.key = None
        assert caller.call("GET", "/nothing", check=False).code == "missing_api_key"
        assert caller.call("GET", "//elsewhere", check=False).code == "not_found"
        assert caller.call("GET", "//health").document["status"] == "ok"
        assert caller.call("GET", "/health", check=False).document["status"] == "ok"


@pytest.mark.parametrize(
    "request_text",
    [
        b"NONSENSE\r\n\r\n",
        b"GET /v1/tasks HTTP/9.9\r\n\r\n",
        b"POST /v1/tasks HTTP/1.1\r\nAPI_KEY: rbk_x\r\nContent-Length: many\r\n\r\n",
        b"GET /" + b"x" * 70_000 + b" HTTP/1.1\r\n\r\n",
    ],
)
def test_a_request_that_is_not_http_gets_the_error_envelope(
    tmp_path: Path, request_text: bytes
) -> None:
    with serving(tmp_path) as caller:
        answer = _raw(caller, request_text)
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.split(b" ")[1].startswith((b"4", b"5"))
    assert set(json.loads(body)["error"]) == {"code", "message"}


def _raw(caller: Caller, request: bytes) -> bytes:
    parts = urlsplit(caller.service.base_url)
    with socket.create_connection((parts.hostname, parts.port), timeout=60) as wire:
        wire.sendall(request)
        return b"".join(iter(lambda: wire.recv(65536), b""))


def test_the_document_that_answers_are_held_against_is_valid() -> None:
    from openapi_spec_validator import validate

    validate(document())
