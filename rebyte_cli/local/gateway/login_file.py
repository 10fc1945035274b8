"""Keys that are in a login file of the user: the agent's own program outside may renew them."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Sequence
from dataclasses import replace

from .gateway_settings import LoginFile, ModelRoute


class CurrentModels:
    """The models of a gateway, with the keys that their login files have now.

    For several threads.
    """

    def __init__(self, models: Sequence[ModelRoute]) -> None:
        self._models = list(models)
        self._seen: dict[str, tuple[int, int, int]] = {}  # by the name of the route
        self._lock = threading.Lock()

    def routes(self) -> list[ModelRoute]:
        """All of them. A file is read if it has changed since the last call."""
        with self._lock:
            self._models = [self._renewed(route) for route in self._models]
            return self._models

    def _renewed(self, route: ModelRoute) -> ModelRoute:
        if route.login is None:
            return route
        path = route.login.path
        try:
            found = os.stat(path)
        except OSError:
            return route
        version = found.st_ino, found.st_size, found.st_mtime_ns
        if self._seen.get(route.name) != version and (key := read_key(route.login)):
            self._seen[route.name] = version
            return replace(route, key=key)
        return route


def read_key(login: LoginFile) -> str:
    """The key that a login file has now; empty while it has none, or is being written."""
    try:
        with open(login.path, encoding="utf-8") as file:
            value = json.load(file)
        for name in login.names:
            value = value[name]
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return ""
    return value if isinstance(value, str) else ""
