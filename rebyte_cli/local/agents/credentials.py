"""An agent's login files: lent to the private HOME for one run.

They are copied in before the run and removed after it. While it runs, what the agent refreshed is
copied back if the original has not changed meanwhile, and what another run refreshed is copied in:
services make a refresh token invalid when it is used, so a run with an old copy would be logged
out. A note in the run's folder says what was lent, so that a process that finds the supervisor
dead can clean up.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from . import confined

NOTE = "lent.json"
LARGEST = 1_000_000


def lend(user_home: Path, home: Path, run_folder: Path, files: Iterable[str]) -> None:
    """Copy the login files that exist from the user's HOME to the private one."""
    lent: dict[str, str] = {}
    for name in files:
        content = _content(user_home / name)
        if content is None:
            continue
        lent[name] = _digest(content)
        # The note comes first: a file without one would stay behind after a crash.
        _note(run_folder, user_home, home, lent)
        confined.write(home, name, content)


def exchange(run_folder: Path) -> None:
    """Return what the agent has refreshed since, and hand it what others have. Safe to repeat.

    If both sides have changed, both stay as they are.
    """
    loan = _loan(run_folder)
    if loan is None:
        return
    user_home, home, lent = loan
    for name, digest in list(lent.items()):
        theirs, ours = confined.read(home, name, LARGEST), _content(user_home / name)
        is_old = theirs is not None and _digest(theirs) == digest
        if theirs is not None and not is_old and _is_login(theirs):
            if _return(user_home / name, theirs, digest):
                lent[name] = _digest(theirs)
        elif is_old and ours is not None and _digest(ours) != digest and _is_login(ours):
            confined.write(home, name, ours)
            lent[name] = _digest(ours)
        if lent[name] != digest:
            # Last: if this is not written any more, both sides seem changed and stay.
            _note(run_folder, user_home, home, lent)


def take_back(run_folder: Path) -> None:
    """Return refreshed login files to the user's HOME and remove the copies. Safe to repeat."""
    loan = _loan(run_folder)
    if loan is None:
        return
    exchange(run_folder)
    _, home, lent = loan
    for name in lent:
        confined.remove(home, name)
    (run_folder / NOTE).unlink(missing_ok=True)


def _note(run_folder: Path, user_home: Path, home: Path, lent: Mapping[str, str]) -> None:
    note = {"from": str(user_home), "to": str(home), "files": lent}
    partial = run_folder / f"{NOTE}.new"
    partial.write_text(json.dumps(note), encoding="utf-8")
    os.replace(partial, run_folder / NOTE)


def _loan(run_folder: Path) -> tuple[Path, Path, dict[str, str]] | None:
    """The user's HOME, the private one, and the digest of each file that was lent."""
    try:
        note = json.loads((run_folder / NOTE).read_text(encoding="utf-8"))
        return Path(note["from"]), Path(note["to"]), dict(note["files"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _content(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None


def _return(original: Path, content: bytes, digest: str) -> bool:
    """Replace the original, atomically, unless it changed since it was lent. Whether it did."""
    partial = original.with_name(f".{original.name}.rebyte")
    try:
        if _digest(original.read_bytes()) != digest:
            return False
        mode = original.stat().st_mode & 0o777
        partial.unlink(missing_ok=True)
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        # Through a link, as dotfile managers leave them.
        os.replace(partial, os.path.realpath(original))
    except OSError:
        partial.unlink(missing_ok=True)
        return False
    return True


def _is_login(content: bytes) -> bool:
    """Whether it is a JSON object: an agent's tool may have written anything there."""
    try:
        return isinstance(json.loads(content), dict)
    except (ValueError, RecursionError):
        return False


def _digest(content: bytes) -> str:
    import hashlib  # some milliseconds and megabytes that a run without login files saves

    return hashlib.sha256(content).hexdigest()
