"""Which content of which repository the user trusts."""

from __future__ import annotations

from pathlib import Path

import pytest

from rebyte_cli.system.git import GitFailed
from rebyte_cli.system.trust import Trust, key_of
from tests.repositories import git, with_answer


def test_trust_is_in_a_content_of_a_repository(tmp_path: Path) -> None:
    trust = Trust(tmp_path)
    assert not trust.covers("/a", b"one")
    trust.add("/a", b"one", "setup `x`")
    assert trust.covers("/a", b"one")
    assert not trust.covers("/a", b"two")
    assert not trust.covers("/b", b"one")
    trust.add("/a", b"two", "")
    trust.add("/b", b"one", "")
    assert trust.covers("/a", b"one")
    assert len(trust.records()) == 3
    assert trust.remove("/a") == 2
    assert not trust.covers("/a", b"one")
    assert trust.covers("/b", b"one")
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "trust").iterdir()} == {0o600}


def test_a_damaged_record_is_no_trust(tmp_path: Path) -> None:
    trust = Trust(tmp_path)
    trust.add("/a", b"one", "")
    (record,) = (tmp_path / "trust").iterdir()
    record.write_text(record.read_text().replace('"/a"', '"/b"'))
    assert not trust.covers("/a", b"one")
    record.write_text("[")
    assert trust.records() == []


def test_the_working_trees_of_a_repository_are_one(tmp_path: Path) -> None:
    one = with_answer(tmp_path / "one")
    git(one, "worktree", "add", "-q", str(tmp_path / "two"))
    (tmp_path / "link").symlink_to(one)
    names = {
        key_of(one),
        key_of(tmp_path / "two"),
        key_of(tmp_path / "link"),
        key_of(f"file://{one}"),
    }
    assert names == {str((one / ".git").resolve())}
    assert key_of(with_answer(tmp_path / "other")) not in names


SAME = [
    "https://github.com/acme/shop.git", "https://user:word@GitHub.com/acme/shop", "acme/shop",
    "git@github.com:acme/shop.git", "ssh://git@github.com/acme/shop",
]  # fmt: skip


@pytest.mark.parametrize("url", SAME)
def test_addresses_of_one_repository(url: str) -> None:
    assert key_of(url) == "github.com/acme/shop"


OTHERS = [
    "http://github.com/acme/shop",
    "file://acme/shop",
    "git://github.com/acme/shop",
    "https://github.com:8/acme/shop",
    "https://github.com/acme/shop?of=another",
    "https://github.com/acme/shop#another",
    "https://github.com/~/acme/shop",
    "me@github.com:acme/shop",  # in a home
    "github.com:acme/shop",
]


@pytest.mark.parametrize("url", OTHERS)
def test_an_address_that_proves_less_is_another(url: str) -> None:
    assert key_of(url) != "github.com/acme/shop"


def test_an_address_that_is_none_has_no_key() -> None:
    with pytest.raises(GitFailed, match="no address"):
        key_of("https://u:p@[x/")


def test_a_path_over_ssh_begins_in_the_home_of_who_logs_in() -> None:
    urls = ("ann@h:a/b", "bob@h:a/b", "ann@h:/a/b", "ssh://bob@h/a/b", "h:a/b", "ann@h:a/c")
    assert len({key_of(url) for url in urls}) == len(urls)
    assert key_of("ann@H:/a/b") == key_of("ssh://ann@h/a/b")
