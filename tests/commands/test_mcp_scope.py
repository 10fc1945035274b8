"""What a client of `rebyte mcp` cannot make a task do, asked over pipes of a real process."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.certificates import certificate
from tests.conftest import Done
from tests.local.agents.bench import need_jail
from tests.servers import RawServer, Request, json_reply, reply

from .test_mcp import called, refused, served, served_by_a_process

if TYPE_CHECKING:
    from mcp import Client

Run = Callable[..., Done]

AGENT = """
[local]
jail = "off"

[local.agents.mine]
command = ["sh", "-c", "cat > /dev/null; cat SECRET; date +%N > made; echo done"]
"""


def git(folder: Path, *words: str) -> None:
    subprocess.run(["git", "-C", str(folder), *words], check=True, capture_output=True)


def repository(folder: Path) -> Path:
    folder.mkdir(parents=True)
    git(folder, "init", "-q", "-b", "main")
    (folder / "a.txt").write_text("a\n")
    git(folder, "add", ".")
    git(folder, "-c", "user.name=a", "-c", "user.email=a@b.c", "commit", "-qm", "First")
    return folder


@pytest.fixture
def agent(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An agent on this machine that tries to read a file, and settings that allow it everything."""
    need_jail()
    monkeypatch.delenv("REBYTE_LOCAL_AGENTS")
    monkeypatch.setenv("REBYTE_LOCAL_QUIET", "1")
    config = home / ".config" / "rebyte" / "config.toml"
    config.parent.mkdir(parents=True)
    config.write_text(AGENT.replace("SECRET", str(home / "secret")))
    (home / "secret").write_text("out of the sandbox")


@pytest.mark.slow
def test_a_repository_is_the_folder_of_the_server_or_from_the_network(home: Path, aim: Any) -> None:
    elsewhere = [
        *("/", "/etc", "./x", "../x", "~", "~root/x", "-x/y", "_x/y", "../y", "x", "file:///srv/x"),
        *("ssh://h/a/b", "git@h:a/b", "http://h/a/b", "git://h/a/b", "ext::sh -c touch% x"),
    ]

    async def story(client: Client) -> None:
        for given in elsewhere:
            error = (await refused(client, "create", prompt="x", repository=given))["error"]
            assert (error["code"], error["exit"]) == ("usage", 2), given
        assert not server.requests
        for given in ("", "acme/shop", "https://github.com/acme/shop.git"):
            assert (await called(client, "create", prompt="x", repository=given))["id"] == "t1"

    with RawServer(json_reply({"id": "t1"}, 201)) as server:
        aim(server)
        served(story=story)
        assert [request.json.get("githubUrl") for request in server.requests] == [
            *(None, "acme/shop", "acme/shop")
        ]


@pytest.mark.slow
def test_a_root_allows_the_repositories_below_it(home: Path, agent: None) -> None:
    inside = repository(home / "src" / "shop")
    private = repository(home / "private")
    (home / "src" / "link").symlink_to(private)
    planted = home / "src" / "planted"
    planted.mkdir()
    (planted / ".git").write_text(f"gitdir: {private}/.git\n")

    async def story(client: Client) -> None:
        sent = {"prompt": "x", "executor": "mine"}
        for outside in (private, home / "src" / "link", planted, f"{inside}/../../private"):
            error = (await refused(client, "create", **sent, repository=str(outside)))["error"]
            assert "is not in a folder that this server may use" in error["message"]
            assert "--root DIR" in error["hint"]
        created = await called(client, "create", **sent, repository=str(inside))
        await called(client, "wait", task=created["id"])
        assert "made" in await called(client, "diff", task=created["id"])

    served_by_a_process("-P", "local", after=("--root", str(home / "src")), story=story)


@pytest.mark.slow
def test_a_server_does_not_lead_a_clone_to_this_machine(
    home: Path, agent: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor to plain http, by a redirect."""
    trusted = certificate(home)
    monkeypatch.setenv("GIT_SSL_CAINFO", trusted.ca_file)

    def redirected(request: Request) -> bytes:
        return reply(302, headers={"Location": f"{private.origin}{request.path}"})

    async def story(client: Client) -> None:
        sent = {"prompt": "x", "executor": "mine", "repository": f"{server.origin}/o/any.git"}
        created = await called(client, "create", **sent)
        failed = await refused(client, "wait", task=created["id"])
        assert f"redirects to {private.origin}/o/any.git" in str(failed)

    with RawServer(reply(404)) as private, RawServer(redirected, tls=trusted.server) as server:
        served_by_a_process("-P", "local", story=story)
        assert server.requests
        assert private.requests == []


@pytest.mark.slow
def test_an_agent_runs_in_a_sandbox_whatever_the_settings_are(
    home: Path, agent: None, rebyte: Run
) -> None:
    loose = rebyte("-P", "local", "create", "x", "-x", "mine", "--wait", "-q")
    assert loose.status == 0, loose.err
    read = rebyte("-P", "local", "result", "@last")
    assert "out of the sandbox" in read.out  # which the settings allow the user

    async def story(client: Client) -> None:
        created = await called(client, "create", prompt="x", executor="mine")
        for sent in ({}, await called(client, "follow_up", task=created["id"], prompt="y")):
            await called(client, "wait", task=created["id"], prompt_id=sent.get("promptId"))
            answer = await called(client, "result", task=created["id"])
            assert answer.strip() == "done"

    served_by_a_process("-P", "local", story=story)


@pytest.mark.slow
def test_an_agent_without_a_sandbox_is_refused(
    home: Path, agent: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the hint names no way to do without."""
    (home / "bin").mkdir()
    (home / "bin" / "bwrap").write_text("#!/bin/sh\necho no >&2\nexit 1\n")
    (home / "bin" / "bwrap").chmod(0o755)
    monkeypatch.setenv("PATH", f"{home / 'bin'}:{os.environ['PATH']}")

    async def story(client: Client) -> None:
        error = (await refused(client, "create", prompt="x", executor="mine"))["error"]
        assert error["code"] == "executor_unavailable"
        assert "no-jail" not in str(error)

    served_by_a_process("-P", "local", story=story)


@pytest.mark.slow
def test_the_patch_of_the_users_task_is_out_of_reach(home: Path, agent: None, rebyte: Run) -> None:
    source = repository(home / "shop")
    own = rebyte(
        *("-P", "local", "create", "x", "-x", "mine", "-g", str(source), "--wait", "-q"),
        *("-o", "json", "--once", "nightly"),
    ).json
    before = rebyte("-P", "local", "diff", own["id"]).out
    assert "+++ b/made" in before

    async def attack(client: Client) -> None:
        workspace = own["workspaceId"]
        for reference in (own["id"], workspace, "@last"):
            error = await refused(
                client, "create", prompt="x", executor="mine", workspace=reference
            )
            assert error["error"]["code"] == "not_allowed", error
        # A key names the user's task, and does not make it one of this server.
        same = await called(client, "create", prompt="x", executor="mine", once="nightly")
        assert same["id"] == own["id"]
        for tool, more in (("answer", {"texts": ["y"]}), ("follow_up", {"prompt": "y"})):
            error = await refused(client, tool, task=own["id"], **more)
            assert error["error"]["code"] == "not_allowed"
        assert "--workspace" in error["error"]["hint"]
        error = await refused(client, "create", prompt="x", executor="mine", workspace=workspace)
        assert error["error"]["code"] == "not_allowed"

    async def allowed(client: Client) -> None:
        sent = await called(client, "follow_up", task=own["id"], prompt="y")
        await called(client, "wait", task=own["id"], prompt_id=sent["promptId"])
        mine = await called(client, "create", prompt="x", executor="mine")
        again = await called(client, "create", prompt="x", executor="mine", workspace=mine["id"])
        assert again["workspaceId"] == mine["workspaceId"]

    served_by_a_process("-P", "local", story=attack)
    assert rebyte("-P", "local", "diff", own["id"]).out == before
    served_by_a_process("-P", "local", after=("--workspace", own["id"]), story=allowed)


def test_prompts_are_checked_before_anything_is_sent(home: Path, aim: Any) -> None:
    async def story(client: Client) -> None:
        for prompt in (" \n", "x" * 100_001):
            for tool, more in (("create", {}), ("follow_up", {"task": "t1"})):
                error = (await refused(client, tool, prompt=prompt, **more))["error"]
                assert (error["code"], error["exit"]) == ("usage", 2)
                assert "prompt" in error["message"]

    async def own(client: Client) -> None:
        await called(client, "create", prompt="x")
        await story(client)

    with RawServer(json_reply({"id": "t1"}, 201)) as server:
        aim(server)
        served(story=own)
        assert len(server.requests) == 1


@pytest.mark.slow
def test_a_key_that_a_client_has_claimed_does_not_make_the_users_task_its_own(
    home: Path, agent: None, rebyte: Run
) -> None:
    """Before the user's create, by one that is refused; it may send the very same prompt after."""

    async def story(client: Client) -> None:
        await refused(client, "create", prompt="x", executor="no-such-agent", once="nightly")
        own = rebyte(
            *("-P", "local", "create", "x", "-x", "mine", "--once", "nightly", "--wait"),
            *("-o", "json"),
        ).json
        same = await called(client, "create", prompt="x", executor="mine", once="nightly")
        assert same["id"] == own["id"]
        error = await refused(client, "follow_up", task=own["id"], prompt="y")
        assert error["error"]["code"] == "not_allowed"
        error = await refused(
            client, "create", prompt="x", executor="mine", workspace=own["workspaceId"]
        )
        assert error["error"]["code"] == "not_allowed"

    served_by_a_process("-P", "local", story=story)


@pytest.mark.slow
def test_a_task_of_the_server_stays_its_own_when_its_key_is_repeated(
    home: Path, agent: None
) -> None:
    async def story(client: Client) -> None:
        sent = {"prompt": "x", "executor": "mine", "once": "own"}
        made = await called(client, "create", **sent)
        assert (await called(client, "create", **sent))["id"] == made["id"]
        await called(client, "wait", task=made["id"])
        await called(client, "follow_up", task=made["id"], prompt="y")

    served_by_a_process("-P", "local", story=story)
