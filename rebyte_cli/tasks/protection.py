"""The paths of a repository that no agent decides about when its work is checked.

A pattern is read as in `.gitignore`: without a slash it matches at any depth, with one from the
root of the repository; a folder stands for all that is in it; `!` takes paths out again. Case makes
no difference: `makefile` is read before `Makefile`, and some file systems take both for one.
"""

from __future__ import annotations

import re
import shlex
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from posixpath import basename, dirname, join, normpath
from typing import Any

from ..errors import BadUsage, Term

CONFIGURATION = ".rebyte.toml"
# What runners read by themselves, in any folder, for the first word that is one of these names.
_PYTEST = (
    "conftest.py", "pytest.ini", ".pytest.ini", "pytest.toml", ".pytest.toml", "pyproject.toml",
    "setup.cfg", "tox.ini",
)  # fmt: skip
_NODE = (
    "package.json", ".npmrc", ".yarnrc*", ".yarn", ".pnpmfile.*", "pnpm-workspace.yaml",
)  # fmt: skip
_MAKE = ("GNUmakefile", "Makefile")  # `makefile` is the same, whatever its case
RUNNERS: dict[str, Sequence[str]] = {
    "cargo": (".cargo", "build.rs", "rust-toolchain*"),
    "gmake": _MAKE,
    "jest": ("jest.config.*", *_NODE),
    "just": ("justfile", ".justfile"),
    "make": _MAKE,
    "nox": ("noxfile.py",),
    "npm": _NODE,
    "npx": _NODE,
    "pnpm": _NODE,
    "py.test": _PYTEST,
    "pytest": _PYTEST,
    "task": ("Taskfile.yml", "Taskfile.yaml", "Taskfile.dist.yml", "Taskfile.dist.yaml"),
    "tox": ("tox.toml", *_PYTEST),
    "vitest": ("vitest.config.*", "vite.config.*", *_NODE),
    "yarn": _NODE,
}
MOST_LINKS = 40  # as the kernel follows on the way to one file
LONGEST_PATH = 4096  # bytes, as the kernel takes
_WILDCARDS = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}  # as regular expressions
NAME = 50  # bytes that Python needs for a name besides its letters
MOST_LOOKED_AT = 1 << 30  # bytes of names


class TooManyNames(ValueError):
    """A repository whose folders and links lead to more names than are looked at."""

    def __init__(self) -> None:
        super().__init__("the folders and links of the repository lead to too many names")


class Protection:
    """Which paths are put back before a check."""

    def __init__(self, patterns: Iterable[str]) -> None:
        """Later patterns win. Raises BadUsage for one that can match nothing."""
        self._rules = [_rule(pattern) for pattern in patterns]
        self._anywhere: list[re.Pattern[str]] = []
        self._below: list[_Below] = []
        self._paths = _Paths()

    def covers(self, path: str) -> bool:
        """Whether a path of the repository, with `/` between its parts, is protected."""
        found = (
            any(True for _ in self._paths.above(path))
            or any(rule.match(path) for rule in self._anywhere)
            or any(True for each in self._below for _ in each.folders(path))
        )
        for is_protected, rule in self._rules:
            if found != is_protected and rule.match(path):
                found = is_protected
        return found

    def add(self, path: str) -> bool:
        """Protect a path, as if it came before the patterns; False if it was added already."""
        if any(True for _ in self._paths.above(path)):
            return False
        self._paths.add(path)
        return True

    def add_anywhere(self, pattern: str) -> None:
        """Protect what a pattern matches, as `add`."""
        self._anywhere.append(_rule(pattern)[1])

    def add_below(self, below: _Below) -> None:
        """Protect what a pattern matches below some folders, as `add`."""
        self._below.append(below)


def protection(
    command: str, protect: Sequence[str], files: Iterable[str], links: Mapping[str, str]
) -> Protection:
    """What a check with this command protects: what it reads by itself, and the paths of the user.

    `files` are the paths of the repository, and `links` those that are links, each with the target.
    The target of a protected link is protected, too. The user's patterns come last, and so win.
    Raises BadUsage as Protection does, and TooManyNames.
    """
    tree = _Tree(files, links)
    made = Protection(protect)
    _protect_what_is_read(command, tree, made)
    in_order = sorted((_sorted_by_folder(link), link) for link in links)
    waiting = list(filter(made.covers, links))
    seen = set(waiting)
    while waiting:
        for path in tree.way(waiting.pop()):
            if not path or not made.add(path):
                continue
            first = _sorted_by_folder(path)
            for number in range(bisect_left(in_order, (first, "")), len(in_order)):
                name, link = in_order[number]
                tree.look_at(name)
                if name != first and not name.startswith(f"{first}\0"):
                    break
                if link not in seen and made.covers(link):
                    seen.add(link)
                    waiting.append(link)
    return made


class _Paths:
    """Paths, each of which stands for all below it; case makes no difference."""

    def __init__(self) -> None:
        self._names: dict[str, Any] = {}  # of a folder, each with those below it; "" marks an end

    def add(self, path: str) -> None:
        """Add a path; `""` is the root."""
        here = self._names
        for name in path.split("/") if path else ():
            here = here.setdefault(_folded(name), {})
        here[""] = None

    def above(self, path: str) -> Iterator[int]:
        """For each added path that stands for this one: where in it the name below that begins."""
        here, start = self._names, 0
        while True:
            if "" in here:
                yield start
            if start > len(path):
                return
            end = path.find("/", start)
            end = len(path) if end < 0 else end
            found = here.get(_folded(path[start:end]))
            if found is None:
                return
            here, start = found, end + 1


class _Below:
    """What a rule matches below any of some folders."""

    def __init__(self, rule: re.Pattern[str], folders: Iterable[str]) -> None:
        self.rule = rule
        self._paths = _Paths()
        for folder in folders:
            self._paths.add(folder)

    def folders(self, path: str, look_at: Callable[[str], object] = bool) -> Iterator[str]:
        """Those of the folders below which the rule matches a path; `look_at` gets all it tries."""
        for start in self._paths.above(path):
            below = path[start:]
            look_at(below)
            if below and self.rule.match(below):
                yield path[: max(start - 1, 0)]


class _Tree:
    """The files and folders of a repository, as the words of a command lead to them.

    What is looked at has a limit: a few links, or a folder in itself under many names, lead to any
    number of names. Its methods raise TooManyNames.
    """

    def __init__(self, files: Iterable[str], links: Mapping[str, str]) -> None:
        self._left = MOST_LOOKED_AT
        self.files = set(files)
        self.folders = {""}
        for path in self.files:
            while (path := dirname(path)) not in self.folders:
                self.look_at(path)
                self.folders.add(path)
        self._links = links

    def look_at(self, name: str) -> None:
        """Count a name."""
        self._left -= len(name) + NAME
        if self._left < 0:
            raise TooManyNames

    def way(self, path: str) -> list[str]:
        """The links on the way of a path, and last where it ends: `""` is the root."""
        parts, here, passed = deque(path.split("/")), "", list[str]()
        while parts and len(here) < LONGEST_PATH:
            part = parts.popleft()
            if part in ("", "."):
                continue
            here = dirname(here) if part == ".." else join(here, part)
            self.look_at(here)
            target = self._links.get(here)
            if target is not None and len(passed) < MOST_LINKS:
                passed.append(here)
                here = dirname(here)
                if target.startswith("/"):  # the sandbox has the repository as another folder
                    here, target = "", next(self._ends_of(target), "")
                parts.extendleft(reversed(target.split("/")))
        return [*passed, here]

    def find(self, name: str, folders: Iterable[str]) -> list[list[str]]:
        """The ways on which a name leads to files and folders, from any of these folders.

        If there are none, as for `/code/run.sh`, whose beginning only the sandbox knows, the
        longest end of the name counts that is one.
        """
        for end in (name, *self._ends_of(name)):
            ways = [self.way(join(folder, end)) for folder in folders]
            if found := [way for way in ways if way[-1] in self.files or way[-1] in self.folders]:
                return found
        return []

    def matched(self, pattern: str, folders: Iterable[str]) -> tuple[list[str], _Below | None]:
        """The folders that a pattern matches below these, and where it matches files."""
        try:
            below = _below(pattern, folders)
        except BadUsage:  # a word that is none
            return [], None
        found = {folder for path in self.files for folder in below.folders(path, self.look_at)}
        inside = [
            path for path in self.folders if any(True for _ in below.folders(path, self.look_at))
        ]
        return inside, _Below(below.rule, found) if found else None

    def _ends_of(self, name: str) -> Iterator[str]:
        """The ends of a name that are paths here, the longest first."""
        parts = name.split("/")
        for first in range(1, len(parts)):
            end = "/".join(parts[first:])
            self.look_at(end)
            if end in self.files or end in self.folders:
                yield end


def _protect_what_is_read(command: str, tree: _Tree, made: Protection) -> None:
    """Protect what a command reads by itself: `.rebyte.toml`, files that it names, and what the
    runners in it read. Every folder that it names may be one in which it names files.
    """
    made.add(CONFIGURATION)
    words = list(_words(command))
    names = list(dict.fromkeys(name for word in words for name in _names(word)))
    folders = {"": None}
    for name in names:
        if _is_pattern(name):
            folders |= dict.fromkeys(tree.matched(name, list(folders))[0])
        else:
            folders |= {
                way[-1]: None for way in tree.find(name, folders) if way[-1] in tree.folders
            }
    modules: dict[str, list[str]] = {}
    for name in names:
        for pattern in RUNNERS.get(basename(name), ()):
            made.add_anywhere(pattern)
        if _is_pattern(name) and (found := tree.matched(name, folders)[1]):
            made.add_below(found)
        for *passed, end in tree.find(name, folders):
            for path in (*passed, *(end,) * (end in tree.files)):
                made.add(path)
    imported = set(_imported(words))
    for name in names:
        if re.fullmatch(r"\w+(\.\w+)*", name):
            for folder in folders:
                for pattern in _modules(folder, name.split("."), name in imported, tree):
                    modules.setdefault(pattern, []).append(folder)
    for pattern, places in modules.items():
        made.add_below(_below(pattern, places))


def _words(command: str, depth: int = 3) -> Iterator[str]:
    """The words of a shell command, and those of commands in them (`sh -c '…'`)."""
    lexer = shlex.shlex(command, posix=True, punctuation_chars=True)
    lexer.whitespace_split, lexer.commenters = True, ""
    try:
        words = list(lexer)
    except ValueError:  # a quote without its end
        words = command.split()
    for word in words:
        yield word
        if depth and word != command and re.search(r"[\s;&|`$()]", word):
            yield from _words(re.sub(r"[`$()]", " ", word), depth - 1)


def _names(word: str) -> Iterator[str]:
    """What may be a path, a program or a module in a word, also as part of an option.

    What only the shell can know is a pattern in it: `tests/run.*`, `{a,b}.sh`, `$FOLDER/run.sh`.
    """
    word = re.sub(r"\$\{[^}]*\}|\$[\w@*#?$!-]|\{[^{}]*\}", "*", re.sub(r"\$\w+", "*", word))
    for part in dict.fromkeys((word, *re.split("[=:,@]", word))):  # --file=FILE, FILE::test, @FILE
        name = part.rstrip("/")
        if re.match(r"-\w", name):  # -fFILE, -xfFILE
            yield from (name[first:] for first in range(2, min(len(name), 10)))
        elif re.search(r"\w", name) and not name.startswith("-"):
            yield name


def _imported(words: Sequence[str]) -> Iterator[str]:
    """The modules that Python is told to import: `-m NAME`, `-mNAME`, `-m unittest NAME`."""
    for before, word in pairwise(("", *words)):
        if re.fullmatch(r"-[A-Za-z]*m", before):
            yield word
        if joined := re.fullmatch(r"-[A-Za-z]*?m(\w[\w.]*)", word):
            yield joined[1]
    if "unittest" in " ".join(words):
        yield from words


def _modules(folder: str, parts: list[str], is_imported: bool, tree: _Tree) -> Iterator[str]:
    """Patterns, below the folder, for a module and the packages that it is in, as far as the
    repository has them.

    An import takes a package before a file, and a compiled file before the source.
    """
    path = ""
    for part in parts:
        path = join(path, part)
        there = join(folder, path)
        tree.look_at(there)
        if f"{there}/__main__.py" in tree.files:
            yield _escaped(f"{path}/__main__.py")
        is_package = there in tree.folders and (is_imported or len(parts) > 1)
        if f"{there}.py" not in tree.files and not is_package:
            return
        for name in ("", "/__init__", "/__main__"):
            yield _escaped(f"{path}{name}") + ".*"


def _below(pattern: str, folders: Iterable[str]) -> _Below:
    """A pattern in a command, for these folders. Raises BadUsage for one that is none.

    What precedes one that may begin anywhere does not count.
    """
    pattern = re.sub(r"\A(/[^/]*|\*)/", "**/", pattern)
    folders = [""] if pattern.startswith("/") else folders
    pattern = normpath(pattern).lstrip("/")
    while pattern.startswith("../"):
        pattern, folders = pattern[3:], {dirname(folder) for folder in folders}
    return _Below(_rule(f"/{pattern}")[1], folders)


def _is_pattern(name: str) -> bool:
    return any(sign in name for sign in "*?[")


def _folded(name: str) -> str:
    """The name as patterns compare it, for which `K` is the sign for kelvin, too."""
    return name.replace("\u0130", "i").upper().casefold()


def _sorted_by_folder(path: str) -> str:
    """A text that has what is in a folder behind it, and before all else."""
    return _folded(path).replace("/", "\0")


def _escaped(path: str) -> str:
    return re.sub(r"([*?\[\\\s])", r"[\1]", path)


def _rule(pattern: str) -> tuple[bool, re.Pattern[str]]:
    text = pattern.strip()
    is_protected = not text.startswith("!")
    text = text.removeprefix("!").removeprefix("./")
    anchored = "/" in text.rstrip("/")
    text = text.strip("/")
    if not text or text.startswith("../") or text == "..":
        raise BadUsage(
            Term("--protect", "`protect`") + f": {pattern!r} names no path of the repository"
        )
    begin = "" if anchored else "(?:.*/)?"
    try:
        rule = re.compile(f"{begin}{_translated(text)}(?:/.*)?\\Z", re.I | re.S)
    except re.error:  # [z-a]
        raise BadUsage(Term("--protect", "`protect`") + f": {pattern!r} is no pattern") from None
    return is_protected, rule


def _translated(text: str) -> str:
    parts = re.split(r"(\*\*/|\*\*|\*|\?|\[[^\]]*\])", text)
    result = []
    for part in parts:
        if part in _WILDCARDS:
            result.append(_WILDCARDS[part])
        elif len(part) > 2 and part.startswith("["):
            inner = part[1:-1].replace("\\", "\\\\").replace("[", "\\[")
            result.append(f"[^{inner[1:]}/]" if inner[:1] in "!^" and inner[1:] else f"[{inner}]")
        else:
            result.append(re.escape(part))
    return "".join(result)
