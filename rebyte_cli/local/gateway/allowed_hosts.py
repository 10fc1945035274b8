"""Which hosts the programs in a sandbox may connect to."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
_PORT = re.compile(r"[0-9]{1,5}")
HTTP_PORT, HTTPS_PORT = 80, 443


class HostPort(NamedTuple):
    """Where a connection is to go: a name or an address in its usual spelling, and a port."""

    host: str
    port: int

    @property
    def text(self) -> str:
        """`host:port`, an IPv6 address in brackets."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def entry(self) -> str:
        """The entry of the list that would allow it: without a port for HTTP and HTTPS."""
        return self.header(self.port if self.port in (HTTP_PORT, HTTPS_PORT) else 0)

    def header(self, default_port: int) -> str:
        """The text without the port if that is the default one, as in a `Host` header."""
        return self.text.removesuffix(f":{default_port}") if default_port else self.text


def parse_authority(text: str, default_port: int | None) -> HostPort | None:
    """The host and the port of `host:port`; None for anything unusual.

    No user name, no IPv6 zone, no percent-encoding, no octal, hexadecimal or shortened address. A
    final dot is removed, and the name is in lower case.
    """
    from ipaddress import IPv4Address, IPv6Address

    host, colon, port = text.lower().rpartition(":")
    if not colon or text.endswith("]"):
        host, port = text.lower(), "" if default_port is None else str(default_port)
    if not _PORT.fullmatch(port) or not 0 < int(port) < 65536:
        return None
    try:
        if host.startswith("[") and host.endswith("]"):
            return HostPort(str(IPv6Address(host[1:-1])), int(port)) if "%" not in host else None
        host = host.removesuffix(".")
        labels = host.split(".")
        if _NUMBER.fullmatch(labels[-1]):
            return HostPort(str(IPv4Address(host)), int(port))
    except ValueError:
        return None
    usable = len(host) <= 253 and all(map(_LABEL.fullmatch, labels))
    return HostPort(host, int(port)) if usable else None


class AllowedHosts:
    """The hosts on the list of a run: `host`, `host:port`, `*.example.com`, with a port or without.

    Without a port, an entry is for HTTP and HTTPS at their usual ports. `*.example.com` means every
    name that ends in `.example.com`, and not that name itself.
    """

    def __init__(self, entries: Iterable[str]) -> None:
        """Entries that are no hosts allow nothing."""
        self._exact: set[HostPort] = set()
        self._below: set[tuple[str, int]] = set()
        for entry in entries:
            self._add(entry.strip())

    def _add(self, entry: str) -> None:
        is_below = entry.startswith("*.")
        rest = to_ascii(entry[2:] if is_below else entry)
        with_default = parse_authority(rest, HTTPS_PORT)
        if with_default is None:
            return
        has_port = parse_authority(rest, None) is not None
        for port in (with_default.port,) if has_port else (HTTP_PORT, HTTPS_PORT):
            if is_below:
                self._below.add((f".{with_default.host}", port))
            else:
                self._exact.add(HostPort(with_default.host, port))

    def __bool__(self) -> bool:
        return bool(self._exact or self._below)

    def __contains__(self, target: HostPort) -> bool:
        return target in self._exact or any(
            target.port == port and target.host.endswith(suffix) for suffix, port in self._below
        )


def is_entry(text: str) -> bool:
    """Whether this can be on the list."""
    return bool(AllowedHosts([text]))


def to_ascii(host: str) -> str:
    """A name, maybe with a port, as the DNS has it (IDNA); as it is, if that is impossible."""
    if host.isascii():
        return host
    name, colon, port = host.partition(":")
    try:
        return name.encode("idna").decode("ascii") + colon + port
    except UnicodeError:
        return host
