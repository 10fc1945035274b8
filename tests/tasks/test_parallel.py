"""One batch on many machines: what the page about shards says is run, each line exactly once."""

from __future__ import annotations

import re
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import yaml

from tests.conftest import need_tool
from tests.farm import Farm, lines_of
from tests.script_blocks import blocks, run
from tests.waiting import eventually

PAGE = Path(__file__).parents[2] / "rebyte_cli/manual/pages/rebyte-shards.7.md"
TEXT = PAGE.read_text(encoding="utf-8")
(SLURM,) = blocks(TEXT, "bash")
JOB = yaml.safe_load(blocks(TEXT, "yaml")[0])
KUBERNETES = JOB["spec"]["template"]["spec"]["containers"][0]["args"][0]
PROMPTS = [f"Task {number}" for number in range(1, 21)]

pytestmark = pytest.mark.slow  # many processes on each of several machines, played side by side


def played(home: Path, farm: Farm, script: str, values: Iterable[dict[str, str]]) -> list[int]:
    """Run a script for each machine, all at once; the lines in the results, by number."""
    (home / "tasks.jsonl").write_text("".join(f'{{"prompt": "{each}"}}\n' for each in PROMPTS))
    machines = []
    for given in values:
        variables = " ".join(f"{name}={value}" for name, value in given.items())
        machines.append(f"(\nexport {variables}\n{script}\n) & machines+=($!)")
    wait = 'for each in "${machines[@]}"; do wait "$each"; done'
    done = run("\n".join([*machines, wait]), home, **farm.env)
    assert done.returncode == 0, done.stderr
    assert dict(farm.made) == dict.fromkeys(PROMPTS, 1)
    found = [row for path in home.glob("results*.jsonl") for row in lines_of(path.read_text())]
    assert {row["status"] for row in found} == {"completed"}
    return sorted(row["line"] for row in found)


def test_gnu_parallel_runs_each_line_once(home: Path) -> None:
    need_tool("parallel")
    need_tool("jq")
    block = next(block for block in blocks(TEXT) if "parallel" in block)
    with Farm(delay=0.02) as farm:
        done = run(block, home, **farm.env)
        assert done.returncode == 0, done.stderr
        assert done.stdout.split() == ["12", "completed"]
        assert dict(farm.made) == {f"Summarise chapter {number}": 1 for number in range(1, 13)}
    assert len(list(home.glob("chapters.txt.?-of-4.journal"))) == 4
    rows = [row for path in home.glob("results.?.jsonl") for row in lines_of(path.read_text())]
    assert sorted(row["line"] for row in rows) == list(range(1, 13))


SSH = """#!/bin/bash
[ "$1" = -l ] && shift 2
[ "$1" = -- ] && shift
node=$1; shift
[ "$1" = -- ] && shift
echo "$node" >> "$NODES"
cd "$HOMES/$node" 2>/dev/null && export HOME=$PWD || cd "$HOME"
export SHELL=/bin/bash
exec bash -c "$*"
"""


def play_ssh(folder: Path) -> None:
    """An `ssh` that starts a shell on this machine: in a home folder, as the real one does."""
    (folder / "bin").mkdir(parents=True)
    ssh = folder / "bin" / "ssh"
    ssh.write_text(SSH)
    ssh.chmod(0o755)


def test_gnu_parallel_over_ssh_works_in_the_shared_folder(home: Path) -> None:
    need_tool("parallel")
    need_tool("jq")
    shared = home / "shared"
    play_ssh(shared)
    (option,) = re.findall(r"`(--sshlogin .*?)`", TEXT)
    block = next(block for block in blocks(TEXT) if "parallel" in block)
    block = block.replace("parallel", f"parallel {option}")
    with Farm() as farm:
        done = run(block, shared, **farm.env, HOME=str(home), NODES=str(home / "nodes"))
        assert done.returncode == 0, done.stderr
        assert done.stdout.split() == ["12", "completed"]
    assert set((home / "nodes").read_text().split()) == {"node1", "node2"}
    assert len(list(shared.glob("chapters.txt.?-of-4.journal"))) == 4


def test_gnu_parallel_over_ssh_without_a_shared_folder(home: Path) -> None:
    """Run twice: each part finds its journal on its machine, and only the results come back."""
    need_tool("parallel")
    need_tool("rsync")
    here, nodes = home / "here", [home / "node1", home / "node2"]
    play_ssh(here)
    for node in nodes:
        node.mkdir()
    block = next(block for block in blocks(TEXT) if "--hostgroups" in block)
    with Farm() as farm:
        places = {"HOMES": str(home), "NODES": str(home / "nodes")}
        for _ in range(2):
            done = run(block, here, **farm.env, HOME=str(home), **places)
            assert done.returncode == 0, done.stderr
        assert set(farm.made.values()) == {1}
    rows = [row for path in here.glob("results.?.jsonl") for row in lines_of(path.read_text())]
    assert sorted(row["line"] for row in rows) == list(range(1, 13))
    for number, node in enumerate(nodes, 1):
        left = {path.name for path in node.glob("*") if not path.name.startswith(".")}
        assert left == {f"chapters.txt.{number}-of-2.journal"}


def test_a_slurm_array_runs_each_line_once(home: Path) -> None:
    first, last = (int(number) for number in re.findall(r"--array=(\d+)-(\d+)", SLURM)[0])
    numbers = [{"SLURM_ARRAY_TASK_ID": str(number)} for number in range(first, last + 1)]
    with Farm() as farm:
        assert played(home, farm, SLURM, numbers) == list(range(1, 21))


def test_an_indexed_job_runs_each_line_once(home: Path) -> None:
    job = JOB["spec"]
    (container,) = job["template"]["spec"]["containers"]
    assert container["command"] == ["sh", "-c"]
    numbers = [{"JOB_COMPLETION_INDEX": str(number)} for number in range(job["completions"])]
    with Farm() as farm:
        assert played(home, farm, container["args"][0], numbers) == list(range(1, 21))


@pytest.mark.parametrize(
    ("script", "number", "status"),
    [(SLURM, "SLURM_ARRAY_TASK_ID", 10), (KUBERNETES, "JOB_COMPLETION_INDEX", 0)],
)
def test_a_part_that_is_started_twice_keeps_its_results(
    home: Path, script: str, number: str, status: int
) -> None:
    """While the first run still goes, and after it."""
    prompts = [*(f"Task {each} <run 60>" for each in range(4)), "Task 4 <fail>", *"abc"]
    (home / "tasks.jsonl").write_text("".join(f'{{"prompt": "{each}"}}\n' for each in prompts))
    results = home / "results.0.jsonl"

    def lines() -> list[int]:
        return sorted(row["line"] for row in lines_of(results.read_text()))

    with Farm() as farm, ThreadPoolExecutor(1) as pool:
        environment = {**farm.env, number: "0"}
        first = pool.submit(run, script, home, **environment)
        eventually(lambda: results.exists() and results.read_text() != "")
        second = run(script, home, **environment)
        assert (second.returncode, "another run is using the journal" in second.stderr) == (1, True)
        for task in farm.tasks.values():
            task["ends"] = 0.0
        assert first.result().returncode == status
        whole = lines()
        assert len(whole) == 2
        assert run(script, home, **environment).returncode == status
        assert lines() == whole
        assert set(farm.made.values()) == {1}


def test_a_pod_whose_task_failed_is_not_started_again(home: Path) -> None:
    script = KUBERNETES
    (home / "tasks.jsonl").write_text('{"prompt": "No <fail>"}\n')
    with Farm() as farm:
        assert run(script, home, **farm.env, JOB_COMPLETION_INDEX="0").returncode == 0
        (home / "tasks.jsonl").write_text('{"prompt": ""}\n')
        assert run(script, home, **farm.env, JOB_COMPLETION_INDEX="0").returncode != 0


def test_a_matrix_runs_each_line_once(home: Path) -> None:
    job = yaml.safe_load(blocks(TEXT, "yaml")[1])["jobs"]["batch"]
    (script,) = (step["run"] for step in job["steps"] if "batch" in step.get("run", ""))
    numbers = job["strategy"]["matrix"]["shard"]
    # Each runner has the same names for its files; here they share a folder.
    script = script.replace("results.jsonl", "results.$SHARD.jsonl")
    assert job["env"]["SHARD"] == "${{ matrix.shard }}"
    with Farm() as farm:
        found = played(home, farm, script, [{"SHARD": str(number)} for number in numbers])
        assert found == list(range(1, 21))
