"""Shared fixtures: an empty home, a local service, and the command."""

from __future__ import annotations

import gc
import json
import os
import signal
import sys
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests import surroundings
from tests.message_guard import guard_messages
from tests.tools import need_tool as need_tool  # where tests look for it

surroundings.enter()

if hasattr(os, "pidfd_open"):
    from tests import forked_gateways, forked_supervisors

    def _server() -> str:
        from tests.fork_server import ADDRESS, commands

        return str(commands() / ADDRESS)

    forked_supervisors.install(_server)
    forked_gateways.install(_server)


class Done(NamedTuple):
    """One finished run of the command."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Standard output as one JSON document."""
        return json.loads(self.out)

    @property
    def documents(self) -> list[Any]:
        """Standard output as JSON documents, one after another."""
        decoder, text, found = json.JSONDecoder(), self.out.strip(), []
        while text:
            document, end = decoder.raw_decode(text)
            found.append(document)
            text = text[end:].lstrip()
        return found


# A script that starts the tests in the background has Python ignore Ctrl-C, and every process that
# the tests start with it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Keep the garbage collector from looking at thousands of tests again and again."""
    gc.disable()
    result = yield
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)
    gc.enable()
    return result


def pytest_configure(config: pytest.Config) -> None:
    """Let the workers of a parallel run share the process that commands are forked from."""
    guard_messages()
    if config.getoption("numprocesses", None) and not hasattr(config, "workerinput"):
        from tests.fork_server import share

        share()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say at the end what was skipped: each reason once, with the number of its tests."""
    reasons = Counter(
        str(report.longrepr[2]).removeprefix("Skipped: ")
        for report in terminalreporter.getreports("skipped")
        if isinstance(report.longrepr, tuple)
    )
    if reasons:
        terminalreporter.section("skipped")
    for reason, count in reasons.most_common():
        terminalreporter.write_line(f"{count:5}  {reason}")


COMMAND = [sys.executable, "-m", "rebyte_cli"]
# What starts a command as a script does with `&`: with Ctrl-C ignored.
IN_BACKGROUND = ["sh", "-c", 'trap "" INT; exec "$@"', "sh"]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home: own config and state folders, no proxy, no colour, no keyring."""
    for name in list(os.environ):
        if name.startswith("REBYTE_") or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    folder = tmp_path / "home"
    folder.mkdir()
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(folder / ".config"))
    monkeypatch.setenv("XDG_STATE_HOME", str(folder / ".local" / "state"))
    monkeypatch.setenv("XDG_DATA_HOME", str(folder / ".local" / "share"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder))
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("REBYTE_PAGER", "cat")
    monkeypatch.setenv("LC_ALL", "C.UTF-8")
    # Whatever is installed where the tests run: `-x claude` is simulated, unless a test says else.
    monkeypatch.setenv("REBYTE_LOCAL_AGENTS", "0")
    return folder


@pytest.fixture
def rebyte(home: Path) -> Callable[..., Done]:
    """Run the command in a separate process: `rebyte("list", "-o", "id", stdin="…")`."""
    from tests.forked_command import run_forked

    def run(
        *arguments: str,
        stdin: str | bytes = b"",
        env: dict[str, str] | None = None,
        cwd: Path | None = None,
        timeout: float = 60,
    ) -> Done:
        done = run_forked(
            arguments,
            stdin=stdin.encode() if isinstance(stdin, str) else stdin,
            environment={**os.environ, **(env or {})},
            folder=cwd or home,
            timeout=timeout,
        )
        return Done(done.returncode, done.stdout.decode(), done.stderr.decode())

    return run


@pytest.fixture
def inside(home: Path) -> Callable[..., Done]:
    """As `rebyte`, in the test's own process, which is faster: `inside("list", stdin="…")`."""
    from tests.inside import inside as run_inside

    def run(*arguments: str, cwd: Path = home, **options: Any) -> Done:
        return run_inside(*arguments, cwd=cwd, **options)

    return run


@pytest.fixture
def inside_local(inside: Callable[..., Done], service: Any) -> Callable[..., Done]:
    """`inside`, against a local service that lasts as long as the test."""
    del service
    return inside


@pytest.fixture
def real_supervisors(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs of agents whose supervisor and gateway are new interpreters, as for users."""
    from tests.forked_supervisors import AS_REAL

    monkeypatch.setenv(AS_REAL, "1")


@pytest.fixture
def local(rebyte: Callable[..., Done]) -> Callable[..., Done]:
    """The command against the service that it carries: `local("create", "Say hello")`."""

    def run(*arguments: str, **options: Any) -> Done:
        return rebyte("-P", "local", *arguments, **options)

    return run


@pytest.fixture
def pace(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Sets the times of the searches that commands inside the test's own process make."""

    def use(**times: float) -> None:
        from tests.paces import quick

        monkeypatch.setattr("tests.inside.PACE", quick(**times))

    return use


@pytest.fixture
def one_clock(pace: Callable[..., None]) -> None:
    """A service whose clock is ours and whose list is always right, so that no one need wait for
    seconds of skew, nor for the 20 s after which "there is no task" is believed.

    Only inside the test's own process.
    """
    pace(look_for=0.3, first_pause=0.1, later=30.0, skew=0.1)


@pytest.fixture
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls inside the test's own process pause as briefly between attempts as luck allows."""
    monkeypatch.setattr("random.random", lambda: 0.02)


@pytest.fixture
def service(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A local service on a free port; REBYTE_API_URL and REBYTE_API_KEY point the command at it."""
    from rebyte_cli.config.credentials import LOCAL_KEY
    from rebyte_cli.local.local_service import Service

    with Service(home / "served") as running:
        monkeypatch.setenv("REBYTE_API_URL", running.base_url)
        monkeypatch.setenv("REBYTE_API_KEY", LOCAL_KEY)
        yield running


@pytest.fixture
def url(service: Any, monkeypatch: pytest.MonkeyPatch) -> str:
    """The base URL of `service`, for tests of keys: none comes from outside."""
    monkeypatch.delenv("REBYTE_API_KEY")
    return str(service.base_url)


@pytest.fixture
def aim(home: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], Any]:
    """Point the command at a server of the test: `aim(server)`; returns that server."""
    from tests.servers import KEY

    del home

    def point(server: Any) -> Any:
        monkeypatch.setenv("REBYTE_API_URL", server.base_url)
        monkeypatch.setenv("REBYTE_API_KEY", KEY)
        return server

    return point
