"""`credentials.json`: which profile has a key for which origin, and where it is.

    {"keys": {"work": {"https://api.rebyte.ai": {"store": "keyring", "backend": "…"}}}}

With `"store": "file"` the key itself stands beside it: only `--insecure-storage` does that.
That a key is recorded here is also what spares asking the keyring for one that it does not have.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..errors import KeyProblem
from .files import LOCK_NAME, locked, write_private

NAME = "credentials.json"
Keys = dict[str, dict[str, dict[str, str]]]


def read(folder: Path) -> Keys:
    """Profile to origin to record. Raises KeyProblem, without repeating what the file holds.

    A file with a key in it that others can read is refused, as ssh refuses such a file.
    """
    path = folder / NAME
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            document: Any = json.loads(file.read())
        keys: Keys = document["keys"]
        held = [record for origins in keys.values() for record in origins.values()]
        sane = all(
            isinstance(value, str)
            for record in held
            for value in (record["store"], *record.values())
        )
    except FileNotFoundError:
        return {}
    except OSError as problem:
        raise KeyProblem(f"cannot read {path}: {problem.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        sane = False
    if not sane:
        raise KeyProblem(
            f"{path} is damaged", hint=f"rm {path}, then `rebyte auth login` for each profile"
        ) from None
    if os.name == "posix" and mode & 0o077 and any("key" in record for record in held):
        raise KeyProblem(f"others can read the key in {path}", hint=f"chmod 600 {path}")
    return keys


@contextmanager
def edit(folder: Path) -> Iterator[Keys]:
    """Change the records in place: under a lock, read again, replaced in one step, mode 0600."""
    with locked(folder / LOCK_NAME):
        keys = read(folder)
        before = json.dumps(keys)
        yield keys
        for profile in [name for name, origins in keys.items() if not origins]:
            del keys[profile]
        if json.dumps(keys) != before:
            text = json.dumps({"keys": keys}, indent=2, ensure_ascii=False)
            write_private(folder / NAME, f"{text}\n".encode())
