"""Sentences of SECURITY.md that no other test holds."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from .conftest import Done

Run = Callable[..., Done]
PROMPT = "Rename the secret project Heron"


@pytest.mark.slow
def test_commands_connect_to_nothing_but_the_api(
    inside_local: Run, service: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is no telemetry and no update check."""
    real, reached = socket.socket.connect, set[Any]()

    def connect(self: socket.socket, address: Any) -> None:
        reached.add(address[:2] if isinstance(address, tuple) else address)
        real(self, address)

    monkeypatch.setattr(socket.socket, "connect", connect)
    monkeypatch.setattr(
        socket.socket, "connect_ex", lambda self, address: connect(self, address) or 0
    )
    created = inside_local("create", PROMPT, "--wait", "-o", "json").json
    for words in (
        ("list",), ("get", created["id"]), ("logs", created["id"]), ("result", created["id"]),
        ("doctor",), ("workspace", "list"), ("webhook", "list"), ("schema",), ("help",),
        ("completion", "bash"), ("profile", "list"), ("skill", "list"),
    ):  # fmt: skip
        assert inside_local(*words).status in (0, 1), words
    host, port = service.origin.removeprefix("http://").split(":")
    assert reached == {(host, int(port))}


def test_a_journal_and_the_history_hold_no_whole_prompt(inside_local: Run, home: Path) -> None:
    text = f"A title\n{PROMPT}\n"
    (home / "prompts.jsonl").write_text('{"key": "a", "prompt": "A title\\n' + PROMPT + '"}\n')
    done = inside_local("batch", str(home / "prompts.jsonl"), "--wait")
    assert done.status == 0, done.err
    created = inside_local("create", text, "-o", "json")
    assert created.status == 0, created.err
    (home / "prompts.jsonl").unlink()
    state = [path for path in home.rglob("*") if path.is_file() and "served" not in path.parts]
    names = {path.name for path in state}
    assert {"prompts.jsonl.journal", "history.db"} <= names
    assert [path for path in state if b"Heron" in path.read_bytes()] == []
    for path in state:
        assert path.stat().st_mode & 0o077 == 0, path
