"""Uploads, the object store on its own origin, and the artifacts of workspaces."""

from __future__ import annotations

import hashlib
import socket
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import pytest

from rebyte_cli.local.server import status
from tests.witness import KEY, Caller, Clock, put, serving

CSV = {"Content-Type": "text/csv"}


def test_uploaded_file_is_named_sized_and_hashed_in_the_answer(tmp_path: Path) -> None:
    content = b"a,b\n1,2\n"
    clock = Clock()
    with serving(tmp_path, clock) as caller:
        file = caller.upload(content, "data.csv")
        task_id = caller.create("Sum it", files=[file], githubUrl="acme/shop")["id"]
        clock.advance(1)
        answer = caller.task(task_id)["finalResult"]
    assert file["filename"] != "data.csv"
    assert file["filename"].startswith("data-")
    assert file["filename"].endswith(".csv")
    digest = hashlib.sha256(content).hexdigest()
    assert f"/code/{file['filename']}, {len(content)} bytes, SHA-256 {digest}" in answer
    assert "Repository: acme/shop, branch main" in answer


def test_file_must_exist_be_uploaded_and_keep_its_name(tmp_path: Path) -> None:
    with serving(tmp_path) as caller:
        file = caller.upload(b"x")
        slot = caller.call("POST", "/files", {"filename": "later"}).document
        renamed = {**file, "filename": "data.csv"}
        pending = {"id": slot["id"], "filename": slot["filename"]}
        for files, message in (
            ([renamed], "files[0].filename must be the one that POST /files returned"),
            ([file, pending], "files[1] has not been uploaded"),
        ):
            answer = caller.call("POST", "/tasks", {"prompt": "x", "files": files})
            assert (answer.status, answer.code) == (400, "validation_error")
            assert answer.message.startswith(message)
        task_id = caller.create()["id"]
        path = f"/tasks/{task_id}/prompts"
        assert caller.call("POST", path, {"prompt": "x", "files": [file]}).status == 201
        assert caller.call("POST", path, {"prompt": "x", "files": [pending]}).status == 400


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"filename": ""},
        {"filename": 3},
        {"filename": "x" * 256},
        {"filename": "../a"},
        {"filename": "a\\b"},
        {"filename": "a\nb"},
        {"filename": "a", "contentType": "text/plain\r\nX: y"},
        {"filename": "a", "contentType": ""},
        {"filename": "a", "contentType": 5},
    ],
)
def test_bad_upload_requests(tmp_path: Path, body: dict[str, Any]) -> None:
    with serving(tmp_path) as caller:
        answer = caller.call("POST", "/files", body)
    assert (answer.status, answer.code) == (400, "validation_error")


def test_object_store_is_another_origin_and_sees_leaked_keys(tmp_path: Path) -> None:
    with serving(tmp_path) as caller:
        body = {"filename": "data.csv", "contentType": "text/csv"}
        url = caller.call("POST", "/files", body).document["uploadUrl"]
        assert url.startswith(caller.service.storage_url)
        assert urlsplit(url).netloc != urlsplit(caller.service.base_url).netloc
        for name in ("API_KEY", "x-api-key", "Authorization"):
            leaked = put(url, b"x", {**CSV, name: KEY})
            assert leaked.status == 403
            assert leaked.headers["content-type"].startswith("application/xml")
            assert b"<Code>AccessDenied</Code>" in leaked.raw
            assert KEY.encode() not in leaked.raw
        assert put(url, b"x", CSV).status == 200
    assert status(tmp_path / "state")["key_leaks"] == 3


def test_signature_covers_type_path_and_time(tmp_path: Path) -> None:
    clock = Clock()
    with serving(tmp_path, clock) as caller:
        body = {"filename": "data.csv", "contentType": "text/csv"}
        url = caller.call("POST", "/files", body).document["uploadUrl"]
        plain = caller.call("POST", "/files", {"filename": "x"}).document["uploadUrl"]
        for target, headers, method in (
            (url, {"Content-Type": "text/plain"}, "PUT"),
            (url, {}, "PUT"),
            (plain, {}, "PUT"),
            (url.replace("data-", "date-"), CSV, "PUT"),
            (url + "0", CSV, "PUT"),
            (url.split("?")[0] + "?", CSV, "PUT"),
            (url, CSV, "GET"),
        ):
            answer = put(target, b"x", headers, method)
            assert (answer.status, b"SignatureDoesNotMatch" in answer.raw) == (403, True)
        assert put(plain, b"x", {"Content-Type": "application/octet-stream"}).status == 200
        clock.advance(3600)
        assert put(url, b"x", CSV).status == 200
        clock.advance(1)
        late = put(url, b"x", CSV)
    assert (late.status, b"Request has expired" in late.raw) == (403, True)


def test_empty_upload_needs_its_content_length(tmp_path: Path) -> None:
    with serving(tmp_path) as caller:
        body = {"filename": "data.csv", "contentType": "text/csv"}
        url = urlsplit(caller.call("POST", "/files", body).document["uploadUrl"])
        head = (
            f"PUT {url.path}?{url.query} HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/csv\r\n"
        )
        bare = _raw(url.netloc, head + "\r\n")
        chunked = _raw(url.netloc, head + "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n")
        empty = _raw(url.netloc, head + "Content-Length: 0\r\n\r\n")
        file = caller.upload(b"")
        assert caller.create("x", files=[file])["status"] == "running"
    assert b" 411 " in bare
    assert b" 501 " in chunked
    assert b" 200 " in empty


def _raw(netloc: str, request: str) -> bytes:
    host, port = netloc.split(":")
    with socket.create_connection((host, int(port)), timeout=10) as wire:
        wire.sendall(request.encode())
        return wire.recv(4096).split(b"\r\n")[0]


def test_finished_run_leaves_its_answer_in_the_workspace(tmp_path: Path) -> None:
    clock = Clock()
    with serving(tmp_path, clock) as caller:
        task = caller.create("Write it down")
        path = f"/workspaces/{task['workspaceId']}/artifacts"
        assert caller.call("GET", path).document == {"data": []}
        clock.advance(1)
        listed = caller.call("GET", path).document["data"]
        file = caller.call("GET", f"{path}/answer.md", check=False)
        result = caller.task(task["id"])["finalResult"]
        assert [(one["filename"], one["size"]) for one in listed] == [("answer.md", len(file.raw))]
        assert file.headers["content-type"].startswith("text/markdown")
        assert file.raw.decode() == result + "\n"
        assert listed[0]["url"].endswith(f"{path}/answer.md")
        assert listed[0]["createdAt"] == "2026-02-09T10:30:00.500Z"

        assert caller.call("DELETE", f"{path}/answer.md").status == 204
        assert caller.call("GET", path).document == {"data": []}
        gone = caller.call("DELETE", f"{path}/answer.md")
        assert (gone.status, gone.message) == (404, "Artifact not found")

        caller.call("POST", f"/tasks/{task['id']}/prompts", {"prompt": "Again"})
        caller.create("[[fail]]", workspaceId=task["workspaceId"])
        clock.advance(1)
        again = caller.call("GET", f"{path}/answer.md", check=False)
    assert b"Prompt: Again" in again.raw


def test_uploaded_artifacts(tmp_path: Path) -> None:
    names = ["report.pdf", "../../etc/passwd", "ünïcode.txt", "with space & more"]
    with serving(tmp_path) as caller:
        path = f"/workspaces/{caller.create('[[run=1h]]')['workspaceId']}/artifacts"
        boundary = "frontier"
        body = b"".join(
            f'--{boundary}\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n'
            f"Content-Type: application/pdf\r\n\r\ncontent of {name}\r\n".encode()
            for name in names
        )
        form = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
        stored = caller.call("POST", path, data=body + b"--frontier--\r\n", headers=form)
        assert stored.status == 201
        assert {one["filename"] for one in stored.document["data"]} == set(names)
        for name in names:
            file = caller.call("GET", f"{path}/{quote(name, safe='')}", check=False)
            assert file.raw.decode() == f"content of {name}"
        assert caller.call("POST", path, data=b"--frontier--\r\n", headers=form).status == 400
        assert caller.call("POST", path, {"files": []}).status == 400
        assert caller.call("DELETE", path).status == 204
        assert caller.call("GET", path).document == {"data": []}
    assert not (tmp_path / "etc").exists()


def test_large_artifacts_go_through_signed_urls_both_ways(tmp_path: Path) -> None:
    with serving(tmp_path) as caller:
        path = f"/workspaces/{caller.create('[[run=1h]]')['workspaceId']}/artifacts"
        files: list[dict[str, Any]] = [
            {"name": "video.mp4", "contentType": "video/mp4"},
            {"name": "open day.png", "contentType": "image/png", "public": True},
        ]
        urls = caller.call("POST", f"{path}/upload-url", {"files": files}).document["urls"]
        assert [set(url) for url in urls] == [{"uploadUrl"}, {"uploadUrl", "publicUrl"}]
        for url, file in zip(urls, files, strict=True):
            kind = {"Content-Type": file["contentType"]}
            assert put(url["uploadUrl"], b"bytes", kind).status == 200
        moved = caller.call("GET", f"{path}/video.mp4")
        assert moved.status == 302
        location = moved.headers["location"]
        assert put(location, b"", {"API_KEY": KEY}, "GET").status == 403
        fetched = put(location, b"", {}, "GET")
        assert (fetched.raw, fetched.headers["content-type"]) == (b"bytes", "video/mp4")
        assert put(urls[1]["publicUrl"], b"", {}, "GET").raw == b"bytes"
        hidden = urls[1]["publicUrl"].replace("open%20day.png", "video.mp4")
        assert put(hidden, b"", {}, "GET").status == 404
        bodies: list[Any] = [{}, {"files": []}, {"files": [{}]}]
        for wrong in [*bodies, {"files": [{"name": "a", "public": 1}]}]:
            assert caller.call("POST", f"{path}/upload-url", wrong).status == 400


def test_unknown_workspace(tmp_path: Path) -> None:
    with serving(tmp_path) as caller:
        _all_404(caller, "/workspaces/nowhere/artifacts")


def _all_404(caller: Caller, path: str) -> None:
    for method, below in (
        ("GET", ""), ("DELETE", ""), ("GET", "/a"), ("DELETE", "/a"), ("POST", ""),
        ("POST", "/upload-url"),
    ):  # fmt: skip
        answer = caller.call(method, f"{path}{below}")
        assert (answer.status, answer.message) == (404, "Workspace not found")
