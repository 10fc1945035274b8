"""What is written for people is true: curl lines, recipes, links, how to add a command."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from docs import build
from rebyte_cli.api.client import RebyteClient
from rebyte_cli.local.local_service import Service
from tests.conftest import Done, need_tool
from tests.script_blocks import blocks, run

ROOT = Path(__file__).parents[2]
PAGES = ROOT / "rebyte_cli" / "manual" / "pages"
DOCUMENTS = sorted([*ROOT.glob("*.md"), *PAGES.glob("*.md")])


class Migration:
    """The blocks of the page for those who come from curl, each run with its own task."""

    def __init__(self, service: Service, folder: Path) -> None:
        self.folder = folder
        self.service = service
        self.text = (PAGES / "rebyte-from-curl.7.md").read_text(encoding="utf-8")
        self.blocks = blocks(self.text)

    def run(self, block: str, place: str = "") -> str:
        """What the block prints with the address of the service in place of the real one."""
        folder = self.folder / place
        folder.mkdir(exist_ok=True)
        with RebyteClient() as client:
            waits = "wait" in block or "sleep" in block
            task = client.create_task(f"Say hello [[run={'0.2' if waits else '0'}s]]")
        script = block.replace("https://api.rebyte.ai/v1", self.service.base_url)
        done = run(script, folder, TASK_ID=task["id"])
        assert done.returncode == 0, f"{block}\n{done.stdout}\n{done.stderr}"
        return done.stdout


@pytest.fixture
def migration(service: Service, home: Path) -> Migration:
    need_tool("jq")
    need_tool("curl")
    return Migration(service, home)


def shape(text: str) -> Any:
    """The keys of the last document in a text, which is what two runs have in common."""
    documents = Done(0, text[text.index("{") :], "").documents
    return sorted(documents[-1])


@pytest.mark.slow
def test_curl_and_rebyte_print_the_same(migration: Migration) -> None:
    """Pair by pair, each in its own folder; in parallel, since most of it is waiting."""
    pairs = [
        (before, after)
        for before, after in pairwise(migration.blocks)
        if before.count("curl ") and not after.count("curl ")
    ]

    def play(number: int) -> list[str]:
        return [migration.run(block, str(number)) for block in pairs[number]]

    with ThreadPoolExecutor(4) as pool:
        printed = list(pool.map(play, range(len(pairs))))
    answered = [pair for pair in printed if pair[0]]  # DELETE says nothing
    assert len(answered) == len(pairs) - 1 == 8
    for theirs, ours in answered:
        assert shape(theirs) == shape(ours)


@pytest.mark.slow
def test_the_lines_of_the_vendors_command(migration: Migration) -> None:
    """Each has its counterpart, in the order and with the options of the first."""
    (vendors,) = blocks(migration.text, "text")
    ours = next(block for block in migration.blocks if "follow-up" in block and "list" in block)
    assert ours.replace('"$TASK_ID"', "TASK_ID") == vendors.replace(
        "python3 scripts/rebyte_cli.py", "rebyte"
    )
    migration.run(ours)


def test_the_line_for_the_vendors_client(migration: Migration) -> None:
    (line,) = blocks(migration.text, "python")
    names: dict[str, Any] = {}
    exec(line, names)
    assert issubclass(names["APIError"], Exception)
    assert names["RebyteClient"].create_task


EXAMPLES = (PAGES / "rebyte-examples.7.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_recipes_for_a_desk(home: Path) -> None:
    """fzf runs without a user here: it takes what fits. And there is no desktop to notify."""
    for tool in ("jq", "fzf"):
        need_tool(tool)
    desktop = home / "bin" / "notify-send"
    desktop.parent.mkdir()
    desktop.write_text('#!/bin/sh\necho "$@"\n')
    desktop.chmod(0o755)
    local = {"REBYTE_PROFILE": "local", "FZF_DEFAULT_OPTS": "--filter=haiku"}
    # A task has no title at first.
    run("rebyte create --wait 'Write a haiku [[run=400ms]]'", home, **local)
    run("rebyte create 'Say hello [[run=1ms]]'", home, **local)
    pick, told, job = (run(block, home, **local) for block in blocks(EXAMPLES, "bash"))
    assert "Prompt: Write a haiku" in pick.stdout, pick.stderr
    assert told.stdout == "rebyte Audit the dependencies: completed\n", told.stderr
    assert "Repository: acme/api" in (home / "review.md").read_text(), job.stderr


@pytest.mark.slow
def test_the_line_for_cron(home: Path) -> None:
    """Run twice in a night with the few variables that cron sets, it creates one task."""
    (line,) = blocks(EXAMPLES, "crontab")
    command = line.split(maxsplit=5)[5].replace("\\%", "%")
    program = home / ".local" / "bin" / "rebyte"
    program.parent.mkdir(parents=True)
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m rebyte_cli "$@"\n')
    program.chmod(0o755)

    def as_cron_does(script: str) -> str:
        environment = [f"HOME={home}", "PATH=/usr/bin:/bin", "LOGNAME=me", "SHELL=/bin/sh"]
        program = ["env", "-i", *environment, "/bin/sh", "-c", script]
        done = subprocess.run(program, cwd=home, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stderr

    as_cron_does("~/.local/bin/rebyte profile use local")
    told = as_cron_does(command) + as_cron_does(command)
    first, second = (home / "audits.log").read_text().split()
    assert first == second, told


def test_no_block_goes_untested() -> None:
    """Each kind of fence has a test.

    It is here, or in test_{man,parallel,readme,schedulers,sessions,skill}.py.
    """
    known = {
        "README.md": {"console", "sh", "python"},
        "rebyte-api.7.md": {""},
        "rebyte-check.7.md": {"", "toml"},
        "rebyte-config.5.md": {"toml"},
        "rebyte-local.7.md": {""},
        "rebyte.1.md": {""},
        "CONTRIBUTING.md": {"sh", "python"},
        "SKILL.md": {"sh"},
        "rebyte-examples.7.md": {"", "bash", "crontab", "yaml"},
        "rebyte-from-curl.7.md": {"sh", "text", "python"},
        "rebyte-shards.7.md": {"", "bash", "text", "yaml"},
        "rebyte-tutorial.7.md": {"console", "text"},
        "rebyte-local-agents.7.md": {"", "toml"},
        "rebyte-workflow.7.md": {"console", "text"},
    }
    for document in DOCUMENTS:
        opened = re.findall(r"^```(\w*).*\n(?:.*\n)*?```$", document.read_text(), re.MULTILINE)
        assert set(opened) <= known.get(document.name, set()), document


def test_links_lead_somewhere() -> None:
    """In the checkout; those to other places are for people to try."""
    for document in DOCUMENTS:
        for target in re.findall(r"\]\(([^)]+)\)", document.read_text()):
            if not target.startswith("https://"):
                assert (document.parent / target.partition("#")[0]).exists(), (document, target)


@pytest.mark.parametrize("name", ["SECURITY.md", "CONTRIBUTING.md"])
def test_files_that_are_named_exist(name: str) -> None:
    """A promise that names the file that keeps it."""
    named = re.findall(r"`([a-z_/]+/[a-z_]+\.py)`", (ROOT / name).read_text())
    examples = {"commands/last.py", "tests/commands/test_last.py", "rebyte_cli/commands/last.py"}
    for path in set(named) - examples:
        assert (ROOT / path).exists() or (ROOT / "rebyte_cli" / path).exists(), path


def test_pages_name_pages_that_exist() -> None:
    for page in PAGES.glob("rebyte*.md"):
        for name, section in re.findall(r"(rebyte[\w-]*)\((\d)\)", page.read_text()):
            assert (ROOT / "man" / f"{name}.{section}").exists(), (page.name, name)


def test_the_site_has_every_page() -> None:
    """What `make site` gives to MkDocs, which is strict: each page once, and links to no other."""
    parts = build.pages()
    pages = {page.file: page for part in parts.values() for page in part}
    assert len(pages) == sum(map(len, parts.values()))
    assert {page.name for page in (ROOT / "man").iterdir()} <= {name[:-3] for name in pages}
    assert all(page.file.endswith(".1.md") for page in parts["Commands"])
    for page in pages.values():
        for target in re.findall(r"\]\((?!https://|session\.svg|live\.svg)([^)]+)\)", page.text):
            assert target in pages, (page.file, target)


def test_a_version_has_each_kind_of_change_once() -> None:
    """In the order of Keep a Changelog."""
    kinds = ["Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"]
    for version in (ROOT / "CHANGELOG.md").read_text().split("\n## ")[1:]:
        found = re.findall(r"^### (\w+)$", version, re.MULTILINE)
        assert found == sorted(set(found), key=kinds.index), version[:20]


def test_no_file_has_words_that_are_out_of_date() -> None:
    words = re.compile(
        r"\b(anew|nobody|somebody|goes on|is looked for|of its own|hitherto|betimes)\b",
        re.IGNORECASE,
    )
    files = [*ROOT.glob("*.md"), *ROOT.glob(".github/**/*.yml")]
    for folder in ("rebyte_cli", "tests", "man", "completions"):
        for path in (ROOT / folder).rglob("*.*"):
            # `make lowest` leaves Hypothesis's folder in tests/.
            if path.is_file() and path.suffix != ".pyc" and ".hypothesis" not in path.parts:
                files.append(path)
    files.remove(Path(__file__))
    found = [
        f"{path.relative_to(ROOT)}: {match[0]}"
        for path in files
        for match in words.finditer(path.read_text(encoding="utf-8", errors="replace"))
    ]
    assert found == []


def test_documents_are_about_no_machine() -> None:
    """Recorded sessions carry no path, user or port of where they were recorded."""
    for document in [*DOCUMENTS, *(ROOT / "rebyte_cli" / "manual").glob("*.svg")]:
        found = re.findall(r"/(?:tmp|home|root|work|Users)/\S*", document.read_text())
        assert found == [], document


@pytest.mark.slow
def test_a_command_is_one_file_and_its_test(tmp_path: Path) -> None:
    """The command in CONTRIBUTING.md, added to a copy of the project."""
    command, test = blocks((ROOT / "CONTRIBUTING.md").read_text(), "python")
    for folder in ("rebyte_cli", "man", "tests"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("*.pyc"))
    (tmp_path / "rebyte_cli" / "commands" / "last.py").write_text(command)
    (tmp_path / "tests" / "commands" / "test_last.py").write_text(test)
    for made in ("man/rebyte-last.1", "rebyte_cli/completion/tables/last.txt"):
        (tmp_path / made).unlink(missing_ok=True)  # left by a manual try of the same
    python = shlex.quote(sys.executable)
    script = f"""
        {python} -m rebyte_cli.manual
        {python} -m pytest -q -p no:cacheprovider -k "newest or names_every" \\
            tests/commands/test_last.py tests/manual/test_skill.py
        {python} -m rebyte_cli man last
        {python} -m ruff check --quiet --isolated rebyte_cli/commands/last.py
    """
    done = run(script, tmp_path, PYTHONPATH=str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "man/rebyte-last.1\n" in done.stdout
    assert "rebyte-last(1)" in done.stdout.lower()  # in small letters where there is no man
