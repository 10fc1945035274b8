"""`make bare`: the README's two commands, and `make check`, on a minimal Debian.

`python -m tests.bare [SUITE…]` (default: trixie) builds the smallest root file system that has what
the README asks for, and runs them in copies of it. Everything happens in a temporary folder, in
mount and process namespaces that end with it; `.bare-cache/` keeps the root for a week.
"""

from __future__ import annotations

import os
import re
import resource
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

from tests import surroundings

ROOT = Path(__file__).parents[1]
CACHE = ROOT / ".bare-cache"
PACKAGES = ("python3-venv", "git", "make", "ca-certificates")  # as the README says
WEEK = 7 * 24 * 3600

PYTEST = ".venv/bin/python -m pytest"
# As in the Makefile: what failed on a busy machine runs once more, alone.
ALONE = f"|| {PYTEST} --last-failed --last-failed-no-failures none --maxfail 3"
FULL = ("make demo", f"make test {ALONE}", "make check")
# The files whose outcome depends on programs or on the user: the rest of the suite would only show
# once more what it shows in the other machines.
DEPENDING = re.compile(r"need_(tool|jail)|keyring_daemon|node_tools|Shell\(|get(e|r)?uid")
OWN_TARGETS = ("agents", "browser", "fuzz", "site")


def depending() -> list[str]:
    """The files of `DEPENDING`."""
    return [
        str(path.relative_to(ROOT))
        for path in sorted((ROOT / "tests").rglob("test_*.py"))
        if DEPENDING.search(path.read_text(encoding="utf-8"))
        and path.relative_to(ROOT).parts[1] not in OWN_TARGETS
    ]


REDUCED = ("make demo", f"{PYTEST} -m 'not slow' -n 9 {' '.join(depending())} {ALONE}")


class Machine(NamedTuple):
    """Who runs which commands, and whether every optional tool is broken or missing."""

    user: str
    broken: bool
    commands: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.user}, tools {'broken' if self.broken else 'missing'}"


# Each user and each state of the tools has all commands once, in a new root; the other two use what
# that user has set up there. All four in full would take twice as long.
MACHINES = (
    Machine("root", False, FULL),
    Machine("root", True, REDUCED),
    Machine("dev", True, FULL),
    Machine("dev", False, REDUCED),
)

# Programs that tests use when they are there, and how they fail in a machine with broken ones.
FAILING = (
    *("chromedriver", "chromium", "cron", "curl", "dbus-daemon", "faketime", "fish", "fzf"),
    *("gnome-keyring-daemon", "jq", "less", "man", "mandoc", "parallel", "ps", "rsync", "script"),
    *(
        "shellcheck",
        "slurmctld",
        "slurmd",
        "ssh",
        "ssh-keygen",
        "sshd",
        "systemd-run",
        "tmux",
        "zsh",
    ),
)
# Those that answer `--version`, and do no more than that.
USELESS = {
    "bwrap": "bwrap: No permissions to create a new namespace",
    "node": "node: cannot run",
    "npm": "npm error network: no registry can be reached",
}
# What the tests must not start at all.
TRAPS = (*("claude", "codex", "gemini", "opencode", "gpg", "secret-tool", "vi", "xdg-open"),)

# The mounts that a program expects. They end with the namespace, as every process in it does: this
# shell stays its first process, since one that becomes another user outlives its parent.
ENTER = """
set -e
root=$1; shift
mount -t proc proc "$root/proc"
mount -t tmpfs -o mode=755 tmpfs "$root/dev"
for name in null zero full random urandom tty; do
  touch "$root/dev/$name"
  mount --bind "/dev/$name" "$root/dev/$name"
done
mkdir "$root/dev/pts" "$root/dev/shm"
chmod 1777 "$root/dev/shm"
mount -t devpts -o newinstance,ptmxmode=0666,mode=0620 devpts "$root/dev/pts"
ln -s pts/ptmx "$root/dev/ptmx"
ln -s /proc/self/fd "$root/dev/fd"
for number in 0 1 2; do
  name=$(echo stdin stdout stderr | cut -d' ' -f$((number + 1)))
  ln -s "/proc/self/fd/$number" "$root/dev/$name"
done
chroot "$root" "$@"
exit $?
"""
ENDS_WITH_US = ("setpriv", "--pdeathsig", "KILL")
NAMESPACES = (*ENDS_WITH_US, "unshare", "--mount", "--pid", "--fork", "--kill-child")


def main(suites: list[str]) -> int:
    """Run every machine of every suite, and say which command failed where."""
    lack = missing()
    if lack is not None:
        failing = os.environ.get("CI") == "true"
        print(f"make bare: {'FAILED' if failing else 'skipped'}, {lack}", file=sys.stderr)
        return int(failing)
    lines: list[str] = []
    for suite in suites or ["trixie"]:
        image = built(suite)
        for user, machines in groupby(MACHINES, lambda machine: machine.user):
            with unpacked(image) as root:
                touched = prepare(root, user)
                for machine in machines:
                    lines += (f"{suite}, {line}" for line in run(machine, root, touched))
    print("", *lines, sep="\n")
    return int(any("FAILED" in line for line in lines))


def missing() -> str | None:
    """What this machine lacks for it; None if nothing."""
    if not sys.platform.startswith("linux") or os.geteuid() != 0:
        return "it needs Linux and root: sudo make bare"
    for program in ("mmdebstrap", "unshare", "chroot", "tar"):
        if shutil.which(program) is None:
            return f"{program} is not installed: apt install mmdebstrap"
    tried = subprocess.run([*NAMESPACES, "true"], capture_output=True, text=True, check=False)
    return tried.stderr.strip() or None


def built(suite: str) -> Path:
    """The archive of a minimal root with `PACKAGES`."""
    image = CACHE / f"{suite}.tar"
    if not image.exists() or time.time() - image.stat().st_mtime > WEEK:
        CACHE.mkdir(exist_ok=True)
        part = image.with_suffix(".part")
        include = f"--include={','.join(PACKAGES)}"
        options = ["--quiet", "--variant=minbase", "--format=tar", include]
        subprocess.run(["mmdebstrap", *options, suite, part], check=True)
        part.replace(image)
    return image


def run(machine: Machine, root: Path, touched: Path) -> Iterator[str]:
    """What to say of each command: the time that it took, and what was wrong."""
    for name, script in broken_tools().items():
        tool = root / "usr/local/bin" / name
        tool.unlink(missing_ok=True)
        if machine.broken:
            tool.write_text(f"#!/bin/sh\n{script}\n")
            tool.chmod(0o755)
    for command in machine.commands:
        print(f"\n=== {machine}: {command}", flush=True)
        began, used = time.monotonic(), cpu_seconds()
        status = enter(root, machine.user, command)
        took = f"{time.monotonic() - began:.0f} s, {cpu_seconds() - used:.0f} s of CPU time"
        problem = f" FAILED: status {status}" if status else ""
        if touched.stat().st_size:
            problem = f" FAILED: it started {touched.read_text()}"
            touched.write_text("")
        yield f"{machine}: {' '.join(command.split()[:3])}: {took}{problem}"


def cpu_seconds() -> float:
    """What the commands that have ended so far have used."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


@contextmanager
def unpacked(image: Path) -> Iterator[Path]:
    """A folder with the root in it, for as long as the block lasts."""
    with tempfile.TemporaryDirectory(prefix="rebyte-bare.") as folder:
        root = Path(folder) / "root"
        root.mkdir()
        subprocess.run(["tar", "-xf", image, "-C", root], check=True)
        yield root


def prepare(root: Path, user: str) -> Path:
    """Add names, and a user with the checkout; the file that traps write to."""
    for name in ("hosts", "resolv.conf"):
        shutil.copy(f"/etc/{name}", root / "etc" / name)
    touched = root / "touched"
    touched.touch()
    touched.chmod(0o666)
    enter(root, "root", "useradd --create-home --shell /bin/bash dev")
    folder = root / home(user).lstrip("/") / "rebyte"
    copy_checkout(folder)
    as_git = "git -c user.name=x -c user.email=x@example.com"
    commit = f"git init -q -b main && git add -A && {as_git} commit -qm x"
    enter(root, "root", f"chown -R {user}: {home(user)}", cwd="/")
    enter(root, user, commit)
    return touched


def broken_tools() -> dict[str, str]:
    """A shell script for every optional tool, none of which works."""
    scripts = {name: f"echo '{name}: broken' >&2; exit 1" for name in FAILING}
    for name, message in USELESS.items():
        scripts[name] = f"[ \"$1\" = --version ] && echo 99.0 && exit; echo '{message}' >&2; exit 1"
    for name in TRAPS:
        scripts[name] = 'echo "$0 $*" >> /touched; exit 1'
    return scripts


def copy_checkout(folder: Path) -> None:
    """The files of this checkout as they are now, without what git ignores."""
    # In a container the checkout may belong to another user.
    git = ["git", "-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others"]
    listed = subprocess.run(
        [*git, "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    for name in filter(None, listed.split("\0")):
        source, target = ROOT / name, folder / name
        if source.is_symlink() or source.exists():  # not deleted
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target, follow_symlinks=False)


def enter(root: Path, user: str, command: str, cwd: str | None = None) -> int:
    """Run a command in the root as a user, by default in the checkout; its exit status."""
    variables = {
        "HOME": home(user),
        "LANG": "C.UTF-8",
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        **for_downloads(root),
    }
    become = ["setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups"]
    line = f"cd {shlex.quote(cwd or f'{home(user)}/rebyte')} 2>/dev/null || cd /; {command}"
    words = [*become, "env", "-i", *(f"{name}={text}" for name, text in variables.items())]
    inside = [*NAMESPACES, "sh", "-c", ENTER, "sh", str(root), *words, "sh", "-c", line]
    return subprocess.run(inside, stdin=subprocess.DEVNULL, check=False).returncode


def home(user: str) -> str:
    """The home of a user in the root."""
    return "/root" if user == "root" else f"/home/{user}"


def for_downloads(root: Path) -> dict[str, str]:
    """Variables with which pip reaches its index; the files that they name are copied along."""
    found = {}
    for name, text in surroundings.for_downloads().items():
        if not os.path.isabs(text):
            found[name] = text
        elif os.path.isfile(text):  # not a folder, which is of this machine alone
            found[name] = f"/etc/{name.lower()}"  # where every user may read it
            shutil.copyfile(text, f"{root}{found[name]}")
    return found


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # cleaning up, as after Ctrl-C
    sys.exit(main(sys.argv[1:]))
