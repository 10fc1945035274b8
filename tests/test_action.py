"""The GitHub Action: the steps of `action.yml` as plain shell, as a runner would start them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from tests.conftest import need_tool
from tests.fork_server import commands
from tests.script_blocks import blocks
from tests.servers import RawServer, json_reply

ROOT = Path(__file__).parents[1]
ACTION = yaml.safe_load((ROOT / "action.yml").read_text(encoding="utf-8"))
INSTALL, RUN = ACTION["runs"]["steps"]
EXAMPLES = (ROOT / "rebyte_cli/manual/pages/rebyte-examples.7.md").read_text(encoding="utf-8")


class Ran(NamedTuple):
    """How a step ended, and the outputs that it set."""

    status: int
    outputs: dict[str, str]
    err: str


def shell(script: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a step as `shell: bash` does."""
    need_tool("jq")
    return subprocess.run(
        [need_tool("bash"), "--noprofile", "--norc", "-eo", "pipefail", "-c", script],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )


def outputs_of(file: Path) -> dict[str, str]:
    """What a step wrote into `GITHUB_OUTPUT`: `name=value`, and values of several lines."""
    found: dict[str, str] = {}
    lines = iter(file.read_text(encoding="utf-8").splitlines())
    for line in lines:
        if match := re.fullmatch(r"(\w+)<<(\w+)", line):
            value = []
            while (line := next(lines)) != match[2]:
                value.append(line)
            found[match[1]] = "\n".join(value)
        else:
            name, _, found[name] = line.partition("=")
    return found


@pytest.fixture
def action(home: Path, service: Any) -> Callable[..., Ran]:
    """Run the step for a task with the inputs of a workflow, after an installed `rebyte`."""
    program = home / "temp" / "rebyte" / "bin" / "rebyte"
    program.parent.mkdir(parents=True)
    program.symlink_to(commands() / "rebyte")

    def run(**given: str) -> Ran:
        inputs = {name: str(about.get("default", "")) for name, about in ACTION["inputs"].items()}
        inputs |= {name.replace("_", "-"): value for name, value in given.items()}
        environment = {
            name: re.sub(r"\$\{\{ inputs\.([\w-]+) \}\}", lambda found: inputs[found[1]], value)
            for name, value in RUN["env"].items()
        }
        file = home / "output"
        file.write_text("")
        temp = str(home / "temp")
        done = shell(RUN["run"], RUNNER_TEMP=temp, GITHUB_OUTPUT=str(file), **environment)
        return Ran(done.returncode, outputs_of(file), done.stderr)

    return run


def test_every_input_and_output_is_used() -> None:
    used = set(re.findall(r"inputs\.([\w-]+)", str(RUN["env"])))
    assert used == set(ACTION["inputs"])
    for name, about in ACTION["outputs"].items():
        assert about["value"] == f"${{{{ steps.{RUN['id']}.outputs.{name} }}}}"


def test_the_recipe_uses_inputs_and_outputs_that_exist() -> None:
    (text,) = blocks(EXAMPLES, "yaml")
    use, show = yaml.safe_load(text)["jobs"]["review"]["steps"]
    assert set(use["with"]) <= set(ACTION["inputs"])
    (output,) = re.findall(rf"steps\.{use['id']}\.outputs\.(\w+)", show["env"]["ANSWER"])
    assert output in ACTION["outputs"]


@pytest.mark.slow
def test_a_task_is_created_waited_for_and_answered(action: Callable[..., Ran]) -> None:
    prompt = 'Say "hello" to $HOME [[run=2ms]]'
    done = action(
        prompt=prompt, repository="acme/shop", branch="better", skills="pdf,deep-research"
    )
    assert done.status == 0, done.err
    assert set(done.outputs) == {"id", "url", "status", "result"}
    assert done.outputs["id"] in done.outputs["url"]
    assert done.outputs["status"] in ("completed", "succeeded")
    assert "Repository: acme/shop" in done.outputs["result"]
    assert "$HOME" in done.outputs["result"]
    assert "\n" in done.outputs["result"]


@pytest.mark.slow
def test_a_failed_task_fails_the_step(action: Callable[..., Ran]) -> None:
    done = action(prompt="Go wrong [[fail]] [[run=2ms]]")
    assert (done.status, done.outputs["status"]) == (10, "failed")
    assert done.outputs["id"]


@pytest.mark.slow
def test_no_answer_of_the_service_sets_other_outputs(
    action: Callable[..., Ran], aim: Callable[[RawServer], RawServer]
) -> None:
    url = "https://x.example/run/1\nresult=evil\nother<<E\nx\nE"
    task = {"id": "abcd1234", "url": url, "status": "completed\nid=evil", "finalResult": "Done"}
    with RawServer(
        lambda request: json_reply(task, 201 if request.method == "POST" else 200)
    ) as it:
        aim(it)
        done = action(prompt="Work", wait="false")
    assert set(done.outputs) == {"id", "url", "status"}
    assert (done.outputs["id"], done.outputs["url"]) == ("abcd1234", url)


@pytest.mark.slow
def test_without_wait_the_task_is_only_created(action: Callable[..., Ran]) -> None:
    done = action(prompt="Work [[run=1h]]", wait="false")
    assert (done.status, done.outputs["status"]) == (0, "running")
    assert "result" not in done.outputs


def test_a_key_that_is_refused_fails_the_step(action: Callable[..., Ran]) -> None:
    done = action(prompt="Say hello", api_key="rbk_invalid")
    assert (done.status, done.outputs) == (3, {})


@pytest.mark.slow
def test_the_action_installs_the_command(tmp_path: Path, home: Path) -> None:
    """From its own checkout; here without the index, with the libraries of the tests."""
    libraries = str(Path(yaml.__file__).parents[1])
    done = shell(
        INSTALL["run"],
        RUNNER_TEMP=str(tmp_path),
        GITHUB_ACTION_PATH=str(ROOT),
        PATH=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        PYTHONPATH=libraries,
        PIP_NO_DEPS="1",
        PIP_NO_INDEX="1",
        PIP_NO_BUILD_ISOLATION="0",
        PIP_IGNORE_INSTALLED="1",
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "rebyte" / "bin" / "rebyte").exists()
