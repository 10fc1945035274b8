"""Where a file from the server may go, whatever it says it is called."""

from __future__ import annotations

import errno
import os
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rebyte_cli.api.client import RebyteClient
from rebyte_cli.errors import BadUsage, BrokenAnswer, RebyteError
from rebyte_cli.tasks.download import fetch_all, open_folder, parts_of, was_fetched
from tests.screens import no_bar
from tests.servers import RawServer, reply, transport_to

ESCAPES = [
    "..", ".", "", "../a", "a/../../b", "/etc/passwd", "a//b", "a/", "//host/share", "a\0b",
    "a\\b", "..\\a", "C:\\a", "a\nb", "a\x1b[2Jb", "a/./b", "\udc80", "-rf", "a/--help", "-",
]  # fmt: skip


@pytest.mark.parametrize("name", ESCAPES)
def test_case_41_a_name_that_would_leave_the_folder_is_refused(name: str) -> None:
    with pytest.raises(RebyteError) as refused:
        parts_of(name, hidden=True)
    assert refused.value.code == "unsafe_name"


@pytest.mark.parametrize(
    "name", ["a.txt", "plots/a.png", "a..b", "ü ñ.txt", "a-rf", "a:b", "git.txt", "my.git", "b~1"]
)
def test_an_ordinary_name_stays_as_it_is(name: str) -> None:
    assert parts_of(name) == name.split("/")


REPOSITORIES = [
    ".git/config", ".git", ".GIT/hooks/post-checkout", "a/.gIt/commondir", ".git./config",
    ".git /config", ".git. . /config", "git~1/config", "GIT~2/config", ".git::$INDEX_ALLOCATION/x",
    ".git:config", ".g\u200cit/config", "\ufeff.git/config", "HEAD", "sub/head", "sub/HEAD.",
]  # fmt: skip


@pytest.mark.parametrize("name", REPOSITORIES)
def test_case_51_a_name_that_git_would_obey_is_refused_always(name: str) -> None:
    """`git status` runs what a repository's config says, so no artifact can make or change one."""
    for hidden in (False, True):
        with pytest.raises(RebyteError) as refused:
            parts_of(name, hidden=hidden)
        assert refused.value.code == "unsafe_name"


RUN_BY_PLACE = [
    ".zshenv", ".ssh/authorized_keys", "a/.envrc", ".vscode/tasks.json", "..a", ".github/x.yml",
    "conftest.py", "sub/sitecustomize.py", "node_modules/left-pad/index.js", "AutoRun.inf",
    "\u200c.zshenv", "gradle/conftest.py", "desktop.ini", "_gvimrc", "a/_netrc",
]  # fmt: skip


@pytest.mark.parametrize("name", RUN_BY_PLACE)
def test_case_51_a_name_that_tools_run_needs_hidden(name: str) -> None:
    with pytest.raises(RebyteError) as refused:
        parts_of(name)
    assert refused.value.code == "hidden_name"
    assert "--hidden" in str(refused.value.hint)
    assert parts_of(name, hidden=True) == name.split("/")


def test_case_41_a_planted_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out" / "plots").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "out" / "file").touch()
    with RawServer(reply(200, b"abc")) as server:
        link, file = get_all(server, tmp_path / "out", ["plots/a.png", "file/a.png"])
    assert "is a link" in link.message
    assert "is a file" in file.message
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_case_52_a_folder_that_becomes_a_link_meanwhile_is_not_followed(tmp_path: Path) -> None:
    """Between the check and the last rename, the folder is moved away and a link put there."""
    out, elsewhere = tmp_path / "out", tmp_path / "elsewhere"
    elsewhere.mkdir()

    def script(_request: Any) -> bytes:
        (out / "plots").rename(out / "moved")
        (out / "plots").symlink_to(elsewhere)
        return reply(200, b"abc")

    with RawServer(script) as server:
        get_all(server, out, ["plots/a.png"])
    assert list(elsewhere.iterdir()) == []
    assert [path.name for path in (out / "moved").iterdir()] == ["a.png"]


def test_folders_are_not_for_everyone_to_write(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        with open_folder(tmp_path / "a" / "b", ["c"], "c/x"):
            pass
    finally:
        os.umask(before)
    modes = [(tmp_path / way).stat().st_mode & 0o777 for way in ("a", "a/b", "a/b/c")]
    assert modes == [0o775] * 3


@pytest.mark.slow
def test_case_53_a_packed_download_is_not_unpacked_without_limit(tmp_path: Path) -> None:
    packer = zlib.compressobj(9, wbits=31)
    bomb = b"".join(packer.compress(bytes(1 << 20)) for _ in range(80)) + packer.flush()
    with RawServer(reply(200, bomb, {"Content-Encoding": "gzip"})) as server:
        (refused,) = get_all(server, tmp_path, ["a"])
    assert isinstance(refused, BrokenAnswer)
    assert "64 MiB" in refused.message
    assert list(tmp_path.iterdir()) == []


def test_a_plain_file_of_the_listed_size_was_fetched(tmp_path: Path) -> None:
    unused: Any = None  # nothing is asked where the list has a size

    def is_there(path: str, size: int) -> bool:
        return was_fetched(unused, "w1", path, tmp_path / path, size)

    (tmp_path / "a").write_text("abc")
    (tmp_path / "link").symlink_to(tmp_path / "a")
    assert is_there("a", 3)
    for path, size in (("a", 4), ("link", 3), ("none", 0), (".", 4096)):
        assert not is_there(path, size), path


def get_all(server: RawServer, folder: Path, names: list[str], force: bool = False) -> list[Any]:
    client = RebyteClient(transport=transport_to(server))
    listed = [{"name": name, "size": 3} for name in names]
    return list(
        fetch_all(
            client,
            "ws12",
            listed,
            folder,
            force=force,
            resume=True,
            progress_bar=no_bar,
            note=lambda _: None,
        )
    )


@pytest.mark.parametrize("name", ["n" * 300, "f" * 300 + "/a", "ü" * 200, "a/" * 3000 + "b"])
def test_a_name_that_is_too_long_does_not_stop_the_others(tmp_path: Path, name: str) -> None:
    with RawServer(reply(200, b"abc")) as server:
        rows = get_all(server, tmp_path / "out", ["a", name, "b", "c"])
    assert [row.get("name") if isinstance(row, dict) else row.code for row in rows] == [
        "a", "unsafe_name", "b", "c",
    ]  # fmt: skip
    assert "too long" in rows[1].message
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a", "b", "c", "out"]


def test_a_name_that_only_this_file_system_does_not_take_stops_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Encrypted folders take 143 bytes, others no colon. None can be mounted for a test."""

    def encrypted(call: Callable[..., Any]) -> Callable[..., Any]:
        def checked(path: Any, *args: Any, **options: Any) -> Any:
            if len(os.path.basename(os.fspath(path))) > 143:
                raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG), path)
            return call(path, *args, **options)

        return checked

    for call in (os.open, os.mkdir, os.stat):
        found = encrypted(call)
        monkeypatch.setattr(os, call.__name__, found)
        monkeypatch.setattr(os, "supports_dir_fd", {*os.supports_dir_fd, found})
    with RawServer(reply(200, b"abc")) as server:
        for name in ("n" * 150, "f" * 150 + "/a"):
            rows = get_all(server, tmp_path / "out", ["a", name, "b"], force=True)
            assert isinstance(rows[1], RebyteError)
            assert rows[1].code == "unsafe_name"
            assert [row["name"] for row in rows[::2]] == ["a", "b"]


def test_a_bad_name_does_not_stop_the_others(tmp_path: Path) -> None:
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
