"""What an agent gets of the user's own settings, memory files and skills."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from rebyte_cli.local.agents.adapters.adapter import Adapter, User
from rebyte_cli.local.agents.adapters.claude import Claude
from rebyte_cli.local.agents.adapters.codex import Codex
from rebyte_cli.local.agents.adapters.gemini import Gemini
from rebyte_cli.local.agents.adapters.model_access import AgentAccess
from rebyte_cli.local.agents.adapters.opencode import OpenCode
from rebyte_cli.local.agents.exposed import Mount
from tests.repositories import git

from .bench import Bench, script


@pytest.fixture
def lister(tmp_path: Path) -> str:
    """An agent that writes the text of each memory file and skill in its HOME to /code/seen."""
    text = "cd; find . -name '*.md' -type f -exec grep -H . {} + | sort > /code/seen"
    return script(tmp_path / "bin", "lister", text)


def seen(bench: Bench) -> dict[str, str]:
    """What `lister` saw: the text of each file by its name."""
    lines = (bench.workspace().code / "seen").read_text().splitlines()
    return dict(line.removeprefix("./").split(":", 1) for line in lines)


def put(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "read"),
    [
        (Claude, [".claude/CLAUDE.md", ".claude/rules/a/b.md"]),
        (Codex, [".codex/AGENTS.md", ".codex/AGENTS.override.md"]),
        (Gemini, [".gemini/AGENTS.md"]),
        (OpenCode, [".claude/CLAUDE.md", ".config/opencode/AGENTS.md"]),
    ],
)
def test_memory_files_of_the_user_are_copied(
    kind: type[Adapter], read: list[str], bench: Bench, user_home: Path, lister: str
) -> None:
    names = [
        ".claude/CLAUDE.md", ".claude/rules/a/b.md", ".claude/projects/x/memory/MEMORY.md",
        ".codex/AGENTS.md", ".codex/AGENTS.override.md", ".config/opencode/AGENTS.md",
        ".gemini/AGENTS.md", ".gemini/GEMINI.md", "notes.md",
    ]  # fmt: skip
    put(user_home, {name: name for name in names})
    context = {"fileName": ["AGENTS.md", "../../notes.md", "*"]}
    put(user_home, {".gemini/settings.json": json.dumps({"context": context})})
    bench.run(kind(command=(lister,)))
    assert seen(bench) == {name: name for name in read}


@pytest.mark.slow
def test_a_memory_file_may_be_a_link(bench: Bench, user_home: Path, lister: str) -> None:
    """As managers of dotfiles leave it."""
    put(user_home, {"dotfiles/claude.md": "linked"})
    (user_home / ".claude").mkdir()
    (user_home / ".claude/CLAUDE.md").symlink_to("../dotfiles/claude.md")
    bench.run(Claude(command=(lister,)))
    assert seen(bench) == {".claude/CLAUDE.md": "linked"}


@pytest.mark.parametrize(
    ("made", "read"),
    [
        ({}, []),
        ({"CLAUDE.md": "file"}, ["/code/CLAUDE.md"]),
        ({"AGENTS.md": "file", "CLAUDE.md": "file"}, ["/code/AGENTS.md"]),
        ({"AGENTS.md": "folder", "CLAUDE.md": "file"}, ["/code/CLAUDE.md"]),
        ({"AGENTS.md": "pipe", "CLAUDE.md": "file"}, ["/code/CLAUDE.md"]),
        ({"AGENTS.md": "file", "CLAUDE.md": "/"}, ["/code/AGENTS.md"]),
        # A link looks the same, whatever is there outside of the sandbox.
        *(
            ({"AGENTS.md": link, "CLAUDE.md": "file"}, ["/code/AGENTS.md"])
            for link in ("docs.md", "../secret", "../none", "/etc/passwd", "/", "/dev/null")
        ),
        *(({"CLAUDE.md": link}, ["/code/CLAUDE.md"]) for link in ("../secret", "../none")),
    ],
)
def test_opencode_reads_one_memory_file_of_the_repository(
    tmp_path: Path, made: dict[str, str], read: list[str]
) -> None:
    code = tmp_path / "code"
    put(tmp_path, {"secret": "x", "code/docs.md": "x"})
    for name, what in made.items():
        if what == "file":
            (code / name).write_text("x")
        elif what == "folder":
            (code / name).mkdir()
        elif what == "pipe":
            os.mkfifo(code / name)
        else:
            (code / name).symlink_to(what)
    user = User({}, tmp_path / "home")
    files = OpenCode().files(user, Mount(code, "/code"), AgentAccess())
    assert json.loads(files[".config/opencode/opencode.json"])["instructions"] == read


@pytest.mark.slow
@pytest.mark.parametrize("kind", [Claude, Codex])
def test_skills_of_the_repository_are_copied_as_git_has_them(
    kind: type[Adapter], bench: Bench, tmp_path: Path, lister: str
) -> None:
    """Where the agent does not find them, and no plugin in them."""
    repository = tmp_path / "repository"
    put(repository, {
        ".claude/skills/a/SKILL.md": "a", ".claude/skills/a/secret/x.md": "secret",
        ".claude/skills/a/.claude-plugin/x.md": "plugin", ".claude/skills/none/x.md": "no skill",
        ".agents/skills/b/SKILL.md": "b", ".gitignore": "secret\n",
    })  # fmt: skip
    (repository / ".agents/skills/out").symlink_to(tmp_path)
    git(repository, "init", "-q")
    git(repository, "add", ".gitignore", ".claude", ".agents")
    git(repository, "commit", "-qm", "x")
    put(repository, {".claude/skills/new/SKILL.md": "not in git"})
    source = [str(repository), None, False]
    bench.run(kind(command=(lister,)), source=source)
    expected = {".agents/skills/a/SKILL.md": "a", ".claude/skills/a/SKILL.md": "a"}
    if kind is Claude:
        expected |= {".agents/skills/b/SKILL.md": "b", ".claude/skills/b/SKILL.md": "b"}
    assert seen(bench) == expected
    put(bench.workspace().code, {".claude/skills/a/SKILL.md": "changed by an earlier run"})
    bench.run(kind(command=(lister,)), source=source)
    assert seen(bench) == expected


def test_variables_in_settings_of_agents(user_home: Path) -> None:
    """Only those that the agent would get from the environment are taken."""
    variables = {
        "ANTHROPIC_BASE_URL": "a", "HTTPS_PROXY": "b", "MINE": "c", "PATH": "d",
        "REBYTE_API_KEY": "e", "MAX_THINKING_TOKENS": 1,
    }  # fmt: skip
    put(user_home, {".claude/settings.json": json.dumps({"env": variables, "apiKeyHelper": "x"})})
    outside = {"ANTHROPIC_BASE_URL": "outside", "PATH": "/bin"}
    claude = Claude()
    taken = {"ANTHROPIC_BASE_URL": "a", "HTTPS_PROXY": "b", "MAX_THINKING_TOKENS": "1"}
    user = claude.surroundings(User(outside, user_home))
    assert user.variables == {"PATH": "/bin", **taken}
    unused = ["apiKeyHelper", "MINE", "PATH", "REBYTE_API_KEY"]
    assert claude.unused_settings(user_home) == unused
    assert "MINE" not in Claude(extra_variables=("MINE",)).unused_settings(user_home)

    text = "# a comment\nexport GEMINI_API_KEY = 'a # b'\n\nGOOGLE_CLOUD_PROJECT=x # y\n"
    text += 'DEBUG=1\nGEMINI_MODEL="z"\n'
    put(user_home, {".gemini/.env": text})
    gemini = Gemini()
    taken = {"GEMINI_API_KEY": "a # b", "GOOGLE_CLOUD_PROJECT": "x", "GEMINI_MODEL": "outside"}
    user = gemini.surroundings(User({"GEMINI_MODEL": "outside"}, user_home))
    assert user.variables == taken
    assert gemini.unused_settings(user_home) == ["DEBUG"]
