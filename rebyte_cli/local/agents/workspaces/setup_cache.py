"""Folders that a setup fills, such as `.venv`, kept for the next workspace of the repository.

Each entry has what the setup left at one commit, before any agent began. It is never written to
again: a workspace gets a copy, in which the agent may do what it likes. An entry is used only for
commits that come after its own, so that what a branch puts there reaches no other one unless it
was merged. Copies are made in the jail: what is copied may be full of links.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import stat
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePosixPath

from ....system import git
from ....system.files import flocked
from ....system.permissions import make_folder
from .. import agent_files
from ..exposed import Mount
from ..sandbox import jail
from ..sandbox.jailed_program import JailedProgram
from . import tryout
from .workspace_folder import SYNCED, Workspace, disk_usage

FOLDER = "setup-caches"  # of the state folder: for each setup a folder, in it one for each commit
FILES = "files"  # of an entry: the folders by their number
INSIDE = "/cache"
MOST_ENTRIES = 3  # of one setup
UNUSED_SECONDS = 30 * 86400.0
COPY_SECONDS = 900.0
_COMMIT = re.compile("[0-9a-f]{40,64}")
_REFLINK = "flag=; ! cp --reflink=auto --version >/dev/null 2>&1 || flag=--reflink=auto; number=0\n"
# Their arguments are the folders.
TAKE = f"""set -e; {_REFLINK}
for name; do
    if [ -d "{INSIDE}/$number" ]; then
        mkdir -p "$(dirname "./$name")"
        cp -a $flag -T "{INSIDE}/$number" "./$name"
    fi
    number=$((number + 1))
done
"""
KEEP = f"""set -e; {_REFLINK}
for name; do
    if [ -n "$name" ]; then cp -a $flag -T "./$name" "{INSIDE}/$number"; fi
    number=$((number + 1))
done
sync -f "{INSIDE}"
"""


class CacheFailed(Exception):
    """A copy could not be made; the text says why."""


class SetupCache:
    """What is kept for one setup of one repository, and a workspace that uses it.

    `held` and `problem` are as in `tryout.run_setup`.
    """

    def __init__(
        self,
        workspace: Workspace,
        key: tuple[str, str, Sequence[str]],
        *,
        held: Callable[[bool], None],
        problem: Callable[[], str],
    ) -> None:
        """`key`: the repository as `trust.key_of` names it, the setup, and the folders to keep."""
        repository, setup, names = key
        text = json.dumps([repository, setup, [*names]]).encode()
        self._folder = workspace.state_dir / FOLDER / hashlib.sha256(text).hexdigest()[:24]
        self._workspace = workspace
        self._held = held
        self._problem = problem
        self._commit = workspace.started_from()
        self._taken: Path | None = None
        self.own = [name for name in names if self._is_tracked(name)]
        self.names = [name.rstrip("/") for name in names if name not in self.own]

    def take(self) -> str:
        """Copy the newest entry that fits into the workspace; its commit, or an empty text.

        What is in the way there, from a setup that did not end, is removed. Raises CacheFailed,
        GitFailed and OSError; nothing is left of a copy that failed.
        """
        self._clear()
        base = self._workspace.base
        for entry in self._entries():
            if not git.is_ancestor(base, entry.name, self._commit, git.bare(base)):
                continue
            with contextlib.suppress(FileNotFoundError), flocked(entry, shared=True):
                mount = Mount(entry / FILES, INSIDE)
                try:
                    self._copy(TAKE, self.names, readable=[mount])
                except BaseException:
                    self._clear()
                    raise
                os.utime(entry)
                self._taken = entry
                return entry.name
        return ""

    def keep(self) -> None:
        """Keep what the setup has left, unless an entry has it already.

        What another commit's setup left, before this one was synced, may be among it: nothing of
        that is kept. Raises CacheFailed, GitFailed and OSError; nothing is left of a copy that
        failed.
        """
        base = self._workspace.base
        if git.has(base, SYNCED, git.bare(base)):
            return
        names = [name if self._is_plain(name) else "" for name in self.names]
        if not any(names) or (self._taken is not None and self._is_same(self._taken, names)):
            return
        sweep(self._folder)
        make_folder(self._folder)
        making = Path(tempfile.mkdtemp(prefix="new-", dir=self._folder))
        try:
            with flocked(making):
                (making / FILES).mkdir(mode=0o700)
                mount = Mount(making / FILES, INSIDE)
                self._copy(KEEP, names, writable=[mount])
                self._put(making)
        finally:
            agent_files.remove_tree(making)
        for entry in list(self._entries())[MOST_ENTRIES:]:
            _remove(entry)

    def _put(self, making: Path) -> None:
        """Make an entry of a whole copy, in one step; another run's of the same commit stays."""
        entry = self._folder / self._commit
        if entry.exists() and entry == self._taken:
            _remove(entry)
        with contextlib.suppress(OSError):  # it is there, and not empty
            os.rename(making, entry)

    def _entries(self) -> Iterator[Path]:
        """Those of this setup, the last used first."""
        found = []
        for path in self._folder.glob("*"):
            with contextlib.suppress(OSError):
                if _COMMIT.fullmatch(path.name):
                    found.append((path.stat().st_mtime, path))
        return (path for _, path in sorted(found, reverse=True))

    def _is_tracked(self, name: str) -> bool:
        """Whether the repository itself has something there, or a file or a link above it."""
        base = ["--git-dir", str(self._workspace.base), "--literal-pathspecs"]
        name = name.rstrip("/")
        above = [str(each) for each in PurePosixPath(name).parents][:-1]
        listed = git.run([*base, "ls-tree", "-z", "refs/heads/base", "--", name, *above])
        return any(
            not entry.startswith(b"040000 ") or os.fsdecode(entry).endswith(f"\t{name}")
            for entry in listed.split(b"\0")[:-1]
        )

    def _is_plain(self, name: str) -> bool:
        """Whether there is a folder in the workspace, and no link on the way to it."""
        place = self._workspace.code
        for part in PurePosixPath(name).parts:
            place = place / part
            try:
                if not stat.S_ISDIR(place.lstat().st_mode):
                    return False
            except OSError:
                return False
        return True

    def _is_same(self, entry: Path, names: Sequence[str]) -> bool:
        try:
            return all(
                _are_same(
                    self._workspace.code / name if name else None, entry / FILES / str(number)
                )
                for number, name in enumerate(names)
            )
        except OSError:
            return False

    def _clear(self) -> None:
        for name in self.names:
            agent_files.remove(self._workspace.code, name)

    def _copy(
        self,
        script: str,
        names: Sequence[str],
        *,
        readable: Sequence[Mount] = (),
        writable: Sequence[Mount] = (),
    ) -> None:
        layout = jail.layout_of(self._workspace.folder, jailed=True)
        words = ["sh", "-c", script, "sh", *names]
        line = jail.command(layout, words, readable=readable, writable=writable)
        program = JailedProgram(layout, line, jail.environment(layout, os.environ))
        with tempfile.NamedTemporaryFile(buffering=0) as log:
            end = tryout.until_end(program, log, COPY_SECONDS, self._problem, self._held)
            if end.status:
                said = tryout.last_lines(Path(log.name), lines=1, characters=300)
                raise CacheFailed(end.reason or said or f"cp exited with status {end.status}")


def _listed(path: str) -> tuple[object, ...]:
    """What is compared of a file, a link or a folder."""
    status = os.lstat(path)
    if stat.S_ISDIR(status.st_mode):
        return (status.st_mode,)
    target = os.readlink(path) if stat.S_ISLNK(status.st_mode) else ""
    return status.st_mode, status.st_size, status.st_mtime_ns, target


def _are_same(folder: Path | None, other: Path) -> bool:
    """Whether the same is below two folders, but for the content of files. Raises OSError.

    Below one that is missing is nothing.
    """
    left = sum(1 for _ in agent_files.walk(other)) if other.is_dir() else 0
    if folder is not None and folder.is_dir():
        for entry in agent_files.walk(folder):
            if _listed(entry.path) != _listed(f"{other}{entry.path[len(str(folder)) :]}"):
                return False
            left -= 1
    return left == 0


def sweep(folder: Path) -> None:
    """Remove what copies that were killed have left in a folder of entries, and what is old."""
    for path in folder.glob("*"):
        with contextlib.suppress(OSError):
            is_entry = _COMMIT.fullmatch(path.name)
            if not is_entry or time.time() - path.stat().st_mtime > UNUSED_SECONDS:
                _remove(path)


def _remove(path: Path) -> None:
    """Remove an entry, unless it is being copied at this moment."""
    with contextlib.suppress(OSError), flocked(path, wait=False):
        aside = path.with_name(f"old-{os.urandom(8).hex()}")
        path.rename(aside)
        agent_files.remove_tree(aside)


def size(state_dir: Path) -> int:
    """The bytes on disk of everything that is kept."""
    return disk_usage(state_dir / FOLDER)


def empty_cache(state_dir: Path) -> int:
    """Remove everything that is kept and that no run copies at this moment; the bytes freed."""
    before = size(state_dir)
    for folder in (state_dir / FOLDER).glob("*"):
        for path in folder.glob("*"):
            _remove(path)
        with contextlib.suppress(OSError):
            folder.rmdir()
    return before - size(state_dir)
