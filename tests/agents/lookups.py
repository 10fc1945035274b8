"""Which names an agent looks for in the repository while it starts, as strace sees it in the jail.

strace takes the place of bubblewrap: it becomes bubblewrap, and a process beside it writes down
each call with a path, of all that the jail starts.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from .conftest import eventually, write

CODE = "/code"  # in the jail
OPTIONS = "--daemonize=pgroup --follow-forks --quiet=all --decode-fds=path --decode-pids=comm"
CALL = re.compile(r"(\d+)<(.*?)> +(\w+)\((.*)")
# A path behind the folder that it begins in, as strace decodes that, or a path alone.
PATH = re.compile(r'(?:(?:AT_FDCWD|\d+)<(/[^>]*)>, )?"((?:[^"\\]|\\.)*)"')
OPENING = ("execve", "open", "openat", "openat2")
LOOKING = (*OPENING, "access", "faccessat", "faccessat2", "inotify_add_watch", "lstat")
LOOKING += ("newfstatat", "readlink", "readlinkat", "stat", "statx")
# Programs and threads that read all files, whatever they are: git, and an index of OpenCode.
WALKERS = ("git", "fff-scan")


class Trace:
    """Has the jails of agents traced, which show their programs in `node_modules`.

    `path` is the PATH to start them with.
    """

    def __init__(self, folder: Path) -> None:
        bwrap, shim = shutil.which("bwrap"), folder / "bin/bwrap"
        self._folder = folder
        write(
            shim,
            f"""#!/bin/sh
case "$*" in
  *node_modules*) exec strace {OPTIONS} --trace=%file -s 4096 -o {folder}/$$.trace {bwrap} "$@" ;;
  *) exec {bwrap} "$@" ;;
esac
""",
        )
        shim.chmod(0o755)
        self.path = f"{shim.parent}:{os.environ['PATH']}"

    def names(self, known: Iterable[str]) -> set[str]:
        """Names in the code that were opened, and those that were looked for and not there.

        `known` are the files and folders of the code. What git looked for is left out.
        """
        known, found = set(known), set()
        folders = {"."}.union(*(map(str, PurePosixPath(name).parents) for name in known))
        for trace in self._folder.glob("*.trace"):
            for call, path in _paths(_whole(trace)):
                name = os.path.relpath(path, CODE)
                if name.startswith("..") or name in folders:
                    continue
                if name not in known or call in OPENING:
                    found.add(name)
        return found


def _whole(trace: Path) -> list[str]:
    """The lines of a trace, once the tracer has ended, which is soon after the jail."""
    eventually(lambda: not _is_open(trace))
    return trace.read_text(errors="replace").splitlines()


def _is_open(path: Path) -> bool:
    """Whether a process has the file open."""
    for descriptor in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            if descriptor.resolve(strict=True) == path.resolve():
                return True
        except OSError:  # it was closed meanwhile
            continue
    return False


def _paths(lines: list[str]) -> Iterable[tuple[str, str]]:
    """Each call of the agent and of what it starts, with its path."""
    programs: dict[str, str] = {}
    has_begun = False
    for found in filter(None, map(CALL.match, lines)):
        process, thread, call, rest = found.groups()
        path = PATH.search(rest)
        if path is None or call not in LOOKING:
            continue
        folder, name = path.groups()
        if call == "execve":
            # The first program is bubblewrap, which makes the jail before it starts the next one.
            has_begun, programs[process] = bool(programs), os.path.basename(name)
        # `ps` takes the name of a descriptor, such as `socket:[1]`, for that of a file.
        if has_begun and programs.get(process, thread) not in WALKERS and ":[" not in name:
            yield call, os.path.normpath(os.path.join(folder or CODE, name))
