"""Commits for a service on another machine, which cannot read the repository here.

They travel as a git bundle: of the commits that the service knows already, nothing is sent again.
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import BadUsage
from ..system import git
from .base_commit import ID
from .repository import base_commit, folder_of

if TYPE_CHECKING:
    from ..api.client import RebyteClient

SECONDS = 1800.0  # that git may take to pack a large repository
DETACHED = "commit"  # begins the name of the branch of a commit that is on none here


class Bundles:
    """What was sent during this command: many tasks may start from one commit. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sent: dict[tuple[str, str], dict[str, str]] = {}

    def replaced(self, client: RebyteClient, body: Mapping[str, Any]) -> dict[str, Any]:
        """The body of POST /tasks, with a repository of this machine as the service has it.

        What is missing there is uploaded first. Raises BadUsage for a repository that cannot be
        sent, and what the calls raise.
        """
        folder = folder_of(str(body.get("localRepository") or ""))
        if folder is None:
            return dict(body)
        commit = base_commit(None, body)
        if commit is None:
            raise BadUsage(f"{folder} has no commit to start from", hint="Commit something first")
        with self._lock:
            place = self._sent.get((folder, commit))
            if place is None:
                place = self._sent[folder, commit] = _sent(
                    client, folder, commit, body.get("branchName")
                )
        return {**body, **place}


def _sent(client: RebyteClient, folder: str, commit: str, branch: Any) -> dict[str, str]:
    """Where the service has the commit."""
    git.check_repository(folder)
    if git.run(["rev-parse", "--is-shallow-repository"], folder).strip() == b"true":
        raise BadUsage(
            f"{folder} is a shallow clone, which has no whole history to send",
            hint="Run git fetch --unshallow",
        )
    roots = git.run(["rev-list", "--max-parents=0", commit], folder).decode().split()
    # Trust there is in what has this key: it must not cover a fork in another folder.
    place = [socket.gethostname(), os.path.realpath(git.common_folder(folder)), min(roots)]
    key = hashlib.sha256(json.dumps(place).encode()).hexdigest()
    known = [
        each
        for each in client.repository_commits(key)
        if ID.fullmatch(each) and git.has(folder, f"{each}^{{commit}}")
    ]
    words = ["symbolic-ref", "--quiet", "--short", "HEAD"]
    name = branch or git.line_if_any(words, folder) or DETACHED
    added: dict[str, Any] = {"commit": commit, "name": str(name)}
    missing = ["rev-list", "--max-count=1", commit, *(f"^{each}" for each in known)]
    if git.run(missing, folder).strip():
        ref = _name_of(folder, commit, branch)
        with tempfile.TemporaryDirectory(prefix="rebyte-") as scratch:
            file = Path(scratch) / "commits.bundle"
            words = ["bundle", "create", "--quiet", str(file), ref]
            git.run([*words, *(f"^{each}" for each in known)], folder, timeout=SECONDS)
            uploaded = client.upload_file(file)
        added |= {"fileId": uploaded["id"], "ref": ref}
    answer = client.add_commits(key, added)
    return {"localRepository": answer["path"], "branchName": answer["branch"]}


def _name_of(folder: str, commit: str, branch: Any) -> str:
    """A name of the commit that a bundle can have: that of its branch, or HEAD."""
    names = [f"refs/heads/{branch}", f"refs/tags/{branch}"] if branch else ["HEAD"]
    for name in names:
        if git.commit_of(folder, name) == commit:
            return name
    raise BadUsage(f"the branch moved away from {commit[:12]} meanwhile", hint="Try again")
