"""Downloads: whole or not at all, inside their folder, without the key elsewhere."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rebyte_cli import RebyteClient
from rebyte_cli.errors import BadUsage, NetworkError, Redirected, ResourceNotFound

from .servers import (
    KEY,
    Answer,
    RawServer,
    Request,
    chunked,
    error_reply,
    parts,
    reply,
    then_close,
    then_stall,
    wire_to,
)

pytestmark = pytest.mark.usefixtures("home")


def download(server: RawServer, target: Path, **options: Any) -> None:
    client = RebyteClient(transport=wire_to(server, timeout=5))
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
    slow = parts(LENGTH, *[b"x" * 100] * 10, every=0.08)
    with RawServer(lambda request: slow) as server:
        client = RebyteClient(transport=wire_to(server, timeout=0.4))
        client.get_artifact("w1", "a", tmp_path / "slow")
    mute = then_stall(LENGTH + b"x")
    with RawServer(lambda request: mute) as server:
        client = RebyteClient(transport=wire_to(server, timeout=0.1))
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


def test_what_is_there_is_not_overwritten_and_a_link_is_not_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_text("mine")
    link = tmp_path / "link"
    link.symlink_to(outside)
    with RawServer(reply(200, b"new")) as server:
        for target in (outside, link):
            with pytest.raises(BadUsage, match="already there"):
                download(server, target)
        assert server.requests == []
        download(server, link, overwrite=True)
    assert outside.read_text() == "mine"
    assert not link.is_symlink()
    assert link.read_bytes() == b"new"


def test_a_file_that_appears_meanwhile_is_not_overwritten(tmp_path: Path) -> None:
    def plant(request: Request) -> bytes:
        (tmp_path / "a").write_text("mine")
        return reply(200, b"new")

    with RawServer(plant) as server, pytest.raises(BadUsage, match="already there"):
        download(server, tmp_path / "a")
    assert (tmp_path / "a").read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["a"]


@pytest.mark.parametrize("name", ["", ".", "..", "a\0b", "\ud800"])
def test_a_name_that_would_change_the_path(tmp_path: Path, name: str) -> None:
    with RawServer(reply(200)) as server:
        client = RebyteClient(transport=wire_to(server))
        with pytest.raises(BadUsage):
            client.get_artifact("w1", name, tmp_path / "a")
        with pytest.raises(BadUsage):
            client.delete_artifact("w1", name)
    assert server.requests == []


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
            timeout=30,
        )
    assert done.stdout == f"cannot write {target}: File too large\n", done.stderr
    assert len(server.requests) == 1
    assert [path for path in tmp_path.iterdir() if path.is_file()] == []
