"""The agent skill: short, true, and every command in it runs."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from rebyte_cli.cli import root
from rebyte_cli.local.local_service import Service
from tests.conftest import Done, need_tool
from tests.script_blocks import blocks, run

SKILL = (Path(__file__).parents[2] / "rebyte_cli" / "SKILL.md").read_text(encoding="utf-8")


@pytest.fixture
def rebyte(inside: Callable[..., Done]) -> Callable[..., Done]:
    """The command, without a process for each call."""
    return inside


def test_the_skill_is_printed_and_installed(tmp_path: Path, rebyte: Callable[..., Done]) -> None:
    """The file as it is shipped."""
    assert rebyte("skill").out == SKILL
    done = rebyte("skill", "--install", str(tmp_path), "-o", "json")
    assert (tmp_path / "rebyte" / "SKILL.md").read_text(encoding="utf-8") == SKILL
    assert done.json["changed"] is True
    assert rebyte("skill", "--install", str(tmp_path), "-o", "json").json["changed"] is False
    for older in (SKILL + "- `gone`: of another version\n", ""):  # the last was cut off
        (tmp_path / "rebyte" / "SKILL.md").write_text(older, encoding="utf-8")
        assert rebyte("skill", "--install", str(tmp_path)).status == 0
        assert (tmp_path / "rebyte" / "SKILL.md").read_text(encoding="utf-8") == SKILL
    assert rebyte("skill", "--install", "/dev/null/x").status == 1


def test_without_a_folder_it_goes_where_agents_look(
    home: Path, rebyte: Callable[..., Done]
) -> None:
    """Claude Code has a separate folder, which is not created for it."""
    agents, claude = (home / f"{name}/skills/rebyte/SKILL.md" for name in (".agents", ".claude"))
    assert rebyte("skill", "--install", "-o", "json").json["path"] == str(agents)
    assert not claude.exists()
    (home / ".claude").mkdir()
    done = rebyte("skill", "--install", "-o", "jsonl").documents
    assert [(each["path"], each["changed"]) for each in done] == [
        (str(agents), False),
        (str(claude), True),
    ]
    assert agents.read_text() == claude.read_text() == SKILL
    moved = {"CLAUDE_CONFIG_DIR": str(home / "elsewhere")}
    (home / "elsewhere").mkdir()
    assert rebyte("skill", "--install", env=moved).status == 0
    assert (home / "elsewhere/skills/rebyte/SKILL.md").exists()
    assert rebyte("skill", "--uninstall").status == 0
    assert not agents.exists()
    assert not claude.exists()


def test_the_skills_that_can_be_named(
    home: Path, service: Service, rebyte: Callable[..., Done]
) -> None:
    """Those of an account are known from its profile and its tasks; folders are for `local`."""
    skill = home / ".agents/skills/pdf/SKILL.md"
    skill.parent.mkdir(parents=True)
    skill.write_text("---\nname: pdf\ndescription: Reads PDF files\n---\n")
    assert rebyte("create", "Say hello", "-s", "deep-research,xlsx").status == 0
    assert rebyte("profile", "set", "default", "skills=xlsx,slides").status == 0

    def listed(*words: str) -> list[tuple[str, str]]:
        rows = rebyte("skill", "list", "-o", "json", *words).json["data"]
        return [(row["name"], row["profile"]) for row in rows]

    names = ("xlsx", "slides", "deep-research")
    here = ("pdf", "local")
    assert listed() == [*((name, "default") for name in names), here]
    assert listed("-P", "local") == [here]


def test_a_skill_of_another_author_is_not_replaced(
    tmp_path: Path, rebyte: Callable[..., Done]
) -> None:
    skill = tmp_path / "rebyte" / "SKILL.md"
    skill.parent.mkdir()
    for text in (b"---\nname: other\n---\n", b"caf\xe9"):
        skill.write_bytes(text)
        done = rebyte("skill", "--install", str(tmp_path))
        assert (done.status, skill.read_bytes()) == (2, text)
        assert f"{skill} was not written by rebyte" in done.err


def test_the_skill_is_taken_away_again(tmp_path: Path, rebyte: Callable[..., Done]) -> None:
    """Its folder too, if that is then empty; other skills stay."""
    skill = tmp_path / "rebyte" / "SKILL.md"
    assert rebyte("skill", "--install", str(tmp_path)).status == 0
    skill.write_text(SKILL + "- `gone`: of another version\n")
    done = rebyte("skill", "--uninstall", str(tmp_path), "-o", "json")
    assert done.json == {"path": str(skill), "changed": True}
    assert list(tmp_path.glob("rebyte")) == []
    assert rebyte("skill", "--uninstall", str(tmp_path), "-o", "json").json["changed"] is False
    skill.parent.mkdir()
    for text in (b"---\nname: other\n---\n", b"caf\xe9"):
        skill.write_bytes(text)
        assert rebyte("skill", "--uninstall", str(tmp_path), "-o", "json").json["changed"] is False
        assert skill.read_bytes() == text
    assert rebyte("skill", "--install", str(tmp_path), "--uninstall", str(tmp_path)).status == 2


def test_the_front_matter_names_it() -> None:
    """What an agent decides by: a name of lower case, a description of one line."""
    found = re.match(r"---\nname: ([a-z-]+)\ndescription: (.+)\n---\n", SKILL)
    assert found is not None
    assert found[1] == "rebyte"
    assert 40 < len(found[2]) < 1024


def test_the_skill_is_short() -> None:
    """An agent reads it each time: at most 1,500 tokens, at four characters each."""
    assert len(SKILL) / 4 < 1500


def test_the_skill_names_every_command() -> None:
    """The list is generated, so that it cannot fall behind."""
    with root.make_context("rebyte", [], resilient_parsing=True) as ctx:
        for name in root.list_commands(ctx):
            assert re.search(rf"^- `{name}[` ]", SKILL, re.MULTILINE), name


@pytest.mark.slow
def test_its_commands_run(home: Path, service: Service) -> None:
    """In order, with a key in the environment, against a service."""
    need_tool("jq")
    found = blocks(SKILL)
    assert len(found) == 4
    for block in found:
        done = run(block, home)
        assert done.returncode == 0, f"{block}\n{done.stdout}\n{done.stderr}"
