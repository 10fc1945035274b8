"""Take out of the repositories in a workspace what git would run or follow outside the jail.

An agent can write anything below `code/`, settings of git included, and git obeys them in whatever
folder it is started. A user who changes into the folder starts it with `git log`, or with a prompt
that shows the branch. So between runs the repositories there have only harmless settings. What an
agent put into the work tree or committed is left as it is, but no file is setuid or setgid: moved
to where others can start it, it would give them the user's rights.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import stat
import subprocess
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from itertools import chain, islice
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from ....system import git
from ....system.deadline import Deadline
from .. import agent_files
from ..sandbox import jail
from ..sandbox.jail import CODE
from ..sandbox.jail_group import JailGroup, end_rest
from ..sources import lenders
from ..sources.source import local_path
from . import sharing
from .workspace_folder import ORIGIN_FILE, Workspace

LONGEST_CONFIG = 1 << 20  # bytes
LONGEST_LINK = 4096
LONGEST_FILE = 1 << 26
WAITS = "Waiting for `rebyte workspace git`, which is ended if it takes longer than 10 s"
TOLD = 3  # of what could not be made harmless, so many places are named,
LONGEST_PLACE = 200  # with so many characters
# Settings that name no program and no file, here or on the way to other programs of git, with what
# their values can be. All others are dropped. An address of another form can lead to a repository
# in the folder whose hooks a push would run: by a path, through /proc, or through ssh to localhost.
# A newer git takes an address for `extensions.refStorage`.
_KEPT = re.compile(
    r"""(?ix)
    core\.(repositoryformatversion|filemode|bare|ignorecase|symlinks|precomposeunicode
        |logallrefupdates)=\w+
    | extensions\.(objectformat|refstorage)=\w+ | user\.(name|email)=[^-].*
    | branch\.[^=]+\.(remote=.+ | merge=refs/\S+ | rebase=\w+)
    | remote\.[^=]+\.(url=(https?|git)://\w\S* | fetch=[+^]?refs/\S+)
    | submodule\.[^=]+\.(url=(https?|git)://\w\S* | active=\w+)
    """
)
# git starts others of its programs with names in their arguments: one with `-` would be an option.
_SECTION = re.compile(r'\[([A-Za-z0-9]+)(?: "(\w[\w./+@#-]{0,300})")?\]')
# Without quotes, escapes and comments; `ext::COMMAND` is an address that runs a command.
_SETTING = re.compile(r'([A-Za-z][A-Za-z0-9-]*) = ((?:(?!::)[^"\\;#\x00-\x1f])+)')
UNCHECKED = "index.unchecked"  # an index that no git outside may read: its paths lead anywhere
# What git reads in a repository's own folder that names programs or places elsewhere, or commands
# still to be carried out.
_DROPPED = (
    "hooks", "info", "commondir", "config.worktree", "branches", "remotes",
    "rebase-merge", "rebase-apply", "sequencer",
)  # fmt: skip
# All that stays in a folder that is certainly git's own, and so holds nothing of anyone else.
_HARMLESS = re.compile(
    r"""(?x)
    ([A-Z]+_)*HEAD | MERGE_(MODE|MSG) | SQUASH_MSG | COMMIT_EDITMSG | AUTO_MERGE
    | config | description | index\.unchecked | packed-refs | shallow
    | objects | refs | reftable | logs | lfs | modules | worktrees | gitdir
    """
)
# git does not check the paths in an index that it reads: they can lead anywhere. Those that it puts
# into one are checked. So what is staged stays staged, without the paths that git refuses; of an
# index that cannot be read, such as a split one, the commit's files are left.
_REBUILD = r"""for place; do
    cd "$place" || continue
    g() { git "--git-dir=." "--work-tree=." "$@"; }
    if GIT_INDEX_FILE=index.unchecked g ls-files --stage -z > index.list; then refused=
    else refused=yes; fi
    rm -rf index.unchecked index.lock
    test -z "$refused" && g update-index -z --index-info < index.list || g read-tree HEAD || :
    rm -f index.list
done
"""
REBUILD_SECONDS = 120.0
LOOK_SECONDS = 0.05
WALK_SECONDS = 120.0  # for some hundred thousand folders
MOST_FOLDERS = 500_000  # in one folder, whose names are held
LONGEST_PATH = 4000  # bytes; git works in no deeper folder
LARGEST_LIST = 1 << 24  # characters, of the repositories whose indexes are written again
# Of submodules and linked work trees, which have their repositories in `.git` of the top folder.
_INNER = re.compile(
    rf"gitdir: (?:(?P<up>(?:\.\./)+)\.git/modules/(?P<module>[^\n]+)"
    rf"|{CODE}/\.git/worktrees/(?P<linked>[^/\n]+))\n?"
)
_ODD = frozenset(("", ".", "..", ".git", "worktrees"))
# Where a linked work tree is, for `git worktree list`.
_WORK_TREE = re.compile(rf"{CODE}/(?!(?:.*/)?\.\./)[^\n]+/\.git\n?")


Files = dict[str, tuple[str, str]]


class _GitSetting(NamedTuple):
    """A setting of git, by the two parts of its section's name."""

    section: tuple[str, str]
    key: str
    value: str


class _Failures(list[str]):
    """The first places that could not be made harmless, and why; an agent can make millions."""

    more = 0

    def add(self, place: Iterable[str], problem: Exception | str) -> None:
        """Note a problem at a place, whose names an agent may have chosen."""
        if len(self) == TOLD:
            self.more += 1
            return
        name = os.fsencode("/".join(place)).decode("utf-8", "backslashreplace")
        if len(name) > LONGEST_PLACE:
            name = f"…{name[-LONGEST_PLACE:]}"
        reason = getattr(problem, "strerror", None) or str(problem) or type(problem).__name__
        self.append(f"{name}: {reason}")

    def __str__(self) -> str:
        return "; ".join([*self, f"and {self.more} more"] if self.more else self)


class _SetIds:
    """Clears the setuid and setgid bits of the folders of a walk, and of the files in them.

    A file with several names has them until all were seen: without a jail, an agent can link to one
    elsewhere.
    """

    def __init__(self) -> None:
        self._seen = Counter[tuple[int, int]]()  # names of each file, by device and inode

    @property
    def are_left(self) -> bool:
        """Whether a file has kept them so far."""
        return bool(self._seen)

    def clear(self, folder: _Folder) -> None:
        """Clear those of the folder itself and of the files in it. Raises OSError."""
        mode = os.fstat(folder.descriptor).st_mode
        if mode & agent_files.SET_IDS:
            os.fchmod(folder.descriptor, stat.S_IMODE(mode) & ~agent_files.SET_IDS)
        for entry in folder.entries():
            if not entry.is_file(follow_symlinks=False):
                continue
            status = entry.stat(follow_symlinks=False)
            if not status.st_mode & agent_files.SET_IDS:
                continue
            file = status.st_dev, status.st_ino
            self._seen[file] += 1
            if self._seen[file] < status.st_nlink:
                continue
            del self._seen[file]
            try:
                agent_files.clear_set_ids(entry.name, folder.descriptor)
            except OSError as error:
                folder.fail(error, entry.name)


@dataclass(eq=False)
class _Folder:
    """A folder of a tree that is walked."""

    descriptor: int
    top: str
    path: list[str]  # from the top; changes as the walk proceeds
    errors: _Failures
    deadline: Deadline
    inside: bool  # a repository's own folder, or below one

    def fail(self, problem: Exception | str, *below: str) -> None:
        """Note that the folder, or what is `below` in it, is not harmless."""
        self.errors.add((self.top, *self.path, *below), problem)

    def has(self, name: str) -> bool:
        """Whether the name is there, for this file system, which may ignore case."""
        try:
            os.lstat(name, dir_fd=self.descriptor)
        except (FileNotFoundError, NotADirectoryError):
            return False
        return True

    def entries(self) -> Iterator[os.DirEntry[str]]:
        """What is in it, where each may be removed. Raises OSError, also when the time is over."""
        with os.scandir(self.descriptor) as found:
            while some := list(islice(found, agent_files.SOME_NAMES)):
                if self.deadline.has_passed:
                    raise TimeoutError("too many names in one folder")
                yield from some

    def drop(self, name: str) -> None:
        """Remove what has this name; if that fails, the rest is still to be done."""
        agent_files.remove(self.descriptor, name)
        if self.has(name):
            self.fail("cannot be removed", name)


def remember_origin(workspace: Workspace, repository: str | None) -> None:
    """Keep the address that the clone of `repository` began with: no agent has run there yet.

    A path in it is relative to the repository on this machine. Raises OSError.
    """
    if repository is None or (workspace.folder / ORIGIN_FILE).exists():
        return
    config = agent_files.read(workspace.code, ".git/config", LONGEST_CONFIG) or b""
    settings = _settings(config.decode("utf-8", "surrogateescape"), lambda _: True)
    found = dict(settings.get(("remote", "origin"), ())).get("url", "")
    if found and re.match("/|[^/]*:", found) is None:
        found = os.path.normpath(os.path.join(local_path(repository) or "/", found))
    agent_files.write(workspace.folder, ORIGIN_FILE, os.fsencode(found))


def disarm(
    workspace: Workspace,
    tell: Callable[[str], object] = lambda _: None,
    *,
    seconds: float = WALK_SECONDS,
    room: int = LARGEST_LIST,
) -> None:
    """Leave only what is harmless in every repository of the workspace; no run may be at work.

    In the workspace, nothing is setuid or setgid then. Two that do so at the same time take turns,
    and `workspace git` is waited for, which `tell` is told. Raises OSError when something could not
    be made so in so many seconds, or with so much `room` for the names of repositories, after all
    the rest was, and when a program in a jail there cannot be ended.
    """
    with sharing.alone(workspace.folder, lambda: tell(WAITS)):
        end_rest(workspace.folder, wait=True)
        _disarm_all(workspace, seconds, room)


def _disarm_all(workspace: Workspace, seconds: float, room: int) -> None:
    known = cache(lambda: _base_files(workspace))
    origin = os.fsdecode(agent_files.read(workspace.folder, ORIGIN_FILE, LONGEST_CONFIG) or b"")
    lender = os.fsencode(workspace.base / "objects")
    errors = _Failures()
    unchecked = list[str]()
    deadline = Deadline(seconds)
    set_ids = _SetIds()
    tops = (workspace.code, workspace.home)
    for top in tops:
        for folder in _walk(top, errors, deadline):
            if deadline.has_passed:
                folder.fail(f"too many folders or repositories for {seconds:g} s")
                break
            try:
                _disarm(folder, top == workspace.code, known, origin, lender)
                set_ids.clear(folder)
                is_short = len(folder.path) < LONGEST_PATH / 2  # or nothing is to be remembered
                if folder.inside and is_short and folder.has(UNCHECKED):
                    place = "/".join([top.name, *folder.path])
                    room -= len(place)
                    if room < 0:
                        raise OSError("too many repositories to write their indexes again")
                    unchecked.append(place)
            except Exception as error:  # whatever it is, the rest is still to be done
                folder.fail(error)
    # Some of the names that are missing may have been removed above.
    if set_ids.are_left and not deadline.has_passed:
        set_ids = _SetIds()
        for folder in chain.from_iterable(_walk(top, errors, deadline) for top in tops):
            if deadline.has_passed:
                folder.fail(f"too many folders for {seconds:g} s")
                break
            try:
                set_ids.clear(folder)
            except Exception as error:
                folder.fail(error)
    try:
        _rebuild(workspace, unchecked)
    except Exception as error:
        errors.add(["code", ".git", "index"], error)
    try:
        workspace.share_exclude()
    except Exception as error:
        errors.add(["code", ".git", "info", "exclude"], error)
    if errors:
        raise OSError(str(errors))


def _walk(
    top: Path, errors: _Failures, deadline: Deadline, start: int | None = None
) -> Iterator[_Folder]:
    """Every folder from `top`, in the folder `start`, down, `.git` before its neighbours.

    Follows no links.

    One descriptor is open at a time: a tree can be deeper than a path is long, than the
    interpreter's stack, and than descriptors can be open.
    """
    path: list[str] = []
    here = _opened(top, start, [top.name], errors)
    levels: list[_Level] = []  # of each folder on the way
    inside, is_new = False, True
    try:
        while here is not None:
            if is_new:
                folder = _Folder(here, top.name, path, errors, deadline, inside)
                yield folder
                levels.append(_Level(os.fstat(here), folder.inside, _folders(folder)))
            _, inside, names = levels[-1]
            is_new = bool(names)
            if names:
                path.append(names.pop())
                below = _opened(path[-1], here, chain([top.name], path), errors)
                if below is None:
                    path.pop()
                    is_new = False
                    continue
            elif path:
                levels.pop()
                path.pop()
                below = _above(here, levels[-1].status)
                if below is None:
                    below = _again(top, start, path, errors)
                    del levels[len(path) + 1 :]
            else:
                return
            os.close(here)
            here = below
    finally:
        if here is not None:
            os.close(here)


class _Level(NamedTuple):
    """A folder on the way to the one where the walk is."""

    status: os.stat_result
    inside: bool
    names: list[str]  # what is still to be seen in it


def _folders(folder: _Folder) -> list[str]:
    """The names of the folders in it, `.git` last."""
    folders = (e.name for e in folder.entries() if e.is_dir(follow_symlinks=False))
    try:
        found = [*islice(folders, MOST_FOLDERS + 1)]
    except OSError as error:
        folder.fail(error)
        return []
    if len(found) > MOST_FOLDERS:
        folder.fail("too many folders")
        return []
    return sorted(found, key=lambda name: name == ".git")


def _opened(
    name: str | Path, here: int | None, place: Iterable[str], errors: _Failures
) -> int | None:
    try:
        return agent_files.open_folder(name, here)
    except OSError as error:
        if not isinstance(error, FileNotFoundError):  # removed on the way
            errors.add(place, error)
        return None


def _above(here: int, status: os.stat_result) -> int | None:
    """The folder above `here`; None when it is not the one with this status: `here` was moved."""
    try:
        above = os.open("..", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=here)
    except OSError:
        return None
    if os.path.samestat(os.fstat(above), status):
        return above
    os.close(above)
    return None


def _again(top: Path, start: int | None, path: list[str], errors: _Failures) -> int | None:
    """The folder at `path`, from the top; `path` loses what cannot be reached any more."""
    here, depth = _opened(top, start, [top.name], errors), 0
    while here is not None and depth < len(path):
        place = chain([top.name], islice(path, depth + 1))
        below = _opened(path[depth], here, place, errors)
        if below is None:
            break
        os.close(here)
        here, depth = below, depth + 1
    del path[depth:]
    return here


def _disarm(
    folder: _Folder, is_code: bool, known: Callable[[], Files], origin: str, lender: bytes
) -> None:
    """Make a folder harmless, not those below it."""
    if folder.has(".git"):
        # Missing: this file system takes another name for it, too.
        found = next((entry for entry in folder.entries() if entry.name == ".git"), None)
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
        for entry in folder.entries():
            # A link can lead a write anywhere, and a pipe stops every reader.
            if not (entry.is_dir(follow_symlinks=False) or entry.is_file(follow_symlinks=False)):
                folder.drop(entry.name)
    if is_repository:
        _disarm_repository(folder, is_code, origin, lender)


def _is_repository(folder: _Folder) -> bool:
    """Whether git takes a folder for a repository, whatever its name is."""
    return folder.has("HEAD") and (
        folder.has("commondir") or (folder.has("objects") and folder.has("refs"))
    )


def _leads_inside(folder: _Folder) -> bool:
    """Whether a `.git` that is no folder is that of a submodule or a linked work tree of ours."""
    text = agent_files.read(folder.descriptor, ".git", LONGEST_LINK) or b""
    found = _INNER.fullmatch(os.fsdecode(text))
    if found is None:
        return False
    if found["linked"]:
        return found["linked"] not in (".", "..")
    parts = found["module"].split("/")
    return found["up"] == "../" * len(folder.path) and not _ODD.intersection(parts)


def _disarm_repository(folder: _Folder, is_code: bool, origin: str, lender: bytes) -> None:
    place = folder.path[:2] if is_code else []
    is_clone = is_code and folder.path == [".git"]
    is_linked = place == [".git", "worktrees"] and len(folder.path) == 3
    for name in _DROPPED:
        folder.drop(name)
    _keep_lender(folder, lender)
    if folder.has("index"):
        folder.drop(UNCHECKED)
        os.rename("index", UNCHECKED, src_dir_fd=folder.descriptor, dst_dir_fd=folder.descriptor)
    if folder.path[-1:] == [".git"] or is_linked or place == [".git", "modules"]:
        for entry in folder.entries():
            if not _HARMLESS.fullmatch(entry.name):
                folder.drop(entry.name)
    here = folder.descriptor
    if folder.has("config") or (is_clone and origin) or (folder.has("HEAD") and not is_linked):
        before = agent_files.read(here, "config", LONGEST_CONFIG)
        text = (before or b"").decode("utf-8", "surrogateescape")
        after = _harmless(text, origin, is_clone=is_clone)
        try:
            if after != before:
                agent_files.write(here, "config", after)
        except OSError as error:  # a full disk: none is harmless, too
            folder.fail(error, "config")
            folder.drop("config")
    if is_linked:
        work_tree = os.fsdecode(agent_files.read(here, "gitdir", LONGEST_LINK) or b"")
        if not _WORK_TREE.fullmatch(work_tree):
            folder.drop("gitdir")
        agent_files.write(here, "commondir", b"../..\n")


def _keep_lender(folder: _Folder, lender: bytes) -> None:
    """Drop `objects/info`, but let the clone, and a clone of it, borrow from the workspace's base.

    No agent can write there. What need not be written again is there on a full disk, too.
    """
    borrows = agent_files.read(folder.descriptor, lenders.ALTERNATES, LONGEST_CONFIG) or b""
    if borrows == lender + b"\n":
        with suppress(OSError):
            agent_files.keep_only(folder.descriptor, ("alternates",), "objects/info")
            return
    folder.drop("objects/info")
    if lender in borrows.splitlines():
        agent_files.write(folder.descriptor, lenders.ALTERNATES, lender + b"\n")


def _harmless(config: str, origin: str, *, is_clone: bool) -> bytes:
    """The settings of a repository that name no program and no file, as git itself writes them.

    The remote `origin` of the clone has the address that it began with. Of replaced objects, the
    real ones are shown, which a push sends.
    """

    def is_kept(setting: _GitSetting) -> bool:
        return (_is_address(setting) and setting.value == origin) or _is_kept(setting)

    found = _settings(config, is_kept)
    found.setdefault(("core", ""), []).append(("usereplacerefs", "false"))
    if is_clone and origin:
        place = ("remote", "origin")
        others = [(key, value) for key, value in found.get(place, ()) if key != "url"]
        found[place] = [("url", origin), *others]
    # git takes the name of a remote without an address for a path.
    remotes = {name for (kind, name), settings in found.items() if "url" in dict(settings)}
    lines = []
    for (kind, name), settings in found.items():
        if kind == "remote" and name not in remotes:
            continue
        lines.append(f'[{kind} "{name}"]' if name else f"[{kind}]")
        for key, value in settings:
            if (kind, key) != ("branch", "remote") or value == "." or value in remotes:
                lines.append(f"\t{key} = {value}")
    return "".join(f"{line}\n" for line in lines).encode("utf-8", "surrogateescape")


def _is_address(setting: _GitSetting) -> bool:
    return setting.section[0] == "remote" and setting.key == "url"


def _is_kept(setting: _GitSetting) -> bool:
    name = ".".join(filter(None, (*setting.section, setting.key)))
    return _KEPT.fullmatch(f"{name}={setting.value}") is not None


def _settings(
    config: str, is_kept: Callable[[_GitSetting], bool]
) -> dict[tuple[str, str], list[tuple[str, str]]]:
    """Keys and values that are kept of a configuration, by the two parts of a section's name.

    What is not written as git itself writes it is left out.
    """
    result: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for setting in _parsed(config):
        if setting is not None and is_kept(setting):
            result.setdefault(setting.section, []).append((setting.key, setting.value))
    return result


def _parsed(config: str) -> Iterator[_GitSetting | None]:
    """Each setting of a configuration; None for what is not written as git itself writes it."""
    section = None
    for line in map(str.strip, config.split("\n")):
        if line.startswith("["):
            found = _SECTION.fullmatch(line)
            section = (found[1].lower(), found[2] or "") if found else None
            if section is None:
                yield None
        elif section and (setting := _SETTING.fullmatch(line)):
            yield _GitSetting(section, setting[1].lower(), setting[2])
        elif line and line[0] not in "#;":
            yield None


def _rebuild(workspace: Workspace, unchecked: Sequence[str]) -> None:
    """Write the index of each of these repositories again, in a jail where there is one.

    Without an index, when that fails, git takes every file for a new one. An index can stand for a
    hundred times its size: for all, there is half of what the disk has left.
    """
    layout = jail.layout_of(workspace.folder, jailed=True)
    if unchecked and not jail.probe(None).works:
        layout = jail.layout_of(workspace.folder, jailed=False)
    tops = {"code": layout.code.inside, "home": layout.home.inside}
    parts = (place.partition("/") for place in unchecked)
    places = [os.fsencode(tops[top] + slash + path) for top, slash, path in parts]
    places = [place for place in places if len(place) < LONGEST_PATH]
    if not places:
        return
    variables = jail.environment(layout, os.environ)
    variables |= git.IN_JAIL
    with tempfile.NamedTemporaryFile() as listed:
        listed.write(b"\0".join(places))
        listed.flush()
        words = git.limited(["xargs", "-0", "sh", "-c", _REBUILD, "sh"])
        with JailGroup(
            layout,
            jail.command(layout, words, network=False),
            folder="/",
            variables=variables,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            stdin=listed.name,
        ) as group:
            deadline, least = Deadline(REBUILD_SECONDS), _left(workspace) // 2
            while group.process.poll() is None:
                if deadline.has_passed or _left(workspace) < least:
                    break
                with suppress(subprocess.TimeoutExpired):
                    group.process.wait(LOOK_SECONDS)
    for place in unchecked:
        for name in ("index.list", "index.lock"):
            agent_files.remove(workspace.folder, f"{place}/{name}")


def _left(workspace: Workspace) -> int:
    """The bytes that the disk has left."""
    return shutil.disk_usage(workspace.folder).free


def _base_files(workspace: Workspace) -> Files:
    """Mode and blob of each file in the commit that the workspace began with."""
    words = ["--git-dir", str(workspace.base), "ls-tree", "-rz", "refs/heads/base"]
    try:
        rows = [row.split("\t", 1) for row in git.paths(words)]
    except git.GitFailed:
        return {}
    return {path: (state.split(" ")[0], state.split(" ")[2]) for state, path in rows}


def _is_of_base(folder: _Folder, known: Files) -> bool:
    """Whether a bare repository is a part of the commit that the workspace began with.

    Nothing of it has changed, and its settings are harmless: the commit may be a stranger's. The
    top folder never is one, since every git below it would obey it once `.git` is gone.
    """
    if not folder.path or not _is_harmless(folder):
        return False
    above = "".join(f"{name}/" for name in folder.path)
    base = {
        path.removeprefix(above): file for path, file in known.items() if path.startswith(above)
    }
    if "commondir" in base or "objects/info/alternates" in base:
        return False  # parts of it are elsewhere
    allowed = {str(parent) for path in base for parent in PurePosixPath(path).parents} | base.keys()
    found = set()
    for below in _walk(Path("."), _Failures(), folder.deadline, folder.descriptor):
        here = "".join(f"{name}/" for name in below.path)
        for entry in below.entries():
            if here + entry.name not in allowed:
                return False
            found.add(here + entry.name)
    return base.keys() <= found and all(
        _state(folder.descriptor, path, len(file[1])) == file for path, file in base.items()
    )


def _is_harmless(folder: _Folder) -> bool:
    """Whether each setting of a repository is kept, or the address of a remote."""
    config = agent_files.read(folder.descriptor, "config", LONGEST_CONFIG)
    if config is None:
        return not folder.has("config")
    settings = _parsed(config.decode("utf-8", "surrogateescape"))
    return all(each is not None and (_is_address(each) or _is_kept(each)) for each in settings)


def _state(here: int, path: str, digits: int) -> tuple[str, str]:
    """Mode and blob of a file, as git would commit it; empty for a link and a large one."""
    content = agent_files.read(here, path, LONGEST_FILE)
    if content is None:
        return "", ""
    mode = os.stat(path, dir_fd=here, follow_symlinks=False).st_mode
    hashed = hashlib.new("sha256" if digits == 64 else "sha1", usedforsecurity=False)
    hashed.update(b"blob %d\0%s" % (len(content), content))
    return "100755" if mode & 0o100 else "100644", hashed.hexdigest()
