"""`.rebyte.toml`: what a repository says of how an agent is to work on it.

Where that names no setup, the `postCreateCommand` of a development container is one, if it is a
string.

It is read from a commit, never from files that an agent or anyone else may be changing. Whether it
is obeyed is the user's decision: see `trust`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import PurePosixPath
from typing import Any, NamedTuple

from ..errors import RebyteError
from . import git
from .untrusted import read_settings, read_toml

FILE = ".rebyte.toml"
DEVCONTAINERS = (".devcontainer/devcontainer.json", ".devcontainer.json")
LARGEST = 64 << 10  # bytes
LONGEST = 20_000  # characters of a command or a name
MOST = 200  # entries of a list
_PATH = r"^[^\x00-\x1f\x7f\\]+$"
_HOST = r"^[^/@,;\s]+$"
_COMMAND = {"type": "string", "minLength": 1, "maxLength": LONGEST}
_STRINGS = {"type": "array", "maxItems": MOST}
SETTINGS: dict[str, dict[str, Any]] = {
    "setup": {
        **_COMMAND,
        "description": "A shell command that prepares a new workspace, before the agent starts.",
    },
    "check": {
        **_COMMAND,
        "description": "A shell command that passes when the work is done.",
    },
    "protect": {
        **_STRINGS,
        "items": {"type": "string", "pattern": _PATH},
        "description": "Paths that are as they were before the task when it is checked.",
    },
    "allow": {
        **_STRINGS,
        "items": {"type": "string", "pattern": _HOST},
        "description": "Hosts that the setup and the agent may reach, such as pypi.org.",
    },
    "cache": {
        **_STRINGS,
        "items": {"type": "string", "pattern": _PATH},
        "description": "Folders that the setup fills and that are kept for the next run.",
    },
}


class RepositoryFileError(RebyteError):
    """`.rebyte.toml` cannot be understood; the message says where. None of it is obeyed."""

    code = "invalid_repository_file"


class RepositoryFile(NamedTuple):
    """What a repository asks for; empty for what it does not mention.

    `content` is all that decides about it: trust in it is trust in those bytes. `container` is the
    file with the `postCreateCommand` that is the setup, if any, and `name` that of the whole.
    """

    content: bytes
    setup: str = ""
    check: str = ""
    protect: tuple[str, ...] = ()
    allow: tuple[str, ...] = ()
    cache: tuple[str, ...] = ()
    container: str = ""
    name: str = FILE

    @property
    def text(self) -> str:
        """What to show to the user before it is trusted."""
        return self.content.partition(b"\0")[0].decode().rstrip("\n")

    def described(self, names: Sequence[str] = tuple(SETTINGS)) -> str:
        """Those of the settings that it has, for people: "setup `make deps`, cache .venv"."""
        found = []
        for name in names:
            value = getattr(self, name)
            if value:
                text = f"`{value}`" if isinstance(value, str) else ", ".join(value)
                is_other = name == "setup" and self.container
                where = f" (postCreateCommand of {self.container})" if is_other else ""
                found.append(f"{name} {text}{where}")
        return "; ".join(found)


def schema() -> dict[str, Any]:
    """A JSON Schema document for `.rebyte.toml`."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"{FILE}, in which a repository says how agents work on it",
        "type": "object",
        "properties": SETTINGS,
        "additionalProperties": False,
    }


def parse(data: bytes) -> RepositoryFile:
    """What the file says. Raises RepositoryFileError, with the line where that is known."""
    try:
        text = data.decode()
    except UnicodeDecodeError as problem:
        raise _error("not UTF-8 text", data[: problem.start].count(b"\n") + 1) from None
    try:
        document = read_toml(text)
    except ValueError as problem:
        found = re.search(r"line (\d+)", str(problem))
        raise _error("no valid TOML", int(found[1]) if found else None) from None
    values: dict[str, Any] = {}
    for name, value in document.items():
        if wrong := _problem(name, value):
            raise _error(wrong, _line_of(text, name))
        values[name] = value if isinstance(value, str) else tuple(value)
    return RepositoryFile(data, **values)


def read(
    repository: str | os.PathLike[str], commit: str, extra: Mapping[str, str] | None = None
) -> RepositoryFile | None:
    """What the repository says at a commit; None if it says nothing.

    `extra` are variables for git. Raises RepositoryFileError, and GitFailed for no such commit.
    """
    data = _blob(repository, commit, FILE, extra)
    found = None if data is None else parse(data)
    if found is not None and found.setup:
        return found
    for path in DEVCONTAINERS:
        with suppress(RepositoryFileError):
            text = _blob(repository, commit, path, extra)
            if text is not None and (command := _created_by(text)):
                return _with_container(found, path, command)
    return found


def _created_by(data: bytes) -> str:
    """The `postCreateCommand` in the file of a development container; empty for none in a string.

    One that is a list or a table, for several commands at once, is none.
    """
    try:
        command = read_settings(data.decode()).get("postCreateCommand")
    except UnicodeDecodeError:
        return ""
    return "" if not isinstance(command, str) or _problem("setup", command) else command


def _with_container(found: RepositoryFile | None, path: str, command: str) -> RepositoryFile:
    """What `.rebyte.toml` says, if there is one, with the setup of a development container."""
    name = path if found is None else FILE
    before = b"" if found is None else found.content.rstrip(b"\n") + b"\n"
    # No TOML has a NUL: no file alone is the same content.
    content = before + f"# postCreateCommand of {path}:\n{command}\0".encode()
    found = found or RepositoryFile(b"")
    return found._replace(content=content, setup=command, container=path, name=name)


def _blob(
    repository: str | os.PathLike[str], commit: str, path: str, extra: Mapping[str, str] | None
) -> bytes | None:
    """The content of a file at a commit. Raises RepositoryFileError for what is no such file."""
    words = ["--literal-pathspecs", "ls-tree", "-z", "--full-tree", "--end-of-options"]
    found = git.run([*words, f"{commit}^{{commit}}", path], repository, extra)
    if not found:
        return None
    mode, kind, blob = found.partition(b"\t")[0].decode().split(" ")
    if kind != "blob" or mode == "120000":
        raise RepositoryFileError(f"{path} is not a file")
    if int(git.run(["cat-file", "-s", blob], repository, extra)) > LARGEST:
        raise RepositoryFileError(f"{path} is larger than {LARGEST >> 10} KiB")
    return git.run(["cat-file", "blob", blob], repository, extra)


def _problem(name: str, value: object) -> str:
    """What is wrong with a setting, or an empty text."""
    wanted = SETTINGS.get(name)
    if wanted is None:
        return f"{name!r} means nothing here; the file takes {', '.join(SETTINGS)}"
    if wanted["type"] == "string":
        if not isinstance(value, str) or not value.strip() or "\0" in value:
            return f"{name} must be a shell command"
        return f"{name} is too long" if len(value) > LONGEST else ""
    pattern = wanted["items"]["pattern"]
    if not isinstance(value, list) or len(value) > MOST:
        return f"{name} must be a list of at most {MOST} strings"
    for each in value:
        if not isinstance(each, str) or not re.search(pattern, each) or len(each) > LONGEST:
            return f"{name}: {each!r} cannot stand there"
        if name == "cache" and not is_cache_path(each):
            return f"cache: {each!r} is not a folder inside the repository"
    if name == "cache" and (both := _nested(value)):
        return f"cache: {both[0]!r} and {both[1]!r} are in each other"
    return ""


def is_cache_path(path: str) -> bool:
    """Whether a folder can be kept: a plain path that stays in the tree and out of `.git`."""
    parts = path.removesuffix("/").split("/")
    return all(part.casefold() not in ("", ".", "..", ".git") for part in parts)


def _nested(paths: Sequence[str]) -> tuple[str, str] | None:
    """Two paths of which one is, or is in, the other; as a file system may see them."""
    plain = [(path, PurePosixPath(path.casefold())) for path in paths]
    for number, (one, folder) in enumerate(plain):
        for other, second in plain[number + 1 :]:
            if folder.is_relative_to(second) or second.is_relative_to(folder):
                return one, other
    return None


def _error(problem: str, line: int | None) -> RepositoryFileError:
    where = f", line {line}" if line else ""
    return RepositoryFileError(f"{FILE}{where}: {problem}")


def _line_of(text: str, name: str) -> int | None:
    """The line of a setting, from 1."""
    is_here: Callable[[str], object] = re.compile(
        rf"""\s*\[*\s*(["']?){re.escape(name)}\1\s*[=.\]]"""
    ).match
    return next((number for number, line in enumerate(text.split("\n"), 1) if is_here(line)), None)
