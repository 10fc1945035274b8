"""`rebyte artifact get --all`, once more: what is there and whole is left alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Done
from tests.servers import Answer, RawServer, chunked, json_reply, reply

Run = Callable[..., Done]
Aim = Callable[[Any], Any]
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
    assert "1 of 1 were there already" in done.err
    assert [path.name for path in (home / "out").iterdir()] == ["a.txt"]
    assert (home / "out" / "a.txt").read_text() == "first"


@pytest.mark.parametrize("length", LENGTHS)
def test_what_is_there_and_differs_is_refused_and_replaced_with_force(
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


def test_where_no_length_is_told_the_bytes_decide(inside: Run, aim: Aim, home: Path) -> None:
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
