"""Commands on agents of this machine that work for real, in a jail."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Done
from tests.tools import need_jail

Run = Callable[..., Done]
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
