"""Uploads: what is checked first, how a type is guessed, and that memory stays flat."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rebyte_cli.api.client import RebyteClient
from rebyte_cli.errors import BadUsage, NetworkError, NotFound, RebyteError
from rebyte_cli.tasks.upload import LARGE, check, content_type, put, upload, uploads
from tests.screens import no_bar
from tests.servers import RawServer, json_reply, reply, transport_to


@pytest.mark.parametrize(
    ("name", "kind"),
    [("a.csv", "text/csv"), ("A.PDF", "application/pdf"), ("x/y.png", "image/png"),
     ("a.tar.gz", "application/gzip"), ("a.svgz", "application/gzip"),
     ("noending", "application/octet-stream"), ("a.zz9", "application/octet-stream"),
     (".csv", "application/octet-stream")],
)  # fmt: skip
def test_the_type_is_guessed_by_the_name(name: str, kind: str) -> None:
    assert content_type(name) == kind


def test_each_file_once_and_patterns_expanded(tmp_path: Path) -> None:
    for name in ("b.csv", "a.csv", "lit[1].csv"):
        (tmp_path / name).touch()
    (tmp_path / "c.csv").mkdir()
    one = str(tmp_path / "b.csv")
    assert check([one, one]) == [one]
    assert check([str(tmp_path / "[ab].csv"), one]) == [str(tmp_path / "a.csv"), one]
    assert check([str(tmp_path / "lit[1].csv")]) == [str(tmp_path / "lit[1].csv")]


def test_files_that_cannot_be_uploaded_are_named(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    for path, error in (
        ("missing", NotFound), ("*.none", NotFound), ("dangling", NotFound),
        (".", BadUsage), ("pipe", BadUsage), ("a\0b", BadUsage),
    ):  # fmt: skip
        with pytest.raises(error):
            check([str(tmp_path / path)])


def stored(storage: RawServer) -> Callable[[Any], bytes]:
    """An API that gives out slots on that storage, each with its own name."""
    count = iter(range(1000))

    def script(request: Any) -> bytes:
        number = next(count)
        name = f"{number}-{request.json['filename']}"
        url = f"{storage.origin}/{name}?signature={number}"
        return json_reply({"id": f"f{number}", "filename": name, "uploadUrl": url}, 201)

    return script


def test_several_go_side_by_side_and_come_back_in_order(tmp_path: Path) -> None:
    paths = []
    for number in range(4):
        paths.append(str(tmp_path / f"{number}.txt"))
        Path(paths[-1]).write_text(f"body {number}")
    together = threading.Barrier(4, timeout=60)

    def keep(_request: Any) -> bytes:
        return reply(200)

    with RawServer(keep) as storage, RawServer(stored(storage)) as api:
        # All four are under way at once, or the barrier breaks.
        client = RebyteClient(transport=transport_to(api))
        send = client.upload_file

        def at_once(path: Any, **options: Any) -> Any:
            together.wait()
            return send(path, **options)

        client.upload_file = at_once  # type: ignore[method-assign]  # the one place to wait in
        found = upload(client, paths, no_bar)
    assert [row["filename"].partition("-")[2] for row in found] == [
        "0.txt",
        "1.txt",
        "2.txt",
        "3.txt",
    ]
    assert {request.body for request in storage.requests} == {b"body %d" % n for n in range(4)}
    assert not any("api_key" in request.headers for request in storage.requests)


def test_an_expired_url_is_asked_for_again(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("body")
    with RawServer([reply(403), reply(200)]) as storage, RawServer(stored(storage)) as api:
        (row,) = upload(RebyteClient(transport=transport_to(api)), [str(path)], no_bar)
    assert len(api.requests) == 2
    assert row["id"] == "f1"
    assert [request.body for request in storage.requests] == [b"body", b"body"]


def test_an_expired_url_for_an_artifact_is_asked_for_again(tmp_path: Path) -> None:
    body = b"x" * (LARGE + 1)
    (tmp_path / "a.mp4").write_bytes(body)
    with RawServer([reply(403), reply(200)]) as storage:
        urls = json_reply({"urls": [{"uploadUrl": f"{storage.origin}/a?signature=1"}]})
        with RawServer(urls) as api:
            client = RebyteClient(transport=transport_to(api))
            (row,) = put(client, "ws", [str(tmp_path / "a.mp4")], no_bar)
    assert row == {"name": "a.mp4", "size": len(body)}
    assert len(api.requests) == 2
    assert [request.body == body for request in storage.requests] == [True, True]


def test_a_file_that_vanishes_is_named_and_the_others_go_on(tmp_path: Path) -> None:
    paths = [str(tmp_path / name) for name in ("a.txt", "b.txt")]
    Path(paths[1]).write_text("body")
    with RawServer(json_reply([])) as api:
        client = RebyteClient(transport=transport_to(api))
        first, second = put(client, "ws", paths, no_bar)
    assert isinstance(first, NotFound)
    assert isinstance(second, dict)
    with RawServer(reply(200)) as storage, RawServer(stored(storage)) as api:
        first, second = uploads(RebyteClient(transport=transport_to(api)), paths, no_bar)
    assert isinstance(first, NotFound)
    assert isinstance(second, dict)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_a_name_that_is_not_text_is_sent_as_text(tmp_path: Path) -> None:
    path = os.path.join(os.fsencode(tmp_path), b"b\xffd.txt")
    Path(os.fsdecode(path)).write_text("body")
    with RawServer(reply(200)) as storage, RawServer(stored(storage)) as api:
        upload(RebyteClient(transport=transport_to(api)), [os.fsdecode(path)], no_bar)
    assert api.requests[0].json["filename"] == "b?d.txt"


def test_a_failed_upload_does_not_stop_the_others(tmp_path: Path) -> None:
    paths = [str(tmp_path / name) for name in ("a.txt", "b.txt")]
    for path in paths:
        Path(path).write_text(path[-5:])

    def script(request: Any) -> bytes:
        return reply(500 if request.body == b"a.txt" else 200)

    with RawServer(script) as storage, RawServer(stored(storage)) as api:
        client = RebyteClient(transport=transport_to(api))
        first, second = uploads(client, paths, no_bar)
        assert isinstance(first, RebyteError)
        assert isinstance(second, dict)
        with pytest.raises(NetworkError):
            upload(client, paths, no_bar)


def test_an_empty_file_says_that_it_is_empty(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    with RawServer(reply(200)) as storage, RawServer(stored(storage)) as api:
        upload(RebyteClient(transport=transport_to(api)), [str(tmp_path / "empty")], no_bar)
    assert storage.requests[0].headers["content-length"] == "0"


def test_artifacts_have_no_folders(tmp_path: Path) -> None:
    with pytest.raises(BadUsage, match="two of the files"):
        list(put(None, "ws", ["a/same", "b/same"], no_bar))  # type: ignore[arg-type]  # not reached


MEASURE = """
import resource, sys
from rebyte_cli.cli import run
status = run(sys.argv[1:])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr)
sys.exit(status)
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_file(tmp_path: Path, service: Any, home: Path) -> None:
    del service
    peaks = []
    for size in (0, 96 * 1024 * 1024):
        path = home / f"{size}.bin"
        with path.open("wb") as file:
            file.truncate(size)
        done = subprocess.run(
            [sys.executable, "-c", MEASURE, "file", "upload", str(path)],
            capture_output=True, text=True, check=True, timeout=60,
        )  # fmt: skip
        peaks.append(int(done.stderr.split()[-1]))
    assert peaks[1] - peaks[0] < 20 * 1024, peaks  # KiB
