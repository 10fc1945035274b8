"""What the kernel takes from a process for good, before bubblewrap starts as that process.

Namespaces do not cover abstract Unix sockets while the network is shared, nor the kernel's
keyrings. A Landlock scope, a fresh session keyring and a filter of system calls do. The jail has
the devices of this machine, whose modes their owner could change there: for root, they are mounted
read-only, which does not keep anything from reading and writing them. And it has bubblewrap itself,
as its first process, whose program `/proc/1/exe` leads to: where that is the user's to change, it
is held in the same way, or a copy is what runs. For root, no program of this machine is run for
formats that the kernel does not know itself, to which `exe` would lead as well.

Every program in a jail waits for this interpreter to start, so it imports little: `contextlib` and
`pathlib` would double the time.
"""

from __future__ import annotations

import os
import sys

from . import seccomp

CREATE_RULESET, RESTRICT_SELF = 444, 446  # the same on every architecture
RULESET_VERSION = 1
SCOPES_SINCE = 6  # the version of Landlock, Linux 6.12
SCOPE_ABSTRACT_SOCKETS, SCOPE_SIGNALS = 1, 2
SET_NO_NEW_PRIVS = 38
JOIN_SESSION_KEYRING = 1
# systemd mounts it outside once a program looks here, which root in the jail would not see.
FORMATS = "/proc/sys/fs/binfmt_misc"
DETACH = 2  # MNT_DETACH
DEVICES = [f"/dev/{name}" for name in ("full", "null", "random", "tty", "urandom", "zero")]
NEW_MOUNTS, NEW_USER = 0x20000, 0x10000000  # CLONE_NEWNS, CLONE_NEWUSER
READ_ONLY, NO_SETUID, NO_DEVICES, NO_PROGRAMS, REMOUNT, BIND = 1, 2, 4, 8, 32, 4096
# MS_REC, MS_PRIVATE, MS_SLAVE
DOWN_THE_TREE, NEITHER_WAY, FROM_OUTSIDE_ALONE = 16384, 1 << 18, 1 << 19
EXECUTABLE = 16  # MFD_EXEC, Linux 6.3: without it, the machine may forbid to run the file
# The shell inside the sandbox can close descriptors of one digit only.
GATE, GATE_OPTION = 9, "--gate"
EASY_TO_KILL = "500"  # when memory runs out, the kernel ends the agent first


def has_scopes(program: str) -> bool:
    """Whether abstract sockets and signals of other programs can be kept from `program`."""
    if os.stat(program).st_mode & 0o4000:
        return False  # a scope forbids it to become root, which it needs
    return _call(CREATE_RULESET, None, 0, RULESET_VERSION) >= SCOPES_SINCE


def main() -> None:
    """Become PROGRAM [ARGUMENT]…, sealed as far as the kernel can.

    Of its arguments, `--gate NUMBER` is not bubblewrap's: that descriptor becomes `GATE`.
    """
    words = sys.argv[1:]
    program = words[0]
    try:
        if GATE_OPTION in words[: words.index("--")]:
            place = words.index(GATE_OPTION)
            os.dup2(int(words[place + 1]), GATE)
            os.close(int(words[place + 1]))
            del words[place : place + 2]
        _become_easy_to_kill()
        if os.geteuid() == 0:
            handlers = _handlers_with_files()  # before what systemd mounts then would not show
            _leave_formats(handlers)
            _hold_machine(program)
        _leave_keyring()
        if has_scopes(program):
            _enter_scope()
        if seccomp.is_available():
            words[1:1] = ["--seccomp", str(_filter())]
        os.execve(_to_run(program), words, os.environ)  # noqa: S606 - becoming it is the task
    except OSError as error:
        sys.exit(f"The sandbox cannot be made: {error}")


def _to_run(program: str) -> str | int:
    """The program, or a descriptor of its copy if the user may change it.

    A script cannot be run by a descriptor alone: what it starts is the user's to guard.
    """
    is_owner = os.stat(program).st_uid == os.geteuid()
    is_held = os.statvfs(program).f_flag & READ_ONLY
    if is_held or not (is_owner or os.access(program, os.W_OK)):
        return program
    with open(program, "rb") as file:
        data = file.read()
    return program if data.startswith(b"#!") else sealed_file("bwrap", data, EXECUTABLE)


def sealed_file(name: str, data: bytes, flags: int = 0) -> int:
    """A descriptor of a file in memory whose content nothing can change any more.

    The kernel may not know the `flags` yet, and does without them then. Raises OSError.
    """
    import errno
    import fcntl

    if sys.platform != "linux":
        raise OSError("only Linux seals files in memory")
    usual = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    try:
        descriptor = os.memfd_create(name, usual | flags)
    except OSError as error:
        if not flags or error.errno != errno.EINVAL:
            raise
        descriptor = os.memfd_create(name, usual)
    with open(descriptor, "wb", buffering=0, closefd=False) as file:
        file.write(data)
    seals = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, seals)
    return descriptor


def _become_easy_to_kill() -> None:
    try:
        with open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
            file.write(EASY_TO_KILL)
    except OSError:
        pass  # the kernel has no such file, or not for this process


def _hold_machine(program: str) -> None:
    """See the devices and the program read-only from now on, standard streams included, and of what
    the kernel has mounted in /proc only what is there now: binfmt_misc, once it is, would be root's
    to write to.

    Root in a container without the right to mount has those of the container, and so has one below
    `chroot` where /dev is no mount.
    """
    import ctypes
    import errno
    import stat

    if ctypes.CDLL(None, use_errno=True).unshare(NEW_MOUNTS):
        if _error() != errno.EPERM:
            raise _failure("unshare")
        return
    # Not all mounts: bubblewrap outside sees the others too, and would keep them for the whole run.
    _spread(b"/proc", NEITHER_WAY)
    if not any(_spread(path, FROM_OUTSIDE_ALONE) for path in (b"/", b"/dev")):
        return
    _hold(program, NO_SETUID)
    for path in filter(os.path.exists, DEVICES):
        _hold(path, NO_SETUID | NO_PROGRAMS)
    null = os.stat(os.devnull).st_rdev
    for number in range(3):
        try:
            status = os.fstat(number)
        except OSError:
            continue  # it is closed
        if stat.S_ISCHR(status.st_mode) and status.st_rdev == null:
            again = os.open(os.devnull, os.O_RDWR)
            os.dup2(again, number)
            os.close(again)


def _hold(place: str, flags: int) -> None:
    """See a file read-only from now on, and as `flags` say beside what its mount does."""
    path = os.fsencode(os.path.realpath(place))
    _mount(path, path, BIND)
    kept = os.statvfs(path).f_flag & (READ_ONLY | NO_SETUID | NO_DEVICES | NO_PROGRAMS)
    _mount(path, path, REMOUNT | BIND | READ_ONLY | kept | flags)


def _leave_formats(handlers: str) -> None:
    """Enter a user namespace without the machine's handlers of formats (binfmt_misc, Linux 6.7).

    Where that cannot be, there are to be none of the `handlers`.
    """
    import ctypes

    place = b"/usr"  # any folder: once mounted, they are apart
    try:
        if not _can_nest():
            raise OSError("no user namespace can be made in another one")
        _enter_namespace()
        _mount(place, place, 0, b"binfmt_misc")
    except OSError as error:
        if handlers:
            what = f"handlers of formats give it files of root (binfmt_misc: {handlers})"
            raise OSError(f"{what} before Linux 6.7 or here ({error}): disable them") from None
        return
    if ctypes.CDLL(None, use_errno=True).umount2(place, DETACH):
        raise _failure("umount2")


def _can_nest() -> bool:
    """Whether three user namespaces can be made, each in the one before: ours, bubblewrap's, and
    one with which that forbids any more. Hardened kernels allow the first alone."""
    pid = os.fork()
    if not pid:
        try:
            for _ in range(3):
                _enter_namespace()
            os._exit(0)
        finally:
            os._exit(1)
    return os.waitpid(pid, 0)[1] == 0


def _enter_namespace() -> None:
    """Enter a new namespace of users, this one alone, and one of mounts. Raises OSError."""
    import ctypes

    user, group = os.geteuid(), os.getegid()
    if ctypes.CDLL(None, use_errno=True).unshare(NEW_USER | NEW_MOUNTS):
        raise _failure("unshare")
    lines = {"uid_map": f"{user} {user} 1", "setgroups": "deny", "gid_map": f"{group} {group} 1"}
    for name, text in lines.items():
        with open(f"/proc/self/{name}", "w", encoding="ascii") as file:
            file.write(text)


def _handlers_with_files() -> str:
    """The names of the handlers of formats whose interpreter the kernel keeps open (flag F), on a
    mount that can be written to."""
    found = []
    try:
        names = os.listdir(FORMATS)
    except OSError:
        names = []  # there are none, or systemd would mount them elsewhere
    for name in names:
        try:
            with open(f"{FORMATS}/{name}", encoding="utf-8", errors="replace") as file:
                lines = file.read().splitlines()
        except OSError:
            continue
        is_enabled = lines[:1] == ["enabled"]
        if is_enabled and any(line.startswith("flags:") and "F" in line[6:] for line in lines):
            found.append(name)
    return ", ".join(found)


def _spread(path: bytes, how: int) -> bool:
    """Have later mounts below `path` show elsewhere as `how` says; False if it is no mount."""
    import errno

    try:
        _mount(path, path, how | DOWN_THE_TREE)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return False
    return True


def _mount(source: bytes, target: bytes, flags: int, kind: bytes | None = None) -> None:
    import ctypes

    if ctypes.CDLL(None, use_errno=True).mount(source, target, kind, ctypes.c_ulong(flags), None):
        raise _failure("mount")


def _leave_keyring() -> None:
    """Enter an empty session keyring. A kernel that knows none has no keys to protect."""
    import errno

    number = seccomp.keyctl()
    if number is None or _call(number, JOIN_SESSION_KEYRING, None) >= 0:
        return
    # Containers forbid the call, for what is inside the sandbox too.
    if _error() not in (errno.ENOSYS, errno.EPERM):
        raise _failure("keyctl")


def _enter_scope() -> None:
    import ctypes
    import struct

    # No file and no port is restricted by it: the mounts of the jail do that.
    attributes = struct.pack("QQQ", 0, 0, SCOPE_ABSTRACT_SOCKETS | SCOPE_SIGNALS)
    ruleset = _call(CREATE_RULESET, attributes, len(attributes), 0)
    if ruleset < 0:
        raise _failure("landlock_create_ruleset")
    if ctypes.CDLL(None, use_errno=True).prctl(SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        raise _failure("prctl")
    if _call(RESTRICT_SELF, ruleset, 0):
        raise _failure("landlock_restrict_self")
    os.close(ruleset)


def _filter() -> int:
    """A descriptor from which bubblewrap reads the filter, and which it closes.

    bubblewrap enters it last, so it may be one that has to become root.
    """
    read, write = os.pipe()
    os.write(write, seccomp.program())  # less than what fits into any pipe
    os.close(write)
    os.set_inheritable(read, True)
    return read


def _call(number: int, *arguments: int | bytes | None) -> int:
    import ctypes

    syscall = ctypes.CDLL(None, use_errno=True).syscall
    syscall.restype = ctypes.c_long
    words = [ctypes.c_long(one) if isinstance(one, int) else one for one in (number, *arguments)]
    return int(syscall(*words))


def _error() -> int:
    import ctypes

    return ctypes.get_errno()


def _failure(call: str) -> OSError:
    return OSError(_error(), f"{call}: {os.strerror(_error())}")
