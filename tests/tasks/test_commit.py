"""A push from a repository whose settings, and whose remotes, others may have written."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest

from rebyte_cli.system.git import GitFailed
from rebyte_cli.tasks.commit import encoded, push_branch
from tests.certificates import certificate
from tests.repositories import Repository, git, git_server
from tests.servers import RawServer, Request


@pytest.mark.parametrize("address", [".git/evil", "file://{folder}/.git/evil", "../evil"])
@pytest.mark.parametrize("allowed", ["", "file:https"])
def test_a_push_runs_no_program_of_a_repository_on_this_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str, allowed: str
) -> None:
    """The remote of a download can be a part of it."""
    if allowed:
        monkeypatch.setenv("GIT_ALLOW_PROTOCOL", allowed)
    repository, mark = Repository(tmp_path), tmp_path / "mark"
    evil = tmp_path / "evil" if address.startswith("..") else repository.path / ".git/evil"
    git(tmp_path, "init", "-q", "--bare", str(evil))
    for name in ("pre-receive", "update", "post-receive", "post-update", "reference-transaction"):
        hook = evil / "hooks" / name
        hook.write_text(f"#!/bin/sh\ntouch {mark}\n")
        hook.chmod(0o755)
    git(evil, "config", "core.alternateRefsCommand", f"touch {mark}")
    (evil / "objects/info/alternates").write_text(f"{repository.origin}/objects\n")
    repository("config", "remote.origin.url", address.format(folder=repository.path))
    repository("branch", "topic")
    push_branch(repository.path, "topic", "origin")
    assert git(evil, "rev-parse", "topic") == repository("rev-parse", "topic")
    assert not mark.exists()


def test_a_protocol_that_the_user_forbids_stays_forbidden(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = Repository(tmp_path)
    monkeypatch.setenv("GIT_ALLOW_PROTOCOL", "https")
    with pytest.raises(GitFailed, match="transport 'file' not allowed"):
        push_branch(repository.path, "main", "origin")


def test_a_helper_of_the_repository_does_not_push(tmp_path: Path) -> None:
    """git takes a name with a slash for a path, from the folder in which it runs."""
    repository, mark = Repository(tmp_path), tmp_path / "mark"
    helper = repository.path / "git-remote-./x"
    helper.parent.mkdir()
    helper.write_text(f"#!/bin/sh\ntouch {mark}\n")
    helper.chmod(0o755)
    repository("config", "remote.origin.vcs", "./x")
    with pytest.raises(GitFailed):
        push_branch(repository.path, "main", "origin")
    assert not mark.exists()


@pytest.mark.parametrize("section", ["http", "http.{origin}"])
@pytest.mark.parametrize("setting", ["sslVerify", "sslCAInfo"])
def test_only_the_user_says_which_certificates_are_trusted(
    home: Path, monkeypatch: pytest.MonkeyPatch, section: str, setting: str
) -> None:
    """A repository could name a proxy, too, that asks for the user's password for any host."""
    monkeypatch.delenv("GIT_SSL_CAINFO", raising=False)
    repository, tls = Repository(home), certificate(home)
    git(repository.origin, "config", "http.receivepack", "true")
    values = {"sslVerify": "false", "sslCAInfo": tls.ca_file}
    serve = git_server(home)
    with RawServer(serve, tls=tls.server) as server:
        name = f"{section.format(origin=server.origin)}.{setting}"
        repository("config", "remote.origin.url", f"{server.origin}/acme/shop.git")
        repository("branch", "topic")
        repository("config", name, values[setting])
        with pytest.raises(GitFailed, match=r"(?i)cert"):
            push_branch(repository.path, "topic", "origin")
        assert server.requests == []
        repository("config", "--global", name, values[setting])
        push_branch(repository.path, "topic", "origin")
    assert git(repository.origin, "rev-parse", "topic") == repository("rev-parse", "topic")


@pytest.mark.parametrize("section", ["http", "http.{origin}"])
def test_a_push_writes_no_cookies_where_the_repository_says(tmp_path: Path, section: str) -> None:
    """A server chooses what is in them, and curl writes them over any file."""
    repository = Repository(tmp_path)
    git(repository.origin, "config", "http.receivepack", "true")
    serve, mine = git_server(tmp_path), tmp_path / "mine"
    mine.write_text("mine")

    def answer(request: Request) -> bytes:
        cookie = b"\r\nSet-Cookie: a=$(id); Max-Age=9999\r\n"
        return serve(request).replace(b"\r\n", cookie, 1)

    with RawServer(answer) as server:
        name = section.format(origin=server.origin)
        repository("config", f"{name}.cookieFile", str(mine))
        repository("config", f"{name}.saveCookies", "true")
        repository("config", "remote.origin.url", f"{server.origin}/acme/shop.git")
        repository("branch", "topic")
        push_branch(repository.path, "topic", "origin")
    assert git(repository.origin, "rev-parse", "topic") == repository("rev-parse", "topic")
    assert mine.read_text() == "mine"


def test_encodings_of_many_files_take_no_minutes(tmp_path: Path) -> None:
    """One line of a patch gives all its files an encoding."""
    git(tmp_path, "init", "-q")
    (tmp_path / ".gitattributes").write_text("*.sh working-tree-encoding=UTF-16\n")
    (tmp_path / "file").touch()
    git(tmp_path, "add", ".")
    blob = git(tmp_path, "rev-parse", ":file").strip()
    names = [f"{number}.sh" for number in range(50_000)]
    subprocess.run(
        ["git", "update-index", "--index-info"], cwd=tmp_path, check=True,
        input="".join(f"100644 {blob}\t{name}\n" for name in names).encode(),
    )  # fmt: skip
    after = git(tmp_path, "write-tree").strip()
    git(tmp_path, "rm", "-q", "--cached", ".gitattributes", "7.sh")
    before = git(tmp_path, "write-tree").strip()
    started = time.monotonic()
    assert encoded(tmp_path, "", after) == dict.fromkeys(sorted(names), "UTF-16")
    assert len(encoded(tmp_path, before, after)) == len(names)
    assert encoded(tmp_path, after, before) == {}
    assert time.monotonic() - started < 8
