"""Connections upstream: to a model, or to a host on the list of a run.

A host on the list may not be near, nor in a network of this machine: what a name resolves to is
checked, address by address, and the connection goes to one of those that were checked, so that a
second answer of the DNS changes nothing. The server of a model may be anywhere, because the user
has named it.
"""

from __future__ import annotations

import os
import socket
import ssl
import sys
import threading
from collections.abc import Mapping
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address
from pathlib import Path
from typing import NamedTuple

import h11

from ...system.addresses import ANYWHERE, reach
from ...system.clock import kernel_text
from ...system.deadline import Deadline
from .allowed_hosts import HostPort
from .gateway_settings import GatewaySettings
from .refusal import GatewayRefusal
from .user_proxy import Proxy, ProxyUnusable, proxy_for

ADDRESS_SECONDS = 10.0  # for one of several addresses
LARGEST_HEAD = 65536  # bytes of a head, of a proxy's answer too
TABLES = Path("/proc/net")
HAS_GATEWAY, IS_REJECTED = 0x2, 0x200  # RTF_GATEWAY, RTF_REJECT (linux/route.h)
# A route for much of the world that has no router, such as 0.0.0.0/1, leads into a tunnel.
SHORTEST_PREFIX = {4: 8, 6: 16}


class UpstreamConnection(NamedTuple):
    """A connected socket, and the proxy that takes a request for http:// in absolute form."""

    sock: socket.socket
    proxy: Proxy | None


class UpstreamConnector:
    """Makes connections, with the user's proxy and certificates. For several threads."""

    def __init__(self, settings: GatewaySettings) -> None:
        self._seconds = settings.limits.connect_seconds
        self._proxies = settings.user_proxy
        self._certificates = settings.certificates
        self._context: ssl.SSLContext | None = None
        self._lock = threading.Lock()

    def to_model(self, scheme: str, target: HostPort) -> UpstreamConnection:
        """A connection to a model's server, over TLS for https. Raises GatewayRefusal."""
        return self._connect(scheme, target, is_trusted=True)

    def to_allowed(self, scheme: str, target: HostPort) -> UpstreamConnection:
        """A connection to a host on the list, for a tunnel (`https`) or one request (`http`).

        Raises GatewayRefusal, also if an address of it is near.
        """
        return self._connect(scheme, target, is_trusted=False)

    def _connect(self, scheme: str, target: HostPort, *, is_trusted: bool) -> UpstreamConnection:
        deadline = Deadline(self._seconds)
        try:
            proxy = proxy_for(self._proxies, scheme, target)
        except ProxyUnusable as error:
            raise GatewayRefusal(502, str(error)) from None
        if proxy is None:
            sock = _connect_directly(target, deadline, is_trusted=is_trusted)
        else:
            if not is_trusted:
                _check_if_known(target)
            sock = _connect_to_proxy(proxy, deadline)
        try:
            if proxy is not None and scheme == "https":
                _ask_for_tunnel(sock, proxy, target)
                proxy = None
            if is_trusted and scheme == "https":
                sock = self._wrap(sock, target, deadline)
        except BaseException:
            sock.close()
            raise
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        return UpstreamConnection(sock, proxy)

    def _wrap(self, sock: socket.socket, target: HostPort, deadline: Deadline) -> ssl.SSLSocket:
        try:
            with self._lock:
                if self._context is None:
                    self._context = _make_context(self._certificates)
            sock.settimeout(max(0.1, deadline.left()))
            return self._context.wrap_socket(sock, server_hostname=target.host)
        except ssl.SSLCertVerificationError as error:
            reason = f"the certificate of {target.text} is not valid: {error.verify_message}"
            raise GatewayRefusal(502, reason) from None
        except TimeoutError:
            raise GatewayRefusal(504, f"{target.text} did not answer in TLS in time") from None
        except (OSError, ValueError) as error:
            raise GatewayRefusal(502, f"no TLS with {target.text}: {_why(error)}") from None


def _connect_directly(target: HostPort, deadline: Deadline, *, is_trusted: bool) -> socket.socket:
    addresses = _resolve(target)
    if not is_trusted:
        for family, address in addresses:
            check_address(family, address[0], target)
    return _connect_to_any(target.text, addresses, deadline)


def _connect_to_proxy(proxy: Proxy, deadline: Deadline) -> socket.socket:
    place = HostPort(proxy.host, proxy.port)
    return _connect_to_any(f"the proxy {place.text}", _resolve(place), deadline)


_Address = tuple[socket.AddressFamily, tuple[str, int] | tuple[str, int, int, int]]


def _resolve(target: HostPort) -> list[_Address]:
    try:
        found = socket.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise GatewayRefusal(502, f"{target.host} cannot be resolved: {_why(error)}") from None
    addresses: list[_Address] = []
    for family, _, _, _, address in found:
        if family in (socket.AF_INET, socket.AF_INET6):
            addresses.append((family, address))  # type: ignore[arg-type]  # these families' form
    if not addresses:
        raise GatewayRefusal(502, f"{target.host} has no address")
    return addresses


def _check_if_known(target: HostPort) -> None:
    """Check the addresses of a host that a proxy will resolve, if this machine knows any."""
    try:
        addresses = _resolve(target)
    except GatewayRefusal:
        return  # behind such proxies, there is often no DNS for the outside
    for family, address in addresses:
        check_address(family, address[0], target)


def check_address(
    family: socket.AddressFamily, address: str, target: HostPort, *, tables: Path = TABLES
) -> None:
    """Raise GatewayRefusal (403) for an address of this machine, its networks or a private one.

    `tables` is the folder of the kernel's routes.
    """
    is_local = reach(address) < ANYWHERE or _is_own(family, address)
    if is_local or is_near(address, read_routes(tables)):
        reason = f"{target.host} has the address {address}, which is in no public network"
        raise GatewayRefusal(403, reason)


def _is_own(family: socket.AddressFamily, address: str) -> bool:
    """Whether an interface of this machine has the address: only such can be bound to.

    A machine that may bind to any (`ip_nonlocal_bind`) asks its routes instead: what it sends to
    its own address comes from there.
    """
    anything = "192.0.2.1" if family == socket.AF_INET else "2001:db8::1"  # for examples only
    if not _can_bind(family, anything):
        return _can_bind(family, address)
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((address, 9))  # sends nothing
            return bool(probe.getsockname()[0] == address)
        except OSError:
            return False


def _can_bind(family: socket.AddressFamily, address: str) -> bool:
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((address, 0))
        except OSError:
            return False
        return True


def _connect_to_any(name: str, addresses: list[_Address], deadline: Deadline) -> socket.socket:
    reason, status = "no address", 502
    for family, address in addresses:
        if not (left := deadline.left()):
            break
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            sock.settimeout(min(left, ADDRESS_SECONDS) if len(addresses) > 1 else left)
            sock.connect(address)
            return sock
        except TimeoutError:
            sock.close()
            reason, status = "timed out", 504
        except OSError as error:
            sock.close()
            reason, status = _why(error), 502
    raise GatewayRefusal(status, f"cannot connect to {name}: {reason}")


def _ask_for_tunnel(sock: socket.socket, proxy: Proxy, target: HostPort) -> None:
    """CONNECT through the user's proxy, whose answer is read byte by byte: the rest is not its."""
    connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=LARGEST_HEAD)
    headers = [(b"Host", target.text.encode())]
    if proxy.authorization is not None:
        headers.append((b"Proxy-Authorization", proxy.authorization))
    request = h11.Request(method="CONNECT", target=target.text, headers=headers)
    try:
        sock.sendall(connection.send(request) or b"")
        connection.send(h11.EndOfMessage())
        while (event := connection.next_event()) is h11.NEED_DATA:
            connection.receive_data(sock.recv(1))
    except TimeoutError:
        raise GatewayRefusal(504, f"the proxy {proxy.host} did not answer in time") from None
    except (OSError, h11.ProtocolError) as error:
        raise GatewayRefusal(502, f"the proxy {proxy.host} did not answer: {_why(error)}") from None
    status = event.status_code if isinstance(event, h11.Response) else 0
    if not 200 <= status < 300:
        raise GatewayRefusal(502, f"the proxy {proxy.host} answered {status} for {target.text}")


def _make_context(certificates: Mapping[str, str]) -> ssl.SSLContext:
    """As requests does it: named certificates replace those of the system.

    `NODE_EXTRA_CA_CERTS` adds to them, as in the agents that run on Node.js.
    """
    get = certificates.get
    chosen = get("REQUESTS_CA_BUNDLE") or get("CURL_CA_BUNDLE") or get("SSL_CERT_FILE")
    folder = None if chosen else get("SSL_CERT_DIR")
    if chosen and os.path.isdir(chosen):
        chosen, folder = None, chosen
    context = ssl.create_default_context(cafile=chosen, capath=folder)
    if not chosen and not folder and not context.cert_store_stats()["x509"]:
        import certifi  # an interpreter that does not know where its system keeps them

        context.load_verify_locations(certifi.where())
    if more := get("NODE_EXTRA_CA_CERTS"):
        context.load_verify_locations(more)
    context.set_alpn_protocols(["http/1.1"])
    return context


def _why(error: Exception) -> str:
    """What the system says about an error, without addresses and the like."""
    return getattr(error, "strerror", None) or getattr(error, "reason", None) or str(error)


class NetworkRoute(NamedTuple):
    """One line of a routing table."""

    network: IPv4Network | IPv6Network
    has_gateway: bool


def read_routes(tables: Path = TABLES) -> list[NetworkRoute]:
    """The routes of this machine (proc_net(5)); none where there is no such file."""
    found = []
    for line in kernel_text(f"{tables}/route").splitlines()[1:]:
        _, destination, _, flags, _, _, _, mask = line.split()[:8]
        # The kernel prints each as a number in the byte order of the machine.
        address = int(destination, 16).to_bytes(4, sys.byteorder)
        found.append(_route(IPv4Network((address, int(mask, 16).bit_count())), int(flags, 16)))
    for line in kernel_text(f"{tables}/ipv6_route").splitlines():
        words = line.split()
        network = IPv6Network((bytes.fromhex(words[0]), int(words[1], 16)))
        found.append(_route(network, int(words[8], 16)))
    return [route for route in found if route is not None]


def is_near(address: str, routes: list[NetworkRoute]) -> bool:
    """Whether the most specific route to an address has no router in between.

    At home, IPv6 gives each device an address that is as public as a server's.
    """
    found = ip_address(address)
    if isinstance(found, IPv6Address) and found.ipv4_mapped is not None:
        found = found.ipv4_mapped
    ways = [each for each in routes if found in each.network]
    longest = max((each.network.prefixlen for each in ways), default=0)
    return longest >= SHORTEST_PREFIX[found.version] and not all(
        each.has_gateway for each in ways if each.network.prefixlen == longest
    )


def _route(network: IPv4Network | IPv6Network, flags: int) -> NetworkRoute | None:
    return None if flags & IS_REJECTED else NetworkRoute(network, bool(flags & HAS_GATEWAY))
