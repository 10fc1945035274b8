"""Which repositories' `.rebyte.toml` the user has agreed to, and with which content.

As with direnv, a repository that changes its file has to be trusted again, and the same content in
another repository is not trusted: a command such as `./setup.sh` runs what is beside it.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlunsplit

from . import git
from .files import write_private
from .untrusted import url_parts

FOLDER = "trust"  # of the folder of the local service
LARGEST = 1 << 20  # bytes of a record


class TrustRecord(NamedTuple):
    """A content that the user trusts in a repository; `at` is ISO 8601, `asks` what for."""

    repository: str
    digest: str
    at: str
    asks: str


class Trust:
    """The records below the folder of the local service, a file for each."""

    def __init__(self, state_dir: Path) -> None:
        self._folder = state_dir / FOLDER

    def covers(self, repository: str, content: bytes) -> bool:
        """Whether the user trusts this content in this repository (see `key_of`)."""
        found = self._read(self._file(repository, _digest(content)))
        return found is not None and found[:2] == (repository, _digest(content))

    def add(self, repository: str, content: bytes, asks: str) -> None:
        """Remember that the user trusts it. Raises RebyteError if the folder refuses."""
        at = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        record = TrustRecord(repository, _digest(content), at, asks)
        text = json.dumps(record._asdict(), indent=2) + "\n"
        write_private(self._file(repository, record.digest), text.encode())

    def remove(self, repository: str) -> int:
        """Forget every content of a repository; how many there were. Raises OSError."""
        found = [path for path, record in self._all() if record.repository == repository]
        for path in found:
            path.unlink(missing_ok=True)
        return len(found)

    def records(self) -> list[TrustRecord]:
        """All of them, the newest first."""
        return sorted((record for _, record in self._all()), key=lambda one: one.at, reverse=True)

    def _all(self) -> list[tuple[Path, TrustRecord]]:
        read = ((path, self._read(path)) for path in self._folder.glob("*.json"))
        return [(path, record) for path, record in read if record is not None]

    def _file(self, repository: str, digest: str) -> Path:
        name = json.dumps([repository, digest]).encode()
        return self._folder / f"{hashlib.sha256(name).hexdigest()[:40]}.json"

    def _read(self, path: Path) -> TrustRecord | None:
        try:
            with path.open("rb") as file:
                found = json.loads(file.read(LARGEST))
            return TrustRecord(*(str(found[name]) for name in TrustRecord._fields))
        except (OSError, ValueError, TypeError, KeyError):
            return None  # not there, or damaged: that is no trust


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def key_of(repository: str | os.PathLike[str], extra: Mapping[str, str] | None = None) -> str:
    """What stands for a repository on this machine, or for the one that a URL names.

    All working trees of a repository are one; so are the ways to write an address that proves who
    answers (https, and ssh as `git`, as forges have it: for any other login, a path may begin in a
    home). Raises GitFailed for a folder without a repository, and for what is no address.
    """
    text = os.fspath(repository)
    if text.startswith("file:///"):
        text = text.removeprefix("file://")
    if text.startswith("/"):
        return os.path.realpath(git.common_folder(text, extra))
    if re.fullmatch(r"[A-Za-z0-9][\w.-]*/[\w.-]+", text):
        text = f"https://github.com/{text}"
    elif found := re.fullmatch(r"((?:[^@/\s]+@)?[^:/\s]+):(?!//)(.+)", text):
        text = f"ssh://{found[1]}{'' if found[2].startswith('/') else '/~/'}{found[2]}"
    parts = url_parts(text)
    if parts is None:
        raise git.GitFailed("no address of a repository: it cannot be read")
    login, _, host = parts.netloc.rpartition("@")
    user = login.partition(":")[0]
    path = urlunsplit(parts._replace(scheme="", netloc=""))
    if parts.scheme == "ssh" and user != "git":
        return f"ssh://{user}@{host.lower()}{path}"
    path = path.removeprefix("/~/") if parts.scheme == "ssh" else path
    place = f"{host.lower()}/{path.strip('/')}".removesuffix(".git")
    return place if parts.scheme in ("https", "ssh") else f"{parts.scheme}://{place}"
