"""An agent's login files: lent to the private HOME for one run.

They are copied in before the run. When the run has ended they are copied back if the agent
refreshed them and the originals have not changed meanwhile, and removed. A note in the run's
folder says what was lent, so that a process that finds the supervisor dead can do the same.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path

from . import confined

NOTE = "lent.json"
LARGEST = 1_000_000


def lend(user_home: Path, home: Path, run_folder: Path, files: Iterable[str]) -> None:
    """Copy the login files that exist from the user's HOME to the private one."""
    lent = {}
    for name in files:
        try:
            content = (user_home / name).read_bytes()
        except OSError:
            continue
        lent[name] = _digest(content)
        # The note comes first: a file without one would stay behind after a crash.
        note = {"from": str(user_home), "to": str(home), "files": lent}
        (run_folder / NOTE).write_text(json.dumps(note), encoding="utf-8")
        confined.write(home, name, content)


def take_back(run_folder: Path) -> None:
    """Return refreshed login files to the user's HOME and remove the copies. Safe to repeat."""
    try:
        note = json.loads((run_folder / NOTE).read_text(encoding="utf-8"))
        user_home, home, files = Path(note["from"]), Path(note["to"]), note["files"]
    except (OSError, ValueError, KeyError, TypeError):
        return
    for name, digest in files.items():
        content = confined.read(home, name, LARGEST)
        if content is not None and _digest(content) != digest and _is_login(content):
            _return(user_home / name, content, digest)
        confined.remove(home, name)
    (run_folder / NOTE).unlink(missing_ok=True)


def _return(original: Path, content: bytes, digest: str) -> None:
    """Replace the original, atomically, unless it changed since it was lent."""
    partial = original.with_name(f".{original.name}.rebyte")
    try:
        if _digest(original.read_bytes()) != digest:
            return
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


def _is_login(content: bytes) -> bool:
    """Whether it is a JSON object: an agent's tool may have written anything there."""
    try:
        return isinstance(json.loads(content), dict)
    except (ValueError, RecursionError):
        return False


def _digest(content: bytes) -> str:
    import hashlib  # some milliseconds and megabytes that a run without login files saves

    return hashlib.sha256(content).hexdigest()
