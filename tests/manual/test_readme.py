"""The README is true; that its commands print what it says is shown in test_sessions.py."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "README.md").read_text()


def test_no_block_goes_untested() -> None:
    fences = re.findall(r"^```(\w+)", TEXT, re.MULTILINE)
    assert set(fences) == {"console", "sh", "python"}
    assert fences.count("sh") == fences.count("python") == 1


@pytest.mark.usefixtures("service")
def test_the_script_runs() -> None:
    script = re.search(r"^```python\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
    assert script is not None
    done = subprocess.run(
        [sys.executable, "-c", script[1]], capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.stdout, done.stderr) == ("completed\n", "")


def test_the_shards_of_the_readme_are_those_tested() -> None:
    """The lines of the table are those of rebyte-shards(7), which test_parallel.py runs."""
    pages = ROOT / "rebyte_cli" / "manual" / "pages"
    shown = re.findall(r"`(rebyte batch [^`|]*--shard [^`|]*)` \|$", TEXT, re.MULTILINE)
    assert len(shown) == 3
    for line in shown:
        assert line in (pages / "rebyte-shards.7.md").read_text()


def test_the_three_lines_from_prompts_to_a_branch_are_those_tested() -> None:
    """As in rebyte-workflow(7), whose lines test_man.py runs."""
    page = ROOT / "rebyte_cli/manual/pages/rebyte-workflow.7.md"
    shown = re.findall(r"^\d\. `(.*)`$", TEXT, re.MULTILINE)
    assert len(shown) == 3
    assert "\n".join(["", *shown, ""]) in page.read_text()


def test_the_two_commands_of_the_first_screen_are_targets() -> None:
    first = re.search(r"^```sh\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
    assert first is not None
    commands = [line.split("#")[0].split() for line in first[1].splitlines()]
    assert commands == [["make", "demo"], ["make", "test"]]
    for command in commands:
        subprocess.run([*command, "--dry-run"], cwd=ROOT, check=True, capture_output=True)


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
