"""System calls that are refused inside: above all those that reach the user's kernel keys."""

from __future__ import annotations

import json
import os
import platform
import shutil
import socket
import struct
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from rebyte_cli.local.agents.sandbox import jail, seccomp

from .bench import Bench

PYTHON = shutil.which("python3", path=jail.SYSTEM_PATH) or ""  # which other users and the jail see
OTHER_USER = 54321
pytestmark = [
    pytest.mark.skipif(not seccomp.is_available(), reason="no seccomp here"),
    pytest.mark.skipif(not PYTHON, reason="no Python of the system"),
]

# Calls by their number, and on x86_64 also those of i386, as any program can make them.
CALLS = """
import ctypes, errno, json, mmap, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long

def native(number, *words):
    words = [ctypes.c_long(one) if isinstance(one, int) else one for one in (number, *words)]
    result = libc.syscall(*words)
    return result if result >= 0 else -ctypes.get_errno()

def i386(number, *words):
    words = [number, *words, 0, 0, 0, 0][:5]
    # push rbx; mov eax, ebx, ecx, edx, esi; int 0x80; pop rbx; ret
    load = zip(b"\\xb8\\xbb\\xb9\\xba\\xbe", words)
    code = b"\\x53" + b"".join(bytes([one]) + struct.pack("i", word) for one, word in load)
    page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    page.write(code + b"\\xcd\\x80\\x5b\\xc3")
    address = ctypes.addressof(ctypes.c_char.from_buffer(page))
    return ctypes.CFUNCTYPE(ctypes.c_int)(address)()
"""
SETUP = """
x86 = sys.argv[1] == "x86_64"
add_key, request_key, keyctl, *others = json.loads(sys.argv[2])
PERSON, SESSION, OF_USER, OF_SESSION = -2, -3, -4, -5
UNLINK, LINK, SEARCH, READ, TIMEOUT = 9, 8, 10, 11, 15
"""
# As `keyctl add user NAME SECRET @u` does, and for @us: each keyring's number and each key's.
PLANT = f"""{CALLS}{SETUP}
planted = []
for ring in (OF_USER, OF_SESSION):
    name = b"rebyte-test-%d" % ring
    key = native(add_key, b"user", name, b"the secret", 10, ring)
    assert key > 0, key
    native(keyctl, TIMEOUT, key, 600)  # should the test be killed
    planted.append([ring, native(keyctl, 0, ring, 0), key])
print(json.dumps(planted))
"""
PULL = f"""{CALLS}{SETUP}
for ring, _, key in json.loads(sys.argv[3]):
    native(keyctl, UNLINK, key, ring)
"""
STEAL = f"""{CALLS}{SETUP}
tried = []
for _, ring, key in json.loads(sys.argv[3]):
    tried += [native(keyctl, LINK, ring, SESSION), native(keyctl, LINK, ring, PERSON)]
    tried += [native(keyctl | 1 << 30, LINK, ring, SESSION)]  # the call of x32
    if x86:
        tried += [i386(288, LINK, ring, SESSION)]
    buffer = ctypes.create_string_buffer(99)
    tried += [native(keyctl, READ, key, buffer, 99)]
    if buffer.value:
        print("READ", buffer.value.decode())
    tried += [native(request_key, b"user", b"rebyte-test--4", None, 0)]
    tried += [native(add_key, b"user", b"rebyte-test-mine", b"x", 1, SESSION)]
print(*(errno.errorcode.get(-one, one) for one in sorted(set(tried))))
"""


@pytest.fixture
def workspace() -> Iterator[Path]:
    """A workspace that another user can reach, unlike `tmp_path`."""
    folder = Path(tempfile.mkdtemp())
    (folder / "code").mkdir()
    (folder / "home").mkdir()
    for path in (folder, folder / "code", folder / "home"):
        path.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def python(code: str, *arguments: str) -> list[str]:
    """A command line that runs `code`, which knows the numbers of this machine's calls."""
    machine = platform.machine()
    numbers = json.dumps(seccomp.NUMBERS[seccomp.MACHINES[machine]])
    return [PYTHON, "-I", "-c", code, machine, numbers, *arguments]


def perform(words: list[str], user: int | None) -> list[str]:
    """The lines that a program of `user` prints."""
    someone = {} if user is None else {"user": user, "group": user, "extra_groups": []}
    done = subprocess.run(
        words,
        env={"PATH": jail.SYSTEM_PATH},
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
        **someone,  # type: ignore[call-overload]  # mypy takes the values for one type
    )
    assert done.returncode == 0, done.stderr
    return str(done.stdout).splitlines()


def may_read(user: int) -> bool:
    """Whether this process can become `user`, and that user read the package."""
    with suppress(AssertionError, PermissionError):
        return perform([PYTHON, "-c", f"open({seccomp.__file__!r})"], user) == []
    return False


@pytest.mark.slow
@pytest.mark.parametrize("user", [None, OTHER_USER])
def test_the_keys_of_the_user_cannot_be_reached(
    bench: Bench, workspace: Path, user: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if user is not None and not may_read(user):
        pytest.skip("needs root, and a checkout that other users may read")
    monkeypatch.setenv("PATH", jail.SYSTEM_PATH)
    for path in (workspace, workspace / "code", workspace / "home"):
        os.chown(path, user or -1, -1)
    steal = python(STEAL, planted := perform(python(PLANT), user)[0])
    line = jail.command(jail.layout_of(workspace, jailed=True), steal)
    try:
        assert "READ the secret" in perform(steal, user)  # the attack is one
        # The Python of the tests may be one that the other user cannot run.
        assert perform([PYTHON, *line[1:]], user) == ["ENOSYS"]
    finally:
        perform(python(PULL, planted), user)


OTHERS = f"""{CALLS}{SETUP}
for number in (*others, 425, 426, 427, 438, 469):
    print(errno.errorcode[-native(number, -1, -1, -1, -1)])
print(native(39 if x86 else 172) > 0)  # getpid
"""


def test_what_attacks_on_the_kernel_begin_with_is_refused(bench: Bench, workspace: Path) -> None:
    line = jail.command(jail.layout_of(workspace, jailed=True), python(OTHERS))
    *refused, works = perform(line, None)
    assert {*refused} == {"ENOSYS"}
    assert len(refused) >= 11
    assert works == "True"


# All programs of the machine have only so many events together (fs.aio-max-nr).
EVENTS = f"""{CALLS}{SETUP}
context = (ctypes.c_ulong * 1)()
calls = [native(others[5], 1, context)]
if x86:
    calls += [native(543 | 1 << 30, 1, context), i386(245, 1, 0)]
print(*(errno.errorcode.get(-one, "done") for one in calls))
"""


def test_no_events_are_taken_from_other_programs(bench: Bench, workspace: Path) -> None:
    assert perform(python(EVENTS), None)[0].split()[0] in ("done", "EAGAIN"), "the attack is one"
    line = jail.command(jail.layout_of(workspace, jailed=True), python(EVENTS))
    assert {*perform(line, None)[0].split()} == {"ENOSYS"}


# A lease lets whoever opens the file wait, in every program of the user, for 45 seconds each time.
LEASE = f"""{CALLS}{SETUP}
import os
path, fcntls, commands = sys.argv[3], *map(json.loads, sys.argv[4:])
WRITE, NONE = 1, 2

def tries(call, number):
    for command in commands:
        file = os.open(path, os.O_RDONLY)
        yield errno.errorcode.get(-call(number, file, command, WRITE), "leased")
        os.close(file)

found = [*tries(native, fcntls[0])]
if x86:
    found += [*tries(native, fcntls[0] | 1 << 30), *tries(i386, 55), *tries(i386, 221)]
print(*found)
print(native(fcntls[0], 0, 1, 0))
"""


def test_no_file_that_is_shown_can_be_leased(bench: Bench, workspace: Path) -> None:
    numbers = seccomp.FCNTL.get(seccomp.MACHINES[platform.machine()])
    if numbers is None:
        pytest.skip("this architecture has the command elsewhere")
    (workspace / "code/file").write_text("x")
    words = [json.dumps(each) for each in (numbers, seccomp.LEASES)]
    outside = perform(python(LEASE, str(workspace / "code/file"), *words), None)
    assert outside[0].split()[0] == "leased", "the attack is one"
    line = jail.command(jail.layout_of(workspace, jailed=True), python(LEASE, "file", *words))
    inside = perform(line, None)
    assert set(inside[0].split()) <= {"EINVAL", "ENOSYS"}  # x32 and i386 may be missing
    assert inside[0].split()[0] == "EINVAL"
    assert inside[1] == outside[1] == "0"  # other commands work


# An agent could lock the encrypted files of all programs, or make folders that nothing removes.
IOCTL = f"""{CALLS}{SETUP}
import os
numbers, requests = map(json.loads, sys.argv[3:])
file, other = (os.open(name, os.O_RDWR | os.O_CREAT) for name in ("file", "other"))
calls = [lambda one: native(numbers[0], file, one, other)]
if x86:
    calls += [lambda one: native(numbers[0], file, one | 1 << 32, other)]
    calls += [lambda one: native(numbers[1] | 1 << 30, file, one, other)]
    calls += [lambda one: i386(54, file, one - (one >> 31 << 32), other)]
for call in calls:
    print(json.dumps([errno.errorcode.get(-call(one), "done") for one in requests]))
"""
FILES = {
    "FS_IOC_SETFLAGS": 0x40086602, "FS_IOC_SETVERSION": 0x40087602, "FS_IOC_FSSETXATTR": 0x401C5820,
    "FITRIM": 0xC0185879, "FS_IOC_SET_ENCRYPTION_POLICY": 0x800C6613,
    "FS_IOC_GET_ENCRYPTION_POLICY_EX": 0xC0096616, "FS_IOC_ADD_ENCRYPTION_KEY": 0xC0506617,
    "FS_IOC_REMOVE_ENCRYPTION_KEY": 0xC0406618, "FS_IOC_ENABLE_VERITY": 0x40806685,
    "BTRFS_IOC_SUBVOL_CREATE": 0x5000940E, "BTRFS_IOC_SNAP_CREATE_V2": 0x50009417,
    "BTRFS_IOC_SUBVOL_SETFLAGS": 0x4008941A, "BCH_IOCTL_SUBVOLUME_CREATE": 0x4020BC10,
    "F2FS_IOC_SHUTDOWN": 0x8004587D, "NS_GET_PARENT": 0xB702, "USERFAULTFD_IOC_NEW": 0xAA00,
    "VT_ACTIVATE": 0x5606, "RNDADDTOENTCNT": 0x40045201, "PIDFD_GET_INFO": 0xC048FF0B,
}  # fmt: skip
NEEDED = {
    "FICLONE": 0x40049409, "FICLONERANGE": 0x4020940D, "FIDEDUPERANGE": 0xC0189436,
    "FIONREAD": 0x541B, "FIOCLEX": 0x5451, "FIONBIO": 0x5421, "TCGETS": 0x5401,
    "TCGETS2": 0x802C542A, "SIOCGIFCONF": 0x8912, "FS_IOC_GETFLAGS": 0x80086601,
    "FS_IOC_FIEMAP": 0xC020660B, "FS_IOC_FSGETXATTR": 0x801C581F,
}  # fmt: skip


def test_only_requests_that_programs_need_reach_a_file(bench: Bench, workspace: Path) -> None:
    numbers = seccomp.IOCTL[seccomp.MACHINES[platform.machine()]]
    words = json.dumps(numbers), json.dumps([*FILES.values(), *NEEDED.values()])
    line = jail.command(jail.layout_of(workspace, jailed=True), python(IOCTL, *words))
    inside = [json.loads(line) for line in perform(line, None)]
    outside = [
        json.loads(each)
        for each in perform(["env", "-C", str(workspace / "code"), *python(IOCTL, *words)], None)
    ]
    assert {*outside[0][: len(FILES)]} != {"ENOTTY"}, "some of them do something here"
    for answers, others in zip(inside, outside, strict=True):
        if answers != ["ENOSYS"] * len(answers):  # x32 and i386 may be missing
            assert answers == ["ENOTTY"] * len(FILES) + others[len(FILES) :]


TERMINAL = """
import fcntl, os, pty, select, struct, termios, tty
main, terminal = pty.openpty()
fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("4H", 12, 34, 0, 0))
tty.setraw(terminal)
os.write(main, b"typed")
select.select([terminal], [], [], 60)
waiting = fcntl.ioctl(terminal, termios.FIONREAD, bytes(4))
os.set_inheritable(terminal, True)
print(*os.get_terminal_size(terminal), *waiting, termios.tcgetattr(terminal)[3] & termios.ECHO)
"""


def test_terminals_can_be_used(bench: Bench, workspace: Path) -> None:
    line = jail.command(jail.layout_of(workspace, jailed=True), python(TERMINAL))
    assert perform(line, None) == [f"34 12 {' '.join(map(str, struct.pack('i', 5)))} 0"]


# Of every family, and of netlink every protocol, the sockets that this machine has.
SOCKETS = f"""{CALLS}{SETUP}
socket, socketpair = json.loads(sys.argv[3])

def tries(call):
    sockets = [(family, kind, 0) for family in range(64) for kind in (1, 2, 3)]
    for family, kind, protocol in sockets + [(16, 3, protocol) for protocol in range(32)]:
        if call(family, kind, protocol) not in (-errno.EAFNOSUPPORT, -errno.ENOSYS):
            yield family, protocol

def through_socketcall(family, kind, protocol):
    numbers[:] = family, kind, protocol, 0, 0, 0
    return i386(102, 1, address)

def pair_through_socketcall(family, kind, protocol):
    # Two descriptors for the answer.
    numbers[:] = family, kind, protocol, address + 16, 0, 0
    return i386(102, 8, address)

calls = [lambda *words: native(socket, *words)]
calls += [lambda *words: native(socketpair, *words, ctypes.create_string_buffer(8))]
if x86:
    calls += [lambda *words: native(socket | 1 << 30, *words)]
    calls += [lambda *words: i386(359, *words)]
    calls += [lambda *words: native(socket, words[0] | 1 << 32, *words[1:])]
    libc.mmap.restype = ctypes.c_void_p
    address = libc.mmap(None, 4096, 3, 0x62, -1, 0)  # which fits into 32 bits
    numbers = (ctypes.c_int * 6).from_address(address)
    calls += [through_socketcall, pair_through_socketcall]
for call in calls:
    print(json.dumps(sorted(set(tries(call)))))
"""


def test_only_sockets_that_programs_need_can_be_made(bench: Bench, workspace: Path) -> None:
    """A socket of AF_VSOCK reaches the host of a virtual machine, others much of the kernel."""
    numbers = seccomp.SOCKETS.get(seccomp.MACHINES[platform.machine()])
    if numbers is None:
        pytest.skip("libraries of this architecture make sockets by a call that hides the family")
    program = python(SOCKETS, json.dumps(numbers[:2]))
    outside = [json.loads(line) for line in perform(program, None)]
    assert [16, 15] in outside[0], "netlink that announces devices: the attack is one"
    line = jail.command(jail.layout_of(workspace, jailed=True), program)
    inside = [json.loads(line) for line in perform(line, None)]
    allowed = [[socket.AF_UNIX, 0], [socket.AF_INET, 0], [socket.AF_INET6, 0], [16, 0]]
    assert inside[:5] == [[one for one in found if one in allowed] for found in outside[:5]]
    assert inside[5:] == [[]] * len(outside[5:])


@pytest.mark.slow
def test_no_descriptor_of_the_filter_is_left(bench: Bench) -> None:
    assert bench.run(["sh", "-c", "ls /proc/self/fd"]).answer == "0\n1\n2\n3"


INSTRUCTIONS = list(struct.iter_unpack("HBBI", seccomp.program()))


def answer(architecture: int, call: int, *words: int) -> int:
    """What the program says of a call, its few instructions run as the kernel runs them."""
    data = struct.pack("IIQ6Q", call, architecture, 0, *words, *[0] * (6 - len(words)))
    place = register = 0
    while True:
        code, then, otherwise, value = INSTRUCTIONS[place]
        place += 1
        if code == seccomp.LOAD:
            register = struct.unpack_from("I", data, value)[0]
        elif code == seccomp.AND:
            register &= value
        elif code == seccomp.JUMP_IF_EQUAL:
            place += then if register == value else otherwise
        else:
            assert code == seccomp.RETURN
            return int(value)


def test_each_architecture_has_its_own_numbers() -> None:
    of_files = {n & 0xFFFF for n in NEEDED.values() if n & 0xFF00 not in (0x5400, 0x8900)}
    for architecture, numbers in seccomp.NUMBERS.items():
        sockets = seccomp.SOCKETS.get(architecture, ())
        refused = {n for n in range(1024) if answer(architecture, n, 1) != seccomp.ALLOW}
        ioctl = seccomp.IOCTL[architecture]
        assert refused == {*numbers, *seccomp.SAME_EVERYWHERE, *sockets[2:], *ioctl}
        assert answer(architecture, numbers[0]) == seccomp.REFUSE
        for number in sockets[:2]:
            found = {n for n in range(64) if answer(architecture, number, n) == seccomp.ALLOW}
            assert found == {socket.AF_UNIX, socket.AF_INET, socket.AF_INET6, 16}
            assert answer(architecture, number, 16, 3, 15) == seccomp.NO_FAMILY
        for number in seccomp.FCNTL.get(architecture, ()):
            said = {n: answer(architecture, number, 0, n) for n in range(2048)}
            assert {n for n in said if said[n] != seccomp.ALLOW} == {1024, 1040}
        shift = 32 if architecture in (seccomp.S390X, seccomp.S390) else 0
        is_power = architecture in (seccomp.PPC64LE, seccomp.PPCLE)
        terminals = {*range(0x5400, 0x5500), *(range(0x7400, 0x7500) if is_power else ())}
        for number in ioctl:
            for bits in (0, 0x80000000, 0x40000000, 0x1234 << 16):  # of a direction, and of a size
                said = {n: answer(architecture, number, 3, bits + n << shift) for n in range(65536)}
                assert {*said.values()} == {seccomp.ALLOW, seccomp.NO_REQUEST}
                found = {n for n in said if said[n] == seccomp.ALLOW}
                others = found - terminals - {*range(0x8900, 0x8A00)}
                assert terminals <= found
                assert others - {*range(0x667D, 0x6681)} == of_files
                assert is_power or 0x667D not in others
            nonclosing = answer(architecture, number, 3, 0x20006602 << shift)
            assert (nonclosing == seccomp.ALLOW) == is_power
        for number in sockets[2:]:
            found = {n for n in range(64) if answer(architecture, number, n) == seccomp.REFUSE}
            assert found == {1, 8}, "of the calls in one, those that make a socket"
    assert answer(seccomp.X86_64, seccomp.X32 | 250) == seccomp.REFUSE
    assert answer(0xC0000016, 250) == seccomp.ALLOW  # an unknown architecture
