"""Runs as jobs of a real Slurm, in containers and in scopes, started as the manual says."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from rebyte_cli.local.agents.cluster import launcher
from rebyte_cli.local.agents.supervision import recovery
from tests.slurm import SlurmCluster
from tests.user_manager import UserManager
from tests.waiting import eventually, kill_supervisor

from .bench import NAP, Bench, gone, script
from .scheduler import recipe
from .test_egress import ASK, KEY, ModelServer, caller
from .test_egress import model as model  # a fixture


@pytest.fixture
def cluster(
    tmp_path: Path, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> Iterator[SlurmCluster]:
    """Two nodes, whose clients are on PATH."""
    with SlurmCluster(tmp_path / "slurm", nodes=2) as cluster:
        for name in ("srun", "scancel", "squeue"):
            line = shlex.join([*cluster.inside, str(shutil.which(name))])
            script(tmp_path / "bin", name, f'exec {line} "$@"\n')
        monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
        monkeypatch.setenv("SLURM_CONF", cluster.environment["SLURM_CONF"])
        yield cluster


def jobs(cluster: SlurmCluster) -> list[str]:
    """The names of the jobs that wait, work or end."""
    return cluster.ask("squeue", "--noheader", "--format=%j").split()


def node_of(cluster: SlurmCluster, prompt: str) -> str:
    return cluster.ask("squeue", "--noheader", f"--name=rebyte-{prompt}", "--format=%N")


@pytest.mark.slow
def test_a_run_is_a_job(bench: Bench, cluster: SlurmCluster, model: ModelServer) -> None:
    code = ASK + "print(sys.stdin.read(), 'x' * 200_000); open('made', 'w').write('work')"
    prompt = bench.start(caller(code), "Say é", **recipe("srun"))
    eventually(lambda: bench.said(prompt).startswith("data: 1"), told=bench.log)
    assert jobs(cluster) == [f"rebyte-{prompt}"]
    assert KEY not in cluster.ask("scontrol", "show", "job", "--details")
    model.may_end.set()
    run = bench.wait(prompt)
    assert run.outcome == "succeeded", run.answer
    output = (bench.run_folder(prompt) / "output").read_text()
    assert output == f"data: 1\n\ndata: 2\n\nSay é {'x' * 200_000}\n"
    assert "+work" in (bench.artifact("changes.patch") or "")
    assert [each["x-api-key"] for each in model.headers] == [KEY]
    eventually(lambda: not jobs(cluster))


@pytest.mark.slow
def test_the_ends_of_jobs(bench: Bench, cluster: SlurmCluster) -> None:
    """By cancel, after a kill of the supervisor, and by the death of a node."""
    options = recipe("srun")

    def start(number: int) -> str:
        line = f"echo x; echo work > made; sleep {NAP}60{number}"
        prompt = bench.start(["sh", "-c", line], workspace=f"ws{number}", **options)
        eventually(lambda: bench.said(prompt) == "x", told=bench.log)
        return prompt

    canceled, killed = start(1), start(2)
    assert len(jobs(cluster)) == 2
    bench.cancel(canceled)
    kill_supervisor(bench.run_folder(killed) / "lock")
    assert bench.wait(canceled).outcome == "canceled"
    assert bench.wait(killed).answer == recovery.VANISHED
    eventually(lambda: not jobs(cluster))
    assert gone(f"{NAP}601")
    assert gone(f"{NAP}602")
    assert not launcher.has_job(bench.run_folder(killed))
    for number in (1, 2):
        assert "+work" in (bench.artifact("changes.patch", f"ws{number}") or "")
    dead = start(3)
    node = node_of(cluster, dead)
    cluster.ask("scontrol", "update", f"nodename={node}", "state=down", "reason=dead")
    run = bench.wait(dead)
    assert run.outcome == "failed"
    start_of_reason = "mine was stopped: the launcher `srun` ended with status "
    assert str(run.answer).startswith(start_of_reason)
    assert "srun: " in str(run.answer)
    assert node in (bench.run_folder(dead) / "launcher").read_text()
    eventually(lambda: not jobs(cluster))
    assert gone(f"{NAP}603")


@pytest.mark.slow
def test_a_run_inside_an_allocation(
    bench: Bench, cluster: SlurmCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is a step there, and one task, however many tasks the allocation is for."""
    options = ["--parsable", "--nodes=2", "--ntasks=4", "--cpus-per-task=2"]
    job = cluster.ask("sbatch", *options, "--output=/dev/null", "--wrap=sleep 600")
    eventually(lambda: cluster.ask("squeue", "--noheader", "--states=running", "--format=%i"))
    monkeypatch.setenv("SLURM_JOB_ID", job)
    for name, value in (("NTASKS", "4"), ("NNODES", "2"), ("CPUS_PER_TASK", "2")):
        monkeypatch.setenv(f"SLURM_{name}", value)
    line = "echo x >> made; cat made; read word; "
    done = bench.run(["sh", "-c", line], "go\n", workspace="done", **recipe("srun"))
    assert (done.outcome, done.answer) == ("succeeded", "x"), bench.log()
    prompt = bench.start(["sh", "-c", f"{line}sleep {NAP}604"], "go\n", **recipe("srun"))
    eventually(lambda: bench.said(prompt) == "x", told=bench.log)
    steps = ["squeue", "--steps", "--noheader", "--format=%j"]
    assert f"rebyte-{prompt}" in cluster.ask(*steps)
    kill_supervisor(bench.run_folder(prompt) / "lock")
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if b"--job-name=rebyte-%b" % prompt.encode() in (process / "cmdline").read_bytes():
                os.kill(int(process.name), signal.SIGKILL)  # srun, as when the machine is gone
    assert bench.wait(prompt).answer == recovery.VANISHED
    eventually(lambda: f"rebyte-{prompt}" not in cluster.ask(*steps))
    assert gone(f"{NAP}604")
    eventually(lambda: not launcher.has_job(bench.run_folder(prompt)))


@pytest.mark.slow
def test_twenty_runs_while_one_is_canceled_and_a_node_is_drained(
    bench: Bench, cluster: SlurmCluster
) -> None:
    options, most = recipe("srun"), 0
    lines = "sleep 0.5; cat; echo work > made"
    prompts = [
        bench.start(["sh", "-c", f"sleep {NAP}61" if number == 5 else lines], f"run {number}",
                    workspace=f"ws{number}", **options)
        for number in range(20)
    ]  # fmt: skip

    def ended() -> int:
        nonlocal most
        most = max(most, len(jobs(cluster)))
        return sum(bench.look(prompt).ended is not None for prompt in prompts)

    eventually(lambda: ended() >= 6, told=bench.log)
    cluster.ask("scontrol", "update", "nodename=n0", "state=drain", "reason=work")
    eventually(lambda: ended() >= 12, told=bench.log)
    eventually(lambda: node_of(cluster, prompts[5]), told=bench.log)
    bench.cancel(prompts[5])
    found = [bench.wait(prompt) for prompt in prompts]
    for number, run in enumerate(found):
        expected = ("canceled", "") if number == 5 else ("succeeded", f"run {number}")
        assert (run.outcome, run.answer) == expected, bench.log()
        work = bench.artifact("changes.patch", f"ws{number}") or ""
        assert ("+work" in work) == (number != 5)
    assert most == 2
    eventually(lambda: not jobs(cluster))
    assert cluster.ask("sinfo", "--noheader", "--Node", "--format=%T").split() == [
        "drained", "idle",
    ]  # fmt: skip
    assert gone(f"{NAP}61")


# CI has no podman, whose packages would be half of all that it installs.
PLACES = ["scope", *(["container"] if shutil.which("podman") else [])]


@pytest.mark.slow
@pytest.mark.parametrize("place", PLACES)
def test_runs_in_other_places_of_this_machine(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """The image of a container is this system, which it cannot change."""
    with contextlib.ExitStack() as stack:
        if place == "container":
            options = recipe("podman")
            options["launcher"][-1:] = ["--rootfs", "/:O"]
            listing = ["podman", "ps", "--all"]
        else:
            manager = stack.enter_context(UserManager(tmp_path / "manager"))
            for name in ("systemd-run", "systemctl"):
                script(tmp_path / "bin", name, manager.client(name))
            monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
            for name, value in manager.environment.items():
                monkeypatch.setenv(name, value)
            options = recipe("systemd-run")
            listing = ["systemctl", "--user", "list-units", "--all"]
        line = f'read word; echo $word; echo work > made; [ "$word" = go ] || sleep {NAP}62'
        prompts = [
            bench.start(["sh", "-c", line], f"{word}\n", workspace=word, **options)
            for word in ("stay", "go")
        ]
        eventually(lambda: bench.said(prompts[0]) == "stay", told=bench.log)
        listed = subprocess.run(listing, capture_output=True, text=True, check=True).stdout
        assert f"rebyte-{prompts[0]}" in listed
        killed = bench.start(["sh", "-c", line], "stay\n", workspace="killed", **options)
        bench.cancel(prompts[0])
        eventually(lambda: bench.said(killed) == "stay", told=bench.log)
        kill_supervisor(bench.run_folder(killed) / "lock")
        canceled, done = map(bench.wait, prompts)
        assert canceled.outcome == "canceled"
        assert (done.outcome, done.answer) == ("succeeded", "go")
        assert bench.wait(killed).answer == recovery.VANISHED
        assert gone(f"{NAP}62")
        for workspace in ("stay", "go", "killed"):
            assert "+work" in (bench.artifact("changes.patch", workspace) or "")
        listed = subprocess.run(listing, capture_output=True, text=True, check=True).stdout
        assert not [each for each in (*prompts, killed) if each in listed]
        assert bench.log() == ""
