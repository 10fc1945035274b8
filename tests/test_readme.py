"""The README is true: every command in it is run, and prints what it says."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests import picture
from tests.conftest import need_tool
from tests.sessions import environment, played, stable

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "README.md").read_text()
PICTURE = ROOT / "rebyte_cli" / "manual" / "session.svg"


def test_every_command_prints_what_it_says() -> None:
    need_tool("jq")
    found = [(stable(said), stable(happened)) for said, happened in played(TEXT)]
    assert len(found) > 5
    for said, happened in found:
        assert happened == said, "make docs"


def test_no_block_goes_untested() -> None:
    fences = re.findall(r"^```(\w+)", TEXT, re.MULTILINE)
    assert set(fences) == {"console", "sh", "python"}
    assert fences.count("sh") == fences.count("python") == 1


@pytest.mark.usefixtures("service")
def test_the_script_runs() -> None:
    script = re.search(r"^```python\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
    assert script is not None
    done = subprocess.run(
        [sys.executable, "-c", script[1]], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.stdout, done.stderr) == ("completed\n", "")


def test_the_picture_shows_what_happens() -> None:
    need_tool("jq")
    assert picture.said(PICTURE.read_text()) == picture.said(picture.draw(picture.record()))


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
