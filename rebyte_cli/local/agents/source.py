"""Where a repository is: `owner/repo` on GitHub, a URL, or a folder on this machine."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

CLONE_SECONDS = 1800


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
