"""What a run may import: most of the time of a short command is spent on that, and it goes unseen
grow. Each budget is that of a whole process, read at its end."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from rebyte_cli.local.local_service import Service
from tests.servers import RawServer, json_reply

# The command as it is, but for a note of its modules at the moment that it leaves.
PROGRAM = """
import os, sys
def leave(status, leave=os._exit):
    with open(os.environ["MODULES"], "w") as file:
        file.write(" ".join(sys.modules))
    leave(status)
os._exit = leave
from rebyte_cli.__main__ import main
main()
"""
HTTP = {"requests", "urllib3", "ssl", "http", "socket"}
HEAVY = {"rich", "keyring", "werkzeug", "asyncio", "dataclasses", "importlib.metadata"}
STORES = {"sqlite3", "tomllib", "tomli_w", "hashlib"}
URLLIB3 = {"hashlib", "importlib.metadata"}  # what it loads itself
if sys.version_info >= (3, 14):
    URLLIB3.add("dataclasses")  # by logging, for the colours of tracebacks
PAGE = {
    "data": [
        {
            "id": "t1",
            "title": "Fix the build",
            "createdAt": "2026-02-09T10:05:00.000Z",
            "completedAt": "2026-02-09T10:15:00.000Z",
            "status": "completed",
        }
    ],
    "total": 1,
    "limit": 50,
    "offset": 0,
}


@pytest.fixture
def loaded(home: Path, tmp_path: Path) -> Callable[..., set[str]]:
    """Run the command and get the modules that it had at its end: `loaded("list", "-o", "id")`."""

    def run(*words: str, **more: str) -> set[str]:
        note = tmp_path / "modules"
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, *words],
            env={**os.environ, "MODULES": str(note), **more},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout
        assert "Warning" not in done.stderr
        return set(note.read_text().split())

    return run


def test_the_version_needs_no_parser(loaded: Callable[..., set[str]]) -> None:
    modules = loaded("--version")
    assert modules.isdisjoint({"click", "typing", "re", "json", "rebyte_cli.cli", "rebyte_cli.app"})


@pytest.mark.parametrize(
    "words",
    [("--help",), ("create", "--help"), ("workspace", "--help"), ("create", "x", "--dry-run")],
)
def test_help_imports_neither_http_nor_storage(
    loaded: Callable[..., set[str]], words: tuple[str, ...]
) -> None:
    """Nor shutil and its archives, which Click would load to learn how wide the terminal is."""
    modules = loaded(*words)
    assert modules.isdisjoint(HTTP | HEAVY | STORES | {"concurrent", "difflib", "shutil"})
    if "--help" in words:
        assert modules.isdisjoint({"importlib.util", "pathlib", "urllib"})
    assert not [
        name
        for name in modules
        if name.startswith(("rebyte_cli.api.connection", "rebyte_cli.local"))
    ]


@pytest.mark.parametrize("form", ["json", "jsonl", "csv", "table"])
def test_a_list_imports_only_http_and_the_history(
    loaded: Callable[..., set[str]], form: str
) -> None:
    """With its key in a variable and nothing stored, in every format."""
    with RawServer(json_reply(PAGE)) as server:
        modules = loaded(
            "list", "-o", form, REBYTE_API_KEY="rbk_test", REBYTE_API_URL=server.base_url
        )
    assert "requests" in modules
    # The history learns the ids, and nothing has to be read in parallel for a task that ended.
    others = STORES - {"sqlite3"} | {"concurrent"}
    assert modules.isdisjoint((HEAVY | others) - URLLIB3)
    assert modules.isdisjoint(
        f"rebyte_cli.{name}"
        for name in ("api.transfer", "api.sse", "config.keyring_store", "local", "tasks.questions")
    )


@pytest.mark.parametrize("words", [("list", "-o", "json"), ("create", "Say hello")])
def test_the_embedded_service_needs_no_framework(
    loaded: Callable[..., set[str]], words: tuple[str, ...]
) -> None:
    """werkzeug would be a sixth of the whole; it parses forms, and these have none."""
    modules = loaded("-P", "local", *words)
    assert "rebyte_cli.local.local_service" in modules
    assert modules.isdisjoint(HEAVY - URLLIB3 | {"tomllib", "rebyte_cli.output.progress"})


def test_beside_a_served_service_the_command_needs_none(
    loaded: Callable[..., set[str]], home: Path
) -> None:
    with Service(home / ".local" / "state" / "rebyte" / "local"):
        # One of five: a service that does not prove itself within a second is not used.
        assert any(
            "rebyte_cli.local.dialer" in modules
            and modules.isdisjoint(
                {"rebyte_cli.local.local_service", "rebyte_cli.local.routes", "http.server"}
            )
            for modules in (loaded("-P", "local", "create", "Say hello") for _ in range(5))
        )


@pytest.mark.parametrize("line", ["rebyte wor", "rebyte create --wa", "rebyte list -o js"])
def test_tab_needs_no_click(loaded: Callable[..., set[str]], line: str) -> None:
    modules = loaded(line, line.split(" ")[-1], _REBYTE_COMPLETE="bash")
    assert modules.isdisjoint(HTTP | HEAVY | STORES | {"click", "typing", "re", "json"})


def test_tab_needs_sqlite_for_a_task_alone(
    loaded: Callable[..., set[str]], local: Callable[..., object]
) -> None:
    """And no digests, no pathways to the network, no Click."""
    local("create", "Say hello")
    modules = loaded("rebyte -P local get ", "", _REBYTE_COMPLETE="bash")
    assert "sqlite3" in modules
    assert modules.isdisjoint(HTTP | HEAVY | {"click", "hashlib", "tomllib", "tomli_w"})


def test_a_configuration_is_read_without_the_writer(
    loaded: Callable[..., set[str]], home: Path
) -> None:
    config = home / ".config" / "rebyte" / "config.toml"
    config.parent.mkdir(parents=True)
    config.write_text('[profiles.work]\nbase_url = "https://work.example/v1"\n')
    modules = loaded("profile", "list", "-o", "json")
    assert "tomllib" in modules
    assert modules.isdisjoint(HTTP | HEAVY | {"tomli_w", "sqlite3"})


@pytest.mark.slow
@pytest.mark.parametrize("words", [("list",), ("create", "Say hello", "--wait", "-q"), ("doctor",)])
def test_no_warning_is_an_error_where_warnings_are(
    words: tuple[str, ...], home: Path, service: Service
) -> None:
    """`PYTHONWARNINGS=error` in a shell, for another program's sake."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "rebyte_cli", *words, "-o", "json"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "internal error" not in done.stderr
    assert "Warning" not in done.stderr
    assert done.stdout.startswith("{")
