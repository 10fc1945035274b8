"""One batch on many machines: what the page about shards says is run, each line exactly once."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import yaml

from tests.conftest import need_tool
from tests.farm import Farm, lines_of
from tests.script_blocks import blocks, run

PAGE = Path(__file__).parents[2] / "rebyte_cli/manual/pages/rebyte-shards.7.md"
TEXT = PAGE.read_text(encoding="utf-8")
PROMPTS = [f"Task {number}" for number in range(1, 21)]


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
    rows = lines_of((home / "results.jsonl").read_text())
    assert sorted(row["line"] for row in rows) == list(range(1, 13))


def test_a_slurm_array_runs_each_line_once(home: Path) -> None:
    (script,) = blocks(TEXT, "bash")
    first, last = (int(number) for number in re.findall(r"--array=(\d+)-(\d+)", script)[0])
    numbers = [{"SLURM_ARRAY_TASK_ID": str(number)} for number in range(first, last + 1)]
    with Farm() as farm:
        assert played(home, farm, script, numbers) == list(range(1, 21))


def test_an_indexed_job_runs_each_line_once(home: Path) -> None:
    job = yaml.safe_load(blocks(TEXT, "yaml")[0])["spec"]
    (container,) = job["template"]["spec"]["containers"]
    assert container["command"] == ["sh", "-c"]
    numbers = [{"JOB_COMPLETION_INDEX": str(number)} for number in range(job["completions"])]
    with Farm() as farm:
        assert played(home, farm, container["args"][0], numbers) == list(range(1, 21))


def test_a_pod_whose_task_failed_is_not_started_again(home: Path) -> None:
    job = yaml.safe_load(blocks(TEXT, "yaml")[0])["spec"]
    script = job["template"]["spec"]["containers"][0]["args"][0]
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
    script = script.replace("results", "results.$N").replace("${{ matrix.shard }}", "$N")
    with Farm() as farm:
        found = played(home, farm, script, [{"N": str(number)} for number in numbers])
        assert found == list(range(1, 21))
