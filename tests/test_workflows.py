"""Workflows: those of this project, and those that the manual shows."""

from __future__ import annotations

import re
import subprocess
import sys
import venv
from pathlib import Path

import pytest
import yaml

from tests.script_blocks import blocks

ROOT = Path(__file__).parents[1]
PAGES = ROOT / "rebyte_cli" / "manual" / "pages"
WORKFLOWS = ROOT / ".github" / "workflows"
BUILD = ROOT / ".github" / "build" / "requirements.txt"
PIN = re.compile(r"uses: (?P<action>actions/[^@\s]+)@(?P<commit>\S+) +# (?P<tag>\S+)")


def shown() -> list[str]:
    """The workflows in the manual."""
    found = [block for page in PAGES.glob("*.md") for block in blocks(page.read_text(), "yaml")]
    return [block for block in found if "\njobs:\n" in block]


def test_the_workflows_of_the_manual_pass_the_checkers(tmp_path: Path) -> None:
    """The strictest ones, as our own do in `make check`: readers copy them."""
    folder = tmp_path / ".github" / "workflows"
    folder.mkdir(parents=True)
    files = [folder / f"{number}.yml" for number, _ in enumerate(shown())]
    assert len(files) == 2
    for file, text in zip(files, shown(), strict=True):
        file.write_text(text)
    programs = Path(sys.executable).parent
    zizmor = [programs / "zizmor", "--offline", "--pedantic", "--no-progress", tmp_path]
    schema = ["-m", "check_jsonschema", "--builtin-schema", "vendor.github-workflows"]
    for command in (zizmor, [sys.executable, *schema, *files]):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def test_the_manual_pins_the_actions_that_this_project_runs() -> None:
    ours = {
        match["action"]: match.group("commit", "tag")
        for file in WORKFLOWS.glob("*.yml")
        for match in PIN.finditer(file.read_text())
    }
    theirs = [match for text in shown() for match in PIN.finditer(text)]
    assert len(theirs) == 4
    for match in theirs:
        pinned = match.group("commit", "tag")
        assert ours.get(match["action"], pinned) == pinned, match["action"]


def test_a_release_is_built_without_unpinned_packages() -> None:
    release = yaml.safe_load((WORKFLOWS / "release.yml").read_text())["jobs"]
    script = "\n".join(step.get("run", "") for step in release["build"]["steps"])
    (install,) = re.findall(r".*pip install.*", script)
    assert "--require-hashes" in install
    assert str(BUILD.relative_to(ROOT)) in install
    assert "make" not in script
    assert set(release["publish"]["needs"]) == {"test", "build"}
    lines = re.sub(r"\\\n", "", re.sub(r"^\s*#.*\n", "", BUILD.read_text(), flags=re.M))
    for line in filter(None, lines.splitlines()):
        assert re.fullmatch(r"[\w-]+==\S+( +--hash=sha256:[0-9a-f]{64})+", line), line


@pytest.mark.slow
def test_the_pinned_packages_build_the_release(tmp_path: Path) -> None:
    """In an environment that has nothing else, from the index."""
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv" / "bin" / "python"
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    hashed = ["--require-hashes", "--only-binary", ":all:", "-r", BUILD]
    subprocess.run([*pip, *hashed], check=True)
    hatch = [python, "-m", "hatchling", "build", "-d", tmp_path / "dist"]
    subprocess.run(hatch, cwd=ROOT, check=True, capture_output=True)
    assert sorted(path.suffix for path in (tmp_path / "dist").iterdir()) == [".gz", ".whl"]
