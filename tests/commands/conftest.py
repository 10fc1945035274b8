"""The command in the test's own process, against a service that lasts as long as the test."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Done
from tests.inside import inside as run_inside
from tests.servers import KEY


@pytest.fixture
def inside(home: Path) -> Callable[..., Done]:
    """As `rebyte`, without the price of a process: `inside("list", stdin="…")`."""

    def run(*arguments: str, cwd: Path = home, **options: Any) -> Done:
        return run_inside(*arguments, cwd=cwd, **options)

    return run


@pytest.fixture
def inside_local(inside: Callable[..., Done], service: Any) -> Callable[..., Done]:
    """`inside`, against a local service that lasts as long as the test."""
    del service
    return inside


@pytest.fixture
def aim(home: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], Any]:
    """Point the command at a server of the test: `aim(server)`; returns that server."""
    del home

    def point(server: Any) -> Any:
        monkeypatch.setenv("REBYTE_API_URL", server.base_url)
        monkeypatch.setenv("REBYTE_API_KEY", KEY)
        return server

    return point
