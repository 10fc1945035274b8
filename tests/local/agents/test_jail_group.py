"""What is left of a jail after its end, when a program inside was written to outlive that.

The first process of a jail's PID namespace is bubblewrap's, with the same user as the agent: unless
the kernel restricts that, an agent can trace it or change its memory, and so keep it from dying.
"""

from __future__ import annotations

import ctypes
import os
import platform
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from rebyte_cli.local.agents import workspace_access
from rebyte_cli.local.agents.adapters.program import ProgramAdapter
from rebyte_cli.local.agents.sandbox import jail
from rebyte_cli.local.agents.sandbox.jail_group import JailGroup, _status
from rebyte_cli.local.agents.supervision import run_lock
from rebyte_cli.system import process_identity
from tests import outliving
from tests.waiting import eventually

from .bench import NAP, Bench, gone, processes, python, script
from .test_seccomp import PYTHON

MARK = f"{NAP}15"
# A child in another session holds the first process, and then arms the repository for ten minutes.
ATTACK = """
import ctypes, os, sys, threading, time
from queue import SimpleQueue
libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]

def trace(pid=1):
    SEIZE, TRACE_EXIT = 0x4206, 0x40
    return libc.ptrace(SEIZE, pid, None, TRACE_EXIT) == 0

def trace_in_a_thread():
    queue = SimpleQueue()
    threading.Thread(target=lambda: (queue.put(trace()), time.sleep(600)), daemon=True).start()
    return queue.get()

def trace_in_a_row():
    read, write = os.pipe()
    above = os.getpid()
    if os.fork() == 0:
        trace(above)
        os.close(write)
        time.sleep(600)
        os._exit(0)
    os.close(write)
    os.read(read, 1)
    return trace()

def change_memory():
    # prctl(PR_SET_PDEATHSIG, 0); for (;;) pause();
    code = bytes.fromhex("bf01000000 31f6 b89d000000 0f05 b822000000 0f05 ebf7")
    try:
        place = int(open("/proc/1/syscall").read().split()[-1], 16)
        with open("/proc/1/mem", "r+b", buffering=0) as memory:
            memory.seek(place)
            memory.write(code)
    except OSError:
        return False
    if os.fork() == 0:
        os.fork()  # an orphan, whose end the first process hears of
        os._exit(0)
    os.wait()
    while open("/proc/1/syscall").read().split()[0] != "34":  # pause
        time.sleep(0.01)
    return True

read, write = os.pipe()
if os.fork() == 0:
    os.setsid()
    os.write(write, b"held" if HOLD() else b"refused")
    for number in (0, 1, 2, read, write):
        os.close(number)
    end = time.monotonic() + 600
    while time.monotonic() < end:
        os.makedirs("/code/.git", exist_ok=True)
        with open("/code/.git/config", "w") as file:
            file.write("[core]\\n\\tfsmonitor = false\\n")
        time.sleep(0.01)
    os._exit(0)
os.close(write)
print(os.read(read, 9).decode(), flush=True)
"""
ATTACKS = ["trace", "trace_in_a_thread", "trace_in_a_row", "change_memory"]


def attack(hold: str, then: str) -> ProgramAdapter:
    """An agent that keeps a process in the jail alive with one of the two ways to do that."""
    return python(f"# {MARK}{ATTACK.replace('HOLD', hold)}{then}")


@pytest.fixture(autouse=True)
def _end_survivors() -> Iterator[None]:
    yield
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if MARK.encode() in (folder / "cmdline").read_bytes() and "pytest" not in str(folder):
                os.kill(int(folder.name), signal.SIGKILL)


def need(hold: str) -> None:
    if hold == "change_memory" and platform.machine() != "x86_64":
        pytest.skip("the attack is written for x86_64")


def check_held(bench: Bench, prompt: str) -> None:
    """Skip where the kernel refuses the attack."""
    bench.until_started(prompt)
    if eventually(lambda: (bench.run_folder(prompt) / "output").read_text()) == "refused\n":
        pytest.skip("this kernel lets no program trace another that it did not start")


@pytest.mark.slow
@pytest.mark.parametrize("hold", ATTACKS)
@pytest.mark.parametrize("end", ["itself", "cancel", "killed"])
def test_nothing_outlives_a_run(bench: Bench, hold: str, end: str) -> None:
    need(hold)
    then = "pass" if end == "itself" else "time.sleep(600)"
    prompt = bench.start(attack(hold, then))
    check_held(bench, prompt)
    if end == "cancel":
        bench.cancel(prompt)
    elif end == "killed":
        os.kill(bench.supervisor(prompt), signal.SIGKILL)
    run = bench.wait(prompt)
    # Of a first process whose memory is changed, bubblewrap outside hears nothing any more.
    alone = "failed" if hold == "change_memory" else "succeeded"
    assert run.outcome == {"itself": alone, "cancel": "canceled", "killed": "failed"}[end]
    assert not processes(MARK)
    assert workspace_access.disarmed(bench.folder, "ws")
    assert "fsmonitor" not in (bench.workspace().code / ".git/config").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("hold", ATTACKS)
def test_nothing_outlives_a_supervisor_that_is_killed(bench: Bench, hold: str) -> None:
    """Nor waits for another command to end it."""
    need(hold)
    prompt = bench.start(attack(hold, "time.sleep(600)"))
    check_held(bench, prompt)
    os.kill(bench.supervisor(prompt), signal.SIGKILL)
    assert gone(MARK)


# A supervisor of a jail as it is where Landlock has no scope for signals, as before Linux 6.12.
UNSCOPED = """
import os, subprocess, sys, time
from pathlib import Path
from rebyte_cli.local.agents.sandbox import jail, seal
from rebyte_cli.local.agents.sandbox.jail_group import JailGroup
from rebyte_cli.system import python_process
layout = jail.layout_of(Path(sys.argv[1]), jailed=True)
line = jail.command(layout, sys.argv[2:])
unscoped = f"from {seal.__package__} import seal\\nseal.has_scopes = lambda program: False\\n"
line[:6] = python_process.command(seal.__name__, first=unscoped)
variables = jail.environment(layout, os.environ)
with JailGroup(layout, line, folder="/", variables=variables, stdout=None, stderr=None):
    time.sleep(600)
"""


@pytest.mark.slow
def test_nothing_outlives_a_supervisor_whose_jail_has_stopped_its_own_group(bench: Bench) -> None:
    """A signal to the process group of its sender crosses the borders of PID namespaces."""
    if not PYTHON:
        pytest.skip("no Python of the system")
    for name in ("code", "home"):
        (bench.folder / name).mkdir()
    stop = "import signal; os.kill(0, signal.SIGSTOP)"
    program = f"# {MARK}{ATTACK.replace('HOLD', 'trace')}{stop}"
    words = [sys.executable, "-c", UNSCOPED, bench.folder, PYTHON, "-I", "-c", program]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as supervisor:
        try:
            assert supervisor.stdout is not None
            if supervisor.stdout.readline() == b"refused\n":
                pytest.skip("this kernel lets no program trace another that it did not start")
            eventually(lambda: "T" in states(PYTHON))
        finally:
            supervisor.kill()
    assert gone(MARK)


def states(program: str) -> list[str]:
    """The states of the processes of this program that have the mark."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            line = (folder / "cmdline").read_bytes()
            if line.startswith(program.encode()) and MARK.encode() in line:
                found.append((folder / "stat").read_text().rpartition(")")[2].split()[0])
    return found


# A supervisor that gets no further than to the moment when the first process is there.
UNRECORDED = """
import os, sys, time
from pathlib import Path
from rebyte_cli.local.agents.sandbox import jail
from rebyte_cli.local.agents.sandbox.jail_group import JailGroup
class Unrecorded(JailGroup):
    def _first(self, told):
        print(super()._first(told), flush=True)
        time.sleep(600)
layout = jail.layout_of(Path(sys.argv[1]), jailed=True)
line = jail.command(layout, sys.argv[2:])
variables = jail.environment(layout, os.environ)
Unrecorded(layout, line, folder="/", variables=variables, stdout=None, stderr=None)
"""


def test_nothing_is_left_of_a_jail_whose_supervisor_is_killed_before_it_is_recorded(
    bench: Bench,
) -> None:
    for name in ("code", "home"):
        (bench.folder / name).mkdir()
    words = [sys.executable, "-c", UNRECORDED, bench.folder, "touch", MARK]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as supervisor:
        try:
            assert supervisor.stdout is not None
            first = supervisor.stdout.readline().strip()
            # Where it waits to be recorded: bubblewrap has made the sandbox.
            pid = eventually(lambda: process_identity.find(first))
            eventually(lambda: len(os.listdir(f"/proc/{pid}/root")) > 3)
        finally:
            supervisor.kill()
    assert gone(MARK)
    assert not (bench.folder / "code" / MARK).exists()


@pytest.mark.slow
def test_nothing_is_left_of_a_jail_whose_first_process_was_not_told_to_begin(bench: Bench) -> None:
    """It waits for bubblewrap outside without an end, and only then would die with it."""
    strace, real = shutil.which("strace", path=os.defpath), jail.bubblewrap()
    if not strace or not real:
        pytest.skip("no strace, which delays bubblewrap")
    for name in ("code", "home"):
        (bench.folder / name).mkdir()
    delay = "-e trace=clone,clone3 -e inject=clone,clone3:delay_exit=60000000"
    slow = f'case "$*" in *--info-fd*) exec {strace} -D -qqo /dev/null {delay} {real} "$@";; esac'
    script(bench.folder / "bin", "bwrap", f'{slow}; exec {real} "$@"')
    words = [sys.executable, "-c", UNRECORDED, bench.folder, "touch", MARK]
    path = f"{bench.folder}/bin:{os.environ['PATH']}"
    with subprocess.Popen(words, env=os.environ | {"PATH": path}) as supervisor:
        try:
            eventually(lambda: len(states(real)) == 2)
        finally:
            supervisor.kill()
    eventually(lambda: not states(real))  # strace itself waits for the whole delay


@pytest.mark.slow
def test_a_guard_that_is_stopped_ends_with_its_jail(bench: Bench) -> None:
    prompt = bench.start(attack("trace", "time.sleep(600)"))
    check_held(bench, prompt)
    guards = outliving.guards(bench.folder)
    (known,) = map(process_identity.identity, guards)
    os.kill(guards[0], signal.SIGSTOP)
    os.kill(bench.supervisor(prompt), signal.SIGKILL)
    eventually(lambda: run_lock.wait_until_free(bench.folder, "ws"))
    assert processes(MARK)
    assert workspace_access.disarmed(bench.folder, "ws")
    assert not processes(MARK)
    eventually(lambda: process_identity.find(known) is None)


@pytest.mark.skipif(sys.platform != "linux", reason="/proc has the status")
def test_no_program_forges_what_the_kernel_says_of_it() -> None:
    """It could pass for the one whose end is waited for: a name may have a carriage return."""
    script = r"import ctypes; ctypes.CDLL(None).prctl(15, b'\rNSpid:\t1 2'); print(); input()"
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-uc", script], stdin=pipe, stdout=pipe) as program:
        assert program.stdout is not None
        program.stdout.readline()
        assert _status(str(program.pid), "NSpid") == [str(program.pid)]
        program.communicate(b"\n")


LAST_THREAD = """
import ctypes, os, threading, time
def work():
    time.sleep(7)
    print("worked", flush=True)
    os._exit(0)
threading.Thread(target=work).start()
ctypes.CDLL(None).syscall(NUMBER, 0)
"""


@pytest.mark.slow
def test_a_program_is_not_over_with_its_first_thread(bench: Bench) -> None:
    numbers = {"x86_64": "60", "aarch64": "93"}
    if platform.machine() not in numbers:
        pytest.skip("the number of exit is known for x86_64 and aarch64")
    code = LAST_THREAD.replace("NUMBER", numbers[platform.machine()])
    run = bench.run([PYTHON, "-c", code])
    assert (run.outcome, run.answer) == ("succeeded", "worked")


@pytest.mark.slow
def test_a_run_ends_whose_sandbox_is_stopped_from_inside(bench: Bench) -> None:
    run = bench.run([PYTHON, "-c", outliving.STOP, MARK])
    if "refused" in (run.answer or ""):
        pytest.skip("this kernel lets no program trace another that it did not start")
    assert run.outcome == "failed"
    assert "a program in its background keeps the sandbox alive" in (run.answer or "")
    assert not processes(MARK)


@pytest.mark.slow
@pytest.mark.parametrize("then", ["pass", "time.sleep(600)"])
def test_nothing_outlives_git_in_the_jail(bench: Bench, then: str) -> None:
    """Nor git that hangs, until another command ends it."""
    if not PYTHON:
        pytest.skip("no Python of the system")
    assert bench.run(["true"]).outcome == "succeeded"
    code = bench.workspace().code
    assert not list(workspace_access.git_inside(bench.folder, "ws", ["init", "-q", "/code"]))
    (code / "attack.py").write_text(ATTACK.replace("HOLD", "trace") + then)
    words = ["-c", f"alias.x=!{PYTHON} -I /code/attack.py {MARK}", "x"]
    lines = workspace_access.git_inside(bench.folder, "ws", words)
    assert next(lines) in (b"held\n", b"refused\n")
    if then == "pass":
        lines.close()  # type: ignore[attr-defined]
    else:
        assert workspace_access.disarmed(bench.folder, "ws")
    assert not processes(MARK)
    assert "fsmonitor" not in (code / ".git/config").read_text()
    lines.close()  # type: ignore[attr-defined]


def test_a_jail_begins_nothing_before_it_is_recorded(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    (bench.folder / "code").mkdir()
    (bench.folder / "home").mkdir()
    layout = jail.layout_of(bench.folder, jailed=True)
    line = jail.command(layout, ["touch", "/code/begun"])

    def start() -> None:
        null, variables = subprocess.DEVNULL, jail.environment(layout, os.environ)
        with JailGroup(
            layout, line, folder="/", variables=variables, stdout=null, stderr=null
        ) as group:
            group.process.wait()
        assert not list((bench.folder / "jails").iterdir())

    def fail(_group: JailGroup, _told: int) -> str:
        raise OSError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(JailGroup, "_first", fail)
        with pytest.raises(OSError, match="the disk is full"):
            start()
    assert not (bench.folder / "code/begun").exists()
    start()
    assert (bench.folder / "code/begun").exists()
    monkeypatch.setattr(jail, "bubblewrap", lambda: "/no/bubblewrap")
    line = [*line[:6], "/no/bubblewrap", *line[7:]]
    start()  # which ends at once


@pytest.fixture
def held(bench: Bench) -> Iterator[None]:
    """A jail whose first process this process keeps from dying, and no supervisor any more."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
    prompt = bench.start(["sh", "-c", f"echo x; sleep {MARK}"])
    bench.until_started(prompt)
    (record,) = (bench.workspace().folder / "jails").iterdir()
    first = int(record.read_text().split()[0])
    if libc.ptrace(0x4206, first, None, 0x40) != 0:  # SEIZE, TRACEEXIT
        pytest.skip("this kernel lets no program trace another that it did not start")
    os.kill(bench.supervisor(prompt), signal.SIGKILL)
    eventually(lambda: run_lock.wait_until_free(bench.folder, "ws"))
    yield
    os.waitpid(first, 0x40000000)  # __WALL: it stops on its way to die
    libc.ptrace(17, first, None, None)  # DETACH


@pytest.mark.slow
@pytest.mark.usefixtures("held")
def test_a_jail_that_cannot_be_emptied_is_not_safe_and_gets_no_other_run(bench: Bench) -> None:
    with pytest.raises(OSError, match="a program in the sandbox of a run cannot be ended"):
        workspace_access.disarmed(bench.folder, "ws")
    prompt = bench.start(["sh", "-c", "touch /code/begun; echo never"])
    run = bench.wait(prompt)
    assert run.outcome == "failed"
    assert "a program in the sandbox of a run cannot be ended (process " in (run.answer or "")
    assert "git is not safe in the folder of the workspace: a program" in bench.said(prompt)
    assert not (bench.workspace().code / "begun").exists()
