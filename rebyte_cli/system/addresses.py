"""How far away a host is: this machine, its link, its network, or anywhere.

The client must not follow the API into a network more private than the API's own, and an agent in
its sandbox must not reach one at all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ipaddress import IPv4Address, IPv6Address

THIS_MACHINE, THIS_LINK, THIS_NETWORK, ANYWHERE = range(4)
_LOCAL_NAT64 = 0x64FF9B0001  # the first 48 bits of 64:ff9b:1::/48
_NAT64 = 0x64FF9B << 64  # the first 96 bits of 64:ff9b::/96
_SIX_TO_FOUR = 0x2002  # the first 16 bits of 2002::/16
# 192.0.0.0/24 (RFC 6890), where Oracle's cloud has an agent, and 192.88.99.0/24 (RFC 7526), the way
# into 6to4.
_PROTOCOLS, _SIX_TO_FOUR_RELAY = 0xC00000, 0xC05863
# The agent of a virtual machine on Azure, which hands out its secrets, at a public address.
_AZURE_AGENT = 0xA83F8110  # 168.63.129.16


def is_loopback(host: str | None) -> bool:
    """Whether a host name (lower case, no brackets) can only mean this machine.

    An address of 127/8 counts when it is written as four octets: `127.999.1.1` is a DNS name.
    """
    if host in ("localhost", "::1"):
        return True
    parts = (host or "").split(".")
    octets = all(part.isascii() and part.isdigit() and len(part) < 4 for part in parts)
    return octets and len(parts) == 4 and parts[0] == "127" and max(map(int, parts)) < 256


def reach(host: str) -> int:
    """How far away a host is, from THIS_MACHINE to ANYWHERE.

    A name counts as public, except those that mean this machine. An address in any other than its
    usual spelling (`127.1`, `0x7f000001`, `fe80::1%eth0`) counts as this machine: resolvers may
    take it for that.
    """
    host = host.rstrip(".")
    if is_loopback(host) or host.endswith(".localhost"):
        return THIS_MACHINE
    last = host.rpartition(".")[2]
    if ":" not in host and not last.isdigit() and not last.startswith("0x"):
        return ANYWHERE
    from ipaddress import ip_address

    try:
        found = ip_address(host)
    except ValueError:
        return THIS_MACHINE
    if getattr(found, "scope_id", None):  # a zone: only what is on a link needs one
        return THIS_LINK
    return min(map(_reach_of, _destinations(found)))


def _reach_of(found: IPv4Address | IPv6Address) -> int:
    number = int(found)
    if found.is_loopback or found.is_unspecified:
        return THIS_MACHINE
    if found.is_link_local or (found.version == 4 and number == _AZURE_AGENT):
        return THIS_LINK
    # Versions of Python differ in what is global beside these.
    if found.version == 4:
        is_local = number >> 8 in (_PROTOCOLS, _SIX_TO_FOUR_RELAY)
    else:
        # Only 2000::/3 is in use (IANA), and what stands for an IPv4 address, which counts, too.
        is_local = number >> 125 != 1 and number >> 32 not in (0, _NAT64)
        is_local = is_local or number >> 112 == _SIX_TO_FOUR
    is_local = is_local or found.is_multicast
    return ANYWHERE if found.is_global and not is_local else THIS_NETWORK


def _destinations(found: IPv4Address | IPv6Address) -> list[IPv4Address | IPv6Address]:
    """Where packets to an address may end up: there, or at an IPv4 address that it holds.

    Systems take mapped and compatible addresses for the IPv4 address (RFC 4291), gateways those of
    NAT64 (RFC 6052, RFC 8215), tunnels those of 6to4 (RFC 3056) and Teredo (RFC 4380).
    """
    from ipaddress import IPv4Address

    if isinstance(found, IPv4Address):
        return [found]
    if found.ipv4_mapped is not None:
        return [found.ipv4_mapped]
    number = int(found)
    last = IPv4Address(number & 0xFFFFFFFF)
    held = [found.sixtofour, *(found.teredo or ())]
    if number >> 32 in (0, _NAT64):
        held.append(last)
    if number >> 80 == _LOCAL_NAT64:  # whose gateways read the end, or around the ninth byte
        held += [last, IPv4Address((number >> 64 & 0xFFFF) << 16 | number >> 40 & 0xFFFF)]
    return [found, *(one for one in held if one is not None)]
