"""The command inside the test's own process, where a process of its own would add nothing."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rebyte_cli.app import App
from rebyte_cli.cli import run
from tests.conftest import Done
from tests.servers import KEY


@pytest.fixture
def inside(
    home: Path, monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> Callable[..., Done]:
    """As `rebyte`, without the price of a process: `inside("list", stdin="…")`."""

    def go(
        *arguments: str,
        stdin: str | bytes = b"",
        env: dict[str, str] | None = None,
        cwd: Path = home,
    ) -> Done:
        monkeypatch.chdir(cwd)
        data = stdin.encode() if isinstance(stdin, str) else stdin
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data), "utf-8"))
        # The streams that pytest puts there know nothing of bytes and encodings.
        out, err = (io.TextIOWrapper(io.FileIO(fd, "w", closefd=False), "utf-8") for fd in (1, 2))
        monkeypatch.setattr(sys, "stdout", out)
        monkeypatch.setattr(sys, "stderr", err)
        capfdbinary.readouterr()
        argv = list(arguments)
        status = run(argv, App({**os.environ, **(env or {})}, argv))
        out.flush()
        err.flush()
        written = capfdbinary.readouterr()
        return Done(status, written.out.decode(), written.err.decode())

    return go


@pytest.fixture
def inside_local(inside: Callable[..., Done], service: Any) -> Callable[..., Done]:
    """`inside`, against a local service that lasts as long as the test."""
    del service
    return inside


@pytest.fixture
def aim(inside: Callable[..., Done], monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], Any]:
    """Point the command at a server of the test: `aim(server)`; returns that server."""
    del inside

    def point(server: Any) -> Any:
        monkeypatch.setenv("REBYTE_API_URL", server.base_url)
        monkeypatch.setenv("REBYTE_API_KEY", KEY)
        return server

    return point
