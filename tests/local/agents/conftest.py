"""A bench for runs, and a HOME that an agent must never see."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from rebyte_cli.local.agents.adapters import programs
from rebyte_cli.local.agents.sandbox import jail
from rebyte_cli.local.agents.supervision import runs
from tests.repositories import with_answer

from .bench import Bench, need_jail
from .shop import Shop


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give up later than the user would want: a process may take seconds to start or to end."""
    monkeypatch.setattr(jail, "PROBE_SECONDS", 60)
    monkeypatch.setattr(programs, "VERSION_SECONDS", 60)
    monkeypatch.setattr(runs, "STOP_SECONDS", 45.0)
    monkeypatch.setattr(runs, "COLLECT_SECONDS", 45.0)


@pytest.fixture
def user_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Path:
    """The user's HOME during the test, with a name that a module may choose: USER_HOME."""
    home = tmp_path / getattr(request.module, "USER_HOME", "user home")
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    return home


@pytest.fixture
def bench(tmp_path: Path, user_home: Path) -> Iterator[Bench]:
    """Runs with a jail."""
    need_jail()
    bench = Bench(tmp_path / "state")
    yield bench
    bench.store.close()


@pytest.fixture
def shop(bench: Bench, tmp_path: Path) -> Shop:
    """A repository that agents in a jail work on."""
    return Shop(bench, with_answer(tmp_path / "shop"))
