"""A bench for runs, and a HOME that an agent must never see."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.repositories import with_answer

from .bench import Bench, need_jail
from .shop import Shop


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
