"""Uploads of files, and the object store on its own origin that takes them."""

from __future__ import annotations

import hashlib
import socket
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from rebyte_cli.local.local_service import status
from tests.witness import KEY, Clock, put, serving

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
    assert status(tmp_path / "state")["keyLeaks"] == 3


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
    assert (late.status, b"<Message>Request has expired<" in late.raw) == (403, True)


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
    with socket.create_connection((host, int(port)), timeout=60) as wire:
        wire.sendall(request.encode())
        return wire.recv(4096).split(b"\r\n")[0]


def test_an_upload_leaves_room_on_the_disk(tmp_path: Path) -> None:
    """Any user of the machine can upload to a service that is served."""
    settings = tmp_path / "config.toml"
    settings.write_text('[local]\nkeep_free = "900000G"\n')
    with serving(tmp_path, config_file=settings) as caller:
        slot = caller.call("POST", "/files", {"filename": "a.csv", "contentType": "text/csv"})
        answer = put(slot.document["uploadUrl"], b"x", CSV)
        assert answer.status == 413
        assert b"MB left ([local] keep_free)" in answer.raw
        workspace = caller.create()["workspaceId"]
        form = {"Content-Type": "multipart/form-data; boundary=B"}
        head = 'Content-Disposition: form-data; name="files"; filename="a"'
        body = f"--B\r\n{head}\r\n\r\nx\r\n--B--\r\n".encode()
        refused = caller.call("POST", f"/workspaces/{workspace}/artifacts", data=body, headers=form)
        assert (refused.status, refused.code) == (413, "payload_too_large")
        objects = tmp_path / "state" / "objects"
        assert list(objects.iterdir()) == []
        settings.write_text("")
        assert put(slot.document["uploadUrl"], b"x", CSV).status == 200
