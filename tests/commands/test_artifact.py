"""`rebyte artifact`: files of a workspace, up and down."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Done
from tests.servers import Answer, RawServer, chunked, json_reply, reply, then_close

Run = Callable[..., Done]
Aim = Callable[[Any], Any]


@pytest.fixture
def shop(inside_local: Run, home: Path) -> str:
    """A workspace named shop with two artifacts; its id."""
    workspace: str = inside_local("workspace", "create", "--name", "shop").json["id"]
    (home / "a.txt").write_text("first")
    (home / "b.png").write_bytes(b"\x89PNG\r\n\xff")
    put = inside_local("artifact", "put", "shop", "a.txt", "b.png")
    assert put.status == 0, put.err
    return workspace


def test_put_then_list(inside_local: Run, shop: str) -> None:
    listed = inside_local("artifact", "list", shop).json["data"]
    assert {(row["name"], row["size"]) for row in listed} == {("a.txt", 5), ("b.png", 7)}
    assert sorted(inside_local("artifact", "list", "shop", "-o", "id").out.split()) == [
        "a.txt",
        "b.png",
    ]


def test_an_address_that_ends_with_the_command_is_not_printed(
    inside: Run, inside_local: Run, shop: str
) -> None:
    assert all(row["url"] for row in inside_local("artifact", "list", "shop").json["data"])
    inside("-P", "local", "create", "Say hello [[run=1ms]]")
    inside("-P", "local", "artifact", "put", "@last", "a.txt")
    listed = inside("-P", "local", "artifact", "list", "@last")
    assert listed.json["data"]
    assert "127.0.0.1" not in listed.out


def test_get_puts_a_file_and_says_where(inside_local: Run, shop: str, home: Path) -> None:
    done = inside_local("artifact", "get", "shop", "b.png", "-d", "out")
    assert done.json["path"] == "out/b.png"
    assert (home / "out" / "b.png").read_bytes() == b"\x89PNG\r\n\xff"


def test_get_to_a_file_and_to_stdout(inside_local: Run, shop: str, home: Path) -> None:
    assert inside_local("artifact", "get", "shop", "a.txt", "-O", "here.txt").status == 0
    assert (home / "here.txt").read_text() == "first"
    done = inside_local("artifact", "get", "shop", "a.txt", "-O", "-")
    assert (done.out, done.err) == ("first", "")


def test_case_41_what_is_there_is_not_replaced_without_force(
    inside_local: Run, shop: str, home: Path
) -> None:
    (home / "a.txt").write_text("mine")
    assert inside_local("artifact", "get", "shop", "a.txt").status == 2
    assert (home / "a.txt").read_text() == "mine"
    assert inside_local("artifact", "get", "shop", "a.txt", "--force").status == 0
    assert (home / "a.txt").read_text() == "first"


def test_get_all_resumes(inside_local: Run, shop: str, home: Path) -> None:
    done = inside_local("artifact", "get", "shop", "--all", "-d", "out")
    assert len(done.documents) == 2
    (home / "out" / "b.png").unlink()
    again = inside_local("artifact", "get", "shop", "--all", "-d", "out", "-v")
    assert len(again.documents) == 2
    assert "1 of 2 already existed" in again.err
    assert "artifacts/b.png" in again.err
    assert "artifacts/a.txt" not in again.err
    assert (home / "out" / "b.png").read_bytes() == b"\x89PNG\r\n\xff"


def test_delete_named_ones_and_all(inside_local: Run, shop: str) -> None:
    assert inside_local("artifact", "delete", "shop", "a.txt").json["deleted"] is True
    assert inside_local("artifact", "delete", "shop", "a.txt").status == 4
    refused = inside_local("artifact", "delete", "shop", "--all")
    assert refused.status == 2
    assert "--yes" in json.loads(refused.err)["error"]["hint"]
    assert inside_local("artifact", "delete", "shop", "--all", "--yes").status == 0
    assert inside_local("artifact", "list", "shop").json == {"data": []}


def test_a_large_file_goes_to_a_signed_url(inside_local: Run, shop: str, home: Path) -> None:
    with (home / "large.mp4").open("wb") as large:
        large.truncate(9 * 1024 * 1024)
    done = inside_local("artifact", "put", "shop", "large.mp4", "-v")
    assert done.status == 0
    assert "/upload-url" in done.err
    rows = inside_local("artifact", "list", "shop").json["data"]
    assert {row["name"]: row["size"] for row in rows}["large.mp4"] == 9 * 1024 * 1024


@pytest.mark.parametrize(
    "words", [["get", "WS"], ["get", "WS", "a", "--all"], ["get", "WS", "a", "b", "-O", "x"],
              ["delete", "WS"], ["put", "WS", "x/same.txt", "y/same.txt"]],
)  # fmt: skip
def test_contradictory_options_are_refused(inside: Run, home: Path, words: list[str]) -> None:
    for folder in ("x", "y"):
        (home / folder).mkdir()
        (home / folder / "same.txt").touch()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REBYTE_API_KEY", "rbk_x")
        patch.setenv("REBYTE_API_URL", "http://127.0.0.1:9/v1")
        assert inside("artifact", *words).status == 2


@pytest.mark.parametrize(
    "listed",
    [[{"name": "a.txt"}], {"artifacts": [{"filename": "a.txt", "size": 5}]},
     {"data": [{"filename": "a.txt", "name": "a.txt"}]}, {"files": [{"name": "a.txt", "x": {}}]}],
)  # fmt: skip
def test_any_shape_of_the_list_will_do(inside: Run, aim: Aim, home: Path, listed: Any) -> None:
    def script(request: Any) -> bytes:
        return reply(200, b"first") if request.path.endswith("/a.txt") else json_reply(listed)

    with RawServer(script) as server:
        aim(server)
        assert inside("artifact", "list", "ws12", "-o", "id").out == "a.txt\n"
        assert inside("artifact", "get", "ws12", "--all", "-d", "out").status == 0
    assert (home / "out" / "a.txt").read_text() == "first"


def test_a_redirect_to_another_host_is_followed_without_the_key(
    inside: Run, aim: Aim, home: Path
) -> None:
    with RawServer(reply(200, b"first")) as storage:
        there = {"Location": f"{storage.origin}/bucket/a.txt?signature=abc"}
        with RawServer(reply(302, b"", there)) as server:
            aim(server)
            assert inside("artifact", "get", "ws12", "a.txt").status == 0
    assert (home / "a.txt").read_text() == "first"
    assert "api_key" in server.requests[0].headers
    assert "api_key" not in storage.requests[0].headers


def test_half_a_file_is_no_file(inside: Run, aim: Aim, home: Path) -> None:
    with RawServer(then_close(reply(200, b"fir", length=500))) as server:
        aim(server)
        done = inside("artifact", "get", "ws12", "a.txt")
    assert done.status == 5
    assert [path for path in home.iterdir() if "a.txt" in path.name] == []


def test_a_name_may_be_called_filename_and_a_size_anything(
    inside: Run, aim: Aim, home: Path
) -> None:
    row = {"name": None, "filename": "a.txt", "sizeBytes": 5}

    def script(request: Any) -> bytes:
        return json_reply([row]) if request.path.endswith("/artifacts") else reply(200, "first")

    with RawServer(script) as server:
        aim(server)
        assert inside("artifact", "list", "ws12").json["data"][0]["name"] == "a.txt"
        for _ in range(2):
            done = inside("artifact", "get", "ws12", "--all", "-d", "out")
            assert (done.status, done.json["path"]) == (0, "out/a.txt")
    assert len([r for r in server.requests if r.path.endswith("/a.txt")]) == 1


# `get --all`, repeated

LENGTHS = {"told": reply(200, b"first"), "untold": chunked([b"fi", b"rst"])}


def store(answer: Answer) -> Callable[[Any], Answer]:
    """A workspace with one artifact whose size no list tells."""
    listed = json_reply({"data": [{"filename": "a.txt"}]})
    return lambda request: listed if request.path.endswith("/artifacts") else answer


@pytest.mark.parametrize("length", LENGTHS)
def test_a_second_run_needs_no_size_in_the_list(
    length: str, inside: Run, aim: Aim, home: Path
) -> None:
    with RawServer(store(LENGTHS[length])) as server:
        aim(server)
        for _ in range(2):
            done = inside("artifact", "get", "ws12", "--all", "-d", "out")
            assert (done.status, done.json["path"]) == (0, "out/a.txt"), done.err
    assert "1 of 1 already existed" in done.err
    assert [path.name for path in (home / "out").iterdir()] == ["a.txt"]
    assert (home / "out" / "a.txt").read_text() == "first"


@pytest.mark.parametrize("length", LENGTHS)
def test_a_different_file_is_refused_and_replaced_with_force(
    length: str, inside: Run, aim: Aim, home: Path
) -> None:
    there = home / "out" / "a.txt"
    there.parent.mkdir()
    with RawServer(store(LENGTHS[length])) as server:
        aim(server)
        for mine in ("mine, longer", "fir"):
            there.write_text(mine)
            done = inside("artifact", "get", "ws12", "--all", "-d", "out")
            assert done.status == 2
            assert "--force" in done.err
            assert there.read_text() == mine
        assert inside("artifact", "get", "ws12", "--all", "-d", "out", "--force").status == 0
    assert there.read_text() == "first"


def test_without_a_length_the_bytes_decide(inside: Run, aim: Aim, home: Path) -> None:
    (home / "a.txt").write_text("FIRST")
    with RawServer(store(LENGTHS["untold"])) as server:
        aim(server)
        assert inside("artifact", "get", "ws12", "--all").status == 2
    assert (home / "a.txt").read_text() == "FIRST"


def test_force_replaces_also_what_has_the_listed_size(inside: Run, aim: Aim, home: Path) -> None:
    (home / "a.txt").write_text("FIRST")
    listed = json_reply([{"filename": "a.txt", "size": 5}])
    with RawServer(
        lambda request: listed if request.path.endswith("/artifacts") else LENGTHS["told"]
    ) as server:
        aim(server)
        assert inside("artifact", "get", "ws12", "--all", "--force").status == 0
    assert (home / "a.txt").read_text() == "first"


def test_a_large_file_that_is_there_is_not_fetched_again(inside: Run, aim: Aim, home: Path) -> None:
    size = 64 * 1024 * 1024
    with (home / "a.txt").open("wb") as large:
        large.truncate(size)
    sent: list[int] = []

    def pour(line: Any) -> None:
        line.send(b"HTTP/1.1 200 X\r\nContent-Length: %d\r\n\r\n" % size)
        for _ in range(size // 65536):
            line.send(bytes(65536))
            sent.append(65536)

    with RawServer(store(pour)) as server:
        aim(server)
        assert inside("artifact", "get", "ws12", "--all").status == 0
    assert sum(sent) < size / 2


def test_case_51_no_artifact_is_written_where_a_tool_would_run_it(
    inside: Run, aim: Aim, home: Path
) -> None:
    names = [".git/config", ".zshenv", "report.pdf"]
    listed = json_reply([{"filename": name} for name in names])
    with RawServer(
        lambda request: listed if request.path.endswith("/artifacts") else reply(200, "x")
    ) as server:
        aim(server)
        done = inside("artifact", "get", "ws12", "--all")
        assert done.status == 1
        assert [row["path"] for row in done.documents] == ["report.pdf"]
        assert "'.git/config' was not written" in done.err
        assert sorted(path.name for path in home.iterdir()) == ["report.pdf"]
        assert inside("artifact", "get", "ws12", "--all", "--hidden").status == 1
        assert inside("artifact", "get", "ws12", ".zshenv").status == 1
    assert sorted(path.name for path in home.iterdir()) == [".zshenv", "report.pdf"]
