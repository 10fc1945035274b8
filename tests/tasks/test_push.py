"""A push from a repository whose settings, and whose remotes, others may have written."""

from __future__ import annotations

import base64
import contextlib
import os
import shutil
from pathlib import Path

import pytest

from rebyte_cli.system.git import GitFailed
from rebyte_cli.tasks.push import push_branch
from tests import newer_git
from tests.certificates import certificate
from tests.repositories import Repository, git, git_server
from tests.servers import RawServer, Request, reply


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


@pytest.mark.parametrize("form", ["{evil}", "file://{evil}", "evil"])
def test_a_push_runs_no_hook_that_settings_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    """git does so since 2.54, in the repository that receives, too."""
    repository, mark = Repository(tmp_path), tmp_path / "mark"
    evil = repository.path / "evil"
    git(tmp_path, "init", "-q", "--bare", str(evil))
    repository("config", "remote.origin.url", form.format(evil=evil))
    repository("branch", "topic")
    newer_git.name_hook(repository.path / ".git", "sends", mark)
    newer_git.name_hook(evil, "re 'ceives;=$(touch x)", mark)
    log = newer_git.install(tmp_path / "newer", receiver=evil)
    monkeypatch.setenv("PATH", f"{tmp_path / 'newer'}{os.pathsep}{os.environ['PATH']}")
    push_branch(repository.path, "topic", "origin")
    assert git(evil, "rev-parse", "topic") == repository("rev-parse", "topic")
    assert not log.exists(), log.read_text()
    assert not mark.exists()


@pytest.mark.parametrize("place", [".git/hooks/evil.git", "evil", "file://{folder}/e%76il"])
def test_a_push_does_not_follow_links_of_a_repository_on_this_disk(
    tmp_path: Path, place: str
) -> None:
    """git appends to a log of references, in the words of that repository's settings."""
    repository, mine = Repository(tmp_path), tmp_path / "mine"
    mine.write_text("mine\n")
    evil = repository.path / (place if "hooks" in place else "evil")
    git(tmp_path, "init", "-q", *(["--bare"] if "hooks" in place else []), str(evil))
    log = evil / ("" if "hooks" in place else ".git") / "logs/refs/heads/topic"
    log.parent.mkdir(parents=True)
    log.symlink_to(mine)
    repository("config", "remote.origin.url", place.format(folder=repository.path))
    repository("branch", "topic")
    with pytest.raises(GitFailed, match="is a link"):
        push_branch(repository.path, "topic", "origin")
    assert mine.read_text() == "mine\n"


@pytest.mark.parametrize(
    "address",
    [
        "file://x{place}/evil",
        "file:///x@[y]{place}/evil",
        "[x]/evil",
        "evil/",
        "file://{place}/%FF",
    ],
)
def test_the_repository_that_git_finds_is_the_one_that_is_checked(
    tmp_path: Path, address: str
) -> None:
    """git drops a host and what is before `]`, and tries several endings of a name."""
    repository, outside = Repository(tmp_path), tmp_path / "outside"
    outside.mkdir()
    place = repository.path / "]"
    git(tmp_path, "init", "-q", "--bare", str(place / "evil.git"))
    git(tmp_path, "init", "-q", "--bare", str(place / "evil/.git/.git"))  # it does no harm
    (place / os.fsdecode(b"\xff")).symlink_to("evil.git")
    (place / "evil.git/refs/heads").rmdir()
    (place / "evil.git/refs/heads").symlink_to(outside)
    address = f"]/{address}" if address == "evil/" else address.format(place=place)
    repository("config", "remote.origin.url", address)
    with pytest.raises(GitFailed, match=r"is a link|drop a part"):
        push_branch(repository.path, "main", "origin")
    assert list(outside.iterdir()) == []


@pytest.mark.parametrize("address", ["gone", "file:///gone", "file:///gone%00"])
def test_a_push_to_no_repository_on_this_disk_is_refused(tmp_path: Path, address: str) -> None:
    repository = Repository(tmp_path)
    repository("config", "remote.origin.url", address)
    with pytest.raises(GitFailed, match="there is no repository at"):
        push_branch(repository.path, "main", "origin")


def test_a_push_sends_nothing_of_another_repository(tmp_path: Path) -> None:
    """Its settings can be included, and its objects borrowed, by anyone who knows its path."""
    repository, other = Repository(tmp_path), tmp_path / "other"
    git(tmp_path, "init", "-q", str(other))
    git(other, "config", "http.extraHeader", "X-Secret: s3cret")
    serve = git_server(tmp_path)
    git(repository.origin, "config", "http.receivepack", "true")
    with RawServer(serve) as server:
        repository("config", "remote.origin.url", f"{server.origin}/acme/shop.git")
        repository("config", "include.path", str(other / ".git/config"))
        repository("branch", "topic")
        push_branch(repository.path, "topic", "origin")
        assert server.requests
        assert not any("s3cret" in str(request) for request in server.requests)
    lent = repository.path / ".git/objects/info/alternates"
    lent.write_text(f"{other}/.git/objects\n")
    with pytest.raises(GitFailed, match="its objects are those"):
        push_branch(repository.path, "topic", "origin")


@pytest.mark.parametrize("address", ["git@host.invalid:acme/shop.git", "h:shop.git"])
def test_the_users_own_ssh_pushes(
    home: Path, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    monkeypatch.delenv("GIT_SSH_COMMAND", raising=False)
    repository, mark = Repository(home), home / "mark"
    repository("config", "--global", "core.sshCommand", f"touch {mark}; false")
    repository("config", "remote.origin.url", address)
    repository("branch", "topic")
    with pytest.raises(GitFailed):
        push_branch(repository.path, "topic", "origin")
    assert mark.exists()


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


@pytest.mark.parametrize("is_served", [False, True])
def test_no_program_runs_to_negotiate(tmp_path: Path, is_served: bool) -> None:
    """git would fetch from the address, as a remote of that name says."""
    repository, mark = Repository(tmp_path), tmp_path / "mark"
    git(repository.origin, "config", "http.receivepack", "true")
    serve = git_server(tmp_path)

    def refuse(request: Request) -> bytes:
        return reply(403) if request.method == "POST" else serve(request)

    with RawServer(refuse) as server:
        address = f"{server.origin}/acme/shop.git" if is_served else "../acme/shop.git"
        repository("config", "remote.origin.url", address)
        repository("config", "push.negotiate", "true")
        repository("config", f"remote.{address}/.url", ".")
        repository("config", f"remote.{address}.url", ".")
        repository("config", f"remote.{address}/.uploadpack", f"touch {mark}; false")
        repository("config", f"remote.{address}.uploadpack", f"touch {mark}; false")
        repository.write("new", "new")
        repository.commit("New")
        with contextlib.suppress(GitFailed):
            push_branch(repository.path, "main", "origin")
    assert not mark.exists()


def test_a_remote_on_this_disk_fetches_nothing(tmp_path: Path) -> None:
    """A partial clone in the repository would do so by a command that it names."""
    repository, mark = Repository(tmp_path), tmp_path / "mark"
    repository.write("a.txt", "".join(f"{number}\n" for number in range(3000)))
    repository.commit("Large")
    hidden = repository.path / ".git/hidden"
    git(tmp_path, "init", "-q", "--bare", str(hidden))
    shutil.rmtree(hidden / "objects")
    shutil.copytree(repository.path / ".git/objects", hidden / "objects")
    git(hidden, "update-ref", "refs/heads/main", repository("rev-parse", "main").strip())
    blob = repository("rev-parse", "main:a.txt").strip()
    (hidden / "objects" / blob[:2] / blob[2:]).unlink()
    git(hidden, "config", "core.repositoryFormatVersion", "1")
    git(hidden, "config", "extensions.partialClone", "p")
    for name, value in (("promisor", "true"), ("url", "."), ("uploadpack", f"touch {mark}; false")):
        git(hidden, "config", f"remote.p.{name}", value)
    repository.write("a.txt", "".join(f"{number}\n" for number in range(3001)))
    repository.commit("Larger by a delta of what the remote seems to have")
    repository("config", "remote.origin.url", "./.git/hidden")
    with contextlib.suppress(GitFailed):
        push_branch(repository.path, "main", "origin")
    assert not mark.exists()


def test_only_the_user_says_which_helpers_push(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    repository, mark, programs = Repository(home), home / "mark", home / "programs"
    programs.mkdir()
    (programs / "git-remote-own").write_text(f"#!/bin/sh\ntouch {mark}\n")
    (programs / "git-remote-own").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    for address in ("own::x", "own://x"):
        repository("config", "remote.origin.url", address)
        repository("config", "protocol.own.allow", "always")
        with pytest.raises(GitFailed, match="transport 'own' not allowed") as refused:
            push_branch(repository.path, "main", "origin")
        assert not mark.exists()
        assert "--global protocol.own.allow always" in str(refused.value.hint)
    repository("config", "remote.origin.url", f"ext::touch {mark}")
    with pytest.raises(GitFailed, match="transport 'ext' not allowed") as refused:
        push_branch(repository.path, "main", "origin")
    assert refused.value.hint is None
    assert not mark.exists()
    repository("config", "remote.origin.url", "own::x")
    repository("config", "--global", "protocol.own.allow", "always")
    with contextlib.suppress(GitFailed):
        push_branch(repository.path, "main", "origin")
    assert mark.exists()


def test_the_token_of_a_checkout_is_sent(tmp_path: Path) -> None:
    """As actions/checkout leaves it, in a clone of the last commit only."""
    made, shallow = Repository(tmp_path), tmp_path / "shallow"
    made.write("b.txt", "two\n")
    made.commit("Second")
    made("push", "-q", "origin", "main")
    git(made.origin, "config", "http.receivepack", "true")
    git(tmp_path, "clone", "-q", "--depth=1", f"file://{made.origin}", str(shallow))
    (shallow / "c.txt").write_text("three\n")
    git(shallow, "add", ".")
    git(shallow, "commit", "-qm", "Third")
    serve = git_server(tmp_path, "ada:word")
    with RawServer(serve) as server:
        git(shallow, "config", "remote.origin.url", f"{server.origin}/acme/shop.git")
        header = f"AUTHORIZATION: Basic {base64.b64encode(b'ada:word').decode()}"
        git(shallow, "config", f"http.{server.origin}/.extraheader", header)
        push_branch(shallow, "main", "origin")
    assert git(made.origin, "rev-parse", "main") == git(shallow, "rev-parse", "main")
    assert git(shallow, "rev-parse", "origin/main") == git(shallow, "rev-parse", "main")


def test_the_users_configuration_holds_as_in_the_repository(home: Path) -> None:
    """What it says for this folder alone, and other addresses, which it gives once."""
    repository = Repository(home)
    (home / "work").write_text(
        f'[url "{home}/acme/"]\n\tpushInsteadOf = x:\n[url "x:"]\n\tinsteadOf = {home}/\n'
    )
    repository("config", "--global", f"includeIf.gitdir:{repository.path}/.path", "~/work")
    repository("config", "remote.origin.url", "x:shop.git")
    repository("branch", "topic")
    push_branch(repository.path, "topic", "origin")
    assert git(repository.origin, "rev-parse", "topic") == repository("rev-parse", "topic")


@pytest.mark.slow
@pytest.mark.parametrize("form", ["sha1", "sha256"])
def test_a_branch_only_moves_forward_at_each_address(tmp_path: Path, form: str) -> None:
    work, first, second = (tmp_path / name for name in ("work", "first", "second"))
    git(tmp_path, "init", "-q", "-b", "main", f"--object-format={form}", "work")
    for remote in (first, second):
        git(tmp_path, "init", "-q", "--bare", f"--object-format={form}", str(remote))
    git(work, "commit", "-q", "--allow-empty", "-m", "One")
    git(work, "remote", "add", "both", "../first")
    git(work, "config", "--add", "remote.both.url", f"file://{second}")
    git(work, "config", "--add", "remote.both.fetch", "+refs/heads/x:refs/heads/main")
    push_branch(work, "main", "both")
    one = git(work, "rev-parse", "main")
    assert {git(each, "rev-parse", "main") for each in (first, second)} == {one}
    assert git(work, "rev-parse", "both/main") == one
    git(work, "commit", "-q", "--amend", "--allow-empty", "-m", "Other")
    with pytest.raises(GitFailed):
        push_branch(work, "main", "both")
    assert {git(each, "rev-parse", "main") for each in (first, second)} == {one}
    assert git(work, "rev-parse", "both/main") == one
    git(work, "branch", "x")
    push_branch(work, "x", "both")  # whose tracking branch would be one of the user's
    assert git(first, "rev-parse", "x") == git(work, "rev-parse", "x")
    git(work, "reset", "-q", "--hard", one.strip())
    git(work, "config", "remote.both.fetch", "+refs/heads/main:refs/heads/x", "refs/heads/x")
    git(work, "commit", "-q", "--allow-empty", "-m", "Two")
    before = git(work, "rev-parse", "x")
    push_branch(work, "main", str(first))  # an address, for which there is none
    assert git(first, "rev-parse", "main") == git(work, "rev-parse", "main")
    push_branch(work, "main", "both")
    assert git(work, "rev-parse", "x") == before


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
