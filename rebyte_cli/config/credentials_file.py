"""`credentials.json`: which profile has a key for which origin, and where that key is.

    {"keys": {"work": {"https://api.rebyte.ai": {"store": "keyring", "backend": "…"}}}}

The key itself is in it only after `auth login --insecure-storage` (`"store": "file"`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..errors import KeyProblem, Next
from ..system.files import locked, write_private
from ..system.permissions import LOCK_NAME, UnsafeFile, read_private

FILE_NAME = "credentials.json"
Keys = dict[str, dict[str, dict[str, str]]]


def read_keys(folder: Path) -> Keys:
    """Profile to origin to record. Raises KeyProblem, without repeating what the file holds.

    A file that others can change is refused, and one with a key in it that others can read, as
    ssh refuses such files.
    """
    path = folder / FILE_NAME
    try:
        document: Any = json.loads(read_private(path))
        keys: Keys = document["keys"]
        held = [record for origins in keys.values() for record in origins.values()]
        sane = all(
            isinstance(value, str)
            for record in held
            for value in (record["store"], *record.values())
        )
    except FileNotFoundError:
        return {}
    except UnsafeFile as problem:
        raise KeyProblem(problem.message, hint=problem.hint) from None
    except OSError as problem:
        raise KeyProblem(f"cannot read {path}: {problem.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        sane = False
    if not sane:
        raise KeyProblem(
            f"{path} is damaged",
            hint=f"rm {path}, then " + Next("auth", "login") + " for each profile",
        ) from None
    holds_key = any("key" in record for record in held)
    if holds_key and path.stat().st_mode & 0o077:
        raise KeyProblem(f"others can read the key in {path}", hint=f"chmod 600 {path}")
    return keys


@contextmanager
def edit_keys(folder: Path) -> Iterator[Keys]:
    """Change the records in place: under a lock, read again, replaced in one step, mode 0600."""
    with locked(folder / LOCK_NAME):
        keys = read_keys(folder)
        before = json.dumps(keys)
        yield keys
        for profile in [name for name, origins in keys.items() if not origins]:
            del keys[profile]
        if json.dumps(keys) != before:
            text = json.dumps({"keys": keys}, indent=2, ensure_ascii=False)
            write_private(folder / FILE_NAME, f"{text}\n".encode())
