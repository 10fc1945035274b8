"""Runs that a launcher starts: the key on its way, ends of every kind, and nothing that is left."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from rebyte_cli.local import local_service
from rebyte_cli.local.agents import config
from rebyte_cli.local.agents.adapters.opencode import OpenCode
from rebyte_cli.local.agents.cluster import launcher
from rebyte_cli.local.agents.supervision import disk_space, recovery, run_lock, runs
from rebyte_cli.local.agents.workspaces.workspace_folder import WHOLE, Workspace
from rebyte_cli.local.gateway.model_budget import LARGEST, USUAL
from rebyte_cli.local.store import StateError, Store
from tests.repositories import git
from tests.waiting import eventually, kill_supervisor

from .bench import NAP, Bench, gone, processes, python, script
from .scheduler import Scheduler, recipe
from .shop import Shop
from .test_egress import ASK, KEY, ModelServer, caller
from .test_egress import model as model  # a fixture
from .test_login_copies import GEMINI, log_in
from .test_login_copies import agent as login_agent
from .test_run_meter import CountingModel, agent, limit, serving, used
from .test_service import CONFIG, Machine, Starter, begun
from .test_service import start as start  # a fixture

JOB = "rebyte_cli.local.agents.cluster.node"


@pytest.fixture
def scheduler(tmp_path: Path) -> Scheduler:
    return Scheduler(tmp_path / "scheduler")


@pytest.fixture
def counting(monkeypatch: pytest.MonkeyPatch) -> Iterator[CountingModel]:
    """A model whose every answer used the same."""
    yield from serving(CountingModel(), monkeypatch)


@pytest.mark.slow
def test_an_agent_works_where_the_launcher_starts_it(bench: Bench, scheduler: Scheduler) -> None:
    code = (
        "import os, sys; print(sys.stdin.read(), os.getcwd()); print('x' * 300_000);"
        " print('broken', file=sys.stderr); open('made', 'w').write('work'); sys.exit(3)"
    )
    run = bench.run(python(code), "Say\nhello é\U0001f600", **scheduler.options)
    assert run.outcome == "failed"
    assert bench.said(run.prompt).startswith("Say\nhello")
    output = (bench.run_folder(run.prompt) / "output").read_text()
    assert output.endswith("/code\n" + "x" * 300_000 + "\n")
    assert run.answer == "mine exited with status 3: broken"
    assert "+work" in (bench.artifact("changes.patch") or "")
    assert scheduler.names("started") == [run.prompt]
    assert scheduler.names("stopped") == []  # it had ended
    assert not launcher.has_job(bench.run_folder(run.prompt))
    assert (bench.run_folder(run.prompt) / "launcher").read_text() == "job queued\n"


@pytest.mark.slow
@pytest.mark.usefixtures("real_supervisors")
def test_no_process_on_the_way_shows_the_key(
    bench: Bench, scheduler: Scheduler, model: ModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-another-agent")
    monkeypatch.setenv("REBYTE_API_KEY", "rbk_of_the_cloud")
    monkeypatch.setenv("MY_SCRIPT", f"curl -H 'x-api-key: {KEY}'")
    for name in ("GITHUB_TOKEN", "AWS_SECRET_ACCESS_KEY", "DB_PASSWORD", "MY_API_KEY"):
        monkeypatch.setenv(name, "another-secret")
    monkeypatch.setenv("SLURM_CONF", "/etc/mine")
    prompt = bench.start(caller(ASK), **scheduler.options)
    eventually(lambda: bench.said(prompt).startswith("data: 1"))
    # The supervisor has the environment that the user started it with; it is on this machine.
    ours = _environments(below=bench.supervisor(prompt))
    model.may_end.set()
    run = bench.wait(prompt)
    assert run.outcome == "succeeded", run.answer
    assert [each["x-api-key"] for each in model.headers] == [KEY]
    assert len(ours) > 4
    assert [text for text in ours if JOB in text]
    assert [text for text in ours if "local.gateway" in text]
    assert [text for text in ours if "SLURM_CONF=/etc/mine" in text]
    model.may_end.clear()
    canceled = bench.start(caller(ASK), **scheduler.options)
    eventually(lambda: bench.said(canceled).startswith("data: 1"))
    kill_supervisor(bench.run_folder(canceled) / "lock")
    bench.wait(canceled)
    eventually(lambda: scheduler.names("stopped") == [canceled])
    ours.append((scheduler.folder / "environment").read_text())
    assert "SLURM_CONF" in ours[-1]
    for secret in (KEY, "sk-of-another-agent", "rbk_of_the_cloud", "another-secret"):
        assert not [text for text in ours if secret in text]


def _environments(*, below: int) -> list[str]:
    """The command line and the environment of every process that `below` has started."""
    found, waiting = [], [below]
    for number in waiting:
        folder = Path(f"/proc/{number}")
        with suppress(OSError):
            if number != below:
                parts = (folder / "cmdline").read_bytes(), (folder / "environ").read_bytes()
                found.append(b" ".join(parts).replace(b"\0", b" ").decode(errors="replace"))
            for thread in (folder / "task").iterdir():
                waiting += map(int, (thread / "children").read_text().split())
    return found


@pytest.mark.slow
def test_two_work_at_a_time_and_what_they_print_is_theirs(
    bench: Bench, scheduler: Scheduler
) -> None:
    prompts = [
        bench.start(["sh", "-c", f"cat; sleep 0.2; echo end {number}"], f"job {number}\n",
                    workspace=f"ws{number}", **scheduler.options)
        for number in range(4)
    ]  # fmt: skip
    found = [bench.wait(prompt) for prompt in prompts]
    assert [run.answer for run in found] == [f"job {n}\nend {n}" for n in range(4)]
    assert sorted(scheduler.names("started")) == sorted(prompts)


@pytest.mark.slow
def test_a_canceled_run_is_ended_by_the_command_for_that(
    bench: Bench, scheduler: Scheduler
) -> None:
    code = f"echo x; echo work > made; sleep {NAP}501"
    prompt = bench.start(["sh", "-c", code], **scheduler.options)
    eventually(lambda: bench.said(prompt) == "x")
    bench.cancel(prompt)
    assert not scheduler.is_at_work(prompt)
    run = bench.wait(prompt)
    assert run.outcome == "canceled"
    assert scheduler.names("stopped") == [prompt]
    assert gone(f"{NAP}501")
    assert "+work" in (bench.artifact("changes.patch") or "")


@pytest.mark.slow
def test_a_run_that_waits_in_a_queue_can_be_canceled(bench: Bench, scheduler: Scheduler) -> None:
    (scheduler.folder / "drained").touch()
    prompt = bench.start(["echo", "x"], stall=0.2, limit=0.3, **scheduler.options)
    said = "Waiting for `launcher`: job queued"
    eventually(lambda: said in bench.said(prompt).replace(str(scheduler.folder) + "/", ""))
    bench.cancel(prompt)
    (scheduler.folder / "drained").unlink()
    assert bench.wait(prompt).outcome == "canceled"
    assert scheduler.names("stopped") == [prompt]
    assert not scheduler.is_at_work(prompt)


@pytest.mark.slow
def test_the_time_in_a_queue_is_not_that_of_the_run(bench: Bench, scheduler: Scheduler) -> None:
    (scheduler.folder / "drained").touch()
    prompt = bench.start(["echo", "hello"], stall=5, limit=5, **scheduler.options)
    eventually(lambda: "Waiting for" in bench.said(prompt))
    (scheduler.folder / "drained").unlink()
    run = bench.wait(prompt)
    assert run.outcome == "succeeded", run.answer


@pytest.mark.slow
def test_a_run_that_takes_too_long_is_ended(bench: Bench, scheduler: Scheduler) -> None:
    options = {**scheduler.options, "limit": 1}
    run = bench.run(["sh", "-c", f"echo x; sleep {NAP}502"], **options)
    assert (run.outcome, "longer than its limit" in str(run.answer)) == ("failed", True)
    assert scheduler.names("stopped") == [run.prompt]
    assert gone(f"{NAP}502")


@pytest.mark.slow
def test_the_job_of_a_killed_supervisor_is_ended_by_the_next_look(
    bench: Bench, scheduler: Scheduler
) -> None:
    code = f"echo x; echo work > made; sleep {NAP}503"
    prompt = bench.start(["sh", "-c", code], **scheduler.options)
    eventually(lambda: bench.said(prompt) == "x")
    kill_supervisor(bench.run_folder(prompt) / "lock")
    eventually(lambda: not run_lock.is_held(bench.folder, _unlooked(bench, prompt)))
    assert scheduler.is_at_work(prompt)
    assert scheduler.names("stopped") == []
    run = bench.wait(prompt)
    assert (run.outcome, run.answer) == ("failed", recovery.VANISHED)
    eventually(lambda: not scheduler.is_at_work(prompt))
    assert scheduler.names("stopped") == [prompt]
    assert gone(f"{NAP}503")
    assert "+work" in (bench.artifact("changes.patch") or "")
    assert not launcher.has_job(bench.run_folder(prompt))


def _unlooked(bench: Bench, prompt: str) -> runs.RunRecord:
    """The run as it is recorded: nothing is recorded by that."""
    with bench.store.read() as db:
        return runs.load(db, [prompt])[prompt]


@pytest.mark.slow
def test_a_cancel_after_the_supervisor_was_killed_ends_the_job(
    bench: Bench, scheduler: Scheduler
) -> None:
    prompt = bench.start(["sh", "-c", f"echo x; sleep {NAP}504"], **scheduler.options)
    eventually(lambda: bench.said(prompt) == "x")
    run = _unlooked(bench, prompt)
    with bench.store.write() as db:
        runs.end(db, prompt, bench.store.now(), "canceled", "")
    kill_supervisor(bench.run_folder(prompt) / "lock")
    recovery.stop(bench.folder, run)
    assert scheduler.names("stopped")[:1] == [prompt]
    assert gone(f"{NAP}504")


@pytest.mark.slow
def test_a_job_that_cannot_be_ended_keeps_the_next_run_out(
    bench: Bench, scheduler: Scheduler
) -> None:
    (scheduler.folder / "broken").touch()
    nap = f"20{NAP[2:]}505"  # the next run waits for its end
    prompt = bench.start(["sh", "-c", f"echo x; sleep {nap}"], **scheduler.options)
    eventually(lambda: bench.said(prompt) == "x")
    kill_supervisor(bench.run_folder(prompt) / "lock")
    bench.wait(prompt)
    problem = f"`{scheduler.folder}/launcherStop` ended with status 1: the scheduler is down"
    eventually(lambda: problem in bench.log())
    next_one = bench.run(["echo", "hello"])
    assert next_one.outcome == "failed"
    assert problem in str(next_one.answer)
    (scheduler.folder / "broken").unlink()
    assert bench.run(["echo", "hello"]).outcome == "succeeded"
    assert gone(nap)


@pytest.mark.slow
@pytest.mark.parametrize("supervisor", ["lives", "was killed"])
def test_a_job_that_could_not_be_ended_is_ended_and_counted_later(
    bench: Bench,
    scheduler: Scheduler,
    counting: CountingModel,
    supervisor: str,
) -> None:
    (scheduler.folder / "broken").touch()
    code = f"ask(); print('x', flush=True); wait_for('on'); ask(); time.sleep({NAP}510)"
    waiting = "def wait_for(name):\n while not os.path.exists(name): time.sleep(.02)\n"
    prompt = bench.start(agent(waiting + code), workspace="ws", **scheduler.options)
    eventually(lambda: bench.said(prompt) == "x")
    if supervisor == "was killed":
        kill_supervisor(bench.run_folder(prompt) / "lock")
    run = bench.look(prompt)
    with bench.store.write() as db:
        runs.end(db, prompt, bench.store.now(), "canceled", "")
    assert "the scheduler is down" in recovery.stop(bench.folder, run)
    bench.wait(prompt)
    eventually(lambda: not run_lock.is_held(bench.folder, run))
    tries = scheduler.names("stopped")
    bench.look(prompt)
    assert not run_lock.is_held(bench.folder, run)
    assert scheduler.names("stopped") == tries  # not with every command
    (bench.workspace().code / "on").touch()
    eventually(lambda: counting.served == 2)
    assert scheduler.is_at_work(prompt)
    (scheduler.folder / "broken").unlink()
    os.utime(bench.run_folder(prompt) / launcher.JOB, (0, 0))  # as if it had failed long ago
    eventually(lambda: bench.look(prompt) and not scheduler.is_at_work(prompt))
    bench.wait(prompt)
    eventually(lambda: used(bench, prompt)["requests"] == 2)
    with bench.store.read() as db:
        assert runs.unfinished(db) == []
    assert not launcher.has_job(bench.run_folder(prompt))
    assert "diff --git a/on b/on" in (bench.artifact("changes.patch") or "")
    assert gone(f"{NAP}510")


@pytest.fixture
def elsewhere(start: Starter, scheduler: Scheduler) -> Iterator[tuple[Machine, dict[str, Any]]]:
    """A service, and a task of it at work in a job that the scheduler does not end yet."""
    names = {"launcher": "launcher", "launcher_stop": "launcherStop"}
    lines = "\n".join(f"{name} = {json.dumps(scheduler.options[names[name]])}" for name in names)
    (scheduler.folder / "broken").touch()
    with start(CONFIG.replace("[local]\n", f"[local]\n{lines}\n")) as machine:
        yield machine, begun(machine)
        # Whatever a test has left is ended.
        for name in scheduler.names("started"):
            with suppress(ProcessLookupError):
                os.kill(scheduler.pid(name), signal.SIGTERM)


@pytest.mark.slow
def test_a_cancel_that_ends_no_job_fails(
    elsewhere: tuple[Machine, dict[str, Any]], scheduler: Scheduler
) -> None:
    machine, task = elsewhere
    path = f"/tasks/{task['id']}/cancel"
    for _ in range(2):
        refused = machine.own.call("POST", path, check=False)
        assert refused.status == 500
        error = refused.document["error"]
        assert error["code"] == "job_stays"
        assert "ended with status 1: the scheduler is down" in error["message"]
    assert machine.own.task(task["id"])["status"] == "canceled"
    assert not run_lock.wait_until_free(machine.state, task["workspaceId"])
    (scheduler.folder / "broken").unlink()
    assert machine.own.call("POST", path).status == 200
    eventually(lambda: not scheduler.is_at_work(*scheduler.names("started")))
    assert run_lock.wait_until_free(machine.state, task["workspaceId"])


@pytest.mark.slow
@pytest.mark.parametrize("how", ["delete", "prune", "reset"])
def test_what_a_job_that_stays_works_in_is_not_removed(
    elsewhere: tuple[Machine, dict[str, Any]], scheduler: Scheduler, how: str
) -> None:
    machine, task = elsewhere
    folder = machine.state / "workspaces" / task["workspaceId"]
    machine.own.call("POST", f"/tasks/{task['id']}/cancel", check=False)
    problem = "ended with status 1: the scheduler is down"

    def remove() -> str:
        if how == "delete":
            path = f"/agent-computers/{task['workspaceId']}"
            answer = machine.own.call("DELETE", path, check=False)
            return "" if answer.status == 204 else str(answer.document["error"]["message"])
        if how == "prune":
            found, _ = disk_space.prune(machine.state, 0, dry_run=False, warn=str)
            return "" if found else problem
        try:
            local_service.reset(machine.state)
        except StateError as error:
            return str(error.strerror)
        return ""

    # As if counted by an older version, which had a patch of it.
    with Store(machine.state) as store, store.write() as db:
        db.execute("UPDATE runs SET counted = 1")
        (prompt,) = runs.begun(db, task["workspaceId"])
    place = Workspace(machine.state, task["workspaceId"])
    place.note_patch(prompt, saved=place.state() + WHOLE)
    git(place.base, "update-ref", f"refs/runs/{prompt}", "refs/heads/base^{tree}")
    assert problem in remove()
    assert list(folder.glob("runs/*/job"))
    (scheduler.folder / "broken").unlink()
    assert remove() == ""
    gone = folder / "code" if how == "prune" else folder
    assert not gone.exists()
    assert not scheduler.is_at_work(*scheduler.names("started"))


@pytest.mark.slow
def test_a_sweep_leaves_the_workspace_of_a_job_that_stays(
    bench: Bench, scheduler: Scheduler
) -> None:
    prompt = bench.start(["sh", "-c", f"echo x; sleep {NAP}511"], **scheduler.options)
    (scheduler.folder / "broken").touch()
    eventually(lambda: bench.said(prompt) == "x")
    bench.cancel(prompt)
    bench.wait(prompt)
    with bench.store.write() as db:
        db.execute("UPDATE tasks SET deleted = 1")
    disk_space.sweep(bench.store)
    assert launcher.has_job(bench.run_folder(prompt))
    (scheduler.folder / "broken").unlink()
    recovery.stop(bench.folder, bench.look(prompt))
    bench.wait(prompt)
    disk_space.sweep(bench.store)
    assert not bench.workspace().folder.exists()
    assert gone(f"{NAP}511")


@pytest.mark.slow
def test_a_reset_of_a_damaged_database_ends_the_jobs(bench: Bench, scheduler: Scheduler) -> None:
    prompt = bench.start(["sh", "-c", f"echo x; sleep {NAP}512"], **scheduler.options)
    (scheduler.folder / "broken").touch()
    eventually(lambda: bench.said(prompt) == "x")
    bench.cancel(prompt)
    bench.wait(prompt)
    bench.store.close()
    for file in bench.folder.glob("service.db*"):
        file.write_bytes(b"damaged" * 1000)
    (scheduler.folder / "broken").unlink()
    local_service.reset(bench.folder)
    eventually(lambda: not scheduler.is_at_work(prompt))


@pytest.mark.slow
@pytest.mark.parametrize("how", ["killed", "unreachable"])
def test_a_node_that_dies_fails_the_run_with_the_reason(
    bench: Bench, scheduler: Scheduler, how: str
) -> None:
    prompt = bench.start(["sh", "-c", f"echo x; sleep {NAP}506"], **scheduler.options)
    eventually(lambda: bench.said(prompt) == "x")
    name = scheduler.options["launcher"][0]
    if how == "killed":
        os.kill(scheduler.pid(prompt), signal.SIGKILL)
        reason = f"mine was stopped: the launcher `{name}` ended with status 247: node failure"
    else:
        os.kill(scheduler.pid(f"{prompt}.client"), signal.SIGKILL)
        reason = f"mine was stopped: the launcher `{name}` ended with status 137: job queued"
    run = bench.wait(prompt)
    assert (run.outcome, run.answer) == ("failed", reason)
    assert scheduler.names("stopped") == [prompt]
    assert gone(f"{NAP}506")


def test_a_launcher_that_does_not_start(bench: Bench) -> None:
    options = {"launcher": ["no-such-launcher"], "launcherStop": ["true"]}
    run = bench.run(["echo", "hello"], **options)
    assert run.outcome == "failed"
    start = "mine was stopped: the launcher `no-such-launcher` ended with status 127: "
    assert str(run.answer).startswith(start)
    assert "not found" in str(run.answer)


# COMMAND…: start it twice, each with all of the input, as srun does for two tasks.
TWICE = """
import contextlib, subprocess, sys
jobs = [subprocess.Popen(sys.argv[1:], stdin=subprocess.PIPE) for _ in range(2)]
for line in sys.stdin.buffer:
    for job in jobs:
        with contextlib.suppress(OSError):
            job.stdin.write(line)
            job.stdin.flush()
for job in jobs:
    with contextlib.suppress(OSError):
        job.stdin.close()
sys.exit(max(abs(job.wait()) for job in jobs))
"""


@pytest.mark.slow
def test_a_run_that_the_launcher_starts_twice_is_worked_on_once(
    bench: Bench, tmp_path: Path
) -> None:
    launch = script(tmp_path / "bin", "twice", TWICE, sys.executable)
    line = f"echo x >> made; sleep {NAP}513"
    run = bench.run(["sh", "-c", line], launcher=[launch], launcherStop=["true"])
    assert run.outcome == "failed"
    assert "mine was stopped: the launcher starts the run twice" in str(run.answer)
    made = bench.workspace().code / "made"
    assert not made.exists() or made.read_text() == "x\n"
    assert gone(f"{NAP}513")
    assert not launcher.has_job(bench.run_folder(run.prompt))


@pytest.mark.slow
def test_a_job_that_is_still_at_work_after_its_end_stays(
    bench: Bench, scheduler: Scheduler
) -> None:
    """As a step of an allocation, which `scancel --name` does not find, and succeeds."""
    options = {**scheduler.options, "launcherStop": ["true"]}
    prompt = bench.start(["sh", "-c", f"echo x; sleep {NAP}514"], **options)
    eventually(lambda: bench.said(prompt) == "x")
    kill_supervisor(bench.run_folder(prompt) / "lock")
    bench.wait(prompt)
    problem = "`true` succeeded, but the job is still at work"
    eventually(lambda: problem in bench.log())
    assert launcher.has_job(bench.run_folder(prompt))
    assert problem in recovery.stop(bench.folder, bench.look(prompt))
    os.kill(scheduler.pid(prompt), signal.SIGTERM)
    assert recovery.stop(bench.folder, bench.look(prompt)) == ""
    assert gone(f"{NAP}514")


@pytest.mark.slow
def test_what_a_run_used_is_known_here(
    bench: Bench, scheduler: Scheduler, counting: CountingModel
) -> None:
    """Budgets that others share are asked for over the streams of the launcher."""
    options = {"budgetOf": "batch", **limit("batch", tokens=2500), **scheduler.options}
    first = bench.run(agent("ask(); ask()"), workspace="a", **options)
    assert first.outcome == "succeeded", first.answer
    assert used(bench, first.prompt)["input_tokens"] == 1800
    second = bench.run(agent("ask(); ask(); print('on')"), workspace="b", **options)
    assert second.answer == "mine was stopped: the budget of 2,500 tokens is used up"
    assert counting.served == 3


@pytest.mark.slow
@pytest.mark.parametrize("is_launched", [False, True])
@pytest.mark.parametrize("how", ["canceled", "limit", "stall", "killed", "signal"])
def test_only_a_cancel_makes_a_request_that_it_cuts_off_cheap(
    bench: Bench, scheduler: Scheduler, counting: CountingModel, how: str, is_launched: bool
) -> None:
    """A program can choose to be silent, to work for too long, and what kills a supervisor."""
    if how == "signal" and not is_launched:
        pytest.skip("there is no job")
    counting.may_answer.clear()
    options: dict[str, Any] = dict(scheduler.options) if is_launched else {}
    options |= {how: 2} if how in ("limit", "stall") else {}
    prompt = bench.start(agent('ask(b"wait")'), **options)
    assert counting.waits.wait(60)
    if how == "canceled":
        bench.cancel(prompt)
    elif how == "killed":
        kill_supervisor(bench.run_folder(prompt) / "lock")
    elif how == "signal":  # as of a scheduler whose own limit is reached
        os.kill(scheduler.pid(prompt), signal.SIGTERM)
    bench.wait(prompt)
    counting.may_answer.set()
    eventually(lambda: used(bench, prompt))
    tokens = used(bench, prompt)["uncounted"]["tokens"]
    assert tokens == sum(USUAL if how == "canceled" else LARGEST)


@pytest.mark.slow
def test_a_login_that_is_inside_goes_along(
    bench: Bench, scheduler: Scheduler, user_home: Path, tmp_path: Path
) -> None:
    """Its jail inherits a descriptor of the same number as the command line says."""
    log_in(user_home, GEMINI)
    gemini = login_agent(tmp_path, GEMINI, f"cat ~/{GEMINI} > /code/seen; ls /proc/self/fd >&2")
    bench.run(gemini, **scheduler.options)
    assert "SECRET" in (bench.workspace().code / "seen").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("options", [{"network": "host"}, {"jail": False}])
def test_a_run_without_a_gateway(bench: Bench, scheduler: Scheduler, options: Any) -> None:
    prompt = bench.start(
        ["sh", "-c", f"cat; sleep {NAP}507"], "x\n", **options, **scheduler.options
    )
    eventually(lambda: bench.said(prompt) == "x")
    bench.cancel(prompt)
    assert bench.wait(prompt).outcome == "canceled"
    assert gone(f"{NAP}507")


@pytest.mark.slow
def test_a_tool_that_the_agent_does_not_tell_of_is_seen_at_work(
    bench: Bench, scheduler: Scheduler, tmp_path: Path
) -> None:
    step = json.dumps({"type": "text", "part": {"text": "x"}})
    done = json.dumps({"type": "step_finish", "part": {"reason": "stop"}})
    line = f"echo '{step}'; sleep 4; echo '{done}'"
    agent = OpenCode(command=(script(tmp_path / "bin", "opencode", line),))
    run = bench.run(agent, stall=2.5, **scheduler.options)
    assert run.outcome == "succeeded", run.answer
    line = f"sleep 3; echo '{step}'; exec sleep {NAP}508"  # the agent itself
    agent = OpenCode(command=(script(tmp_path / "bin", "opencode", line),))
    run = bench.run(agent, stall=2.5, **scheduler.options)
    assert run.answer == "opencode printed nothing for 2.5s"


@pytest.mark.slow
def test_the_clone_needs_nothing_outside_the_workspace(shop: Shop, scheduler: Scheduler) -> None:
    run = shop.run("git log --oneline; echo 43 > answer.txt", **scheduler.options)
    assert run.outcome == "succeeded", run.answer
    workspace = shop.bench.workspace()
    assert not (workspace.code / ".git/objects/info/alternates").exists()


def test_commands_with_placeholders(tmp_path: Path) -> None:
    words = ["srun", "--job-name=rebyte-{prompt}", '{"a": {"b": 1}}', "${HOME}", "{workspace}:/x"]
    assert launcher.unknown_placeholder(words) == ""
    folder = tmp_path / "ws" / "runs" / "p1"
    place = tmp_path / "ws"
    assert launcher.filled(words, folder)[1:] == [
        "--job-name=rebyte-p1", '{"a": {"b": 1}}', "${HOME}", f"{place}:/x",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('launcher = "srun"\nlauncher_stop = ["x"]', "[local] launcher must be a list of strings"),
        ('launcher = ["srun", ""]\nlauncher_stop = ["x"]', "launcher must be a list of strings"),
        ('launcher = ["srun"]', "[local] launcher_stop is missing"),
        ('launcher_stop = ["scancel"]', "[local] launcher is missing"),
        (
            'launcher = ["srun"]\nlauncher_stop = ["scancel", "--name={run}"]',
            "[local] launcher_stop: {run} means nothing; there are {prompt} and {workspace}",
        ),
    ],
)
def test_settings_that_mean_nothing(tmp_path: Path, text: str, problem: str) -> None:
    file = tmp_path / "config.toml"
    file.write_text(f"[local]\n{text}\n")
    with pytest.raises(config.ConfigError) as raised:
        config.load(file)
    assert problem in str(raised.value)


# A program in place of kubectl: what it is given is what counts.
KUBECTL = """
printf '%s\\n' "$@" > "$0.words"
while [ "$1" != -- ]; do shift; done
shift
exec "$@"
"""


@pytest.mark.slow
def test_kubernetes_is_given_the_command_that_the_manual_has(bench: Bench, tmp_path: Path) -> None:
    options = recipe("kubectl")
    assert options["launcherStop"][:3] == ["kubectl", "delete", "pod"]
    program = script(tmp_path / "bin", "kubectl", KUBECTL)
    options |= {"launcher": [program, *options["launcher"][1:]], "launcherStop": ["true"]}
    run = bench.run(["echo", "hello"], **options)
    assert (run.outcome, run.answer) == ("succeeded", "hello")
    words = Path(f"{program}.words").read_text().splitlines()
    assert words[:2] == ["run", f"rebyte-{run.prompt}"]
    assert {"--rm", "--stdin", "--restart=Never", "--quiet", "--command", "--"} <= set(words)
    place = str(bench.workspace().folder)
    overrides = json.loads(next(w for w in words if w.startswith("--overrides=")).partition("=")[2])
    assert place in json.dumps(overrides)
    assert not processes(run.prompt)


@pytest.mark.parametrize(
    "variable",
    [
        *("GITHUB_TOKEN=x", "AWS_SECRET_ACCESS_KEY=x", "PGPASSWORD=x", "RESTIC_PASSPHRASE=x"),
        *("MYSQL_PWD=x", "SSHPASS=x", "DB_PASS=x", "GH_PAT=x", "NPM_CONFIG__AUTH=x"),
        *("COOKIE=x", "SESSION_COOKIES=x", "BEARER=x"),
        *("npm_config_//registry.example/:_auth=x", "DOCKER_AUTH_CONFIG={}"),
        *("DATABASE_URL=postgres://u:hunter2@h/d", "MY_OWN=ghp_abcdefghijklmnopqrstuvwxyz"),
    ],
)
def test_a_launcher_gets_no_variable_that_may_hold_a_secret(variable: str) -> None:
    name, _, value = variable.partition("=")
    assert launcher.hidden({name: value}, (), ()) == {name}


def test_the_command_that_ends_a_job_gets_no_secret_of_the_command_that_runs_it(
    tmp_path: Path, scheduler: Scheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever command finds the job left may have other variables than the one that began it."""
    folder = tmp_path / "ws" / "runs" / "p1"
    folder.mkdir(parents=True)
    launcher.begin_job(folder, scheduler.options["launcherStop"], {"MY_OWN"})
    monkeypatch.setenv("MY_OWN", "hidden-from-the-start")
    monkeypatch.setenv("GITHUB_TOKEN", "came-later")
    monkeypatch.setenv("SLURM_CONF", "/etc/mine")
    launcher.end_job(tmp_path, folder)
    seen = (scheduler.folder / "environment").read_text()
    assert "/etc/mine" in seen
    assert "hidden-from-the-start" not in seen
    assert "came-later" not in seen


def test_a_job_whose_file_cannot_be_read_stays(tmp_path: Path, scheduler: Scheduler) -> None:
    """As on NFS, for a while: only a file that is missing or not finished says that none began."""
    folder = tmp_path / "ws" / "runs" / "p1"
    folder.mkdir(parents=True)
    job, aside = folder / launcher.JOB, folder / "aside"
    launcher.begin_job(folder, scheduler.options["launcherStop"], ())
    job.rename(aside)
    job.symlink_to(job)
    with pytest.raises(launcher.JobStays, match=r"ended: .*/job cannot be read: Too many levels"):
        launcher.end_job(tmp_path, folder)
    assert "Too many levels" in (tmp_path / "service.log").read_text()
    aside.rename(job)
    launcher.end_job(tmp_path, folder)
    assert (scheduler.folder / "environment").exists()
    assert not launcher.has_job(folder)
    job.write_text('{"stop": [')
    launcher.end_job(tmp_path, folder)
    assert not launcher.has_job(folder)


def test_a_launcher_gets_the_variables_that_it_needs() -> None:
    needed = {
        "PATH": "/home/me/.npm_packages/bin:/usr/bin",
        "MANPATH": ":/home/me/sk-learn-env/man",
        "PWD": "/code",
        "OLDPWD": "/",
        "SSH_AUTH_SOCK": "/run/agent",
        "SSH_ASKPASS": "/usr/bin/askpass",
        "XAUTHORITY": "/home/me/.Xauthority",
        "REGISTRY_AUTH_FILE": "/home/me/auth.json",
        "PGPASSFILE": "/home/me/.pgpass",
        "SLURM_CONF": "/etc/slurm.conf",
        "KUBECONFIG": "/home/me/.kube/config",
    }
    assert launcher.hidden(needed, (), ()) == frozenset()
