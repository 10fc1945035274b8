"""The jail: bubblewrap shows an agent the system read-only, its workspace, and nothing else.

The agents' own permission switches are no boundary: a repository's plugin or MCP server runs
before the model says a word. There is no network but what a run's egress (see egress.py) lets
through.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from ....system import python_process
from ....system.clock import kernel_text
from ..exposed import PROXY_VARIABLES, SHARED_VARIABLES, Mount
from ..sources import lenders
from . import seal, seccomp

CODE = "/code"
HOME = "/home/agent"
PROBE_SECONDS = 10
NO_SANDBOX = 'To run it without one: create --no-jail, or jail = "off" in [local] of config.toml'
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# What names, TLS and the dynamic linker need of /etc. Of certificates' folders, those without keys.
ETC = (
    "alternatives", "ca-certificates", "crypto-policies", "group", "host.conf", "hosts",
    "ld.so.cache", "ld.so.conf", "ld.so.conf.d", "localtime", "mime.types", "nsswitch.conf",
    "os-release", "passwd", "pki/ca-trust", "pki/java", "pki/tls/cert.pem", "pki/tls/certs",
    "pki/tls/fips_local.cnf", "pki/tls/openssl.cnf", "pki/tls/openssl.d", "protocols",
    "resolv.conf", "services", "ssl/cert.pem", "ssl/certs", "ssl/openssl.cnf", "timezone",
)  # fmt: skip
# Of /proc, what belongs to the machine: root owns it, and needs no capability to write to its own.
# bubblewrap covers only folders of it that can themselves be written to.
MACHINE = ("acpi", "asound", "driver", "fs", "mtrr", "pressure", "scsi", "sys", "sysrq-trigger")

# Files of /proc about the kernel's memory and the user's keys, some of which root may read.
SECRET = (
    "iomem", "kallsyms", "kcore", "key-users", "keys", "kmsg", "kpagecgroup", "kpagecount",
    "kpageflags", "pagetypeinfo", "slabinfo", "timer_list", "vmallocinfo",
)  # fmt: skip

# More than a build on a large machine needs, and few enough to survive a fork bomb.
PROCESSES = 4096
# Run inside the jail before the agent. No core dump puts its key into the workspace. Processes are
# counted as the kernel does it: not root's, and before Linux 5.14 those outside the jail, too.
LIMITS = (
    f'{{ ulimit -c 0; ulimit -u {PROCESSES} || ulimit -p {PROCESSES}; }} 2>/dev/null; exec "$@"'
)
# What `setsid -c` does, for a process that leads its session.
CONTROLLED = (
    "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0);"
    " os.execvp(sys.argv[1], sys.argv[1:])"
)


class JailLayout(NamedTuple):
    """Where an agent works: its folders, and whether a jail holds it."""

    code: Mount
    home: Mount
    jailed: bool
    borrowed: tuple[Path, ...] = ()  # what git in the code reads elsewhere, at the same paths


class JailCheck(NamedTuple):
    """Whether jails work on this machine; otherwise why not, and a remedy if there is one."""

    works: bool
    reason: str = ""
    fix: str = ""


def layout_of(workspace: Path, *, jailed: bool) -> JailLayout:
    """The folders of a workspace as its agent sees them."""
    code, home = workspace / "code", workspace / "home"
    if jailed:
        borrowed = lenders.shown(workspace / "base.git")
        return JailLayout(Mount(code, CODE), Mount(home, HOME), True, tuple(borrowed))
    return JailLayout(Mount(code, str(code)), Mount(home, str(home)), False)


def command(
    layout: JailLayout,
    words: list[str],
    *,
    needs: Iterable[str] = (),
    readable: Iterable[Mount] = (),
    writable: Iterable[Mount] = (),
    more: Iterable[str] = (),
    hidden: Iterable[str] = (),
    blank: Mapping[str, Path] | None = None,
    network: bool = False,
    terminal: bool = False,
) -> list[str]:
    """The command line that runs `words` in the jail, or `words` alone when there is none.

    `needs` are further paths to show read-only, `readable` and `writable` further folders to share,
    `more` further arguments of bubblewrap, `hidden` folders of the code that exist and appear to be
    empty, `blank` files of it that exist, or new ones elsewhere, with the file that each appears to
    be. Without `network` there is only loopback. With `terminal`, standard input, a terminal of no
    other session, controls `words` alone: Ctrl-C must not reach bubblewrap.
    """
    if not layout.jailed:
        return [sys.executable, "-I", "-S", "-c", CONTROLLED, *words] if terminal else words
    line = [*_base(), "--dir", "/home", "--dir", HOME]
    if not network:
        line.append("--unshare-net")
    for path in needs:
        line += ["--ro-bind-try", path, path]
    for place in readable:
        line += ["--ro-bind", str(place.outside), place.inside]
    for place in (layout.home, layout.code, *writable):
        line += ["--bind", str(place.outside), place.inside]
    for folder in layout.borrowed:
        line += ["--ro-bind-try", str(folder), str(folder)]
    line += more
    for name in hidden:
        inside = f"{layout.code.inside}/{name}"
        line += ["--tmpfs", inside, "--remount-ro", inside]
    for name, file in (blank or {}).items():
        line += ["--ro-bind", str(file), os.path.join(layout.code.inside, name)]
    line += ["--chdir", layout.code.inside, "--"]
    session = ["setsid", "-c"] if terminal else []
    return [*line, "sh", "-c", LIMITS, "sh", *session, *words]


def environment(
    layout: JailLayout,
    outside: Mapping[str, str],
    folders: Iterable[str] = (),
    *,
    network: bool = False,
) -> dict[str, str]:
    """The environment of every program in the jail: an allow-list of `outside`.

    Without the `network` of this machine, it needs no proxy, whose password would be readable.
    """
    withheld = PROXY_VARIABLES if layout.jailed and not network else ()
    names = (name for name in SHARED_VARIABLES if name not in withheld)
    result = {name: outside[name] for name in names if name in outside}
    path = SYSTEM_PATH if layout.jailed else outside.get("PATH", SYSTEM_PATH)
    result["PATH"] = ":".join([*folders, path])
    result["HOME"] = layout.home.inside
    return result


def probe(cache: Path | None) -> JailCheck:
    """Try whether a jail can be made. What worked once is remembered in the file `cache`."""
    if not sys.platform.startswith("linux"):
        return JailCheck(False, "bubblewrap runs on Linux only")
    program = bubblewrap()
    if program is None:
        return JailCheck(False, "bubblewrap is not installed", "Install it: apt install bubblewrap")
    mark = [program, os.stat(program).st_mtime, os.uname().release, os.getuid()]
    try:
        if cache is not None and json.loads(cache.read_text(encoding="utf-8")) == mark:
            return JailCheck(True)
    except (OSError, ValueError):
        pass  # nothing remembered
    check = _try()
    if check.works and cache is not None:
        cache.write_text(json.dumps(mark), encoding="utf-8")
    return check


def bubblewrap() -> str | None:
    """The path of bubblewrap's program; None when it is not installed."""
    return shutil.which("bwrap")


@functools.cache
def no_nested_namespaces(program: str) -> bool:
    """Whether this bubblewrap, here, can forbid user namespaces inside."""
    return succeeds([program, "--unshare-user", "--disable-userns", "--ro-bind", "/", "/", "true"])


def succeeds(words: list[str], seconds: float = PROBE_SECONDS) -> bool:
    """Whether a command of bubblewrap that tries what it can do here ends well, and in time."""
    words = [words[0], "--die-with-parent", *words[1:]]
    try:
        done = subprocess.run(words, capture_output=True, timeout=seconds, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def gaps(*, network: bool) -> str:
    """What a jail on this machine leaves open because a part is too old; empty for nothing.

    `network`: it shares that of this machine, and abstract sockets belong to it.
    """
    program, found = bubblewrap(), []
    if network and program is not None and not seal.has_scopes(program):
        found.append(
            "abstract Unix sockets of your other programs can be reached"
            " (needs Linux 6.12 with Landlock)"
        )
    if program is not None and not seccomp.is_available():
        found.append(
            "the kernel's keyrings of your logins can be read and changed, and sockets of any"
            " family opened (needs seccomp and a common 64-bit architecture)"
        )
    if program is not None and not no_nested_namespaces(program):
        found.append("programs inside can make user namespaces (needs bubblewrap 0.8)")
    return "; ".join(found)


def _try() -> JailCheck:
    words = ["/bin/sh", "-c", ":"]
    try:
        done = subprocess.run(
            [*_base(), "--unshare-net", "--", *words],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=PROBE_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return JailCheck(False, f"bubblewrap does not start: {error}", "Check `bwrap --version`")
    if done.returncode == 0:
        return JailCheck(True)
    reason = done.stderr.strip().splitlines()[-1:] or [f"status {done.returncode}"]
    return JailCheck(False, f"bubblewrap cannot make a sandbox: {reason[0]}", _fix())


def _fix() -> str:
    """What makes user namespaces work here, as far as the kernel tells what stops them."""
    if kernel_text("/proc/sys/kernel/apparmor_restrict_unprivileged_userns").strip() == "1":
        return (
            "AppArmor restricts user namespaces: allow them for bwrap with a profile in"
            " /etc/apparmor.d, or for all with"
            " `sudo sysctl kernel.apparmor_restrict_unprivileged_userns=0`"
        )
    if kernel_text("/proc/sys/kernel/unprivileged_userns_clone").strip() == "0":
        return "Allow user namespaces: `sudo sysctl kernel.unprivileged_userns_clone=1`"
    if kernel_text("/proc/sys/user/max_user_namespaces").strip() == "0":
        return "Allow user namespaces: `sudo sysctl user.max_user_namespaces=10000`"
    return (
        "In a container, start it with user namespaces allowed, or use the container as the sandbox"
    )


def _base() -> list[str]:
    """bubblewrap with the system's folders, private /tmp, /proc and /dev, and no capabilities."""
    program = bubblewrap() or "bwrap"
    line = python_process.command(seal.__name__, program)
    # A signal to a process group crosses the border of PID namespaces: that of bubblewrap outside,
    # to which the guard belongs, is to be another one than that of any process inside.
    line += ["--new-session", "--die-with-parent", "--unshare-user", "--unshare-pid"]
    line += ["--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try", "--cap-drop", "ALL"]
    if no_nested_namespaces(program):
        line.append("--disable-userns")
    line += ["--ro-bind", "/usr", "/usr"]
    for name in ("bin", "sbin", "lib", "lib32", "lib64"):
        path = f"/{name}"
        if os.path.islink(path):
            line += ["--symlink", os.readlink(path), path]
        else:
            line += ["--ro-bind-try", path, path]
    for path in ("/nix/store", "/gnu/store"):
        line += ["--ro-bind-try", path, path]
    line += ["--dir", "/etc", "--dir", "/var", "--symlink", "../tmp", "/var/tmp"]  # noqa: S108
    for name in ETC:
        # resolv.conf is often a link into /run, which the jail does not show.
        path = f"/etc/{name}"
        line += ["--ro-bind-try", os.path.realpath(path), path]
    line += ["--proc", "/proc"]
    for name in MACHINE:
        line += ["--ro-bind-try", f"/proc/{name}", f"/proc/{name}"]
    for name in SECRET:
        if os.path.exists(f"/proc/{name}"):
            line += ["--ro-bind", os.devnull, f"/proc/{name}"]  # a device, which cannot be opened
    if os.geteuid() == 0:  # the owner of all that is left there, whose modes are the machine's
        line += ["--remount-ro", "/proc"]
        if os.path.isdir(seal.FORMATS):
            line += ["--tmpfs", seal.FORMATS, "--remount-ro", seal.FORMATS]
    return [*line, "--dev", "/dev", "--tmpfs", "/tmp", "--tmpfs", "/run"]  # noqa: S108 - the jail's own
