"""Take out of the repositories in a workspace what git would run or follow outside the jail.

An agent can write anything below `code/`, settings of git included, and git obeys them in whatever
folder it is started. A user who changes into the folder starts it with `git log`, or with a prompt
that shows the branch. So between runs the repositories there have only harmless settings. What an
agent put into the work tree or committed is left as it is.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

from ...system import git
from . import confined
from .jail import CODE
from .workspace import Workspace

LONGEST_CONFIG = 1 << 20  # bytes
LONGEST_LINK = 4096
# Settings that name no program and no file. All others are dropped.
_KEPT = re.compile(
    r"""(?aix)
    core\.(repositoryformatversion|filemode|bare|ignorecase|symlinks|precomposeunicode
        |logallrefupdates)
    | extensions\.(objectformat|refstorage) | user\.(name|email)
    | branch\..+\.(remote|merge|rebase) | remote\..+\.(url|fetch) | submodule\..+\.(url|active)
    """
)
_SECTION = re.compile(r'\[([A-Za-z0-9.-]+)(?: "([^"\\\x00-\x1f]+)")?\]')
# Without quotes, escapes and comments; `ext::COMMAND` is an address that runs a command.
_SETTING = re.compile(r'([A-Za-z][\w-]*) = ((?:(?!::)[^"\\;#\x00-\x1f])+)')
# In a repository's own folder: programs, and places elsewhere that git would take things from.
_DROPPED = (
    "hooks", "info", "commondir", "config.worktree", "rebase-merge",
    "objects/info/alternates", "objects/info/http-alternates",
)  # fmt: skip
# Of submodules and linked work trees, which have their repositories in `.git` of the top folder.
_INNER = re.compile(
    rf"gitdir: (?:(?:\.\./)+\.git/modules/(?P<module>[^\n]+)|{CODE}/\.git/worktrees/[^\n]+)\n?"
)


def disarm(workspace: Workspace) -> None:
    """Leave only harmless settings in every repository of the workspace; no run may be at work.

    Raises OSError or GitFailed when that cannot be done.
    """
    known = cache(lambda: _base_files(workspace))
    for folder, entries in _walk(workspace.code):
        names = {entry.name for entry in entries}
        for entry in entries:
            is_link = entry.name == ".git" and not entry.is_dir(follow_symlinks=False)
            if is_link and not _leads_inside(Path(entry.path)):
                os.unlink(entry.path)
        if "/.git/" in f"{folder.removeprefix(str(workspace.code))}/":
            for entry in entries:
                # A link can lead a write anywhere, and a pipe stops every reader.
                if not (
                    entry.is_dir(follow_symlinks=False) or entry.is_file(follow_symlinks=False)
                ):
                    os.unlink(entry.path)
            if folder.endswith("/.git") or _is_repository(names):
                _disarm(Path(folder))
        elif _is_repository(names) and not _is_of_base(workspace.code, Path(folder), known):
            _disarm(Path(folder))
    workspace.share_exclude()


def _walk(top: Path) -> Iterator[tuple[str, list[os.DirEntry[str]]]]:
    """Every folder from `top` down with what is in it. Follows no links."""
    waiting = [str(top)]
    while waiting:
        folder = waiting.pop()
        try:
            mode = os.lstat(folder).st_mode
            if not stat.S_ISDIR(mode):
                continue
            if mode & 0o700 != 0o700:  # git can be started in a folder that cannot be listed
                os.chmod(folder, stat.S_IMODE(mode) | 0o700)
            with os.scandir(folder) as found:
                entries = list(found)
        except FileNotFoundError:
            continue  # removed on the way
        except OSError as error:
            if len(folder) > 4000:
                continue  # too deep for a path
            raise error
        waiting += [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
        yield folder, entries


def _is_repository(names: set[str]) -> bool:
    """Whether git takes a folder with these entries for a repository, whatever its name is."""
    return "HEAD" in names and ("commondir" in names or {"objects", "refs"} <= names)


def _leads_inside(file: Path) -> bool:
    """Whether a `.git` that is no folder leads to a repository that is disarmed here."""
    text = confined.read(file.parent, file.name, LONGEST_LINK) or b""
    found = _INNER.fullmatch(os.fsdecode(text))
    return found is not None and ".." not in (found["module"] or "").split("/")


def _disarm(repository: Path) -> None:
    is_linked = repository.parts[-3:-1] == (".git", "worktrees")
    for name in _DROPPED:
        if is_linked and name == "commondir":
            continue  # leads to the repository that it is in
        confined.remove(repository, name)
        if os.path.lexists(repository / name):
            raise OSError(f"{repository / name} cannot be removed")
    if os.path.lexists(repository / "config"):
        before = confined.read(repository, "config", LONGEST_CONFIG) or b""
        confined.write(repository, "config", _harmless(before.decode("utf-8", "surrogateescape")))


def _harmless(config: str) -> bytes:
    """The settings of a repository that name no program and no file, as git itself writes them."""
    lines, section, heading = [], "", ""
    for line in map(str.strip, config.split("\n")):
        if line.startswith("["):
            found = _SECTION.fullmatch(line)
            section = ".".join(filter(None, found.groups())) if found else ""
            heading = line
        elif (setting := _SETTING.fullmatch(line)) and _KEPT.fullmatch(f"{section}.{setting[1]}"):
            lines += [heading, f"\t{line}"] if heading else [f"\t{line}"]
            heading = ""
    return "".join(f"{line}\n" for line in lines).encode("utf-8", "surrogateescape")


def _base_files(workspace: Workspace) -> dict[str, str]:
    """The blob of each file in the commit that the workspace began with."""
    listed = git.run(["--git-dir", str(workspace.base), "ls-tree", "-rz", "refs/heads/base"])
    rows = (row.split("\t", 1) for row in os.fsdecode(listed).split("\0") if row)
    return {path: state.split(" ")[2] for state, path in rows}


def _is_of_base(code: Path, folder: Path, known: Callable[[], dict[str, str]]) -> bool:
    """Whether a bare repository is a part of the user's own files: its settings are unchanged."""
    blob = known().get(os.path.join(os.path.relpath(folder, code), "config"), "")
    content = confined.read(folder, "config", LONGEST_CONFIG) or b""
    hashed = hashlib.new("sha256" if len(blob) == 64 else "sha1", usedforsecurity=False)
    hashed.update(b"blob %d\0%s" % (len(content), content))
    return hashed.hexdigest() == blob
