"""How the gateway is started, and what it is told.

    process = Popen(command(), stdin=PIPE, stdout=PIPE, pass_fds=(listener,), env={}, cwd="/")

The settings go to its standard input, as one line of JSON, so that no list of processes and no
environment shows a key. It prints `ready` when it accepts connections. With a budget that others
share, it prints `budget?` before each request to a model, and before its end, and reads the reason
against it, a line of JSON, or `""`. It ends at SIGTERM, and when the reading end of its standard
output is closed: when its parent has died.
"""

from __future__ import annotations

import json
import os
import re
import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace

from ...system import python_process
from .jail_port import ADDRESS
from .model_budget import ModelBudget
from .model_prices import ModelPrices

# Installed, h11 is beside this package. Otherwise (an editable installation) `site` finds it, which
# takes a while.
_FIND_H11 = "\ntry: import h11\nexcept ImportError: import site; site.main()\n"
ANTHROPIC, OPENAI, GEMINI, ANY = "anthropic", "openai", "gemini", "any"
X_API_KEY, BEARER, X_GOOG_API_KEY, API_KEY = "x-api-key", "bearer", "x-goog-api-key", "api-key"
CREDENTIALS = (X_API_KEY, BEARER, X_GOOG_API_KEY, API_KEY)
MIB = 1024 * 1024


@dataclass(frozen=True)
class Limits:
    """What the programs in one sandbox may use of the gateway."""

    connections: int = 128  # at the same time
    requests_per_minute: int = 1200
    model_body: int = 64 * MIB  # bytes of one request to a model
    sent_by_tunnel: int = 256 * MIB  # bytes that go out through one connection to an allowed host
    sent_by_tunnels: int = 1024 * MIB  # and through all of them together
    received_by_tunnel: int = 8192 * MIB
    head_seconds: float = 60.0  # until the head of a request is there
    connect_seconds: float = 30.0
    idle_seconds: float = 1800.0  # without a byte in either direction: models think for minutes
    stalled_seconds: float = 120.0  # without that a server takes more of a request
    refusing_seconds: float = 10.0  # for a server to close, as one does that takes no request
    drain_seconds: float = 20.0  # to read from a model whose client has left what it used


@dataclass(frozen=True)
class LoginFile:
    """Where the key of an agent's login is: in the user's JSON file `path`, below the keys `names`.

    `renewal` says what renews it, as a clause.
    """

    path: str
    names: tuple[str, ...]
    agent: str
    renewal: str


@dataclass(frozen=True)
class ModelRoute:
    """A model that the user has configured, and where the agent finds it.

    `wire` (`anthropic`, `openai`, `gemini`, `any`) decides which requests pass. `base_url` is the
    user's own: http or https, with a path, and for a model without a key also with a user name and
    a password. A request for `prefix` and a path goes to `base_url` and that path, with `headers`,
    `query` (which may hold keys as well) and, if there is one, `key` as the `credential`. The agent
    sends `placeholder` instead of the key; without a placeholder, nothing is asked for. With a
    `login`, the key is what that file has at the time.
    """

    name: str
    wire: str
    base_url: str
    key: str = field(repr=False)
    credential: str
    placeholder: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    query: Mapping[str, str] = field(default_factory=dict, repr=False)
    login: LoginFile | None = None

    @property
    def prefix(self) -> str:
        """The first part of the path, by which the gateway knows this one."""
        is_plain = re.fullmatch(r"(?!x-)[a-z0-9-]{1,63}", self.name)
        return f"/{self.name}" if is_plain else f"/x-{self.name.encode().hex()}"

    @property
    def url(self) -> str:
        """The base URL for the agent."""
        return f"{ADDRESS}{self.prefix}"


@dataclass(frozen=True)
class GatewaySettings:
    """What a gateway is told.

    `listener` is the descriptor of a listening TCP socket, or of the Unix socket to which the jail
    sends one (see jail_port.py); `allow` has hosts (`host`, `host:port`,
    `*.example.com`); `record` is the file for the record of requests (see request_record.py).
    `user_proxy` and `certificates` are variables of the user's environment: `HTTPS_PROXY` and so
    on, `SSL_CERT_FILE` and so on. `budget` is what the run may still use of its models.
    """

    listener: int
    models: tuple[ModelRoute, ...]
    allow: tuple[str, ...]
    record: str
    user_proxy: Mapping[str, str] = field(default_factory=dict, repr=False)
    certificates: Mapping[str, str] = field(default_factory=dict)
    limits: Limits = Limits()
    budget: ModelBudget = field(default_factory=ModelBudget)

    def to_json(self) -> str:
        """The line for the gateway's standard input."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> GatewaySettings:
        """The settings of such a document. Raises ValueError, TypeError or KeyError for others."""
        document = json.loads(text)
        for model in document["models"]:
            model["login"] = LoginFile(**model["login"]) if model.get("login") else None
        document["models"] = tuple(ModelRoute(**model) for model in document["models"])
        document["allow"] = tuple(document["allow"])
        document["limits"] = Limits(**document.get("limits", {}))
        budget = document.get("budget", {})
        prices = ModelPrices(**budget.pop("prices", {}))
        document["budget"] = ModelBudget(**budget, prices=prices)
        return cls(**document)


def command() -> list[str]:
    """The words that start a gateway. Nothing in the current folder or environment changes it."""
    return python_process.command("rebyte_cli.local.gateway.gateway_server", first=_FIND_H11)


class CurrentModels:
    """The models of a gateway, with the keys that their login files have now.

    The agent's own program outside may renew those. For several threads.
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
