"""The user's own proxy, for what leaves this machine: `HTTPS_PROXY` and the like.

curl's and requests' reading of these variables: lower case wins, `NO_PROXY` has names, which stand
for all names below them, addresses, networks (`10.0.0.0/8`) and `*`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import SplitResult, unquote, urlsplit

from ...system.addresses import is_loopback
from .allowed_hosts import HostPort


class Proxy(NamedTuple):
    """A proxy that speaks HTTP, and what it wants in `Proxy-Authorization`."""

    host: str
    port: int
    authorization: bytes | None


class ProxyUnusable(Exception):
    """The variable has no address of a proxy that could be used; the text says which variable."""


def proxy_for(variables: Mapping[str, str], scheme: str, target: HostPort) -> Proxy | None:
    """The proxy for a connection to `target`; None for a direct one. Raises ProxyUnusable."""
    if is_loopback(target.host) or _is_exempt(_variable(variables, "no_proxy")[1], target):
        return None
    name, url = _variable(variables, f"{scheme}_proxy")
    if not url:
        name, url = _variable(variables, "all_proxy")
    if not url:
        return None
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        host, port = parts.hostname, parts.port or 80
    except ValueError:
        raise ProxyUnusable(f"{name} is not an address") from None
    if parts.scheme != "http" or not host:
        raise ProxyUnusable(f"{name} is not the address of a proxy that begins with http://")
    return Proxy(host, port, basic_authorization(parts))


def basic_authorization(parts: SplitResult) -> bytes | None:
    """The user name and the password in a URL, as `Basic …`; None without."""
    if parts.username is None:
        return None
    from base64 import b64encode

    words = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return b"Basic " + b64encode(words.encode())


def password_of(parts: SplitResult) -> list[str]:
    """The password in a URL as it is written and as it is sent, alone and with the user name."""
    basic = basic_authorization(parts)
    if basic is None:
        return []
    written = parts.password or ""
    return [basic.decode().removeprefix("Basic "), written, unquote(written)]


def passwords(variables: Mapping[str, str]) -> list[str]:
    """The passwords of all proxies in these variables, as `password_of` gives them."""
    found = []
    for value in variables.values():
        try:
            found += password_of(urlsplit(value if "://" in value else f"http://{value}"))
        except ValueError:
            continue
    return found


def _variable(variables: Mapping[str, str], name: str) -> tuple[str, str]:
    for each in (name, name.upper()):
        if each in variables:
            return each, variables[each].strip()
    return name.upper(), ""


def _is_exempt(no_proxy: str, target: HostPort) -> bool:
    for entry in no_proxy.lower().replace(",", " ").split():
        name, _, port = entry.partition(":") if entry.count(":") == 1 else (entry, "", "")
        if port and port != str(target.port):
            continue
        name = name.removeprefix("*").strip("[].")
        if not name and entry == "*":
            return True
        if name and (target.host == name or target.host.endswith(f".{name}")):
            return True
        if _is_in_network(target.host, name):
            return True
    return False


def _is_in_network(host: str, network: str) -> bool:
    if "/" not in network:
        return False
    from ipaddress import ip_address, ip_network

    try:
        return ip_address(host) in ip_network(network, strict=False)
    except ValueError:
        return False
