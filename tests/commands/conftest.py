"""Commands on agents of this machine that work for real, in a jail."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Done
from tests.tools import need_jail

Run = Callable[..., Done]
AGENT = """#!/bin/sh
# The prompt is what this agent does.
sh -e; echo Done.
"""
SCRIPT = '[local.agents.mine]\ncommand = ["sh", "-s"]\n'  # runs its prompt


@pytest.fixture
def with_agents(home: Path, local: Run, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Run]:
    """What gives the command once `config.toml` names these agents; `SCRIPT` is one."""
    need_jail(home)
    monkeypatch.delenv("REBYTE_LOCAL_AGENTS")
    monkeypatch.setenv("REBYTE_PROFILE", "local")
    monkeypatch.setenv("REBYTE_LOCAL_QUIET", "1")

    def configured(config: str) -> Run:
        (home / ".config/rebyte").mkdir(parents=True)
        (home / ".config/rebyte/config.toml").write_text(config)
        return local

    return configured


@pytest.fixture
def local_inside(inside: Run) -> Run:
    """As `local`, in this process."""

    def run(*words: str, **options: Any) -> Done:
        return inside("-P", "local", *words, **options)

    return run


@pytest.fixture
def agents(home: Path, local_inside: Run, monkeypatch: pytest.MonkeyPatch) -> Run:
    """The command in this process, with an agent `mine` that runs its prompt as a script."""
    need_jail(home)
    monkeypatch.delenv("REBYTE_LOCAL_AGENTS")
    program = home / "agent"
    program.write_text(AGENT)
    program.chmod(0o755)
    config = home / ".config/rebyte/config.toml"
    config.parent.mkdir(parents=True)
    config.write_text(f'[local.agents.mine]\ncommand = ["{program}"]\n')
    return local_inside
