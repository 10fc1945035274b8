"""What an agent may change in its login file: new tokens of the same account, and when they expire.

The file comes from inside the jail, where anything may have been written into it, and the user's
own agent obeys it outside: an added entry can name a command or a server. So the user's file stays
what it is, and only values of fields that are named here are replaced. A token that is a JWT says
whose it is; of an opaque one nothing can be known.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
import time
from collections.abc import Iterator, Sequence
from copy import deepcopy
from typing import Any, NamedTuple

TOKEN = re.compile(r"[A-Za-z0-9._~+/=-]{1,16384}")
DATE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:\d\d)")
LONGEST_EXPIRY_MS = 400 * 86_400_000
# The claims of a JWT that say who issued it, for whom and for which program.
IDENTITY = frozenset({
    "iss", "sub", "aud", "azp", "client_id", "email", "hd", "tid", "oid", "uid", "org_id",
    "organization_id", "account_id", "user_id", "chatgpt_account_id", "chatgpt_user_id",
    "chatgpt_account_user_id",
})  # fmt: skip
LONGEST_NAME = 60
MOST_NAMES = 5


class LoginEntry(NamedTuple):
    """One account in a login file: the object at `path`, in which `*` stands for any key.

    `tokens` and `times` may change. If a field of `same` does, the account is another one.
    """

    path: Sequence[str]
    tokens: Sequence[str]
    times: Sequence[str]
    same: Sequence[str] = ()


class OtherLogin(ValueError):
    """The file does not hold a refreshed login of the same account; the text says why."""


def parse(content: bytes) -> dict[str, Any] | None:
    """The JSON object in a login file; None if it is none, or not wholly written yet."""
    try:
        document = json.loads(content)
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None


def refreshed(
    ours: dict[str, Any], theirs: dict[str, Any], entries: Sequence[LoginEntry]
) -> tuple[dict[str, Any], list[str]]:
    """`ours` with the new tokens of `theirs`, and the names of what was left out.

    Raises OtherLogin if an account differs or a value is none that a service would issue.
    """
    result = deepcopy(ours)
    for entry in entries:
        for path in _places(ours, entry.path):
            old, new = _at(ours, path), _at(theirs, path)
            if isinstance(old, dict) and isinstance(new, dict):
                _at(result, path).update(_changes(entry, old, new))
    names = [name[:LONGEST_NAME] for name in _differences(result, theirs)]
    return result, names[:MOST_NAMES]


def _changes(entry: LoginEntry, old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    found = {
        name: new[name]
        for name in (*entry.tokens, *entry.times)
        if name in old and name in new and new[name] != old[name]
    }
    for name in entry.same:
        if old.get(name) != new.get(name):
            raise OtherLogin(f"{name} differs")
    for name, value in found.items():
        if type(value) is not type(old[name]):
            raise OtherLogin(f"{name} has another type")
        if name in entry.times:
            if not _is_time(value):
                raise OtherLogin(f"{name} is no time")
        elif not isinstance(value, str) or not TOKEN.fullmatch(value):
            raise OtherLogin(f"{name} is no token")
        elif _owner(value) != _owner(old[name]):
            raise OtherLogin(f"{name} is for another account")
    return found


def _is_time(value: object) -> bool:
    if isinstance(value, int) and not isinstance(value, bool):
        return 0 < value < time.time() * 1000 + LONGEST_EXPIRY_MS
    return isinstance(value, str) and DATE.fullmatch(value) is not None


def _owner(token: str) -> dict[str, Any] | None:
    """The claims of a JWT that tell its account; None for an opaque token."""
    parts = token.split(".")
    if len(parts) != 3:
        return None
    try:
        padded = parts[1] + "=" * (-len(parts[1]) % 4)
        claims = parse(base64.urlsafe_b64decode(padded))
    except (ValueError, binascii.Error):
        return None
    return None if claims is None else dict(_identity(claims, ()))


def _identity(claims: dict[str, Any], above: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    for name, value in claims.items():
        if isinstance(value, dict):
            yield from _identity(value, (*above, name))
        elif name in IDENTITY:
            yield "/".join((*above, name)), value


def _places(document: Any, path: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """The paths of the objects that `path` stands for in `document`."""
    if not path:
        yield ()
    elif isinstance(document, dict):
        first, *rest = path
        for key in document if first == "*" else [first]:
            for below in _places(document.get(key), rest):
                yield (key, *below)


def _at(document: Any, path: Sequence[str]) -> Any:
    for key in path:
        document = document.get(key) if isinstance(document, dict) else None
    return document


def _differences(ours: Any, theirs: Any, above: str = "") -> Iterator[str]:
    """The names of the values that differ."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for key in dict.fromkeys((*ours, *theirs)):
            yield from _differences(
                ours.get(key), theirs.get(key), f"{above}.{key}" if above else key
            )
    elif ours != theirs:
        yield above
