"""Running git on our side of the jail, so that nothing in a repository runs here."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

CLONE_SECONDS = 1800
PR_SET_PDEATHSIG = 1
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
    folder: Path | None = None,
    timeout: float = CLONE_SECONDS,
    dies_with_us: bool = False,
) -> bytes:
    """Run `git WORDS` without asking anything and return its output. Raises GitError.

    With `dies_with_us` it ends with this process, even if that is killed (Linux).
    """
    outside = os.environ if environment is None else environment
    variables = {
        name: value
        for name, value in outside.items()
        if name not in LOCAL_VARIABLES and not name.startswith("REBYTE_")
    }
    variables |= {"GIT_TERMINAL_PROMPT": "0", "GIT_LFS_SKIP_SMUDGE": "1", "LC_ALL": "C"}
    variables.setdefault("GIT_SSH_COMMAND", "ssh -o BatchMode=yes")
    try:
        done = subprocess.run(
            ["git", *SAFE, *words],
            env=variables,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=timeout,
            preexec_fn=_dies_with_parent() if dies_with_us else None,
            check=False,
        )
    except FileNotFoundError:
        raise GitError("git is not installed") from None
    except subprocess.TimeoutExpired:
        raise GitError(f"git {words[0]} took longer than {timeout:g} s") from None
    if done.returncode:
        raise GitError(_reason(done.stderr.decode("utf-8", "replace"), words[0], done.returncode))
    return done.stdout


def _dies_with_parent() -> Callable[[], object] | None:
    """What a child calls before its program so that the kernel kills it after its parent."""
    if not sys.platform.startswith("linux"):
        return None
    try:
        import ctypes

        prctl = ctypes.CDLL(None).prctl
    except (ImportError, OSError, AttributeError):  # a Python, or a C library, without it
        return None
    return lambda: prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


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
