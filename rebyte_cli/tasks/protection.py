"""The paths of a repository that no agent decides about when its work is checked.

A pattern is read as in `.gitignore`: without a slash it matches at any depth, with one from the
root of the repository; a folder stands for all that is in it; `!` takes paths out again. Case makes
no difference: `makefile` is read before `Makefile`, and some file systems take both for one.
"""

from __future__ import annotations

import re
import shlex
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from posixpath import basename, dirname, join, normpath

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


class Protection:
    """Which paths are put back before a check."""

    def __init__(self, patterns: Iterable[str]) -> None:
        """Later patterns win. Raises BadUsage for one that can match nothing."""
        self._rules = [_rule(pattern) for pattern in patterns]

    def covers(self, path: str) -> bool:
        """Whether a path of the repository, with `/` between its parts, is protected."""
        found = False
        for is_protected, rule in self._rules:
            if found != is_protected and rule.match(path):
                found = is_protected
        return found


def protection(
    command: str, protect: Sequence[str], files: Iterable[str], links: Mapping[str, str]
) -> Protection:
    """What a check with this command protects: what it reads by itself, and the paths of the user.

    `files` are the paths of the repository, and `links` those that are links, each with the target.
    The target of a protected link is protected, too. The user's patterns come last, and so win.
    Raises BadUsage as Protection does.
    """
    tree = _Tree(files, links)
    found = dict.fromkeys(_of_command(command, tree))
    while True:
        made = Protection([*found, *protect])
        covered = filter(made.covers, links)
        targets = {_exact(path) for link in covered for path in tree.way(link) if path}
        if targets <= found.keys():
            return made
        found |= dict.fromkeys(sorted(targets))


class _Tree:
    """The files and folders of a repository, as the words of a command lead to them."""

    def __init__(self, files: Iterable[str], links: Mapping[str, str]) -> None:
        self.files = set(files)
        self.folders = {above for path in self.files for above in _above(path)}
        self._links = links

    def way(self, path: str) -> list[str]:
        """The links on the way of a path, and last where it ends: `""` is the root."""
        parts, here, passed = deque(path.split("/")), "", list[str]()
        while parts:
            part = parts.popleft()
            if part in ("", "."):
                continue
            here = dirname(here) if part == ".." else join(here, part)
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

    def matches(self, pattern: str) -> tuple[list[str], bool]:
        """The folders that a pattern matches, and whether it matches any file."""
        try:
            _, rule = _rule(pattern)
        except BadUsage:  # a word that is none
            return [], False
        return [path for path in self.folders if rule.match(path)], any(map(rule.match, self.files))

    def _ends_of(self, name: str) -> Iterator[str]:
        """The ends of a name that are paths here, the longest first."""
        parts = name.split("/")
        for first in range(1, len(parts)):
            end = "/".join(parts[first:])
            if end in self.files or end in self.folders:
                yield end


def _above(path: str) -> Iterator[str]:
    while path:
        path = dirname(path)
        yield path


def _of_command(command: str, tree: _Tree) -> Iterator[str]:
    """Patterns for what a command reads by itself: `.rebyte.toml`, files that it names, and what
    the runners in it read. Every folder that it names may be one in which it names files.
    """
    yield f"/{CONFIGURATION}"
    words = list(_words(command))
    names = list(dict.fromkeys(name for word in words for name in _names(word)))
    folders = {"": None}
    for name in names:
        if _is_pattern(name):
            for folder in list(folders):
                folders |= dict.fromkeys(tree.matches(_below(folder, name))[0])
        else:
            folders |= {
                way[-1]: None for way in tree.find(name, folders) if way[-1] in tree.folders
            }
    for name in names:
        yield from RUNNERS.get(basename(name), ())
        if _is_pattern(name):
            patterns = (_below(folder, name) for folder in folders)
            yield from (pattern for pattern in patterns if tree.matches(pattern)[1])
        for *passed, end in tree.find(name, folders):
            yield from map(_exact, (*passed, *(end,) * (end in tree.files)))
    imported = set(_imported(words))
    for name in names:
        if re.fullmatch(r"\w+(\.\w+)*", name):
            for folder in folders:
                yield from _modules(folder, name.split("."), name in imported, tree)


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
    """Patterns for a module and the packages that it is in, as far as the repository has them.

    An import takes a package before a file, and a compiled file before the source.
    """
    path = folder
    for part in parts:
        path = join(path, part)
        if f"{path}/__main__.py" in tree.files:
            yield _exact(f"{path}/__main__.py")
        is_package = path in tree.folders and (is_imported or len(parts) > 1)
        if f"{path}.py" not in tree.files and not is_package:
            return
        for name in ("", "/__init__", "/__main__"):
            yield _exact(f"{path}{name}") + ".*"


def _is_pattern(name: str) -> bool:
    return any(sign in name for sign in "*?[")


def _below(folder: str, pattern: str) -> str:
    """The pattern from the root; what precedes one that may begin anywhere does not count."""
    return normpath(join("/", _escaped(folder), re.sub(r"\A(/[^/]*|\*)/", "**/", pattern)))


def _exact(path: str) -> str:
    """The pattern that matches a path from the root."""
    return f"/{_escaped(path)}"


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
        if part == "**/":
            result.append("(?:.*/)?")
        elif part == "**":
            result.append(".*")
        elif part == "*":
            result.append("[^/]*")
        elif part == "?":
            result.append("[^/]")
        elif len(part) > 2 and part.startswith("["):
            inner = part[1:-1].replace("\\", "\\\\").replace("[", "\\[")
            result.append(f"[^{inner[1:]}/]" if inner[:1] in "!^" and inner[1:] else f"[{inner}]")
        else:
            result.append(re.escape(part))
    return "".join(result)
