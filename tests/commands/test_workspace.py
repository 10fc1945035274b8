"""`rebyte workspace`: agent computers of the account beside the workspaces of the history."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pexpect
import pytest

from rebyte_cli.errors import RebyteError, WaitTimeout
from rebyte_cli.system.deadline import Deadline
from rebyte_cli.tasks.workspaces import ready
from tests.conftest import COMMAND, Done
from tests.servers import KEY, RawServer, Request, closed_port, error_reply, json_reply
from tests.terminals import Session, finish

Run = Callable[..., Done]


Aim = Callable[[Any], Any]


COMPUTER = {"id": "ws123456", "name": "box", "status": "ready", "url": "https://x/ws123456"}


def test_create_wait_then_run_in_it_by_its_name(inside_local: Run) -> None:
    made = inside_local("workspace", "create", "--name", "shop", "--wait").json
    assert made["status"] == "ready"
    task = inside_local("create", "Add tests [[run=1ms]]", "-w", "shop").json
    assert task["workspaceId"] == made["id"]
    shown = inside_local("workspace", "show", "shop").json
    assert (shown["status"], shown["tasks"], shown["lastTask"]) == ("ready", 1, task["id"])


def test_the_workspace_of_a_task_is_no_agent_computer(inside_local: Run) -> None:
    workspace = inside_local("create", "Hi [[run=1ms]]").json["workspaceId"]
    done = inside_local("workspace", "delete", "@last", "--yes")
    assert done.status == 4
    assert f"`rebyte workspace forget {workspace}`" in json.loads(done.err)["error"]["hint"]


def test_what_is_not_there_is_not_asked_about(inside_local: Run) -> None:
    made = inside_local("workspace", "create", "--name", "shop").json["id"]
    done = inside_local("workspace", "delete", "shpo")
    assert (done.status, "Did you mean 'shop'?" in done.err) == (4, True)
    for name in ("shop", made):
        done = inside_local("workspace", "delete", name)
        assert (done.status, "--yes" in done.err) == (2, True)


def test_a_computer_that_cannot_start_says_why(inside_local: Run) -> None:
    done = inside_local("workspace", "create", "--name", "[[fail]]", "--wait")
    assert done.status == 1
    assert json.loads(done.err.splitlines()[-1])["error"]["code"] == "provision_failed"
    assert done.out == ""


def test_list_joins_the_account_with_the_history(inside_local: Run) -> None:
    here = inside_local("create", "One [[run=1ms]]").json["workspaceId"]
    used = inside_local("workspace", "create", "--name", "used").json["id"]
    inside_local("create", "Two [[run=1ms]]", "-w", "used")
    inside_local("api", "POST", "/agent-computers", "-d", '{"name": "elsewhere"}')
    rows = inside_local("workspace", "list").json["data"]
    assert [(row["name"], row["tasks"]) for row in rows] == [
        ("used", 1), ("elsewhere", 0), (None, 1),
    ]  # fmt: skip
    assert [rows[0]["id"], rows[2]["id"]] == [used, here]
    assert rows[0]["status"] == "ready" or rows[0]["status"] == "provisioning"


@pytest.mark.parametrize(
    "answer",
    [error_reply(404, "not_found", "Cannot GET"), error_reply(410, "gone", "Gone"),
     error_reply(403, "insufficient_scopes", "No"), error_reply(405, "no", "No"),
     json_reply([1])],
)  # fmt: skip
def test_without_the_endpoint_the_history_alone_is_listed(
    inside: Run, aim: Aim, answer: bytes
) -> None:
    with RawServer(answer) as server:
        aim(server)
        inside("workspace", "name", "ws123456", "shop")
        done = inside("workspace", "list")
    assert done.status == 0
    assert [row["name"] for row in done.json["data"]] == ["shop"]
    assert done.err.startswith("Only workspaces used on this machine: ")


def test_without_a_network_or_a_key_too(inside: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REBYTE_API_URL", f"http://127.0.0.1:{closed_port()}/v1")
    monkeypatch.setenv("PYTHON_KEYRING_BACKEND", "keyring.backends.fail.Keyring")
    inside("workspace", "name", "ws123456", "shop")
    for _ in range(2):
        done = inside("workspace", "list", "-o", "id")
        assert (done.status, done.out) == (0, "ws123456\n")
        assert "Only workspaces used on this machine" in done.err
        monkeypatch.setenv("REBYTE_API_KEY", KEY)
        monkeypatch.setenv("REBYTE_REQUEST_TIMEOUT", "0.2")


def test_a_rejected_key_is_not_hidden(inside: Run, aim: Aim) -> None:
    with RawServer(error_reply(401, "invalid_api_key", "Expired")) as server:
        aim(server)
        assert inside("workspace", "list").status == 3


def test_the_sandbox_key_is_shown_only_when_asked_for(inside: Run, aim: Aim) -> None:
    secret = {**COMPUTER, "sandboxApiKey": "sbx_secret"}

    def script(request: Any) -> bytes:
        listed = request.method == "GET" and request.path.startswith("/v1/agent-computers?")
        return json_reply({"data": [secret]} if listed else secret, 201)

    with RawServer(script) as server:
        aim(server)
        for words in (["show", "ws123456"], ["list"], ["create"], ["create", "--wait"]):
            for more in ([], ["-o", "table"], ["--debug"], ["-o", "csv"]):
                done = inside("workspace", *words, *more)
                assert done.status == 0
                assert "sbx_secret" not in done.out + done.err, (words, more)
        shown = inside("workspace", "show", "ws123456", "--show-secrets")
    assert shown.json["sandboxApiKey"] == "sbx_secret"


def test_delete_asks(inside_local: Run) -> None:
    made = inside_local("workspace", "create", "--name", "shop").json["id"]
    assert inside_local("workspace", "delete", "shop").status == 2
    child = pexpect.spawn(
        COMMAND[0], [*COMMAND[1:], "workspace", "delete", "shop"], env=dict(os.environ), timeout=60
    )
    child.expect_exact(f"Delete workspace shop ({made}) with everything in it?")
    child.sendline("n")
    assert finish(child) == 1
    assert inside_local("workspace", "show", "shop").status == 0
    assert inside_local("workspace", "delete", "shop", "--yes").json["deleted"] is True
    assert inside_local("workspace", "show", made).status == 4


def test_nothing_is_sent_that_was_not_chosen(inside: Run, aim: Aim, home: Path) -> None:
    with RawServer(json_reply(COMPUTER, 201)) as server:
        aim(server)
        inside("workspace", "create")
        inside("workspace", "create", "--name", "box", "--icon", "x")
    assert [request.json for request in server.requests] == [{}, {"name": "box", "icon": "x"}]


class Answers:
    """A client whose computer goes through these states, and a clock that sleeping moves."""

    transport = None

    def __init__(self, *states: dict[str, Any]) -> None:
        self.states = list(states)
        self.now = 0.0

    def get_computer(self, _computer_id: str, *, timeout: float | None) -> dict[str, Any]:
        assert timeout is None or timeout > 0
        return self.states.pop(0) if len(self.states) > 1 else self.states[0]

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def ready(self, timeout: float | None = None) -> dict[str, Any]:
        first = {"id": "ws123456", "status": "provisioning"}
        client: Any = self
        deadline = Deadline(timeout, clock=lambda: self.now)
        return dict(ready(client, first, deadline=deadline, sleep=self.sleep))


def test_either_sign_of_readiness_will_do() -> None:
    waiting = {"id": "ws123456", "status": "provisioning", "sandboxId": None}
    by_word = Answers(waiting, waiting, {**waiting, "status": "ready"})
    assert by_word.ready()["status"] == "ready"
    assert by_word.now == 3.5
    assert Answers(waiting, {**waiting, "sandboxId": "s"}).ready()["sandboxId"] == "s"


def test_waiting_ends_at_an_error_and_at_the_limit() -> None:
    with pytest.raises(RebyteError, match="no quota"):
        Answers({"id": "ws123456", "status": "error", "provisionError": "no\nquota"}).ready()
    slow = Answers({"id": "ws123456", "status": "provisioning"})
    with pytest.raises(WaitTimeout):
        slow.ready(timeout=5)
    assert slow.now == 5.0


@pytest.fixture
def local(inside_local: Run) -> Run:
    """The command against a service of the test's own, without a process for each call."""
    return inside_local


def test_workspaces_are_known_from_the_tasks_created_here(local: Run) -> None:
    first = local("create", "One").json
    second = local("create", "Two").json
    local("create", "Three", "-w", first["workspaceId"])
    rows = local("workspace", "list").json["data"]
    known = {row["id"]: row for row in rows}
    assert known[first["workspaceId"]]["tasks"] == 2
    assert known[second["workspaceId"]]["tasks"] == 1
    assert rows[0]["id"] == first["workspaceId"]


def test_an_alias_stands_for_its_workspace_until_forgotten(local: Run) -> None:
    workspace = local("create", "One").json["workspaceId"]
    assert local("workspace", "name", "@last", "shop").json["name"] == "shop"
    assert local("workspace", "show", "shop").json["id"] == workspace
    assert local("create", "Two", "-w", "shop").json["workspaceId"] == workspace
    assert local("workspace", "forget", "shop").status == 0
    assert local("workspace", "show", "shop").status == 4


def test_an_unknown_alias_ends_in_4_and_names_the_nearest(local: Run) -> None:
    local("create", "One")
    local("workspace", "name", "@last", "shop")
    done = local("workspace", "show", "shpo")
    assert done.status == 4
    assert "shop" in json.loads(done.err.strip().splitlines()[-1])["error"]["hint"]


COMPUTERS = [
    {"id": "c1", "name": "shop"},
    {"id": "c2", "name": "twin"},
    {"id": "c3", "name": "twin"},
]


def computers_and_creates(request: Request) -> bytes:
    if request.method == "POST":
        if request.json.get("workspaceId") in (None, "c1"):
            return json_reply({"id": "task-0001", "workspaceId": "ws-1"}, 201)
        return error_reply(404, "not_found", "Workspace not found")
    return json_reply({"data": COMPUTERS, "total": 3, "limit": 50, "offset": 0})


def test_an_unknown_workspace_is_named_with_those_that_exist(inside: Run, aim: Any) -> None:
    with RawServer(computers_and_creates) as server:
        aim(server)
        inside("create", "x")
        inside("workspace", "name", "ws-1", "demo")
        sent = len(server.seen("POST"))
        done = inside("create", "x", "-w", "demi", "-o", "table")
        assert done.status == 4
        assert "no such workspace: demi" in done.err
        assert "Did you mean 'demo'?" in done.err
        assert "Workspaces: demo, shop, twin\n" in done.err
        done = inside("create", "x", "-w", "twin")
        assert (done.status, "'twin' is the name of 2 workspaces" in done.err) == (2, True)
        assert len(server.seen("POST")) == sent
        # The name of an agent computer stands for it.
        assert inside("create", "x", "-w", "shop").status == 0
        assert server.seen("POST")[-1].json["workspaceId"] == "c1"
        # One that only the service knows is not looked up, and its 404 is explained.
        elsewhere = "550e8400-e29b-41d4-a716-446655440000"
        done = inside("create", "x", "-w", elsewhere, "-o", "table")
        assert done.status == 4
        assert f"no such workspace: {elsewhere}" in done.err
        assert "Workspaces: demo" in done.err


def test_a_long_list_is_filtered_and_cut(inside: Run, inside_local: Run, service: Any) -> None:
    prompts = [f'{{"prompt": "Task {n} [[run=1ms]]"}}' for n in range(60)]
    assert (
        inside_local("batch", "-", "--journal", "j", "--wait", stdin="\n".join(prompts)).status == 0
    )
    ids = [row["id"] for row in inside_local("workspace", "list").json["data"]]
    assert len(ids) == 60
    inside_local("workspace", "name", ids[-1], "shop")
    inside_local("workspace", "name", ids[-2], "shop-tests")

    def listed(*words: str) -> list[str]:
        return inside_local("workspace", "list", *words, "-o", "id").out.split()

    named = [ids[-2], ids[-1]]  # the more recent first
    assert listed() == named + ids[:-2]
    assert listed("--named") == named
    assert listed("--named", "--search", "TESTS") == [ids[-2]]
    assert listed("--search", ids[5][:13]) == [ids[5]]
    assert listed("--limit", "3") == [*named, ids[0]]
    table = inside_local("workspace", "list", "-o", "table")
    assert len(table.out.splitlines()) == 1 + 50
    assert table.err == "50 of 60 workspaces; --all shows all\n"
    assert len(inside_local("workspace", "list", "--all", "-o", "table").out.splitlines()) == 61
    assert inside_local("workspace", "list", "--all", "--limit", "3").status == 2


@pytest.mark.slow
def test_a_terminal_shows_short_ids_that_answer(inside_local: Run) -> None:
    made = inside_local("create", "Say hello [[run=1ms]]").json["workspaceId"]
    session = Session([*COMMAND, "workspace", "list"])
    assert session.finish() == 0
    short = session.lines[-1].split()[0]
    assert made.startswith(short)
    assert len(short) == 8
    assert inside_local("workspace", "show", short, "-o", "id").out.split() == [made]
    whole = Session([*COMMAND, "workspace", "list", "--full-ids"])
    assert whole.finish() == 0
    assert whole.lines[-1].split()[0] == made
