"""What namespaces alone leave open: the kernel's settings, abstract sockets, a login's keys."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

import pytest

from rebyte_cli.local.agents import agent_list
from rebyte_cli.local.agents.sandbox import jail, seal, seccomp

from .bench import PYTHON, Bench, need_jail, python, script, with_mounts


def need_scopes() -> None:
    if not seal.has_scopes(jail.bubblewrap() or "/"):
        pytest.skip("this kernel has no Landlock scopes")


DEVICES = {f"/dev/{name}" for name in ("full", "null", "random", "tty", "urandom", "zero")}


@pytest.mark.slow
def test_nothing_of_the_kernel_can_be_written(bench: Bench) -> None:
    """As root, who owns all of it."""
    lines = "find /proc /sys /dev -not -path '/proc/[0-9]*' -not -type l -writable 2>/dev/null"
    lines += "; pattern=/proc/sys/kernel/core_pattern; old=$(cat $pattern)"
    lines += '; (echo "$old" > $pattern) 2>/dev/null && echo written; true'
    answer = bench.run(["sh", "-c", lines]).answer or ""
    terminals = {"/dev", "/dev/shm", "/dev/pts", "/dev/pts/ptmx"}  # of the jail alone
    masked = {f"/proc/{name}" for name in jail.SECRET}  # each a device, and none can be opened
    assert set(answer.split()) <= DEVICES | terminals | masked


# With the mode that it has: an attack that succeeds does no harm.
CHANGE = """
import os, stat, sys
for path in [0, *sys.argv[1:]]:
    mode = stat.S_IMODE(os.stat(path).st_mode)
    for change in (lambda: os.chmod(path, mode), lambda: os.utime(path)):
        try:
            change()
            print("changed", path)
        except OSError:
            pass
print(open("/dev/null", "w").write("x"), open("/dev/zero", "rb").read(1))
"""


@pytest.mark.parametrize("less", ["", "--bounding-set=-sys_admin", "--regid=4 --clear-groups"])
def test_modes_and_times_of_the_machine_stay(tmp_path: Path, less: str) -> None:
    """As root, who owns the devices and all of /proc, which is the same in every namespace."""
    need_jail()
    for name in ("code", "home"):
        (tmp_path / name).mkdir()
    files = [entry.path for entry in os.scandir("/proc") if entry.is_file(follow_symlinks=False)]
    assert "/proc/meminfo" in files
    words = [PYTHON, "-I", "-c", CHANGE, *sorted(DEVICES), *sorted(files)]
    line = jail.command(jail.layout_of(tmp_path, jailed=True), words, needs=[sys.base_prefix])
    is_less = less and not os.getuid()
    done = subprocess.run(
        [*(["/usr/bin/setpriv", *less.split()] if is_less else []), *line],
        env={"PATH": jail.SYSTEM_PATH},
        cwd="/",
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.splitlines() == ["1 b'\\x00'"], done.stderr


MOUNTED = """
mount --make-rshared / && mount -t tmpfs none /proc/sys/fs/binfmt_misc &&
    touch /proc/sys/fs/binfmt_misc/seen || exit 9
exec "$@"
"""
LATER = """
import subprocess
from pathlib import Path
from rebyte_cli.local.agents.sandbox import jail
look = "echo ready; read -r _; find /proc/fs /proc/sys/fs -name seen"
line = jail.command(jail.layout_of(Path.cwd(), jailed=True), ["sh", "-c", look])
path = {"PATH": jail.SYSTEM_PATH}
process = subprocess.Popen(line, env=path, cwd="/", stdin=-1, stdout=-1, text=True)
assert process.stdout.readline() == "ready\\n"
for place in ("/proc/fs", "/proc/sys/fs/binfmt_misc", "/proc/sys/fs"):
    subprocess.run(["mount", "-t", "tmpfs", "none", place], check=True)
    Path(place, "seen").touch()
print(process.communicate("\\n")[0], end="")
"""


def test_to_root_it_shows_nothing_that_is_mounted_in_proc(tmp_path: Path) -> None:
    """It would be with its own rights: binfmt_misc, which systemd mounts once a program looks."""
    need_jail()
    for name in ("code", "home"):
        (tmp_path / name).mkdir()
    done = with_mounts(tmp_path, MOUNTED, LATER)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


HANDLED = """
formats=/proc/sys/fs/binfmt_misc
mount -t binfmt_misc none $formats && cp /bin/cat handler && printf 'MAGIC x' > program &&
    chmod +x program && mv program code &&
    echo ":rebyte:M::MAGIC::$PWD/handler:F" > $formats/register || exit 9
test "$(code/program)" = "MAGIC x" || exit 9
exec "$@"
"""
HANDLES = """
import subprocess
from pathlib import Path
from rebyte_cli.local.agents.sandbox import jail
line = jail.command(jail.layout_of(Path.cwd(), jailed=True), ["/code/program"])
done = subprocess.run(line, env={"PATH": jail.SYSTEM_PATH}, cwd="/", capture_output=True, text=True)
print(done.stdout, done.stderr)
"""


def test_for_root_no_program_of_the_machine_handles_a_format(tmp_path: Path) -> None:
    """Its file would be root's to change, through /proc/PID/exe."""
    need_jail()
    for name in ("code", "home"):
        (tmp_path / name).mkdir()
    done = with_mounts(tmp_path, HANDLED, HANDLES)
    assert "MAGIC: not found" in done.stdout, done
    assert "MAGIC x" not in done.stdout


@pytest.mark.slow
def test_bubblewrap_itself_cannot_be_changed(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its owner's programs could, since the first process of the jail runs it from outside."""
    program = bench.folder / "bin/bwrap"
    program.parent.mkdir()
    shutil.copy(jail.bubblewrap() or "bwrap", program)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    before = program.stat()
    attempt = "chmod 0700 /proc/[0-9]*/exe; touch /proc/[0-9]*/exe; echo x >> /proc/1/exe"
    run = bench.run(["sh", "-c", f"{{ {attempt}; }} 2>&1; echo tried"])
    assert (run.answer or "").endswith("tried")
    after = program.stat()
    assert (after.st_mode, after.st_size) == (before.st_mode, before.st_size)
    assert (after.st_mtime_ns, after.st_ctime_ns) == (before.st_mtime_ns, before.st_ctime_ns)


def test_the_devices_are_those_that_every_program_has(bench: Bench) -> None:
    lines = (
        "find /dev /tmp /run /var ! -type l '(' -exec test -c {} ';' -o -exec test -b {} ';' ')'"
    )
    answer = bench.run(["sh", "-c", f"{lines} -print"]).answer or ""
    assert set(answer.split()) == DEVICES | {"/dev/pts/ptmx"}


@pytest.fixture
def secret_socket() -> Iterator[str]:
    """An abstract socket of this user that tells a secret, as a keyring's bus does."""
    name = f"rebyte-{uuid4()}"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(f"\0{name}")
        server.listen()

        def serve() -> None:
            with suppress(OSError):
                while True:
                    connection, _ = server.accept()
                    with connection:
                        connection.sendall(b"the secret")

        thread = threading.Thread(target=serve)
        thread.start()
        yield name
        server.shutdown(socket.SHUT_RDWR)
        thread.join()


ASK = """
import socket
try:
    with socket.socket(socket.AF_UNIX) as s:
        s.connect("\\0{name}")
        print(s.recv(99).decode())
except OSError as error:
    print(error.strerror)
# Among themselves, programs inside may use them, and TCP.
for kind, address in ((socket.AF_UNIX, "\\0inside"), (socket.AF_INET, ("127.0.0.1", 0))):
    with socket.socket(kind) as server, socket.socket(kind) as client:
        server.bind(address)
        server.listen()
        client.connect(server.getsockname())
        print("connected")
"""


@pytest.mark.slow
def test_abstract_sockets_of_other_programs_cannot_be_reached(
    bench: Bench, secret_socket: str
) -> None:
    need_scopes()
    agent = python(ASK.format(name=secret_socket))
    for network, why in (("host", "Operation not permitted"), ("list", "Connection refused")):
        answer = bench.run(agent, network=network).answer or ""
        assert answer.splitlines() == [why, "connected", "connected"]


KEYS = """
import ctypes, sys
libc = ctypes.CDLL(None, use_errno=True)
number = {"x86_64": 248}.get(__import__("os").uname().machine, 217)
add, request, keyctl = number, number + 1, number + 2
"""
ADD = f"""{KEYS}
SESSION = -3
assert libc.syscall(keyctl, 1, None) > 0  # a keyring of this process alone
assert libc.syscall(add, b"user", b"rebyte-test", b"the secret", 10, SESSION) > 0
import os
os.execvp(sys.argv[1], sys.argv[1:])
"""
READ = f"""{KEYS}
buffer = ctypes.create_string_buffer(99)
key = libc.syscall(request, b"user", b"rebyte-test", None, 0)
size = libc.syscall(keyctl, 11, key, buffer, 99) if key > 0 else -1
print(buffer.value.decode() if size > 0 else "no key")
"""


@pytest.mark.slow
@pytest.mark.skipif(os.uname().machine not in ("x86_64", "aarch64"), reason="other numbers")
def test_the_keys_of_a_login_cannot_be_read(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "code").mkdir()
    (tmp_path / "home").mkdir()
    read = [PYTHON, "-I", "-c", READ]
    line = jail.command(jail.layout_of(tmp_path, jailed=True), read, needs=[sys.base_prefix])

    def answer(words: list[str]) -> str:
        add = [sys.executable, "-c", ADD, *words]
        path = {"PATH": jail.SYSTEM_PATH}
        done = subprocess.run(add, env=path, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    assert answer(read) == "the secret"
    assert answer(line) == "no key"


@pytest.mark.slow
def test_a_program_inside_gets_no_namespaces_of_its_own(bench: Bench) -> None:
    """In them it would have capabilities, and the larger part of the kernel before it."""
    if not jail.no_nested_namespaces("bwrap"):
        pytest.skip("this bubblewrap cannot forbid them")
    answer = bench.run(["sh", "-c", "unshare -U true 2>&1 && echo made; true"]).answer or ""
    assert "made" not in answer
    assert "unshare failed" in answer


def test_what_this_machine_cannot_close_is_told(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seal, "has_scopes", lambda _program: False)
    monkeypatch.setattr(seccomp, "is_available", lambda: False)
    monkeypatch.setattr(jail, "no_nested_namespaces", lambda _program: False)
    row = agent_list.every_agent(bench.folder, None)[0]
    assert row["jail"] == "on"
    abstract, _, others = str(jail.gaps(network=True)).partition("; ")
    assert abstract == (
        "abstract Unix sockets of your other programs can be reached (needs Linux 6.12 with"
        " Landlock)"
    )
    assert row["jailGaps"] == others
    assert others == (
        "the kernel's keyrings of your logins can be read and changed, and sockets of"
        " any family opened (needs seccomp and a common 64-bit architecture); programs inside can"
        " make user namespaces (needs bubblewrap 0.8)"
    )


JAILED = """
import subprocess, sys
from pathlib import Path
from rebyte_cli.local.agents.sandbox import jail
here = Path(sys.argv[1])
line = jail.command(jail.layout_of(here, jailed=True), ["echo", "hello"])
sys.exit(subprocess.run(line).returncode)
"""


def test_the_command_in_one_file_makes_the_same_sandbox(bench: Bench, tmp_path: Path) -> None:
    archive = tmp_path / "rebyte.pyz"
    package = Path(jail.__file__).parents[3]
    with zipfile.ZipFile(archive, "w") as file:
        for path in (package / "rebyte_cli").rglob("*.py"):
            file.write(path, path.relative_to(package))
    (tmp_path / "code").mkdir()
    (tmp_path / "home").mkdir()
    path = f"{os.environ['PATH']}:{jail.SYSTEM_PATH}"
    done = subprocess.run(
        [sys.executable, "-c", JAILED, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(archive), "PATH": path},
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "hello\n"), done.stderr


@pytest.mark.slow
def test_an_old_bubblewrap_is_enough(bench: Bench, tmp_path: Path, user_home: Path) -> None:
    """It refuses the switch that forbids user namespaces."""
    real = jail.bubblewrap()
    text = f"""
    for word in "$@"; do
        case "$word" in --) break;; --disable-userns) echo "Unknown option $word" >&2; exit 1;; esac
    done
    exec {real} "$@"
    """
    script(tmp_path / "old", "bwrap", text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{tmp_path}/old:{os.environ['PATH']}")
        need_jail()
        assert bench.run(["echo", "hello"]).answer == "hello"
