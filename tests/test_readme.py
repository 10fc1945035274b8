"""The README is true: every command in it is run, and prints what it says."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.conftest import need_tool
from tests.sessions import BLOCK, environment, run_step, stable, steps, with_account

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "README.md").read_text()


def blocks(info: str) -> list[str]:
    return [match["body"] for match in BLOCK.finditer(TEXT) if match["info"].strip() == info]


def play(block: str, env: dict[str, str], home: Path) -> tuple[str, str]:
    """What the document says and what happened, both without what changes from run to run."""
    said, happened = "", ""
    for step in steps(block):
        said += f"$ {step.command}\n{step.output}"
        happened += f"$ {step.command}\n{run_step(step, env, home)}"
    return stable(said), stable(happened)


@pytest.fixture
def tools(home: Path) -> None:
    need_tool("jq")


@pytest.mark.usefixtures("tools")
def test_the_sessions_on_this_machine(home: Path) -> None:
    env = environment(home)
    played = [play(block, env, home) for block in blocks("")]
    assert len(played) == 2
    for said, happened in played:
        assert happened == said


@pytest.mark.usefixtures("tools")
def test_the_sessions_with_an_account(home: Path, tmp_path: Path) -> None:
    with with_account(home, tmp_path / "served") as env:
        played = [play(block, env, home) for block in blocks("real")]
    assert len(played) == 2
    for said, happened in played:
        assert happened == said


def test_every_command_block_is_one_of_those() -> None:
    fences = re.findall(r"^```(\w+)([^\n]*)$", TEXT, re.MULTILINE)
    assert sorted(fences) == [("console", ""), ("console", "")] + [("console", " real")] * 2 + [
        ("sh", "")
    ]


def test_the_two_commands_of_the_first_screen_are_targets() -> None:
    first = re.search(r"^```sh\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
    assert first is not None
    commands = [line.split("#")[0].split() for line in first[1].splitlines()]
    assert commands == [["make", "demo"], ["make", "test"]]
    for command in commands:
        subprocess.run([*command, "--dry-run"], cwd=ROOT, check=True, capture_output=True)


def test_the_demo_tells_the_whole_story(home: Path) -> None:
    done = subprocess.run(
        ["sh", str(ROOT / "tests/demo.sh")],
        env=environment(home),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for word in ("create", "follow-up", "result", "list", "workspace", "delete", "status 10"):
        assert word in done.stdout


def test_the_table_of_exit_statuses_is_the_one_of_the_code() -> None:
    from rebyte_cli import errors

    table = TEXT.split("## Exit status")[1].split("##")[0]
    listed = {
        int(number)
        for cell in re.findall(r"^\| ([\d, ]+) \|", table, re.MULTILINE)
        for number in cell.split(",")
    }
    ours = {
        value.exit_status
        for value in vars(errors).values()
        if isinstance(value, type) and issubclass(value, errors.RebyteError)
    }
    assert listed == ours | {0, 130, 143}
