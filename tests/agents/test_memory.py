"""What the model is told of a repository's and the user's own memory files and skills.

Nothing else of the repository's settings is obeyed: see `test_hostile_repository.py`.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from ..conftest import Done
from .conftest import write
from .scripted_model import MODEL, Model

Run = Callable[..., Done]
SKILLS = (".claude/skills", ".agents/skills")
# What each agent reads, of the files below, if they are all there.
REPOSITORY = {
    "claude": {"CLAUDE.md", ".claude/CLAUDE.md", ".claude/rules/style.md", "imported.md"},
    "codex": {"AGENTS.md"},
    "gemini": {"GEMINI.md"},
    "opencode": {"AGENTS.md"},
}
USER = {
    "claude": {".claude/CLAUDE.md", ".claude/rules/own/mine.md"},
    "codex": {".codex/AGENTS.md"},
    "gemini": {".gemini/GEMINI.md"},
    "opencode": {".config/opencode/AGENTS.md"},
}


def test_memory_files_and_skills_of_the_repository(
    run: Run, model: Model, agent: str, repository: Path
) -> None:
    for name in sorted(set().union(*REPOSITORY.values())):
        write(repository / name, f"{mark(name)}\n")
    write(repository / "CLAUDE.md", f"{mark('CLAUDE.md')} @imported.md\n")
    for number, place in enumerate(SKILLS):
        write_skill(repository / place, f"skill-{number}")
    write(repository / ".gitignore", "private\n")
    write_skill(repository / ".claude/skills/private", "untracked")
    commit(repository)
    write_skill(repository / ".claude/skills", "uncommitted")
    task = run("create", "hello", "-x", agent, "-g", ".", "--wait", "-o", "id").out.strip()
    assert marks(model) == {*map(mark, REPOSITORY[agent]), "marker skill-0", "marker skill-1"}
    assert run("diff", task).out == ""
    model.bodies.clear()
    run("follow-up", task, "hello again", "--wait")
    assert {"marker skill-0", "marker skill-1"} <= marks(model)


def test_memory_files_of_the_user(run: Run, model: Model, agent: str, home: Path) -> None:
    for name in sorted(set().union(*USER.values())):
        write(home / name, f"{mark(name)}\n")
    run("create", "hello", "-x", agent, "-g", ".", "--wait")
    assert marks(model) == set(map(mark, USER[agent]))


@pytest.mark.parametrize("names", ["AGENTS.md", ["AGENTS.md", "CONTEXT.md"]])
def test_gemini_reads_the_files_that_the_users_settings_name(
    run: Run, model: Model, repository: Path, home: Path, names: str | list[str]
) -> None:
    settings = {"model": {"name": MODEL}, "context": {"fileName": names}}
    write(home / ".gemini/settings.json", json.dumps(settings))
    for folder in (repository, home / ".gemini"):
        for name in ("AGENTS.md", "CONTEXT.md", "GEMINI.md"):
            write(folder / name, f"{mark(f'{folder.name}/{name}')}\n")
    run("create", "hello", "-x", "gemini", "-g", ".", "--with-changes", "--wait")
    folders = (repository.name, ".gemini")
    named = [names] if isinstance(names, str) else names
    # Of a repository it reads its own as well.
    seen = marks(model) - {mark(f"{repository.name}/GEMINI.md")}
    assert seen == {mark(f"{folder}/{name}") for folder in folders for name in named}


def test_opencode_reads_claude_md_where_there_is_no_agents_md(
    run: Run, model: Model, repository: Path, home: Path
) -> None:
    write(repository / "CLAUDE.md", mark("CLAUDE.md"))
    commit(repository)
    write(home / ".claude/CLAUDE.md", mark("mine"))
    run("create", "hello", "-x", "opencode", "-g", ".", "--wait")
    assert marks(model) == {mark("CLAUDE.md"), mark("mine")}


def test_opencode_reads_what_a_link_in_the_repository_leads_to(
    run: Run, model: Model, repository: Path
) -> None:
    write(repository / "docs/rules.md", mark("rules.md"))
    (repository / "AGENTS.md").symlink_to("docs/rules.md")
    commit(repository)
    run("create", "hello", "-x", "opencode", "-g", ".", "--wait")
    assert marks(model) == {mark("rules.md")}


def test_a_server_that_the_users_settings_of_an_agent_name(
    run: Run, model: Model, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ANTHROPIC_BASE_URL")
    monkeypatch.delenv("ANTHROPIC_API_KEY")
    variables = {"ANTHROPIC_BASE_URL": model.url, "ANTHROPIC_API_KEY": "x", "PATH": "/nowhere"}
    write(home / ".claude/settings.json", json.dumps({"env": variables, "apiKeyHelper": "true"}))
    monkeypatch.delenv("GOOGLE_GEMINI_BASE_URL")
    monkeypatch.delenv("GEMINI_API_KEY")
    text = f"# mine\nexport GEMINI_API_KEY='x'\nGOOGLE_GEMINI_BASE_URL={model.url}\nOTHER=x\n"
    write(home / ".gemini/.env", text)
    for agent in ("claude", "gemini"):
        done = run("create", "hello", "-x", agent, "--wait", "-o", "json")
        assert done.json["finalResult"] == "Nothing to do."


def mark(name: str) -> str:
    """What a file of this name says."""
    return "marker " + re.sub(r"\W", "_", name)


def marks(model: Model) -> set[str]:
    """The marks in all that the model was told."""
    return set(re.findall(r"marker [\w-]+", "\n".join(model.bodies)))


def write_skill(folder: Path, name: str) -> None:
    """Write a skill, whose description is a mark."""
    text = f"---\nname: {name}\ndescription: marker {name}\n---\nDo nothing.\n"
    write(folder / name / "SKILL.md", text)


def commit(repository: Path) -> None:
    """Commit everything that is not ignored."""
    author = ("-c", "user.name=Test", "-c", "user.email=test@example.com")
    for words in (("add", "."), (*author, "commit", "-qm", "More")):
        subprocess.run(["git", *words], cwd=repository, check=True)
