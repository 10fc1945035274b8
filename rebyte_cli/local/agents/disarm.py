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
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import PurePosixPath

from ...system import git
from . import confined
from .jail import CODE
from .workspace import Workspace

LONGEST_CONFIG = 1 << 20  # bytes
LONGEST_LINK = 4096
LONGEST_FILE = 1 << 26
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
# What git reads in a repository's own folder that names programs or places elsewhere, or commands
# still to be carried out.
_DROPPED = (
    "hooks", "info", "objects/info", "commondir", "config.worktree", "branches", "remotes",
    "rebase-merge", "rebase-apply", "sequencer",
)  # fmt: skip
# All that stays in a folder that is certainly git's own, and so holds nothing of anyone else.
_HARMLESS = re.compile(
    r"""(?x)
    ([A-Z]+_)*HEAD | MERGE_(MODE|MSG) | SQUASH_MSG | COMMIT_EDITMSG | AUTO_MERGE
    | config | description | index | sharedindex\.[0-9a-f]+ | packed-refs | shallow
    | objects | refs | reftable | logs | lfs | modules | worktrees | gitdir
    """
)
# Of submodules and linked work trees, which have their repositories in `.git` of the top folder.
_INNER = re.compile(
    rf"gitdir: (?:(?P<up>(?:\.\./)+)\.git/modules/(?P<module>[^\n]+)"
    rf"|{CODE}/\.git/worktrees/(?P<linked>[^/\n]+))\n?"
)
_ODD = frozenset(("", ".", "..", ".git", "worktrees"))
# Where a linked work tree is, for `git worktree list`.
_WORK_TREE = re.compile(rf"{CODE}/(?!(?:.*/)?\.\./)[^\n]+/\.git\n?")


Files = dict[str, tuple[str, str]]


class _Folder:
    """A folder of a tree that is walked."""

    def __init__(
        self, descriptor: int, path: list[str], errors: list[OSError], *, inside: bool
    ) -> None:
        self.descriptor = descriptor
        self.errors = errors
        self.path = path  # from the top; changes as the walk proceeds
        self.inside = inside  # a repository's own folder, or below one

    def has(self, name: str) -> bool:
        """Whether the name is there, for this file system, which may ignore case."""
        try:
            os.lstat(name, dir_fd=self.descriptor)
        except (FileNotFoundError, NotADirectoryError):
            return False
        return True

    def entries(self) -> list[os.DirEntry[str]]:
        with os.scandir(self.descriptor) as found:
            return list(found)

    def drop(self, name: str) -> None:
        """Remove what has this name; if that fails, the rest is still to be done."""
        confined.remove(self.descriptor, name)
        if self.has(name):
            self.errors.append(OSError(f"{os.path.join(*self.path, name)} cannot be removed"))


def disarm(workspace: Workspace) -> None:
    """Leave only what is harmless in every repository of the workspace; no run may be at work.

    Raises OSError when something could not be made so, after all the rest was.
    """
    known = cache(lambda: _base_files(workspace))
    errors: list[OSError] = []
    for top in (workspace.code, workspace.home):
        is_code = top == workspace.code
        for folder in _walk(str(top), errors):
            try:
                _disarm(folder, is_code, known)
            except OSError as error:
                errors.append(error)
    workspace.share_exclude()
    if errors:
        raise errors[0]


def _walk(top: str, errors: list[OSError]) -> Iterator[_Folder]:
    """Every folder from `top` down, `.git` before its neighbours. Follows no links.

    One descriptor is open at a time: a tree can be deeper than a path is long, than the
    interpreter's stack, and than descriptors can be open.
    """
    try:
        here = confined.open_folder(top)
    except FileNotFoundError:
        return
    path: list[str] = []
    levels: list[tuple[bool, list[str]]] = []  # what is still to be seen of each folder on the way
    inside, is_new = False, True
    try:
        while True:
            if is_new:
                folder = _Folder(here, path, errors, inside=inside)
                yield folder
                levels.append((folder.inside, _folders(folder)))
            inside, names = levels[-1]
            is_new = bool(names)
            if names:
                name = names.pop()
                below = _opened(name, here, errors)
                if below is None:
                    is_new = False
                    continue
                path.append(name)
            elif path:
                levels.pop()
                path.pop()
                below = confined.open_folder("..", here)
            else:
                return
            os.close(here)
            here = below
    finally:
        os.close(here)


def _folders(folder: _Folder) -> list[str]:
    """The names of the folders in it, `.git` last."""
    try:
        found = [e.name for e in folder.entries() if e.is_dir(follow_symlinks=False)]
    except OSError as error:
        folder.errors.append(error)
        return []
    return sorted(found, key=lambda name: name == ".git")


def _opened(name: str, here: int, errors: list[OSError]) -> int | None:
    try:
        return confined.open_folder(name, here)
    except OSError as error:
        if not isinstance(error, FileNotFoundError):  # removed on the way
            errors.append(error)
        return None


def _disarm(folder: _Folder, is_code: bool, known: Callable[[], Files]) -> None:
    """Make a folder harmless, not those below it."""
    names = {entry.name: entry for entry in folder.entries()}
    if folder.has(".git"):
        found = names.get(".git")  # missing: this file system takes another name for it, too
        is_kept = found is not None and (
            found.is_dir(follow_symlinks=False) or (is_code and _leads_inside(folder))
        )
        if not is_kept:
            folder.drop(".git")
    is_git = folder.path[-1:] == [".git"]
    is_repository = is_git or _is_repository(folder)
    if is_repository and not folder.inside and not is_git:
        is_repository = not (is_code and _is_of_base(folder, known()))
    folder.inside = folder.inside or is_repository
    if folder.inside:
        for entry in names.values():
            # A link can lead a write anywhere, and a pipe stops every reader.
            if not (entry.is_dir(follow_symlinks=False) or entry.is_file(follow_symlinks=False)):
                folder.drop(entry.name)
    if is_repository:
        _disarm_repository(folder, is_code)


def _is_repository(folder: _Folder) -> bool:
    """Whether git takes a folder for a repository, whatever its name is."""
    return folder.has("HEAD") and (
        folder.has("commondir") or (folder.has("objects") and folder.has("refs"))
    )


def _leads_inside(folder: _Folder) -> bool:
    """Whether a `.git` that is no folder is that of a submodule or a linked work tree of ours."""
    text = confined.read(folder.descriptor, ".git", LONGEST_LINK) or b""
    found = _INNER.fullmatch(os.fsdecode(text))
    if found is None:
        return False
    if found["linked"]:
        return found["linked"] not in (".", "..")
    parts = found["module"].split("/")
    return found["up"] == "../" * len(folder.path) and not _ODD.intersection(parts)


def _disarm_repository(folder: _Folder, is_code: bool) -> None:
    place = folder.path[:2] if is_code else []
    is_linked = place == [".git", "worktrees"] and len(folder.path) == 3
    for name in _DROPPED:
        if is_code or name != "objects/info":  # agents' own stores in HOME share objects
            folder.drop(name)
    if folder.path[-1:] == [".git"] or is_linked or place == [".git", "modules"]:
        for entry in folder.entries():
            if not _HARMLESS.fullmatch(entry.name):
                folder.drop(entry.name)
    here = folder.descriptor
    if folder.has("config"):
        before = confined.read(here, "config", LONGEST_CONFIG) or b""
        confined.write(here, "config", _harmless(before.decode("utf-8", "surrogateescape")))
    if is_linked:
        confined.write(here, "commondir", b"../..\n")
        if not _WORK_TREE.fullmatch(
            os.fsdecode(confined.read(here, "gitdir", LONGEST_LINK) or b"")
        ):
            folder.drop("gitdir")


def _harmless(config: str) -> bytes:
    """The settings of a repository that name no program and no file, as git itself writes them."""
    lines, section, heading = [], "", ""
    for line in map(str.strip, config.split("\n")):
        if line.startswith("["):
            found = _SECTION.fullmatch(line)
            section = ".".join(filter(None, found.groups())) if found else ""
            heading = line
        elif (setting := _SETTING.fullmatch(line)) and _is_kept(section, *setting.groups()):
            lines += [heading, f"\t{line}"] if heading else [f"\t{line}"]
            heading = ""
    return "".join(f"{line}\n" for line in lines).encode("utf-8", "surrogateescape")


def _is_kept(section: str, key: str, value: str) -> bool:
    # A newer git takes an address for `extensions.refStorage`.
    is_word = re.fullmatch(r"\w+", value.strip()) is not None
    return bool(_KEPT.fullmatch(f"{section}.{key}")) and (
        is_word or not section.lower().startswith(("core", "extensions"))
    )


def _base_files(workspace: Workspace) -> Files:
    """Mode and blob of each file in the commit that the workspace began with."""
    words = ["--git-dir", str(workspace.base), "ls-tree", "-rz", "refs/heads/base"]
    try:
        listed = os.fsdecode(git.run(words))
    except git.GitFailed:
        return {}
    rows = (row.split("\t", 1) for row in listed.split("\0") if row)
    return {path: (state.split(" ")[0], state.split(" ")[2]) for state, path in rows}


def _is_of_base(folder: _Folder, known: Files) -> bool:
    """Whether a bare repository is a part of the user's own files: nothing of it has changed."""
    above = "".join(f"{name}/" for name in folder.path)
    base = {
        path.removeprefix(above): file for path, file in known.items() if path.startswith(above)
    }
    if "commondir" in base or "objects/info/alternates" in base:
        return False  # parts of it are elsewhere
    parents = {str(parent) for path in base for parent in PurePosixPath(path).parents}
    found = set()
    for place, folders, files, _ in os.fwalk(".", dir_fd=folder.descriptor):
        paths = {os.path.normpath(os.path.join(place, name)) for name in (*folders, *files)}
        if not paths <= parents | base.keys():
            return False
        found |= paths
    return base.keys() <= found and all(
        _state(folder.descriptor, path, len(file[1])) == file for path, file in base.items()
    )


def _state(here: int, path: str, digits: int) -> tuple[str, str]:
    """Mode and blob of a file, as git would commit it; empty for a link and a large one."""
    content = confined.read(here, path, LONGEST_FILE)
    if content is None:
        return "", ""
    mode = os.stat(path, dir_fd=here, follow_symlinks=False).st_mode
    hashed = hashlib.new("sha256" if digits == 64 else "sha1", usedforsecurity=False)
    hashed.update(b"blob %d\0%s" % (len(content), content))
    return "100755" if mode & 0o100 else "100644", hashed.hexdigest()
