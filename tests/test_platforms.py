"""What is different on Windows and on a Mac, run here with the functions of that platform injected.

Neither was at hand. What is played: `sys.platform`, the modules and functions that Python lacks
there, `msvcrt`. What cannot be played: file systems, consoles, process creation.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rebyte_cli import cli
from rebyte_cli.api.transfer import whole_file
from rebyte_cli.batch import journal, workers
from rebyte_cli.commands import _prompts
from rebyte_cli.config import credentials_file, key_command, terminal
from rebyte_cli.config.paths import config_dir, state_dir
from rebyte_cli.errors import ReaderGone
from rebyte_cli.local import background, left_sandboxes, shell_session, store, visits
from rebyte_cli.local.agents.cluster import launcher
from rebyte_cli.local.agents.sandbox import jail
from rebyte_cli.local.gateway.request_record import RequestEntry, RequestRecord, read
from rebyte_cli.output import progress, prompt_line
from rebyte_cli.system import clock, files, http_server, permissions
from rebyte_cli.system.process_group import ProcessGroup
from rebyte_cli.tasks import download, editor, hook
from tests.conftest import Done
from tests.output.test_console import console
from tests.platforms import Msvcrt, become_windows

PACKAGE = Path(files.__file__).parents[1]
ROOT = PACKAGE.parent
# Where the code asks for the platform, and how often. What is new here needs a test below, or in
# completion/test_install.py, which the functions of `install` take as an argument.
BRANCHES = {
    "api/transfer.py": 2,
    "batch/journal.py": 3,
    "batch/workers.py": 3,
    "cli.py": 1,
    "commands/_prompts.py": 1,
    "completion/install.py": 2,
    "config/credentials_file.py": 1,
    "config/key_command.py": 1,
    "config/paths.py": 2,
    "config/terminal.py": 2,
    "local/agents/agent_files.py": 1,
    "local/agents/sandbox/jail.py": 1,
    "local/agents/supervision/admission.py": 1,
    "local/agents/cluster/launcher.py": 1,
    "local/agents/sandbox/login_copies.py": 1,
    "local/agents/sandbox/jailed_program.py": 1,
    "local/agents/sandbox/seal.py": 1,
    "local/agents/sandbox/stand_in.py": 1,
    "local/agents/workspaces/workspace_folder.py": 1,
    "local/background.py": 3,
    "local/ballast.py": 2,
    "local/gateway/request_record.py": 1,
    "local/left_sandboxes.py": 1,
    "local/shell_session.py": 1,
    "local/visits.py": 1,
    "output/console.py": 3,
    "output/progress.py": 1,
    "output/prompt_line.py": 7,
    "system/clock.py": 1,
    "system/files.py": 6,
    "system/git.py": 3,
    "system/http_server.py": 2,
    "system/permissions.py": 6,
    "system/process_group.py": 3,
    "system/process_identity.py": 1,
    "system/python_process.py": 1,
    "system/signals.py": 2,
    "tasks/download.py": 4,
    "tasks/editor.py": 2,
    "tasks/hook.py": 5,
}


@pytest.fixture
def windows(monkeypatch: pytest.MonkeyPatch) -> Msvcrt:
    """Python as on Windows; the fake `msvcrt`."""
    return become_windows(monkeypatch)


def test_every_branch_is_known() -> None:
    asked = r"sys\.platform|os\.name\b|supports_dir_fd|(?:has|get)attr\((?:os|signal|status), \""
    found = {}
    for path in PACKAGE.rglob("*.py"):
        lines = path.read_text(encoding="utf-8").splitlines()
        if count := sum(bool(re.search(asked, line)) for line in lines):
            found[path.relative_to(PACKAGE).as_posix()] = count
    assert found == BRANCHES


@pytest.mark.slow
def test_every_module_can_be_loaded_on_windows() -> None:
    """Without what only POSIX has, even those that do nothing there."""
    code = """if True:
        import importlib, pkgutil, sys
        from tests import platforms
        sys.argv = ["tests.platforms", "--version"]
        try:
            platforms.main()
        except SystemExit:
            pass
        import rebyte_cli
        for module in pkgutil.walk_packages(rebyte_cli.__path__, "rebyte_cli."):
            if not module.name.endswith(".__main__") and ".mcp." not in module.name:
                importlib.import_module(module.name)
    """
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_the_command_on_windows(home: Path, tmp_path: Path) -> None:
    """A task, a batch, a download and a profile, in another process, with the files of Windows."""
    roaming, local_data = tmp_path / "Roaming", tmp_path / "Local"
    environment = {name: os.environ[name] for name in ("PATH", "HOME")}
    environment |= {"APPDATA": str(roaming), "LOCALAPPDATA": str(local_data)}

    def rebyte(*words: str, stdin: str = "") -> Done:
        done = subprocess.run(
            [sys.executable, "-m", "tests.platforms", *words],
            input=stdin,
            env={**environment, "PYTHONPATH": str(ROOT)},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        return Done(done.returncode, done.stdout, done.stderr)

    done = rebyte("-P", "local", "create", "Say hello [[run=1ms]] [[artifacts]]", "--wait")
    assert (done.status, done.json["status"]) == (0, "completed"), done.err
    got = rebyte("-P", "local", "artifact", "get", "@last", "--all", "-d", "out", "-o", "json")
    assert got.status == 0, got.err
    assert any((tmp_path / "out").iterdir())
    work = rebyte("profile", "create", "work", "base_url=https://api.example/v1")
    assert work.status == 0, work.err
    (tmp_path / "tasks.txt").write_text("Say one [[run=1ms]]\nSay two [[run=1ms]]\n")
    batch = rebyte("-P", "local", "batch", "--text", "tasks.txt", "-q", "-o", "id")
    assert (batch.status, len(batch.out.split())) == (0, 2), batch.err
    again = rebyte("-P", "local", "batch", "--text", "tasks.txt", "-q", "-o", "id")
    assert sorted(again.out.split()) == sorted(batch.out.split())
    agent = rebyte("-P", "local", "create", "x", "-x", "claude", "--no-jail", "-o", "json")
    assert agent.status == 1
    assert "real agents run on Linux and macOS only" in agent.err
    assert rebyte("-P", "local", "local", "status", "-o", "json").json["tasks"] == 3
    assert (roaming / "rebyte" / "config.toml").exists()
    assert (local_data / "rebyte" / "history.db").exists()
    assert list(home.rglob("*")) == []


def test_a_prompt_blocks_where_a_terminal_cannot_be_waited_for(windows: Msvcrt) -> None:
    """`select` takes only sockets there."""
    with open(os.devnull) as stream:
        assert prompt_line.in_foreground(stream)
        assert prompt_line._has_line(stream, 60)
        prompt_line._drop_input(stream)


@pytest.mark.parametrize("overwrite", [True, False])
def test_a_file_gets_its_name_when_it_is_whole(
    windows: Msvcrt, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overwrite: bool
) -> None:
    """Without files that have no name, and without descriptors of folders."""
    monkeypatch.delattr(os, "O_TMPFILE", raising=False)
    target = tmp_path / "target"
    if overwrite:
        target.write_text("old")
    with whole_file(target, overwrite=overwrite) as file:
        file.write(b"new")
    assert target.read_text() == "new"
    with pytest.raises(FileExistsError), whole_file(target, overwrite=False) as file:
        file.write(b"newer")
    assert [path.name for path in tmp_path.iterdir()] == ["target"]


def test_folders_of_windows(windows: Msvcrt, tmp_path: Path) -> None:
    home = {"HOME": str(tmp_path)}
    assert config_dir({**home, "APPDATA": "/r"}) == Path("/r/rebyte")
    assert state_dir({**home, "LOCALAPPDATA": "/l"}) == Path("/l/rebyte")
    assert config_dir(home) == tmp_path / "AppData" / "Roaming" / "rebyte"
    assert state_dir(home) == tmp_path / "AppData" / "Local" / "rebyte"


def test_folders_of_a_mac(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    support = tmp_path / "Library" / "Application Support" / "rebyte"
    assert config_dir({"HOME": str(tmp_path), "XDG_CONFIG_HOME": "/x"}) == support
    assert state_dir({"HOME": str(tmp_path)}) == support / "state"


def test_a_lock_of_windows_is_of_one_byte(windows: Msvcrt, tmp_path: Path) -> None:
    """Of a lock file the first, of a journal one far behind its end, which readers never reach."""
    release = files.take_lock(tmp_path / "lock", remove=True)
    assert release is not None
    release()
    assert (tmp_path / "lock").exists()  # Windows could not delete it while another has it open
    with (tmp_path / "j").open("a+b") as file:
        assert journal._lock(file.fileno(), tmp_path / "j")
        places = [call[1:] for call in windows.locked]
        assert places == [(0, Msvcrt.LK_NBLCK, 1), (1 << 40, Msvcrt.LK_NBLCK, 1)]
        windows.problem = OSError(errno.EACCES, "Permission denied")  # what the C library says
        assert not journal._lock(file.fileno(), tmp_path / "j")
        assert files.take_lock(tmp_path / "lock") is None


def test_a_file_that_another_program_reads_is_replaced_when_it_is_closed(
    windows: Msvcrt, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Windows refuses to rename over an open file; there is no folder to sync either."""
    refusals = [PermissionError(errno.EACCES, "Access is denied")] * 3
    real = os.replace

    def replace(source: str, target: str) -> None:
        if refusals:
            raise refusals.pop()
        real(source, target)

    monkeypatch.setattr(os, "replace", replace)
    files.write_private(tmp_path / "config.toml", b"x = 1\n")
    assert (tmp_path / "config.toml").read_bytes() == b"x = 1\n"
    refusals[:] = [PermissionError(errno.EACCES, "Access is denied")]
    monkeypatch.setattr(sys, "platform", "linux")
    with pytest.raises(PermissionError):
        files.replace(tmp_path / "config.toml", tmp_path / "other")


def test_modes_mean_nothing_on_windows(windows: Msvcrt, tmp_path: Path) -> None:
    """They cannot say there who may read or write a file."""
    tmp_path.chmod(0o777)
    keys = tmp_path / "credentials.json"
    record = {"store": "file", "key": "rbk_x"}
    keys.write_text(json.dumps({"keys": {"work": {"https://api.example": record}}}))
    keys.chmod(0o666)
    permissions.check_private(keys)
    permissions.private_folder(tmp_path)
    store.Store(tmp_path / "local").close()
    assert credentials_file.read_keys(tmp_path)
    assert permissions._trusted() == set()
    assert permissions._is_own_group(0) is False
    assert permissions._is_exempt(tmp_path) is True


@pytest.mark.parametrize("name", ["con", "a/NUL.txt", "COM1", "a:b", "what?", "dot.", "space "])
def test_names_that_windows_cannot_write(windows: Msvcrt, name: str) -> None:
    with pytest.raises(Exception, match="was not written"):
        download.parts_of(name)


def test_short_names_of_windows_are_hidden_too(
    windows: Msvcrt, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`ENVRC~1` is what Windows may call `.envrc`."""
    with pytest.raises(Exception, match="was not written"):
        download.parts_of("ENVRC~1")
    monkeypatch.setattr(sys, "platform", "linux")
    assert download.parts_of("ENVRC~1") == ["ENVRC~1"]
    assert download.parts_of("what?") == ["what?"]


def test_folders_without_descriptors_are_checked_for_links(windows: Msvcrt, tmp_path: Path) -> None:
    with download.open_folder(tmp_path / "out", ["a", "b"], "a/b/c") as here:
        assert here is None
    assert (tmp_path / "out" / "a" / "b").is_dir()
    (tmp_path / "out" / "link").symlink_to(tmp_path)
    unsafe = pytest.raises(Exception, match="is a link")
    with unsafe, download.open_folder(tmp_path / "out", ["link"], "link/c"):
        pass


def test_a_mac_syncs_to_the_platter(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """`fsync` there stops at the cache of the disk; some file systems have nothing better."""
    calls: list[object] = []

    def full(handle: int, command: int) -> int:
        calls.append(command)
        if len(calls) > 1:
            raise OSError(errno.ENOTSUP, "Operation not supported")
        return 0

    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(fcntl, "F_FULLFSYNC", 51, raising=False)
    monkeypatch.setattr(fcntl, "fcntl", full)
    monkeypatch.setattr(os, "fsync", lambda handle: calls.append("fsync"))
    journal.sync(7)
    assert calls == [51]
    journal.sync(7)
    assert calls == [51, 51, "fsync"]


def test_windows_syncs_with_fsync(windows: Msvcrt, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    monkeypatch.setattr(os, "fsync", calls.append)
    journal.sync(7)
    assert calls == [7]


def test_the_reader_of_a_pipe_that_is_gone(
    windows: Msvcrt, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Windows says EINVAL, which is another error elsewhere."""
    gone = OSError(errno.EINVAL, "Invalid argument")
    assert isinstance(console()._lost(gone), ReaderGone)
    monkeypatch.setattr(sys, "platform", "linux")
    assert not isinstance(console()._lost(gone), ReaderGone)


def test_features_that_a_windows_terminal_lacks(windows: Msvcrt) -> None:
    """No attributes to restore, no count of bytes in a pipe, no Ctrl-Z."""
    with terminal.terminal_restored():
        pass
    terminal._restore(0, [])
    assert _prompts.has_unread_input() is False
    progress.erase_on_suspend(console())()
    assert not console().in_background()


def test_a_shell_session_is_known_by_the_parent_on_windows(windows: Msvcrt) -> None:
    assert shell_session._session() == os.getppid()


def test_limits_of_a_process_are_those_of_unix(windows: Msvcrt) -> None:
    cli._check_open_files()
    assert workers._limits("RLIMIT_AS") == (workers._file_limit(10**6), float("inf"))


def test_the_clock_of_windows(windows: Msvcrt) -> None:
    assert clock.since_boot() == pytest.approx(time.monotonic(), abs=1)


class Child:
    """A process that notes how it is ended."""

    pid = 1  # a signal to it would be an error here

    def __init__(self) -> None:
        self.ended: list[str] = []

    def poll(self) -> None:
        return None

    def wait(self) -> None:
        pass

    def kill(self) -> None:
        self.ended.append("kill")

    def terminate(self) -> None:
        self.ended.append("terminate")


def test_programs_are_ended_without_signals(windows: Msvcrt) -> None:
    """`key_command`, and `webhook listen --exec`."""
    child = Child()
    key_command._end(child, own_session=True)  # type: ignore[arg-type]  # as far as it is used
    hook._signal(child, signal.SIGTERM)  # type: ignore[arg-type]
    assert child.ended == ["kill", "terminate"]


def test_the_editor_of_windows(windows: Msvcrt, monkeypatch: pytest.MonkeyPatch) -> None:
    """Notepad by default, and a command line that CreateProcess splits."""
    ran: list[object] = []

    class Process(Child):
        def wait(self) -> int:
            return 0

    def start(command: object) -> Process:
        ran.append(command)
        return Process()

    monkeypatch.setattr(subprocess, "Popen", start)
    assert editor.find({}) == "notepad"
    assert editor.edit('"C:\\Program Files\\code.exe" --wait', Path("draft.md")) == 0
    assert ran == ['"C:\\Program Files\\code.exe" --wait "draft.md"']


def test_a_hook_runs_on_windows(windows: Msvcrt, tmp_path: Path) -> None:
    """Without its own process group, which Windows does not have."""
    runs = hook.HookCommand(f"cat > {tmp_path}/seen")
    assert runs.run({"id": "e1"}) is None
    assert (tmp_path / "seen").read_text() == '{"id": "e1"}\n'


def test_no_alarm_ends_a_slow_cleanup_on_windows(home: Path, tmp_path: Path) -> None:
    """There is no `setitimer`; the first Ctrl-C ends the wait all the same."""
    done = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "tests.platforms",
            "-P",
            "local",
            "create",
            "x [[run=1h]]",
            "--wait",
        ],
        env={**os.environ, "PYTHONPATH": str(ROOT), "LOCALAPPDATA": str(tmp_path)},
        stderr=subprocess.PIPE,
        text=True,
    )
    assert done.stderr is not None
    while "Created task" not in (line := done.stderr.readline()):
        assert line
    time.sleep(0.5)
    done.send_signal(signal.SIGINT)
    assert done.wait(20) == 130
    done.stderr.close()


def test_two_servers_never_share_a_port_on_windows() -> None:
    """`SO_REUSEADDR` would allow that there. The class is made at import, so in a process."""
    code = (
        "import sys, http.server, socketserver; sys.platform = {0!r}\n"
        "from rebyte_cli.system.http_server import Server; print(Server.allow_reuse_address)"
    )
    for platform, reuse in (("win32", "False\n"), ("darwin", "True\n")):
        program = [sys.executable, "-c", code.format(platform)]
        done = subprocess.run(program, capture_output=True, text=True, check=True)
        assert done.stdout == reuse
    assert http_server.Server.allow_reuse_address


def test_connections_are_not_counted_on_windows(windows: Msvcrt) -> None:
    """It has no limit of open files that they could reach."""
    assert http_server._most_connections() == sys.maxsize


@pytest.mark.parametrize("platform", ["darwin", "win32"])
def test_the_jail_is_of_linux(
    platform: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "platform", platform)
    check = jail.probe(tmp_path / "jail")
    assert (check.works, check.reason) == (False, "bubblewrap runs on Linux only")


def test_the_types_fit_every_platform() -> None:
    """`make check` runs mypy for the other two as well."""
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert "--platform darwin" in text
    assert "tests/mypy-windows.ini" in text


@pytest.mark.usefixtures("windows")
def test_no_other_user_is_suspected_on_windows() -> None:
    """No file tells there who is at the other end of a connection."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert not visits.is_of_another_user(ours)


@pytest.mark.usefixtures("windows")
def test_a_service_in_the_background_needs_no_shell_on_windows(tmp_path: Path) -> None:
    made = store.Store(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as free:
        made.remember("address", f"http://127.0.0.1:{free.getsockname()[1]}")
    try:
        served = background.ensure(made, None)
        assert served.in_background
        assert background.stop(made, served)
        assert os.waitpid(served.pid, 0)[1] == 0
    finally:
        made.close()


@pytest.mark.usefixtures("windows")
def test_nothing_is_left_of_sandboxes_on_windows(tmp_path: Path) -> None:
    tree = tmp_path / "checks/tree-old"
    tree.mkdir(parents=True)
    os.utime(tree, (0, 0))
    left_sandboxes.end(tmp_path)
    assert tree.exists()


def test_a_program_is_killed_without_a_group_on_windows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Only that: Popen itself is of the system that the tests run on, and sends a signal.
    monkeypatch.setattr(sys, "platform", "win32")
    words = [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(60)"]
    group = ProcessGroup(
        words,
        folder=tmp_path,
        variables=dict(os.environ),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    with group:
        assert group.process.stdout is not None
        assert group.process.stdout.readline() == b"up\n"
    assert group.process.wait(10) < 0
    group.process.stdout.close()


def test_a_launcher_needs_linux(monkeypatch: pytest.MonkeyPatch) -> None:
    assert launcher.why_missing(["sh"]) == ""
    monkeypatch.setattr(sys, "platform", "darwin")
    assert launcher.why_missing(["sh"]) == "[local] launcher needs Linux"
    assert launcher.why_missing([]) == ""


def test_a_record_of_requests_keeps_no_room(tmp_path: Path, windows: Msvcrt) -> None:
    file = tmp_path / "record"
    record = RequestRecord(str(file))
    assert record.keep_room()
    assert file.stat().st_size == 0
    assert record.add(RequestEntry(1, "h", 443, "GET", "/", 200), was_kept=True)
    assert read(file)
