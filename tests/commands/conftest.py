"""Commands on agents of this machine that work for real, in a jail."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests import script_agent
from tests.conftest import Done
from tests.tools import need_jail

Run = Callable[..., Done]
SCRIPT = '[local.agents.mine]\ncommand = ["sh", "-s"]\n'  # runs its prompt


@pytest.fixture
def with_agents(home: Path, local: Run, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Run]:
    """What gives the command once `config.toml` names these agents; `SCRIPT` is one."""
    need_jail()
    monkeypatch.delenv("REBYTE_LOCAL_AGENTS")
    monkeypatch.setenv("REBYTE_PROFILE", "local")
    monkeypatch.setenv("REBYTE_LOCAL_QUIET", "1")

    def configured(config: str) -> Run:
        (home / ".config/rebyte").mkdir(parents=True)
        (home / ".config/rebyte/config.toml").write_text(config)
        return local

    return configured


def prompts_of(local: Run) -> list[str]:
    """What the newest task was told."""
    content = local("api", "GET", f"/tasks/{local('list', '-o', 'id').out.split()[0]}/content").json
    return [prompt["userPrompt"] for prompt in content["prompts"]]


@pytest.fixture
def local_inside(inside: Run) -> Run:
    """As `local`, in this process."""

    def run(*words: str, **options: Any) -> Done:
        return inside("-P", "local", *words, **options)

    return run


@pytest.fixture
def agents(home: Path, local_inside: Run, monkeypatch: pytest.MonkeyPatch) -> Run:
    """The command in this process, with an agent `mine` that runs its prompt as a script."""
    need_jail()
    monkeypatch.delenv("REBYTE_LOCAL_AGENTS")
    script_agent.install(home)
    return local_inside
