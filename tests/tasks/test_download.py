"""Where a file from the server may go, whatever it says it is called."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rebyte_cli.api.client import RebyteClient
from rebyte_cli.errors import BadUsage, RebyteError
from rebyte_cli.output.console import Console
from rebyte_cli.tasks.download import fetch_all, is_whole, target_in
from tests.servers import RawServer, reply, wire_to

ESCAPES = [
    "..", ".", "", "../a", "a/../../b", "/etc/passwd", "a//b", "a/", "//host/share", "a\0b",
    "a\\b", "..\\a", "C:\\a", "a\nb", "a\x1b[2Jb", "a/./b", "\udc80",
]  # fmt: skip


@pytest.mark.parametrize("name", ESCAPES)
def test_case_41_a_name_that_would_leave_the_folder_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(RebyteError) as refused:
        target_in(tmp_path, name)
    assert refused.value.code == "unsafe_name"


@pytest.mark.parametrize("name", ["a.txt", "plots/a.png", "..a", "a..b", "ü ñ.txt", "-rf", "a:b"])
def test_an_ordinary_name_stays_as_it_is(tmp_path: Path, name: str) -> None:
    assert target_in(tmp_path, name) == tmp_path / name


def test_case_41_a_planted_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out" / "plots").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(RebyteError, match="is a link"):
        target_in(tmp_path / "out", "plots/a.png")
    (tmp_path / "out" / "file").touch()
    with pytest.raises(RebyteError, match="is a file"):
        target_in(tmp_path / "out", "file/a.png")


def test_whole_means_a_plain_file_of_that_size(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("abc")
    (tmp_path / "link").symlink_to(tmp_path / "a")
    assert is_whole(tmp_path / "a", 3)
    for path, size in (("a", 4), ("a", None), ("a", True), ("link", 3), ("none", 0), (".", 4096)):
        assert not is_whole(tmp_path / path, size), path


def get_all(server: RawServer, folder: Path, names: list[str], force: bool = False) -> list[Any]:
    client = RebyteClient(transport=wire_to(server))
    listed = [{"name": name, "size": 3} for name in names]
    console = Console(None, None)
    return list(
        fetch_all(
            client,
            "ws12",
            listed,
            folder,
            force=force,
            resume=True,
            console=console,
            note=lambda _: None,
        )
    )


def test_one_bad_name_does_not_keep_the_others(tmp_path: Path) -> None:
    with RawServer(reply(200, b"abc")) as server:
        rows = get_all(server, tmp_path / "out", ["a", "../b", "c/d"])
    assert [row.get("path") if isinstance(row, dict) else row.code for row in rows] == [
        str(tmp_path / "out" / "a"),
        "unsafe_name",
        str(tmp_path / "out" / "c" / "d"),
    ]
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a", "c", "d", "out"]


def test_case_41_a_link_in_the_place_of_a_file_is_replaced_only_with_force(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a").symlink_to(victim)
    with RawServer(reply(200, b"abc")) as server:
        (refused,) = get_all(server, tmp_path / "out", ["a"])
        assert isinstance(refused, BadUsage)
        (row,) = get_all(server, tmp_path / "out", ["a"], force=True)
    assert victim.read_text() == "precious"
    assert Path(row["path"]).read_text() == "abc"
    assert not Path(row["path"]).is_symlink()


def test_names_are_sent_as_one_piece_of_the_path(tmp_path: Path) -> None:
    with RawServer(reply(200, b"abc")) as server:
        get_all(server, tmp_path, ["c/d e?f#g%h"])
    assert server.requests[0].path.endswith("/artifacts/c%2Fd%20e%3Ff%23g%25h")
