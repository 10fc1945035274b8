"""How an agent reaches its models: what the gateway has to know, and what the jail sees instead.

The gateway sends an agent's requests to where the user's own settings say, with the user's key. In
the jail there is the gateway's address, and a placeholder of this run in place of each key.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from ...gateway.gateway_settings import (
    ANTHROPIC,
    BEARER,
    GEMINI,
    OPENAI,
    X_API_KEY,
    X_GOOG_API_KEY,
    LoginFile,
    ModelRoute,
)


class VendorApi(NamedTuple):
    """The API of one vendor: where it is, and how programs that use it are told of another place.

    `root` is what the base URL of a program begins with, such as `…/v1` for OpenAI's.
    """

    root: str
    credential: str
    key_variable: str
    url_variable: str
    key_start: str


VENDORS = {
    ANTHROPIC: VendorApi(
        "https://api.anthropic.com", X_API_KEY, "ANTHROPIC_API_KEY", "ANTHROPIC_BASE_URL",
        "sk-ant-api03-",
    ),
    OPENAI: VendorApi(
        "https://api.openai.com/v1", BEARER, "OPENAI_API_KEY", "OPENAI_BASE_URL", "sk-proj-"
    ),
    GEMINI: VendorApi(
        "https://generativelanguage.googleapis.com", X_GOOG_API_KEY, "GEMINI_API_KEY",
        "GOOGLE_GEMINI_BASE_URL", "AIza",
    ),
}  # fmt: skip


class LoginExpired(ValueError):
    """The user's login of an agent is too old; the text says how to renew it."""


def check_expiry(login: LoginFile, expiry: object) -> None:
    """Raise LoginExpired if a login's `expiry` (milliseconds since 1970) has passed.

    Renewing it is the agent's own affair: here, an answer that is lost would log the user out.
    """
    if isinstance(expiry, int | float) and expiry < time.time() * 1000:
        raise LoginExpired(f"the login of {login.agent} has expired: {login.renewal}")


def placeholder(start: str) -> str:
    """A key that means nothing outside this run."""
    return f"{start}{os.urandom(24).hex()}"


@dataclass(frozen=True)
class AgentAccess:
    """What one run of an agent reaches, and what its jail gets for that.

    `variables` are set in the jail, `withheld` stay outside, as does every other variable with a
    key, and `files` are written into HOME. `inside` says what kind of credential, `key` or `login`,
    the agent has to have itself, because no gateway can put it into its requests: then its own
    variables and `logins`, files below HOME, go in, and it may connect to `hosts`.
    """

    models: tuple[ModelRoute, ...] = ()
    variables: Mapping[str, str] = field(default_factory=dict)
    withheld: frozenset[str] = frozenset()
    files: Mapping[str, str] = field(default_factory=dict)
    inside: str = ""
    logins: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()

    def seen(self, outside: Mapping[str, str], keys: Iterable[str]) -> dict[str, str]:
        """The environment `outside` as the jail may see it, in which `keys` name secrets."""
        hidden = {*self.withheld, *(() if self.inside == "key" else keys)}
        kept = {name: value for name, value in outside.items() if name not in hidden}
        return {**kept, **self.variables}


def with_key(
    api: str,
    outside: Mapping[str, str],
    key: str,
    address: str,
    headers: Mapping[str, str] | None = None,
) -> AgentAccess:
    """The access to the API of a vendor, by two variables: the `key`, and an `address` if it is
    another one.
    """
    vendor = VENDORS[api]
    model = ModelRoute(
        api, api, outside.get(address) or vendor.root, outside.get(key, ""), vendor.credential,
        placeholder(vendor.key_start), headers or {},
    )  # fmt: skip
    return AgentAccess((model,), {key: model.placeholder, address: model.url})


def without_password(address: str) -> str:
    """A URL without the user name and the password in it."""
    start, slashes, rest = address.partition("://")
    place, slash, path = rest.partition("/")
    return f"{start}{slashes}{place.rpartition('@')[2]}{slash}{path}" if slashes else address


def header_lines(text: str) -> dict[str, str]:
    """The headers in lines such as `Name: value`."""
    pairs = (line.partition(":") for line in text.splitlines() if ":" in line)
    return {name.strip(): value.strip() for name, _, value in pairs}
