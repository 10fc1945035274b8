"""The suite reaches nothing of the user who runs it: traps on PATH, in HOME and in variables."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.surroundings import ENTERED
from tests.tools import need_tool

ROOT = Path(__file__).parents[1]
PROGRAMS = (
    *("claude", "codex", "gemini", "opencode"),
    *("gpg", "secret-tool", "security", "ssh", "ssh-add", "vi", "xdg-open"),
)
VARIABLES = {
    "ANTHROPIC_API_KEY": "sk-ant-trap",
    "DBUS_SESSION_BUS_ADDRESS": "unix:path={home}/bus",
    "DISPLAY": ":0",
    "EDITOR": "{home}/bin/vi",
    "GEMINI_API_KEY": "trap",
    "GH_TOKEN": "ghp_trap",
    "OPENAI_API_KEY": "sk-trap",
    "PYTHON_KEYRING_BACKEND": "trap.Keyring",
    "REBYTE_API_KEY": "rbk_trap",
    "REBYTE_API_URL": "http://127.0.0.1:9/v1",
    "REBYTE_LOCAL_AGENTS": "1",
    "REBYTE_PROFILE": "trap",
    "SSH_AUTH_SOCK": "{home}/agent.sock",
    "XDG_CONFIG_HOME": "{home}/.config",
    "XDG_RUNTIME_DIR": "{home}/run",
    "XDG_STATE_HOME": "{home}/.local/state",
}
FILES = {
    ".claude/.credentials.json": '{"claudeAiOauth": {"accessToken": "sk-ant-oat01-trap"}}',
    ".codex/auth.json": '{"OPENAI_API_KEY": "sk-trap"}',
    ".config/git/config": '[core]\n\tfsmonitor = "touch {home}/touched; false"\n',
    ".config/rebyte/config.toml": 'default_profile = "trap"\n[profiles.trap]\nbase_ulr = "x"\n',
    ".gemini/oauth_creds.json": '{"access_token": "trap"}',
    ".local/share/opencode/auth.json": '{"anthropic": {"type": "api", "key": "sk-ant-trap"}}',
    ".local/state/rebyte/history.db": "a trap, and no database",
}
# Where tests once started the agents that they found, and others that look for programs, keys,
# settings and agents' logins. Few, since this is the suite within the suite.
TESTS = (
    "tests/local/test_process.py::test_real_agents_are_started_by_the_parent",
    "tests/local/test_dialer.py::test_requests_that_a_served_service_declines_run_in_the_process"
    "_of_the_command",
    "tests/local/agents/test_service.py::test_agents_that_are_found",
    "tests/local/agents/test_service.py::test_an_agent_that_is_slow_to_start_is_usable",
    "tests/local/agents/test_programs.py",
    "tests/commands/test_auth.py",
    "tests/commands/test_doctor.py::test_on_a_terminal_it_is_a_list_with_what_to_do",
    "tests/commands/test_drafts.py::test_a_simulated_agent_need_not_be_here",
    "tests/commands/test_terminal.py::test_nothing_is_asked_with_no_input",
    "tests/config/test_credentials.py",
    "tests/config/test_settings.py",
)


class Traps:
    """A user with agents, keys and a keyring, none of which may be touched."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.touched = home / "touched"
        (home / "bin").mkdir(parents=True)
        for name in PROGRAMS:
            program = home / "bin" / name
            program.write_text(f'#!/bin/sh\necho "$0 $*" >> "{self.touched}"\necho 9.9.9\n')
            program.chmod(0o755)
        for path, text in FILES.items():
            file = home / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text.replace("{home}", str(home)))
        for path in self._files():
            os.utime(path, (0, path.stat().st_mtime))

    def _files(self) -> list[Path]:
        return [path for path in self.home.rglob("*") if path.is_file()]

    def opened(self) -> list[Path]:
        """Files that were read, added or changed since the traps were set."""
        return [path for path in self._files() if path.stat().st_atime or path == self.touched]

    @property
    def environment(self) -> dict[str, str]:
        """That of a terminal of this user."""
        kept = {name: text for name, text in os.environ.items() if name != ENTERED}
        ours = {name: text.format(home=self.home) for name, text in VARIABLES.items()}
        path = f"{self.home / 'bin'}{os.pathsep}{os.environ['PATH']}"
        return {**kept, **ours, "HOME": str(self.home), "PATH": path}


@pytest.fixture
def traps(tmp_path: Path) -> Traps:
    return Traps(tmp_path / "trapped")


@pytest.mark.slow
def test_the_tests_touch_no_agent_key_or_file_of_the_user(traps: Traps) -> None:
    without = [f"-pno:{plugin}" for plugin in ("cacheprovider", "anyio", "hypothesispytest")]
    command = [sys.executable, "-m", "pytest", "-n", "1", *without, *TESTS]
    done = subprocess.run(
        command, cwd=ROOT, env=traps.environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout
    assert traps.opened() == []


def test_the_traps_work(traps: Traps) -> None:
    """A program that is started and a file that is read are seen."""
    subprocess.run(["claude", "-p", "x"], env=traps.environment, check=True, capture_output=True)
    login = traps.home / ".codex/auth.json"
    login.read_bytes()
    assert {traps.touched, login, traps.home / "bin/claude"} == set(traps.opened())


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("echo 'No permissions to create a namespace' >&2; exit 1", "No permissions to create"),
        ("exit 3", "status 3"),
        ("echo This system has been minimized", "This system has been minimized"),
    ],
    ids=["fails", "silent", "stub"],
)
def test_a_tool_that_does_not_work_counts_as_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, reason: str
) -> None:
    """As bubblewrap in a container, or the `man` of an image without manual pages."""
    man = tmp_path / "man"
    man.write_text(f"#!/bin/sh\n{text}\n")
    man.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setenv("CI", "")
    with pytest.raises(pytest.skip.Exception, match=f"man does not work: {reason}"):
        need_tool("man")
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match=f"man does not work: {reason}"):
        need_tool("man")
