"""The paths of a repository that no agent decides about when its work is checked.

A pattern is read as in `.gitignore`: without a slash it matches at any depth, with one from the
root of the repository; a folder stands for all that is in it; `!` takes paths out again. Case makes
no difference: `makefile` is read before `Makefile`, and some file systems take both for one.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import pairwise
from posixpath import basename, join, normpath

from ..errors import BadUsage, Term

CONFIGURATION = ".rebyte.toml"
# What runners read by themselves, for the first word that is one of these names.
_PYTHON = ("/pyproject.toml", "/setup.cfg", "/tox.ini")
_PYTEST = ("conftest.py", "pytest.ini", ".pytest.ini", "pytest.toml", ".pytest.toml", *_PYTHON)
_NODE = ("/package.json",)
_MAKE = ("GNUmakefile", "Makefile")  # `makefile` is the same, whatever its case
RUNNERS: dict[str, Sequence[str]] = {
    "cargo": ("/.cargo", "/build.rs"),
    "gmake": _MAKE,
    "jest": ("jest.config.*", *_NODE),
    "just": ("justfile", ".justfile"),
    "make": _MAKE,
    "nox": ("/noxfile.py",),
    "npm": _NODE,
    "npx": _NODE,
    "pnpm": _NODE,
    "py.test": _PYTEST,
    "pytest": _PYTEST,
    "task": ("Taskfile.yml", "Taskfile.yaml", "Taskfile.dist.yml", "Taskfile.dist.yaml"),
    "tox": _PYTEST,
    "vitest": ("vitest.config.*", "vite.config.*", *_NODE),
    "yarn": _NODE,
}
# Words after which a folder follows, in which the rest is looked up, too.
_FOLDERS = ("-C", "cd", "--directory", "--prefix")


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


def of_command(command: str, files: Collection[str]) -> list[str]:
    """Patterns for what a check reads: `.rebyte.toml`, the files that the command names, and what
    the runners in it read by themselves. `files` are those of the repository.
    """
    found = {f"/{CONFIGURATION}": None}
    words = list(_words(command))
    after = (word for before, word in pairwise(words) if before in _FOLDERS)
    folders = sorted({"", *after})
    for word in words:
        for pattern in RUNNERS.get(basename(word), ()):
            found[pattern] = None
        for name in _names(word):
            for folder in folders:
                path = normpath(join(folder, name))
                if path in files:
                    found[f"/{_literal(path)}"] = None
    return list(found)


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
    """What may be a file in a word: `FILE`, `--option=FILE`, `FILE::test`, `@FILE`, `package.x`."""
    for part in (word, *word.split("=")[1:]):
        name = part.partition("::")[0].removeprefix("@").rstrip("/")
        if name and not name.startswith(("/", "-")):
            yield name
        if re.fullmatch(r"\w+(\.\w+)*", name):
            module = name.replace(".", "/")
            yield from (f"{module}.py", f"{module}/__main__.py")


def _literal(path: str) -> str:
    return re.sub(r"([*?\[\]\\])", r"[\1]", path) if re.search(r"[*?\[\\]", path) else path


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
    return is_protected, re.compile(f"{begin}{_translated(text)}(?:/.*)?\\Z", re.I | re.S)


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
