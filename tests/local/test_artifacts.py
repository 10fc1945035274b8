"""Artifacts of a workspace: those that runs leave, and uploaded ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import quote

from tests.witness import KEY, Caller, Clock, put, serving


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


def test_a_form_that_could_not_be_given_back_is_refused(service: Any) -> None:
    """A file with a type that is no header could not be downloaded."""
    caller = Caller(service)
    path = f"/workspaces/{caller.create('[[run=1h]]')['workspaceId']}/artifacts"
    form = {"Content-Type": "multipart/form-data; boundary=B"}
    head = 'Content-Disposition: form-data; name="files"; filename="a"'
    for kind in ("text/€", "x" * 300):
        body = f"--B\r\n{head}\r\nContent-Type: {kind}\r\n\r\nhi\r\n--B--\r\n".encode()
        refused = caller.call("POST", path, data=body, headers=form)
        assert (refused.status, refused.message[:11]) == (400, "contentType")
    chunked = {**form, "Transfer-Encoding": "chunked"}
    refused = caller.call("POST", path, data=b"zz\r\n", headers=chunked)
    assert (refused.status, refused.message[:23]) == (400, "The form cannot be read")
    assert caller.call("GET", path).document == {"data": []}
