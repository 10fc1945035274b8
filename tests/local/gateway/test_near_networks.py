"""Addresses in the networks of this machine, by its routing table."""

from __future__ import annotations

import socket
import sys
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from rebyte_cli.local.gateway import upstream
from rebyte_cli.local.gateway.allowed_hosts import HostPort
from rebyte_cli.local.gateway.refusal import GatewayRefusal
from rebyte_cli.local.gateway.upstream import is_near, read_routes

UP, GATEWAY, REJECT = 0x1, 0x2, 0x200


def number(address: str) -> str:
    """An IPv4 address as /proc/net/route has it."""
    return f"{int.from_bytes(IPv4Address(address).packed, sys.byteorder):08X}"


def ipv4(destination: str, mask: str, flags: int, gateway: str = "0.0.0.0") -> str:
    words = ["eth0", number(destination), number(gateway), f"{flags:04X}", "0", "0", "0"]
    return "\t".join([*words, number(mask), "0", "0", "0"])


def ipv6(destination: str, prefix: int, flags: int) -> str:
    address = socket.inet_pton(socket.AF_INET6, destination).hex()
    nothing = "0" * 32
    return f"{address} {prefix:02x} {nothing} 00 {nothing} 00000100 0 0 {flags:08x}     eth0"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """The tables of a machine at home, with a tunnel to a company and one to everywhere."""
    lines = [
        "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT",
        ipv4("0.0.0.0", "0.0.0.0", UP | GATEWAY, "203.0.113.1"),
        ipv4("0.0.0.0", "128.0.0.0", UP),
        ipv4("203.0.113.0", "255.255.255.0", UP),
        ipv4("203.0.113.64", "255.255.255.192", UP | GATEWAY, "203.0.113.2"),
        ipv4("198.51.100.0", "255.255.254.0", UP),
    ]
    (tmp_path / "route").write_text("\n".join(lines) + "\n")
    lines = [
        ipv6("::", 0, UP | GATEWAY),
        ipv6("2600:1:2:3::", 64, UP),
        ipv6("2600:1:2:4::", 64, UP | GATEWAY),
        ipv6("2600:1:2:5::", 64, UP | REJECT),
        ipv6("2000::", 3, UP),
        ipv6("::", 0, UP | REJECT),
    ]
    (tmp_path / "ipv6_route").write_text("\n".join(lines) + "\n")
    return tmp_path


@pytest.mark.parametrize(
    ("address", "near"),
    [
        ("203.0.113.9", True),
        ("::ffff:203.0.113.9", True),
        ("203.0.113.70", False),  # a router is in between
        ("198.51.101.7", True),
        ("198.51.102.7", False),
        ("8.8.8.8", False),
        ("2600:1:2:3:a:b:c:d", True),
        ("2600:1:2:4::1", False),
        ("2600:1:2:5::1", False),
        ("2001:4860:4860::8888", False),
    ],
)
def test_what_no_router_is_in_front_of_is_near(home: Path, address: str, near: bool) -> None:
    assert is_near(address, read_routes(home)) is near


def test_a_machine_without_such_a_table_is_in_no_network(tmp_path: Path) -> None:
    assert read_routes(tmp_path) == []
    assert not is_near("203.0.113.9", [])


@pytest.mark.parametrize("address", ["8.8.4.4", "2600:1:2:3::9"])
def test_a_neighbour_with_a_public_address_is_refused(home: Path, address: str) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    place = HostPort("nas.example", 443)
    upstream.check_address(family, address, place)
    with (home / "route").open("a") as table:
        table.write(ipv4("8.8.4.0", "255.255.255.0", UP) + "\n")
    with pytest.raises(GatewayRefusal, match="in no public network"):
        upstream.check_address(family, address, place, tables=home)


@pytest.mark.skipif(not Path("/proc/net/route").exists(), reason="no table of the kernel")
def test_the_kernel_s_own_table() -> None:
    """What it says of the way to loopback, or to the machine's own address."""
    routes = read_routes()
    words = [line.split() for line in Path("/proc/net/route").read_text().splitlines()[1:]]
    assert len([one for one in routes if one.network.version == 4]) == len(words)
    for line in Path("/proc/net/ipv6_route").read_text().splitlines():
        if line.startswith("0" * 31 + "1 80"):
            assert is_near("::1", routes)
