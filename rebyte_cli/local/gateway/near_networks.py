"""The networks that this machine is in itself, whose addresses may be public ones.

At home, IPv6 gives each device an address that is as public as a server's. What the kernel's
routing table reaches without a router in between is near all the same.
"""

from __future__ import annotations

import sys
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address
from pathlib import Path
from typing import NamedTuple

from ...system.clock import kernel_text

TABLES = Path("/proc/net")
HAS_GATEWAY, IS_REJECTED = 0x2, 0x200  # RTF_GATEWAY, RTF_REJECT (linux/route.h)
# A route for much of the world that has no router, such as 0.0.0.0/1, leads into a tunnel.
SHORTEST_PREFIX = {4: 8, 6: 16}


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
    """Whether the most specific route to an address has no router in between."""
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
