"""Where a server may send a clone: to another of its paths, and to https."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from rebyte_cli.local.agents.sources import skills
from rebyte_cli.local.agents.sources.clone import followed
from rebyte_cli.local.agents.sources.source import PASSWORD, USER
from rebyte_cli.local.agents.workspaces.workspace_folder import Workspace, WorkspaceSource
from rebyte_cli.system.git import GitFailed
from tests.repositories import git, git_server, small_repository
from tests.servers import RawServer, Request, reply

LOGIN = "victim:s3cret"


@pytest.fixture
def forge(home: Path) -> Path:
    """A folder with a bare repository, `o/new.git`."""
    source = small_repository(home / "source")
    git(home, "clone", "-q", "--bare", str(source), "forge/o/new.git")
    return home / "forge"


def renamed(answer: Callable[[Request], bytes], there: str) -> Callable[[Request], bytes]:
    """A server on which `/o/old.git` is `there` now."""

    def script(request: Request) -> bytes:
        if request.path.startswith("/o/old.git/"):
            return reply(301, headers={"Location": request.path.replace("/o/old.git", there)})
        return answer(request)

    return script


def cloned(home: Path, url: str) -> Workspace:
    workspace = Workspace(home, "ws")
    workspace.prepare(WorkspaceSource(url, None, False), ())
    assert (workspace.code / "code.txt").read_text() == "one\n"
    return workspace


def test_a_repository_with_a_new_name_is_cloned(home: Path, forge: Path) -> None:
    """Its address stays the one that was named."""
    with RawServer(renamed(git_server(forge), "/o/new.git")) as server:
        workspace = cloned(home, f"{server.origin}/o/old.git/")
        origin = git(workspace.code, "remote", "get-url", "origin").strip()
        assert origin == f"{server.origin}/o/old.git/"


@pytest.mark.slow
def test_a_private_repository_with_a_new_name_gets_its_login(
    home: Path, forge: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A login in the URL that was named, and one that the user's git knows."""
    answer = renamed(git_server(forge, LOGIN), "/o/new.git")
    monkeypatch.setenv(USER, "victim")
    monkeypatch.setenv(PASSWORD, "s3cret")
    with RawServer(answer) as server:
        cloned(home, f"{server.origin}/o/old.git").remove()
        monkeypatch.delenv(USER)
        known = server.origin.replace("//", f"//{LOGIN}@")
        (home / ".git-credentials").write_text(f"{known}\n")
        git(home, "config", "--global", "credential.helper", "store")
        cloned(home, f"{server.origin}/o/old.git")


def test_a_new_name_on_the_server_that_the_users_git_takes_instead(home: Path, forge: Path) -> None:
    with RawServer(renamed(git_server(forge), "/o/new.git")) as server:
        name = f"url.{server.origin}/.insteadOf"
        git(home, "config", "--global", name, "https://forge.example/")
        cloned(home, "https://forge.example/o/old.git")


@pytest.mark.parametrize("path", ["/o/new.git", "/admin/delete?all=yes&"])
def test_another_server_is_not_reached(home: Path, forge: Path, path: str) -> None:
    """With the login that the user's git has for it least of all. The answer names it."""
    git(home, "config", "--global", "credential.helper", "store")
    with RawServer(git_server(forge, LOGIN)) as private:
        known = private.origin.replace("//", f"//{LOGIN}@")
        (home / ".git-credentials").write_text(f"{known}\n")
        evil = renamed(lambda _: reply(404), private.origin + path)
        with RawServer(evil) as server, pytest.raises(GitFailed) as error:
            cloned(home, f"{server.origin}/o/old.git")
        assert private.requests == []
        assert f"redirects to {private.origin}{path}" in error.value.message
        assert "-g" in error.value.message
    assert not Workspace(home, "ws").code.exists()


def test_a_repository_here_does_not_say_which_server_was_named(
    home: Path, forge: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder in which a command runs may be a download."""
    monkeypatch.chdir(home / "source")
    with RawServer(git_server(forge)) as private:
        evil = renamed(lambda _: reply(404), f"{private.origin}/o/new.git")
        with RawServer(evil) as server:
            git(home / "source", "config", f"url.{private.origin}/.insteadOf", f"{server.origin}/")
            with pytest.raises(GitFailed, match="redirects to"):
                cloned(home, f"{server.origin}/o/old.git")
        assert private.requests == []


def test_a_redirect_of_what_follows_is_not_followed_either(home: Path, forge: Path) -> None:
    """Such as that of the request for the objects."""
    answer = git_server(forge)
    with RawServer(reply(404)) as private:

        def script(request: Request) -> bytes:
            if request.method == "POST":
                return reply(307, headers={"Location": private.origin + request.path})
            return answer(request)

        with RawServer(script) as server, pytest.raises(GitFailed, match="redirects to"):
            cloned(home, f"{server.origin}/o/new.git")
        assert private.requests == []


def test_a_server_that_redirects_for_ever(home: Path) -> None:
    def script(request: Request) -> bytes:
        return reply(302, headers={"Location": f"/x{request.path}"})

    with RawServer(script) as server, pytest.raises(GitFailed, match="redirects"):
        cloned(home, f"{server.origin}/o/old.git")
    assert 1 < len(server.requests) < 10


def test_words_of_a_server_are_no_redirect(home: Path) -> None:
    """git repeats them as they are, with line ends."""
    with RawServer(reply(404)) as private:
        lie = (
            f"ERR \nfatal: unable to access '{private.origin}/o/old.git/': The requested URL "
            f"returned error: 302\n<= Recv header: Location: {private.origin}/o/new.git/info/refs"
            "?service=git-upload-pack\n"
        ).encode()
        told = b"%04x%s" % (len(lie) + 4, lie)
        kind = {"Content-Type": "application/x-git-upload-pack-advertisement"}
        with RawServer(reply(200, told, kind)) as server, pytest.raises(GitFailed):
            cloned(home, f"{server.origin}/o/old.git")
        assert private.requests == []


def test_a_proxy_of_the_user_is_used_and_https_taken_instead_of_http(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def script(request: Request) -> bytes:
        if request.method == "CONNECT":
            return reply(403)
        return reply(301, headers={"Location": request.path.replace("http:", "https:")})

    with RawServer(script) as proxy:
        for name in ("http_proxy", "https_proxy"):
            monkeypatch.setenv(name, proxy.origin)
        with pytest.raises(GitFailed, match="403"):
            cloned(home, "http://forge.example/o/new.git")
    assert [request.method for request in proxy.requests] == ["GET", "CONNECT"]
    assert proxy.requests[1].path == "forge.example:443"


def test_a_skill_is_cloned_by_the_same_rules(home: Path) -> None:
    with RawServer(reply(404)) as private:
        evil = renamed(lambda _: reply(404), f"{private.origin}/o/new.git")
        with RawServer(evil) as server:
            name = f"url.{server.origin}/.insteadOf"
            git(home, "config", "--global", name, "https://github.com/")
            with pytest.raises(GitFailed, match="redirects to"):
                skills.resolve(["github:o/old"], [], home / "cache")
        assert private.requests == []


def test_the_memory_of_a_clone_is_bounded(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever starts for it: here, what stands for ssh."""
    monkeypatch.setenv("GIT_SSH_COMMAND", f"ulimit -d > '{home}/bound'; false")
    with pytest.raises(GitFailed):
        cloned(home, "git@forge.example:o/new.git")
    assert (home / "bound").read_text() == f"{4 * 1024**2}\n"


SUFFIX = "/info/refs?service=git-upload-pack"


@pytest.mark.parametrize(
    ("named", "location", "address"),
    [
        ("https://h/a.git", "https://h/b.git", "https://h/b.git"),
        ("https://h/a.git", "https://H:443/b.git", "https://h/b.git"),
        ("https://h:8443/a", "https://h:8443/b", "https://h:8443/b"),
        ("https://h/a.git", "//h/b.git", "https://h/b.git"),
        ("https://h/a.git", "/b%20c.git", "https://h/b%20c.git"),
        ("http://h/a.git", "https://h/b.git", "https://h/b.git"),
        ("http://h:80/a.git", "https://h:443/b.git", "https://h/b.git"),
        ("http://[::1]/a.git", "https://[::1]/b.git", "https://[::1]/b.git"),
        ("https://token@h/a.git", "https://h/b.git", "https://h/b.git"),
        ("https://h/a.git", "http://h/b.git", None),
        ("https://h/a.git", "https://h:8443/b.git", None),
        ("http://h:8080/a.git", "https://h:8080/b.git", None),
        ("https://h/a.git", "https://h.evil/b.git", None),
        ("https://h/a.git", "https://h@evil/b.git", None),
        ("https://h/a.git", "https://evil@h/b.git", None),
        ("https://h/a.git", "https://h\\@evil/b.git", None),
        ("https://h/a.git", "https://[h/b.git", None),
        ("https://h/a.git", "https://h/?x=/b.git", None),
        ("https://h/a.git", "https://evil/?x=//h/b.git", None),
        ("https://h/a.git", "file:///etc/b.git", None),
        ("https://h/a.git", "ext::sh", None),
    ],
)
def test_the_server_that_was_named(named: str, location: str, address: str | None) -> None:
    assert followed(named, location + SUFFIX) == address
    assert followed(named, location) is None, "git asks for nothing else"
