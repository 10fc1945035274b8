"""The one door to keys: environment, command, keyring, file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from ..api.origin import check_key
from ..errors import MissingKey
from .config import Settings


class Found(NamedTuple):
    """A key that was checked for use, and for people where it came from."""

    key: str
    source: str


def find_key(
    settings: Settings,
    environment: Mapping[str, str],
    *,
    interactive: bool,
    note: Callable[[str], None] | None = None,
) -> Found:
    """The key for the settings' origin."""
    if settings.is_local:
        return Found("rbk_local", "built in")
    if not settings.named and environment.get("REBYTE_API_KEY", "").strip():
        return Found(check_key(environment["REBYTE_API_KEY"]), "REBYTE_API_KEY")
    raise MissingKey()
