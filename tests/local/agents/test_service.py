"""Real agents through the service's own endpoints: who may start them, and what becomes of them."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from rebyte_cli.local import local_service
from rebyte_cli.local.agents import agent_list
from rebyte_cli.local.agents.agent_permission import machine_key
from rebyte_cli.local.agents.sandbox import jail
from rebyte_cli.local.agents.sources import skills
from rebyte_cli.local.agents.supervision import run_lock, runs
from rebyte_cli.local.agents.supervision.runs import last_options
from rebyte_cli.local.agents.workspaces.workspace_folder import Workspace
from rebyte_cli.local.gateway import request_record
from rebyte_cli.local.gateway.request_record import RequestEntry
from rebyte_cli.local.local_service import Service, status
from rebyte_cli.local.store import Store
from tests.local.test_webhooks import ALL_EVENTS, receiving
from tests.repositories import git
from tests.servers import Line, RawServer, Request, reply
from tests.waiting import eventually, kill_supervisor
from tests.witness import Answer, Caller, Clock

from .bench import PATIENCE, gone, need_jail, processes, script

CONFIG = """
[local]
parallel = 2

[local.agents.mine]
command = ["sh", "-c", "cat; echo; echo made > made"]

[local.agents.slow]
command = ["sh", "-c", "echo begun; sleep {nap}"]

[local.agents.missing]
command = ["no-such-program"]
"""


# A program whose patch takes git some tenths of a second.
MANY = """
[local.agents.many]
command = ["sh", "-c", "seq 1500 | split -l 1 -a 3; echo done; sleep {nap}"]
"""
# A program that continues once there is a file `go`.
STEPS = """
[local.agents.steps]
command = ["sh", "-c", "echo one; until [ -e go ]; do sleep 0.02; done; echo two"]
"""


def nap(tmp_path: Path) -> str:
    """How long the slow agent of this test sleeps: a number that no other process has."""
    return f"99.{sum(str(tmp_path).encode()):08}{os.getpid()}"


class Machine:
    """A service with agents, and callers with the machine's own key and with another."""

    def __init__(self, service: Service, state: Path) -> None:
        self.state = state
        self.own = Caller(service, service.key)
        self.other = Caller(service, "rbk_other")
        self.said: list[str] = []

    def wait(self, task: str, caller: Caller | None = None) -> dict[str, Any]:
        def ended() -> dict[str, Any] | None:
            found = (caller or self.own).task(task)
            return None if found["status"] == "running" else found

        return eventually(ended, seconds=PATIENCE) or {}

    def content(self, task: str) -> dict[str, Any]:
        document = self.own.call(
            "GET", f"/tasks/{task}/content", query={"include": "events"}
        ).document
        return dict(document["prompts"][-1])

    def artifact(self, workspace: str, name: str) -> str:
        return self.own.call(
            "GET", f"/workspaces/{workspace}/artifacts/{name}", check=False
        ).raw.decode()


Starter = Callable[..., contextlib.AbstractContextManager[Machine]]


@pytest.fixture
def start(tmp_path: Path, user_home: Path) -> Starter:
    """Start a service with the agents of `CONFIG`."""
    need_jail()

    @contextlib.contextmanager
    def started(config: str = CONFIG, **options: Any) -> Iterator[Machine]:
        file = tmp_path / "config/config.toml"
        file.parent.mkdir(exist_ok=True)
        file.write_text(config.replace("{nap}", nap(tmp_path)))
        said: list[str] = []
        with Service(
            tmp_path / "state", config_file=file, announce=said.append, **options
        ) as service:
            machine = Machine(service, tmp_path / "state")
            machine.said = said
            yield machine

    return started


@pytest.fixture
def machine(start: Starter) -> Iterator[Machine]:
    with start() as machine:
        yield machine


@pytest.mark.slow
def test_a_task_of_a_real_agent_looks_like_any_other(machine: Machine) -> None:
    created = machine.own.create("Say hello", executor="mine")
    task = machine.wait(created["id"])
    assert (task["status"], task["executor"], task["model"]) == ("completed", "mine", None)
    assert task["finalResult"] == "Say hello"
    assert task["createdAt"] <= task["completedAt"]
    prompt = machine.content(created["id"])
    assert (prompt["status"], prompt["response"]) == ("succeeded", "Say hello")
    assert [event["eventType"] for event in prompt["events"]] == ["text", "result"]
    assert [event["seq"] for event in prompt["events"]] == [0, 1]
    assert "made" in machine.artifact(created["workspaceId"], "changes.patch")
    assert machine.artifact(created["workspaceId"], "answer.md") == "Say hello\n"


@pytest.mark.slow
def test_words_in_a_prompt_steer_no_real_agent(machine: Machine) -> None:
    created = machine.own.create("[[fail]] [[run=nonsense]] [[http=500]]", executor="mine")
    task = machine.wait(created["id"])
    assert task["finalResult"] == "[[fail]] [[run=nonsense]] [[http=500]]"


@pytest.mark.slow
def test_events_are_streamed_as_they_are_recorded(machine: Machine) -> None:
    created = machine.own.create("Say hello", executor="mine")
    text = machine.own.call("GET", f"/tasks/{created['id']}/events").raw.decode()
    names = [line for line in text.splitlines() if line.startswith("event:")]
    assert names == ["event: event", "event: event", "event: done"]
    done = json.loads(text.rpartition("data: ")[2])
    assert done == {"status": "succeeded", "lastSeq": 1, "finalResult": "Say hello"}


@pytest.mark.slow
def test_what_was_recorded_has_happened_though_the_clock_is_set_back(start: Starter) -> None:
    """Otherwise `wait` waits for the clock to come so far again, and `diff` leaves out the run."""
    moved = Clock(0.0)
    with start(clock=lambda: time.time() + moved.now) as machine, receiving() as (url, arrived):
        machine.own.call("POST", "/webhooks", {"url": url, "events": ALL_EVENTS})
        created = machine.own.create("Say hello", executor="mine")
        moved.advance(-7200)
        task = machine.wait(created["id"])
        assert (task["status"], task["finalResult"]) == ("completed", "Say hello")
        assert task["completedAt"] == task["prompts"][0]["completedAt"] is not None
        assert (task["title"], task["prompts"][0]["hasChanges"]) == ("Say hello", True)
        prompt = machine.content(created["id"])
        assert (prompt["status"], prompt["response"]) == ("succeeded", "Say hello")
        assert [event["eventType"] for event in prompt["events"]] == ["text", "result"]
        names = [name for name, _ in machine.own.stream(created["id"])]
        assert names == ["event", "event", "done"]
        assert ">succeeded<" in page(machine, created["id"])
        canceled = machine.own.call("POST", f"/tasks/{created['id']}/cancel").document
        assert (canceled["status"], canceled["canceledPrompts"]) == ("completed", 0)
        eventually(lambda: len(arrived) == 3)
    assert {one.event for one in arrived} == {"task.created", "task.running", "task.completed"}


def page(machine: Machine, task: str) -> str:
    """The page of a task, as a browser with the link that `local serve` prints gets it."""
    headers = machine.own.page_headers()
    return machine.own.call("GET", f"//run/{task}", headers=headers, check=False).raw.decode()


@pytest.mark.slow
def test_the_page_shows_what_a_program_prints_as_it_comes_and_then_once(start: Starter) -> None:
    with start(CONFIG + STEPS) as machine:
        created = machine.own.create("x", executor="steps")
        eventually(lambda: '<div class="markdown"><p>one</p>' in page(machine, created["id"]))
        (machine.state / "workspaces" / created["workspaceId"] / "code/go").touch()
        assert machine.wait(created["id"])["finalResult"] == "one\ntwo"
        assert page(machine, created["id"]).count("two") == 1


@pytest.mark.slow
def test_a_page_sends_a_follow_up_to_the_agent_of_the_task(machine: Machine) -> None:
    created = machine.own.create("Say hello", executor="mine")["id"]
    machine.wait(created)
    headers, body = machine.own.page_headers(), {"prompt": "Say more", "executor": "codex"}
    path = f"//run/{created}/prompts"
    assert machine.own.call("POST", path, body, headers=headers, check=False).status == 201
    assert machine.wait(created)["finalResult"] == "Say more"


@pytest.mark.slow
@pytest.mark.parametrize("where", ["artifact", "page"])
def test_the_patch_of_a_canceled_run_is_waited_for(start: Starter, where: str) -> None:
    """A follow-up would otherwise show the patch of the run before it."""
    with start(CONFIG + MANY) as machine:
        created = machine.own.create("x", executor="many")
        task = created["id"]
        eventually(lambda: machine.content(task)["events"])
        machine.own.call("POST", f"/tasks/{task}/cancel")
        if where == "artifact":
            shown = machine.artifact(created["workspaceId"], "changes.patch")
        else:
            shown = page(machine, task)
        assert shown.count("new file mode") > 500  # the page shows the beginning


@pytest.mark.slow
def test_the_patch_of_a_killed_run_is_waited_for(start: Starter) -> None:
    with start(CONFIG + MANY) as machine:
        created = machine.own.create("x", executor="many")
        task, workspace = created["id"], created["workspaceId"]
        eventually(lambda: machine.content(task)["events"])
        (lock,) = (machine.state / "workspaces" / workspace).glob("runs/*/lock")
        kill_supervisor(lock)
        assert machine.wait(task)["status"] == "failed"
        patch = machine.artifact(workspace, "changes.patch")
        # Not in the API's own document.
        whole = machine.own.call("GET", f"/tasks/{task}/changes.patch", check=False).raw
        counts = patch.count("new file mode"), whole.count(b"new file mode")
        assert counts == (1500, 1500)


@pytest.mark.slow
@pytest.mark.parametrize("look", ["task", "list", "content", "page", "stream", "status"])
def test_whatever_is_asked_first_ends_a_run_whose_supervisor_was_killed(
    machine: Machine, look: str
) -> None:
    task = machine.own.create("x", executor="slow")["id"]
    eventually(lambda: machine.content(task)["events"])
    stream = machine.own.stream(task)
    if look == "stream":  # one that is open already
        assert next(stream)[0] == "event"
    (lock,) = machine.state.glob("workspaces/*/runs/*/lock")
    kill_supervisor(lock)
    if look == "task":
        eventually(lambda: machine.own.task(task)["status"] == "failed")
    elif look == "list":
        eventually(lambda: machine.own.call("GET", "/tasks").document["data"][0]["completedAt"])
    elif look == "content":
        eventually(lambda: machine.content(task)["status"] == "failed")
    elif look == "page":
        eventually(lambda: "process is gone" in page(machine, task))
    elif look == "stream":
        assert [data["status"] for name, data in stream if name == "done"] == ["failed"]
    else:
        eventually(lambda: status(machine.state)["agentsRunning"] == 0)
    with Store(machine.state).read() as db:
        assert [row["outcome"] for row in db.execute("SELECT outcome FROM runs")] == ["failed"]


@pytest.mark.slow
def test_a_follow_up_runs_in_the_same_workspace(machine: Machine) -> None:
    created = machine.own.create("One", executor="mine")
    machine.wait(created["id"])
    assert (
        machine.own.call("POST", f"/tasks/{created['id']}/prompts", {"prompt": "Two"}).status == 201
    )
    task = machine.wait(created["id"])
    assert [prompt["status"] for prompt in task["prompts"]] == ["succeeded", "succeeded"]
    assert task["finalResult"] == "Two"


def test_without_an_executor_the_run_is_simulated(machine: Machine) -> None:
    task = machine.wait(machine.own.create("Say hello")["id"])
    assert "This is a simulation" in task["finalResult"]


# Permission to start agents


def test_any_other_key_reaches_the_simulation(machine: Machine) -> None:
    created = machine.other.create("Say hello", executor="mine")
    assert "This is a simulation" in machine.wait(created["id"])["finalResult"]
    assert not (machine.state / "workspaces").exists()


def test_the_key_is_for_its_owner_alone(machine: Machine) -> None:
    key = machine.state / "key"
    assert key.stat().st_mode & 0o777 == 0o600
    assert machine.state.stat().st_mode & 0o077 == 0
    assert len(key.read_text().strip()) > 40


@pytest.mark.parametrize("text", ["", "\0" * 59, "rbk_local_0123"], ids=["empty", "zeros", "cut"])
def test_a_key_that_a_power_cut_left_behind_is_replaced(tmp_path: Path, text: str) -> None:
    """From an empty one, anybody could derive the key that `-P local` sends."""
    (tmp_path / "key").write_text(text)
    with ThreadPoolExecutor(4) as pool:
        made = set(pool.map(machine_key, [tmp_path] * 4))
    found = machine_key(tmp_path)
    assert found in made
    assert len(found) == len("rbk_local_") + 48
    assert (tmp_path / "key").stat().st_mode & 0o777 == 0o600


@pytest.mark.slow
def test_other_keys_do_not_see_the_users_work(machine: Machine) -> None:
    """Every user of this machine reaches the port, and any `rbk_` key is taken there."""
    created = machine.own.create("Secret", executor="mine")
    machine.wait(created["id"])
    for path in (
        f"/tasks/{created['id']}",
        f"/tasks/{created['id']}/content",
        f"/tasks/{created['id']}/events",
        f"/workspaces/{created['workspaceId']}/artifacts",
        f"/workspaces/{created['workspaceId']}/artifacts/changes.patch",
    ):
        assert machine.other.call("GET", path).status == 404
    follow_up = machine.other.call("POST", f"/tasks/{created['id']}/prompts", {"prompt": "x"})
    assert follow_up.status == 404
    assert machine.other.call("GET", "/tasks").document["total"] == 0
    assert machine.own.call("GET", "/tasks").document["total"] == 1
    inside = machine.other.call(
        "POST", "/tasks", {"prompt": "x", "workspaceId": created["workspaceId"], "executor": "mine"}
    )
    assert inside.status == 404


@pytest.mark.parametrize("how", ["option", "variable"])
def test_everything_can_be_simulated(
    start: Starter, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    if how == "variable":
        monkeypatch.setenv("REBYTE_LOCAL_AGENTS", "0")
    with start(simulate=how == "option") as machine:
        task = machine.wait(machine.own.create("Say hello", executor="mine")["id"])
        assert "This is a simulation" in task["finalResult"]


# Requests refused before anything runs


def test_an_agent_that_is_not_installed(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = machine.own.call("POST", "/tasks", {"prompt": "x", "executor": "missing"})
    assert (answer.status, answer.code) == (400, "executor_unavailable")
    assert "no-such-program is not on PATH" in answer.message
    for program in ("bwrap", "sh", "git", "env"):
        source = shutil.which(program)
        assert source is not None
        (tmp_path / "bin").mkdir(exist_ok=True)
        (tmp_path / "bin" / program).symlink_to(source)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    answer = machine.own.call("POST", "/tasks", {"prompt": "x", "executor": "claude"})
    hint = answer.document["error"]["hint"]
    assert hint == (
        "Install it: npm install -g @anthropic-ai/claude-code (found here: mine, slow). "
        "For a simulated run, leave out -x or set REBYTE_LOCAL_AGENTS=0"
    )
    assert machine.own.call("GET", "/tasks").document["total"] == 0


def test_an_agent_without_a_login_is_refused_before_anything_is_created(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bin").mkdir()
    claude = tmp_path / "bin" / "claude"
    claude.write_text("#!/bin/sh\necho 2.1.200\n")
    claude.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.delenv("ANTHROPIC_API_KEY", raising=False)
    answer = machine.own.call("POST", "/tasks", {"prompt": "x", "executor": "claude"})
    assert (answer.status, answer.code) == (400, "executor_unavailable")
    assert answer.message == "claude cannot run: no login and no key was found"
    error = answer.document["error"]
    assert error["hint"] == "run `claude /login`, or set ANTHROPIC_API_KEY"
    assert machine.own.call("GET", "/tasks").document["total"] == 0


@pytest.mark.slow
def test_no_run_without_a_jail_follows_one_with(machine: Machine) -> None:
    """It would use the HOME, and the repository, that a jailed agent wrote."""

    def follow_up(task: dict[str, Any]) -> Answer:
        return machine.own.call("POST", f"/tasks/{task['id']}/prompts", {"prompt": "again"})

    free = machine.own.create("x", executor="mine", jail="off")
    machine.wait(free["id"])
    assert follow_up(free).status == 201
    machine.wait(free["id"])
    place = free["workspaceId"]
    jailed = machine.own.create("x", executor="mine", jail="on", workspaceId=place)
    machine.wait(jailed["id"])
    body = {"prompt": "x", "executor": "mine", "jail": "off", "workspaceId": place}
    for answer in (machine.own.call("POST", "/tasks", body), follow_up(free)):
        assert (answer.status, answer.code) == (400, "jail_required")
    assert follow_up(jailed).status == 201


def test_what_repeats_a_task_has_its_sandbox_whatever_the_settings_are_now(
    start: Starter, tmp_path: Path
) -> None:
    with start() as machine:
        task = machine.own.create("x", executor="mine")
        config = tmp_path / "config/config.toml"
        config.write_text(config.read_text().replace("[local]", '[local]\njail = "off"'))
        again = machine.own.create("x", executor="mine", networkOf=task["id"])
        other = machine.own.create("x", executor="mine")
        asked = machine.own.create("x", executor="mine", networkOf=task["id"], jail="off")
        for made, is_jailed in ((task, True), (again, True), (other, False), (asked, False)):
            with Store(machine.state).read() as db:
                found = last_options(db, made["id"])
            assert found is not None
            assert found[1]["jail"] is is_jailed


@pytest.mark.slow
def test_the_model_stays_with_its_task_and_agent(start: Starter) -> None:
    agents = "".join(f'[local.agents.{name}]\ncommand = ["cat"]\n' for name in ("mine", "other"))
    with start(agents) as machine:
        task = machine.own.create("x", executor="mine", model="small")["id"]
        for body, model in (
            ({}, "small"),
            ({"executor": "mine"}, "small"),
            ({"model": "large"}, "large"),
            ({}, "large"),
            ({"executor": "other"}, None),
        ):
            body = {"prompt": "y", **body}
            assert machine.own.call("POST", f"/tasks/{task}/prompts", body).status == 201
            with Store(machine.state).read() as db:
                found = last_options(db, task)
            assert found is not None
            assert found[1]["model"] == model


def network_of(machine: Machine, task: dict[str, Any]) -> tuple[str, list[str]]:
    """What the last run of a task may reach: the network, and the hosts."""
    with Store(machine.state).read() as db:
        found = last_options(db, task["id"])
    assert found is not None
    return found[1]["network"], found[1]["hosts"]


@pytest.mark.slow
def test_what_a_run_may_reach_stays_with_its_task(start: Starter) -> None:
    with start('[local]\nallow = ["pypi.org"]\n[local.agents.mine]\ncommand = ["cat"]') as machine:

        def follow_up(**fields: object) -> tuple[str, list[str]]:
            body = {"prompt": "y", **fields}
            assert machine.own.call("POST", f"/tasks/{task['id']}/prompts", body).status == 201
            return network_of(machine, task)

        def create(**fields: Any) -> tuple[str, list[str]]:
            return network_of(machine, machine.own.create("x", executor="mine", **fields))

        assert create() == ("list", ["pypi.org"])
        task = machine.own.create("x", executor="mine", allow=["a.example"])
        assert network_of(machine, task) == ("list", ["pypi.org", "a.example"])
        assert follow_up(allow=["b.example:81"]) == (
            "list", ["pypi.org", "a.example", "b.example:81"]
        )  # fmt: skip
        assert create(networkOf=task["id"])[1] == ["pypi.org", "a.example", "b.example:81"]
        assert create(networkOf="unknown") == ("list", ["pypi.org"])
        assert follow_up(network="none")[0] == "none"
        assert follow_up()[0] == "none"
        assert follow_up(network="host")[0] == "host"
        assert follow_up()[0] == "host"
        assert create(networkOf=task["id"])[0] == "host"
        assert create(networkOf=task["id"], network="confined")[0] == "list"
        shares = [line for line in machine.said if "shares the network" in line]
        assert len(shares) == 3
        for host in ("https://a.example", "a b", "", "010.1.1.1"):
            body = {"prompt": "x", "executor": "mine", "allow": [host]}
            assert machine.own.call("POST", "/tasks", body, check=False).status == 400, host


@pytest.mark.slow
def test_the_network_of_the_settings(start: Starter, tmp_path: Path) -> None:
    with start('[local]\nnetwork = "host"\n[local.agents.mine]\ncommand = ["cat"]') as machine:
        task = machine.own.create("x", executor="mine")
        assert network_of(machine, task)[0] == "host"
        assert (
            agent_list.every_agent(machine.state, tmp_path / "config/config.toml")[0]["network"]
            == "host"
        )


@pytest.mark.slow
def test_the_requests_of_a_task(machine: Machine) -> None:
    task = machine.own.create("x", executor="mine")
    machine.wait(task["id"])
    path = f"/tasks/{task['id']}/network"
    assert machine.own.call("GET", path, check=False).document == {"requests": []}
    with Store(machine.state).read() as db:
        (prompt,) = db.execute("SELECT prompt FROM runs").fetchone()
    entry = RequestEntry(1000, "a.example", 443, "CONNECT", "", 403, refused="not allowed")
    file = Workspace(machine.state, task["workspaceId"]).run_folder(prompt) / request_record.FILE
    file.write_text(json.dumps(entry._asdict()) + "\n{torn")
    (row,) = machine.own.call("GET", path, check=False).document["requests"]
    assert (row["host"], row["refused"], row["promptId"]) == ("a.example", "not allowed", prompt)
    assert row["time"] == "1970-01-01T00:00:01.000Z"
    assert machine.other.call("GET", path, check=False).status == 404


def test_an_executor_that_nothing_defines(machine: Machine) -> None:
    answer = machine.own.call("POST", "/tasks", {"prompt": "x", "executor": "their"})
    assert answer.status == 400
    assert "mine, slow, missing" in answer.message


@pytest.mark.slow
def test_a_machine_without_a_jail_refuses_and_obeys_who_insists(
    start: Starter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script(tmp_path / "bin", "bwrap", "echo 'No permissions to create a namespace' >&2; exit 1")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    with start() as machine:
        answer = machine.own.call("POST", "/tasks", {"prompt": "x", "executor": "mine"})
        assert (answer.status, answer.code) == (400, "executor_unavailable")
        assert "No permissions to create a namespace" in answer.message
        assert answer.document["error"]["hint"].endswith(
            '. To run it without one: create --no-jail, or jail = "off" in [local] of config.toml'
        )
        created = machine.own.create("x", executor="mine", jail="off")
        assert machine.wait(created["id"])["finalResult"] == "x"
        # A follow-up is as confined as the run before it.
        machine.own.call("POST", f"/tasks/{created['id']}/prompts", {"prompt": "y"})
        assert machine.wait(created["id"])["finalResult"] == "y"
        note = "mine runs without a sandbox: it can read and change all your files"
        assert machine.said == [note] * 2


@pytest.mark.slow
def test_the_first_use_says_what_runs_where(machine: Machine) -> None:
    for _ in range(2):
        machine.wait(machine.own.create("x", executor="mine")["id"])
    (line,) = machine.said
    assert line.startswith("mine runs in a sandbox (bubblewrap), in a workspace below")
    assert str(machine.state / "workspaces") in line


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ("[local]\nparallel = 0", "[local] parallel must be a number from 1 to 64"),
        ('[local]\njail = "maybe"', '[local] jail must be "on" or "off"'),
        ('[local]\nnetwork = "all"', "[local] network must be one of list, none, host"),
        ('[local]\nallow = ["a/b"]', "[local] allow: 'a/b' is not a host such as pypi.org"),
        (
            '[local.agents.claude]\nmodel = "openai"',
            "[local.agents.claude] model: claude has its own model settings",
        ),
        ('[local]\nlimit = "soon"', '[local] limit must be a duration such as "90s"'),
        ("[local.agents.x]\n", '[local.agents.x] needs command = ["PROGRAM"'),
        ("[local.agents.x]\ncommand = 5", "[local.agents.x] command must be a list of strings"),
        ("[local", "cannot be read"),
    ],
)
def test_a_configuration_that_cannot_be_meant(start: Starter, config: str, reason: str) -> None:
    with start(config) as machine:
        answer = machine.own.call("POST", "/tasks", {"prompt": "x", "executor": "claude"})
        assert (answer.status, answer.code) == (400, "invalid_config")
        assert reason in answer.message


# Skills and files


@pytest.mark.slow
def test_skills_are_put_into_the_private_home(
    start: Starter, tmp_path: Path, user_home: Path
) -> None:
    places = (tmp_path / "config/skills", "audit"), (user_home / ".claude/skills", "pdf")
    for folder, name in places:
        script(folder / name, "SKILL.md", f"---\nname: {name}\ndescription: Does {name}\n---\n")
    config = '[local.agents.mine]\ncommand = ["sh", "-c", "ls ~/.agents/skills ~/.claude/skills"]'
    with start(config) as machine:
        created = machine.own.create("x", executor="mine", skills=["audit", "pdf"])
        answer = machine.wait(created["id"])["finalResult"]
        assert answer.split("\n\n") == [
            f"/home/agent/{place}/skills:\naudit\npdf" for place in (".agents", ".claude")
        ]
        machine.own.call("POST", f"/tasks/{created['id']}/prompts", {"prompt": "again"})
        again = machine.wait(created["id"])
        assert [prompt["status"] for prompt in again["prompts"]] == ["succeeded", "succeeded"]
        assert again["finalResult"] == answer
        refused = machine.own.call(
            "POST", "/tasks", {"prompt": "x", "executor": "mine", "skills": ["no"]}
        )
    assert refused.code == "unknown_skill"
    assert refused.document["error"]["hint"] == "Known skills: audit, pdf"
    assert [one["name"] for one in agent_list.known_skills(tmp_path / "config", None)] == [
        "audit",
        "pdf",
    ]


def test_a_hint_says_where_skills_go_if_there_are_none(tmp_path: Path) -> None:
    with pytest.raises(skills.UnknownSkill) as problem:
        skills.resolve(["pdf"], [skills.SkillFolder(tmp_path)], tmp_path)
    assert "~/.agents/skills/NAME/SKILL.md" in str(problem.value.hint)


@pytest.mark.slow
def test_a_skill_of_a_repository_does_not_lead_out_of_it(
    start: Starter, tmp_path: Path, user_home: Path
) -> None:
    """The user's own may: many keep them elsewhere and link to them."""
    private, repository = tmp_path / "private", tmp_path / "repository"
    for folder in (private, repository, repository / "kept", repository / ".git"):
        script(folder, "SKILL.md", "secret")
    script(repository / ".agents/skills/file", "other", "")
    for name, there in (
        (".agents/skills/out", "../../../private"), (".agents/skills/all", "../.."),
        (".agents/skills/git", "../../.git"), (".claude", ".agents"),
        (".agents/skills/file/SKILL.md", "../../../../private/SKILL.md"),
        (".agents/skills/kept", "../../kept"),
    ):  # fmt: skip
        (repository / name).symlink_to(there)
    (user_home / ".agents/skills").mkdir(parents=True)
    (user_home / ".agents/skills/own").symlink_to(private)
    assert [one["name"] for one in agent_list.known_skills(tmp_path, repository)] == ["kept", "own"]
    git(repository, "init", "-q")
    git(repository, "add", "kept")
    config = '[local.agents.mine]\ncommand = ["sh", "-c", "ls ~/.agents/skills"]'
    with start(config) as machine:
        for name in ("out", "all", "git", "file"):
            refused = machine.own.call(
                "POST",
                "/tasks",
                {"prompt": "x", "executor": "mine", "skills": [name],
                 "localRepository": str(repository)},
            )  # fmt: skip
            assert refused.code == "unknown_skill"
            assert "leads out of its repository" in refused.document["error"]["message"]
        created = machine.own.create(
            "x", executor="mine", skills=["own", "kept"], localRepository=str(repository)
        )
        assert machine.wait(created["id"])["finalResult"].split() == ["kept", "own"]


@pytest.mark.slow
def test_of_a_skill_of_a_repository_only_what_git_tracks_is_copied(
    start: Starter, tmp_path: Path, user_home: Path
) -> None:
    """A download can link to the folder where the user's secrets will be."""
    repository = tmp_path / "repository"
    for name in ("config/SKILL.md", "config/tools/run", "empty/SKILL.md", "other",
                 ".claude/skills/plain/SKILL.md"):  # fmt: skip
        script((repository / name).parent, Path(name).name, "")
    (repository / ".gitignore").write_text(".env\nempty/*\n")
    for name, there in (("deploy", "../../config"), ("nothing", "../../empty")):
        (repository / ".claude/skills" / name).symlink_to(there)
    for words in ("init -q", "add -A", "commit -q -m Start"):
        git(repository, *words.split())
    for name in ("config/.env", "config/tools/.env", "config/new", ".claude/skills/plain/.env"):
        (repository / name).write_text("secret")
    script(repository / ".claude/skills/mine", "SKILL.md", "")  # not committed yet
    config = '[local.agents.mine]\ncommand = ["sh", "-c", "cd ~/.claude/skills; find * -type f"]'
    with start(config) as machine:
        body = {"executor": "mine", "localRepository": str(repository)}
        wrong = {**body, "prompt": "x", "skills": ["nothing"]}
        refused = machine.own.call("POST", "/tasks", wrong)
        assert refused.code == "unknown_skill"
        assert "is not tracked by git" in refused.document["error"]["message"]
        created = machine.own.create("x", **body, skills=["deploy", "plain", "mine"])
        found = machine.wait(created["id"])["finalResult"].split()
        assert sorted(found) == [
            "deploy/SKILL.md", "deploy/tools/run", "mine/SKILL.md", "plain/SKILL.md",
        ]  # fmt: skip
        machine.own.call("POST", f"/tasks/{created['id']}/prompts", {"prompt": "again"})
        assert machine.wait(created["id"])["finalResult"].split() == found


@pytest.mark.slow
def test_repositories_and_skills_of_github(start: Starter, tmp_path: Path, user_home: Path) -> None:
    """Cloned as the user's own git would: here from a folder, by the user's own settings."""
    hub = tmp_path / "hub/acme/shop.git"
    script(hub / "tools/audit", "SKILL.md", "---\nname: audit\n---\n")
    for words in ("init -q -b main", "add -A", "commit -q -m Start", "checkout -q -b other"):
        git(hub, *words.split())
    (user_home / ".gitconfig").write_text(
        f'[url "{tmp_path}/hub/"]\n\tinsteadOf = https://github.com/\n'
    )
    command = "git branch --show-current; ls; ls ~/.claude/skills"
    with start(f'[local.agents.mine]\ncommand = ["sh", "-c", "{command}"]') as machine:
        created = machine.own.create(
            "x", executor="mine", githubUrl="acme/shop", branchName="main",
            skills=["github:acme/shop/tools/audit"],
        )  # fmt: skip
        assert machine.wait(created["id"])["finalResult"].split() == ["main", "tools", "audit"]
        wrong = {"prompt": "x", "executor": "mine", "skills": ["github:acme/shop"]}
        refused = machine.own.call("POST", "/tasks", wrong)
        assert refused.document["error"]["hint"] == "Folders that have one: tools/audit"
        gone = machine.own.create("x", executor="mine", githubUrl="acme/gone")
        assert (
            "cannot clone https://github.com/acme/gone.git"
            in (machine.wait(gone["id"])["finalResult"])
        )


def test_a_skill_of_github_does_not_fill_the_disk(
    start: Starter, tmp_path: Path, user_home: Path
) -> None:
    """A few bytes of its repository may be any number of files."""
    with RawServer(lambda _: Line.wait) as server:
        (user_home / ".gitconfig").write_text(
            f'[url "{server.origin}/"]\n\tinsteadOf = https://github.com/\n'
        )
        settings = '[local]\nkeep_free = "900000G"\n[local.agents.mine]\ncommand = ["true"]\n'
        with start(settings) as machine:
            wanted = {"prompt": "x", "executor": "mine", "skills": ["github:acme/large"]}
            refused = machine.own.call("POST", "/tasks", wanted)
    assert "MB left" in refused.document["error"]["message"]
    assert not list(tmp_path.rglob("*acme+large*/*"))


def test_a_password_in_a_url_reaches_the_server_alone(start: Starter, tmp_path: Path) -> None:
    """Neither the database nor `ps`, nor an unconfined agent's environment, has it."""
    secret = "gehe1m;$x"

    def served(request: Request) -> bytes | Line:
        if "authorization" in request.headers:
            return Line.wait
        return reply(401, "", {"WWW-Authenticate": 'Basic realm="x"'})

    with RawServer(served) as server, start() as machine:
        url = f"http://me%40x:{quote(secret)}@127.0.0.1:{server.port}/acme/shop.git"
        created = machine.own.create("x", executor="mine", localRepository=url)
        logged_in = eventually(
            lambda: [r.headers["authorization"] for r in server.requests if len(r.headers) and
                     "authorization" in r.headers], seconds=PATIENCE,
        )  # fmt: skip
        assert logged_in == ["Basic " + base64.b64encode(f"me@x:{secret}".encode()).decode()]
        assert processes(f":{server.port}/acme/shop.git")
        for word in (secret, quote(secret)):
            assert not processes(word)
            for path in filter(Path.is_file, machine.state.rglob("*")):
                assert word.encode() not in path.read_bytes(), path
        machine.own.call("POST", f"/tasks/{created['id']}/cancel")


@pytest.mark.slow
def test_a_clone_says_how_far_it_is(start: Starter, tmp_path: Path) -> None:
    with RawServer(lambda _: Line.wait) as server, start() as machine:
        url = f"http://127.0.0.1:{server.port}/acme/shop.git"
        created = machine.own.create("x", executor="mine", localRepository=url)
        workspace = machine.state / "workspaces" / created["workspaceId"]
        (objects,) = eventually(lambda: [*workspace.glob("*/code/.git/objects")], seconds=PATIENCE)
        (objects / "received").write_bytes(bytes(5_000_000))
        task = machine.own.task(created["id"])
        assert (task["status"], task["preparing"]) == ("running", "cloning, 5 MB")
        eventually(lambda: "Cloning, 5 MB" in str(machine.content(created["id"])), seconds=PATIENCE)
        machine.own.call("POST", f"/tasks/{created['id']}/cancel")
        assert "preparing" not in machine.own.task(created["id"])


def test_the_first_uses_of_a_skill_share_one_clone(tmp_path: Path, user_home: Path) -> None:
    """The lines of a batch name it at the same moment."""
    hub = tmp_path / "hub/acme/skills.git"
    script(hub / "audit", "SKILL.md", "---\nname: audit\n---\n")
    for words in ("init -q -b main", "add -A", "commit -q -m Start"):
        git(hub, *words.split())
    (user_home / ".gitconfig").write_text(
        f'[url "{tmp_path}/hub/"]\n\tinsteadOf = https://github.com/\n'
    )
    cache = tmp_path / "cache"
    (cache / ".acme+skills.new/left").mkdir(parents=True)  # by a clone that was killed
    with ThreadPoolExecutor(8) as pool:
        found = list(
            pool.map(lambda _: skills.resolve(["github:acme/skills/audit"], [], cache), range(8))
        )
    (folder,) = cache.glob("acme+skills@*/audit")
    assert found == [[str(folder)]] * 8


@pytest.mark.parametrize("name", ["ext::sh -c 'touch planted'/x", "/etc/x", "a", "a/..", "-u/x"])
def test_a_skill_that_is_not_on_github(tmp_path: Path, name: str) -> None:
    with pytest.raises(skills.UnknownSkill, match="is not github:OWNER/REPO"):
        skills.resolve([f"github:{name}"], [], tmp_path)


@pytest.mark.slow
def test_a_workspace_has_one_repository(start: Starter, tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    with start('[local.agents.mine]\ncommand = ["sh", "-c", "ls"]') as machine:
        # The clone fails, and the follow-up makes up for it.
        created = machine.own.create("x", executor="mine", localRepository=str(repository))
        assert machine.wait(created["id"])["status"] == "failed"
        script(repository, "code", "")
        for words in ("init -q", "add -A", "commit -q -m Start"):
            git(repository, *words.split())
        machine.own.call("POST", f"/tasks/{created['id']}/prompts", {"prompt": "again"})
        assert machine.wait(created["id"])["finalResult"] == "code"
        place = {"prompt": "x", "executor": "mine", "workspaceId": created["workspaceId"]}
        same = machine.own.call("POST", "/tasks", {**place, "localRepository": str(repository)})
        assert same.status == 201
        other = machine.own.call("POST", "/tasks", {**place, "githubUrl": "acme/shop"})
        assert other.status == 400
        assert other.message.endswith(f"was created with {repository}")


@pytest.mark.slow
def test_uploaded_files_are_staged(start: Starter) -> None:
    with start('[local.agents.mine]\ncommand = ["sh", "-c", "cat /code/in*"]') as machine:
        uploaded = machine.own.upload(b"the input", "input.txt")
        files = [{"id": uploaded["id"], "filename": uploaded["filename"]}]
        created = machine.own.create("x", executor="mine", files=files)
        assert machine.wait(created["id"])["finalResult"] == "the input"
        assert machine.artifact(created["workspaceId"], "changes.patch") == ""


@pytest.mark.slow
def test_an_uploaded_file_keeps_its_name_if_that_is_free(start: Starter) -> None:
    with start('[local.agents.mine]\ncommand = ["sh", "-c", "ls -A; cat *.txt"]') as machine:

        def run(*names: str, **more: str) -> str:
            uploaded = [machine.own.upload(f"{n} {name}".encode(), name) for n, name in
                        enumerate(names)]  # fmt: skip
            files = [{"id": one["id"], "filename": one["filename"]} for one in uploaded]
            created = machine.own.create("x", executor="mine", files=files, **more)
            place.update(workspaceId=created["workspaceId"], unique=uploaded[-1]["filename"])
            machine.wait(created["id"])
            events = machine.content(created["id"])["events"]
            return "\n".join(e["payload"]["content"] for e in events if e["eventType"] == "text")

        place: dict[str, str] = {}
        assert run("notes.txt") == "notes.txt\n0 notes.txt"
        said = run("notes.txt", workspaceId=place["workspaceId"])
        assert f"notes.txt is /code/{place['unique']}: there is another file of its name" in said
        assert said.count("0 notes.txt") == 2
        assert ".git-" in run(".git", ".gitx")  # git would obey the one


# The queue


def test_a_task_that_waits_says_for_what(start: Starter) -> None:
    with start("[local]\nparallel = 1\n" + STEPS) as machine:

        def queue(task: dict[str, Any]) -> tuple[int, str] | None:
            found = machine.own.task(task["id"])
            rows = machine.own.call("GET", "/tasks").document["data"]
            (row,) = (row for row in rows if row["id"] == task["id"])
            assert row.get("queue") == found.get("queue")
            place = found.get("queue")
            return None if place is None else (place["position"], place["message"])

        first = machine.own.create("x", executor="steps")
        eventually(lambda: machine.content(first["id"])["status"] == "running")
        second = machine.own.create("x", executor="steps")
        third = machine.own.create("x", executor="steps", workspaceId=first["workspaceId"])
        assert queue(first) is None
        slots = "until fewer than 1 runs work ([local] parallel)"
        assert queue(second) == (1, f"number 1 in the queue, waits {slots}")
        before = "until its workspace is free"
        assert queue(third) == (2, f"number 2 in the queue, waits {before}")
        assert machine.own.task(second["id"])["status"] == "running"
        machine.own.call("POST", f"/tasks/{first['id']}/cancel")
        eventually(lambda: queue(second) is None)
        for task in (second, third):
            machine.own.call("POST", f"/tasks/{task['id']}/cancel")
        assert queue(third) is None


@pytest.mark.slow
def test_a_webhook_hears_of_a_run_while_no_service_runs(start: Starter) -> None:
    with receiving() as (url, arrived):
        with start(STEPS) as machine:
            machine.own.call("POST", "/webhooks", {"url": url, "events": ALL_EVENTS})
            created = machine.own.create("x", executor="steps")
            eventually(lambda: "one" in str(machine.content(created["id"])["events"]))
            code = machine.state / "workspaces" / created["workspaceId"] / "code"
        told = [one.event for one in arrived]
        (code / "go").touch()
        eventually(lambda: len(arrived) == 3)
    assert told in (["task.created"], ["task.created", "task.running"])
    assert sorted(one.event for one in arrived) == [
        "task.completed", "task.created", "task.running",
    ]  # fmt: skip


# Canceling and deleting


def begun(machine: Machine, executor: str = "slow") -> dict[str, Any]:
    """A created task whose agent has printed something."""
    created = dict(machine.own.create("x", executor=executor))
    folder = machine.state / "workspaces" / created["workspaceId"]
    eventually(lambda: any(path.read_text() for path in folder.glob("runs/*/output")))
    return created


@pytest.mark.slow
def test_cancel(machine: Machine, tmp_path: Path) -> None:
    created = begun(machine)
    answer = machine.own.call("POST", f"/tasks/{created['id']}/cancel")
    assert answer.document == {"id": created["id"], "status": "canceled", "canceledPrompts": 1}
    assert gone(nap(tmp_path))
    assert "finalResult" not in machine.own.task(created["id"])
    again = machine.own.call(
        "POST", f"/tasks/{created['id']}/prompts", {"prompt": "y", "executor": "mine"}
    )
    assert again.status == 201
    assert machine.wait(created["id"])["status"] == "completed"


@pytest.mark.slow
def test_delete_stops_the_run(machine: Machine, tmp_path: Path) -> None:
    created = begun(machine)
    assert machine.own.call("DELETE", f"/tasks/{created['id']}").status == 204
    assert gone(nap(tmp_path))
    assert machine.own.call("GET", f"/tasks/{created['id']}").status == 404


@pytest.mark.slow
def test_delete_stops_the_follow_ups_that_wait(machine: Machine, tmp_path: Path) -> None:
    created = begun(machine)
    task, folder = created["id"], machine.state / "workspaces" / created["workspaceId"]
    for _ in range(2):
        body = {"prompt": "y", "executor": "mine"}
        assert machine.own.call("POST", f"/tasks/{task}/prompts", body).status == 201
    assert machine.own.call("DELETE", f"/tasks/{task}").status == 204
    assert gone(nap(tmp_path))
    assert gone(str(machine.state))  # a supervisor has it in its command line
    assert not (folder / "code/made").exists()


@pytest.mark.slow
def test_two_quick_follow_ups_run_in_order(machine: Machine) -> None:
    created = machine.own.create("one", executor="mine")
    for text in ("two", "three"):
        body = {"prompt": text, "executor": "mine"}
        assert machine.own.call("POST", f"/tasks/{created['id']}/prompts", body).status == 201
    assert machine.wait(created["id"])["finalResult"] == "three"
    prompts = machine.own.task(created["id"])["prompts"]
    assert [prompt["status"] for prompt in prompts] == ["succeeded"] * 3
    ends = [prompt["completedAt"] for prompt in prompts]
    assert ends == sorted(ends)


@pytest.mark.slow
def test_a_workspace_is_removed_an_hour_after_its_last_task(machine: Machine) -> None:
    def swept(minutes: int) -> None:
        """Sweep, with every task that is deleted deleted so long ago."""
        with contextlib.closing(Store(machine.state)) as store, store.write() as db:
            then = store.now() - minutes * 60_000
            db.execute("UPDATE tasks SET deleted = ? WHERE deleted IS NOT NULL", (then,))
        local_service.status(machine.state)

    first = machine.own.create("x", executor="mine")
    second = machine.own.create("y", executor="mine", workspaceId=first["workspaceId"])
    folder = machine.state / "workspaces" / first["workspaceId"]
    machine.wait(first["id"])
    machine.wait(second["id"])
    (folder / "code/read-only").mkdir(mode=0o500)
    machine.own.call("DELETE", f"/tasks/{first['id']}")
    swept(61)
    assert folder.exists()  # the other task's files are in it, too
    machine.own.call("DELETE", f"/tasks/{second['id']}")
    swept(59)
    assert folder.exists()
    with contextlib.closing(Store(machine.state)) as store, store.read() as db:
        last = runs.newest(db, first["workspaceId"])
    assert last
    with run_lock.held(machine.state, last):  # as `workspace run` does
        swept(61)
        assert folder.exists()
    swept(61)
    assert not folder.exists()
    eventually(lambda: not list((machine.state / "trash").iterdir()))


@pytest.mark.slow
def test_deleting_a_workspace_removes_its_folder(machine: Machine, tmp_path: Path) -> None:
    created = begun(machine)
    folder = machine.state / "workspaces" / created["workspaceId"]
    assert machine.other.call("DELETE", f"/agent-computers/{created['workspaceId']}").status == 404
    assert folder.exists()
    assert machine.own.call("DELETE", f"/agent-computers/{created['workspaceId']}").status == 204
    assert gone(nap(tmp_path))
    assert not folder.exists()
    assert machine.own.task(created["id"])["status"] == "canceled"


@pytest.mark.slow
def test_reset_stops_everything(machine: Machine, tmp_path: Path) -> None:
    begun(machine)
    local_service.reset(machine.state)
    assert gone(nap(tmp_path))
    assert not list((machine.state / "workspaces").iterdir())


@pytest.mark.slow
def test_status_tells_what_runs_and_what_waits(machine: Machine) -> None:
    tasks = [begun(machine), begun(machine), machine.own.create("x", executor="slow")]
    seen = local_service.status(machine.state)
    assert (seen["agentsRunning"], seen["agentsQueued"]) == (2, 1)
    assert seen["disk"] > 0
    for task in tasks:
        machine.own.call("POST", f"/tasks/{task['id']}/cancel")
    seen = local_service.status(machine.state)
    assert (seen["agentsRunning"], seen["agentsQueued"]) == (0, 0)


@pytest.mark.slow
def test_a_run_outlives_the_service_that_started_it(start: Starter) -> None:
    config = '[local.agents.mine]\ncommand = ["sh", "-c", "sleep 0.5; echo done"]'
    with start(config) as machine:
        created = machine.own.create("x", executor="mine")
    with start(config) as machine:
        assert machine.wait(created["id"])["finalResult"] == "done"


# Agents found on this machine


def test_agents_that_are_found(
    start: Starter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "bin"
    script(folder, "claude", "echo '2.1.205 (Claude Code)'")  # between two that were tested
    script(folder, "codex", "echo codex-cli 0.1.0")
    for name in ("ANTHROPIC_API_KEY", "OPENAI_API_KEY", "CODEX_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ANTHROPIC_AUTH_TOKEN", "secret")
    monkeypatch.setenv("CLAUDE_CODE_MAX_OUTPUT_TOKENS", "9")
    script(folder, "gemini", "echo 'Error: binary not installed' >&2; exit 1")
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    with start() as machine:
        rows = agent_list.every_agent(machine.state, tmp_path / "config/config.toml")
    found = {row["name"]: row for row in rows}
    assert list(found) == ["opencode", "claude", "gemini", "codex", "mine", "slow", "missing"]
    assert found["claude"] == {
        "name": "claude", "program": str(folder / "claude"), "version": "2.1.205", "tested": True,
        "login": "ANTHROPIC_AUTH_TOKEN", "credential": "outside", "jail": "on",
        "jailGaps": jail.gaps(network=False) or None, "network": "list", "usable": True,
        "problem": None, "unused": None, "launcher": None,
    }  # fmt: skip
    assert (found["codex"]["version"], found["codex"]["tested"]) == ("0.1.0", False)
    assert (found["codex"]["usable"], found["codex"]["login"]) == (False, None)
    advice = "run `codex login`, or set CODEX_API_KEY"
    assert found["codex"]["problem"] == f"no login and no key was found: {advice}"
    assert not found["gemini"]["usable"]
    assert "Error: binary not installed" in found["gemini"]["problem"]
    assert found["mine"]["usable"]
    assert found["missing"]["problem"] == "no-such-program is not on PATH"


@pytest.mark.slow
def test_a_launcher_of_the_settings_starts_the_agents(start: Starter, tmp_path: Path) -> None:
    program = script(tmp_path / "bin", "elsewhere", 'echo "$1" >> "$0.jobs"; shift; exec "$@"')
    commands = f'launcher = ["{program}", "job {{prompt}}"]\nlauncher_stop = ["true"]\n'
    head, rest = CONFIG.split("[local]\n", 1)
    config = f"{head}[local]\n{commands}{rest}"
    with start(config) as machine:
        created = machine.own.create("Say hello", executor="mine")
        assert machine.wait(created["id"])["finalResult"] == "Say hello"
        prompt = machine.content(created["id"])["id"]
        assert Path(f"{program}.jobs").read_text() == f"job {prompt}\n"
        rows = agent_list.every_agent(machine.state, tmp_path / "config/config.toml")
        assert {row["launcher"] for row in rows} == {f"{program} 'job {{prompt}}'"}
    with start(config.replace(program, "no-such-launcher")) as machine:
        answer = machine.own.call(
            "POST", "/tasks", {"prompt": "Say hello", "executor": "mine"}, check=False
        )
        problem = "no-such-launcher is not on PATH ([local] launcher)"
        assert (answer.status, answer.document["error"]["message"]) == (
            400, f"mine cannot be started: {problem}",
        )  # fmt: skip
        rows = agent_list.every_agent(machine.state, tmp_path / "config/config.toml")
        assert next(row for row in rows if row["name"] == "mine")["problem"] == problem


@pytest.mark.slow
def test_settings_that_are_not_used_are_named(
    start: Starter, tmp_path: Path, user_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script(tmp_path / "bin", "claude", "echo 2.1.331")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.delenv("ANTHROPIC_API_KEY", raising=False)
    settings = {"env": {"ANTHROPIC_API_KEY": "x", "MINE": "y"}, "apiKeyHelper": "x"}
    (user_home / ".claude").mkdir()
    (user_home / ".claude/settings.json").write_text(json.dumps(settings))
    with start() as machine:
        for _ in range(2):
            machine.wait(machine.own.create("x", executor="claude")["id"])
        rows = agent_list.every_agent(machine.state, tmp_path / "config/config.toml")
    said = [line for line in machine.said if "without" in line]
    assert said == ["claude runs without apiKeyHelper, MINE of your settings"]
    row = next(row for row in rows if row["name"] == "claude")
    assert (row["login"], row["unused"]) == ("ANTHROPIC_API_KEY", "apiKeyHelper, MINE")


def test_a_path_to_no_program_is_not_looked_up_on_path(tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    file = tmp_path / "file"
    file.touch()
    for path, why in ((file, "is not executable"), (tmp_path / "gone", "does not exist")):
        config.write_text(f'[local.agents.mine]\ncommand = ["{path}"]\n')
        (row,) = (row for row in agent_list.every_agent(None, config) if row["name"] == "mine")
        assert row["problem"] == f"{path} {why}"


@pytest.mark.slow
def test_an_agent_that_is_slow_to_start_is_usable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config.toml").write_text('[local]\njail = "off"\n')
    script(tmp_path / "bin", "claude", "exec sleep 60")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("ANTHROPIC_API_KEY", "secret")
    rows = agent_list.every_agent(tmp_path / "state", tmp_path / "config.toml")
    claude = next(row for row in rows if row["name"] == "claude")
    assert (claude["version"], claude["tested"], claude["problem"]) == (None, None, None)
