"""Which tests do not run on Windows and macOS, and why.

No such machine was at hand. The others pass on Linux in a Python that has only what Windows has,
which `python -m tests.elsewhere` repeats; it passes its arguments on to pytest.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent

_PROGRAMS = "needs shells, pseudo-terminals or other programs of Linux"
_POSIX = "is about descriptors, signals, modes or locks of POSIX"
_PLACES = "reads files where Linux has them"
_CHECKOUT = "is about the checkout, which is the same everywhere"

# By the files and folders of `tests`.
REASONS = {
    **dict.fromkeys(
        (
            *("agents", "bench", "browser", "fuzz", "local/agents", "scripts", "site"),
            *("api/test_log.py", "api/test_ssh.py", "batch/test_progress.py"),
            "commands/test_answer.py",
            *("commands/test_create.py", "commands/test_debug.py", "commands/test_drafts.py"),
            *("commands/test_list.py", "commands/test_list_watch.py", "commands/test_mcp.py"),
            *("commands/test_open.py", "commands/test_patch.py", "commands/test_prism.py"),
            *("commands/test_questions.py", "commands/test_rerun.py", "commands/test_share.py"),
            *("commands/test_terminal.py", "commands/test_wait.py", "commands/test_workspace.py"),
            *("completion/test_install.py", "completion/test_parent_shell.py"),
            *("completion/test_shells.py", "config/test_key_command.py"),
            *(
                "config/test_keyring_store.py",
                "local/test_server.py",
                "local/test_shell_session.py",
            ),
            *("manual/test_documents.py", "manual/test_man.py", "manual/test_readme.py"),
            *("manual/test_schedulers.py", "manual/test_scripting.py", "manual/test_sessions.py"),
            *("manual/test_skill.py", "output/test_console.py", "output/test_progress.py"),
            *("output/test_live_table.py", "output/test_streams.py", "tasks/test_checkout.py"),
            *(
                "tasks/test_parallel.py",
                "test_action.py",
                "test_install.py",
                "system/test_signals.py",
            ),
            *("commands/test_mcp_scope.py", "test_bare.py", "test_surroundings.py"),
        ),
        _PROGRAMS,
    ),
    **dict.fromkeys(
        (
            *("api/test_connection.py", "api/test_library.py", "api/test_transfer.py"),
            *("batch/test_input.py", "batch/test_session_lock.py", "batch/test_journal.py"),
            *("batch/test_reservations.py", "batch/test_runner.py", "batch/test_session.py"),
            *("commands/test_attempts.py", "commands/test_auth.py", "commands/test_logs.py"),
            *("commands/test_many_processes.py", "commands/test_results.py"),
            *("commands/test_streams.py", "commands/test_tasks.py", "commands/test_usage.py"),
            *("config/test_credentials.py", "system/test_files.py", "system/test_permissions.py"),
            *("config/test_json_schema.py", "config/test_toml.py", "history/test_database.py"),
            *("history/test_history.py", "local/test_store.py", "local/test_dialer.py"),
            *("local/gateway/test_framing.py", "local/gateway/test_hosts.py"),
            *("local/gateway/test_models.py", "local/gateway/test_process.py"),
            *("local/gateway/test_streaming.py", "local/gateway/test_uncounted.py"),
            "land/test_land_faults.py",
            *("tasks/test_create.py", "tasks/test_download.py", "test_fork_server.py"),
            *("test_never_twice.py", "test_platforms.py", "test_soak.py"),
        ),
        _POSIX,
    ),
    **dict.fromkeys(
        (
            *("commands/test_api.py", "commands/test_doctor.py", "commands/test_local.py"),
            *("commands/test_profile.py", "commands/test_webhook.py", "manual/test_schema.py"),
        ),
        _PLACES,
    ),
    **dict.fromkeys(
        (
            "api/test_models.py",
            "test_cases.py",
            "test_imports.py",
            "test_make_agents.py",
            "test_workflows.py",
        ),
        _CHECKOUT,
    ),
}


class ModuleForLinux(pytest.Module):
    """A file of tests that is skipped as a whole, and not imported."""

    reason = ""

    def collect(self) -> list[pytest.Item | pytest.Collector]:
        """Skip the file."""
        pytest.skip(self.reason, allow_module_level=True)


def reason(path: Path) -> str | None:
    """Why the tests of a file do not run here; None if they do."""
    if sys.platform == "linux":
        return None
    name = path.relative_to(HERE)
    parts = (name, *name.parents)
    return next((REASONS[part.as_posix()] for part in parts if part.as_posix() in REASONS), None)


class WindowsSession:
    """A plugin of pytest that makes Python look as on Windows while tests are collected and run."""

    def __init__(self) -> None:
        self._patch = pytest.MonkeyPatch()

    def pytest_sessionstart(self) -> None:
        """Begin, after pytest has looked at the real platform."""
        from .platforms import become_windows

        become_windows(self._patch)

    def pytest_sessionfinish(self) -> None:
        """End, before pytest sums up."""
        self._patch.undo()


def main() -> int:
    """Run the tests as on Windows."""
    import yaml

    from .platforms import load_libraries

    load_libraries()
    assert yaml
    os.environ["PYTHONPATH"] = str(HERE.parent)
    options = ["-p", "no:cacheprovider", "-p", "no:faulthandler", *sys.argv[1:]]
    return pytest.main(options, plugins=[WindowsSession()])


if __name__ == "__main__":
    sys.exit(main())
