"""Downloads and uploads: whole or not at all, inside their folder, without the key elsewhere."""

from __future__ import annotations

import gzip
import os
import re
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from rebyte_cli import RebyteClient
from rebyte_cli.api.transport import Transport
from rebyte_cli.errors import (
    APIError,
    BadUsage,
    BrokenAnswer,
    NetworkError,
    NotFound,
    OutcomeUnknown,
    Redirected,
    ResourceNotFound,
)
from tests.servers import (
    KEY,
    Answer,
    Line,
    RawServer,
    Request,
    chunked,
    error_reply,
    json_reply,
    parts,
    reply,
    reset,
    then_close,
    then_stall,
    transport_to,
)
from tests.waiting import with_time

pytestmark = pytest.mark.usefixtures("home")


def download(server: RawServer, target: Path, **options: Any) -> None:
    client = RebyteClient(transport=transport_to(server, timeout=30))
    client.get_artifact("w1", "r&d ü/report.pdf", target, **options)


def test_a_download_appears_whole(tmp_path: Path) -> None:
    data = os.urandom(300_000)
    got: list[int] = []
    with RawServer(reply(200, data)) as server:
        download(server, tmp_path / "report.pdf", progress=got.append)
    assert (tmp_path / "report.pdf").read_bytes() == data
    assert sum(got) == len(data)
    (request,) = server.requests
    assert request.path == "/v1/workspaces/w1/artifacts/r%26d%20%C3%BC%2Freport.pdf"
    assert request.headers["accept-encoding"] == "identity"
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["report.pdf"]


LENGTH = b"HTTP/1.1 200 X\r\nContent-Length: 1000\r\n\r\n"


@pytest.mark.parametrize(
    "cut",
    [
        then_close(LENGTH + b"x" * 999),
        then_close(LENGTH + b"x" * 500, abrupt=True),
        then_close(chunked([b"x" * 400])[:-5]),
        reply(200, gzip.compress(os.urandom(2000))[:-8], {"Content-Encoding": "gzip"}),
    ],
    ids=["29 length", "29 reset", "29 chunks", "30 gzip"],
)
def test_case_29_case_30_a_cut_download_leaves_nothing(tmp_path: Path, cut: Answer) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    with RawServer(lambda request: cut) as server, pytest.raises(NetworkError) as caught:
        download(server, folder / "a")
    assert list(folder.iterdir()) == []
    assert len(server.requests) == 4
    assert caught.value.exit_status == 5


def test_a_cut_download_that_works_the_second_time_is_whole(tmp_path: Path) -> None:
    got: list[int] = []
    cut = then_close(LENGTH + b"x" * 999)
    with RawServer([cut, reply(200, b"whole")]) as server:
        download(server, tmp_path / "a", progress=got.append)
    assert (tmp_path / "a").read_bytes() == b"whole"
    assert sum(got) == 5


def test_a_download_that_stalls_ends_by_its_idle_limit(tmp_path: Path) -> None:
    def check(limit: float) -> None:
        slow = parts(LENGTH, *[b"x" * 100] * 10, every=limit / 5)
        with RawServer(lambda request: slow) as server:
            client = RebyteClient(transport=transport_to(server, timeout=limit))
            client.get_artifact("w1", "a", tmp_path / f"slow-{limit}")
        assert len(server.requests) == 1

    with_time(check, 0.4)
    mute = then_stall(LENGTH + b"x")
    with RawServer(lambda request: mute) as server:
        client = RebyteClient(transport=transport_to(server, timeout=0.1))
        with pytest.raises(NetworkError) as caught:
            client.get_artifact("w1", "a", tmp_path / "b")
    assert caught.value.code == "timeout"
    assert not (tmp_path / "b").exists()


def test_a_redirect_of_a_download_is_followed_without_the_key(tmp_path: Path) -> None:
    with RawServer(reply(200, b"stored")) as store:
        away = reply(302, b"", {"Location": f"{store.origin}/x?signature=s"})
        with RawServer(away) as server:
            download(server, tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == b"stored"
    assert store.requests[0].path == "/x?signature=s"
    assert KEY.encode() not in store.requests[0].raw


def test_a_redirect_inside_the_origin_keeps_the_key(tmp_path: Path) -> None:
    with RawServer([reply(307, b"", {"Location": "/elsewhere"}), reply(200, b"x")]) as server:
        download(server, tmp_path / "a")
    assert server.requests[1].path == "/elsewhere"
    assert server.requests[1].headers["api_key"] == KEY


@pytest.mark.parametrize("where", ["http://store.example/x", "ftp://h/x", "https://u:p@h/x"])
def test_a_redirect_to_an_unsafe_address_is_not_followed(tmp_path: Path, where: str) -> None:
    away = reply(302, b"", {"Location": where})
    with RawServer(away) as server, pytest.raises(Redirected):
        download(server, tmp_path / "a")
    assert not (tmp_path / "a").exists()


def test_redirects_without_end(tmp_path: Path) -> None:
    loop = reply(302, b"", {"Location": "/again"})
    with RawServer(loop) as server, pytest.raises(Redirected, match="too often"):
        download(server, tmp_path / "a")
    assert len(server.requests) == 6


def test_a_missing_artifact(tmp_path: Path) -> None:
    missing = error_reply(404, "not_found", "Artifact not found")
    with RawServer(missing) as server, pytest.raises(ResourceNotFound, match="Artifact not found"):
        download(server, tmp_path / "a")


def test_existing_files_are_kept_and_links_are_not_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_text("mine")
    link = tmp_path / "link"
    link.symlink_to(outside)
    with RawServer(reply(200, b"new")) as server:
        for target in (outside, link):
            with pytest.raises(BadUsage, match="already exists"):
                download(server, target)
        assert server.requests == []
        download(server, link, overwrite=True)
    assert outside.read_text() == "mine"
    assert not link.is_symlink()
    assert link.read_bytes() == b"new"


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_is_no_file(tmp_path: Path, overwrite: bool) -> None:
    (tmp_path / "here").mkdir()
    with (
        RawServer(reply(200, b"new")) as server,
        pytest.raises(BadUsage, match=r"here is a folder$") as caught,
    ):
        download(server, tmp_path / "here", overwrite=overwrite)
    assert caught.value.hint == "Pass the path that the file is to have"
    assert server.requests == []


def test_a_file_that_appears_meanwhile_is_not_overwritten(tmp_path: Path) -> None:
    def plant(request: Request) -> bytes:
        (tmp_path / "a").write_text("mine")
        return reply(200, b"new")

    with RawServer(plant) as server, pytest.raises(BadUsage, match="already exists"):
        download(server, tmp_path / "a")
    assert (tmp_path / "a").read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["a"]


@pytest.mark.parametrize("name", ["", ".", "..", "a\0b", "\ud800"])
def test_a_name_that_would_change_the_path(tmp_path: Path, name: str) -> None:
    with RawServer(reply(200)) as server:
        client = RebyteClient(transport=transport_to(server))
        with pytest.raises(BadUsage):
            client.get_artifact("w1", name, tmp_path / "a")
        with pytest.raises(BadUsage):
            client.delete_artifact("w1", name)
    assert server.requests == []


def test_a_download_that_is_killed_leaves_nothing(tmp_path: Path) -> None:
    script = """
import sys
from pathlib import Path
from rebyte_cli import RebyteClient
print("starts", flush=True)
client = RebyteClient("rbk_x", base_url=sys.argv[1])
advance = lambda amount: print("has begun", flush=True)
client.get_artifact("w1", "a", Path(sys.argv[2]), overwrite=True, progress=advance)
"""
    half = reply(200, b"x" * 1000, length=2000)
    with (
        RawServer(lambda request: then_stall(half)) as server,
        subprocess.Popen(
            [sys.executable, "-c", script, server.base_url, str(tmp_path / "a")],
            stdout=subprocess.PIPE,
        ) as process,
    ):
        assert process.stdout is not None
        assert process.stdout.readline() == b"starts\n"
        assert process.stdout.readline() == b"has begun\n"
        process.kill()
    assert [path for path in tmp_path.iterdir() if path.is_file()] == []


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_file_system_without_nameless_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overwrite: bool
) -> None:
    monkeypatch.delattr(os, "O_TMPFILE", raising=False)
    (tmp_path / "a").mkdir()
    with RawServer([reply(200, b"whole"), then_close(reply(200, b"ha", length=9))]) as server:
        download(server, tmp_path / "a" / "x", overwrite=overwrite)
        with pytest.raises(NetworkError):
            download(server, tmp_path / "a" / "y", overwrite=overwrite)
    assert [path.read_bytes() for path in (tmp_path / "a").iterdir()] == [b"whole"]


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_download_is_not_for_everyone_to_write(tmp_path: Path, overwrite: bool) -> None:
    before = os.umask(0)
    try:
        with RawServer(reply(200, b"x")) as server:
            download(server, tmp_path / "a", overwrite=overwrite)
    finally:
        os.umask(before)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o664


def test_a_full_disk_is_told_as_one(tmp_path: Path) -> None:
    # A limit on the size of files stands in for a disk; it makes the same call fail.
    script = """
import resource, signal, sys
from pathlib import Path
from rebyte_cli import RebyteClient
from rebyte_cli.errors import BadUsage
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
try:
    RebyteClient("rbk_x", base_url=sys.argv[1]).get_artifact("w1", "a", Path(sys.argv[2]))
except BadUsage as error:
    print(error.message)
"""
    target = tmp_path / "a"
    with RawServer(reply(200, b"x" * 1_000_000)) as server:
        done = subprocess.run(
            [sys.executable, "-c", script, server.base_url, str(target)],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
    assert done.stdout == f"cannot write {target}: File too large\n", done.stderr
    assert len(server.requests) == 1
    assert [path for path in tmp_path.iterdir() if path.is_file()] == []


# Bodies that do not fit into memory: uploads and forms.


class Store:
    """An API and an object store in one: slots from /files, then `puts` in turn."""

    def __init__(self, puts: list[Answer]) -> None:
        self.puts = puts
        self.slots = self.put = 0

    def __call__(self, request: Request) -> Answer:
        if request.method == "POST":
            self.slots += 1
            host = request.headers["host"]
            url = f"http://{host}/bucket/{self.slots}?signature=secret{self.slots}"
            name = f"a-{self.slots}.csv"
            return json_reply({"id": f"f{self.slots}", "filename": name, "uploadUrl": url}, 201)
        self.put += 1
        return self.puts[min(self.put, len(self.puts)) - 1]


def upload(server: RawServer, path: Path, **options: Any) -> dict[str, Any]:
    return RebyteClient(transport=transport_to(server)).upload_file(path, **options)


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "a.csv"
    path.write_bytes(b"a,b\n1,2\n")
    return path


def test_an_upload_is_a_slot_and_a_put(table: Path) -> None:
    with RawServer(Store([reply(200)])) as server:
        assert upload(server, table, content_type="text/csv") == {"id": "f1", "filename": "a-1.csv"}
    post, put = server.requests
    assert post.json == {"filename": "a.csv", "contentType": "text/csv"}
    assert (put.path, put.body) == ("/bucket/1?signature=secret1", b"a,b\n1,2\n")
    assert put.headers["content-type"] == "text/csv"
    assert KEY.encode() not in put.raw


def test_an_upload_without_a_type_is_sent_with_the_default_one(table: Path) -> None:
    with RawServer(Store([reply(200)])) as server:
        upload(server, table)
    post, put = server.requests
    assert post.json == {"filename": "a.csv"}
    assert put.headers["content-type"] == "application/octet-stream"


def test_case_42_no_bytes_are_sent_with_a_length(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.touch()
    with RawServer(Store([reply(200)])) as server:
        upload(server, empty)
    put = server.requests[-1]
    assert put.headers["content-length"] == "0"
    assert "transfer-encoding" not in put.headers
    assert put.body == b""


@pytest.mark.slow
def test_case_42_a_large_upload_is_flat_in_memory(tmp_path: Path) -> None:
    # 256 MiB, sparse, so that the test is quick; a client that reads it whole would show that.
    large = tmp_path / "large"
    with large.open("wb") as file:
        file.truncate(256 << 20)
    received = 0

    def swallow(line: Line) -> None:
        nonlocal received
        while received < 256 << 20:
            received += len(line.sock.recv(1 << 20))
        line.send(reply(200))

    script = """
import resource, sys
from rebyte_cli.api.transport import Transport
from pathlib import Path
url, path = sys.argv[1:]
wire = Transport(url, "rbk_x")
empty = Path(path + ".empty"); empty.touch()
wire.put_signed(url + "/empty", empty, "text/plain")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
wire.put_signed(url + "/large", Path(path), "text/plain")
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    with LengthServer(swallow) as server:
        done = subprocess.run(
            [sys.executable, "-c", script, server.origin, str(large)],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    assert received == 256 << 20
    grown = int(done.stdout) / (1024 if sys.platform == "darwin" else 1)
    assert grown < 20 * 1024, f"{grown} KiB"


class LengthServer:
    """Answers an empty PUT and hands the line of the next one to `swallow`, body unread."""

    def __init__(self, swallow: Any) -> None:
        import socket

        self._listener = socket.create_server(("127.0.0.1", 0))
        self.origin = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._swallow = swallow

    def __enter__(self) -> LengthServer:
        threading.Thread(target=self._serve, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()

    def _serve(self) -> None:
        sock, _ = self._listener.accept()
        for _ in range(2):
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                head += sock.recv(1)
            if b"Content-Length: 0\r\n" in head:
                sock.sendall(reply(200))
            else:
                self._swallow(Line(sock, threading.Event()))


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410])
def test_an_expired_slot_is_replaced_once(table: Path, status: int) -> None:
    expired = reply(status, "<Error><Code>ExpiredToken</Code></Error>")
    sent: list[int] = []
    with RawServer(Store([expired, reply(200)])) as server:
        assert upload(server, table, progress=sent.append)["id"] == "f2"
    assert [request.path for request in server.seen("PUT")] == [
        "/bucket/1?signature=secret1",
        "/bucket/2?signature=secret2",
    ]
    assert sent == [8, -8, 8]
    with RawServer(Store([expired])) as server, pytest.raises(APIError) as caught:
        upload(server, table)
    assert len(server.seen("PUT")) == 2
    assert "secret" not in f"{caught.value.as_dict()}"
    assert caught.value.message == f"the file store refused the upload ({status})"


def test_a_put_that_breaks_goes_again_from_its_first_byte(table: Path) -> None:
    sent: list[int] = []
    with RawServer(Store([reset, reply(503), reply(200)])) as server:
        assert upload(server, table, progress=sent.append)["id"] == "f1"
    assert [request.body for request in server.seen("PUT")] == [b"a,b\n1,2\n"] * 3
    assert sum(sent) == 8
    with RawServer(Store([reset])) as server, pytest.raises(NetworkError) as caught:
        upload(server, table)
    assert "secret" not in f"{caught.value.as_dict()}"


def test_files_that_cannot_be_uploaded_are_refused_before_anything_is_sent(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with RawServer(Store([reply(200)])) as server:
        for path, kind in ((tmp_path, BadUsage), (pipe, BadUsage), (tmp_path / "no", NotFound)):
            with pytest.raises(kind):
                upload(server, path)
    assert server.requests == []


@pytest.mark.parametrize(
    "url", ["http://store.example/x", "ftp://h/x", "https://u:p@h/x", "", "/relative", 7]
)
def test_a_slot_with_an_unsafe_url_is_not_used(table: Path, url: Any) -> None:
    slot = json_reply({"id": "f1", "filename": "a", "uploadUrl": url}, 201)
    with RawServer(slot) as server, pytest.raises(BrokenAnswer):
        upload(server, table)
    assert server.seen("PUT") == []


def test_files_as_a_form(table: Path, tmp_path: Path) -> None:
    odd = tmp_path / 'q"u\n.txt'
    odd.write_bytes(b"odd")
    sent: list[int] = []
    with RawServer(json_reply({"data": [{"filename": "a.csv"}, "no"]}, 201)) as server:
        client = RebyteClient(transport=transport_to(server))
        listed = client.put_artifacts("w1", [table, odd], progress=sent.append)
    assert listed == [{"filename": "a.csv"}]
    (request,) = server.requests
    found = re.match(r"multipart/form-data; boundary=(\w+)$", request.headers["content-type"])
    assert found
    mark = f"--{found[1]}".encode()
    before, first, second, after = request.body.split(mark)
    assert (before, after) == (b"", b"--\r\n")
    assert (
        b'name="files"; filename="a.csv"\r\nContent-Type: text/csv\r\n\r\na,b\n1,2\n\r\n' in first
    )
    assert b'name="files"; filename="q%22u%0A.txt"' in second
    assert sum(sent) == 11


def test_a_form_whose_answer_is_lost_is_not_repeated(table: Path) -> None:
    with RawServer(lambda request: reset) as server, pytest.raises(OutcomeUnknown):
        RebyteClient(transport=transport_to(server)).put_artifacts("w1", [table])
    assert len(server.requests) == 1


def test_case_64_a_remote_api_cannot_make_us_upload_to_this_machine() -> None:
    with RawServer(reply(200)) as server:
        transport = Transport("https://api.rebyte.ai/v1", KEY)
        with pytest.raises(BrokenAnswer, match="signed URL"):
            transport.put_signed(server.base_url + "/x?sig=1", b"secret", "text/plain")
    assert server.connections == 0
