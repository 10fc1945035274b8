"""Running git on our side of the jail, so that nothing in a repository runs here."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from .process_group import ProcessGroup

CLONE_SECONDS = 1800
# Hooks and the file system monitor are commands that a repository's own config can name.
SAFE = ("-c", "core.hooksPath=/dev/null", "-c", "core.fsmonitor=false")
# A clone must not act on the repository that rebyte was started from (inside a git hook).
LOCAL_VARIABLES = (
    "GIT_ALTERNATE_OBJECT_DIRECTORIES", "GIT_COMMON_DIR", "GIT_CONFIG", "GIT_CONFIG_COUNT",
    "GIT_CONFIG_PARAMETERS", "GIT_DIR", "GIT_INDEX_FILE", "GIT_NAMESPACE",
    "GIT_OBJECT_DIRECTORY", "GIT_PREFIX", "GIT_WORK_TREE",
)  # fmt: skip


class GitError(Exception):
    """git failed; the text is its own last line."""


def run(
    words: list[str],
    *,
    environment: Mapping[str, str] | None = None,
    extra: Mapping[str, str] | None = None,
    folder: Path | None = None,
    timeout: float = CLONE_SECONDS,
) -> bytes:
    """Run `git WORDS` without asking anything and return its output. Raises GitError.

    `extra` are variables besides those of `environment`. git and its helpers end with this
    process, even if that is killed: they would write into the next run's files.
    """
    outside = os.environ if environment is None else environment
    variables = {
        name: value
        for name, value in outside.items()
        if name not in LOCAL_VARIABLES and not name.startswith("REBYTE_")
    }
    variables |= {"GIT_TERMINAL_PROMPT": "0", "GIT_LFS_SKIP_SMUDGE": "1", "LC_ALL": "C"}
    variables.setdefault("GIT_SSH_COMMAND", "ssh -o BatchMode=yes")
    variables |= extra or {}
    program = shutil.which("git", path=variables.get("PATH"))
    if program is None:
        raise GitError("git is not installed")
    pipe = subprocess.PIPE
    with ProcessGroup(
        [program, *SAFE, *words], folder=folder, variables=variables, stdout=pipe, stderr=pipe
    ) as group:
        try:
            output, errors = group.process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            raise GitError(f"git {words[0]} took longer than {timeout:g} s") from None
        status = group.process.returncode
    if status:
        raise GitError(_reason(errors.decode("utf-8", "replace"), words[0], status))
    return output


def check_working_tree(repository: Path) -> None:
    """Refuse a working tree that the repository's configuration (`core.worktree`) puts elsewhere.

    `git add` would take everything that is there. Raises GitError.
    """
    output = run(["-C", str(repository), "rev-parse", "--show-toplevel"])
    there = os.fsdecode(output.removesuffix(b"\n"))
    above = (one for one in (repository, *repository.parents) if os.path.lexists(one / ".git"))
    here = next(above, None)
    if here is None or os.path.realpath(here) != os.path.realpath(there):
        raise GitError(f"its working tree is elsewhere: {there}")


def untrusted(repository: Path, index: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """What `git add` in someone's working tree needs so that no command of its configuration runs.

    Variables besides those of `index`, which name an index of our own; and pathspecs of everything
    but the submodules, inside which git would run `git status` with their configuration, and other
    repositories, for which it fails if they have no commit. Filters of the user's own
    configuration, such as git-lfs, stay: without them, unchanged files would look changed.
    Raises GitError.
    """
    # A missing object is fetched by a program that the repository can name.
    variables = {"GIT_NO_LAZY_FETCH": "1"}
    here = ["-C", str(repository)]
    output = run([*here, "config", "-z", "--show-scope", "--name-only", "--list"])
    parts = output.decode("utf-8", "surrogateescape").split("\0")
    count = 0
    # Not with -c, which cannot spell a name with `=` in it.
    for scope, name in zip(parts[::2], parts[1::2], strict=False):
        found = re.fullmatch(r"filter\..*\.(clean|smudge|process|required)", name)
        if scope in ("local", "worktree") and found:
            variables[f"GIT_CONFIG_KEY_{count}"] = name
            variables[f"GIT_CONFIG_VALUE_{count}"] = "false" if found[1] == "required" else ""
            count += 1
    variables["GIT_CONFIG_COUNT"] = str(count)
    listed = run([*here, "ls-files", "--stage", "-z"], extra={**index, **variables})
    paths = ["."]
    for entry in listed.decode("utf-8", "surrogateescape").split("\0"):
        state, _, name = entry.partition("\t")
        if state.startswith("160000 "):
            paths.append(f":(exclude,literal){name}")
    new = [*here, "ls-files", "--others", "--exclude-standard", "-z"]
    listed = run(new, extra={**index, **variables})
    for name in listed.decode("utf-8", "surrogateescape").split("\0"):
        if name.endswith("/"):
            paths.append(f":(exclude,literal){name}")
    return variables, paths


def _reason(stderr: str, word: str, status: int) -> str:
    """git's own explanation: its last `fatal:` or `error:` line."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    told = [line for line in lines if line.startswith(("fatal:", "error:"))]
    return (told or lines or [f"git {word} exited with status {status}"])[-1]


def clone_url(repository: str) -> str:
    """The URL of `owner/repo` on GitHub; anything else is a URL or a path already."""
    if re.fullmatch(r"[A-Za-z0-9][\w.-]*/[\w.-]+", repository):
        return f"https://github.com/{repository.removesuffix('.git')}.git"
    return repository


def local_path(repository: str) -> Path | None:
    """The folder of a repository on this machine, or None for one elsewhere."""
    if repository.startswith("file://"):
        return Path(urlsplit(repository).path)
    return Path(repository) if repository.startswith("/") else None


def without_password(url: str) -> str:
    """The URL without the user and password in it: they are not for the agent."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or "@" not in parts.netloc:
        return url
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
