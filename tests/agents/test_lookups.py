"""What of a repository each agent reads by itself is known, and has been judged.

An attacker needs one file that an agent obeys at its start. So whatever an agent looks for in a
repository has to be in `HARMLESS`, or be hidden from it. When this fails with a new version of an
agent, find out in its source what it does with the file. If that can run a program, load a module,
name a server, set a variable or change permissions or the model, reproduce it with `hostile_files`
of test_hostile_repository.py and hide the file (`hidden` and its like in `Adapter`).
"""

from __future__ import annotations

from collections.abc import Callable
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

from rebyte_cli.local.agents.adapters.built_in import BUILT_IN

from ..conftest import COMMAND, Done
from ..terminals import Session
from .conftest import LIMIT, write
from .lookups import Trace
from .test_agents import QUIT, is_resumed, type_in
from .test_hostile_repository import hostile_files

Run = Callable[..., Done]

TEXT = "text that the model reads"
SKIPPED = "names of files to leave out"
CLONE = "made by the service when it clones, and again before it runs git (disarm.py)"
REFUSED = "read, but not obeyed: see test_hostile_repository.py"
NOTED = "what kind of project it is, for statistics, or whether it is there"

# The names below a repository that an agent may look for, as patterns.
HARMLESS = {
    "claude": {
        ".git*": CLONE,
        "*CLAUDE.md": TEXT,
        ".claude/rules/*.md": TEXT,
        ".claude/settings.json": REFUSED,
        ".claude/settings.local.json": REFUSED,
        ".claude/scheduled_tasks.json": "CLAUDE_CODE_DISABLE_CRON",
        ".claude/.git": NOTED,
        ".github/workflows": NOTED,
        ".npmrc": NOTED,
        ".envrc": NOTED,
        ".bunfig.toml": NOTED,
        "bunfig.toml": NOTED,
        "pyproject.toml": NOTED,
        ".ignore": SKIPPED,
        ".rgignore": SKIPPED,
    },
    "codex": {
        ".git*": CLONE,
        "AGENTS.md": TEXT,
        "AGENTS.override.md": TEXT,
        ".agents/skills/*/SKILL.md": TEXT,
        ".agents/skills/*/agents/openai.yaml": "features.skill_mcp_dependency_install=false",
        "*.c*-plugin/plugin.json": "the name of the plugin that a skill belongs to",
    },
    "gemini": {
        ".git*": CLONE,
        "*.gitignore": SKIPPED,
        ".geminiignore": SKIPPED,
        "GEMINI.md": TEXT,
        ".agents/skills/*SKILL.md": TEXT,
        ".env": REFUSED,
        "package.json": "its version says whether Gemini CLI is a preview",
    },
    "opencode": {
        ".git*": CLONE,
        "AGENTS.md": TEXT,
        "CLAUDE.md": TEXT,
        ".agents/skills/*/SKILL.md": TEXT,
        ".claude/skills/*/SKILL.md": TEXT,
        "package.json": REFUSED,
    },
}
FILES = """
    .agents/AGENTS.md .agents/agents/x.md .agents/commands/x.md .agents/hooks.json
    .agents/plugins/marketplace.json .agents/skills/p/agents/openai.yaml
    .agents/skills/p/scripts/x.sh .bunfig.toml .claude/CLAUDE.md .claude/agents/x.md
    .claude/commands/n/y.md .claude/commands/x.md .claude/hooks/x.sh .claude/keybindings.json
    .claude/launch.json .claude/loop.md .claude/output-styles/x.md .claude/plugins/x
    .claude/routines/x.md .claude/rules/x.md .claude/scheduled_tasks.json .claude/themes/x.json
    .claude/workflows/x.js .claude/worktrees/x/y .claudeignore .cursor/rules/x.md .editorconfig
    .envrc .geminiignore .gitattributes .github/copilot-instructions.md .gitignore .ignore
    .lsp.json .mailmap .node-version .npmrc .nvmrc .prettierrc .rgignore .ripgreprc
    .tool-versions .vscode/settings.json .worktreeinclude AGENTS.override.md CLAUDE.local.md
    CONTEXT.md Makefile biome.json bun.lock deno.json node_modules/x/index.js pyproject.toml
    src/AGENTS.md src/CLAUDE.md src/GEMINI.md src/main.py
"""


@pytest.fixture
def furnished(repository: Path) -> set[str]:
    """The names of what is in the repository: most of what some tool might look for.

    A program that lists a folder opens only what it finds there.
    """
    for name in FILES.split():
        skill = "---\nname: x\ndescription: x\n---\nBe brief.\n"
        write(repository / name, skill if name.endswith(".md") else "{}\n")
    for name, content in hostile_files("http://127.0.0.1:9").items():
        write(repository / name, content)
    return {str(path.relative_to(repository)) for path in repository.rglob("*")}


def unknown(agent: str, names: set[str], *, on_screen: bool = False) -> list[str]:
    """Those that are neither harmless nor hidden."""
    (adapter,) = (each for each in BUILT_IN if each.name == agent)
    hidden = [*adapter.hidden, *adapter.hidden_files]
    hidden += adapter.hidden_on_screen if on_screen else ()
    places = tuple(f"{name}/" for name in hidden)
    return sorted(
        name
        for name in names
        if not f"{name}/".startswith(places)
        and not any(fnmatchcase(name, pattern) for pattern in HARMLESS[agent])
    )


def test_a_run(
    run: Run, agent: str, furnished: set[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trace = Trace(tmp_path / "traces")
    with monkeypatch.context() as patch:
        patch.setenv("PATH", trace.path)
        run("create", "hello", "-x", agent, "-g", ".", "--with-changes", "--wait")
    found = trace.names(furnished)
    assert {"CLAUDE.md", "AGENTS.override.md", "GEMINI.md", "AGENTS.md"} & found  # it saw something
    assert unknown(agent, found) == []


def test_its_own_screen(
    run: Run, agent: str, furnished: set[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("-x", agent, "-g", ".", "--with-changes", "--wait")
    run("create", "[[write hello.txt Hello there]]", *words)
    trace = Trace(tmp_path / "traces")
    monkeypatch.setenv("PATH", trace.path)
    attach = [*COMMAND, "-P", "local", "attach", "@last"]
    session = Session(attach, columns=100, rows=40, answers=True)
    try:
        session.until(lambda lines: is_resumed("\n".join(lines)), LIMIT)
        type_in(session, QUIT[agent])
        session.finish(LIMIT)
    except BaseException:
        session.kill()
        raise
    found = trace.names({*furnished, "hello.txt"})
    assert found
    assert unknown(agent, found, on_screen=True) == []
