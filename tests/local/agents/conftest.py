"""A bench for runs, and a HOME that an agent must never see."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from .bench import Bench, need_jail


@pytest.fixture
def user_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's HOME during the test."""
    home = tmp_path / "user home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    return home


@pytest.fixture
def bench(tmp_path: Path, user_home: Path) -> Iterator[Bench]:
    """Runs with a jail."""
    need_jail(tmp_path)
    bench = Bench(tmp_path / "state")
    yield bench
    bench.store.close()
